//! One HTTP exchange: the page, an upgrade, or an error that says what to change.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use ring::digest;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use super::Front;
use super::advertised::GATEWAY;
use super::arrival::StampedStream;
use super::auth::{Admission, Asking, AuthError};
use super::homes::{self, ROUTE_PATH};
use super::places::{Peer, Place};
use super::socket::linger;
use super::token::excerpt;
use crate::clock::unix_s;
use crate::gateway::Joining;
use crate::limits::HEAD_BYTES_MAX;
use crate::metrics::REFUSALS_TOTAL;
use crate::types::{RoomId, Since};
use crate::wire::client::Encoding;

const ROOM_PATH: &str = "/v1/room/";
const SUBPROTOCOLS: &str = "lasthit.v1.json or lasthit.v1.msgpack";
const TIMED_OUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Why a connection is turned away before it has asked for anything.
pub(super) const TOO_MANY_CONNECTIONS: &str = "too_many_connections";

/// What the gateway grants to a client whose upgrade it accepts.
pub(super) struct Grant {
    pub(super) joining: Joining,
    pub(super) encoding: Encoding,
    pub(super) valid_for: Option<Duration>,
    pub(super) place: Place,
}

/// A connection whose upgrade was accepted.
pub(super) struct Upgraded {
    pub(super) stream: StampedStream,
    /// The bytes that were read after the request.
    pub(super) rest: Bytes,
    pub(super) grant: Grant,
}

/// Why a request was refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Problem {
    /// Nobody knows right now where a room is at home.
    pub(super) const NO_HOME: &str = "no_home";

    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    pub(super) fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    fn response(self) -> Response<Full<Bytes>> {
        metrics::counter!(REFUSALS_TOTAL, "code" => self.code).increment(1);
        let body = serde_json::json!({ "code": self.code, "message": self.message }).to_string();
        let mut response = respond(self.status, "application/json", body);
        if self.status == StatusCode::UPGRADE_REQUIRED {
            let headers = response.headers_mut();
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        if self.code == Self::NO_HOME {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::FORBIDDEN);
        Self::new(status, error.code, error.message)
    }
}

/// Answers the connection's request. Returns the connection when the request was an upgrade, and closes it otherwise.
pub(super) async fn exchange(front: &Front, peer: Peer, stream: StampedStream) -> Option<Box<Upgraded>> {
    let (granted, answered) = (Mutex::new(None), AtomicBool::new(false));
    let service = service_fn(|request: Request<Incoming>| {
        let (granted, answered) = (&granted, &answered);
        Box::pin(async move {
            let answer = answer(front, peer, &request).await;
            answered.store(true, Ordering::Relaxed);
            let mut response = answer.map_or_else(Problem::response, |(response, grant)| {
                *granted.lock() = grant;
                response
            });
            if request.uri().path().starts_with(ROUTE_PATH) {
                // Hexadecimal digits are always a valid header value.
                let me = HeaderValue::from_str(&front.hub.process().to_hex());
                me.into_iter().for_each(|me| _ = response.headers_mut().insert(GATEWAY, me));
            }
            Ok::<_, Infallible>(response)
        })
    });
    let mut builder = http1::Builder::new();
    // One timeout covers the whole exchange. Hyper's own timeout would cover only the head.
    builder.max_buf_size(HEAD_BYTES_MAX).header_read_timeout(None);
    let mut connection = builder.serve_connection(TokioIo::new(stream), service);
    let served = tokio::time::timeout(front.settings.handshake_timeout, poll_fn(|cx| connection.poll_without_shutdown(cx)));
    let served = served.await;
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner();
    let grant = granted.lock().take();
    match (served, grant) {
        (Ok(Ok(())), Some(grant)) => Some(Box::new(Upgraded { stream, rest: parts.read_buf, grant })),
        // The client did not read the response, so it would not read a close either.
        (Err(_), _) if answered.load(Ordering::Relaxed) => None,
        (served, _) => {
            let goodbye = async {
                if served.is_err() {
                    stream.write_all(TIMED_OUT).await?;
                }
                linger(&mut stream).await;
                io::Result::Ok(())
            };
            let _ = tokio::time::timeout(front.settings.close_timeout, pin!(goodbye)).await;
            None
        }
    }
}

/// Refuses a connection before its request is read, and says why.
pub(super) async fn turn_away(mut tcp: TcpStream, problem: String, _told: OwnedSemaphorePermit) {
    let body = serde_json::json!({ "code": TOO_MANY_CONNECTIONS, "message": problem }).to_string();
    let head = "HTTP/1.1 429 Too Many Requests\r\nconnection: close\r\ncontent-type: application/json\r\nretry-after: 1";
    let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    if tcp.write_all(answer.as_bytes()).await.is_ok() {
        linger(&mut tcp).await;
    }
}

pub(super) fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    // The connection ends unless it is upgraded. (Hyper's own switch for that would remove the upgrade's header too.)
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

type Answer = (Response<Full<Bytes>>, Option<Grant>);

async fn answer<B>(front: &Front, peer: Peer, request: &Request<B>) -> Result<Answer, Problem> {
    let path = request.uri().path();
    if request.method() != Method::GET {
        let message = format!("method {} is not served: use GET", request.method());
        return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message));
    }
    if let Some(room) = path.strip_prefix(ROUTE_PATH) {
        let query = request.uri().query().unwrap_or_default();
        return Ok((homes::route(front, room, query, request.headers()).await?, None));
    }
    let Some(room) = path.strip_prefix(ROOM_PATH) else {
        let (content_type, body) = (front.assets)(path).ok_or_else(|| {
            let message = format!("{:?} is not served: sessions are at /v1/room/{{room}}", excerpt(path));
            Problem::new(StatusCode::NOT_FOUND, "not_found", message)
        })?;
        return Ok((respond(StatusCode::OK, content_type, body), None));
    };
    let target = Target::parse(room, request.uri().query().unwrap_or_default())?;
    let headers = request.headers();
    let key = upgrade_key(headers)?;
    let encoding = subprotocol(headers)?;
    let asking = Asking {
        room: &target.room,
        player: target.player.as_deref(),
        role: target.role.as_deref(),
        token: target.token.as_deref(),
        origin: text(headers, &header::ORIGIN),
        host: text(headers, &header::HOST),
    };
    let now_unix_s = unix_s();
    let Admission { player, role, expires_unix_s } = front.gatekeeper.admit(&asking, now_unix_s)?;
    let unavailable = |code, message: &str| Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, message);
    if front.leaving.is_cancelled() {
        return Err(unavailable("shutting_down", "this gateway is stopping: connect again"));
    }
    if let Some(response) = homes::misdirected(front, peer, &target.room, headers).await? {
        return Ok((response, None));
    }
    let permit = front.sessions.clone().try_acquire_owned().map_err(|_| {
        unavailable(
            "full",
            &format!("this gateway is full with {} sessions: try another gateway, or later", front.settings.sessions_max),
        )
    })?;
    let place = front.places.enter(&front.settings, permit, peer, &player, role, target.since.is_some());
    let place = place.map_err(|problem| Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_sessions", problem))?;
    let valid_for = expires_unix_s.map(|end| Duration::from_secs(end.saturating_sub(now_unix_s)));
    let joining = Joining { room: target.room, player, role, since: target.since };
    Ok((switching(&accept_key(key), encoding), Some(Grant { joining, encoding, valid_for, place })))
}

/// The value that proves to the client that the server understood its upgrade (RFC 6455, section 4.2.2).
fn accept_key(key: &[u8]) -> String {
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key);
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.finish())
}

fn switching(accept: &str, encoding: Encoding) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(encoding.subprotocol()));
    // Base64 is always a valid header value.
    if let Ok(accept) = HeaderValue::from_str(accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

pub(super) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Whether `word` is one of the header's comma-separated words.
fn lists(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    words(headers, name).any(|one| one.eq_ignore_ascii_case(word))
}

fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',').map(str::trim))
}

fn upgrade_key(headers: &HeaderMap) -> Result<&[u8], Problem> {
    let needed = |message: &str| Problem::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", message);
    if !lists(headers, &header::CONNECTION, "upgrade") || !lists(headers, &header::UPGRADE, "websocket") {
        return Err(needed("rooms are joined by WebSocket: send the headers connection: upgrade and upgrade: websocket"));
    }
    if !lists(headers, &header::SEC_WEBSOCKET_VERSION, "13") {
        return Err(needed("sec-websocket-version must be 13"));
    }
    headers
        .get(header::SEC_WEBSOCKET_KEY)
        .map(HeaderValue::as_bytes)
        .filter(|key| key.len() == 24)
        .ok_or_else(|| Problem::bad("bad_upgrade", "sec-websocket-key must be 16 bytes in base64"))
}

fn subprotocol(headers: &HeaderMap) -> Result<Encoding, Problem> {
    words(headers, &header::SEC_WEBSOCKET_PROTOCOL).find_map(Encoding::of_subprotocol).ok_or_else(|| {
        let offered: Vec<&str> = words(headers, &header::SEC_WEBSOCKET_PROTOCOL).take(8).collect();
        let message = format!("subprotocols {:?} are not supported: offer {SUBPROTOCOLS}", excerpt(&offered.join(", ")));
        Problem::bad("bad_subprotocol", message)
    })
}

/// What the URL of a session says.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    room: RoomId,
    player: Option<String>,
    role: Option<String>,
    token: Option<String>,
    since: Option<Since>,
}

impl Target {
    fn parse(room: &str, query: &str) -> Result<Self, Problem> {
        let room = RoomId::new(&decoded(room)?).map_err(|error| Problem::bad("bad_room", error.to_string()))?;
        let mut target = Self { room, player: None, role: None, token: None, since: None };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value)?;
            let repeated = match name {
                "player" => target.player.replace(value).is_some(),
                "role" => target.role.replace(value).is_some(),
                "token" => target.token.replace(value).is_some(),
                "since" => {
                    let since = value.parse().map_err(|error: String| Problem::bad("bad_since", error))?;
                    target.since.replace(since).is_some()
                }
                other => {
                    let message = format!("parameter {:?} is unknown: use player, token, role, since", excerpt(other));
                    return Err(Problem::bad("bad_parameter", message));
                }
            };
            if repeated {
                return Err(Problem::bad("bad_parameter", format!("{name:?} is given twice: give it once")));
            }
        }
        Ok(target)
    }
}

pub(super) fn decoded(value: &str) -> Result<String, Problem> {
    let text = percent_decode_str(value).decode_utf8();
    text.map(Into::into).map_err(|_| Problem::bad("bad_parameter", format!("{:?} is not UTF-8 when decoded", excerpt(value))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(room: &str, query: &str, expect: Result<&str, (&str, &str)>) {
        match (Target::parse(room, query), expect) {
            (Ok(target), Ok(shown)) => assert_eq!(format!("{target:?}"), shown),
            (Err(problem), Err((code, part))) => {
                assert_eq!((problem.status, problem.code), (StatusCode::BAD_REQUEST, code));
                assert!(problem.message.contains(part) && !problem.message.contains('\n'), "{}", problem.message);
            }
            (got, _) => panic!("{room} {query}: {got:?}"),
        }
    }

    /// The example of RFC 6455, section 1.3.
    #[test]
    fn an_upgrade_is_answered_as_the_rfc_shows() {
        assert_eq!(accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn urls_are_read_to_the_end_or_refused_with_the_value() {
        check("pit", "", Ok(r#"Target { room: "pit", player: None, role: None, token: None, since: None }"#));
        check(
            "p%69t",
            "player=ann&role=server&token=a%2Eb&since=3.120",
            Ok(
                r#"Target { room: "pit", player: Some("ann"), role: Some("server"), token: Some("a.b"), since: Some(Since { era: 3, seq: 120 }) }"#,
            ),
        );
        check("a/b", "", Err(("bad_room", "a/b")));
        check("", "", Err(("bad_room", "\"\"")));
        check("p%00t", "", Err(("bad_room", "\\0")));
        check("%ff", "", Err(("bad_parameter", "%ff")));
        check("pit", "since=12", Err(("bad_since", "12")));
        check("pit", "since=-1.2", Err(("bad_since", "-1.2")));
        check("pit", "sinse=1.2", Err(("bad_parameter", "sinse")));
        check("pit", "player=a&player=b", Err(("bad_parameter", "twice")));
    }
}

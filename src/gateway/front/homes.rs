//! Where a room is, said in HTTP: the route, and the answer to a client that has come to the wrong host.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::uri::Authority;
use hyper::{Response, StatusCode};

use super::Front;
use super::http::{Problem, decoded, respond, text};
use super::places::Peer;
use super::token::excerpt;
use crate::gateway::homes::Located;
use crate::limits::ADVERTISE_BYTES_MAX;
use crate::types::RoomId;

/// Before the name of a room whose route is asked for.
pub(super) const ROUTE_PATH: &str = "/v1/route/";
/// A client that sends `lasthit-route: 1` can read the answer to a handshake.
const READS_ROUTES: HeaderName = HeaderName::from_static("lasthit-route");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Answers `GET /v1/route/{room}`.
pub(super) async fn route(front: &Front, room: &str, query: &str, headers: &HeaderMap) -> Result<Response<Full<Bytes>>, Problem> {
    let room = RoomId::new(&decoded(room)?).map_err(|error| Problem::bad("bad_room", error.to_string()))?;
    if let Some(name) = query.split('&').find(|pair| !pair.is_empty()) {
        let message = format!("parameter {:?} is unknown: a route takes none", excerpt(name));
        return Err(Problem::bad("bad_parameter", message));
    }
    let origin = text(headers, &header::ORIGIN);
    if let Some(origin) = origin {
        front.gatekeeper.check_origin(origin, text(headers, &header::HOST))?;
    }
    let (url, number) = match front.hub.locate(&room, false).await {
        Some(Located::Here(number)) => (own_url(front, headers)?, number),
        Some(Located::Away { url, number }) if !url.is_empty() => (url, number),
        Some(Located::Away { .. } | Located::Held | Located::CutOff) | None => return Err(no_home(&room)),
    };
    let mut response = respond(StatusCode::OK, "application/json", body(&room, &url, number));
    let answered = response.headers_mut();
    answered.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=1"));
    answered.insert(header::VARY, HeaderValue::from_static("origin, host, x-forwarded-proto"));
    if let Some(origin) = headers.get(header::ORIGIN) {
        answered.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    }
    Ok(response)
}

/// What a client is answered whose session would have to be sent on at once; None lets it in. One that cannot read the answer is let
/// in, too, and closed with the same.
pub(super) async fn misdirected(
    front: &Front,
    peer: Peer,
    room: &RoomId,
    headers: &HeaderMap,
) -> Result<Option<Response<Full<Bytes>>>, Problem> {
    let (url, number) = match front.hub.locate(room, true).await {
        None => return Err(no_home(room)),
        Some(Located::Away { url, number }) => (url, number),
        Some(Located::Here(_) | Located::Held | Located::CutOff) => return Ok(None),
    };
    let too_often = |problem| Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_connections", problem);
    front.places.send_on(&front.settings, peer).map_err(too_often)?;
    let reads = text(headers, &READS_ROUTES) == Some("1") && !url.is_empty();
    Ok(reads.then(|| respond(StatusCode::MISDIRECTED_REQUEST, "application/json", body(room, &url, number))))
}

fn body(room: &RoomId, url: &str, number: u32) -> String {
    serde_json::json!({ "url": url, "home": number, "room": room.as_str() }).to_string()
}

fn no_home(room: &RoomId) -> Problem {
    let message = format!("where room {room} is at home is not known right now: ask again later");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, Problem::NO_HOME, message)
}

/// Under which URL players reach this host: as it was told, or else as this client has.
fn own_url(front: &Front, headers: &HeaderMap) -> Result<String, Problem> {
    if !front.settings.advertise.is_empty() {
        return Ok(front.settings.advertise.clone());
    }
    let host = text(headers, &header::HOST).unwrap_or_default();
    let fits = host.len() + "wss://".len() <= ADVERTISE_BYTES_MAX && !host.contains('@') && host.parse::<Authority>().is_ok();
    if !fits {
        let message =
            format!("host {:?} is no host to connect to: send the header host, as in host: play.example.com", excerpt(host));
        return Err(Problem::bad("bad_host", message));
    }
    // Behind a proxy that ends TLS, only what it and the browser say tells that there is TLS at all.
    let proto = text(headers, &FORWARDED_PROTO).and_then(|all| all.split(',').next()).map_or("", str::trim);
    let page = text(headers, &header::ORIGIN).unwrap_or_default();
    let secure = proto.eq_ignore_ascii_case("https") || (proto.is_empty() && page.starts_with("https://"));
    Ok(format!("{}://{host}", if secure { "wss" } else { "ws" }))
}

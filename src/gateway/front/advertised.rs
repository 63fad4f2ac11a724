//! Whether the address that a gateway was told to advertise leads to its host: it asks there for a route, and looks who answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::header::{self, HeaderName};
use hyper::http::uri::Authority;
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::homes::ROUTE_PATH;
use super::http::text;
use super::token::excerpt;
use crate::gateway::hub::Hub;
use crate::limits::{ADVERTISE_PAUSE, ADVERTISE_TRIES, ADVERTISE_WITHIN};
use crate::types::Incarnation;

/// Which gateway answers: with this header each says so where it is asked for a route. Sessions bear the same number.
pub(super) const GATEWAY: HeaderName = HeaderName::from_static("lasthit-gateway");

/// Asks under `url`, which players are told, who answers there. If that is nobody of this host, [`ADVERTISE_TRIES`] times, it warns:
/// a proxy may take a while until it leads here, and a router may never lead a host to itself.
pub(crate) async fn check(hub: Hub, url: String, stop: CancellationToken) {
    let check = async {
        let mut why = String::new();
        for attempt in 0..ADVERTISE_TRIES {
            if attempt > 0 {
                sleep(ADVERTISE_PAUSE).await;
            }
            match ask(&url, ADVERTISE_WITHIN).await.and_then(|answer| is_here(&hub, &answer)) {
                Ok(()) => return tracing::debug!("--advertise {url} leads to this host"),
                Err(other) => why = other,
            }
        }
        tracing::warn!(
            "--advertise {url} does not lead to this host as far as it can tell: {why}: players who are sent here may not arrive; see \
             that the address leads to this gateway, unless it is only that this host cannot reach itself"
        );
    };
    stop.run_until_cancelled(check).await;
}

/// What came back.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
}

/// Who gave an answer, unless a gateway of this host did.
fn is_here(hub: &Hub, answer: &Answer) -> Result<(), String> {
    let Some(gateway) = text(&answer.headers, &GATEWAY).and_then(Incarnation::from_hex) else {
        let server = text(&answer.headers, &header::SERVER).map(|server| format!(" from {:?}", excerpt(server)));
        return Err(format!("what answers is no gateway (status {}{})", answer.status.as_u16(), server.unwrap_or_default()));
    };
    match hub.host_of(gateway) {
        Some((host, _)) if host == *hub.host() => Ok(()),
        Some((host, url)) => Err(format!("a gateway of another host of this deployment answers ({host}, --advertise {url})")),
        None => Err(format!("a gateway of another deployment answers ({})", gateway.to_hex())),
    }
}

async fn ask(url: &str, within: Duration) -> Result<Answer, String> {
    let asked = async {
        let (scheme, authority) = url.split_once("://").ok_or("it is no URL")?;
        let authority: Authority = authority.parse().map_err(|_| "it names no host")?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let port = authority.port_u16().unwrap_or(if scheme == "wss" { 443 } else { 80 });
        let failed = |error| format!("nothing answers there ({error})");
        let tcp = TcpStream::connect((host, port)).await.map_err(failed)?;
        if scheme == "wss" {
            let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
            let stream = tls().await?.connect(name, tcp).await;
            send(stream.map_err(|error| format!("no TLS is agreed on there ({error})"))?, &authority).await
        } else {
            send(tcp, &authority).await
        }
    };
    timeout(within, asked).await.unwrap_or_else(|_| Err(format!("nothing answers there within {} s", within.as_secs())))
}

/// Trusts whom this system trusts, as players do.
async fn tls() -> Result<TlsConnector, String> {
    let found = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await.map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    Ok(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()).into())
}

async fn send<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, authority: &Authority) -> Result<Answer, String> {
    let failed = |error: hyper::Error| format!("what answers there does not speak HTTP ({error})");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let _driver = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = Request::get(format!("{ROUTE_PATH}advertised")).header(header::HOST, authority.as_str());
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(failed)?;
    Ok(Answer { status: response.status(), headers: response.headers().clone() })
}

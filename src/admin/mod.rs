//! Health, readiness and metrics over HTTP, on an address of their own.
//!
//! | path | answer |
//! |---|---|
//! | `/healthz` | 200 while the process runs |
//! | `/readyz` | 200 when every check passes, with a line for each part of the journal that is out of reach; otherwise 503 with one line per failing check |
//! | `/metrics` | Prometheus text |

mod readiness;

use std::convert::Infallible;
use std::future::ready;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

pub(crate) use readiness::Readiness;

use crate::limits::{ADMIN_CONNECTION_TIMEOUT, ADMIN_CONNECTIONS_MAX, HANDSHAKE_TIMEOUT, METRICS_UPKEEP_INTERVAL};

const INDEX: &str = "lasthit admin\n\n/healthz  200 while the process runs\n/readyz   200 when it can do its work, otherwise 503 and why\n/metrics  prometheus text\n";

/// Pause after a connection could not be accepted, for want of descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Why the admin address could not be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdminError {
    /// The address is in use, or is not one of this host.
    #[error("admin cannot listen on {address}: {source}; choose another with --admin IP:PORT, or --admin none")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// What the operating system said.
        source: std::io::Error,
    },
}

/// A bound admin address.
#[derive(Debug)]
pub(crate) struct Admin {
    listener: TcpListener,
    address: SocketAddr,
}

impl Admin {
    /// Binds the address.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub(crate) async fn bind(address: SocketAddr) -> Result<Self, AdminError> {
        let failed = |source| AdminError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// The bound address: with the real port, if port 0 was configured.
    #[must_use]
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop`, and folds the samples of the metrics. Stop it last: it must answer while the process drains.
    pub(crate) async fn run(self, readiness: Readiness, metrics: PrometheusHandle, stop: CancellationToken) {
        let shown = Shown { readiness, metrics: metrics.clone() };
        let permits = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX));
        let mut upkeep = tokio::time::interval(METRICS_UPKEEP_INTERVAL);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = upkeep.tick() => metrics.run_upkeep(),
                (permit, accepted) = accept(&self.listener, &permits) => match (permit, accepted) {
                    (Some(permit), Ok(stream)) => {
                        tokio::spawn(stop.clone().run_until_cancelled_owned(answer(stream, shown.clone(), permit)));
                    }
                    (_, Err(error)) => {
                        tracing::warn!(%error, "admin cannot accept a connection");
                        tokio::time::sleep(ACCEPT_REST).await;
                    }
                    (None, _) => return,
                },
            }
        }
    }
}

/// The permit comes first: connections over the bound wait in the kernel's queue.
async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>) -> (Option<OwnedSemaphorePermit>, std::io::Result<TcpStream>) {
    let permit = permits.clone().acquire_owned().await.ok();
    (permit, listener.accept().await.map(|(stream, _)| stream))
}

async fn answer(stream: TcpStream, shown: Shown, _permit: OwnedSemaphorePermit) {
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_TIMEOUT);
    let service = service_fn(|request: Request<Incoming>| ready(Ok::<_, Infallible>(shown.at(&request))));
    let connection = http.serve_connection(TokioIo::new(stream), service);
    // Errors of a client's connection are not logged.
    let _ = tokio::time::timeout(ADMIN_CONNECTION_TIMEOUT, connection).await;
}

/// The answer to a request.
#[derive(Clone)]
struct Shown {
    readiness: Readiness,
    metrics: PrometheusHandle,
}

impl Shown {
    fn at<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let ok = |text: &str| (StatusCode::OK, text.to_owned());
        let (status, text) = match request.uri().path() {
            "/" => ok(INDEX),
            "/healthz" => ok("ok\n"),
            "/readyz" => match self.readiness.failing() {
                failing if failing.is_empty() => {
                    let lines = std::iter::once("ready".to_owned()).chain(self.readiness.notes());
                    (StatusCode::OK, lines.collect::<Vec<_>>().join("\n") + "\n")
                }
                failing => (StatusCode::SERVICE_UNAVAILABLE, failing.join("\n") + "\n"),
            },
            "/metrics" => (StatusCode::OK, self.metrics.render()),
            _ => (StatusCode::NOT_FOUND, "not found: use /healthz, /readyz or /metrics\n".to_owned()),
        };
        let readable = [Method::GET, Method::HEAD].contains(request.method()) || status == StatusCode::NOT_FOUND;
        let (status, text) =
            if readable { (status, text) } else { (StatusCode::METHOD_NOT_ALLOWED, "use GET or HEAD\n".to_owned()) };
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        // Prometheus' text format has version 0.0.4.
        let metrics = request.uri().path() == "/metrics";
        let kind = if metrics { "text/plain; version=0.0.4; charset=utf-8" } else { "text/plain; charset=utf-8" };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        if status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, HeaderValue::from_static("GET,HEAD"));
        }
        response
    }
}

#[cfg(test)]
mod tests;

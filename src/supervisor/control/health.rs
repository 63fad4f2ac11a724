//! Health, and the metrics of all processes, over HTTP: at the admin address, and at the control socket.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::{Answer, Open, text};
use crate::limits::{ACCEPT_RETRY_INTERVAL, ADMIN_CONNECTION_TIMEOUT, ADMIN_CONNECTIONS_MAX, HANDSHAKE_TIMEOUT};
use crate::supervisor::ask::{Ask, Process};

/// Serves health and the metrics of all processes, where there is an address for that.
pub(in crate::supervisor) async fn serve_health(
    listener: Option<&TcpListener>,
    asks: mpsc::Sender<Ask>,
    connections: &TaskTracker,
    mut open: Open,
) {
    let Some(listener) = listener else { return std::future::pending().await };
    let places = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let Some(accepted) = open.while_so(listener.accept()).await else { continue };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await;
            continue;
        };
        let asks = asks.clone();
        connections.spawn(async move {
            let _place = place;
            let service = service_fn(move |request: Request<Incoming>| {
                let asks = asks.clone();
                async move { Ok::<_, Infallible>(health(request.method(), request.uri().path(), &asks).await) }
            });
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_TIMEOUT).keep_alive(false);
            let _ = tokio::time::timeout(ADMIN_CONNECTION_TIMEOUT, http.serve_connection(TokioIo::new(stream), service)).await;
        });
    }
}

pub(super) async fn health(method: &Method, path: &str, asks: &mpsc::Sender<Ask>) -> Answer {
    let ended = || text(StatusCode::SERVICE_UNAVAILABLE, "the supervisor ends\n");
    match (method, path) {
        (&Method::GET, "/") => text(StatusCode::OK, "lasthit: /healthz, /readyz, /metrics\n"),
        (&Method::GET, "/healthz") => text(StatusCode::OK, "ok\n"),
        (&Method::GET, "/readyz") => match processes(asks).await {
            None => ended(),
            Some(all) => match missing(&all) {
                none if none.is_empty() => text(StatusCode::OK, "ready\n"),
                missing => text(StatusCode::SERVICE_UNAVAILABLE, missing),
            },
        },
        (&Method::GET, "/metrics") => {
            let (answer, answered) = oneshot::channel();
            let _ = asks.send(Ask::Metrics(answer)).await;
            let metrics = tokio::time::timeout(HANDSHAKE_TIMEOUT, answered).await;
            match metrics {
                Ok(Ok(metrics)) => {
                    let mut response = text(StatusCode::OK, metrics);
                    // Prometheus' text format has version 0.0.4.
                    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                    response.headers_mut().insert(CONTENT_TYPE, kind);
                    response
                }
                _ => ended(),
            }
        }
        (&Method::GET, _) => text(StatusCode::NOT_FOUND, "not found: use /healthz, /readyz or /metrics\n"),
        _ => text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n"),
    }
}

/// The roles of which no process is ready, though one is wanted: a line for each. Others go on while one is replaced, or has failed.
fn missing(all: &[Process]) -> String {
    let role = |process: &Process| process.name.rsplit_once('-').map_or(&*process.name, |(role, _)| role).to_owned();
    let wanted: BTreeSet<String> = all.iter().filter(|process| process.phase != "stopped").map(role).collect();
    let ready: BTreeSet<String> = all.iter().filter(|process| process.phase == "ready").map(role).collect();
    wanted.difference(&ready).map(|role| format!("{role}: none is ready\n")).collect()
}

pub(super) async fn processes(asks: &mpsc::Sender<Ask>) -> Option<Vec<Process>> {
    let (answer, answered) = oneshot::channel();
    let _ = asks.send(Ask::Ps(answer)).await;
    answered.await.ok()
}

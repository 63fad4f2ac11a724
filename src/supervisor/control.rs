//! The control socket: HTTP on a Unix socket, for `lasthit ps` and its like, and for curl.
//!
//! | | |
//! |---|---|
//! | `GET /v1/processes` | all processes, as JSON |
//! | `POST /v1/start`, `stop`, `restart`, `recycle`, `delete` | `{"names": ["gateway-1", "worker-2..4", "all"]}` |
//! | `POST /v1/scale` | `{"group": "gateway", "count": "3"}`, or `"auto:1..4"` |
//! | `POST /v1/reload` | reads settings and program again, and replaces everything |
//! | `POST /v1/end` | ends everything |
//! | `GET /v1/logs` | the last lines of all processes; `?follow` goes on |
//! | `GET /metrics`, `/healthz`, `/readyz` | of all processes; of the supervisor; whether each role has one that is ready |
//!
//! A command answers line by line: `{"progress": "..."}`, then `"done"` or `{"failed": "..."}`.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::unfold;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Deserialize;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::ask::{Ask, Process, Told};
use super::logs::Logs;
use super::plan::step::Command;
use super::policy::counts::Wanted;
use crate::limits::{
    ACCEPT_RETRY_INTERVAL, ADMIN_CONNECTION_TIMEOUT, ADMIN_CONNECTIONS_MAX, CONTROL_BODY_BYTES_MAX, CONTROL_CONNECTIONS_MAX,
    HANDSHAKE_TIMEOUT, PROGRESS_LINES_WAITING, REQUEST_NAMES_MAX,
};

type Answer = Response<BoxBody<Bytes, Infallible>>;

/// What the name of the file beside the socket ends with.
const CONTROL_LOCK_ENDING: &str = ".lock";

/// The socket. Its file goes when this is dropped.
#[derive(Debug)]
pub(super) struct Control {
    listener: UnixListener,
    path: PathBuf,
    /// The file beside it, locked: one supervisor at a time looks at the path, and has it. The file stays, as whoever removes it could
    /// remove another's.
    _lock: File,
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub(super) enum ControlError {
    #[error("{0:?} is answered by another supervisor: stop it, or give this one --control PATH")]
    Taken(PathBuf),
    #[error("the control socket {path:?} cannot be made ({source}): give --control PATH in a directory that this user may write")]
    Bind { path: PathBuf, source: io::Error },
}

impl Control {
    /// Makes the socket, for this user alone. One that nobody answers any more is replaced.
    pub(super) fn bind(path: &Path) -> Result<Self, ControlError> {
        let failed = |source| ControlError::Bind { path: path.to_owned(), source };
        if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        }
        let mut beside = path.as_os_str().to_owned();
        beside.push(CONTROL_LOCK_ENDING);
        let lock = File::options().write(true).create(true).truncate(false).mode(0o600).open(&beside).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ControlError::Taken(path.to_owned())),
            // A file system that keeps no locks.
            Err(TryLockError::Error(error)) => tracing::warn!(%error, "the file beside the control socket cannot be locked"),
        }
        // Connecting to what is no socket is refused, too: that is nobody's to remove.
        if std::fs::symlink_metadata(path).is_ok_and(|about| about.file_type().is_socket()) {
            match std::os::unix::net::UnixStream::connect(path) {
                Ok(_) => return Err(ControlError::Taken(path.to_owned())),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path).map_err(failed)?,
                Err(_) => {}
            }
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        let control = Self { listener, path: path.to_owned(), _lock: lock };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(control)
    }

    /// Answers for as long as the future is polled. Each connection is a task of `connections`.
    pub(super) async fn serve(&self, asks: mpsc::Sender<Ask>, logs: Logs, connections: &TaskTracker) {
        let places = Arc::new(Semaphore::new(CONTROL_CONNECTIONS_MAX));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the control socket cannot accept");
                    tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await;
                    continue;
                }
            };
            if !is_allowed(&stream) {
                tracing::warn!("another user's process may not use the control socket");
                continue;
            }
            let (asks, logs) = (asks.clone(), logs.clone());
            connections.spawn(async move {
                let _place = place;
                let service = service_fn(move |request| {
                    let (asks, logs) = (asks.clone(), logs.clone());
                    async move { Ok::<_, Infallible>(answer(request, &asks, &logs).await) }
                });
                let mut http = hyper::server::conn::http1::Builder::new();
                http.timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_TIMEOUT).keep_alive(false);
                let _ = http.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }
}

/// Serves health and the metrics of all processes, where there is an address for that.
pub(super) async fn serve_health(listener: Option<TcpListener>, asks: mpsc::Sender<Ask>) {
    let Some(listener) = listener else { return std::future::pending().await };
    let places = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await;
            continue;
        };
        let asks = asks.clone();
        tokio::spawn(async move {
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

async fn health(method: &Method, path: &str, asks: &mpsc::Sender<Ask>) -> Answer {
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

async fn processes(asks: &mpsc::Sender<Ask>) -> Option<Vec<Process>> {
    let (answer, answered) = oneshot::channel();
    let _ = asks.send(Ask::Ps(answer)).await;
    answered.await.ok()
}

/// The same user's, or root's.
fn is_allowed(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

fn text(status: StatusCode, text: impl Into<String>) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(text.into())).boxed());
    *response.status_mut() = status;
    response
}

fn wrong(why: impl std::fmt::Display) -> Answer {
    text(StatusCode::BAD_REQUEST, format!("{why}\n"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Names {
    names: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scaling {
    group: String,
    count: String,
}

async fn answer<B: Body<Error: std::error::Error + Send + Sync + 'static>>(
    request: Request<B>,
    asks: &mpsc::Sender<Ask>,
    logs: &Logs,
) -> Answer {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let ended = || text(StatusCode::SERVICE_UNAVAILABLE, "the supervisor ends\n");
    match (&head.method, path) {
        (&Method::GET, "/healthz" | "/readyz" | "/metrics") => health(&head.method, path, asks).await,
        (&Method::GET, "/v1/processes") => match processes(asks).await.map(|processes| serde_json::to_string(&processes)) {
            Some(Ok(json)) => text(StatusCode::OK, json + "\n"),
            _ => ended(),
        },
        (&Method::GET, "/v1/logs") => lines(logs, head.uri.query() == Some("follow")),
        (&Method::POST, path) => {
            let collected = tokio::time::timeout(HANDSHAKE_TIMEOUT, Limited::new(body, CONTROL_BODY_BYTES_MAX).collect()).await;
            let body = match collected {
                Ok(Ok(body)) => body.to_bytes(),
                Err(_) => return wrong("the request's body does not come: send all of it"),
                Ok(Err(error)) => {
                    return wrong(format!(
                        "the request's body cannot be read ({error}): send at most {CONTROL_BODY_BYTES_MAX} bytes"
                    ));
                }
            };
            let (told, telling) = mpsc::channel(PROGRESS_LINES_WAITING);
            let ask = match command(path, &body) {
                Ok(Some(command)) => Ask::Do(command, told),
                Ok(None) if path == "/v1/reload" => Ask::Reload(told),
                Ok(None) => return text(StatusCode::NOT_FOUND, "not found\n"),
                Err(why) => return wrong(why),
            };
            if asks.send(ask).await.is_err() {
                return ended();
            }
            told_line_by_line(telling)
        }
        (&Method::GET, _) => text(StatusCode::NOT_FOUND, "not found: see GET /v1/processes, /v1/logs, /metrics, /healthz\n"),
        _ => text(StatusCode::METHOD_NOT_ALLOWED, "use GET or POST\n"),
    }
}

/// What a request wants. None: nothing that there is.
fn command(path: &str, body: &[u8]) -> Result<Option<Command>, String> {
    let names = || -> Result<Vec<String>, String> {
        let Names { names } = serde_json::from_slice(body)
            .map_err(|error| format!("the body is not {{\"names\": [\"gateway-1\", ...]}}: {error}"))?;
        if names.is_empty() || names.len() > REQUEST_NAMES_MAX {
            return Err(format!("{} names: give 1 to {REQUEST_NAMES_MAX}", names.len()));
        }
        Ok(names)
    };
    Ok(Some(match path {
        "/v1/start" => Command::Start(names()?),
        "/v1/stop" => Command::Stop(names()?),
        "/v1/restart" => Command::Restart(names()?),
        "/v1/recycle" => Command::Recycle(names()?),
        "/v1/delete" => Command::Delete(names()?),
        "/v1/scale" => {
            let Scaling { group, count } = serde_json::from_slice(body)
                .map_err(|error| format!("the body is not {{\"group\": \"gateway\", \"count\": \"3\"}}: {error}"))?;
            let wanted = Wanted::parse(&count).map_err(|why| format!("{count:?} {why}"))?;
            let Wanted::Count(count) = wanted else {
                return Err("auto is what `lasthit up` begins with: give a number, or auto:MIN..MAX".to_owned());
            };
            Command::Scale { group: group.parse()?, count }
        }
        "/v1/end" => Command::End,
        _ => return Ok(None),
    }))
}

fn frame(mut line: String) -> Result<Frame<Bytes>, Infallible> {
    line.push('\n');
    Ok(Frame::data(line.into()))
}

fn told_line_by_line(telling: mpsc::Receiver<Told>) -> Answer {
    let lines = unfold(telling, async |mut telling| {
        let told = telling.recv().await?;
        Some((frame(serde_json::to_string(&told).unwrap_or_default()), telling))
    });
    Response::new(StreamBody::new(Box::pin(lines)).boxed())
}

fn lines(logs: &Logs, follow: bool) -> Answer {
    let (kept, following) = logs.follow();
    let following = follow.then_some(following);
    let lines = unfold((kept.into_iter(), following), async |(mut kept, mut following)| {
        if let Some(line) = kept.next() {
            return Some((frame(line), (kept, following)));
        }
        let line = match following.as_mut()?.recv().await {
            Ok(line) => line,
            Err(broadcast::error::RecvError::Lagged(lost)) => {
                format!("lasthit: {lost} lines were dropped, as they were not read in time")
            }
            Err(broadcast::error::RecvError::Closed) => return None,
        };
        Some((frame(line), (kept, following)))
    });
    Response::new(StreamBody::new(Box::pin(lines)).boxed())
}

#[cfg(test)]
mod tests {
    use super::super::policy::counts::Count;
    use super::*;
    use crate::telemetry::LogFormat;

    async fn asked(method: Method, path: &str, body: &str) -> (StatusCode, String) {
        let (asks, mut asked) = mpsc::channel(4);
        let request =
            Request::builder().method(method).uri(path).body(Full::new(Bytes::from(body.to_owned()))).expect("a request");
        let answering = async {
            match asked.recv().await {
                Some(Ask::Ps(answer)) => drop(answer.send(Vec::new())),
                Some(Ask::Do(command, told)) => {
                    told.send(Told::Progress(format!("{command:?}"))).await.expect("heard");
                    told.send(Told::Done).await.expect("heard");
                }
                _ => {}
            }
            std::future::pending::<()>().await;
        };
        let logs = Logs::start(LogFormat::Text).expect("logs");
        let response = tokio::select! {
            response = async {
                let response = answer(request, &asks, &logs).await;
                let status = response.status();
                let body = response.into_body().collect().await.expect("a body").to_bytes();
                (status, String::from_utf8_lossy(&body).into_owned())
            } => response,
            () = answering => unreachable!("it goes on"),
        };
        response
    }

    #[tokio::test]
    async fn requests_become_commands_and_mistakes_are_told_in_one_line() {
        assert_eq!(asked(Method::GET, "/v1/processes", "").await, (StatusCode::OK, "[]\n".to_owned()));
        let (_, restarted) = asked(Method::POST, "/v1/restart", r#"{"names": ["gateway-1", "worker"]}"#).await;
        assert_eq!(restarted, "{\"progress\":\"Restart([\\\"gateway-1\\\", \\\"worker\\\"])\"}\n\"done\"\n");
        let huge = format!("{{\"names\": [\"{}\"]}}", "x".repeat(CONTROL_BODY_BYTES_MAX));
        let many = format!("{{\"names\": [{}\"a\"]}}", "\"a\",".repeat(REQUEST_NAMES_MAX));
        for (path, body, expected) in [
            ("/v1/restart", "garbage", "the body is not"),
            ("/v1/restart", "{\"names\": []}", "0 names: give 1 to 256"),
            ("/v1/restart", &many, "257 names"),
            ("/v1/restart", &huge, "send at most 65536 bytes"),
            ("/v1/scale", r#"{"group": "gateway", "count": "many"}"#, "\"many\" does not fit"),
            ("/v1/scale", r#"{"group": "oven", "count": "1"}"#, "\"oven\" is no group"),
            ("/v1/scale", r#"{"group": "oven"}"#, "missing field `count`"),
        ] {
            let (status, said) = asked(Method::POST, path, body).await;
            assert!(status == StatusCode::BAD_REQUEST && said.contains(expected) && said.lines().count() == 1, "{path}: {said}");
        }
        assert_eq!(asked(Method::POST, "/v1/fly", "{}").await.0, StatusCode::NOT_FOUND);
        assert_eq!(asked(Method::PUT, "/v1/processes", "").await.0, StatusCode::METHOD_NOT_ALLOWED);
        let scaled = command("/v1/scale", br#"{"group": "eu/worker", "count": "auto:1..4"}"#).expect("a command");
        assert!(matches!(scaled, Some(Command::Scale { count: Count::Between { min: 1, max: 4 }, .. })), "{scaled:?}");
    }

    #[tokio::test]
    async fn a_socket_is_ones_own_and_a_stale_one_is_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deeper/control.sock");
        let control = Control::bind(&path).expect("bound");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        let second = Control::bind(&path).expect_err("taken").to_string();
        assert!(second.contains("another supervisor") && second.contains("--control"), "{second}");
        drop(control);
        assert!(!path.exists());
        drop(std::os::unix::net::UnixListener::bind(&path).expect("one that nobody answers"));
        drop(Control::bind(&path).expect("replaced"));
        let file = folder.path().join("lasthit.toml");
        std::fs::write(&file, "listen = 1").expect("written");
        assert!(Control::bind(&file).is_err() && file.exists(), "a file is no socket that nobody answers");
        let long = folder.path().join("x".repeat(120));
        assert!(Control::bind(&long).expect_err("too long").to_string().contains("--control PATH"));
    }

    /// Both have found that nobody answers. The slower one would remove what the faster one has just made.
    #[tokio::test]
    async fn of_two_that_find_a_stale_socket_one_replaces_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("control.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("one that nobody answers"));
        let faster = File::create(folder.path().join("control.sock.lock")).expect("a file");
        faster.lock().expect("it is about to replace it");
        assert!(matches!(Control::bind(&path), Err(ControlError::Taken(_))));
        assert!(path.exists(), "it is the faster one's to remove");
        drop(faster);
        drop(Control::bind(&path).expect("replaced"));
        drop(Control::bind(&path).expect("the file that stays is free"));
    }
}

//! The control socket: HTTP on a Unix socket, for `lasthit ps` and its like, and for curl.
//!
//! | | |
//! |---|---|
//! | `GET /v1/processes` | all processes, as JSON |
//! | `POST /v1/start`, `stop`, `restart`, `recycle`, `delete` | `{"names": ["gateway-1", "worker-2..4", "all"]}` |
//! | `POST /v1/scale` | `{"group": "gateway", "count": "3"}`, or `"auto:1..4"` |
//! | `POST /v1/reload`, `check` | reads settings and program again, and replaces everything; says what speaks against it. The program of `{"binary": "/path"}`, if it is given |
//! | `POST /v1/end` | ends everything |
//! | `GET /v1/logs` | the last lines of all processes; `?follow` goes on |
//! | `GET /metrics`, `/healthz`, `/readyz` | of all processes; of the supervisor; whether each role has one that is ready |
//!
//! A command answers line by line: `{"progress": "..."}`, then `"done"` or `{"failed": "..."}`.

mod health;

use std::convert::Infallible;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::Body;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_util::task::TaskTracker;

pub(super) use self::health::serve_health;
use self::health::{health, processes};
use super::ask::Ask;
use super::logs::Logs;
use super::parked::Descriptors;
use super::plan::step::Command;
use super::policy::counts::Wanted;
use super::stream::{Source, Streams};
use crate::limits::{
    ACCEPT_RETRY_INTERVAL, CONTROL_BODY_BYTES_MAX, CONTROL_CONNECTIONS_MAX, HANDSHAKE_TIMEOUT, LOG_FOLLOWERS_MAX,
    PROGRESS_LINES_WAITING, REQUEST_NAMES_MAX,
};

type Answer = Response<BoxBody<Bytes, Infallible>>;

/// What the name of the file beside the socket ends with.
const CONTROL_LOCK_ENDING: &str = ".lock";

/// The socket. Its file goes when this is dropped.
#[derive(Debug)]
pub(super) struct Control {
    /// None once it was handed over.
    held: Option<(UnixListener, Lock)>,
    path: PathBuf,
    places: Arc<Semaphore>,
    /// Of those who follow the logs: they take no place from commands.
    followers: Arc<Semaphore>,
}

/// The file beside it, locked: one supervisor at a time looks at the path, and has it. The file stays, as whoever removes it could
/// remove another's.
type Lock = File;

impl Drop for Control {
    fn drop(&mut self) {
        if self.held.is_some() {
            let _ = std::fs::remove_file(&self.path);
        }
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
        let control = Self::of(listener, lock, path.to_owned());
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(control)
    }

    fn of(listener: UnixListener, lock: Lock, path: PathBuf) -> Self {
        Self {
            held: Some((listener, lock)),
            path,
            places: Arc::new(Semaphore::new(CONTROL_CONNECTIONS_MAX)),
            followers: Arc::new(Semaphore::new(LOG_FOLLOWERS_MAX)),
        }
    }

    /// One that another image has handed over.
    ///
    /// # Errors
    /// When a descriptor is missing.
    pub(super) fn resume(path: PathBuf, descriptors: &mut Descriptors) -> io::Result<Self> {
        let listener = UnixListener::from_std(descriptors.need("control")?.into())?;
        Ok(Self::of(listener, descriptors.need("control lock")?.into(), path))
    }

    /// Hands it over: the file stays.
    ///
    /// # Errors
    /// When the runtime does not let it go.
    pub(super) fn park(mut self, descriptors: &mut Descriptors) -> io::Result<()> {
        if let Some((listener, lock)) = self.held.take() {
            descriptors.put("control", listener.into_std()?);
            descriptors.put("control lock", lock);
        }
        Ok(())
    }

    /// A place for an answer of another image that goes on.
    pub(super) fn place(&self, source: Option<&Source>) -> Option<OwnedSemaphorePermit> {
        let places = if source.is_some_and(Source::follows) { &self.followers } else { &self.places };
        places.clone().try_acquire_owned().ok()
    }

    /// Answers for as long as the future is polled, and `open` says so. Each connection is a task of `connections`; an answer that goes on
    /// is one of `streams`.
    pub(super) async fn serve(
        &self,
        asks: mpsc::Sender<Ask>,
        logs: Logs,
        connections: &TaskTracker,
        streams: &Streams,
        mut open: Open,
    ) {
        let Some((listener, _)) = &self.held else { return };
        loop {
            let Ok(place) = self.places.clone().acquire_owned().await else { return };
            let Some(accepted) = open.while_so(listener.accept()).await else { continue };
            let stream = match accepted {
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
            let (asks, logs, streams, followers) = (asks.clone(), logs.clone(), streams.clone(), self.followers.clone());
            connections.spawn(async move {
                let goes_on = Arc::new(Mutex::new(None));
                let source = goes_on.clone();
                let service = service_fn(move |request| {
                    let (asks, logs, goes_on, followers) = (asks.clone(), logs.clone(), goes_on.clone(), followers.clone());
                    async move {
                        let (response, source) = seated(answer(request, &asks, &logs).await, followers);
                        *goes_on.lock() = source;
                        Ok::<_, Infallible>(response)
                    }
                });
                let mut http = hyper::server::conn::http1::Builder::new();
                http.timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_TIMEOUT).keep_alive(false);
                let served = http.serve_connection(TokioIo::new(stream), service).without_shutdown().await;
                let source = source.lock().take();
                if let (Ok(parts), Some((source, seat))) = (served, source) {
                    streams.run(parts.io.into_inner(), Vec::new(), Some(source), Some(seat.unwrap_or(place)));
                }
            });
        }
    }
}

/// Whether connections are accepted: not while the next image is about to be executed.
#[derive(Debug, Clone)]
pub(super) struct Open(pub(super) watch::Receiver<bool>);

impl Open {
    /// What comes of a future. None: it was given up, and may be tried again.
    async fn while_so<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        if self.0.wait_for(|open| *open).await.is_err() {
            return std::future::pending().await;
        }
        tokio::select! {
            come = future => Some(come),
            _ = self.0.wait_for(|open| !*open) => None,
        }
    }
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

/// Whoever follows the logs has a place of another kind, if there is one.
fn seated(
    (response, source): (Answer, Option<Source>),
    followers: Arc<Semaphore>,
) -> (Answer, Option<(Source, Option<OwnedSemaphorePermit>)>) {
    match source {
        Some(source) if source.follows() => match followers.try_acquire_owned() {
            Ok(seat) => (response, Some((source, Some(seat)))),
            Err(_) => {
                let full = format!("{LOG_FOLLOWERS_MAX} follow the logs already: end one of them\n");
                (text(StatusCode::SERVICE_UNAVAILABLE, full), None)
            }
        },
        source => (response, source.map(|source| (source, None))),
    }
}

/// An answer, or its head and the lines that follow.
async fn answer<B: Body<Error: std::error::Error + Send + Sync + 'static>>(
    request: Request<B>,
    asks: &mpsc::Sender<Ask>,
    logs: &Logs,
) -> (Answer, Option<Source>) {
    match answer_or(request, asks, logs).await {
        Ok(source) => (lines_follow(), Some(source)),
        Err(whole) => (whole, None),
    }
}

/// The lines of an answer that goes on. Err: it is whole.
async fn answer_or<B: Body<Error: std::error::Error + Send + Sync + 'static>>(
    request: Request<B>,
    asks: &mpsc::Sender<Ask>,
    logs: &Logs,
) -> Result<Source, Answer> {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let ended = || text(StatusCode::SERVICE_UNAVAILABLE, "the supervisor ends\n");
    Err(match (&head.method, path) {
        (&Method::GET, "/healthz" | "/readyz" | "/metrics") => health(&head.method, path, asks).await,
        (&Method::GET, "/v1/processes") => match processes(asks).await.map(|processes| serde_json::to_string(&processes)) {
            Some(Ok(json)) => text(StatusCode::OK, json + "\n"),
            _ => ended(),
        },
        (&Method::GET, "/v1/logs") => {
            let (kept, following) = logs.follow();
            let follows = head.uri.query() == Some("follow");
            return Ok(Source::Lines(kept.into_iter(), follows.then_some(following)));
        }
        (&Method::POST, path) => {
            let collected = tokio::time::timeout(HANDSHAKE_TIMEOUT, Limited::new(body, CONTROL_BODY_BYTES_MAX).collect()).await;
            let body = match collected {
                Ok(Ok(body)) => body.to_bytes(),
                Err(_) => return Err(wrong("the request's body does not come: send all of it")),
                Ok(Err(error)) => {
                    return Err(wrong(format!(
                        "the request's body cannot be read ({error}): send at most {CONTROL_BODY_BYTES_MAX} bytes"
                    )));
                }
            };
            let (told, telling) = mpsc::channel(PROGRESS_LINES_WAITING);
            let ask = match command(path, &body) {
                Ok(Some(command)) => Ask::Do(command, told),
                Ok(None) if path == "/v1/reload" => Ask::Reload(binary(&body).map_err(wrong)?, told),
                Ok(None) if path == "/v1/check" => Ask::Check(binary(&body).map_err(wrong)?, told),
                Ok(None) => return Err(text(StatusCode::NOT_FOUND, "not found\n")),
                Err(why) => return Err(wrong(why)),
            };
            return if asks.send(ask).await.is_ok() { Ok(Source::Told(telling)) } else { Err(ended()) };
        }
        (&Method::GET, _) => text(StatusCode::NOT_FOUND, "not found: see GET /v1/processes, /v1/logs, /metrics, /healthz\n"),
        _ => text(StatusCode::METHOD_NOT_ALLOWED, "use GET or POST\n"),
    })
}

/// The program of a reload, if it names one.
fn binary(body: &[u8]) -> Result<Option<PathBuf>, String> {
    #[derive(Default, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Of {
        #[serde(default)]
        binary: Option<PathBuf>,
    }
    let of: Option<Of> = if body.is_empty() {
        None
    } else {
        serde_json::from_slice(body).map_err(|error| format!("the body is not {{\"binary\": \"/path\"}}: {error}"))?
    };
    let binary = of.unwrap_or_default().binary;
    match &binary {
        Some(path) if !path.is_absolute() => Err(format!("{} is no absolute path", path.display())),
        _ => Ok(binary),
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

/// The head of an answer that goes on: its lines come until the connection closes. They are no part of an exchange, so that another
/// image can send them, too.
fn lines_follow() -> Answer {
    let mut response = Response::new(StreamBody::new(futures_util::stream::empty()).boxed());
    *response.version_mut() = Version::HTTP_10;
    response
}

#[cfg(test)]
mod tests {
    use super::super::ask::Told;
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
                let (response, source) = answer(request, &asks, &logs).await;
                let status = response.status();
                let body = response.into_body().collect().await.expect("a body").to_bytes();
                let mut text = String::from_utf8_lossy(&body).into_owned();
                if let Some(mut source) = source {
                    while let Some(line) = source.next().await {
                        text += &line;
                    }
                }
                (status, text)
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
        let (status, said) = asked(Method::POST, "/v1/reload", r#"{"binary": "lasthit"}"#).await;
        assert_eq!((status, &*said), (StatusCode::BAD_REQUEST, "lasthit is no absolute path\n"));
        assert_eq!(asked(Method::POST, "/v1/check", "{\"path\": 1}").await.0, StatusCode::BAD_REQUEST);
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

//! How evenly a supervisor spreads sessions over its gateways: while they open, and after one gateway was killed.

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

use crate::environment::Environment;
use crate::limits::{EVEN_AGAIN_TIMEOUT, EVEN_LOOK_INTERVAL, EVEN_OPEN_TIMEOUT, EVEN_RETRY, EVEN_ROOM_SESSIONS};
use crate::spawn::{Fleet, Spawn};
use crate::speak::dialect::{Audience, Dialect};
use crate::speak::socket::Socket;

/// What to measure.
#[derive(Debug, Clone)]
pub(crate) struct EvenConfig {
    pub(crate) spawn: Spawn,
    pub(crate) sessions: u32,
    /// One gateway is killed with -9, and the others even out.
    pub(crate) kill: bool,
}

/// Sessions of each gateway at one moment.
#[derive(Debug, Clone, Serialize)]
struct Look {
    /// Since the first connection.
    s: f64,
    sessions: BTreeMap<String, u64>,
}

/// What came of it; its serialized form is what `--json` writes.
#[derive(Debug, Serialize)]
pub(crate) struct Even {
    sessions: u32,
    /// Once all sessions were open: those of the fullest gateway over the mean.
    even_max_over_mean: f64,
    /// How long the sessions took to open, in seconds.
    opened_s: f64,
    /// From the kill until the fullest gateway had at most 1.1 times the mean, with all gateways ready and all sessions there.
    #[serde(skip_serializing_if = "Option::is_none")]
    even_after_crash_s: Option<f64>,
    /// How often a session followed a `move`.
    moved: u64,
    /// How often one connected again because its connection ended.
    reconnected: u64,
    looks: Vec<Look>,
    environment: Environment,
}

impl Even {
    /// Opens the sessions and looks on. None when somebody asked for the end.
    pub(crate) async fn measure(config: &EvenConfig, stop: &Arc<AtomicBool>) -> Result<Option<Self>> {
        let Spawn::Up { gateways, .. } = config.spawn else {
            bail!("even needs a supervisor: use --spawn up:gateways=8,workers=1");
        };
        ensure!(!config.kill || gateways > 1, "--kill needs a second gateway: use --spawn up:gateways=4,workers=1");
        let mut fleet = Fleet::start(config.spawn).await?;
        let measured = watch(config, usize::from(gateways), &fleet, stop).await;
        if measured.is_err() {
            eprintln!("{}", fleet.logs());
        }
        fleet.end().await;
        measured
    }
}

/// What sessions count.
#[derive(Debug, Default)]
struct Counts {
    moved: AtomicU64,
    reconnected: AtomicU64,
}

async fn watch(config: &EvenConfig, gateways: usize, fleet: &Fleet, stop: &AtomicBool) -> Result<Option<Even>> {
    let (control, began) = (fleet.control(), Instant::now());
    let url = fleet.urls().first().context("no address")?.clone();
    let (counts, mut looks) = (Arc::new(Counts::default()), Vec::new());
    let mut sessions = tokio::task::JoinSet::new();
    for number in 0..config.sessions {
        sessions.spawn(session(url.clone(), number, counts.clone()));
    }
    let all = u64::from(config.sessions);
    let mut look = async |within: Duration, most: f64, killed: Option<u32>, what: &str| -> Result<Option<(f64, f64)>> {
        let since = Instant::now();
        loop {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let ready = ready_gateways(&control).await?;
            let is_gone = ready.iter().all(|process| process.pid != killed || killed.is_none());
            let there: BTreeMap<String, u64> = ready.into_iter().map(|process| (process.name, process.sessions)).collect();
            let (sum, max) = (there.values().sum::<u64>(), there.values().copied().max().unwrap_or(0));
            #[expect(clippy::cast_precision_loss, reason = "sessions are few")]
            let over_mean = if sum == 0 { f64::INFINITY } else { max as f64 * there.len() as f64 / sum as f64 };
            let is_whole = is_gone && there.len() == gateways && sum == all;
            looks.push(Look { s: round(began.elapsed()), sessions: there });
            if is_whole && over_mean <= most {
                return Ok(Some((round(since.elapsed()), over_mean)));
            }
            ensure!(
                since.elapsed() < within,
                "{what} after {} s: {:?}",
                within.as_secs(),
                looks.last().map(|look| &look.sessions)
            );
            sleep(EVEN_LOOK_INTERVAL).await;
        }
    };
    let Some((opened_s, even_max_over_mean)) = look(EVEN_OPEN_TIMEOUT, f64::INFINITY, None, "not all sessions are open").await?
    else {
        return Ok(None);
    };
    let mut even_after_crash_s = None;
    if config.kill {
        let pid =
            processes(&control).await?.into_iter().find(|process| process.name == "gateway-1").and_then(|process| process.pid);
        let pid = pid.context("gateway-1 does not run")?;
        kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)?;
        let Some((after_s, _)) = look(EVEN_AGAIN_TIMEOUT, 1.1, Some(pid), "gateways are not even again").await? else {
            return Ok(None);
        };
        even_after_crash_s = Some(after_s);
    }
    sessions.shutdown().await;
    Ok(Some(Even {
        sessions: config.sessions,
        even_max_over_mean: (even_max_over_mean * 1000.0).round() / 1000.0,
        opened_s,
        even_after_crash_s,
        moved: counts.moved.load(Ordering::Relaxed),
        reconnected: counts.reconnected.load(Ordering::Relaxed),
        looks,
        environment: Environment::read(),
    }))
}

fn round(time: Duration) -> f64 {
    (time.as_secs_f64() * 100.0).round() / 100.0
}

/// One session that acts never: it comes again when its connection ends, and follows a `move`.
async fn session(url: String, number: u32, counts: Arc<Counts>) {
    loop {
        let Ok(mut socket) = connect(&url, number).await else {
            sleep(EVEN_RETRY).await;
            continue;
        };
        // The old connection is let go once the next one is there.
        while let Told::Move = listen(&mut socket).await {
            if let Ok(next) = connect(&url, number).await {
                counts.moved.fetch_add(1, Ordering::Relaxed);
                let mut old = std::mem::replace(&mut socket, next);
                let _ = timeout(EVEN_RETRY, old.close()).await;
            }
        }
        counts.reconnected.fetch_add(1, Ordering::Relaxed);
    }
}

async fn connect(url: &str, number: u32) -> Result<Socket> {
    let dialect = Dialect::LasthitJson;
    let room = dialect.room(Audience::Sender, "even", number / EVEN_ROOM_SESSIONS)?;
    Socket::connect(dialect.request(url, &room, &format!("p{number}"))?).await
}

/// What ends listening.
enum Told {
    Move,
    Ended,
}

async fn listen(socket: &mut Socket) -> Told {
    #[derive(Deserialize)]
    struct Kind<'a> {
        t: &'a str,
    }
    let (mut scratch, mut moves) = (vec![0; 4096], false);
    poll_fn(|cx| {
        let read = socket.poll_read(cx, &mut scratch, |message| {
            moves |= serde_json::from_slice::<Kind<'_>>(message.payload).is_ok_and(|kind| kind.t == "move");
            Ok(())
        });
        if read.is_ready() {
            return std::task::Poll::Ready(Told::Ended);
        }
        // Answers to pings.
        let _ = socket.poll_write(cx);
        if moves { std::task::Poll::Ready(Told::Move) } else { std::task::Poll::Pending }
    })
    .await
}

#[derive(Debug, Deserialize)]
struct Process {
    name: String,
    phase: String,
    pid: Option<u32>,
    sessions: u64,
}

async fn ready_gateways(control: &Path) -> Result<Vec<Process>> {
    let ready = |process: &Process| process.phase == "ready" && process.name.starts_with("gateway");
    Ok(processes(control).await?.into_iter().filter(ready).collect())
}

/// Asks the supervisor.
async fn processes(control: &Path) -> Result<Vec<Process>> {
    let mut stream = UnixStream::connect(control).await.context("the supervisor does not answer")?;
    stream.write_all(b"GET /v1/processes HTTP/1.0\r\n\r\n").await?;
    let mut answer = Vec::new();
    timeout(EVEN_OPEN_TIMEOUT, stream.read_to_end(&mut answer)).await.context("the supervisor does not answer in time")??;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").context("the supervisor's answer has no body")?;
    ensure!(head.contains(" 200 "), "the supervisor answers: {text}");
    serde_json::from_str(body).with_context(|| format!("the supervisor's answer: {text}"))
}

impl fmt::Display for Even {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sessions, even_max_over_mean, opened_s, even_after_crash_s, moved, reconnected, looks, .. } = self;
        let last = looks.last().map(|look| &look.sessions);
        for (name, count) in last.into_iter().flatten() {
            writeln!(f, "{name:<12} {count}")?;
        }
        write!(f, "{sessions} sessions open after {opened_s} s; the fullest gateway had {even_max_over_mean} times the mean")?;
        if let Some(after) = even_after_crash_s {
            write!(
                f,
                "\nafter the kill of gateway-1: at most 1.1 times the mean after {after} s, {reconnected} reconnected, {moved} moved"
            )?;
        }
        Ok(())
    }
}

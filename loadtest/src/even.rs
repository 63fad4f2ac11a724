//! How evenly a supervisor spreads sessions over its gateways: while they open, and after one gateway was killed. A Node cluster, which
//! spreads them in two ways, may be measured beside it.

mod cluster;
mod picture;

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::environment::Environment;
use crate::limits::{
    EVEN_AGAIN_TIMEOUT, EVEN_LOOK_INTERVAL, EVEN_OPEN_TIMEOUT, EVEN_PEER_WATCH, EVEN_REST, EVEN_RETRY, EVEN_ROOM_SESSIONS,
};
use crate::load::allow_files;
use crate::spawn::{Count, Fleet, Peers, Spawn};
use crate::speak::dialect::{Audience, Dialect};
use crate::speak::socket::Socket;
use crate::supervised::{Process, Supervised};
use cluster::{Accept, Cluster};
pub(crate) use picture::draw;

/// The most that the fullest gateway may have over the mean to count as even.
const EVEN: f64 = 1.1;

/// What to measure.
#[derive(Debug, Clone)]
pub(crate) struct EvenConfig {
    pub(crate) spawn: Spawn,
    pub(crate) sessions: u32,
    /// Sessions that are opened in a second.
    pub(crate) rate: u32,
    /// One gateway is killed with -9, and the others even out.
    pub(crate) kill: bool,
    /// A Node cluster of as many processes is measured, too.
    pub(crate) cluster: bool,
}

/// Sessions of each process at one moment.
#[derive(Debug, Clone, Serialize)]
struct Look {
    /// Since the first connection.
    s: f64,
    sessions: BTreeMap<String, u64>,
}

/// How sessions were spread over processes.
#[derive(Debug, Serialize)]
struct Spread {
    name: &'static str,
    /// Once all sessions were open: those of the fullest process over the mean.
    even_max_over_mean: f64,
    /// How long the sessions took to open, in seconds.
    opened_s: f64,
    /// When one process was killed, since the first connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    killed_s: Option<f64>,
    /// From the kill until the fullest process had at most 1.1 times the mean, with all of them ready and all sessions there. None
    /// where that did not come about.
    #[serde(skip_serializing_if = "Option::is_none")]
    even_after_crash_s: Option<f64>,
    /// How often a session followed a `move`.
    moved: u64,
    /// How often one connected again because its connection ended.
    reconnected: u64,
    looks: Vec<Look>,
}

/// What came of it; its serialized form is what `--json` writes.
#[derive(Debug, Serialize)]
pub(crate) struct Even {
    sessions: u32,
    processes: u16,
    /// Sessions that were opened in a second.
    rate: u32,
    #[serde(flatten)]
    own: Spread,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    peers: Vec<Spread>,
    environment: Environment,
}

/// What is looked at.
#[derive(Debug)]
enum Spreading {
    Supervised(Supervised),
    Cluster(Cluster),
}

impl Spreading {
    async fn processes(&self) -> Result<Vec<Process>> {
        match self {
            Self::Supervised(supervised) => supervised.ready_gateways().await,
            Self::Cluster(cluster) => {
                let mut all = cluster.processes().await?;
                all.retain(Process::is_ready);
                Ok(all)
            }
        }
    }

    fn dialect(&self) -> Dialect {
        if matches!(self, Self::Supervised(_)) { Dialect::LasthitJson } else { Dialect::Peer }
    }
}

impl Even {
    /// Opens the sessions and looks on. None when somebody asked for the end.
    pub(crate) async fn measure(config: &EvenConfig, stop: &Arc<AtomicBool>) -> Result<Option<Self>> {
        let Spawn::Up { gateways: Count::Fixed(processes), .. } = config.spawn else {
            bail!("even needs a supervisor with a fixed number of gateways: use --spawn up:gateways=8,workers=1");
        };
        ensure!(!config.kill || processes > 1, "--kill needs a second gateway: use --spawn up:gateways=4,workers=1");
        allow_files(u64::from(config.sessions) * 2 + 256)?;
        let peers = if config.cluster {
            Some(Peers::open(None).await.context("cannot run the Node cluster, which needs Node")?)
        } else {
            None
        };
        let mut fleet = Fleet::start(config.spawn).await?;
        let supervised = fleet.supervised().context("no supervisor")?.clone();
        let own = watch(config, "lasthit up", processes, &fleet, Spreading::Supervised(supervised), stop).await;
        if own.is_err() {
            eprintln!("{}", fleet.logs());
        }
        fleet.end().await;
        let Some(own) = own? else { return Ok(None) };
        let mut spreads = Vec::new();
        for accept in [Accept::RoundRobin, Accept::Shared] {
            let Some(peers) = &peers else { break };
            let (cluster, mut fleet) = Cluster::start(peers, accept, processes).await?;
            let spread = watch(config, accept.name(), processes, &fleet, Spreading::Cluster(cluster), stop).await;
            if spread.is_err() {
                eprintln!("{}", fleet.logs());
            }
            fleet.end().await;
            let Some(spread) = spread? else { return Ok(None) };
            spreads.push(spread);
        }
        if let Some(peers) = peers {
            peers.remove();
        }
        let EvenConfig { sessions, rate, .. } = *config;
        Ok(Some(Self { sessions, processes, rate, own, peers: spreads, environment: Environment::read() }))
    }
}

/// What sessions count.
#[derive(Debug, Default)]
struct Counts {
    moved: AtomicU64,
    reconnected: AtomicU64,
}

/// Why looking on ended.
#[derive(Debug, Clone, Copy)]
enum Looked {
    /// All sessions are there, and the fullest process has so much over the mean.
    Whole { after_s: f64, over_mean: f64 },
    /// That did not come about in time.
    Late,
    /// Somebody asked for the end.
    Stopped,
}

/// Looks on, and keeps what it saw.
struct Watching<'a> {
    spreading: &'a Spreading,
    processes: usize,
    sessions: u64,
    began: Instant,
    looks: Vec<Look>,
    stop: &'a AtomicBool,
}

impl Watching<'_> {
    /// Until all sessions are on all processes, none of which is `killed`, and the fullest has at most `most` times the mean.
    async fn until_even(&mut self, within: Duration, most: f64, killed: Option<i32>) -> Result<Looked> {
        let since = Instant::now();
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(Looked::Stopped);
            }
            let ready = self.spreading.processes().await?;
            let is_gone = killed.is_none_or(|killed| ready.iter().all(|process| process.pid != Some(killed)));
            let there: BTreeMap<String, u64> = ready.into_iter().map(|process| (process.name, process.sessions)).collect();
            let is_whole = is_gone && there.len() == self.processes && there.values().sum::<u64>() == self.sessions;
            let over_mean = over_mean(&there);
            self.looks.push(Look { s: round(self.began.elapsed()), sessions: there });
            if is_whole && over_mean <= most {
                return Ok(Looked::Whole { after_s: round(since.elapsed()), over_mean });
            }
            if since.elapsed() >= within {
                return Ok(Looked::Late);
            }
            sleep(EVEN_LOOK_INTERVAL).await;
        }
    }

    /// For a while, whatever there is to see.
    async fn rest(&mut self, time: Duration) -> Result<()> {
        let _ = self.until_even(time, 0.0, None).await?;
        Ok(())
    }

    fn last(&self) -> Option<&BTreeMap<String, u64>> {
        self.looks.last().map(|look| &look.sessions)
    }
}

/// Sessions of the fullest process over the mean; endless where there is no session.
fn over_mean(sessions: &BTreeMap<String, u64>) -> f64 {
    let (sum, max) = (sessions.values().sum::<u64>(), sessions.values().copied().max().unwrap_or(0));
    if sum == 0 { f64::INFINITY } else { max as f64 * sessions.len() as f64 / sum as f64 }
}

async fn watch(
    config: &EvenConfig,
    name: &'static str,
    processes: u16,
    fleet: &Fleet,
    spreading: Spreading,
    stop: &AtomicBool,
) -> Result<Option<Spread>> {
    let url = fleet.urls().first().context("no address")?.clone();
    let (counts, began) = (Arc::new(Counts::default()), Instant::now());
    let mut sessions = tokio::task::JoinSet::new();
    for number in 0..config.sessions {
        let due = began + Duration::from_secs(1).mul_f64(f64::from(number) / f64::from(config.rate));
        let session = session(spreading.dialect(), url.clone(), number, counts.clone());
        sessions.spawn(async move {
            sleep_until(due).await;
            session.await;
        });
    }
    let mut watching = Watching {
        spreading: &spreading,
        processes: processes.into(),
        sessions: config.sessions.into(),
        began,
        looks: Vec::new(),
        stop,
    };
    let (opened_s, even_max_over_mean) = match watching.until_even(EVEN_OPEN_TIMEOUT, f64::INFINITY, None).await? {
        Looked::Whole { after_s, over_mean } => (after_s, over_mean),
        Looked::Late => bail!("{name}: not all sessions are open after {} s: {:?}", EVEN_OPEN_TIMEOUT.as_secs(), watching.last()),
        Looked::Stopped => return Ok(None),
    };
    watching.rest(EVEN_REST).await?;
    let (mut killed_s, mut even_after_crash_s) = (None, None);
    if config.kill {
        let victim = spreading.processes().await?.into_iter().find(|process| process.name == "gateway-1");
        let pid = victim.and_then(|process| process.pid()).context("gateway-1 does not run")?;
        kill(pid, Signal::SIGKILL)?;
        let killed = Instant::now();
        killed_s = Some(round(began.elapsed()));
        // Who does not promise to be even again is watched for a while.
        let promises = matches!(spreading, Spreading::Supervised(_));
        let within = if promises { EVEN_AGAIN_TIMEOUT } else { EVEN_PEER_WATCH };
        match watching.until_even(within, EVEN, Some(pid.as_raw())).await? {
            Looked::Whole { after_s, .. } => even_after_crash_s = Some(after_s),
            Looked::Late if promises => bail!("{name}: not even again after {} s: {:?}", within.as_secs(), watching.last()),
            Looked::Late => {}
            Looked::Stopped => return Ok(None),
        }
        // A picture beside others is as long as theirs.
        let left = EVEN_PEER_WATCH.saturating_sub(killed.elapsed());
        watching.rest(if config.cluster { left.max(EVEN_REST) } else { EVEN_REST }).await?;
    }
    let looks = watching.looks;
    sessions.shutdown().await;
    Ok(Some(Spread {
        name,
        even_max_over_mean: (even_max_over_mean * 1000.0).round() / 1000.0,
        opened_s,
        killed_s,
        even_after_crash_s,
        moved: counts.moved.load(Ordering::Relaxed),
        reconnected: counts.reconnected.load(Ordering::Relaxed),
        looks,
    }))
}

fn round(time: Duration) -> f64 {
    (time.as_secs_f64() * 100.0).round() / 100.0
}

/// One session that acts never: it comes again when its connection ends, and follows a `move`.
async fn session(dialect: Dialect, url: String, number: u32, counts: Arc<Counts>) {
    loop {
        let Ok(mut socket) = connect(dialect, &url, number).await else {
            sleep(EVEN_RETRY).await;
            continue;
        };
        // The old connection is let go once the next one is there.
        while let Told::Move = listen(&mut socket).await {
            if let Ok(next) = connect(dialect, &url, number).await {
                counts.moved.fetch_add(1, Ordering::Relaxed);
                let mut old = std::mem::replace(&mut socket, next);
                let _ = timeout(EVEN_RETRY, old.close()).await;
            }
        }
        counts.reconnected.fetch_add(1, Ordering::Relaxed);
    }
}

async fn connect(dialect: Dialect, url: &str, number: u32) -> Result<Socket> {
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

impl Spread {
    /// The fewest and the most sessions of a process when all were open.
    fn ends(&self) -> (u64, u64) {
        let opened = self.looks.iter().find(|look| look.s >= self.opened_s).or(self.looks.last());
        let counts = || opened.into_iter().flat_map(|look| look.sessions.values().copied());
        (counts().min().unwrap_or(0), counts().max().unwrap_or(0))
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, even_max_over_mean, opened_s, killed_s, even_after_crash_s, moved, reconnected, .. } = self;
        let (least, most) = self.ends();
        write!(f, "{name:28}{opened_s:>8} s{least:>9}{most:>9}{even_max_over_mean:>12}")?;
        match (killed_s, even_after_crash_s) {
            (None, _) => Ok(()),
            (Some(_), Some(after)) => write!(f, "   even {after} s after the kill: {reconnected} reconnected, {moved} moved"),
            (Some(_), None) => {
                write!(f, "   not even again within {} s of the kill: {reconnected} reconnected", EVEN_PEER_WATCH.as_secs())
            }
        }
    }
}

impl fmt::Display for Even {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sessions, processes, rate, own, peers, .. } = self;
        writeln!(f, "{sessions} sessions over {processes} processes, {rate} opened a second\n")?;
        write!(f, "{:28}{:>10}{:>9}{:>9}{:>12}", "", "all open", "fewest", "most", "most/mean")?;
        for spread in [own].into_iter().chain(peers) {
            write!(f, "\n{spread}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_is_compared_with_the_mean() {
        let counts = |counts: &[u64]| counts.iter().enumerate().map(|(n, count)| (format!("gateway-{n}"), *count)).collect();
        assert_eq!(over_mean(&counts(&[10, 10, 10])), 1.0);
        assert_eq!(over_mean(&counts(&[0, 30, 0])), 3.0);
        assert_eq!(over_mean(&counts(&[0, 0])), f64::INFINITY);
        assert_eq!(over_mean(&counts(&[])), f64::INFINITY);
    }
}

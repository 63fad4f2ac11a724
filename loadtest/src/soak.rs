//! Checks that the memory of Redis and of every process stays flat while rooms come and go beside some that stay.

use std::collections::BTreeMap;
use std::fmt;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use crate::chaos::Durability;
use crate::chaos::fleet::{Fleet, Size};
use crate::chaos::wire::{Action, Socket, connect};
use crate::speak::frame::{Encoding, Text};

/// Claims of each player of a short-lived room.
const CLAIMS: u32 = 3;
/// Rooms that stay, with two players each.
const STEADY_ROOMS: u32 = 8;
/// Between two claims of a player who stays.
const STEADY_PACE: Duration = Duration::from_millis(100);
/// The same where counts bound what is kept: they are to be reached.
const COUNTED_PACE: Duration = Duration::from_millis(20);
/// Rooms that stay and fail, with two players each.
const FAILING_ROOMS: u32 = 2;
/// What they play.
const FAILING_RULES: &str = "export default { name: 'failing', version: 1, on: { fail() { throw new Error('on purpose') } } };\n";
/// Keys that those who stay go round in.
const STEADY_KEYS: u64 = 50;
/// Short-lived rooms that are played in at once; what is due beyond that waits, so that a machine that was busy for a
/// moment does not make a peak of its own, which the processes' allocators would keep.
const ROOMS_AT_ONCE: u32 = 48;
/// How long a visit may take.
const VISIT_TIMEOUT: Duration = Duration::from_secs(30);
/// Samples of one run.
const SAMPLES: u32 = 120;
/// How much of the run one average is over.
const WINDOW: f64 = 1.0 / 12.0;
/// How much more there may be in the end than at one third.
const GROWTH_MAX: f64 = 0.10;
/// Rows of the table that is shown.
const ROWS: usize = 12;

/// What to run.
#[derive(Debug, Clone)]
pub(crate) struct SoakConfig {
    /// Rooms that come and go.
    pub(crate) rooms: u32,
    /// In which time.
    pub(crate) duration: Duration,
    /// How long the workers keep what was resolved.
    pub(crate) retention: String,
    /// How long an empty room stays.
    pub(crate) room_linger: String,
    /// How many verdicts a room keeps.
    pub(crate) keep_done: Option<u64>,
    /// How many failed events are kept.
    pub(crate) keep_failed: Option<u32>,
    /// Gateways.
    pub(crate) gateways: usize,
    /// Workers.
    pub(crate) workers: usize,
    /// Gateways and workers of a supervisor, if there is one.
    pub(crate) supervised: Option<(usize, usize)>,
}

/// What was there at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Sample {
    /// Seconds from the start.
    at_s: f64,
    /// Keys in Redis.
    keys: u64,
    /// Bytes: what Redis says it uses, and what every process has in memory.
    bytes: BTreeMap<String, u64>,
}

/// One of the figures, at one third and in the end.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Growth {
    third: f64,
    end: f64,
    growth: f64,
}

/// What a soak says in the end.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct SoakReport {
    passed: bool,
    duration_s: f64,
    retention: String,
    room_linger: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_done: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_failed: Option<u32>,
    /// Rooms that were played in.
    rooms: u64,
    /// Visits that did not get all their answers.
    failed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_failure: Option<String>,
    /// Claims that were answered, in rooms that stay too.
    answered: u64,
    growth: BTreeMap<String, Growth>,
    samples: Vec<Sample>,
}

#[derive(Debug, Default)]
struct Counts {
    rooms: AtomicU64,
    failed: AtomicU64,
    answered: AtomicU64,
    first_failure: std::sync::Mutex<Option<String>>,
}

impl Counts {
    fn failed(&self, error: &anyhow::Error) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        if let Ok(mut first) = self.first_failure.lock() {
            first.get_or_insert_with(|| format!("{error:#}"));
        }
    }
}

/// Runs it. None when `stop` was ready first.
pub(crate) async fn run(config: &SoakConfig, stop: impl Future<Output = ()>) -> Result<Option<SoakReport>> {
    let mut args = vec!["--retention", &config.retention, "--room-linger", &config.room_linger];
    let folder = config.counts().then(|| config.write_rules()).transpose()?;
    let file = folder.as_ref().map(|folder| folder.path().join("lasthit.toml").display().to_string());
    args.extend(file.iter().flat_map(|file| ["--config", file]));
    let size = Size { gateways: config.gateways, workers: config.workers, supervised: config.supervised, hosts: 0 };
    let fleet = Fleet::start(Durability::Redis, size, &args).await?;
    let done = tokio::select! {
        done = play(config, &fleet) => done.map(Some),
        () = stop => Ok(None),
    };
    if done.is_err() {
        eprintln!("{}", fleet.logs().await);
    }
    fleet.end().await;
    done
}

impl SoakConfig {
    /// Whether counts bound what is kept.
    fn counts(&self) -> bool {
        self.keep_done.is_some() || self.keep_failed.is_some()
    }

    /// A folder with the workers' configuration.
    fn write_rules(&self) -> Result<tempfile::TempDir> {
        let folder = tempfile::Builder::new().prefix("loadtest-").tempdir().context("no directory for the configuration")?;
        let done = self.keep_done.map(|count| format!("keep_done = {count}\n")).unwrap_or_default();
        let failed = self.keep_failed.map(|count| format!("keep_failed = {count}\n")).unwrap_or_default();
        let page = |pattern, rules| format!("[[rooms]]\npattern = \"{pattern}\"\nrules = {rules}\n{done}{failed}");
        let text = page("claim-*", "\"claim\"") + &page("failing-*", "{ file = \"failing.js\" }");
        std::fs::write(folder.path().join("lasthit.toml"), text)?;
        std::fs::write(folder.path().join("failing.js"), FAILING_RULES)?;
        Ok(folder)
    }

    /// Which rooms stay, whether they fail, and how often their players act.
    fn steady(&self) -> (impl Iterator<Item = (String, bool)>, Duration) {
        let (failing, pace) = if self.counts() { (FAILING_ROOMS, COUNTED_PACE) } else { (0, STEADY_PACE) };
        let failing = (0..failing).map(|n| (format!("failing-{n}"), true));
        ((0..STEADY_ROOMS).map(|n| (format!("claim-steady-{n}"), false)).chain(failing), pace)
    }
}

async fn play(config: &SoakConfig, fleet: &Fleet) -> Result<SoakReport> {
    let counts = Arc::new(Counts::default());
    let start = Instant::now();
    let (over, seen) = watch::channel(false);
    let mut steady = JoinSet::new();
    let (rooms, pace) = config.steady();
    for (n, (room, fails)) in rooms.flat_map(|room| [room.clone(), room]).enumerate() {
        let url = fleet.urls()[n % fleet.urls().len()].clone();
        let (counts, over) = (Arc::clone(&counts), seen.clone());
        steady.spawn(async move {
            if let Err(error) = stay(&url, &room, &format!("p{n}"), (fails, pace), &counts, over).await {
                counts.failed(&error);
            }
        });
    }
    let visiting = tokio::spawn(visitors(config.clone(), fleet.urls().to_vec(), Arc::clone(&counts)));
    let mut samples = Vec::new();
    let mut due = interval(config.duration / SAMPLES);
    while !visiting.is_finished() {
        due.tick().await;
        samples.push(sample(fleet, start).await?);
        if std::io::stderr().is_terminal() {
            eprint!("\r{:.0} s  {} rooms ", start.elapsed().as_secs_f64(), counts.rooms.load(Ordering::Relaxed));
        }
    }
    visiting.await??;
    let duration_s = start.elapsed().as_secs_f64();
    over.send_replace(true);
    while let Some(done) = steady.join_next().await {
        done?;
    }
    let growth = growth(&samples, duration_s);
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
    let mut report = SoakReport {
        passed: false,
        duration_s,
        retention: config.retention.clone(),
        room_linger: config.room_linger.clone(),
        keep_done: config.keep_done,
        keep_failed: config.keep_failed,
        rooms: count(&counts.rooms),
        failed: count(&counts.failed),
        first_failure: counts.first_failure.lock().ok().and_then(|first| first.clone()),
        answered: count(&counts.answered),
        growth,
        samples,
    };
    report.passed = report.failure().is_none();
    Ok(report)
}

/// Lets one room after the other come and go, evenly over the run.
async fn visitors(config: SoakConfig, urls: Vec<String>, counts: Arc<Counts>) -> Result<()> {
    let permits = Arc::new(Semaphore::new(ROOMS_AT_ONCE as usize));
    let mut due = interval(config.duration / config.rooms.max(1));
    due.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for n in 0..config.rooms {
        due.tick().await;
        let permit = Arc::clone(&permits).acquire_owned().await?;
        let urls = [urls[n as usize % urls.len()].clone(), urls[(n as usize + 1) % urls.len()].clone()];
        let counts = Arc::clone(&counts);
        tokio::spawn(async move {
            let room = format!("claim-{n}");
            let [one, two] = &urls;
            let visits = futures_util::future::join(visit(one, &room, "a", &counts), visit(two, &room, "b", &counts)).await;
            for done in [visits.0, visits.1] {
                if let Err(error) = done {
                    counts.failed(&error);
                }
            }
            counts.rooms.fetch_add(1, Ordering::Relaxed);
            drop(permit);
        });
    }
    timeout(VISIT_TIMEOUT, permits.acquire_many(ROOMS_AT_ONCE)).await.context("visits do not end")??.forget();
    Ok(())
}

async fn visit(url: &str, room: &str, player: &str, counts: &Counts) -> Result<()> {
    let visiting = async {
        let mut seat = Seat::join(url, room, player).await?;
        for n in 0..CLAIMS {
            seat.ask("claim", &format!("{n}"), &format!("k{n}")).await?;
            counts.answered.fetch_add(1, Ordering::Relaxed);
        }
        seat.leave().await
    };
    timeout(VISIT_TIMEOUT, visiting).await.unwrap_or_else(|_| bail!("a visit to {room} took longer than {VISIT_TIMEOUT:?}"))
}

/// Claims and gives back, or fails, until it is over.
async fn stay(
    url: &str,
    room: &str,
    player: &str,
    (fails, pace): (bool, Duration),
    counts: &Counts,
    over: watch::Receiver<bool>,
) -> Result<()> {
    let mut seat = Seat::join(url, room, player).await?;
    let mut n = 0_u64;
    while !*over.borrow() {
        let op = if fails { "fail" } else { ["claim", "release"][usize::from(n % 2 == 1)] };
        seat.ask(op, &format!("{n}"), &format!("k{}", n / 2 % STEADY_KEYS)).await?;
        counts.answered.fetch_add(1, Ordering::Relaxed);
        n += 1;
        sleep(pace).await;
    }
    seat.leave().await
}

/// What it looks at of a message.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Frame<'a> {
    #[serde(borrow)]
    t: Text<'a>,
    #[serde(borrow)]
    player: Text<'a>,
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    code: Text<'a>,
    #[serde(borrow)]
    message: Text<'a>,
}

/// A session that asks and waits.
struct Seat {
    socket: Socket,
    player: String,
}

impl Seat {
    async fn join(url: &str, room: &str, player: &str) -> Result<Self> {
        let socket = connect(&format!("{url}/v1/room/{room}?player={player}"), Encoding::Msgpack).await?;
        let mut seat = Self { socket, player: player.to_owned() };
        seat.until(|frame| &*frame.t == "welcome").await?;
        Ok(seat)
    }

    async fn ask(&mut self, op: &str, id: &str, contest: &str) -> Result<()> {
        self.socket.send(Encoding::Msgpack.message(&Action { op, id, contest, args: None })?).await?;
        let player = self.player.clone();
        self.until(|frame| &*frame.t == "verdict" && &*frame.id == id && *frame.player == *player).await
    }

    async fn until(&mut self, found: impl Fn(&Frame<'_>) -> bool) -> Result<()> {
        while let Some(message) = self.socket.next().await {
            match message? {
                Message::Ping(_) | Message::Pong(_) => {}
                Message::Close(frame) => bail!("closed by the gateway: {frame:?}"),
                message => {
                    let frame: Frame<'_> = Encoding::Msgpack.read(&message)?;
                    if &*frame.t == "error" {
                        bail!("refused as {}: {}", &*frame.code, &*frame.message);
                    }
                    if found(&frame) {
                        return Ok(());
                    }
                }
            }
        }
        bail!("the connection ended")
    }

    async fn leave(mut self) -> Result<()> {
        self.socket.close(None).await?;
        while let Some(Ok(_)) = self.socket.next().await {}
        Ok(())
    }
}

async fn sample(fleet: &Fleet, start: Instant) -> Result<Sample> {
    let info = fleet.ask(&["INFO", "memory"]).await?;
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).context("no used_memory")?.trim().parse()?;
    let keyspace = fleet.ask(&["INFO", "keyspace"]).await?;
    let keys = keyspace.split("keys=").nth(1).and_then(|rest| rest.split(',').next()).map_or(Ok(0), str::parse)?;
    let mut bytes = BTreeMap::from([("used_memory".to_owned(), used)]);
    for (name, pid) in fleet.pids().await {
        bytes.insert(format!("{name} rss"), resident(pid.as_raw())?);
    }
    Ok(Sample { at_s: start.elapsed().as_secs_f64(), keys, bytes })
}

/// Bytes of a process that are in memory.
fn resident(pid: i32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid} is gone"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

/// Each figure at one third of the run and in the end, as averages over a part of it.
#[expect(clippy::cast_precision_loss, reason = "bytes of a process are far below 2^52")]
fn growth(samples: &[Sample], duration_s: f64) -> BTreeMap<String, Growth> {
    let within = |from: f64, to: f64| {
        let within = samples.iter().filter(move |s| s.at_s >= from * duration_s && s.at_s <= to * duration_s);
        let mut sums: BTreeMap<String, (f64, f64)> = BTreeMap::new();
        for sample in within {
            for (name, bytes) in sample.bytes.iter().map(|(name, bytes)| (name.as_str(), *bytes)).chain([("keys", sample.keys)]) {
                let sum = sums.entry(name.to_owned()).or_default();
                *sum = (sum.0 + bytes as f64, sum.1 + 1.0);
            }
        }
        sums
    };
    let (third, end) = (within(1.0 / 3.0, 1.0 / 3.0 + WINDOW), within(1.0 - WINDOW, 2.0));
    let compared = end.into_iter().filter_map(|(name, (sum, count))| {
        let (third_sum, third_count) = third.get(&name).copied()?;
        let (third, end) = (third_sum / third_count, sum / count);
        Some((name, Growth { third, end, growth: end / third.max(1.0) - 1.0 }))
    });
    compared.collect()
}

impl SoakReport {
    /// What grew or failed, in one line; None when all is flat.
    pub(crate) fn failure(&self) -> Option<String> {
        let grown = self.growth.iter().filter(|(_, g)| g.growth > GROWTH_MAX);
        let mut faults: Vec<String> = grown.map(|(name, g)| format!("{name} grew by {:.1} %", g.growth * 100.0)).collect();
        if self.growth.is_empty() {
            faults.push("too short to compare".to_owned());
        }
        if self.failed > 0 {
            faults.push(format!(
                "{} visits failed, the first: {}",
                self.failed,
                self.first_failure.as_deref().unwrap_or_default()
            ));
        }
        (!faults.is_empty()).then(|| format!("soak failed: {}", faults.join(", ")))
    }
}

const MIB: f64 = 1024.0 * 1024.0;

#[expect(clippy::cast_precision_loss, reason = "bytes of a process are far below 2^52")]
impl fmt::Display for SoakReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} rooms came and went in {:.0} s, retention {}, linger {}; {} answers, {} failed",
            self.rooms, self.duration_s, self.retention, self.room_linger, self.answered, self.failed
        )?;
        let names: Vec<&String> = self.samples.first().map(|s| s.bytes.keys().collect()).unwrap_or_default();
        write!(f, "{:>7} {:>7}", "s", "keys")?;
        names.iter().try_for_each(|name| write!(f, " {name:>14}"))?;
        writeln!(f, "   MiB")?;
        for sample in self.samples.iter().step_by(self.samples.len().div_ceil(ROWS).max(1)) {
            write!(f, "{:>7.0} {:>7}", sample.at_s, sample.keys)?;
            for name in &names {
                write!(f, " {:>14.2}", sample.bytes.get(*name).copied().unwrap_or_default() as f64 / MIB)?;
            }
            writeln!(f)?;
        }
        for (name, g) in &self.growth {
            let unit = if name == "keys" { 1.0 } else { MIB };
            writeln!(
                f,
                "{name:<16} at one third {:>10.2}  in the end {:>10.2}  {:+.1} %",
                g.third / unit,
                g.end / unit,
                g.growth * 100.0
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run whose figure is `of` the second.
    fn run(of: impl Fn(u32) -> u64) -> BTreeMap<String, Growth> {
        let sample = |s: u32| Sample { at_s: f64::from(s), keys: 7, bytes: BTreeMap::from([("x".to_owned(), of(s))]) };
        growth(&(0..=120).map(sample).collect::<Vec<_>>(), 120.0)
    }

    fn report(growth: BTreeMap<String, Growth>) -> SoakReport {
        let (retention, room_linger) = (String::new(), String::new());
        SoakReport {
            passed: false,
            duration_s: 120.0,
            retention,
            room_linger,
            keep_done: None,
            keep_failed: None,
            rooms: 1,
            failed: 0,
            first_failure: None,
            answered: 1,
            growth,
            samples: Vec::new(),
        }
    }

    #[test]
    fn what_grows_behind_one_third_fails_and_what_settled_before_does_not() {
        let settled = report(run(|s| 1000 + u64::from(s.min(40)) * 10));
        assert_eq!(settled.failure(), None);
        let growing = report(run(|s| 1000 + u64::from(s) * 10));
        assert!(growing.failure().is_some_and(|said| said.starts_with("soak failed: x grew by")), "{growing}");
        assert_eq!(report(run(|s| 2000 - u64::from(s))).failure(), None);
        assert!(report(BTreeMap::new()).failure().is_some());
        assert!(SoakReport { failed: 1, ..settled }.failure().is_some());
    }

    #[test]
    fn averages_are_of_the_third_and_of_the_end() {
        let growth = &run(|s| if s < 100 { 100 } else { 150 })["x"];
        assert_eq!((growth.third, growth.end), (100.0, 150.0));
        assert!((growth.growth - 0.5).abs() < 1e-9);
    }

    #[test]
    fn this_process_is_in_memory() {
        let pid = i32::try_from(std::process::id()).expect("a process id");
        assert!(resident(pid).expect("status") > 100_000);
    }
}

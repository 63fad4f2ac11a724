//! Reads the metrics of processes and Redis while they work.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use nix::unistd::Pid;
use redis::{Value, cmd};
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::compare::commands::{Calls, Monitor, Watched, calls};
use crate::histogram::Histogram;
use crate::spawn::{Cost, Fleet, counter, data_events};

/// Calls that Redis keeps the times of.
const SLOWLOG_CALLS_MAX: u32 = 4096;
/// How long perf may take beyond what it counts.
const PERF_TIME_MAX: Duration = Duration::from_secs(10);

/// Counters at one moment, or what came between two.
#[derive(Debug, Default)]
pub(super) struct Seen {
    at: Option<Instant>,
    /// By name, all processes together.
    histograms: BTreeMap<&'static str, Histogram>,
    pub(super) events: u64,
    pub(super) flushes: u64,
    pub(super) commits: u64,
    pub(super) pushes: u64,
    pub(super) costs: BTreeMap<String, Cost>,
    /// Calls of each of Redis' commands, in scripts and not.
    pub(super) calls: Calls,
    pub(super) redis_bytes: [u64; 2],
}

/// The histograms that are looked at.
const HISTOGRAMS: [&str; 9] = {
    use lasthit::internals::metrics as m;
    [
        m::STAMP_AGE_SECONDS,
        m::SETTLE_SECONDS,
        m::APPEND_SECONDS,
        m::READ_SECONDS,
        m::HOLD_SECONDS,
        m::RESOLVE_SECONDS,
        m::COMMIT_WAIT_SECONDS,
        m::VERDICT_SECONDS,
        m::WRITTEN_SECONDS,
    ]
};

impl Seen {
    pub(super) async fn look(fleet: &Fleet) -> Result<Self> {
        let (at, costs) = (Some(Instant::now()), fleet.costs()?);
        let (commands, stats) = (fleet.redis_info("commandstats")?, fleet.redis_info("stats")?);
        let redis_bytes = ["total_net_input_bytes", "total_net_output_bytes"].map(|name| number(&stats, name));
        let mut seen = Self { at, costs, calls: calls(&commands), redis_bytes, ..Self::default() };
        for text in fleet.shown().await? {
            seen.add(&text)?;
        }
        Ok(seen)
    }

    /// Takes in what a process shows.
    pub(super) fn add(&mut self, text: &str) -> Result<()> {
        use lasthit::internals::metrics as m;
        for name in HISTOGRAMS {
            self.histograms.entry(name).or_default().add(&Histogram::parse(text, name)?);
        }
        self.events += data_events(text);
        self.flushes += counter(text, m::FLUSHES_TOTAL);
        self.commits += counter(text, m::COMMITS_TOTAL);
        self.pushes += counter(text, m::PUSHES_TOTAL);
        Ok(())
    }

    /// What came since `before`.
    pub(super) fn since(self, before: &Self) -> Self {
        let none = Histogram::default();
        let histogram =
            |(name, held): (&'static str, Histogram)| (name, held.since(before.histograms.get(name).unwrap_or(&none)));
        let cost = |(kind, cost): (String, Cost)| {
            let earlier = before.costs.get(&kind).copied().unwrap_or_default();
            (kind, cost.since(earlier))
        };
        let calls = self.calls.into_iter().map(|(name, count)| {
            let earlier = before.calls.get(&name).copied().unwrap_or(0);
            (name, count.saturating_sub(earlier))
        });
        let [read, written] = self.redis_bytes;
        Self {
            at: self.at,
            histograms: self.histograms.into_iter().map(histogram).collect(),
            events: self.events.saturating_sub(before.events),
            flushes: self.flushes.saturating_sub(before.flushes),
            commits: self.commits.saturating_sub(before.commits),
            pushes: self.pushes.saturating_sub(before.pushes),
            costs: self.costs.into_iter().map(cost).collect(),
            calls: calls.collect(),
            redis_bytes: [read.saturating_sub(before.redis_bytes[0]), written.saturating_sub(before.redis_bytes[1])],
        }
    }

    /// One of the histograms; an error when nothing was recorded, because then a stage would be missing silently.
    pub(super) fn histogram(&self, name: &'static str) -> Result<&Histogram> {
        let held = self.histograms.get(name).filter(|held| held.count() > 0);
        held.with_context(|| format!("no process shows {name}: the program is older than the load generator"))
    }
}

fn number(info: &str, name: &str) -> u64 {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok()).unwrap_or(0)
}

/// System calls by kind of process, and of how many events.
#[derive(Debug, Default)]
pub(super) struct SystemCalls {
    pub(super) by_kind: BTreeMap<String, u64>,
    pub(super) events: u64,
    pub(super) how: &'static str,
}

/// Counts for so long: with perf where it may count, else only the reads and writes that `/proc` tells of.
pub(super) async fn system_calls(fleet: &Fleet, time: Duration) -> Result<SystemCalls> {
    let (pids, events, costs) = (fleet.pids()?, fleet.data_events().await?, fleet.costs()?);
    let counted = futures_util::future::try_join_all(pids.iter().map(async |(kind, pids)| {
        let count = perf(pids, time).await?;
        anyhow::Ok((kind.clone(), count))
    }))
    .await;
    let (by_kind, how) = match counted {
        Ok(counted) => (counted.into_iter().collect(), "perf stat -e raw_syscalls:sys_enter"),
        Err(_) => {
            sleep(time).await;
            let since = |(kind, cost): (String, Cost)| {
                let earlier = costs.get(&kind).copied().unwrap_or_default();
                (kind, cost.since(earlier).reads_and_writes)
            };
            (fleet.costs()?.into_iter().map(since).collect(), "/proc/PID/io: reads and writes only, none of sockets' own calls")
        }
    };
    Ok(SystemCalls { by_kind, events: fleet.data_events().await? - events, how })
}

async fn perf(pids: &[Pid], time: Duration) -> Result<u64> {
    let pids: Vec<String> = pids.iter().map(Pid::to_string).collect();
    let mut command = Command::new("perf");
    command.args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", &pids.join(","), "--", "sleep"]);
    command.arg(format!("{:.3}", time.as_secs_f64())).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(time + PERF_TIME_MAX, command.output()).await.context("perf does not end")??;
    perf_count(&String::from_utf8_lossy(&output.stderr)).context("perf cannot count here")
}

/// Out of perf's list: `1234,,raw_syscalls:sys_enter,...`.
pub(super) fn perf_count(list: &str) -> Option<u64> {
    let line = list.lines().find(|line| line.contains("raw_syscalls:sys_enter"))?;
    line.split(',').next()?.parse().ok()
}

/// How long Redis took for the scripts that events pass through, in microseconds for each room of a call.
#[derive(Debug, Default)]
pub(super) struct Scripts {
    pub(super) append: Times,
    pub(super) commit: Times,
}

/// Times of calls in microseconds, each with the rooms that it was for.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Times(pub(super) Vec<(u64, u64)>);

impl Times {
    /// What an event waits for it: each room counts. None without any.
    pub(super) fn mean_us(&self) -> Option<f64> {
        let rooms: u64 = self.0.iter().map(|(_, rooms)| rooms).sum();
        let sum: u64 = self.0.iter().map(|(us, rooms)| us * rooms).sum();
        (rooms > 0).then(|| sum as f64 / rooms as f64)
    }

    pub(super) fn quantile_us(&self, quantile: f64) -> f64 {
        let mut times = self.0.clone();
        times.sort_unstable();
        let wanted = quantile * times.iter().map(|(_, rooms)| rooms).sum::<u64>() as f64;
        let mut below = 0.0;
        let at = times.iter().find(|(_, rooms)| {
            below += *rooms as f64;
            below >= wanted
        });
        at.map_or(0.0, |(us, _)| *us as f64)
    }
}

/// Lets Redis keep the times of its calls for so long. The last of them are looked at.
pub(super) async fn scripts(fleet: &Fleet, time: Duration) -> Result<Scripts> {
    let config = |name: &str, value: i64| fleet.ask_redis::<()>(cmd("CONFIG").arg("SET").arg(name).arg(value));
    config("slowlog-max-len", i64::from(SLOWLOG_CALLS_MAX))?;
    config("slowlog-log-slower-than", 0)?;
    sleep(time).await;
    config("slowlog-log-slower-than", -1)?;
    let calls: Vec<Value> = fleet.ask_redis(cmd("SLOWLOG").arg("GET").arg(SLOWLOG_CALLS_MAX))?;
    let mut scripts = Scripts::default();
    for (us, script, rooms) in calls.iter().filter_map(call) {
        match script {
            ScriptKind::Append => scripts.append.0.push((us, rooms)),
            ScriptKind::Commit => scripts.commit.0.push((us, rooms)),
        }
    }
    Ok(scripts)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScriptKind {
    Append,
    Commit,
}

/// Of a script's call that events wait for: its time in microseconds, which it is, and of how many rooms. Known by its keys, as
/// another version of lasthit has other scripts: those of the shard first, then as many for each room, with its state.
pub(super) fn call(value: &Value) -> Option<(u64, ScriptKind, u64)> {
    // Arguments may be any bytes.
    type Call = (u64, u64, u64, Vec<Vec<u8>>, Vec<u8>, Vec<u8>);
    let (_, _, us, command, _, _): Call = redis::from_redis_value_ref(value).ok()?;
    let [name, _, count, keys @ ..] = command.as_slice() else { return None };
    let count: u64 = std::str::from_utf8(count).ok()?.parse().ok()?;
    let tag = keys.first()?.strip_suffix(b"shard")?;
    let begins = |at: usize, name: &str| {
        keys.get(at).and_then(|key| key.strip_prefix(tag)).is_some_and(|key| key.starts_with(name.as_bytes()))
    };
    let (script, shards) = match () {
        () if !name.eq_ignore_ascii_case(b"EVALSHA") => return None,
        () if begins(1, "active") && (begins(2, "out:") || begins(2, "room:")) => (ScriptKind::Commit, 2),
        () if begins(2, "active") && begins(3, "rooms") => (ScriptKind::Append, 4),
        () => return None,
    };
    // Without a room it is a watermark that no event waits for. The list of a long call is cut, its number of keys is not.
    let mut states = (0..keys.len()).filter(|at| begins(*at, "state:"));
    let (first, beyond) = (states.next()?, count.checked_sub(shards)?);
    let each = states.next().map_or(beyond, |second| (second - first) as u64);
    Some((us, script, (beyond / each.max(1)).max(1)))
}

/// Watches for so long which commands are sent and which scripts make.
pub(super) async fn monitored(fleet: &Fleet, time: Duration) -> Result<Watched> {
    let monitor = Monitor::start(&fleet.redis_socket())?;
    sleep(time).await;
    let watched = tokio::task::spawn_blocking(move || monitor.end()).await.map_err(|e| anyhow!("the watch failed: {e}"))??;
    ensure!(watched.saw_scripts(), "redis did nothing for {time:?}: the machine is too busy; measure again, or for longer");
    Ok(watched)
}

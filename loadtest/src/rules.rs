//! What programs and timers cost, against the bars that lasthit sets for them; and whether an auction closes at its moment.
//!
//! `bars` is the table. `beside` compares programs with the built-in rules, `memory` weighs rooms, `clock` measures timers in the rooms
//! of `rooms`, `push` changes their program; `programs` has the files. `close` is the auction.

mod bars;
mod beside;
mod clock;
mod close;
mod memory;
mod programs;
mod push;
mod rooms;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use serde::Serialize;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::compare::Teller;
use crate::environment::{Environment, load_average};
use crate::spawn::{Fleet, Options, binary};
use crate::stages::{Choice, StagesConfig, Vary};
pub(crate) use bars::Bar;
use bars::Row;
pub(crate) use close::{CloseConfig, Closed};
use programs::SPAWN;

/// The gauge of the rooms that a worker has in memory.
const IN_MEMORY: &str = "lasthit_rooms_in_memory";
/// The counters of events on which programs failed.
const FAILURES: [&str; 2] = ["lasthit_rules_failures_total", "lasthit_program_failures_total"];
/// How long processes may take to come to rest.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Between looks at whether they have.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Actions a second at which two builds are compared: for the median, and for the CPU time.
const BUILD_RATES: [u32; 2] = [1_000, 10_000];

/// What to measure.
#[derive(Debug, Clone)]
pub(crate) struct RulesConfig {
    /// These bars; all of them when there are none.
    pub(crate) only: Vec<Bar>,
    /// The program that built-in rules are compared with.
    pub(crate) before: Option<PathBuf>,
    /// How often programs and built-in rules take turns.
    pub(crate) rounds: u32,
    /// How long each median is measured, and timers are watched. Other measurements are as much shorter or longer.
    pub(crate) duration: Duration,
    /// Few rooms, one round, short measurements: whether it works, not how fast.
    pub(crate) quick: bool,
}

/// How long each measurement takes, and of how many rooms it is.
#[derive(Debug, Clone, Copy)]
struct Pace {
    rounds: u32,
    /// At 1,000 a second.
    latency: Duration,
    /// Each rate that is tried for the highest.
    step: Duration,
    /// Timers that are watched.
    timers: Duration,
    /// Each rate of timers that is tried.
    timer_step: Duration,
    timer_rooms: u32,
    memory_rooms: u32,
    /// How long rooms are filled that are weighed, in seconds.
    fill_s: u32,
    /// Before what is measured where nothing happens: what comes back every few seconds has come once.
    calm: Duration,
}

impl RulesConfig {
    fn pace(&self) -> Pace {
        let Self { rounds, duration, quick, .. } = *self;
        if quick {
            let short = Duration::from_millis(400);
            return Pace {
                rounds: 1,
                latency: short,
                step: short,
                timers: short * 3,
                timer_step: short,
                timer_rooms: 20,
                memory_rooms: 200,
                fill_s: 1,
                calm: short,
            };
        }
        Pace {
            rounds,
            latency: duration,
            step: duration / 4,
            timers: duration * 2,
            timer_step: duration / 2,
            timer_rooms: 1_000,
            memory_rooms: 10_000,
            fill_s: 4,
            calm: Duration::from_secs(6),
        }
    }
}

/// What was measured; its serialized form is what `--json` writes.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    /// By name.
    bars: BTreeMap<String, Row>,
    /// In the order of the table.
    #[serde(skip)]
    rows: Vec<Row>,
    rounds: u32,
    quick: bool,
    profile: &'static str,
    /// What is missing, and why.
    notes: Vec<String>,
    /// Of the last minute, before and after.
    load_average: [f64; 2],
    environment: Environment,
}

impl Measured {
    /// Measures what is wanted; what it started has ended when it returns, and is killed when it is dropped.
    pub(crate) async fn measure(config: &RulesConfig) -> Result<Self> {
        ensure!(!config.duration.is_zero(), "duration 0: use at least 1ms");
        let wanted: Vec<Bar> = match config.only.as_slice() {
            [] => {
                Bar::value_variants().iter().copied().filter(|bar| *bar != Bar::BuiltinCost || config.before.is_some()).collect()
            }
            only => only.to_vec(),
        };
        if wanted.contains(&Bar::BuiltinCost) && config.before.is_none() {
            bail!("builtin_cost compares with another program: give it as --before FILE");
        }
        let (before, pace, mut teller, mut rows) = (load_average(), config.pace(), Teller::new(), Vec::new());
        let step = beside::measure(&wanted, pace, &mut teller).await;
        rows.extend(teller.kept("programs beside built-in rules", step)?.unwrap_or_default());
        if let Some(program) = config.before.as_ref().filter(|_| wanted.contains(&Bar::BuiltinCost)) {
            let step = builtin_cost(program, pace, &teller).await;
            rows.extend(teller.kept("the cost of built-in rules", step)?);
        }
        if wanted.contains(&Bar::RoomKib) {
            let step = memory::measure(pace, &mut teller).await;
            rows.extend(teller.kept("the memory of rooms", step)?);
        }
        let step = clock::measure(&wanted, pace, &mut teller).await;
        rows.extend(teller.kept("timers", step)?.unwrap_or_default());
        if wanted.contains(&Bar::PushS) {
            let step = push::measure(pace, &mut teller).await;
            rows.extend(teller.kept("a push", step)?);
        }
        ensure!(!rows.is_empty(), "nothing could be measured");
        Ok(Self {
            bars: rows.iter().map(|row| (row.name.clone(), row.clone())).collect(),
            rows,
            rounds: pace.rounds,
            quick: config.quick,
            profile: if cfg!(debug_assertions) { "debug" } else { "release" },
            notes: teller.notes(),
            load_average: [before, load_average()],
            environment: Environment::read(),
        })
    }
}

/// This program against the one before, with the rules that both have.
async fn builtin_cost(before: &Path, pace: Pace, teller: &Teller) -> Result<Row> {
    ensure!(before.is_file(), "--before {}: there is no such file", before.display());
    teller.tell("the cost of built-in rules");
    let rates = BUILD_RATES.to_vec();
    let config =
        StagesConfig { spawn: SPAWN, options: Options::default(), rates, sessions: 100, rooms: 20, duration: pace.latency };
    let choice = Choice::measure(&config, &Vary::binaries(&[before, &binary::lasthit()?]), pace.rounds).await?;
    let ratios = choice.ratios();
    let [[median, _], [_, cpu]] = ratios.as_slice() else { bail!("{} rates were measured", ratios.len()) };
    let raw = json!({ "median_at": BUILD_RATES[0], "cpu_at": BUILD_RATES[1], "choice": choice });
    Ok(Bar::BuiltinCost.row(&[*median, *cpu], raw))
}

/// Nothing counts when a program failed: its events were void, and cost what a failure costs.
async fn none_failed(fleet: &Fleet) -> Result<()> {
    let failed = fleet.shown().await?.iter().map(|text| failures(text)).sum::<u64>();
    ensure!(failed == 0, "a program failed on {failed} events");
    Ok(())
}

/// Events on which programs failed, out of a process's metrics.
fn failures(metrics: &str) -> u64 {
    let lines = metrics.lines().filter(|line| FAILURES.iter().any(|name| line.starts_with(name)));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// Returns when the workers have so many rooms in memory.
async fn until_in_memory(fleet: &Fleet, rooms: u32) -> Result<()> {
    let deadline = Instant::now() + SETTLE_TIMEOUT;
    loop {
        let held = fleet.counted(IN_MEMORY).await.context("how many rooms are in memory is not known")?;
        if held == u64::from(rooms) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{held} rooms are in memory instead of {rooms} after {SETTLE_TIMEOUT:?}");
        sleep(LOOK_INTERVAL).await;
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<24} {:>12} {:>12} {:>12}", "", "measured", "bar", "aim")?;
        for row in &self.rows {
            for figure in &row.figures {
                let name = format!("{}{}{}", row.name, if figure.part.is_empty() { "" } else { " " }, figure.part);
                let [value, bar, aim] = [figure.value, figure.bar, figure.aim].map(|value| shown(value, figure.unit));
                let told = match (figure.met, figure.aim_reached) {
                    (_, true) => "reaches the aim",
                    (true, false) => "met",
                    (false, false) => "MISSED",
                };
                writeln!(f, "{name:<24} {value:>12} {bar:>12} {aim:>12}  {told:<16} {}", row.what)?;
            }
        }
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        let [before, after] = self.load_average;
        let quick = if self.quick { "quick: these are no figures to keep; " } else { "" };
        write!(f, "{quick}{} build; load average {before:.1} before, {after:.1} after", self.profile)
    }
}

fn shown(value: f64, unit: &str) -> String {
    let places = if value.abs() < 100.0 && unit != "/s" { 2 } else { 0 };
    format!("{value:.places$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::failures;

    #[test]
    fn failures_of_all_programs_count() {
        let metrics = "# HELP lasthit_rules_failures_total x\nlasthit_rules_failures_total{program=\"a b\"} 2\n\
            lasthit_program_failures_total{program=\"c\"} 3\nlasthit_rules_seconds_count{program=\"a\"} 9\n";
        assert_eq!((failures(metrics), failures("")), (5, 0));
    }
}

//! Compares lasthit with other systems: in one run, in turns, on one machine, with one generator.
//!
//! `sockets`, `redis_cost` and `queue` measure with `generator`. `install` finds the rivals, `ratios` compares with the targets,
//! `table` and `picture` show the result. Rows of missing rivals are left out. If lasthit breaks a promise, the run ends.

pub(crate) mod commands;
pub(crate) mod generator;
mod install;
pub(crate) mod matrix;
mod picture;
mod queue;
mod ratios;
mod redis_cost;
mod sockets;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::environment::load_average;
use crate::limits::{COMPARE_ROUNDS, COMPARE_TIME_MAX};
use crate::load::allow_files;
use crate::load::report::Broken;
use crate::spawn::Fleet;
use install::Rivals;
pub(crate) use picture::draw;
use ratios::{Figures, TARGETS};

/// What to compare, and how thoroughly.
#[derive(Debug, Clone)]
pub(crate) struct CompareConfig {
    /// A folder of rivals on Node, before the repository's own.
    pub(crate) peer: Option<PathBuf>,
    /// One round of short measurements.
    pub(crate) quick: bool,
    /// This part of it; None: all.
    pub(crate) only: Option<Only>,
}

/// What may be measured alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Only {
    /// Throughput and latency over sockets, with the rivals that have any
    Sockets,
    /// Commands that Redis is sent for each event
    RedisCommands,
    /// Memory that Redis takes for each event that is kept
    RedisBytes,
    /// CPU time for each event in few rooms and in many
    Rooms,
    /// Memory of idle sessions
    Sessions,
    /// Throughput and latency without sockets, with the rivals that have none
    Queue,
}

impl CompareConfig {
    fn has(&self, part: Only) -> bool {
        self.only.is_none_or(|only| only == part)
    }

    /// Whether it is of lasthit's own cost alone, so that one round is enough and nobody else is needed.
    fn is_counted(&self) -> bool {
        matches!(self.only, Some(Only::RedisCommands | Only::RedisBytes | Only::Rooms | Only::Sessions))
    }
}

/// How long each measurement takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    rounds: u32,
    /// At 1,000 a second.
    latency: Duration,
    /// Each rate that is tried for the highest.
    step: Duration,
    /// At full load, while Redis counts.
    full: Duration,
    /// Of rooms that have an event a second each.
    rooms: Duration,
    /// Events of the rivals without sockets; lasthit gets ten times as many.
    jobs: u32,
    /// Of what works without sockets, at 1,000 a second; the first of them is left out.
    queue_latency_s: u32,
    /// Of a rival's settings so many, the fastest ones; at most all.
    rivals: usize,
}

impl Pace {
    const THOROUGH: Self = Self {
        rounds: COMPARE_ROUNDS,
        latency: Duration::from_secs(4),
        step: Duration::from_millis(1200),
        full: Duration::from_secs(3),
        rooms: Duration::from_secs(8),
        jobs: 60_000,
        queue_latency_s: 8,
        rivals: usize::MAX,
    };
    const QUICK: Self = Self {
        rounds: 1,
        latency: Duration::from_secs(2),
        step: Duration::from_millis(400),
        full: Duration::from_secs(2),
        rooms: Duration::from_secs(2),
        jobs: 20_000,
        queue_latency_s: 4,
        rivals: 2,
    };
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Comparison {
    rounds: Vec<Figures>,
    /// What is missing, and why.
    notes: Vec<String>,
    /// Of the last minute, before and after.
    load_average: [f64; 2],
    cores: usize,
}

impl Comparison {
    /// Measures everything, at most so long; what it started has ended when it returns, and is killed when it is dropped.
    pub(crate) async fn measure(config: &CompareConfig) -> Result<Self> {
        let pace = if config.quick { Pace::QUICK } else { Pace::THOROUGH };
        let measuring = Self::measure_rounds(config, pace);
        timeout(COMPARE_TIME_MAX, measuring).await.with_context(|| format!("not done within {COMPARE_TIME_MAX:?}"))?
    }

    async fn measure_rounds(config: &CompareConfig, pace: Pace) -> Result<Self> {
        let (began, before) = (Instant::now(), load_average());
        let mut teller = Teller { began, ..Teller::new() };
        // The gateways have this program's limit.
        if let Err(e) = allow_files(redis_cost::SESSIONS_MAX + 512) {
            teller.note(format!("measurements with very many sessions may be missing: {e:#}"));
        }
        let rivals = Rivals::install(!config.is_counted(), config.peer.as_deref(), &mut teller).await?;
        let (mut rounds, mut longest) = (Vec::new(), Duration::ZERO);
        let wanted = if config.is_counted() { 1 } else { pace.rounds };
        for number in 1..=wanted {
            let left = (COMPARE_TIME_MAX - Duration::from_secs(30)).saturating_sub(began.elapsed());
            if longest > left {
                teller.note(format!(
                    "only {} of {wanted} rounds: there was no time for more within {COMPARE_TIME_MAX:?}",
                    rounds.len()
                ));
                break;
            }
            let start = Instant::now();
            teller.round = format!("round {number} of {wanted}");
            rounds.push(round(config, &rivals, pace, rounds.last(), &mut teller).await?);
            longest = longest.max(start.elapsed());
        }
        rivals.remove();
        ensure!(TARGETS.iter().any(|target| target.value(&rounds).is_some()), "nothing could be compared");
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let mut notes = teller.notes();
        notes.dedup();
        Ok(Self { rounds, notes, load_average: [before, load_average()], cores })
    }

    /// Every figure's median over the rounds.
    pub(crate) fn medians(&self) -> Figures {
        ratios::medians(&self.rounds)
    }

    fn rounds_told(&self) -> String {
        match self.rounds.len() {
            1 => "One round".to_owned(),
            rounds => format!("Medians of {rounds} rounds, in turns"),
        }
    }

    /// `{"ratios": {...}, "raw": {...}}`.
    pub(crate) fn json(&self) -> Result<String> {
        let of = |value: fn(&ratios::Target, f64) -> serde_json::Value| -> BTreeMap<&str, serde_json::Value> {
            TARGETS.iter().filter_map(|target| Some((target.name, value(target, target.value(&self.rounds)?)))).collect()
        };
        let value = json!({
            "ratios": of(|_, value| json!(value)),
            "raw": {
                "reached": of(|target, value| json!(target.reached(value))),
                "medians": self.medians(),
                "rounds": self.rounds,
                "notes": self.notes,
                "load_average": self.load_average,
                "cores": self.cores,
            },
        });
        Ok(serde_json::to_string_pretty(&value)?)
    }
}

/// One turn of everything that is wanted.
async fn round(
    config: &CompareConfig,
    rivals: &Rivals,
    pace: Pace,
    before: Option<&Figures>,
    teller: &mut Teller,
) -> Result<Figures> {
    let mut figures = Figures::new();
    if config.has(Only::Sockets) {
        sockets::measure(rivals, pace, before, &mut figures, teller).await?;
    }
    // These are counts: once is enough.
    if before.is_none() {
        redis_cost::measure(config, pace, &mut figures, teller).await?;
    }
    if config.has(Only::Queue) {
        queue::measure(rivals, pace, &mut figures, teller).await?;
    }
    Ok(figures)
}

/// Says on stderr what is under way, and collects what is missing.
#[derive(Debug)]
pub(crate) struct Teller {
    began: Instant,
    round: String,
    notes: Vec<String>,
}

impl Teller {
    /// Of a run that begins now.
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), round: String::new(), notes: Vec::new() }
    }

    /// What is missing so far.
    pub(crate) fn notes(self) -> Vec<String> {
        self.notes
    }

    pub(crate) fn tell(&self, what: &str) {
        let comma = if self.round.is_empty() { "" } else { ": " };
        eprintln!("{:>4} s  {}{comma}{what}", self.began.elapsed().as_secs(), self.round);
    }

    fn note(&mut self, note: String) {
        eprintln!("{note}");
        self.notes.push(note);
    }

    /// One measurement, see [`Teller::kept`].
    async fn step<T>(&mut self, what: &str, step: impl Future<Output = Result<T>>) -> Result<Option<T>> {
        self.tell(what);
        let measured = step.await;
        self.kept(what, measured)
    }

    /// What was measured. When it failed, what needs it is absent; unless lasthit broke a promise, which ends the run.
    pub(crate) fn kept<T>(&mut self, what: &str, measured: Result<T>) -> Result<Option<T>> {
        match measured {
            Ok(value) => Ok(Some(value)),
            Err(e) if e.is::<Broken>() => Err(e.context(format!("{what}: no result"))),
            Err(e) => {
                self.note(format!("{what} could not be measured: {e:#}"));
                Ok(None)
            }
        }
    }
}

/// What the processes said last, when lasthit broke a promise: a machine that is too busy is no reason to look there.
pub(crate) fn explain<T>(measured: &Result<T>, fleet: &mut Fleet) {
    if measured.as_ref().is_err_and(anyhow::Error::is::<Broken>) {
        eprintln!("{}", fleet.logs());
    }
}

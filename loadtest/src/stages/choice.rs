//! The same work under several settings, in turns: what each choice costs or saves. CPU time is the measure that a busy machine
//! changes least.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tokio::time::sleep;

use super::watch::Seen;
use super::{StagesConfig, under_load};
use crate::environment::load_average;
use crate::spawn::{Fleet, Options};

/// Values of one choice.
const VALUES_MAX: usize = 16;

/// What differs: a setting of lasthit's by the name of its flag, `redis` (unix, tcp), or `binary` (programs).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Vary {
    name: String,
    values: Vec<String>,
}

impl FromStr for Vary {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("vary {text:?} is not of the form shards=1,8, redis=unix,tcp or binary=FILE,FILE");
        let (name, values) = text.split_once('=').ok_or_else(wrong)?;
        let values: Vec<String> = values.split(',').map(str::to_owned).collect();
        if name.is_empty() || values.iter().any(String::is_empty) {
            return Err(wrong());
        }
        if !(2..=VALUES_MAX).contains(&values.len()) {
            return Err(format!("vary {text:?} has {} values: use 2 to {VALUES_MAX}", values.len()));
        }
        if let Some(other) = values.iter().find(|value| name == "redis" && !["unix", "tcp"].contains(&value.as_str())) {
            return Err(format!("vary redis={other}: use unix or tcp"));
        }
        Ok(Self { name: name.to_owned(), values })
    }
}

impl Vary {
    /// Between these programs.
    pub(crate) fn binaries(programs: &[&Path]) -> Self {
        Self { name: "binary".to_owned(), values: programs.iter().map(|path| path.display().to_string()).collect() }
    }

    fn options(&self, value: &str, usual: &Options) -> Options {
        let mut options = usual.clone();
        match self.name.as_str() {
            "redis" => options.tcp = value == "tcp",
            "binary" => options.binary = Some(PathBuf::from(value)),
            _ => options.settings.push((self.name.clone(), value.to_owned())),
        }
        options
    }
}

/// What came of it, by rate and value.
#[derive(Debug, Serialize)]
pub(crate) struct Choice {
    pub(super) name: String,
    pub(super) rounds: u32,
    pub(super) rows: Vec<Row>,
    /// Of the last minute, before and after.
    pub(super) load_average: [f64; 2],
}

/// One value at one rate: medians over the rounds.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) events_per_s: u32,
    pub(super) value: String,
    /// CPU time an event by kind of process, in microseconds.
    pub(super) cpu_us: BTreeMap<String, f64>,
    pub(super) cpu_us_total: f64,
    /// The least and the most of the rounds.
    pub(super) cpu_us_range: [f64; 2],
    /// From the intended send to the verdict.
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    #[serde(skip)]
    rounds: Vec<Measured>,
}

#[derive(Debug)]
struct Measured {
    cpu_us: BTreeMap<String, f64>,
    p50_us: f64,
    p99_us: f64,
}

impl Choice {
    /// What the second value's median and CPU time an event are of the first one's, at each rate.
    pub(crate) fn ratios(&self) -> Vec<[f64; 2]> {
        let of = |pair: &[Row]| match pair {
            [one, other] => Some([other.p50_us / one.p50_us, other.cpu_us_total / one.cpu_us_total]),
            _ => None,
        };
        self.rows.chunks(2).filter_map(of).collect()
    }

    /// Every value at every rate, `rounds` times in turns, each on processes of its own.
    pub(crate) async fn measure(config: &StagesConfig, vary: &Vary, rounds: u32) -> Result<Self> {
        ensure!(rounds > 0, "rounds 0: use at least 1");
        let before = load_average();
        let mut rows: Vec<Row> = Vec::new();
        for rate in &config.rates {
            rows.extend(vary.values.iter().map(|value| Row::new(*rate, value)));
        }
        for round in 1..=rounds {
            for row in &mut rows {
                eprintln!("round {round} of {rounds}: {}/s, {}={}", row.events_per_s, vary.name, row.value);
                let options = vary.options(&row.value, &config.options);
                let mut fleet = Fleet::start_with(config.spawn, &options).await?;
                let measured = Measured::of(config, &fleet, row.events_per_s).await;
                if measured.is_err() {
                    eprintln!("{}", fleet.logs());
                }
                fleet.end().await;
                row.rounds.push(measured.with_context(|| format!("{}={}", vary.name, row.value))?);
            }
        }
        rows.iter_mut().for_each(Row::settle);
        Ok(Self { name: vary.name.clone(), rounds, rows, load_average: [before, load_average()] })
    }
}

impl Measured {
    async fn of(config: &StagesConfig, fleet: &Fleet, rate: u32) -> Result<Self> {
        let (seen, report) = under_load(config, fleet, rate, config.duration, async || {
            let before = Seen::look(fleet).await?;
            sleep(config.duration).await;
            Ok(Seen::look(fleet).await?.since(&before))
        })
        .await?;
        ensure!(seen.events > 0, "no events came within {:?}", config.duration);
        let cpu =
            |(kind, cost): (&String, &crate::spawn::Cost)| (kind.clone(), cost.cpu.as_secs_f64() * 1e6 / seen.events as f64);
        let cpu_us = seen.costs.iter().map(cpu).collect();
        Ok(Self { cpu_us, p50_us: report.latency_us.p50, p99_us: report.latency_us.p99 })
    }

    fn total(&self) -> f64 {
        self.cpu_us.values().sum()
    }
}

impl Row {
    fn new(events_per_s: u32, value: &str) -> Self {
        let (cpu_us, rounds) = (BTreeMap::new(), Vec::new());
        Self {
            events_per_s,
            value: value.to_owned(),
            cpu_us,
            cpu_us_total: 0.0,
            cpu_us_range: [0.0; 2],
            p50_us: 0.0,
            p99_us: 0.0,
            rounds,
        }
    }

    /// Makes the medians.
    fn settle(&mut self) {
        let of = |value: &dyn Fn(&Measured) -> f64| median(self.rounds.iter().map(value).collect());
        self.cpu_us_total = of(&Measured::total);
        (self.p50_us, self.p99_us) = (of(&|m| m.p50_us), of(&|m| m.p99_us));
        let kinds: Vec<String> = self.rounds.first().map(|first| first.cpu_us.keys().cloned().collect()).unwrap_or_default();
        let cpu = |kind: String| {
            let value = of(&|m| m.cpu_us.get(&kind).copied().unwrap_or(0.0));
            (kind, value)
        };
        self.cpu_us = kinds.into_iter().map(cpu).collect();
        let totals = || self.rounds.iter().map(Measured::total);
        self.cpu_us_range = [totals().fold(f64::MAX, f64::min), totals().fold(0.0, f64::max)];
    }
}

/// The lower one of the two in the middle; 0 without any.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

//! How the comparison sends: the same generator and the same work for every system.

use std::future::pending;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::dialect::Dialect;
use crate::knee::{Knee, Limit, Ramp, knee};
use crate::load::{Load, Outcome, Pace, measure};
use crate::progress::Progress;
use crate::report::Report;

/// The p99 within which a rate counts as held.
pub(super) const P99_MAX: Duration = Duration::from_millis(50);
/// How often a measurement is tried in which the generator did not keep up.
const TRIES: u32 = 3;
/// Actions of a session that wait for their answers at full load.
const OUTSTANDING: u32 = 16;
/// Before what is measured.
const WARM_UP: Duration = Duration::from_secs(1);
/// The same for each rate of the search for the highest.
const STEP_WARM_UP: Duration = Duration::from_millis(300);
/// How long answers may take after the last action: a rate that needs longer does not hold.
const DRAIN: Duration = Duration::from_secs(3);
/// Rates that the search is expected to try.
const STEPS: u32 = 8;
/// Where the search begins and ends, against what full load gave.
const RANGE: [f64; 2] = [0.3, 1.7];
/// From one rate to the next.
const FACTOR: f64 = 1.35;

/// Who is sent to.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) dialect: Dialect,
    pub(super) urls: Vec<String>,
}

/// The highest rate that held.
#[derive(Debug, Clone, Copy)]
pub(super) struct Highest {
    pub(super) verdicts_per_s: f64,
    /// It was the generator that did not hold more.
    pub(super) generator: bool,
}

impl Target {
    fn load(&self, pace: Pace, duration: Duration) -> Load {
        Load { warm_up: WARM_UP, duration, drain: DRAIN, ..Load::new(self.dialect, self.urls.clone(), pace) }
    }

    /// The usual work at a rate.
    pub(super) async fn at(&self, rate: u32, duration: Duration) -> Result<Report> {
        figures(&self.load(Pace::Open { rate }, duration)).await
    }

    /// In so many rooms with as many sessions each, without a warm-up.
    pub(super) async fn in_rooms(&self, (rooms, sessions_each): (u32, u32), rate: u32, duration: Duration) -> Result<Report> {
        let load =
            Load { rooms, sessions: rooms * sessions_each, warm_up: Duration::ZERO, ..self.load(Pace::Open { rate }, duration) };
        figures(&load).await
    }

    /// Every session sends when it is answered.
    pub(super) async fn flat_out(&self, duration: Duration) -> Result<Report> {
        figures(&self.load(Pace::Closed { outstanding: OUTSTANDING }, duration)).await
    }

    /// The highest rate with a p99 within [`P99_MAX`], in about so long.
    pub(super) async fn highest(&self, time: Duration) -> Result<Highest> {
        let duration = time / STEPS;
        // At full load the answers do not come in time; their rate tells where to look. A generator that is saturated by a
        // closed loop has still told how many there were.
        let full = Load { warm_up: STEP_WARM_UP, ..self.load(Pace::Closed { outstanding: OUTSTANDING }, duration) };
        let most = match measure(&full, &Progress::new(true), pending()).await? {
            Outcome::Done(report) => report.verdicts_per_s,
            other => bail!("no figures at full load: {}", told(&other)),
        };
        let [from, to] = RANGE.map(|share| rate(most * share));
        let ramp = Ramp::by_factor(from, to, FACTOR)?;
        let load = Load { warm_up: STEP_WARM_UP, ..self.load(Pace::Open { rate: from }, duration) };
        let found = knee(&load, &ramp, P99_MAX, &Progress::new(true), pending(), |_| {}).await?;
        let Knee { report, limit, .. } = found.context("interrupted")?;
        let report = report.with_context(|| format!("no rate from {from}/s on holds a p99 of {P99_MAX:?}"))?;
        Ok(Highest { verdicts_per_s: report.verdicts_per_s, generator: limit == Limit::Generator })
    }
}

/// A measurement in which the generator kept up and every answer was audited.
async fn figures(load: &Load) -> Result<Report> {
    let mut last = String::new();
    for _ in 0..TRIES {
        match measure(load, &Progress::new(true), pending()).await? {
            Outcome::Done(report) => match report.failure() {
                None => return Ok(*report),
                Some(failure) => bail!("{failure}"),
            },
            other => last = told(&other),
        }
    }
    bail!("no figures in {TRIES} tries: {last}")
}

fn told(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Saturated(saturation) => saturation.to_string(),
        Outcome::Interrupted(sent) => format!("interrupted after {sent} actions"),
        Outcome::Done(_) => "done".to_owned(),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are positive and far below 2^32")]
fn rate(per_s: f64) -> u32 {
    per_s.max(10.0) as u32
}

//! How the comparison sends: the same generator and the same work for every system.

use std::future::pending;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::load::knee::{Knee, Limit, Ramp, knee};
use crate::load::progress::Progress;
use crate::load::report::Report;
use crate::load::{Load, Outcome, Pace, measure};
use crate::speak::dialect::Dialect;

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
/// How long answers may take after the last action until they are lost.
pub(crate) const DRAIN: Duration = Duration::from_secs(30);
/// The same in the search: a rate that needs longer does not hold.
const STEP_DRAIN: Duration = Duration::from_secs(3);
/// How late sends may leave: latency counts from the intended one, so that a late send is charged to the system, which
/// shares the machine. Whoever keeps the figures says when they were late.
pub(crate) const LATENESS_MAX: Duration = Duration::from_secs(1);
/// Where the search begins and ends, in actions a second: it is over long before its end.
const ANYWHERE: [u32; 2] = [1_000, 1_024_000];
/// From one rate to the next.
const FACTOR: f64 = 2.0;
/// The same around a rate that is expected, as shares of it.
const NEAR: [f64; 2] = [0.4, 4.0];
const NEAR_FACTOR: f64 = 1.4;

/// Who is sent to.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) dialect: Dialect,
    pub(crate) urls: Vec<String>,
    /// See [`Load::family`].
    pub(crate) family: &'static str,
}

/// The highest rate that held.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Highest {
    pub(crate) verdicts_per_s: f64,
    /// It was the generator that did not hold more.
    pub(crate) generator: bool,
}

impl Target {
    /// lasthit, with its usual rules.
    pub(crate) fn lasthit(urls: &[String]) -> Self {
        Self { dialect: Dialect::Lasthit, urls: urls.to_vec(), family: "" }
    }

    fn load(&self, pace: Pace, duration: Duration) -> Load {
        let usual = Load::new(self.dialect, self.urls.clone(), pace);
        Load { family: self.family, warm_up: WARM_UP, duration, drain: DRAIN, lateness_max: LATENESS_MAX, ..usual }
    }

    /// The usual work at a rate.
    pub(crate) async fn at(&self, rate: u32, duration: Duration) -> Result<Report> {
        figures(&self.load(Pace::Open { rate }, duration)).await
    }

    /// In so many rooms with as many sessions each, without a warm-up.
    pub(crate) async fn in_rooms(&self, (rooms, sessions_each): (u32, u32), rate: u32, duration: Duration) -> Result<Report> {
        let paced = self.load(Pace::Open { rate }, duration);
        // No times are kept of it.
        let load = Load { rooms, sessions: rooms * sessions_each, warm_up: Duration::ZERO, lateness_max: Duration::MAX, ..paced };
        figures(&load).await
    }

    /// Every session sends when it is answered.
    pub(crate) async fn flat_out(&self, duration: Duration) -> Result<Report> {
        figures(&self.load(Pace::Closed { outstanding: OUTSTANDING }, duration)).await
    }

    /// The highest rate with a p99 within [`P99_MAX`], at `step` for each rate that is tried. The search begins
    /// below what is `expected`, and goes on elsewhere when that was wrong.
    pub(crate) async fn highest(&self, expected: f64, step: Duration) -> Result<Highest> {
        if let Some(highest) = self.search(NEAR.map(|share| rate(expected * share)), NEAR_FACTOR, step).await? {
            return Ok(highest);
        }
        let found = self.search(ANYWHERE, FACTOR, step).await?;
        found.with_context(|| format!("no rate from {}/s on holds a p99 of {P99_MAX:?}", ANYWHERE[0]))
    }

    async fn search(&self, [from, to]: [u32; 2], factor: f64, step: Duration) -> Result<Option<Highest>> {
        let ramp = Ramp::by_factor(from, to, factor)?;
        let load = Load { warm_up: STEP_WARM_UP, drain: STEP_DRAIN, ..self.load(Pace::Open { rate: from }, step) };
        let found = knee(&load, &ramp, P99_MAX, &Progress::new(true), pending(), |_| {}).await?;
        let Knee { report, limit, .. } = found.context("interrupted")?;
        let verdicts_per_s = report.map(|report| report.verdicts_per_s);
        Ok(verdicts_per_s.map(|verdicts_per_s| Highest { verdicts_per_s, generator: limit == Limit::Generator }))
    }
}

/// A measurement in which the generator kept up and every answer was audited.
pub(crate) async fn figures(load: &Load) -> Result<Report> {
    let mut last = String::new();
    for _ in 0..TRIES {
        match measure(load, &Progress::new(true), pending()).await? {
            Outcome::Done(report) => match (report.broken(f64::INFINITY), report.failure()) {
                (Some(broken), _) if load.dialect.is_lasthit() => return Err(broken.into()),
                (_, Some(failure)) => bail!("{failure}"),
                (_, None) => return Ok(*report),
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

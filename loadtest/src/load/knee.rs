//! The knee: the highest rate at which a system still answers in time. Rates rise step by step until one is not
//! sustained. Then the interval between the last two rates is halved.

use std::fmt;
use std::pin::pin;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;

use super::progress::Progress;
use super::report::Report;
use super::{Load, Outcome, Pace, measure};
use crate::limits::{RAMP_PRECISION, RAMP_STEPS_MAX, RAMP_TRIES, RATE_MAX};

/// The rates to try.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ramp {
    from: u32,
    to: u32,
    step: Step,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    Factor(f64),
    Add(u32),
}

impl Ramp {
    /// From one rate to another (actions a second), each `factor` times the one before.
    pub(crate) fn by_factor(from: u32, to: u32, factor: f64) -> Result<Self> {
        Self { from, to, step: Step::Factor(factor) }.checked()
    }

    fn checked(self) -> Result<Self> {
        let Self { from, to, step } = self;
        ensure!(from > 0 && from <= to && to <= RATE_MAX, "ramp {from}..{to}: use two rising rates of 1 to {RATE_MAX}");
        let steps = match step {
            Step::Factor(factor) => {
                ensure!((1.05..=100.0).contains(&factor), "ramp factor {factor}x: use 1.05x to 100x");
                ((f64::from(to) / f64::from(from)).ln() / factor.ln()).ceil()
            }
            Step::Add(add) => {
                ensure!(add > 0, "ramp step 0: use at least 1");
                (f64::from(to - from) / f64::from(add)).ceil()
            }
        };
        ensure!(steps < RAMP_STEPS_MAX as f64, "ramp of {steps} steps: use larger ones, at most {RAMP_STEPS_MAX}");
        Ok(self)
    }

    fn after(&self, rate: u32) -> u32 {
        let next = match self.step {
            Step::Factor(factor) => (f64::from(rate) * factor).ceil() as u32,
            Step::Add(add) => rate.saturating_add(add),
        };
        next.min(self.to)
    }

    /// The rate to try next, when `held` is the highest that held and `broke` the lowest that did not; None when they are
    /// close enough together, or there is none left.
    pub(crate) fn next(&self, held: Option<u32>, broke: Option<u32>) -> Option<u32> {
        match (held, broke) {
            (None, None) => Some(self.from),
            (None, Some(_)) => None,
            (Some(held), None) => Some(self.after(held)).filter(|next| *next > held),
            (Some(held), Some(broke)) => {
                let close = f64::from(broke - held) <= f64::from(held) * RAMP_PRECISION;
                // The middle of the ratio, not of the difference.
                let middle = (f64::from(held) * f64::from(broke)).sqrt().round() as u32;
                (!close && middle > held && middle < broke).then_some(middle)
            }
        }
    }
}

impl FromStr for Ramp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("ramp {text:?} is not of the form 1000..64000, 1000..64000:1.5x or 1000..64000:5000");
        let (rates, step) = text.split_once(':').map_or((text, "2x"), |(rates, step)| (rates, step));
        let (from, to) = rates.split_once("..").ok_or_else(wrong)?;
        let (from, to) = (from.parse().map_err(|_| wrong())?, to.parse().map_err(|_| wrong())?);
        let ramp = match step.strip_suffix('x') {
            Some(factor) => Self::by_factor(from, to, factor.parse().map_err(|_| wrong())?),
            None => Self { from, to, step: Step::Add(step.parse().map_err(|_| wrong())?) }.checked(),
        };
        ramp.map_err(|e| e.to_string())
    }
}

/// One rate that was tried.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Tried {
    /// Actions a second.
    pub(crate) rate: u32,
    /// Why it did not hold; absent when it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
    /// It did not hold because the generator did not.
    pub(crate) generator: bool,
    /// Absent where the generator was saturated.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) figures: Option<Figures>,
}

/// The figures of one rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Figures {
    pub(crate) verdicts_per_s: f64,
    /// From the intended send.
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// From the actual send.
    pub(crate) service_p99_us: f64,
}

/// What ended a ramp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Limit {
    /// The system did not hold the next rate.
    System,
    /// The generator did not: the knee lies here or higher.
    Generator,
    /// All rates held: the knee lies at the highest or higher.
    Ramp,
}

/// What was found; its serialized form is what `--json` writes.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Knee {
    /// The highest rate that held; absent when none did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) knee_rate: Option<u32>,
    pub(crate) limit: Limit,
    pub(crate) p99_max_us: f64,
    /// In the order in which they were tried.
    pub(crate) tried: Vec<Tried>,
    /// The run at the knee.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) report: Option<Box<Report>>,
}

/// Finds the knee of a load, whose own pace does not matter: the highest rate with a p99 from the intended send of at most
/// `p99_max`, no refusal, and nothing that the audit found. Every rate is told when it was tried. None when `stop` was ready
/// before.
///
/// # Errors
/// When the load is out of bounds, or its sessions cannot be joined; [`Broken`](super::report::Broken) when lasthit did not keep
/// a promise, at whatever rate: that is not tried again.
pub(crate) async fn knee(
    load: &Load,
    ramp: &Ramp,
    p99_max: Duration,
    progress: &Progress,
    stop: impl Future<Output = ()>,
    mut told: impl FnMut(&Tried),
) -> Result<Option<Knee>> {
    ensure!(!p99_max.is_zero(), "p99 0: use at least 1ms");
    let p99_max_us = p99_max.as_secs_f64() * 1e6;
    let mut stop = pin!(stop);
    let (mut held, mut broke, mut limit) = (None, None, Limit::Ramp);
    let (mut all, mut best) = (Vec::new(), None);
    while let Some(rate) = ramp.next(held, broke) {
        let load = Load { pace: Pace::Open { rate }, ..load.clone() };
        let mut tries = RAMP_TRIES;
        let (tried, report) = loop {
            let outcome = measure(&load, &progress.of(format!("{rate}/s")), stop.as_mut()).await?;
            if matches!(outcome, Outcome::Interrupted(_)) {
                return Ok(None);
            }
            if let Outcome::Done(report) = &outcome
                && load.dialect.is_lasthit()
                && let Some(broken) = report.broken(p99_max_us)
            {
                return Err(anyhow::Error::new(broken).context(format!("at {rate}/s")));
            }
            let (tried, report) = judge(rate, outcome, p99_max_us);
            tries -= 1;
            if tried.why.is_none() || tries == 0 {
                break (tried, report);
            }
        };
        told(&tried);
        if tried.why.is_none() {
            (held, best) = (Some(rate), report);
        } else {
            broke = Some(rate);
            limit = if tried.generator { Limit::Generator } else { Limit::System };
        }
        all.push(tried);
    }
    Ok(Some(Knee { knee_rate: held, limit, p99_max_us, tried: all, report: best }))
}

/// Whether a rate held, and why not.
fn judge(rate: u32, outcome: Outcome, p99_max_us: f64) -> (Tried, Option<Box<Report>>) {
    match outcome {
        Outcome::Done(report) => {
            let (p99, service) = (report.latency_us.p99, report.service_us.p99);
            let refusals = report.refusals();
            let why = if p99 > p99_max_us {
                Some(format!("p99 {:.1} ms", p99 / 1000.0))
            } else if refusals > 0 {
                Some(format!("{refusals} refused"))
            } else {
                report.failure()
            };
            // What would have held but for sends that were late was not the system's doing.
            let generator = p99 > p99_max_us && service <= p99_max_us;
            let figures = Figures {
                verdicts_per_s: report.verdicts_per_s,
                p50_us: report.latency_us.p50,
                p99_us: p99,
                service_p99_us: service,
            };
            (Tried { rate, why, generator, figures: Some(figures) }, Some(report))
        }
        Outcome::Saturated(saturation) => {
            // A system that does not answer in time when it is sent less than planned would not have held the plan either.
            let generator = saturation.service_p99_us <= p99_max_us;
            let why = if generator {
                saturation.to_string()
            } else {
                format!("p99 {:.1} ms from the actual send, and the generator was late", saturation.service_p99_us / 1000.0)
            };
            (Tried { rate, why: Some(why), generator, figures: None }, None)
        }
        Outcome::Interrupted(_) => (Tried { rate, why: Some("interrupted".to_owned()), generator: false, figures: None }, None),
    }
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>9}/s", self.rate)?;
        if let Some(Figures { verdicts_per_s, p50_us, p99_us, service_p99_us }) = self.figures {
            write!(
                f,
                "  {verdicts_per_s:>10} verdicts/s  p50 {p50_us:>9} µs  p99 {p99_us:>9} µs  ({service_p99_us} µs from actual send)"
            )?;
        }
        match &self.why {
            None => write!(f, "  sustained"),
            Some(why) => write!(f, "  not sustained: {why}"),
        }
    }
}

impl fmt::Display for Knee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bound = format!("p99 of at most {} ms", self.p99_max_us / 1000.0);
        match (self.knee_rate, self.limit) {
            (None, Limit::Generator) => write!(f, "no knee: the generator could not send any of the rates"),
            (None, _) => write!(f, "no knee: no rate has a {bound}: begin with a lower rate"),
            (Some(rate), Limit::System) => write!(f, "knee {rate}/s: the highest rate with a {bound}"),
            (Some(rate), Limit::Generator) => {
                write!(f, "knee at least {rate}/s ({bound}): above it the generator was saturated, not the system")
            }
            (Some(rate), Limit::Ramp) => write!(f, "knee at least {rate}/s ({bound}): all rates were sustained, so ramp further"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rates that are tried of a system that holds what is at most `capacity`.
    fn tried(ramp: &str, capacity: u32) -> Vec<u32> {
        let ramp: Ramp = ramp.parse().expect("ramp");
        let (mut held, mut broke, mut rates) = (None, None, Vec::new());
        while let Some(rate) = ramp.next(held, broke) {
            if rate <= capacity {
                held = Some(rate)
            } else {
                broke = Some(rate)
            }
            rates.push(rate);
        }
        rates
    }

    #[test]
    fn rates_rise_and_then_close_in() {
        assert_eq!(tried("100..1000", 500), [100, 200, 400, 800, 566, 476, 519, 497]);
        assert_eq!(tried("100..1000:300", 650), [100, 400, 700, 529, 609, 653, 631]);
        assert_eq!(tried("100..1000:4x", u32::MAX), [100, 400, 1000]);
        assert_eq!(tried("100..1000", 99), [100]);
        assert_eq!(tried("1..2", 1), [1, 2]);
    }

    #[test]
    fn a_ramp_is_parsed() {
        assert_eq!("10..20:1.5x".parse(), Ok(Ramp { from: 10, to: 20, step: Step::Factor(1.5) }));
        assert_eq!("10..20:5".parse(), Ok(Ramp { from: 10, to: 20, step: Step::Add(5) }));
        assert_eq!("10..20".parse(), Ok(Ramp { from: 10, to: 20, step: Step::Factor(2.0) }));
        for bad in
            ["", "10", "10..", "20..10", "0..10", "1..2:0", "1..2:0.5x", "1..2:x", "1..2:nanx", "1..100000:1", "1..99999999"]
        {
            let error = bad.parse::<Ramp>().expect_err(bad);
            assert!(error.starts_with("ramp") && !error.contains('\n'), "{error}");
        }
        assert!(Ramp::by_factor(1, 1000, 2.0).is_ok() && Ramp::by_factor(1, 1000, 1.0).is_err());
    }
}

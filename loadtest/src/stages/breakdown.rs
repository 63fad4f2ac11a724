//! The life of an event in stages without gaps: each begins where the one before ended, and their sum is the generator's latency.

use std::ops::Sub;

use anyhow::{Context, Result};
use lasthit::internals::metrics as m;
use serde::Serialize;

use super::watch::{Scripts, Seen, Times};

/// One stage, in microseconds for each event.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Stage {
    pub(super) name: &'static str,
    /// Where it happens.
    pub(super) place: Place,
    /// From what to what.
    pub(super) what: &'static str,
    #[serde(flatten)]
    pub(super) time: Typical,
    /// For stages that have a measure of their own and are not the difference of two.
    pub(super) p99_us: Option<f64>,
}

/// Where a stage happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Place {
    Gateway,
    Redis,
    /// On the way between two processes, waking included.
    Way,
    Worker,
    Elsewhere,
}

/// How old events are at a point on their way.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Mark {
    pub(super) what: &'static str,
    #[serde(flatten)]
    pub(super) time: Typical,
    pub(super) p99_us: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct Breakdown {
    /// From the actual send to the verdict's being read.
    pub(super) service_us: Typical,
    pub(super) stages: Vec<Stage>,
    /// Since the arrival.
    pub(super) marks: Vec<Mark>,
}

/// A time by its mean, which adds up exactly, and by its median, which a machine that stalls now and then changes little.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Typical {
    pub(super) mean_us: f64,
    pub(super) median_us: f64,
}

impl Sub for Typical {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { mean_us: self.mean_us - other.mean_us, median_us: self.median_us - other.median_us }
    }
}

impl Breakdown {
    /// The stages' times add up to `service_us`: what no process measures is `elsewhere`. Medians are taken apart like means: what
    /// lies between two points is the difference of their medians.
    pub(super) fn of(seen: &Seen, scripts: &Scripts, service_us: Typical) -> Result<Self> {
        let age = |name| -> Result<_> {
            let histogram = seen.histogram(name)?;
            let mean_us = histogram.mean_us().context("nothing was recorded")?;
            let [median_us, p99_us] = [0.5, 0.99].map(|quantile| histogram.quantile_us(quantile));
            Ok((Typical { mean_us, median_us }, p99_us))
        };
        let script = |times: &Times| -> Result<_> {
            let mean_us = times.mean_us().context("redis reports no times for its scripts")?;
            Ok((Typical { mean_us, median_us: times.quantile_us(0.5) }, times.quantile_us(0.99)))
        };
        let (read_in, left, read) = (age(m::STAMP_AGE_SECONDS)?, age(m::SETTLE_SECONDS)?, age(m::READ_SECONDS)?);
        let (hold, resolve, wait) = (age(m::HOLD_SECONDS)?, age(m::RESOLVE_SECONDS)?, age(m::COMMIT_WAIT_SECONDS)?);
        let (handed, written) = (age(m::VERDICT_SECONDS)?, age(m::WRITTEN_SECONDS)?);
        let (append, commit) = (script(&scripts.append)?, script(&scripts.commit)?);

        // With a measure of its own, or as the difference of two.
        let own = |name, place, what, (time, p99_us): (Typical, f64)| Stage { name, place, what, time, p99_us: Some(p99_us) };
        let between = |name, place, what, time| Stage { name, place, what, time, p99_us: None };
        let pushed = handed.0 - read.0 - hold.0 - resolve.0 - wait.0 - commit.0;
        let stages = vec![
            own("socket", Place::Gateway, "kernel's stamp to read", read_in),
            between("settle", Place::Gateway, "read to its flush's leaving", left.0 - read_in.0),
            own("append", Place::Redis, "the append script runs", append),
            between("journal", Place::Way, "flush to script, bell to worker", read.0 - left.0 - append.0),
            own("resequence", Place::Worker, "held until all have passed it", hold),
            own("resolve", Place::Worker, "the rules, and the batch around it", resolve),
            own("gather", Place::Worker, "waits for its commit to leave", wait),
            own("commit", Place::Redis, "the commit script runs", commit),
            between("push", Place::Way, "commit to script, push to gateway", pushed),
            between("deliver", Place::Gateway, "handed to its session to written", written.0 - handed.0),
            between("elsewhere", Place::Elsewhere, "generator and kernel, both ways", service_us - written.0),
        ];
        let mark = |what, (time, p99_us)| Mark { what, time, p99_us };
        let marks = vec![
            mark("its flush left the gateway", left),
            mark("a worker had read it", read),
            mark("its verdict was at its session", handed),
            mark("its verdict was written", written),
        ];
        Ok(Self { service_us, stages, marks })
    }
}

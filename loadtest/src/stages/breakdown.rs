//! One event's life in stages that follow each other without a gap: each begins where the one before ended, and together they
//! are what the generator saw.

use anyhow::{Context, Result};
use lasthit::metrics as m;
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
    pub(super) mean_us: f64,
    /// Median and p99, for stages that have a measure of their own and are not the difference of two.
    pub(super) quantiles_us: Option<[f64; 2]>,
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
    pub(super) mean_us: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct Breakdown {
    /// From the actual send to the verdict's being read.
    pub(super) service_mean_us: f64,
    pub(super) stages: Vec<Stage>,
    /// Since the arrival.
    pub(super) marks: Vec<Mark>,
}

impl Breakdown {
    /// The stages' times add up to `service_mean_us`: what no process measures is `elsewhere`.
    pub(super) fn of(seen: &Seen, scripts: &Scripts, service_mean_us: f64) -> Result<Self> {
        let mean = |name| seen.histogram(name)?.mean_us().context("nothing was recorded");
        let (read_in, left, read) = (mean(m::STAMP_AGE_SECONDS)?, mean(m::SETTLE_SECONDS)?, mean(m::READ_SECONDS)?);
        let (hold, resolve, wait) = (mean(m::HOLD_SECONDS)?, mean(m::RESOLVE_SECONDS)?, mean(m::COMMIT_WAIT_SECONDS)?);
        let (handed, written) = (mean(m::VERDICT_SECONDS)?, mean(m::WRITTEN_SECONDS)?);
        let script = |times: &Times| times.mean_us().context("redis tells no times of its scripts");
        let (append, commit) = (script(&scripts.append)?, script(&scripts.commit)?);

        let own = |name| -> Result<_> {
            let histogram = seen.histogram(name)?;
            Ok(Some([histogram.quantile_us(0.5), histogram.quantile_us(0.99)]))
        };
        let of = |times: &Times| Some([times.quantile_us(0.5), times.quantile_us(0.99)]);
        let stage = |name, place, what, mean_us, quantiles_us| Stage { name, place, what, mean_us, quantiles_us };
        let stages = vec![
            stage("socket", Place::Gateway, "kernel's stamp to read", read_in, own(m::STAMP_AGE_SECONDS)?),
            stage("settle", Place::Gateway, "read to its flush's leaving", left - read_in, None),
            stage("append", Place::Redis, "the append script runs", append, of(&scripts.append)),
            stage("journal", Place::Way, "flush to script, bell to worker", read - left - append, None),
            stage("resequence", Place::Worker, "held until all have passed it", hold, own(m::HOLD_SECONDS)?),
            stage("resolve", Place::Worker, "the rules, and the batch around it", resolve, own(m::RESOLVE_SECONDS)?),
            stage("gather", Place::Worker, "waits for its commit to leave", wait, own(m::COMMIT_WAIT_SECONDS)?),
            stage("commit", Place::Redis, "the commit script runs", commit, of(&scripts.commit)),
            stage("push", Place::Way, "commit to script, push to gateway", handed - read - hold - resolve - wait - commit, None),
            stage("deliver", Place::Gateway, "handed to its session to written", written - handed, None),
            stage("elsewhere", Place::Elsewhere, "generator and kernel, both ways", service_mean_us - written, None),
        ];
        let mark = |what, name| -> Result<_> {
            let histogram = seen.histogram(name)?;
            let mean_us = histogram.mean_us().context("nothing was recorded")?;
            Ok(Mark { what, mean_us, p50_us: histogram.quantile_us(0.5), p99_us: histogram.quantile_us(0.99) })
        };
        let marks = vec![
            mark("its flush left the gateway", m::SETTLE_SECONDS)?,
            mark("a worker had read it", m::READ_SECONDS)?,
            mark("its verdict was at its session", m::VERDICT_SECONDS)?,
            mark("its verdict was written", m::WRITTEN_SECONDS)?,
        ];
        Ok(Self { service_mean_us, stages, marks })
    }
}

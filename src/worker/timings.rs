//! Metrics of a worker: how long its events take, and the outcomes of its verdicts.

use std::time::Duration;

use metrics::Histogram;
use quanta::Instant;

use super::job::{Done, Job, Progress, Tally};
use crate::clock;
use crate::engine::Held;
use crate::metrics as names;

/// How long events take in a worker. The histograms are looked up once, because each event is recorded.
#[derive(Clone)]
pub(super) struct Timings {
    read: Histogram,
    hold: Histogram,
    resolve: Histogram,
}

impl Timings {
    pub(super) fn new() -> Self {
        Self {
            read: metrics::histogram!(names::READ_SECONDS),
            hold: metrics::histogram!(names::HOLD_SECONDS),
            resolve: metrics::histogram!(names::RESOLVE_SECONDS),
        }
    }

    /// Records how long these events waited: they are released now.
    pub(super) fn waited(&self, events: &[Held]) {
        let now = clock::monotonic_ns();
        for held in events {
            self.read.record(Duration::from_nanos(held.read_ns.saturating_sub(held.arrival.ns)));
            self.hold.record(Duration::from_nanos(now.saturating_sub(held.read_ns)));
        }
    }

    /// Runs a job whose events were released at `began`.
    pub(super) fn run(&self, job: Job, began: Instant, progress: &Progress) -> Done {
        let events = job.events().len();
        let done = job.run_watched(progress);
        if events > 0 {
            self.resolve.record_many(began.elapsed(), events);
        }
        done
    }
}

#[expect(clippy::cast_precision_loss, reason = "verdicts wait far less than 2^52 ns")]
pub(super) fn count(tally: Tally) {
    if let verdicts @ 1.. = tally.total() {
        let mean_s = tally.waited_ns as f64 / verdicts as f64 / 1e9;
        metrics::histogram!(names::COMMIT_WAIT_SECONDS).record_many(mean_s, verdicts);
    }
    for (outcome, count) in [("granted", tally.granted), ("denied", tally.denied), ("void", tally.void), ("repeat", tally.repeat)]
    {
        metrics::counter!(names::VERDICTS_TOTAL, "outcome" => outcome).increment(count);
    }
    metrics::counter!(names::CLAMPED_TOTAL).increment(tally.clamped);
    metrics::counter!(names::UNPROVEN_TOTAL).increment(tally.unproven);
    metrics::counter!(names::PHOTO_FINISH_TOTAL).increment(tally.photo_finish);
}

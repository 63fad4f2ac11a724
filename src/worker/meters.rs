//! Metrics of a worker: how long its events take, and what becomes of them. Each is looked up once, because looking one up costs
//! more than counting an event.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use quanta::Instant;

use super::core::Core;
use super::job::{Done, Job, Progress, Tally};
use crate::clock;
use crate::engine::Held;
use crate::journal::Commit;
use crate::metrics as names;

/// The metrics of a worker that change with its events.
pub(super) struct Meters {
    read: Histogram,
    hold: Histogram,
    resolve: Histogram,
    commit_wait: Histogram,
    commit: Histogram,
    commits: Counter,
    pushes: Counter,
    granted: Counter,
    denied: Counter,
    void: Counter,
    repeat: Counter,
    clamped: Counter,
    unproven: Counter,
    photo_finish: Counter,
    shards: Gauge,
    rooms: Gauge,
    quarantined: Gauge,
}

impl Meters {
    pub(super) fn new() -> Self {
        let verdicts = |outcome: &'static str| counter!(names::VERDICTS_TOTAL, "outcome" => outcome);
        Self {
            read: histogram!(names::READ_SECONDS),
            hold: histogram!(names::HOLD_SECONDS),
            resolve: histogram!(names::RESOLVE_SECONDS),
            commit_wait: histogram!(names::COMMIT_WAIT_SECONDS),
            commit: histogram!(names::COMMIT_SECONDS),
            commits: counter!(names::COMMITS_TOTAL),
            pushes: counter!(names::PUSHES_TOTAL),
            granted: verdicts("granted"),
            denied: verdicts("denied"),
            void: verdicts("void"),
            repeat: verdicts("repeat"),
            clamped: counter!(names::CLAMPED_TOTAL),
            unproven: counter!(names::UNPROVEN_TOTAL),
            photo_finish: counter!(names::PHOTO_FINISH_TOTAL),
            shards: gauge!(names::SHARDS_OWNED),
            rooms: gauge!(names::ROOMS_IN_MEMORY),
            quarantined: gauge!(names::ROOMS_QUARANTINED),
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

    /// A commit that was sent at `began` is final.
    pub(super) fn committed(&self, commit: &Commit, began: Instant) {
        self.commit.record(began.elapsed().as_secs_f64());
        self.commits.increment(1);
        self.pushes.increment(commit.pushes.len() as u64);
    }

    /// Counts verdicts that are final.
    #[expect(clippy::cast_precision_loss, reason = "verdicts wait far less than 2^52 ns")]
    pub(super) fn count(&self, tally: Tally) {
        if let verdicts @ 1.. = tally.total() {
            self.commit_wait.record_many(tally.waited_ns as f64 / verdicts as f64 / 1e9, verdicts);
        }
        for (counter, count) in [
            (&self.granted, tally.granted),
            (&self.denied, tally.denied),
            (&self.void, tally.void),
            (&self.repeat, tally.repeat),
            (&self.clamped, tally.clamped),
            (&self.unproven, tally.unproven),
            (&self.photo_finish, tally.photo_finish),
        ] {
            if count > 0 {
                counter.increment(count);
            }
        }
    }

    /// Shows what the worker holds now.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    pub(super) fn show(&self, core: &Core) {
        self.shards.set(core.owned().count() as f64);
        self.rooms.set(core.room_count() as f64);
        self.quarantined.set(core.quarantined_count() as f64);
    }
}

//! Metrics of a worker: how long its events take, and what becomes of them. Each is looked up once, because looking one up costs
//! more than counting an event.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use parking_lot::Mutex;
use quanta::Instant;

use super::core::Core;
use super::job::{Done, DoneOutcome, Job, Progress, Tally};
use crate::clock;
use crate::engine::{Held, Trouble};
use crate::journal::Commit;
use crate::limits::{FAILURE_LOG_INTERVAL, FAILURE_LOG_ROOMS_MAX};
use crate::metrics as names;
use crate::types::{Failed, RoomId};

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
    fullest: Gauge,
    quarantined: Gauge,
    /// Events whose verdicts are final, for whoever else counts them.
    resolved: Arc<AtomicU64>,
    /// When the failures of a room were last logged.
    told: Mutex<HashMap<RoomId, Instant>>,
}

impl Meters {
    pub(super) fn new(resolved: Arc<AtomicU64>) -> Self {
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
            fullest: gauge!(names::SHARD_ROOMS_MAX),
            quarantined: gauge!(names::ROOMS_QUARANTINED),
            resolved,
            told: Mutex::default(),
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
        let program = job.program();
        let started = Instant::now();
        let done = job.run_watched(progress);
        if let Some(program) = program {
            let each = started.elapsed() / u32::try_from(events.max(1)).unwrap_or(u32::MAX);
            histogram!(names::RULES_SECONDS, "program" => program).record_many(each, events.max(1));
        }
        if let DoneOutcome::Resolved(room, ..) = &done.outcome {
            self.trouble(room.rules_name(), &done.of.room, &done.trouble);
        }
        if events > 0 {
            self.resolve.record_many(began.elapsed(), events);
        }
        done
    }

    /// Counts what a program had trouble with, and logs the first of it: at most one line in [`FAILURE_LOG_INTERVAL`] for a room.
    fn trouble(&self, program: &str, room: &RoomId, Trouble { failures, impure }: &Trouble) {
        if failures.is_empty() && impure.is_empty() {
            return;
        }
        counter!(names::RULES_FAILURES_TOTAL, "program" => program.to_owned()).increment(failures.len() as u64);
        counter!(names::RULES_IMPURE_TOTAL, "program" => program.to_owned()).increment(impure.len() as u64);
        {
            let (mut told, now) = (self.told.lock(), Instant::now());
            let is_old = |at: &Instant| now.duration_since(*at) >= FAILURE_LOG_INTERVAL;
            if told.len() >= FAILURE_LOG_ROOMS_MAX {
                told.retain(|_, at| !is_old(at));
            }
            if told.get(room).is_some_and(|at| !is_old(at)) || told.len() >= FAILURE_LOG_ROOMS_MAX {
                return;
            }
            told.insert(room.clone(), now);
        }
        if let Some(Failed { seq, error, stack, .. }) = failures.first() {
            tracing::warn!(room.id = %room, program, seq, %error, stack = stack.join(" "), "a program failed: the event is void");
        }
        if let Some(difference) = impure.first() {
            tracing::warn!(room.id = %room, program, %difference, "a program decided otherwise the second time: it keeps something outside ctx.state");
        }
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
            self.resolved.fetch_add(verdicts as u64, Ordering::Relaxed);
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
        self.fullest.set(core.fullest_shard() as f64);
        self.quarantined.set(core.quarantined_count() as f64);
    }
}

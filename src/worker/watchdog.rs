//! Watches the jobs that run on threads of their own, and gives up those that hang.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::job::{At, Done, Job, LaneId, Progress};
use crate::limits::{PROBE_INTERVAL, STATE_TIMEOUT};
use crate::types::Stamp;

/// The jobs that are watched: as many as there are permits. A job that is given up is watched no longer.
pub(super) struct Watchdog {
    /// By the token of their lane.
    jobs: HashMap<u64, Watched>,
    rules_timeout: Duration,
}

struct Watched {
    of: LaneId,
    /// Whether a program decides: one that hangs in an event would hang in it again.
    is_program: bool,
    progress: Arc<Progress>,
    /// Where the job was at the last look.
    seen: At,
    /// How long it has not moved, not counting time in which this process was paused.
    stalled: Duration,
}

impl Watched {
    fn given_up(self) -> (LaneId, Option<Stamp>) {
        let event = if let At::Event(name) = self.seen { Some(name) } else { None };
        (self.of, event.filter(|_| self.is_program))
    }
}

impl Watchdog {
    /// `rules_timeout` bounds the time for one event. To write or read a whole state, a job has at least [`STATE_TIMEOUT`].
    pub(super) fn new(rules_timeout: Duration) -> Self {
        Self { jobs: HashMap::new(), rules_timeout }
    }

    /// Watches a job that starts soon. The job reports its progress through the returned value.
    pub(super) fn start(&mut self, job: &Job) -> Arc<Progress> {
        let (of, progress) = (job.of().clone(), Arc::new(Progress::default()));
        let watched =
            Watched { of, is_program: job.is_program(), progress: progress.clone(), seen: At::Waiting, stalled: Duration::ZERO };
        self.jobs.insert(watched.of.token, watched);
        progress
    }

    pub(super) fn done(&mut self, done: &Done) {
        self.jobs.remove(&done.of.token);
    }

    /// Gives up the jobs that have not moved for too long, and names the event that a program hangs in. Called every
    /// [`PROBE_INTERVAL`]. A late call counts as one interval: the process was paused, and the rules with it.
    pub(super) fn overdue(&mut self) -> Vec<(LaneId, Option<Stamp>)> {
        for job in self.jobs.values_mut() {
            let at = job.progress.at();
            if matches!(at, At::Waiting | At::Asking(_)) || at != job.seen {
                (job.seen, job.stalled) = (at, Duration::ZERO);
            } else {
                job.stalled += PROBE_INTERVAL;
            }
        }
        let patience = |at| match at {
            At::Snapshot | At::Restoring(0) => self.rules_timeout.max(STATE_TIMEOUT),
            _ => self.rules_timeout,
        };
        self.jobs.extract_if(|_, job| job.stalled > patience(job.seen)).map(|(_, job)| job.given_up()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::job::Loading;
    use super::*;
    use crate::journal::Gathering;
    use crate::rules::Claim;
    use crate::rules::NoLibrary;
    use crate::types::{Audience, Incarnation, Moment, RoomId, ShardId};

    /// Also when the time for an event is the least that may be configured.
    #[test]
    fn a_large_state_is_not_taken_for_rules_that_are_stuck() {
        let timeout = Duration::from_millis(crate::limits::RULES_TIMEOUT_MS_MIN);
        let event = At::Event(Stamp { moment: Moment::default(), incarnation: Incarnation(1), ordinal: 1 });
        let cases =
            [(event, timeout), (At::Restoring(7), timeout), (At::Restoring(0), STATE_TIMEOUT), (At::Snapshot, STATE_TIMEOUT)];
        for (at, patience) in cases {
            let mut watchdog = Watchdog::new(timeout);
            let of = LaneId { shard: ShardId(0), epoch: 1, room: RoomId::new("pit").expect("name"), token: 1 };
            let (rules, library) = (Arc::new(|| Box::new(Claim::new(Audience::Room)) as _), Arc::new(NoLibrary));
            let job = Loading { of, stored: Gathering::default(), rules, push: 0, library };
            watchdog.start(&Job::Load(Box::new(job))).is(at);
            assert!(watchdog.overdue().is_empty(), "it has come there");
            let stood = (1..10_000_u32).find(|_| !watchdog.overdue().is_empty()).map(|probes| PROBE_INTERVAL * probes);
            assert_eq!(stood, Some(patience + PROBE_INTERVAL), "{at:?}");
        }
    }
}

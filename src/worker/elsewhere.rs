//! Jobs on threads of their own, and which of them do not come to an end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::job::{At, Done, Job, Progress, Ticket};
use crate::limits::{PROBE_INTERVAL, RULES_TIMEOUT};

/// Bounded by the permits: a job that is given up is forgotten here.
pub(super) struct Elsewhere {
    /// By lane.
    jobs: HashMap<u64, Watched>,
    rules_timeout: Duration,
}

struct Watched {
    ticket: Ticket,
    progress: Arc<Progress>,
    seen: At,
    /// How long it has been there, in time during which the worker's loop was awake.
    standing: Duration,
}

impl Elsewhere {
    /// No job may keep one event for longer.
    pub(super) fn new(rules_timeout: Duration) -> Self {
        Self { jobs: HashMap::new(), rules_timeout }
    }

    /// The job starts soon, and shows how far it comes.
    pub(super) fn start(&mut self, job: &Job) -> Arc<Progress> {
        let (ticket, progress) = (job.ticket(), Arc::new(Progress::default()));
        let watched = Watched { ticket, progress: progress.clone(), seen: At::Waiting, standing: Duration::ZERO };
        self.jobs.insert(watched.ticket.lane(), watched);
        progress
    }

    pub(super) fn done(&mut self, done: &Done) {
        self.jobs.remove(&done.lane());
    }

    /// What has not moved for too long is given up. Called every [`PROBE_INTERVAL`]; a call that comes late counts as one:
    /// this process was paused, and the rules with it.
    pub(super) fn overdue(&mut self) -> Vec<Ticket> {
        for job in self.jobs.values_mut() {
            let at = job.progress.at();
            if at == At::Waiting || at != job.seen {
                (job.seen, job.standing) = (at, Duration::ZERO);
            } else {
                job.standing += PROBE_INTERVAL;
            }
        }
        // A state is no event: a large one takes longer.
        let patience = |at| if at == At::Snapshot { self.rules_timeout.max(RULES_TIMEOUT) } else { self.rules_timeout };
        self.jobs.extract_if(|_, job| job.standing > patience(job.seen)).map(|(_, job)| job.ticket).collect()
    }
}

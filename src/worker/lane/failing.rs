//! A lane whose rules fail, and one that cannot be continued.

use super::{Caution, Lane, State};
use crate::limits::{QUARANTINE_MAX, QUARANTINE_MIN};
use crate::rules::Fault;
use crate::types::Stamp;

impl Lane {
    /// Busy -> Failed: the rules panicked on this event, or hang in it, and `why` tells it. Its verdict will be void. Returns false if
    /// the lane does not wait for a result.
    pub(in crate::worker) fn panicked(&mut self, stamp: Stamp, why: String) -> bool {
        let busy = self.is_busy();
        if busy {
            self.state = State::Failed;
            self.poisoned.insert(stamp, why);
        }
        busy
    }

    /// Whether the verdict of this event will be void because the rules failed on it.
    pub(in crate::worker) fn is_poisoned(&self, stamp: Stamp) -> bool {
        self.poisoned.contains_key(&stamp)
    }

    /// A program outside did not decide: the lane goes on with one event at a time.
    pub(in crate::worker) fn suspect(&mut self, fault: &Fault) {
        self.fault = Some(fault.clone());
        self.caution = Caution::Suspect(self.position);
    }

    /// Why a program outside did not decide the last time, if that is known.
    pub(in crate::worker) fn fault(&self) -> Option<&str> {
        self.fault.as_ref().map(Fault::why)
    }

    /// Whether the program that runs is not the room's: it has decided nothing, and its events wait for the one that is.
    pub(in crate::worker) fn waits_for_its_program(&self) -> bool {
        matches!(self.fault, Some(Fault::Other(_)))
    }

    /// Busy -> Failed: the rules do not return from an event. The lane goes on as a suspect. Returns false if it does not wait for
    /// a result.
    pub(in crate::worker) fn overrun(&mut self) -> bool {
        let busy = self.is_busy();
        if busy {
            self.state = State::Failed;
            self.caution = Caution::Suspect(self.position);
        }
        busy
    }

    /// Failed -> Loading, unless the commit in flight has a part of this lane.
    pub(in crate::worker) fn reload_failed(&mut self, token: impl FnOnce() -> u64) -> bool {
        let over = self.is_failed() && !self.committing;
        if over {
            self.renew(token(), State::loading());
        }
        over
    }

    /// Any -> Quarantined: the room cannot be continued. Returns for how many seconds. Events that were resolved and not committed
    /// are resolved again.
    pub(in crate::worker) fn quarantine(&mut self, now_ns: u64, token: impl FnOnce() -> u64) -> u64 {
        let (least, most) = (QUARANTINE_MIN.as_secs(), QUARANTINE_MAX.as_secs());
        let retry_s = least.saturating_mul(1 << self.failures.min(16)).min(most);
        self.renew(token(), State::Quarantined { until_ns: now_ns.saturating_add(retry_s * 1_000_000_000) });
        self.failures = self.failures.saturating_add(1);
        retry_s
    }

    /// Quarantined -> Loading, if the time is over.
    pub(in crate::worker) fn wake(&mut self, now_ns: u64, token: impl FnOnce() -> u64) -> bool {
        let over = matches!(self.state, State::Quarantined { until_ns } if now_ns >= until_ns);
        if over {
            self.renew(token(), State::loading());
        }
        over
    }
}

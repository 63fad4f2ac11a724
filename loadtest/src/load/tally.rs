//! What a run has seen so far. One lock, held for nanoseconds: all sessions run on one thread.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::audit::Audit;
use super::connects::Connect;
use super::moves::Moves;
use super::phases::Phases;
use super::record::Record;

/// The counts of a run, shared by its sessions.
#[derive(Debug)]
pub(crate) struct Tally(Mutex<Counts>);

/// The part of a run that figures are of, from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    /// The end of the warm-up.
    pub(crate) from: Duration,
    /// The end of the schedule.
    pub(crate) to: Duration,
}

impl Window {
    fn contains(&self, at: Duration) -> bool {
        (self.from..self.to).contains(&at)
    }
}

/// The counts of a run. The audit is of all of it, the figures of its window.
#[derive(Debug)]
pub(crate) struct Counts {
    /// Who was promised what.
    pub(crate) audit: Audit,
    /// How long it took.
    pub(crate) record: Record,
    window: Window,
    /// Actions of the window that left.
    pub(crate) sent: u64,
    /// Verdicts that came within the window.
    pub(crate) came: u64,
    /// First verdicts on own actions, by outcome.
    pub(crate) outcomes: BTreeMap<String, u64>,
    /// Those of them that were not granted, by reason.
    pub(crate) reasons: BTreeMap<String, u64>,
    /// Refusals by code, in the whole run.
    pub(crate) refused: BTreeMap<String, u64>,
    /// Actions that were due while their session's socket owed too much, in the whole run.
    pub(crate) unsent: u64,
    /// How sessions changed over to other gateways.
    pub(crate) moves: Moves,
    /// What is done to the system meanwhile, where something is.
    pub(crate) phases: Option<Phases>,
    /// Sessions that ended before the run did, and why the first of them did.
    pub(crate) broken: u64,
    /// The first of them.
    pub(crate) first_broken: Option<String>,
}

impl Tally {
    /// Of a run.
    pub(crate) fn new(audit: Audit, window: Window) -> Self {
        Self(Mutex::new(Counts {
            audit,
            record: Record::new(),
            window,
            sent: 0,
            came: 0,
            outcomes: BTreeMap::new(),
            reasons: BTreeMap::new(),
            refused: BTreeMap::new(),
            unsent: 0,
            moves: Moves::default(),
            phases: None,
            broken: 0,
            first_broken: None,
        }))
    }

    /// The counts; a panic elsewhere does not keep them from being told.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    /// An action was given to its socket at `now` (from the start of the run); when it was due, in an open loop.
    pub(crate) fn sent(&mut self, action: u64, due: Option<Duration>, now: Duration) {
        self.audit.sent(action, now);
        self.sent += u64::from(self.window.contains(due.unwrap_or(now)));
        if now >= self.window.from {
            self.record.series.sent(now - self.window.from);
        }
    }

    /// The generator turned to an action that was due.
    pub(crate) fn late(&mut self, due: Duration, now: Duration) {
        let late = now.saturating_sub(due);
        if self.window.contains(due) {
            self.record.lateness.record(late);
        }
        if now >= self.window.from {
            self.record.series.late(now - self.window.from, late);
        }
    }

    /// An own action's verdict came, with its outcome and reason.
    pub(crate) fn verdict(&mut self, action: u64, (outcome, reason): (&str, &str), due: Option<Duration>, now: Duration) {
        let Some(sent) = self.audit.answered(action) else { return };
        let due = due.unwrap_or(sent);
        let latency = now.saturating_sub(due);
        self.came += u64::from(self.window.contains(now));
        if now >= self.window.from {
            self.record.series.verdict(now - self.window.from, latency);
        }
        if let Some(phases) = self.phases.as_mut().filter(|_| due >= self.window.from) {
            phases.answered(due, now);
        }
        if self.window.contains(due) {
            self.record.latency.record(latency);
            self.record.service.record(now.saturating_sub(sent));
            count(&mut self.outcomes, outcome);
            if !reason.is_empty() {
                count(&mut self.reasons, reason);
            }
        }
    }

    /// An own action was refused, or the session as a whole got an error.
    pub(crate) fn refused(&mut self, action: Option<u64>, code: &str) {
        if action.is_none_or(|action| self.audit.answered(action).is_some()) {
            count(&mut self.refused, code);
        }
    }

    /// A session moved at `now`, or did not, after `silent` in which it could send nothing.
    pub(crate) fn moved(&mut self, now: Duration, silent: Option<Duration>, count: impl Fn(&mut Moves)) {
        count(&mut self.moves);
        if let Some(phases) = &mut self.phases {
            phases.moved(now, count, silent);
        }
    }

    /// A further connection was welcomed, or is over.
    pub(crate) fn connected(&mut self, one: Connect) {
        if let Some(phases) = &mut self.phases {
            phases.connected(one);
        }
    }

    /// A session ended before the run did.
    pub(crate) fn broke(&mut self, session: u32, why: &anyhow::Error) {
        self.broken += 1;
        self.first_broken.get_or_insert_with(|| format!("session {session}: {why:#}"));
    }
}

/// Bounded by the protocol's words; what is not one of them is counted as the rest.
const WORDS_MAX: usize = 32;

fn count(counts: &mut BTreeMap<String, u64>, word: &str) {
    if let Some(count) = counts.get_mut(word) {
        *count += 1;
    } else {
        let word = if counts.len() < WORDS_MAX { word } else { "other" };
        *counts.entry(word.to_owned()).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn tally(actions: u64) -> Tally {
        Tally::new(Audit::new(actions, 1), Window { from: 100 * MS, to: 1000 * MS })
    }

    #[test]
    fn latency_begins_when_the_send_was_due_and_service_when_it_left() {
        let tally = tally(2);
        let mut counts = tally.lock();
        counts.late(100 * MS, 105 * MS);
        counts.sent(0, Some(100 * MS), 130 * MS);
        counts.verdict(0, ("denied", "late"), Some(100 * MS), 140 * MS);
        let longest = |times: &crate::load::record::Times| (times.quantile_us(1.0) / 1000.0).round();
        let record = &counts.record;
        assert_eq!((longest(&record.latency), longest(&record.service), longest(&record.lateness)), (40.0, 10.0, 5.0));
        assert_eq!((counts.outcomes["denied"], counts.reasons["late"], counts.sent, counts.came), (1, 1, 1, 1));
    }

    #[test]
    fn the_warm_up_is_audited_and_takes_no_part_in_the_figures() {
        let tally = tally(3);
        let mut counts = tally.lock();
        counts.sent(0, Some(99 * MS), 99 * MS);
        counts.sent(1, None, 99 * MS);
        counts.sent(2, None, 100 * MS);
        for action in 0..3 {
            counts.verdict(action, ("granted", ""), (action == 0).then_some(99 * MS), 150 * MS);
        }
        assert!(counts.audit.settled() && counts.audit.sent_count() == 3);
        assert_eq!((counts.sent, counts.record.latency.count(), counts.outcomes["granted"]), (1, 1, 1));
        assert_eq!(counts.came, 3, "throughput is what came in the time, whenever it had left");
        counts.verdict(9, ("granted", ""), None, 150 * MS);
        assert_eq!((counts.came, counts.audit.faults().doubled), (3, 1));
    }

    #[test]
    fn only_the_first_answer_is_measured() {
        let tally = tally(1);
        let mut counts = tally.lock();
        counts.sent(0, None, 200 * MS);
        counts.refused(Some(0), "busy");
        counts.refused(Some(0), "busy");
        counts.verdict(0, ("granted", ""), None, 300 * MS);
        assert_eq!((counts.refused["busy"], counts.record.latency.count(), counts.audit.faults().doubled), (1, 0, 2));
    }

    #[test]
    fn words_are_bounded() {
        let mut counts = BTreeMap::new();
        (0..100).for_each(|n| count(&mut counts, &n.to_string()));
        assert_eq!((counts.len(), counts["other"]), (WORDS_MAX + 1, 68));
    }
}

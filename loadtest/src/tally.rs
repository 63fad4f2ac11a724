//! What a run has seen so far. One lock, held for nanoseconds: all sessions run on one thread.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::audit::Audit;
use crate::record::Record;

/// The counts of a run, shared by its sessions.
#[derive(Debug)]
pub(crate) struct Tally(Mutex<Counts>);

/// The counts of a run.
#[derive(Debug)]
pub(crate) struct Counts {
    /// Who was promised what.
    pub(crate) audit: Audit,
    /// How long it took.
    pub(crate) record: Record,
    /// First verdicts on own actions, by outcome.
    pub(crate) outcomes: BTreeMap<String, u64>,
    /// Those of them that were not granted, by reason.
    pub(crate) reasons: BTreeMap<String, u64>,
    /// Refusals by code.
    pub(crate) refused: BTreeMap<String, u64>,
    /// Actions that were due while their session's outbox was full.
    pub(crate) unsent: u64,
    /// Sessions that ended before the run did, and why the first of them did.
    pub(crate) broken: u64,
    /// The first of them.
    pub(crate) first_broken: Option<String>,
    /// From the start of the run to the last verdict.
    pub(crate) last_verdict: Duration,
}

impl Tally {
    /// Of a run of `actions` actions.
    pub(crate) fn new(actions: u64) -> Self {
        Self(Mutex::new(Counts {
            audit: Audit::new(actions),
            record: Record::new(),
            outcomes: BTreeMap::new(),
            reasons: BTreeMap::new(),
            refused: BTreeMap::new(),
            unsent: 0,
            broken: 0,
            first_broken: None,
            last_verdict: Duration::ZERO,
        }))
    }

    /// The counts; a panic elsewhere does not keep them from being told.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    /// An action was given to its socket, `late` after it was due.
    pub(crate) fn sent(&mut self, action: u64, late: Duration) {
        self.audit.sent(action);
        self.record.lateness.record(late);
    }

    /// An own action's verdict came, with its outcome and reason; when, and when the action was due, are counted from the start of the run.
    pub(crate) fn verdict(&mut self, action: u64, (outcome, reason): (&str, &str), due: Duration, now: Duration) {
        if self.audit.answered(action) {
            self.record.latency.record(now.saturating_sub(due));
            self.last_verdict = self.last_verdict.max(now);
            count(&mut self.outcomes, outcome);
            if !reason.is_empty() {
                count(&mut self.reasons, reason);
            }
        }
    }

    /// An own action was refused, or the session as a whole got an error.
    pub(crate) fn refused(&mut self, action: Option<u64>, code: &str) {
        if action.is_none_or(|action| self.audit.answered(action)) {
            count(&mut self.refused, code);
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

    #[test]
    fn latency_begins_when_the_send_was_due() {
        let tally = Tally::new(2);
        let mut counts = tally.lock();
        counts.sent(0, 30 * MS);
        counts.verdict(0, ("denied", "late"), 100 * MS, 140 * MS);
        assert!((39_000.0..41_000.0).contains(&counts.record.latency.quantile_us(1.0)), "the 30 ms that it left late count");
        assert_eq!(counts.last_verdict, 140 * MS);
        assert_eq!((counts.outcomes["denied"], counts.reasons["late"]), (1, 1));
    }

    #[test]
    fn only_the_first_answer_is_measured() {
        let tally = Tally::new(1);
        let mut counts = tally.lock();
        counts.sent(0, MS);
        counts.refused(Some(0), "busy");
        counts.refused(Some(0), "busy");
        counts.verdict(0, ("granted", ""), MS, 2 * MS);
        assert_eq!((counts.refused["busy"], counts.record.latency.count(), counts.audit.faults().doubled), (1, 0, 2));
    }

    #[test]
    fn words_are_bounded() {
        let mut counts = BTreeMap::new();
        (0..100).for_each(|n| count(&mut counts, &n.to_string()));
        assert_eq!((counts.len(), counts["other"]), (WORDS_MAX + 1, 68));
    }
}

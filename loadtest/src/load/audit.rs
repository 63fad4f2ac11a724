//! The checker: did every client get what the protocol promises? Pure: it gets what was sent and received, and counts faults. It
//! never asks the system under test.
//!
//! * every sent action is answered exactly once, by a verdict or by a refusal (`lost`, `doubled`);
//! * each session's `seq` is contiguous from its welcome on, `from ..= seq` covering what it may not see (`gaps`); what it
//!   has seen already may come again, as the protocol says;
//! * a round of a contest has one winner, whichever session saw it (`two_winners`);
//! * a player's actions are decided in the order in which it sent them, over all of its connections (`overtaken`).

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use serde::Serialize;

use super::record::nanos;
use crate::limits::WINNERS_EXPECTED_MAX;

/// Where a verdict stands: the room's life and its count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// One life of a room.
    pub(crate) era: u64,
    /// The room's count of verdicts.
    pub(crate) seq: u64,
}

/// One round of a contest in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Round {
    /// The room's index.
    pub(crate) room: u32,
    /// The contest's number in the room.
    pub(crate) contest: u64,
    /// Its round, from 1.
    pub(crate) round: u64,
}

/// What was found wrong, by kind. All 0 is a pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Faults {
    /// Sent actions without an answer.
    pub(crate) lost: u64,
    /// Answers beyond an action's first, and answers to actions that were not sent.
    pub(crate) doubled: u64,
    /// Places where a session missed something between what it had seen and what came next.
    pub(crate) gaps: u64,
    /// Winners of a round beyond its first.
    pub(crate) two_winners: u64,
    /// Actions that a player sent after another one and that were decided before it.
    pub(crate) overtaken: u64,
}

impl Faults {
    /// Whether there is more than answers that did not come.
    pub(crate) fn contradict(&self) -> bool {
        self.doubled + self.gaps + self.two_winners + self.overtaken > 0
    }
}

/// Of an action: not sent, answered, or else when it was sent, less this.
const UNSENT: u64 = 0;
const ANSWERED: u64 = u64::MAX;

/// The record of a whole run.
#[derive(Debug)]
pub(crate) struct Audit {
    /// By the number of the action.
    fates: Vec<u64>,
    winners: HashMap<Round, Place>,
    sent: u64,
    answered: u64,
    doubled: u64,
    gaps: u64,
    two_winners: u64,
    overtaken: u64,
}

impl Audit {
    /// A run of at most `actions` actions, numbered from 0, which make at most `winners` winners.
    pub(crate) fn new(actions: u64, winners: u64) -> Self {
        let size = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        // Both have their final size at once, so that nothing is moved while the schedule runs; memory is used as they fill.
        let winners = HashMap::with_capacity(size(winners.min(WINNERS_EXPECTED_MAX)));
        Self {
            fates: vec![UNSENT; size(actions)],
            winners,
            sent: 0,
            answered: 0,
            doubled: 0,
            gaps: 0,
            two_winners: 0,
            overtaken: 0,
        }
    }

    /// An action was given to its socket, so long after the start of the run.
    pub(crate) fn sent(&mut self, action: u64, at: Duration) {
        if let Some(fate) = self.fate(action).filter(|fate| **fate == UNSENT) {
            *fate = nanos(at).saturating_add(1).min(ANSWERED - 1);
            self.sent += 1;
        }
    }

    /// An action's own session got a verdict on it, or a refusal. When it was sent, if this is its first answer.
    pub(crate) fn answered(&mut self, action: u64) -> Option<Duration> {
        let fate = self.fate(action).filter(|fate| **fate != UNSENT && **fate != ANSWERED);
        let Some(fate) = fate else {
            self.doubled += 1;
            return None;
        };
        let sent = std::mem::replace(fate, ANSWERED) - 1;
        self.answered += 1;
        Some(Duration::from_nanos(sent))
    }

    /// Any session saw a verdict that made a winner. The same verdict may be seen by many.
    pub(crate) fn won(&mut self, round: Round, place: Place) {
        if *self.winners.entry(round).or_insert(place) != place {
            self.two_winners += 1;
        }
    }

    /// Two actions of a player changed places.
    pub(crate) fn overtaken(&mut self) {
        self.overtaken += 1;
    }

    /// A session saw `from ..= seq`.
    pub(crate) fn seen(&mut self, contiguity: &mut Contiguity, from: u64, seq: u64) {
        if !contiguity.advance(from, seq) {
            self.gaps += 1;
        }
    }

    /// Actions that were given to their sockets.
    pub(crate) fn sent_count(&self) -> u64 {
        self.sent
    }

    /// Whether everything that was sent is answered.
    pub(crate) fn settled(&self) -> bool {
        self.answered == self.sent
    }

    /// What is wrong if nothing more comes.
    pub(crate) fn faults(&self) -> Faults {
        let lost = self.sent - self.answered;
        let Self { doubled, gaps, two_winners, overtaken, .. } = *self;
        Faults { lost, doubled, gaps, two_winners, overtaken }
    }

    fn fate(&mut self, action: u64) -> Option<&mut u64> {
        usize::try_from(action).ok().and_then(|index| self.fates.get_mut(index))
    }
}

/// One session's own count.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Contiguity {
    last: u64,
}

impl Contiguity {
    /// A session that was welcomed at `seq`.
    pub(crate) fn after(seq: u64) -> Self {
        Self { last: seq }
    }

    /// The last `seq` that was seen.
    pub(crate) fn seen(&self) -> u64 {
        self.last
    }

    /// Whether `from ..= seq` leaves out nothing between it and what was seen; the session has seen `seq` afterwards.
    fn advance(&mut self, from: u64, seq: u64) -> bool {
        let contiguous = from <= seq && from <= self.last.saturating_add(1);
        self.last = self.last.max(seq);
        contiguous
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(actions: u64) -> Audit {
        let mut audit = Audit::new(actions, 1);
        (0..actions).for_each(|n| audit.sent(n, Duration::from_nanos(n)));
        audit
    }

    fn at(seq: u64) -> Place {
        Place { era: 1, seq }
    }

    const ROUND: Round = Round { room: 1, contest: 2, round: 1 };

    #[test]
    fn a_clean_run_passes() {
        let mut audit = sent(3);
        let mut session = Contiguity::after(10);
        for (action, (from, seq)) in [(0, (11, 11)), (1, (12, 15)), (2, (16, 16))] {
            assert_eq!(audit.answered(action), Some(Duration::from_nanos(action)));
            audit.seen(&mut session, from, seq);
        }
        audit.won(ROUND, at(11));
        audit.won(ROUND, at(11));
        audit.won(Round { round: 2, ..ROUND }, at(12));
        audit.won(Round { room: 2, ..ROUND }, at(12));
        audit.won(Round { contest: 3, ..ROUND }, at(13));
        assert!(audit.settled());
        assert_eq!(audit.faults(), Faults::default());
    }

    #[test]
    fn an_action_without_an_answer_is_lost() {
        let mut audit = sent(3);
        audit.answered(1);
        assert!(!audit.settled());
        assert_eq!(audit.faults(), Faults { lost: 2, ..Faults::default() });
    }

    #[test]
    fn an_action_that_was_never_sent_is_not_lost() {
        let mut audit = Audit::new(2, 1);
        audit.sent(0, Duration::ZERO);
        audit.answered(0);
        assert_eq!((audit.sent_count(), audit.faults()), (1, Faults::default()));
    }

    #[test]
    fn a_second_answer_and_one_to_nothing_are_doubled() {
        let mut audit = sent(1);
        assert_eq!(audit.answered(0), Some(Duration::ZERO));
        assert_eq!(audit.answered(0), None);
        assert_eq!(audit.answered(7), None);
        assert_eq!(audit.faults(), Faults { doubled: 2, ..Faults::default() });
        let mut unsent = Audit::new(1, 1);
        assert_eq!(unsent.answered(0), None);
        assert_eq!(unsent.faults().doubled, 1);
    }

    #[test]
    fn a_hole_and_a_range_that_is_none_are_gaps() {
        for (from, seq) in [(12, 12), (12, 14), (11, 10), (u64::MAX, u64::MAX)] {
            let mut audit = Audit::new(1, 1);
            let mut session = Contiguity::after(10);
            audit.seen(&mut session, from, seq);
            assert_eq!(audit.faults(), Faults { gaps: 1, ..Faults::default() }, "{from}..={seq}");
        }
    }

    #[test]
    fn what_was_seen_may_come_again_and_moves_nothing_back() {
        let mut audit = Audit::new(1, 1);
        let mut session = Contiguity::after(10);
        for (from, seq) in [(9, 10), (10, 12), (11, 11), (3, 3), (13, 13)] {
            audit.seen(&mut session, from, seq);
        }
        assert_eq!(audit.faults().gaps, 0);
        audit.seen(&mut session, 15, 15);
        assert_eq!(audit.faults().gaps, 1);
    }

    #[test]
    fn one_hole_is_one_gap() {
        let mut audit = Audit::new(1, 1);
        let mut session = Contiguity::after(0);
        for (from, seq) in [(1, 1), (3, 3), (4, 6)] {
            audit.seen(&mut session, from, seq);
        }
        assert_eq!(audit.faults().gaps, 1);
    }

    #[test]
    fn two_winners_of_a_round_are_found_across_sessions_and_eras() {
        let mut audit = Audit::new(1, 1);
        audit.won(ROUND, at(5));
        audit.won(ROUND, at(6));
        audit.won(ROUND, Place { era: 2, seq: 5 });
        assert_eq!(audit.faults(), Faults { two_winners: 2, ..Faults::default() });
    }
}

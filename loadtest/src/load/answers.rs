//! A session's own actions: which of them wait for an answer, which were sent again, and whether they were decided in the order in
//! which they were sent. Pure.

use std::collections::{HashMap, VecDeque};

/// The own actions of one session, over all of its connections.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// Oldest first: the action, and what had been seen when it was sent first.
    waiting: VecDeque<(u64, u64)>,
    /// Those that were sent again.
    again: HashMap<u64, Again>,
    /// The latest action that was decided, and where.
    latest: Option<(u64, u64)>,
}

#[derive(Debug, Default)]
struct Again {
    /// Answers that may still come beside the first.
    more: u32,
    /// Where it was decided, once that is known.
    place: Option<u64>,
}

/// What a verdict on an own action is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Its answer, or one too many.
    Answer {
        /// Whether it was decided on the other side of an earlier or a later action than it was sent.
        overtakes: bool,
    },
    /// The same decision once more, because it was sent more than once.
    Repeat,
}

impl Answers {
    /// Actions that wait.
    pub(crate) fn waiting(&self) -> u32 {
        u32::try_from(self.waiting.len()).unwrap_or(u32::MAX)
    }

    /// An action is sent for the first time, behind all others, when `seen` had been seen.
    pub(crate) fn sent(&mut self, action: u64, seen: u64) {
        self.waiting.push_back((action, seen));
    }

    /// All that wait are sent again: each with what had been seen at first, oldest first.
    pub(crate) fn send_again(&mut self) -> Vec<(u64, u64)> {
        for (action, _) in &self.waiting {
            self.again.entry(*action).or_default().more += 1;
        }
        self.waiting.iter().copied().collect()
    }

    /// An action was refused: it waits no more.
    pub(crate) fn refused(&mut self, action: u64) {
        self.answered(action);
    }

    /// A verdict on an action says that it was decided at `place` of the room's count; None if it never was.
    pub(crate) fn decided(&mut self, action: u64, place: Option<u64>) -> Heard {
        let first = self.answered(action);
        if let Some(again) = self.again.get_mut(&action) {
            if !first && again.more > 0 && (again.place == place || place.is_none()) {
                again.more -= 1;
                return Heard::Repeat;
            }
            again.place = place;
        }
        let mut overtakes = false;
        if let Some(place) = place.filter(|_| first) {
            overtakes = self.latest.is_some_and(|(other, at)| (other < action) != (at < place));
            if self.latest.is_none_or(|(other, _)| other < action) {
                self.latest = Some((action, place));
            }
        }
        Heard::Answer { overtakes }
    }

    fn answered(&mut self, action: u64) -> bool {
        let at = self.waiting.iter().position(|(waiting, _)| *waiting == action);
        at.and_then(|at| self.waiting.remove(at)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: Heard = Heard::Answer { overtakes: false };

    fn sent(actions: u64) -> Answers {
        let mut answers = Answers::default();
        (0..actions).for_each(|action| answers.sent(action, 10 + action));
        answers
    }

    #[test]
    fn answers_in_their_order_leave_nothing_waiting() {
        let mut answers = sent(3);
        assert_eq!([answers.decided(0, Some(4)), answers.decided(1, Some(5))], [FINE, FINE]);
        answers.refused(2);
        assert_eq!((answers.waiting(), answers.send_again()), (0, vec![]));
    }

    #[test]
    fn an_action_that_was_decided_before_an_earlier_one_overtakes_it() {
        let mut answers = sent(2);
        assert_eq!(answers.decided(1, Some(4)), FINE);
        assert_eq!(answers.decided(0, Some(5)), Heard::Answer { overtakes: true });
        let mut repeated = sent(2);
        repeated.send_again();
        assert_eq!(repeated.decided(1, Some(4)), FINE);
        assert_eq!(repeated.decided(0, Some(3)), FINE, "its repeat came later: it was decided first");
    }

    #[test]
    fn what_is_sent_again_may_be_answered_once_more_and_only_as_before() {
        let mut answers = sent(3);
        answers.decided(0, Some(3));
        assert_eq!(answers.send_again(), [(1, 11), (2, 12)]);
        assert_eq!(answers.decided(1, Some(4)), FINE);
        assert_eq!(answers.decided(1, Some(4)), Heard::Repeat);
        assert_eq!(answers.decided(1, Some(4)), FINE, "the audit, which has its answer, counts it as doubled");
        assert_eq!(answers.decided(2, Some(5)), FINE);
        assert_eq!(answers.decided(2, Some(9)), FINE, "another decision is one too many");
        assert_eq!(answers.decided(0, Some(3)), FINE, "it was not sent again");
    }
}

//! Rival claims to one key: each round has one winner, and the others learn by how much they were beaten.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::limits::CONTESTS_PER_ROOM_MAX;
use crate::types::{Arrival, Flags, Stamp};

/// What margins need of a round's winner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Winner {
    pub(super) stamp: Stamp,
    pub(super) uncertainty_ns: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Contest {
    pub(super) round: u64,
    pub(super) winner: Option<Winner>,
    /// The `seq` of the verdict that began the round or won it.
    pub(super) changed: u64,
}

impl Contest {
    /// The first round that is safe to win if the contest was forgotten.
    fn next_open_round(&self) -> u64 {
        self.round.saturating_add(u64::from(self.winner.is_some()))
    }
}

/// A room's contests, at most [`CONTESTS_PER_ROOM_MAX`]. Beyond that, the room forgets one: first the contest without a winner
/// in its current round that changed longest ago; if all have winners, the one that was won longest ago. A contest that is not
/// kept begins after every round that a forgotten one may have been won in, so that no round is won twice.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Contests {
    by_name: BTreeMap<Arc<str>, Contest>,
    /// Whether it is won, the `seq` that changed it, and its name. The first is forgotten first.
    by_age: BTreeSet<(bool, u64, Arc<str>)>,
    first_round: u64,
}

impl Default for Contests {
    fn default() -> Self {
        Self { by_name: BTreeMap::new(), by_age: BTreeSet::new(), first_round: 1 }
    }
}

/// By how much a contender was beaten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Margin {
    /// None across timelines, whose clocks do not compare.
    pub(super) behind_ns: Option<u64>,
    pub(super) flags: Flags,
}

impl Contests {
    /// No contests. A new one begins at `first_round`.
    pub(super) fn from_round(first_round: u64) -> Self {
        Self { first_round: first_round.max(1), ..Self::default() }
    }

    /// The round of a contest that is not kept.
    pub(super) fn first_round(&self) -> u64 {
        self.first_round
    }

    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Contest)> {
        self.by_name.iter().map(|(name, contest)| (&**name, contest))
    }

    pub(super) fn round(&self, name: &str) -> u64 {
        self.by_name.get(name).map_or(self.first_round, |c| c.round)
    }

    /// The winner of the current round.
    pub(super) fn winner(&self, name: &str) -> Option<Winner> {
        self.by_name.get(name)?.winner
    }

    /// Keeps a contest in this state, and forgets one if there are too many.
    pub(super) fn put(&mut self, name: &str, contest: Contest) {
        let name = match self.by_name.get_key_value(name) {
            Some((name, before)) => {
                let name = name.clone();
                self.by_age.remove(&(before.winner.is_some(), before.changed, name.clone()));
                name
            }
            None => Arc::from(name),
        };
        self.by_age.insert((contest.winner.is_some(), contest.changed, name.clone()));
        self.by_name.insert(name, contest);
        while self.by_name.len() > CONTESTS_PER_ROOM_MAX
            && let Some((_, _, oldest)) = self.by_age.pop_first()
            && let Some(forgotten) = self.by_name.remove(&oldest)
        {
            self.first_round = self.first_round.max(forgotten.next_open_round());
        }
    }

    /// Verdict `seq` begins the contest's next round; the first one if the contest is not kept.
    pub(super) fn next_round(&mut self, name: &str, seq: u64) {
        let round = self.by_name.get(name).map_or(self.first_round, |contest| contest.round.saturating_add(1));
        self.put(name, Contest { round, winner: None, changed: seq });
    }

    /// Makes `stamp` the winner of the current round, by verdict `seq`. Returns false if the round has a winner.
    pub(super) fn win(&mut self, name: &str, seq: u64, stamp: Stamp, arrival: &Arrival) -> bool {
        if self.winner(name).is_some() {
            return false;
        }
        let winner = Some(Winner { stamp, uncertainty_ns: arrival.uncertainty_ns });
        self.put(name, Contest { round: self.round(name), winner, changed: seq });
        true
    }

    /// By how much `stamp` came after the winner of the current round. None if the round has no winner.
    pub(super) fn margin(&self, name: &str, stamp: Stamp, arrival: &Arrival) -> Option<Margin> {
        let winner = self.winner(name)?;
        if winner.stamp.moment.timeline != stamp.moment.timeline {
            return Some(Margin { behind_ns: None, flags: Flags::default() });
        }
        let behind_ns = stamp.moment.since(winner.stamp.moment);
        // The order of two stamps is certain only if their distance exceeds both uncertainties. Equal moments have a
        // deterministic order, which is never a clean win.
        let close = behind_ns == 0 || behind_ns < arrival.uncertainty_ns.max(winner.uncertainty_ns);
        Some(Margin { behind_ns: Some(behind_ns), flags: if close { Flags::PHOTO_FINISH } else { Flags::default() } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Incarnation, Moment};

    fn stamp(ns: u64) -> Stamp {
        Stamp { moment: Moment { timeline: 1, ns }, incarnation: Incarnation(1), ordinal: ns }
    }

    /// Key `k{n}` is won by verdict `seq`.
    fn won(contests: &mut Contests, n: usize, seq: u64) -> bool {
        contests.win(&format!("k{n}"), seq, stamp(seq), &Arrival::at(seq, 0))
    }

    #[test]
    fn what_is_closed_is_forgotten_before_what_is_won() {
        let mut contests = Contests::default();
        let mut seq = 0;
        for n in 0..CONTESTS_PER_ROOM_MAX {
            seq += 1;
            assert!(won(&mut contests, n, seq));
        }
        // k7 is closed in its third round, k3 later in its second.
        for n in [7, 7, 3] {
            seq += 2;
            contests.next_round(&format!("k{n}"), seq - 1);
            assert!(n == 3 || contests.round("k7") == 3 || won(&mut contests, n, seq));
        }
        seq += 1;
        assert!(won(&mut contests, 1_000_000, seq), "one more key finds a place");
        assert_eq!((contests.len(), contests.first_round()), (CONTESTS_PER_ROOM_MAX, 3), "k7 had its place");
        assert_eq!((contests.round("k7"), contests.round("k3"), contests.round("k1000000")), (3, 2, 1));
        assert!(won(&mut contests, 7, seq + 1), "in the round that it was in");
        assert_eq!((contests.round("k7"), contests.round("k3")), (3, 3), "k3 made place: it goes on at no lower round");
    }

    /// Rule H4: how far two stamps are apart is told only where one clock says so.
    #[test]
    fn between_two_homes_there_is_no_margin() {
        let of = |timeline, ns| Stamp { moment: Moment { timeline, ns }, ..stamp(ns) };
        let (unsure, mut contests) = (Arrival::at(0, 1_000), Contests::default());
        assert!(contests.win("key", 1, of(1, 500), &unsure));
        assert_eq!(
            contests.margin("key", of(1, 700), &unsure),
            Some(Margin { behind_ns: Some(200), flags: Flags::PHOTO_FINISH })
        );
        for ns in [3, 500, 700] {
            let untold = Margin { behind_ns: None, flags: Flags::default() };
            assert_eq!(contests.margin("key", of(2, ns), &unsure), Some(untold), "the next home's clock shows {ns}");
        }
    }

    #[test]
    fn a_round_of_a_forgotten_contest_is_not_won_again() {
        let mut contests = Contests::default();
        for n in 0..=CONTESTS_PER_ROOM_MAX {
            assert!(won(&mut contests, n, n as u64 + 1));
        }
        assert_eq!(contests.winner("k0"), None, "won longest ago, when all are won");
        let seq = CONTESTS_PER_ROOM_MAX as u64 + 2;
        assert!(won(&mut contests, 0, seq));
        assert_eq!(contests.round("k0"), 2);
        assert!(!won(&mut contests, 0, seq + 1));
    }
}

//! Rival claims to one key: one winner a round, and by how much the others were beaten.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::limits::CONTESTS_PER_ROOM_MAX;
use crate::types::{Arrival, Flags, Stamp};

/// Who won a round, as far as margins need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Winner {
    pub(super) stamp: Stamp,
    pub(super) uncertainty_ns: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Contest {
    pub(super) round: u64,
    pub(super) winner: Option<Winner>,
}

/// A room's contests. A contest that was never mentioned is in round 1, without a winner.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Contests {
    pub(super) by_name: BTreeMap<Arc<str>, Contest>,
}

/// By how much a contender was beaten; None across timelines, where no clock can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Margin {
    pub(super) behind_ns: Option<u64>,
    pub(super) flags: Flags,
}

impl Contests {
    /// Whether one more name fits.
    pub(super) fn has_room_for(&self, name: &str) -> bool {
        self.by_name.len() < CONTESTS_PER_ROOM_MAX || self.by_name.contains_key(name)
    }

    pub(super) fn round(&self, name: &str) -> u64 {
        self.by_name.get(name).map_or(1, |c| c.round)
    }

    fn entry(&mut self, name: &str) -> &mut Contest {
        self.by_name.entry(Arc::from(name)).or_insert(Contest { round: 1, winner: None })
    }

    /// Begins a new round, unless the contest was never mentioned: then round 1 begins.
    pub(super) fn next_round(&mut self, name: &str) {
        match self.by_name.get_mut(name) {
            Some(contest) => *contest = Contest { round: contest.round + 1, winner: None },
            None => {
                self.entry(name);
            }
        }
    }

    /// Makes `stamp` the winner of the current round; false when there is one already.
    pub(super) fn win(&mut self, name: &str, stamp: Stamp, arrival: &Arrival) -> bool {
        let contest = self.entry(name);
        if contest.winner.is_some() {
            return false;
        }
        contest.winner = Some(Winner { stamp, uncertainty_ns: arrival.uncertainty_ns });
        true
    }

    /// By how much `stamp` came after the winner of the current round; None when nobody won it.
    pub(super) fn margin(&self, name: &str, stamp: Stamp, arrival: &Arrival) -> Option<Margin> {
        let winner = self.by_name.get(name)?.winner?;
        if winner.stamp.moment.timeline != stamp.moment.timeline {
            return Some(Margin { behind_ns: None, flags: Flags::default() });
        }
        let behind_ns = stamp.moment.since(winner.stamp.moment);
        // The order of two stamps is certain only if they lie further apart than either is known. Equal stamps have a
        // deterministic order and are never a clean win.
        let close = behind_ns == 0 || behind_ns < arrival.uncertainty_ns.max(winner.uncertainty_ns);
        Some(Margin { behind_ns: Some(behind_ns), flags: if close { Flags::PHOTO_FINISH } else { Flags::default() } })
    }
}

//! The ids that a room remembers, so that a repeated action acts once, and how far it has forgotten earlier ones.

use std::collections::{HashMap, VecDeque};

use xxhash_rust::xxh3::xxh3_64;

use crate::limits::{RECENT_IDS_PER_PLAYER_MAX, RECENT_IDS_PER_ROOM_MAX, RECENT_PLAYER_IDS};
use crate::types::PlayerId;

/// An id as it is kept. That two of the 1,024 that a player has here are equal by chance has odds of one in 2^44; one who seeks
/// such a pair repeats an action of their own.
pub(super) fn hash(id: &str) -> u64 {
    xxh3_64(id.as_bytes())
}

/// What a room knows of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Memory {
    /// It was not used before, or nobody says that it was.
    New,
    /// It was, by the verdict with this `seq`.
    Repeat(u64),
    /// It was sent before, and may be among those that were forgotten.
    Forgotten,
}

/// One player's ids.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PlayerIds {
    /// The verdict on its first use, and the id; oldest first.
    order: VecDeque<(u64, u64)>,
    by_id: HashMap<u64, u64>,
    /// The latest verdict whose id was forgotten because the player used newer ones.
    forgotten: u64,
}

/// The last [`RECENT_IDS_PER_PLAYER_MAX`] ids of each player, as far as they are among the last [`RECENT_IDS_PER_ROOM_MAX`] of the
/// room, where each player counts as [`RECENT_PLAYER_IDS`] more. A step costs the same however many there are.
#[derive(Debug, Default)]
pub(super) struct Recent {
    players: HashMap<PlayerId, PlayerIds>,
    /// Every id's verdict and player, oldest first; also of ids that their player has pushed out since.
    order: VecDeque<(u64, PlayerId)>,
    ids: usize,
    /// The latest verdict whose id was forgotten because the room used newer ones.
    forgotten: u64,
}

/// A player, the latest verdict whose id it pushed out, and its ids with their verdicts, oldest first.
type Remembered = (PlayerId, u64, Vec<(u64, u64)>);

impl Recent {
    /// What is known of `id`, which verdict `seq` is on; remembers it when it is not a repeat. `seen` is how far the client had
    /// seen the room when it sent the action first, if it says that it sent it before: the first verdict on it has a higher `seq`.
    pub(super) fn recall(&mut self, player: &PlayerId, id: u64, seen: Option<u64>, seq: u64) -> Memory {
        let ids = self.players.get(player);
        if let Some(first) = ids.and_then(|ids| ids.by_id.get(&id)) {
            return Memory::Repeat(*first);
        }
        let forgotten = ids.map_or(0, |ids| ids.forgotten).max(self.forgotten);
        self.remember(player, id, seq);
        if seen.is_some_and(|seen| seen < forgotten) { Memory::Forgotten } else { Memory::New }
    }

    fn remember(&mut self, player: &PlayerId, id: u64, seq: u64) {
        let ids = match self.players.get_mut(player) {
            Some(ids) => ids,
            None => self.players.entry(player.clone()).or_default(),
        };
        ids.by_id.insert(id, seq);
        ids.order.push_back((seq, id));
        self.order.push_back((seq, player.clone()));
        self.ids += 1;
        if ids.order.len() > RECENT_IDS_PER_PLAYER_MAX
            && let Some(forgotten) = ids.forget_oldest()
        {
            ids.forgotten = forgotten;
            self.ids -= 1;
        }
        while self.ids + self.players.len() * RECENT_PLAYER_IDS > RECENT_IDS_PER_ROOM_MAX
            && let Some((seq, player)) = self.order.pop_front()
        {
            self.forget(seq, &player);
        }
        // Never more that are forgotten than that are kept: what this costs was paid for by as many actions.
        if self.order.len() > 2 * self.ids + RECENT_IDS_PER_PLAYER_MAX {
            let players = &self.players;
            self.order.retain(|(seq, player)| players.get(player).is_some_and(|ids| ids.oldest() <= *seq));
        }
    }

    /// Forgets the id that verdict `seq` was on, unless the player has pushed it out: what is older than its oldest.
    fn forget(&mut self, seq: u64, player: &PlayerId) {
        let Some(ids) = self.players.get_mut(player).filter(|ids| ids.oldest() == seq) else { return };
        if ids.forget_oldest().is_some() {
            self.ids -= 1;
            self.forgotten = self.forgotten.max(seq);
        }
        if ids.order.is_empty() {
            self.players.remove(player);
        }
    }

    /// The latest verdict whose id the room forgot.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Every player with the latest verdict whose id it pushed out, and its ids with their verdicts, oldest first; in the order
    /// of the players' names.
    pub(super) fn players(&self) -> Vec<(&PlayerId, u64, impl ExactSizeIterator<Item = (u64, u64)>)> {
        let mut players: Vec<_> = self.players.iter().collect();
        players.sort_unstable_by_key(|(player, _)| *player);
        players.into_iter().map(|(player, ids)| (player, ids.forgotten, ids.order.iter().copied())).collect()
    }

    /// As [`Recent::forgotten`] and [`Recent::players`] tell.
    pub(super) fn restore(forgotten: u64, players: Vec<Remembered>) -> Self {
        let mut all = Vec::with_capacity(players.iter().map(|(.., ids)| ids.len()).sum());
        let mut recent = Self { forgotten, ..Self::default() };
        for (player, forgotten, ids) in players {
            all.extend(ids.into_iter().map(|(seq, id)| (seq, player.clone(), id)));
            recent.players.insert(player, PlayerIds { forgotten, ..PlayerIds::default() });
        }
        all.sort_unstable();
        for (seq, player, id) in all {
            recent.remember(&player, id, seq);
        }
        // One of whom nothing is remembered is as one who was never there.
        recent.players.retain(|_, ids| !ids.order.is_empty());
        recent
    }
}

impl PlayerIds {
    fn oldest(&self) -> u64 {
        self.order.front().map_or(u64::MAX, |(seq, _)| *seq)
    }

    fn forget_oldest(&mut self) -> Option<u64> {
        let (seq, id) = self.order.pop_front()?;
        self.by_id.remove(&id);
        Some(seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: usize) -> PlayerId {
        PlayerId::new(&format!("p{n}")).expect("name")
    }

    /// First use of `id`.
    fn used(recent: &mut Recent, player: usize, id: u64, seq: u64) {
        assert_eq!(recent.recall(&name(player), id, None, seq), Memory::New, "player {player}, id {id}, seq {seq}");
    }

    #[test]
    fn the_last_1024_ids_of_a_player_are_remembered_and_earlier_ones_are_known_to_be_forgotten() {
        let mut recent = Recent::default();
        for i in 1..=1025 {
            used(&mut recent, 0, i, i + 100);
        }
        let ann = name(0);
        assert_eq!(recent.recall(&ann, 2, Some(0), 2_000), Memory::Repeat(102));
        assert_eq!(recent.recall(&ann, 1025, None, 2_001), Memory::Repeat(1125));
        assert_eq!(recent.recall(&ann, 1, Some(100), 2_002), Memory::Forgotten, "its verdict was 101");
        assert_eq!(recent.recall(&ann, 1, Some(100), 2_003), Memory::Repeat(2_002), "that was its verdict");
        // Now 102 is forgotten, too.
        assert_eq!(recent.recall(&ann, 5_000, Some(102), 2_004), Memory::New, "a first verdict would lie above 102");
        assert_eq!(recent.recall(&name(1), 1, Some(0), 2_005), Memory::New, "nothing of this player was forgotten");
    }

    #[test]
    fn a_player_that_acts_a_lot_pushes_nobody_elses_ids_out() {
        let mut recent = Recent::default();
        used(&mut recent, 1, 7, 1);
        for seq in 2..3 * RECENT_IDS_PER_ROOM_MAX as u64 {
            used(&mut recent, 0, seq, seq);
        }
        assert_eq!(recent.recall(&name(1), 7, Some(0), u64::MAX), Memory::Repeat(1));
        assert!(recent.order.len() <= 4 * RECENT_IDS_PER_PLAYER_MAX, "{} for {} ids", recent.order.len(), recent.ids);
    }

    #[test]
    fn the_rooms_bound_forgets_the_oldest_ids_and_players_without_any() {
        let most = RECENT_IDS_PER_ROOM_MAX / (1 + RECENT_PLAYER_IDS);
        let mut recent = Recent::default();
        for n in 0..=most {
            used(&mut recent, n, 1, n as u64 + 1);
        }
        assert_eq!((recent.players.len(), recent.ids, recent.forgotten()), (most, most, 1));
        assert_eq!(recent.recall(&name(1), 1, Some(0), 900_000), Memory::Repeat(2));
        assert_eq!(recent.recall(&name(0), 1, Some(0), 900_001), Memory::Forgotten);
        assert_eq!(recent.recall(&name(most + 9), 1, Some(900_000), 900_002), Memory::New);
    }

    #[test]
    fn what_was_saved_goes_on_alike() {
        let mut recent = Recent::default();
        for seq in 1..5_000 {
            used(&mut recent, seq as usize % 3, seq, seq);
        }
        let players = recent.players().into_iter().map(|(player, forgotten, ids)| (player.clone(), forgotten, ids.collect()));
        let mut again = Recent::restore(recent.forgotten(), players.collect());
        assert_eq!((again.ids, &again.players), (recent.ids, &recent.players));
        for (player, id, seen) in [(0, 3, 2), (1, 1_000, 999), (2, 4_997, 0), (2, 9_999, 4_999)] {
            let expected = recent.recall(&name(player), id, Some(seen), 6_000 + id);
            assert_eq!(again.recall(&name(player), id, Some(seen), 6_000 + id), expected, "{player} {id}");
        }
    }
}

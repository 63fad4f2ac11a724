//! The action ids that a room remembers, so that a repeated action acts once, and what it knows of forgotten ones.

use std::collections::{HashMap, VecDeque};

use xxhash_rust::xxh3::xxh3_64;

use crate::limits::{RECENT_IDS_PER_PLAYER_MAX, RECENT_IDS_PER_ROOM_MAX, RECENT_PLAYER_IDS};
use crate::types::PlayerId;

/// The hash that stands for an id. With the 1,024 ids of a player, the odds that two have the same hash by chance are 1 in 2^44. A
/// player who looks for such a pair can repeat only an action of their own.
pub(super) fn hash(id: &str) -> u64 {
    xxh3_64(id.as_bytes())
}

/// What a room knows of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Memory {
    /// It is new, as far as anybody says.
    New,
    /// It was used before: this is the `seq` of its verdict.
    Repeat(u64),
    /// The client has sent it before, and the room may have forgotten it.
    Forgotten,
}

/// One player's ids.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PlayerIds {
    /// Each id behind the `seq` of its verdict, oldest first.
    order: VecDeque<(u64, u64)>,
    by_id: HashMap<u64, u64>,
    /// The highest `seq` whose id was forgotten because the player used newer ones.
    forgotten: u64,
}

/// The last [`RECENT_IDS_PER_PLAYER_MAX`] ids of each player, bounded by [`RECENT_IDS_PER_ROOM_MAX`] ids in the room, where each
/// player counts as [`RECENT_PLAYER_IDS`] more. The cost of a step does not depend on how many there are.
#[derive(Debug, Default)]
pub(super) struct Recent {
    players: HashMap<PlayerId, PlayerIds>,
    /// The `seq` and the player of each id, oldest first; some of these ids are forgotten because their player used newer ones.
    order: VecDeque<(u64, PlayerId)>,
    ids: usize,
    /// The highest `seq` whose id was forgotten because the room used newer ones.
    forgotten: u64,
}

/// A player, the highest `seq` of its forgotten ids, and its ids behind their `seq`, oldest first.
type Remembered = (PlayerId, u64, Vec<(u64, u64)>);

impl Recent {
    /// What is known of `id`, whose verdict will be `seq`. Remembers it unless it is a repeat. A client that sends an action again
    /// gives `seen`: the last `seq` it had seen when it sent the action first. The first verdict can only have a higher one.
    pub(super) fn recall(&mut self, player: &PlayerId, id: u64, seen: Option<u64>, seq: u64) -> Memory {
        let ids = self.players.get(player);
        if let Some(first) = ids.and_then(|ids| ids.by_id.get(&id)) {
            return Memory::Repeat(*first);
        }
        let forgotten = ids.map_or(0, |ids| ids.forgotten).max(self.forgotten);
        self.remember(player, id, seq);
        if seen.is_some_and(|seen| seen < forgotten) { Memory::Forgotten } else { Memory::New }
    }

    /// Whether an action of this id is known, so that it is a repeat.
    pub(super) fn knows(&self, player: &PlayerId, id: u64) -> bool {
        self.players.get(player).is_some_and(|ids| ids.by_id.contains_key(&id))
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
        // Drops forgotten ids when there are more of them than kept ones. As many actions came before each such pass.
        if self.order.len() > 2 * self.ids + RECENT_IDS_PER_PLAYER_MAX {
            let players = &self.players;
            self.order.retain(|(seq, player)| players.get(player).is_some_and(|ids| ids.oldest() <= *seq));
        }
    }

    /// Forgets the id with this `seq`, unless it is forgotten already: then the player's oldest id has a higher one.
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

    /// The highest `seq` whose id was forgotten because the room used newer ones.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// All players in the order of their names, each with the highest `seq` of its forgotten ids, and its ids behind their `seq`,
    /// oldest first.
    pub(super) fn players(&self) -> Vec<(&PlayerId, u64, impl ExactSizeIterator<Item = (u64, u64)>)> {
        let mut players: Vec<_> = self.players.iter().collect();
        players.sort_unstable_by_key(|(player, _)| *player);
        players.into_iter().map(|(player, ids)| (player, ids.forgotten, ids.order.iter().copied())).collect()
    }

    /// Restores what [`Recent::forgotten`] and [`Recent::players`] returned.
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
        // A player without ids is not kept, just as when its last id is forgotten.
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

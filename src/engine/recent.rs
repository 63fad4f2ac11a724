//! The last ids of each player in a room, so that a repeated action acts once.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use crate::limits::{RECENT_IDS_PER_PLAYER_MAX, RECENT_PLAYERS_PER_ROOM_MAX};
use crate::types::PlayerId;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PlayerIds {
    /// In the order of use, with the `seq` of the first verdict.
    pub(super) order: VecDeque<(Arc<str>, u64)>,
    by_id: HashMap<Arc<str>, u64>,
}

/// Ids by player; bounded per player and in players.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Recent {
    pub(super) players: BTreeMap<PlayerId, PlayerIds>,
}

impl Recent {
    /// The `seq` of the first verdict on this id, when it is remembered. Else remembers it with `seq`, and forgets what is over
    /// the bounds: the player's oldest id, or the player that acted longest ago.
    pub(super) fn first_or_remember(&mut self, player: &PlayerId, id: &str, seq: u64) -> Option<u64> {
        if let Some(ids) = self.players.get_mut(player) {
            return ids.first_or_remember(id, seq);
        }
        if self.players.len() >= RECENT_PLAYERS_PER_ROOM_MAX {
            let oldest = self.players.iter().min_by_key(|(_, ids)| ids.order.back().map_or(0, |(_, seq)| *seq));
            if let Some(oldest) = oldest.map(|(player, _)| player.clone()) {
                self.players.remove(&oldest);
            }
        }
        self.players.entry(player.clone()).or_default().first_or_remember(id, seq)
    }
}

impl PlayerIds {
    fn first_or_remember(&mut self, id: &str, seq: u64) -> Option<u64> {
        if let Some(first) = self.by_id.get(id) {
            return Some(*first);
        }
        let id: Arc<str> = Arc::from(id);
        self.by_id.insert(id.clone(), seq);
        self.order.push_back((id, seq));
        if self.order.len() > RECENT_IDS_PER_PLAYER_MAX
            && let Some((oldest, _)) = self.order.pop_front()
        {
            self.by_id.remove(&oldest);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(recent: &Recent, player: &PlayerId, id: &str) -> Option<u64> {
        recent.players.get(player)?.by_id.get(id).copied()
    }

    #[test]
    fn the_last_1024_ids_of_a_player_are_remembered() {
        let (mut recent, ann) = (Recent::default(), PlayerId::new("ann").expect("name"));
        for i in 0..=1024u64 {
            assert_eq!(recent.first_or_remember(&ann, &i.to_string(), i), None);
        }
        assert_eq!(first(&recent, &ann, "0"), None);
        assert_eq!((first(&recent, &ann, "1"), first(&recent, &ann, "1024")), (Some(1), Some(1024)));
        assert_eq!(recent.first_or_remember(&ann, "1024", 2000), Some(1024));
    }

    #[test]
    fn the_player_that_acted_longest_ago_is_forgotten() {
        let mut recent = Recent::default();
        let name = |i: usize| PlayerId::new(&format!("p{i}")).expect("name");
        for i in 0..RECENT_PLAYERS_PER_ROOM_MAX {
            recent.first_or_remember(&name(i), "x", i as u64 + 1);
        }
        recent.first_or_remember(&name(0), "y", 100_000);
        recent.first_or_remember(&name(99_999), "x", 100_001);
        assert_eq!(first(&recent, &name(1), "x"), None);
        assert_eq!(first(&recent, &name(0), "x"), Some(1));
    }
}

//! How tests look into a core, and answer its steps.

mod shares;

use bytes::Bytes;

use super::Core;
use crate::journal::{Place, StoredPage, StoredRoom};
use crate::types::{RoomId, ShardId, StreamId};
use crate::worker::lane::Lane;
use crate::worker::shard::Shard;
use crate::worker::step::Input;

impl Core {
    pub(in crate::worker) fn shard_mut(&mut self, shard: ShardId) -> &mut Shard {
        self.shards.get_mut(&shard).expect("an owned shard")
    }

    /// The token of the room's lane as it is now.
    pub(in crate::worker) fn token(&self, shard: ShardId, room: &RoomId) -> u64 {
        self.shards.get(&shard).and_then(|shard| shard.lanes.get(room)).map_or(0, Lane::token)
    }

    /// A room that fits into one page.
    pub(in crate::worker) fn stored_room(&mut self, shard: ShardId, room: RoomId, stored: StoredRoom, now_ns: u64) {
        let token = self.token(shard, &room);
        self.apply(Input::Stored { shard, room, token, place: Place::default(), page: stored.into() }, now_ns);
    }

    /// Entries that fit into one page.
    pub(crate) fn read_entries(&mut self, shard: ShardId, room: &RoomId, entries: &[(StreamId, Bytes)], now_ns: u64) {
        let page = StoredPage { entries: entries.to_vec(), ..StoredPage::default() };
        self.apply(Input::Read { shard, room: room.clone(), token: self.token(shard, room), page }, now_ns);
    }

    /// A step of the room's lane is answered: the stored room is damaged.
    pub(in crate::worker) fn damaged(&mut self, shard: ShardId, room: &RoomId, why: &str, now_ns: u64) {
        let token = self.token(shard, room);
        self.apply(Input::Damaged { shard, room: room.clone(), token, why: why.to_owned() }, now_ns);
    }
}

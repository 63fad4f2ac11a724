//! What may kill the worker, or keeps it: one suspect at a time, and no more lost threads than there may be.

use super::Core;
use crate::journal::Leased;
use crate::types::{RoomId, ShardId};
use crate::worker::job::LaneId;
use crate::worker::step::Command;

impl Core {
    /// Lets the next suspect go on, once the one before is done and what it resolved is final.
    pub(super) fn start_trial(&mut self) {
        if let Some((shard, room, token)) = self.shared.permits.trial()
            && self.shards.get(shard).is_some_and(|s| s.is_on_trial(room, *token))
        {
            return;
        }
        while let Some((id, room)) = self.shared.permits.next_suspect() {
            if let Some(shard) = self.shards.get_mut(&id)
                && let Some(token) = shard.begin_trial(&room)
            {
                let lease = shard.lease;
                self.shared.permits.begin_trial(id, room.clone(), token);
                self.shared.emit(Command::Attempt { shard: id, lease, room, token });
                return;
            }
        }
    }

    pub(super) fn attempted(&mut self, shard: ShardId, room: &RoomId, token: u64, answer: &Leased<u32>) {
        self.answered(shard);
        match answer {
            Leased::Done(attempts) => self.with(shard, |shard, shared| shard.attempted(room, token, *attempts, shared)),
            Leased::Lost => self.lose(shard),
        }
    }

    /// The rules have had one event for too long, and still have: nobody waits for them any more.
    pub(super) fn overrun(&mut self, of: &LaneId) {
        if !self.shared.permits.give_up(of.token) {
            return;
        }
        if self.shards.get(&of.shard).is_some_and(|s| s.lease.epoch == of.epoch) {
            self.with(of.shard, |shard, shared| shard.overrun(&of.room, of.token, shared));
        }
        if self.has_given_up() && !self.stopping {
            let count = self.shared.permits.stuck_count();
            self.shared
                .emit(Command::Warn(format!("the rules kept {count} threads for ever: this worker hands its shards over")));
            self.stop();
        }
    }

    /// Whether the rules keep so many threads that this worker may have no more.
    #[must_use]
    pub(crate) fn has_given_up(&self) -> bool {
        self.shared.permits.are_used_up()
    }
}

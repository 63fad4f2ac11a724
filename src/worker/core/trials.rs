//! What may kill the worker, or keeps it: one suspect at a time, and no more lost threads than there may be.

use super::super::job::Ticket;
use super::{Action, Core};
use crate::journal::Leased;
use crate::limits::STUCK_JOBS_MAX;
use crate::types::{RoomId, ShardId};

impl Core {
    /// Lets the next suspect go on, once the one before is done and what it resolved is final.
    pub(super) fn start_trial(&mut self) {
        if let Some((shard, room, lane)) = &self.shared.trial
            && self.shards.get(shard).is_some_and(|s| s.is_on_trial(room, *lane))
        {
            return;
        }
        self.shared.trial = None;
        while let Some((id, room)) = self.shared.suspects.pop_front() {
            if let Some(shard) = self.shards.get_mut(&id)
                && let Some(lane) = shard.begin_trial(&room)
            {
                let lease = shard.lease;
                self.shared.trial = Some((id, room.clone(), lane));
                self.shared.act(Action::Attempt { shard: id, lease, room, lane });
                return;
            }
        }
    }

    /// The answer to [`Action::Attempt`]: with this one, so many.
    pub(crate) fn attempted(&mut self, shard: ShardId, room: &RoomId, lane: u64, answer: &Leased<u32>, now_ns: u64) {
        self.answered(shard);
        match answer {
            Leased::Done(attempts) => self.with(shard, now_ns, |shard, shared| shard.attempted(room, lane, *attempts, shared)),
            Leased::Lost => self.lose(shard),
        }
    }

    /// The rules have had one event for too long, and still have: nobody waits for them any more.
    pub(crate) fn overrun(&mut self, job: &Ticket, now_ns: u64) {
        if self.shared.stuck.contains(&job.lane) {
            return;
        }
        self.shared.free_permit(job.lane);
        self.shared.stuck.insert(job.lane);
        if self.shards.get(&job.shard).is_some_and(|s| s.lease.epoch == job.epoch) {
            self.with(job.shard, now_ns, |shard, shared| shard.overrun(&job.room, job.lane, shared));
        }
        if self.has_given_up() && !self.stopping {
            let count = self.shared.stuck.len();
            self.shared
                .act(Action::Complain(format!("the rules kept {count} threads for ever: this worker hands its shards over")));
            self.stop();
        }
    }

    /// Whether the rules keep so many threads that this worker may have no more.
    #[must_use]
    pub(crate) fn has_given_up(&self) -> bool {
        self.shared.stuck.len() >= STUCK_JOBS_MAX
    }
}

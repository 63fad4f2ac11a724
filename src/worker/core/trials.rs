//! Events that may kill or hang the worker: one suspect goes on at a time, beside those of programs outside, and the number of hung
//! threads is bounded.

use super::Core;
use crate::types::Stamp;
use crate::worker::job::LaneId;
use crate::worker::step::Command;

impl Core {
    /// Lets each crew's next suspects go on, once the verdicts of those before are final.
    pub(super) fn start_trials(&mut self) {
        for (crew, trials) in self.shared.permits.trials() {
            for (shard, room, token) in trials {
                if !self.shards.get(&shard).is_some_and(|s| s.is_on_trial(&room, token)) {
                    self.shared.permits.end_trial(crew, token);
                }
            }
            while let Some((id, room)) = self.shared.permits.next_suspect(crew) {
                if let Some(shard) = self.shards.get_mut(&id)
                    && let Some(token) = shard.begin_trial(&room)
                {
                    let lease = shard.lease;
                    self.shared.permits.begin_trial(crew, id, room.clone(), token);
                    let name = self.shared.token();
                    self.shared.emit(Command::Attempt { shard: id, lease, room, token, name });
                }
            }
        }
    }

    /// The rules have not returned from an event in time. The lane stops waiting for its job.
    pub(super) fn overrun(&mut self, of: &LaneId, hopeless: Option<Stamp>) {
        if !self.shared.permits.give_up(of.token) {
            return;
        }
        if self.shards.get(&of.shard).is_some_and(|s| s.lease.epoch == of.epoch) {
            self.with(of.shard, |shard, shared| shard.overrun(&of.room, of.token, hopeless, shared));
        }
        if self.has_given_up() && !self.stopping {
            let count = self.shared.permits.stuck_count();
            self.shared.emit(Command::Warn(format!(
                "the rules never returned from {count} jobs, each of which holds a thread: this worker hands its shards over"
            )));
            self.stop();
        }
    }

    /// Whether so many jobs hang that this worker may start no more.
    #[must_use]
    pub(crate) fn has_given_up(&self) -> bool {
        self.shared.permits.are_used_up()
    }
}

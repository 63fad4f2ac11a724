//! How the core takes bells, and the answers of the journal and of jobs.

use super::Core;
use crate::journal::{AheadPart, Committed, GatewayRecord, Lease, Leased, Survey};
use crate::types::{Incarnation, RoomId, ShardId};
use crate::worker::job::Done;
use crate::worker::step::{Command, Failure};

impl Core {
    pub(super) fn subscribed(&mut self, shard: ShardId) {
        self.with(shard, |shard, shared| {
            shard.excuse_gateways();
            shard.subscribed(shared);
        });
    }

    pub(super) fn surveyed(&mut self, shard: ShardId, survey: Survey) {
        self.answered(shard);
        let mut lost = false;
        self.with(shard, |shard, shared| lost = !shard.surveyed(survey, shared));
        if lost {
            self.lose(shard);
        }
    }

    pub(super) fn written_ahead(&mut self, shard: ShardId, room: &RoomId, part: &AheadPart, answer: &Leased<()>) {
        self.answered(shard);
        match answer {
            Leased::Done(()) => self.with(shard, |shard, shared| shard.written_ahead(room, part, shared)),
            Leased::Lost => self.lose(shard),
        }
    }

    pub(super) fn done(&mut self, done: Done) {
        self.shared.permits.free(done.of.token);
        // The results of an earlier ownership are discarded.
        if self.shards.get(&done.of.shard).is_some_and(|s| s.lease.epoch == done.of.epoch) {
            self.with(done.of.shard, |shard, shared| shard.done(done, shared));
        }
    }

    pub(super) fn committed(&mut self, shard: ShardId, lease: Lease, number: u64, answer: &Committed) {
        let mut lost = false;
        self.with(shard, |shard, shared| lost = shard.lease == lease && !shard.committed(number, answer, shared));
        if lost {
            self.lose(shard);
        }
    }

    /// Drops a shard: another worker owns it now, or the journal has another server. The core keeps only what shows whether the
    /// journal has lost data (rule G1).
    pub(super) fn lose(&mut self, shard: ShardId) {
        if let Some(lost) = self.shards.remove(&shard) {
            if let Some(memory) = lost.memory() {
                self.shared.emit(Command::Testify { shard, witness: memory.witness });
                self.memories.insert(shard, memory);
            }
            self.shared.emit(Command::Unfollow(shard));
            let why = "another worker owns it, or the journal has another server";
            self.shared.emit(Command::Warn(format!("the lease of shard {shard} is no longer valid: {why}")));
            if !self.stopping {
                self.heartbeat();
            }
        }
    }

    pub(super) fn testified(&mut self, shard: ShardId, rooms: u64) {
        self.answered(shard);
        if rooms > 0 {
            self.shared.emit(Command::RolledBack(rooms));
        }
        self.with(shard, |shard, shared| shard.testified(shared));
    }

    pub(super) fn fenced(&mut self, shard: ShardId, lease: Lease, answer: &Leased<GatewayRecord>) {
        if self.shards.get(&shard).is_none_or(|s| s.lease != lease) {
            return;
        }
        match answer {
            Leased::Done(record) => self.with(shard, |shard, shared| {
                shared.emit(Command::Warn(format!("gateway {} is fenced: it no longer answered", record.incarnation)));
                shard.fenced(record, shared);
            }),
            Leased::Lost => self.lose(shard),
        }
    }

    pub(super) fn forgotten(&mut self, shard: ShardId, lease: Lease, gateways: &[Incarnation], answer: &Leased<()>) {
        match answer {
            Leased::Done(()) => {
                if let Some(shard) = self.shards.get_mut(&shard).filter(|s| s.lease == lease) {
                    shard.forgotten(gateways);
                }
            }
            Leased::Lost if self.shards.get(&shard).is_some_and(|s| s.lease == lease) => self.lose(shard),
            Leased::Lost => {}
        }
    }

    /// The entry itself comes with its bell.
    pub(super) fn death_written(&mut self, shard: ShardId, answer: &Leased<()>) {
        self.answered(shard);
        if *answer == Leased::Lost {
            self.lose(shard);
        }
    }

    pub(super) fn room_ended(&mut self, shard: ShardId, room: &RoomId, token: u64, answer: &Leased<bool>) {
        self.answered(shard);
        match answer {
            Leased::Done(ended) => self.with(shard, |shard, shared| shard.room_ended(room, token, *ended, shared)),
            Leased::Lost => self.lose(shard),
        }
    }

    /// A step failed. While the journal cannot be reached, no gateway's silence counts (rule R5).
    pub(super) fn failed(&mut self, failure: &Failure) {
        let Some(excuse_ns) = failure.excuse_ns() else { return };
        self.excused_until_ns = self.excused_until_ns.max(self.shared.now_ns.saturating_add(excuse_ns));
        for shard in self.shards.values_mut() {
            shard.excuse_gateways();
        }
    }

    /// The shard asks again when the gateway has been silent for another timeout.
    pub(super) fn fence_failed(&mut self, shard: ShardId, gateway: Incarnation, failure: &Failure) {
        self.failed(failure);
        self.with(shard, |shard, _| shard.fence_failed(gateway));
    }
}

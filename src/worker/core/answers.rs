//! How the core takes bells, and the answers of the journal and of jobs.

use super::Core;
use crate::journal::{Committed, GatewayRecord, JournalError, Lease, Leased, RoomsPage, Survey};
use crate::types::{Incarnation, ShardId};
use crate::worker::job::Done;
use crate::worker::step::{Command, Failure, Scope};

impl Core {
    pub(super) fn subscribed(&mut self, shard: ShardId) {
        self.with(shard, |shard, shared| {
            shard.excuse_gateways();
            shard.subscribed(shared);
        });
    }

    pub(super) fn surveyed(&mut self, shard: ShardId, survey: Survey) {
        self.answered(shard);
        if self.shards.get_mut(&shard).is_some_and(|s| !s.surveyed(survey, &mut self.shared)) {
            self.lose(shard);
        }
    }

    pub(super) fn rooms(&mut self, shard: ShardId, page: RoomsPage) {
        self.answered(shard);
        if self.shards.get_mut(&shard).is_some_and(|s| !s.stored_rooms(page, &mut self.shared)) {
            self.lose(shard);
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
        let owned = self.shards.get_mut(&shard).filter(|s| s.lease == lease);
        if owned.is_some_and(|s| !s.committed(number, answer, &mut self.shared)) {
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
                shared.emit(Command::Warn(format!("gateway {} is fenced", record.incarnation)));
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

    /// A step failed. While the journal cannot be reached, no gateway's silence counts (rule R5): of a cluster's nodes the one that the
    /// step went to, and so its shards alone.
    pub(super) fn failed(&mut self, failure: &Failure) {
        let Some(excuse_ns) = failure.excuse_ns() else { return };
        self.away.failed(failure);
        let until_ns = self.shared.now_ns.saturating_add(excuse_ns);
        let Some(shards) = &failure.shards else {
            self.excused_until_ns = self.excused_until_ns.max(until_ns);
            self.each(|shard, _| shard.excuse_gateways());
            return;
        };
        for id in shards {
            self.away.excuse(*id, until_ns);
            self.with(*id, |shard, _| shard.excuse_gateways());
        }
    }

    /// Nodes of a cluster do not take steps.
    pub(super) fn parts_away(&mut self, failures: Vec<(Vec<ShardId>, JournalError)>) {
        for (shards, error) in failures {
            self.failed(&Failure::new("ping", Scope::Ping, error).at(Some(shards)));
        }
    }

    /// The shard asks again when the gateway has been silent for another timeout.
    pub(super) fn fence_failed(&mut self, shard: ShardId, gateway: Incarnation, failure: &Failure) {
        self.failed(failure);
        let refused = failure.excuse_ns().is_none();
        self.with(shard, |shard, shared| shard.fence_failed(gateway, refused, shared));
    }
}

//! What the journal, its bells and finished jobs tell a worker.

use super::*;

impl Core {
    /// The shard's bells are subscribed (again).
    pub(crate) fn subscribed(&mut self, shard: ShardId, now_ns: u64) {
        self.with(shard, now_ns, |shard, shared| {
            shard.excuse_gateways();
            shard.subscribed(shared);
        });
    }

    /// A bell rang.
    pub(crate) fn bell(&mut self, bell: Bell, now_ns: u64) {
        self.with(bell.shard, now_ns, |shard, shared| shard.bell(bell, shared));
    }

    /// The answer to [`Action::Survey`].
    pub(crate) fn surveyed(&mut self, shard: ShardId, survey: Survey, now_ns: u64) {
        self.answered(shard);
        let mut lost = false;
        self.with(shard, now_ns, |shard, shared| lost = !shard.surveyed(survey, shared));
        if lost {
            self.lose(shard);
        }
    }

    /// The answer to [`Action::Load`].
    pub(crate) fn stored(&mut self, shard: ShardId, room: &RoomId, lane: u64, place: Place, page: StoredPage, now_ns: u64) {
        self.answered(shard);
        self.with(shard, now_ns, |shard, shared| shard.stored(room, lane, place, page, shared));
    }

    /// The answer to [`Action::Read`].
    pub(crate) fn read(&mut self, shard: ShardId, room: &RoomId, lane: u64, page: &StoredPage, now_ns: u64) {
        self.answered(shard);
        self.with(shard, now_ns, |shard, shared| shard.read(room, lane, page, shared));
    }

    /// The room's lane as it is now.
    #[cfg(test)]
    fn lane(&self, shard: ShardId, room: &RoomId) -> u64 {
        self.shards.get(&shard).and_then(|shard| shard.lanes.get(room)).map_or(0, |lane| lane.token)
    }

    /// A room that fits into one page.
    #[cfg(test)]
    pub(crate) fn stored_room(&mut self, shard: ShardId, room: RoomId, stored: crate::journal::StoredRoom, now_ns: u64) {
        self.stored(shard, &room, self.lane(shard, &room), Place::default(), stored.into(), now_ns);
    }

    /// Entries that fit into one page.
    #[cfg(test)]
    pub(crate) fn read_entries(&mut self, shard: ShardId, room: &RoomId, entries: &[(StreamId, Bytes)], now_ns: u64) {
        let page = StoredPage { entries: entries.to_vec(), ..StoredPage::default() };
        self.read(shard, room, self.lane(shard, room), &page, now_ns);
    }

    /// The answer to [`Action::WriteAhead`].
    pub(crate) fn written_ahead(&mut self, shard: ShardId, room: &RoomId, part: &AheadPart, answer: &Leased<()>, now_ns: u64) {
        self.answered(shard);
        match answer {
            Leased::Done(()) => self.with(shard, now_ns, |shard, shared| shard.written_ahead(room, part, shared)),
            Leased::Lost => self.lose(shard),
        }
    }

    /// A job is done.
    pub(crate) fn done(&mut self, done: Done, now_ns: u64) {
        self.shared.free_permit(done.lane);
        // A job of an earlier ownership of the shard belongs to nobody.
        if self.shards.get(&done.shard).is_some_and(|s| s.lease.epoch == done.epoch) {
            self.with(done.shard, now_ns, |shard, shared| shard.done(done, shared));
        }
    }

    /// The answer to [`Action::Commit`].
    pub(crate) fn committed(&mut self, shard: ShardId, lease: Lease, number: u64, answer: &Committed, now_ns: u64) {
        let mut lost = false;
        self.with(shard, now_ns, |shard, shared| lost = shard.lease == lease && !shard.committed(number, answer, shared));
        if lost {
            self.lose(shard);
        }
    }

    /// Somebody else owns the shard now, or the journal has another server: everything about it is forgotten, but for
    /// what tells whether the journal has less than it had (rule G1).
    pub(super) fn lose(&mut self, shard: ShardId) {
        if let Some(lost) = self.shards.remove(&shard) {
            if let Some(memory) = lost.memory() {
                self.shared.act(Action::Testify { shard, witness: memory.witness });
                self.memories.insert(shard, memory);
            }
            self.shared.act(Action::Unfollow(shard));
            let why = "another worker has it, or the journal has another server";
            self.shared.act(Action::Complain(format!("the lease of shard {shard} is no longer good: {why}")));
            if !self.stopping {
                self.heartbeat();
            }
        }
    }

    /// The answer to [`Action::Testify`]: how many rooms began a new era.
    pub(crate) fn testified(&mut self, shard: ShardId, rooms: u64, now_ns: u64) {
        self.answered(shard);
        if rooms > 0 {
            self.shared.act(Action::RolledBack(rooms));
        }
        self.with(shard, now_ns, |shard, shared| shard.testified(shared));
    }

    /// The answer to [`Action::Fence`]; nothing when it failed: it is asked for again while it is needed.
    pub(crate) fn fenced(&mut self, shard: ShardId, lease: Lease, answer: &Leased<GatewayRecord>, now_ns: u64) {
        if self.shards.get(&shard).is_none_or(|s| s.lease != lease) {
            return;
        }
        match answer {
            Leased::Done(record) => self.with(shard, now_ns, |shard, shared| {
                shared.act(Action::Complain(format!("gateway {} is fenced: it answered no more", record.incarnation)));
                shard.fenced(record, shared);
            }),
            Leased::Lost => self.lose(shard),
        }
    }

    /// The answer to [`Action::Forget`]; nothing when it failed: it is asked for again.
    pub(crate) fn forgotten(&mut self, shard: ShardId, lease: Lease, gateways: &[Incarnation], answer: &Leased<()>) {
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

    /// The answer to [`Action::Death`]; its bell brings what was written.
    pub(crate) fn death_written(&mut self, shard: ShardId, answer: &Leased<()>) {
        self.answered(shard);
        if *answer == Leased::Lost {
            self.lose(shard);
        }
    }

    /// The answer to [`Action::EndRoom`].
    pub(crate) fn room_ended(&mut self, shard: ShardId, room: &RoomId, answer: &Leased<bool>, now_ns: u64) {
        self.answered(shard);
        match answer {
            Leased::Done(ended) => self.with(shard, now_ns, |shard, shared| shard.room_ended(room, *ended, shared)),
            Leased::Lost => self.lose(shard),
        }
    }

    /// The answer to [`Action::Publish`]: how many listened.
    pub(crate) fn published(&mut self, gateway: Incarnation, listeners: u64) {
        for shard in self.shards.values_mut() {
            shard.published(gateway, listeners);
        }
    }

    /// A step failed. True when the journal as such could not be reached, or takes no steps: then nobody's silence counts
    /// (rule R5), until the gateways have had the time to notice that it can be reached again. What one room or record does to
    /// its own steps excuses nobody: else it would keep every dead gateway of this worker alive for as long as it lasts.
    pub(crate) fn journal_failed(&mut self, step: Step, error: &JournalError) -> bool {
        let excuse_ns = match (step, error) {
            // A room may be too much for one answer, or its step refused; what the journal as such does, the ping says as well.
            (Step::Room, JournalError::Silent(_) | JournalError::Refused(_)) => return false,
            // It was waited for an answer in vain; a connection that broke was seen to break by whoever had one.
            (_, JournalError::Silent(_)) => EXCUSE_NS,
            (Step::Ping, _) | (_, JournalError::Unreachable(_) | JournalError::Refused(_)) => BROKEN_EXCUSE_NS,
            (_, JournalError::Unexpected(_) | JournalError::Damaged(_)) => return false,
        };
        self.excused_until_ns = self.excused_until_ns.max(self.shared.now_ns.saturating_add(excuse_ns));
        for shard in self.shards.values_mut() {
            shard.excuse_gateways();
        }
        true
    }

    /// A fence could not be written: it is asked for again when the gateway has been silent for as long again.
    pub(crate) fn fence_failed(&mut self, shard: ShardId, gateway: Incarnation) {
        if let Some(shard) = self.shards.get_mut(&shard) {
            shard.fence_failed(gateway);
        }
    }
}

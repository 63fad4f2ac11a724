//! The steps of gateways: registration, flushes, and what they read. The journal takes each under its lock, and then publishes
//! the messages that the step returns.

use async_trait::async_trait;

use super::Store;
use crate::journal::memory::MemoryJournal;
use crate::journal::{
    Appended, Bell, Flush, GatewayJournal, Homed, JournalError, Registered, RoomHead, Seen, ShardHome, VerdictPage, WorkerRecord,
    check,
};
use crate::limits::ROOMS_PER_SHARD_MAX;
use crate::types::{Incarnation, RoomId, Seed, ShardId};

impl Store {
    /// Registers a gateway in a shard. Returns the bell to ring if an earlier server knew the gateway.
    ///
    /// # Errors
    /// [`JournalError::Refused`] for a shard that does not exist, or a room of another one.
    pub(crate) fn register(
        &mut self,
        shard: ShardId,
        gateway: Incarnation,
        seen: Seen,
        rooms: &[RoomId],
    ) -> Result<(Homed<Registered>, Option<Bell>), JournalError> {
        let (server, shards, host) = (self.server, self.shards(), self.host.clone());
        rooms.iter().try_for_each(|room| check::room(room, shard, shards))?;
        let state = self.shard(shard)?;
        let home = match &state.home {
            Some(home) if home.host == host && (seen.home == 0 || seen.home == home.number) => home.number,
            other => return Ok((Homed::Elsewhere(other.clone()), None)),
        };
        let unknown = !state.gateways.contains_key(&gateway);
        let stored = state.gateways.entry(gateway).or_default();
        stored.fenced |= seen.flush > stored.number;
        let again = std::mem::replace(&mut stored.server, server) != server && (!unknown || seen.flush > 0 || seen.commit > 0);
        let record = stored.record(gateway);
        let lost = seen.server != server && seen.commit > state.found(server);
        let renewed = if lost { state.renew(server) } else { 0 };
        let bell = Bell {
            shard,
            append: state.append,
            incarnation: gateway,
            number: record.number,
            watermark: record.watermark,
            entries: Vec::new(),
            poked: Vec::new(),
        };
        let (rooms, commit) = (rooms.iter().map(|room| state.head(room)).collect(), state.commit);
        Ok((Homed::Here(Registered { server, record, rooms, renewed, commit, home }), again.then_some(bell)))
    }

    /// Withdraws a gateway's registration.
    ///
    /// # Errors
    /// [`JournalError::Refused`] for a shard that does not exist.
    pub(crate) fn leave(&mut self, shard: ShardId, gateway: Incarnation) -> Result<(), JournalError> {
        if let Some(stored) = self.shard(shard)?.gateways.get_mut(&gateway) {
            stored.fenced = true;
        }
        Ok(())
    }

    /// Appends a flush. The rooms that it creates get the seed. If it is new, returns the bell to ring, which names the gateways
    /// that get [`Flush::poke`].
    ///
    /// # Errors
    /// [`JournalError::Refused`] for a flush that contradicts itself.
    pub(crate) fn append(&mut self, flush: &Flush, seed: Seed, now_ms: u64) -> Result<(Appended, Option<Bell>), JournalError> {
        check::flush(flush, self.shards())?;
        if flush.server != self.server {
            return Ok((Appended::Moved, None));
        }
        let host = self.host.clone();
        let shard = self.shard(flush.shard)?;
        if shard.home.as_ref().is_none_or(|home| home.host != host || home.number != flush.watermark.timeline) {
            return Ok((Appended::Elsewhere(shard.home.clone()), None));
        }
        let new = flush.entries.iter().map(|entry| &entry.room).filter(|room| !shard.rooms.contains_key(*room));
        let full: Vec<RoomId> = new.skip(ROOMS_PER_SHARD_MAX.saturating_sub(shard.rooms.len())).cloned().collect();
        let stored = match shard.gateways.get_mut(&flush.incarnation) {
            Some(gateway) if !gateway.fenced => gateway,
            _ => return Ok((Appended::Fenced, None)),
        };
        if flush.number > stored.number {
            if flush.number != stored.number + 1 || flush.previous != stored.watermark {
                return Ok((Appended::Gap { number: stored.number, watermark: stored.watermark }, None));
            }
            if !full.is_empty() {
                return Ok((Appended::Full(full), None));
            }
            stored.number = flush.number;
            stored.watermark = flush.watermark;
        } else {
            return Ok((Appended::Stored(flush.entries.iter().map(|e| shard.head(&e.room)).collect()), None));
        }
        let poked = shard.idle(flush);
        let bell =
            self.write(flush.shard, (flush.incarnation, flush.number, flush.watermark), &flush.entries, Some(seed), now_ms);
        let bell = Bell { poked, ..bell };
        let shard = self.shard(flush.shard)?;
        let heads = flush.entries.iter().map(|e| shard.head(&e.room)).collect();
        Ok((Appended::Stored(heads), Some(bell)))
    }

    /// The heads of some rooms.
    ///
    /// # Errors
    /// [`JournalError::Refused`] for a shard that does not exist, or a room of another one.
    pub(crate) fn heads(&mut self, shard: ShardId, rooms: &[RoomId]) -> Result<Vec<RoomHead>, JournalError> {
        let shards = self.shards();
        let state = self.shard(shard)?;
        rooms.iter().map(|room| check::room(room, shard, shards).map(|()| state.head(room))).collect()
    }

    /// Where a shard is at home.
    ///
    /// # Errors
    /// [`JournalError::Refused`] for a shard that does not exist.
    pub(crate) fn home_of(&mut self, shard: ShardId, now_ms: u64) -> Result<ShardHome, JournalError> {
        let state = self.shard(shard)?;
        let (until_ms, next) = state.next.clone().map_or((0, None), |(until_ms, next)| (until_ms, Some(next)));
        Ok(ShardHome { home: state.home.clone(), next, next_left_ms: until_ms.saturating_sub(now_ms) })
    }

    /// A room's verdicts after `seq`.
    #[must_use]
    pub(crate) fn verdicts(&self, room: &RoomId, seq: u64, entries_max: usize) -> VerdictPage {
        let shard = &self.shards[usize::from(ShardId::of(room, self.shards()).0)];
        let (server, commit) = (self.server, shard.commit);
        self.room(room).map_or(VerdictPage { server, commit, era: 0, seq: 0, batches: Vec::new() }, |stored| VerdictPage {
            server,
            commit,
            era: stored.era + shard.shift,
            seq: stored.seq,
            batches: stored.batches_after(seq, entries_max),
        })
    }

    /// All living workers.
    pub(crate) fn living_workers(&mut self, now_ms: u64) -> Vec<WorkerRecord> {
        self.workers.retain(|_, w| w.expires_ms > now_ms);
        self.workers.iter().map(|(id, w)| WorkerRecord { incarnation: *id, shards: w.shards.clone() }).collect()
    }

    /// The patterns of workers that have not expired.
    pub(crate) fn announced_patterns(&mut self, now_ms: u64) -> Vec<(Incarnation, Vec<String>)> {
        self.patterns.retain(|_, (until, _)| *until > now_ms);
        self.patterns.iter().map(|(id, (_, patterns))| (*id, patterns.clone())).collect()
    }
}

#[async_trait]
impl GatewayJournal for MemoryJournal {
    async fn register(
        &self,
        shard: ShardId,
        gateway: Incarnation,
        seen: Seen,
        rooms: &[RoomId],
    ) -> Result<Homed<Registered>, JournalError> {
        let mut inner = self.inner.lock();
        let (answer, bell) = inner.store.by(&self.host).register(shard, gateway, seen, rooms)?;
        inner.ring(bell);
        Ok(answer)
    }

    async fn leave(&self, shard: ShardId, gateway: Incarnation) -> Result<(), JournalError> {
        self.inner.lock().store.leave(shard, gateway)
    }

    async fn append(&self, flush: &Flush) -> Result<Appended, JournalError> {
        let now_ms = self.now_ms();
        let mut inner = self.inner.lock();
        let (answer, bell) = inner.store.by(&self.host).append(flush, Seed::random(), now_ms)?;
        if let Some(bell) = bell.as_ref().filter(|bell| !bell.poked.is_empty()) {
            let poke = flush.poke();
            for gateway in &bell.poked {
                inner.push(*gateway, &poke);
            }
        }
        inner.ring(bell);
        Ok(answer)
    }

    async fn heads(&self, shard: ShardId, rooms: &[RoomId]) -> Result<(Incarnation, Vec<RoomHead>), JournalError> {
        let mut inner = self.inner.lock();
        Ok((inner.store.server(), inner.store.heads(shard, rooms)?))
    }

    async fn home(&self, shard: ShardId) -> Result<ShardHome, JournalError> {
        let now_ms = self.now_ms();
        self.inner.lock().store.home_of(shard, now_ms)
    }

    async fn verdicts(&self, room: &RoomId, seq: u64, entries_max: usize) -> Result<VerdictPage, JournalError> {
        Ok(self.inner.lock().store.verdicts(room, seq, entries_max))
    }

    async fn living_workers(&self) -> Result<Vec<WorkerRecord>, JournalError> {
        let now_ms = self.now_ms();
        Ok(self.inner.lock().store.living_workers(now_ms))
    }

    async fn announced_patterns(&self) -> Result<Vec<(Incarnation, Vec<String>)>, JournalError> {
        let now_ms = self.now_ms();
        Ok(self.inner.lock().store.announced_patterns(now_ms))
    }
}

//! The steps of workers: heartbeats, leases, and what owners do. The journal takes each under its lock, and then publishes the
//! messages that the step returns.

use std::collections::BTreeSet;

use async_trait::async_trait;
use bytes::Bytes;

use super::{RegisteredGateway, Shard, Store, Worker};
use crate::journal::memory::MemoryJournal;
use crate::journal::{
    AheadPart, Bell, Commit, Committed, FlushEntry, GatewayRecord, Homing, JournalError, Lease, Leased, PageSize, Place,
    RoomCommit, RoomsPage, RoomsPlace, ShardOwner, Signals, StoredPage, Successor, Survey, Witness, WorkerJournal, WorkerRecord,
    check, signals,
};
use crate::limits::{DUE_DEATHS_MAX, SURVEY_ROOMS};
use crate::types::{Home, Incarnation, RoomId, ShardId};

/// The pushes of a commit: gateways, each with an encoded push.
type Pushes = [(Incarnation, Bytes)];

impl Store {
    /// Stores a worker's heartbeat. Returns the living workers.
    pub(crate) fn heartbeat(
        &mut self,
        worker: Incarnation,
        owned: &[ShardId],
        good_for_ms: u64,
        now_ms: u64,
    ) -> Vec<WorkerRecord> {
        self.workers.insert(worker, Worker { shards: owned.to_vec(), expires_ms: now_ms.saturating_add(good_for_ms) });
        self.living_workers(now_ms)
    }

    /// Stores a worker's patterns.
    pub(crate) fn announce_patterns(&mut self, worker: Incarnation, patterns: &[String], good_for_ms: u64, now_ms: u64) {
        self.patterns.insert(worker, (now_ms.saturating_add(good_for_ms), patterns.to_vec()));
    }

    /// The owner of each shard.
    #[must_use]
    pub(crate) fn owners(&self, now_ms: u64) -> Vec<ShardOwner> {
        let owner = |shard: &Shard| ShardOwner {
            lease: shard.lease(self.server),
            home: shard.home.clone(),
            next: shard.named(now_ms).cloned(),
        };
        self.shards.iter().map(owner).collect()
    }

    /// Takes a shard over. `wall_ms` is the worker's time since 1970, `now_ms` the journal's own.
    ///
    /// # Errors
    /// [`JournalError::Refused`] for a shard that does not exist.
    pub(crate) fn claim(
        &mut self,
        shard: ShardId,
        from: Option<Lease>,
        worker: Incarnation,
        (wall_ms, now_ms): (u64, u64),
        homing: &Homing,
    ) -> Result<Leased<Lease>, JournalError> {
        let (server, host) = (self.server, self.host.clone());
        let timeline = self.timeline(host.as_str());
        let last = self.timelines.values().copied().max().unwrap_or(timeline);
        let state = self.shard(shard)?;
        if state.lease(server) != from {
            return Ok(Leased::Lost);
        }
        if state.named(now_ms).is_some_and(|next| next.host != host) {
            return Ok(Leased::Lost);
        }
        if state.home.as_ref().is_none_or(|home| home.host != host) {
            if !homing.moves || state.home.as_ref().map(Home::record) != homing.seen.as_ref().map(Home::record) {
                return Ok(Leased::Lost);
            }
            let number = match &state.home {
                Some(home) => home.number + 1,
                None if state.append > 0 && timeline != last => last + 1,
                None => timeline,
            };
            state.home = Some(Home { number, host, address: String::new() });
            state.gateways.values_mut().for_each(|gateway| gateway.fenced = true);
        }
        if let Some(home) = state.home.as_mut().filter(|_| !homing.address.is_empty()) {
            home.address.clone_from(&homing.address);
        }
        state.next = None;
        state.meet(server);
        state.epoch += 1;
        state.owner = Some(worker);
        // On another server every lease ended, so an owner there counts as no death.
        let owned = std::mem::replace(&mut state.owned, server);
        if owned == server && from.is_some_and(|lease| lease.owner != worker) {
            let Shard { active, rooms, due, .. } = state;
            let mut due: Vec<_> = due.iter().map(|(name, ms)| (*ms, name)).filter(|(ms, _)| *ms <= wall_ms).collect();
            due.sort_unstable();
            let due: BTreeSet<_> = due.into_iter().map(|(_, name)| name).take(DUE_DEATHS_MAX).collect();
            for (_, room) in rooms.iter_mut().filter(|(name, _)| active.contains(*name) || due.contains(name)) {
                room.deaths.add(room.seq);
            }
        }
        Ok(state.lease(server).map_or(Leased::Lost, Leased::Done))
    }

    /// Names the next home of a shard, or takes the name away.
    ///
    /// # Errors
    /// [`JournalError::Refused`] for a shard that does not exist.
    pub(crate) fn name(
        &mut self,
        shard: ShardId,
        lease: Lease,
        to: Option<&Successor>,
        until_ms: u64,
    ) -> Result<Leased<()>, JournalError> {
        let Some(state) = self.leased(shard, lease)? else { return Ok(Leased::Lost) };
        state.next = to.map(|next| (until_ms, next.clone()));
        Ok(Leased::Done(()))
    }

    /// Releases a shard.
    ///
    /// # Errors
    /// [`JournalError::Refused`] for a shard that does not exist.
    pub(crate) fn release(&mut self, shard: ShardId, lease: Lease) -> Result<(), JournalError> {
        if let Some(state) = self.leased(shard, lease)? {
            state.owner = None;
        }
        Ok(())
    }

    /// The state of a shard for its new owner.
    ///
    /// # Errors
    /// [`JournalError::Refused`] for a shard that does not exist.
    pub(crate) fn survey(&mut self, shard: ShardId, rooms: bool) -> Result<Survey, JournalError> {
        let server = self.server;
        let state = self.shard(shard)?;
        let mut due: Vec<_> = state.due.iter().filter(|_| rooms).map(|(room, ms)| (room.clone(), *ms)).collect();
        due.sort_unstable_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
        Ok(Survey {
            due,
            server,
            append: state.append,
            commit: state.commit,
            doubt: state.doubt.filter(|_| state.server == server),
            gateways: state.gateways.iter().map(|(id, g)| g.record(*id)).collect(),
            damaged_gateways: Vec::new(),
            damaged_rooms: Vec::new(),
            active: state.active.iter().cloned().collect(),
            rooms: if rooms { state.rooms.iter().map(|(id, room)| room.head(id, state.shift)).collect() } else { Vec::new() },
            next: None,
        })
    }

    /// The state of a shard for its new owner, with the first page of its rooms.
    ///
    /// # Errors
    /// [`JournalError::Refused`] for a shard that does not exist.
    pub(crate) fn survey_paged(&mut self, shard: ShardId, rooms: bool, count: usize) -> Result<Survey, JournalError> {
        let survey = self.survey(shard, false)?;
        Ok(if rooms { survey.with(self.rooms(shard, &RoomsPlace::default(), count)?) } else { survey })
    }

    /// A page of a shard's rooms. A cursor is the last name of the page before.
    ///
    /// # Errors
    /// [`JournalError::Refused`] for a shard that does not exist.
    pub(crate) fn rooms(&mut self, shard: ShardId, place: &RoomsPlace, count: usize) -> Result<RoomsPage, JournalError> {
        let server = self.server;
        let state = self.shard(shard)?;
        let count = count.max(1);
        let mut page = RoomsPage { server, ..RoomsPage::default() };
        let mut behind = "";
        match place {
            RoomsPlace::Due(after) => {
                let mut rest = state.due.iter().filter(|(room, _)| room.as_str() > after.as_str());
                page.due = rest.by_ref().take(count).map(|(room, ms)| (room.clone(), *ms)).collect();
                if rest.next().is_some() {
                    page.next = page.due.last().map(|(room, _)| RoomsPlace::Due(room.to_string()));
                }
                page.due.sort_unstable_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
            }
            RoomsPlace::Heads(after) => behind = after,
        }
        let left = count - page.due.len();
        if page.next.is_none() {
            let mut rest = state.rooms.iter().filter(|(room, _)| room.as_str() > behind);
            page.rooms = rest.by_ref().take(left).map(|(room, stored)| stored.head(room, state.shift)).collect();
            if rest.next().is_some() {
                page.next = Some(RoomsPlace::Heads(page.rooms.last().map_or(String::new(), |head| head.room.to_string())));
            }
        }
        Ok(page)
    }

    /// Makes verdicts final. Returns the pushes to publish, unless the verdicts were final before.
    ///
    /// # Errors
    /// [`JournalError::Refused`] for a commit that contradicts itself.
    pub(crate) fn commit<'a>(&mut self, commit: &'a Commit) -> Result<(Committed, &'a Pushes), JournalError> {
        check::commit(commit, self.shards())?;
        let Some(shard) = self.leased(commit.shard, commit.lease)? else { return Ok((Committed::Fenced, &[])) };
        if commit.number == shard.commit && shard.commit_epoch == commit.lease.epoch {
            return Ok((Committed::Done, &[]));
        }
        if commit.number != shard.commit + 1 {
            return Ok((Committed::Fenced, &[]));
        }
        let epoch = commit.lease.epoch;
        let fits = |part: &&RoomCommit| {
            let found = shard.rooms.get(&part.room);
            found.is_some_and(|room| {
                room.era + shard.shift == part.era && room.seq == part.from && room.has(part.snapshot.as_ref(), epoch)
            })
        };
        let refused: Vec<RoomId> = commit.rooms.iter().filter(|part| !fits(part)).map(|part| part.room.clone()).collect();
        if !refused.is_empty() {
            return Ok((Committed::Refused(refused), &[]));
        }
        commit.rooms.iter().for_each(|part| shard.apply(part, epoch));
        shard.commit = commit.number;
        shard.commit_epoch = commit.lease.epoch;
        Ok((Committed::Done, &commit.pushes))
    }

    /// Counts an attempt at a room's next event.
    ///
    /// # Errors
    /// [`JournalError::Refused`] for a shard that does not exist, or a room of another one.
    pub(crate) fn attempt(
        &mut self,
        shard: ShardId,
        lease: Lease,
        room: &RoomId,
        name: u64,
    ) -> Result<Leased<u32>, JournalError> {
        check::room(room, shard, self.shards())?;
        let Some(state) = self.leased(shard, lease)? else { return Ok(Leased::Lost) };
        let Some(stored) = state.rooms.get_mut(room) else { return Ok(Leased::Done(0)) };
        let attempt = (lease.epoch, name);
        let counted = stored.attempts.at(stored.seq);
        if counted > 0 && stored.attempt == attempt {
            return Ok(Leased::Done(counted));
        }
        stored.attempt = attempt;
        Ok(Leased::Done(stored.attempts.add(stored.seq)))
    }

    /// Compares what a worker knows with what was found. Returns how many rooms began a new era.
    ///
    /// # Errors
    /// [`JournalError::Refused`] for a shard that does not exist.
    pub(crate) fn testify(&mut self, shard: ShardId, witness: Witness) -> Result<u64, JournalError> {
        let server = self.server;
        let state = self.shard(shard)?;
        if witness.server == server {
            return Ok(0);
        }
        state.meet(server);
        if witness.confirmed > state.found {
            return Ok(state.renew(server));
        }
        if witness.sent <= state.found {
            state.doubt = state.doubt.filter(|found| witness.epoch != Some(*found));
        }
        Ok(0)
    }

    /// Fences a gateway, even one that never registered.
    ///
    /// # Errors
    /// [`JournalError::Refused`] for a shard that does not exist.
    pub(crate) fn fence(
        &mut self,
        shard: ShardId,
        lease: Lease,
        gateway: Incarnation,
    ) -> Result<Leased<GatewayRecord>, JournalError> {
        let Some(state) = self.leased(shard, lease)? else { return Ok(Leased::Lost) };
        let stored = state
            .gateways
            .entry(gateway)
            .or_insert_with(|| RegisteredGateway { server: lease.server, ..RegisteredGateway::default() });
        stored.fenced = true;
        Ok(Leased::Done(stored.record(gateway)))
    }

    /// Deletes the records of fenced gateways.
    ///
    /// # Errors
    /// [`JournalError::Refused`] for a shard that does not exist.
    pub(crate) fn forget(&mut self, shard: ShardId, lease: Lease, gateways: &[Incarnation]) -> Result<Leased<()>, JournalError> {
        let Some(state) = self.leased(shard, lease)? else { return Ok(Leased::Lost) };
        state.gateways.retain(|incarnation, gateway| !(gateway.fenced && gateways.contains(incarnation)));
        Ok(Leased::Done(()))
    }

    /// Appends a dead gateway's last entry to a room. Returns the bell to ring.
    ///
    /// # Errors
    /// [`JournalError::Refused`] if the gateway is not fenced, or the room belongs to another shard.
    pub(crate) fn death(
        &mut self,
        shard: ShardId,
        lease: Lease,
        gateway: Incarnation,
        entry: &FlushEntry,
        now_ms: u64,
    ) -> Result<(Leased<()>, Option<Bell>), JournalError> {
        check::room(&entry.room, shard, self.shards())?;
        let Some(state) = self.leased(shard, lease)? else { return Ok((Leased::Lost, None)) };
        let Some(stored) = state.gateways.get(&gateway).filter(|g| g.fenced).copied() else {
            return Err(check::not_fenced(gateway, shard));
        };
        if !state.rooms.contains_key(&entry.room) {
            // The room has ended.
            return Ok((Leased::Done(()), None));
        }
        let bell = self.write(shard, (gateway, 0, stored.watermark), std::slice::from_ref(entry), None, now_ms);
        Ok((Leased::Done(()), Some(bell)))
    }

    /// Ends a room. A room that does not exist has ended already.
    ///
    /// # Errors
    /// [`JournalError::Refused`] for a shard that does not exist, or a room of another one.
    pub(crate) fn end_room(
        &mut self,
        shard: ShardId,
        lease: Lease,
        room: &RoomId,
        seq: u64,
    ) -> Result<Leased<bool>, JournalError> {
        check::room(room, shard, self.shards())?;
        let Some(state) = self.leased(shard, lease)? else { return Ok(Leased::Lost) };
        if state.rooms.get(room).is_some_and(|stored| stored.cursor != stored.last || stored.seq != seq) {
            return Ok(Leased::Done(false));
        }
        state.rooms.remove(room);
        state.active.remove(room);
        state.due.remove(room);
        Ok(Leased::Done(true))
    }
}

#[async_trait]
impl WorkerJournal for MemoryJournal {
    async fn heartbeat(
        &self,
        worker: Incarnation,
        owned: &[ShardId],
        good_for_ms: u64,
    ) -> Result<Vec<WorkerRecord>, JournalError> {
        let now_ms = self.now_ms();
        Ok(self.inner.lock().store.heartbeat(worker, owned, good_for_ms, now_ms))
    }

    async fn announce_patterns(&self, worker: Incarnation, patterns: &[String], good_for_ms: u64) -> Result<(), JournalError> {
        let now_ms = self.now_ms();
        self.inner.lock().store.announce_patterns(worker, patterns, good_for_ms, now_ms);
        Ok(())
    }

    async fn owners(&self) -> Result<Vec<ShardOwner>, JournalError> {
        let now_ms = self.now_ms();
        Ok(self.inner.lock().store.owners(now_ms))
    }

    /// It has the caller's clock, so it never refuses.
    async fn claim(
        &self,
        shard: ShardId,
        from: Option<Lease>,
        worker: Incarnation,
        wall_ms: u64,
        homing: &Homing,
    ) -> Result<Leased<Lease>, JournalError> {
        let now_ms = self.now_ms();
        self.inner.lock().store.by(&self.host).claim(shard, from, worker, (wall_ms, now_ms), homing)
    }

    async fn name(
        &self,
        shard: ShardId,
        lease: Lease,
        to: Option<&Successor>,
        good_for_ms: u64,
    ) -> Result<Leased<()>, JournalError> {
        let until_ms = self.now_ms().saturating_add(good_for_ms);
        self.inner.lock().store.name(shard, lease, to, until_ms)
    }

    async fn release(&self, shard: ShardId, lease: Lease) -> Result<(), JournalError> {
        self.inner.lock().store.release(shard, lease)
    }

    async fn bells(&self, shards: &[ShardId]) -> Result<Signals<Bell>, JournalError> {
        shards.iter().try_for_each(|shard| check::shard(*shard, self.shards))?;
        let (to, from) = signals::channel();
        signals::subscribed(&to);
        let mut inner = self.inner.lock();
        for shard in shards {
            inner.bells[usize::from(shard.0)].push(to.clone());
        }
        Ok(from)
    }

    async fn survey(&self, shard: ShardId, rooms: bool) -> Result<Survey, JournalError> {
        self.inner.lock().store.survey_paged(shard, rooms, SURVEY_ROOMS)
    }

    async fn rooms(&self, shard: ShardId, place: &RoomsPlace, count: usize) -> Result<RoomsPage, JournalError> {
        self.inner.lock().store.rooms(shard, place, count)
    }

    async fn load(&self, room: &RoomId, place: Place, size: PageSize) -> Result<StoredPage, JournalError> {
        Ok(self.inner.lock().store.load(room, place, size))
    }

    async fn write_ahead(
        &self,
        shard: ShardId,
        lease: Lease,
        room: &RoomId,
        part: &AheadPart,
    ) -> Result<Leased<()>, JournalError> {
        self.inner.lock().store.write_ahead(shard, lease, room, part)
    }

    async fn commit(&self, commit: &Commit) -> Result<Committed, JournalError> {
        let mut inner = self.inner.lock();
        let (answer, pushes) = inner.store.commit(commit)?;
        for (gateway, push) in pushes {
            inner.push(*gateway, push);
        }
        Ok(answer)
    }

    async fn attempt(&self, shard: ShardId, lease: Lease, room: &RoomId, name: u64) -> Result<Leased<u32>, JournalError> {
        self.inner.lock().store.attempt(shard, lease, room, name)
    }

    async fn testify(&self, shard: ShardId, witness: Witness) -> Result<u64, JournalError> {
        self.inner.lock().store.testify(shard, witness)
    }

    async fn fence(&self, shard: ShardId, lease: Lease, gateway: Incarnation) -> Result<Leased<GatewayRecord>, JournalError> {
        self.inner.lock().store.fence(shard, lease, gateway)
    }

    async fn forget(&self, shard: ShardId, lease: Lease, gateways: &[Incarnation]) -> Result<Leased<()>, JournalError> {
        self.inner.lock().store.forget(shard, lease, gateways)
    }

    async fn death(
        &self,
        shard: ShardId,
        lease: Lease,
        gateway: Incarnation,
        entry: &FlushEntry,
    ) -> Result<Leased<()>, JournalError> {
        let now_ms = self.now_ms();
        let mut inner = self.inner.lock();
        let (answer, bell) = inner.store.death(shard, lease, gateway, entry, now_ms)?;
        inner.ring(bell);
        Ok(answer)
    }

    async fn end_room(&self, shard: ShardId, lease: Lease, room: &RoomId, seq: u64) -> Result<Leased<bool>, JournalError> {
        self.inner.lock().store.end_room(shard, lease, room, seq)
    }

    async fn publish(&self, _shard: Option<ShardId>, to: Incarnation, push: Bytes) -> Result<u64, JournalError> {
        Ok(self.inner.lock().push(to, &push))
    }
}

//! The journal in this process's memory: rooms end with the process. The embedded default, and the simulation's.

mod store;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;

pub use store::{Pushes, Store};

use super::{
    AheadPart, Appended, Bell, Commit, Committed, Flush, FlushEntry, GatewayRecord, Journal, JournalError, Lease, Leased,
    PageSize, Place, Registered, RoomHead, Seen, Signal, Signals, StoredPage, Survey, VerdictPage, Witness, WorkerRecord, check,
    signals,
};
use crate::types::{Incarnation, RoomId, ShardId};

type Sender<T> = mpsc::Sender<Signal<T>>;

/// A [`Journal`] in memory. Clones share one journal.
#[derive(Debug, Clone)]
pub struct MemoryJournal {
    shards: u16,
    started: Instant,
    inner: Arc<Mutex<Inner>>,
}

/// What is published goes out under the store's lock, so that subscribers see the order of the steps; it never waits.
#[derive(Debug)]
struct Inner {
    store: Store,
    bells: Vec<Vec<Sender<Bell>>>,
    pushes: HashMap<Incarnation, Vec<Sender<Bytes>>>,
}

impl Inner {
    fn ring(&mut self, bell: Option<Bell>) {
        let Some(bell) = bell else { return };
        let listeners = &mut self.bells[usize::from(bell.shard.0)];
        // Nearly always there is one: it gets the bell itself, not a copy.
        if let [only] = listeners.as_slice() {
            if !signals::offer(only, bell) {
                listeners.clear();
            }
            return;
        }
        listeners.retain(|to| signals::offer(to, bell.clone()));
    }

    fn push(&mut self, gateway: Incarnation, push: &Bytes) -> u64 {
        let Some(listeners) = self.pushes.get_mut(&gateway) else { return 0 };
        listeners.retain(|to| signals::offer(to, push.clone()));
        let count = listeners.len();
        if count == 0 {
            self.pushes.remove(&gateway);
        }
        count as u64
    }
}

impl MemoryJournal {
    /// An empty journal of `shards` shards, at least 1.
    #[must_use]
    pub fn new(shards: u16) -> Self {
        let store = Store::new(shards);
        let shards = store.shards();
        let bells = (0..shards).map(|_| Vec::new()).collect();
        Self { shards, started: Instant::now(), inner: Arc::new(Mutex::new(Inner { store, bells, pushes: HashMap::new() })) }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    fn shards(&self) -> u16 {
        self.shards
    }

    fn durable(&self) -> bool {
        false
    }

    async fn timeline(&self, host: &str) -> Result<u32, JournalError> {
        Ok(self.inner.lock().store.timeline(host))
    }

    async fn ping(&self) -> Result<(), JournalError> {
        Ok(())
    }

    async fn register(
        &self,
        shard: ShardId,
        gateway: Incarnation,
        seen: Seen,
        rooms: &[RoomId],
    ) -> Result<Registered, JournalError> {
        let mut inner = self.inner.lock();
        let (answer, bell) = inner.store.register(shard, gateway, seen, rooms)?;
        inner.ring(bell);
        Ok(answer)
    }

    async fn append(&self, flush: &Flush) -> Result<Appended, JournalError> {
        let now_ms = self.now_ms();
        let mut inner = self.inner.lock();
        let (answer, bell) = inner.store.append(flush, now_ms)?;
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

    async fn verdicts(&self, room: &RoomId, seq: u64, entries_max: usize) -> Result<VerdictPage, JournalError> {
        Ok(self.inner.lock().store.verdicts(room, seq, entries_max))
    }

    async fn pushes(&self, gateway: Incarnation) -> Result<Signals<Bytes>, JournalError> {
        let (to, from) = signals::channel();
        signals::subscribed(&to);
        self.inner.lock().pushes.entry(gateway).or_default().push(to);
        Ok(from)
    }

    async fn live_timelines(&self, timeline: u32, good_for_ms: u64) -> Result<Vec<u32>, JournalError> {
        let now_ms = self.now_ms();
        Ok(self.inner.lock().store.live_timelines(timeline, good_for_ms, now_ms))
    }

    async fn heartbeat(
        &self,
        worker: Incarnation,
        owned: &[ShardId],
        good_for_ms: u64,
    ) -> Result<Vec<WorkerRecord>, JournalError> {
        let now_ms = self.now_ms();
        Ok(self.inner.lock().store.heartbeat(worker, owned, good_for_ms, now_ms))
    }

    async fn patterns(
        &self,
        worker: Incarnation,
        patterns: &[String],
        good_for_ms: u64,
    ) -> Result<Vec<(Incarnation, Vec<String>)>, JournalError> {
        let now_ms = self.now_ms();
        Ok(self.inner.lock().store.patterns(worker, patterns, good_for_ms, now_ms))
    }

    async fn owners(&self) -> Result<Vec<Option<Lease>>, JournalError> {
        Ok(self.inner.lock().store.owners())
    }

    async fn claim(&self, shard: ShardId, from: Option<Lease>, worker: Incarnation) -> Result<Leased<Lease>, JournalError> {
        self.inner.lock().store.claim(shard, from, worker)
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
        self.inner.lock().store.survey(shard, rooms)
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

    async fn leave(&self, shard: ShardId, gateway: Incarnation) -> Result<(), JournalError> {
        self.inner.lock().store.leave(shard, gateway)
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

    async fn attempt(&self, shard: ShardId, lease: Lease, room: &RoomId, name: u64) -> Result<Leased<u32>, JournalError> {
        self.inner.lock().store.attempt(shard, lease, room, name)
    }

    async fn end_room(&self, shard: ShardId, lease: Lease, room: &RoomId, seq: u64) -> Result<Leased<bool>, JournalError> {
        self.inner.lock().store.end_room(shard, lease, room, seq)
    }

    async fn publish(&self, gateway: Incarnation, push: Bytes) -> Result<u64, JournalError> {
        Ok(self.inner.lock().push(gateway, &push))
    }
}

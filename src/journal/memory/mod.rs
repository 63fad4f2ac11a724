//! The journal in this process's memory: rooms end with the process. For `lasthit serve`, for embedding, and for the simulation.
//!
//! ```
//! use lasthit::journal::memory::MemoryJournal;
//!
//! let journal = MemoryJournal::new(4); // shards
//! ```

mod store;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;

pub(crate) use store::Store;

use super::{Beats, Bell, CommonJournal, JournalError, ProcessRecord, Signal, Signals, signals, this_host};
#[cfg(test)]
use crate::journal::{Homing, Leased};
#[cfg(test)]
use crate::types::ShardId;
use crate::types::{HostId, Incarnation};

type Sender<T> = mpsc::Sender<Signal<T>>;

/// A [`Journal`](super::Journal) in memory. Clones share one journal.
#[derive(Debug, Clone)]
pub struct MemoryJournal {
    shards: u16,
    host: HostId,
    started: Instant,
    inner: Arc<Mutex<Inner>>,
}

/// Messages are published under the store's lock, so that subscribers see the order of the steps. Publishing never waits.
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
        // There is nearly always one subscriber: it gets the bell itself, not a copy.
        if let [only] = listeners.as_slice() {
            if !signals::offer(only, bell) {
                listeners.clear();
            }
            return;
        }
        listeners.retain(|to| signals::offer(to, bell.clone()));
    }

    fn push(&mut self, gateway: Incarnation, push: &Bytes) -> u64 {
        let gateway = gateway.process();
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
        Self::of(Store::new(shards))
    }

    /// One whose shards have their home here, as after a worker's first claim.
    #[cfg(test)]
    pub(crate) fn at_home(shards: u16) -> Self {
        let host = this_host();
        let mut store = Store::new(shards);
        for shard in (0..store.shards()).map(ShardId) {
            let Ok(Leased::Done(lease)) = store.by(&host).claim(shard, None, Incarnation(1), (0, 0), &Homing::moves_from(None))
            else {
                unreachable!("it is free")
            };
            store.release(shard, lease).expect("a shard");
        }
        Self::of(store)
    }

    fn of(store: Store) -> Self {
        let shards = store.shards();
        let bells = (0..shards).map(|_| Vec::new()).collect();
        Self {
            shards,
            host: this_host(),
            started: Instant::now(),
            inner: Arc::new(Mutex::new(Inner { store, bells, pushes: HashMap::new() })),
        }
    }

    /// The same journal, as the processes of another host use it.
    #[doc(hidden)]
    #[must_use]
    pub fn on_host(&self, host: HostId) -> Self {
        Self { host, ..self.clone() }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[async_trait]
impl CommonJournal for MemoryJournal {
    fn shards(&self) -> u16 {
        self.shards
    }

    fn host(&self) -> &HostId {
        &self.host
    }

    async fn timeline(&self, host: &str) -> Result<u32, JournalError> {
        Ok(self.inner.lock().store.timeline(host))
    }

    async fn live_timelines(&self, timeline: u32, good_for_ms: u64) -> Result<Vec<u32>, JournalError> {
        let now_ms = self.now_ms();
        Ok(self.inner.lock().store.live_timelines(timeline, good_for_ms, now_ms))
    }

    async fn beat(&self, me: &ProcessRecord, good_for_ms: u64) -> Result<Beats, JournalError> {
        let now_ms = self.now_ms();
        Ok(self.inner.lock().store.beat(me, good_for_ms, now_ms))
    }

    async fn drain(&self, host: &HostId, drained: bool) -> Result<(), JournalError> {
        self.inner.lock().store.drain(host, drained);
        Ok(())
    }

    async fn ping(&self) -> Result<(), JournalError> {
        Ok(())
    }

    async fn pushes(&self, to: Incarnation) -> Result<Signals<Bytes>, JournalError> {
        let (sender, from) = signals::channel();
        signals::subscribed(&sender);
        self.inner.lock().pushes.entry(to.process()).or_default().push(sender);
        Ok(from)
    }
}

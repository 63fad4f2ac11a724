//! How much a gateway has to do, for whoever passes connections to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Counts since the start. Parts count, and a reader is woken by what it may act on.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    taken: AtomicU64,
    gone: AtomicU64,
    /// The numbers of those that have ended, until whoever gave them has been told: at most as many as there may be connections.
    ended: Mutex<Vec<u64>>,
    handshakes: AtomicU64,
    sessions: AtomicU64,
    events: Arc<AtomicU64>,
    changed: Notify,
}

/// What was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Connections that were taken.
    pub(crate) taken: u64,
    /// Of them, those that have ended.
    pub(crate) gone: u64,
    /// Of the others, those that are in their HTTP exchange.
    pub(crate) handshakes: u64,
    /// Of the others, those that are sessions.
    pub(crate) sessions: u64,
    /// Actions that came in.
    pub(crate) events: u64,
}

/// A connection, from the moment at which this process has it. It is gone when this is dropped, whatever became of it.
#[derive(Debug)]
pub(crate) struct Taken {
    tally: Arc<Tally>,
    /// What whoever passed it calls it.
    number: Option<u64>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        // Its number first: who counts it as gone has been told which it is.
        self.tally.ended.lock().extend(self.number);
        self.tally.gone.fetch_add(1, Ordering::Relaxed);
        self.tally.changed.notify_one();
    }
}

/// A handshake or a session. It counts until this is dropped.
pub(super) struct Counting<'a> {
    tally: &'a Tally,
    now: &'a AtomicU64,
}

impl Drop for Counting<'_> {
    fn drop(&mut self) {
        self.now.fetch_sub(1, Ordering::Relaxed);
        self.tally.changed.notify_one();
    }
}

impl Tally {
    /// What was counted so far.
    pub(crate) fn read(&self) -> Counted {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counted {
            taken: get(&self.taken),
            gone: get(&self.gone),
            handshakes: get(&self.handshakes),
            sessions: get(&self.sessions),
            events: get(&self.events),
        }
    }

    /// Returns when connections, handshakes or sessions have changed since the last time.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// A connection is taken, which whoever passed it calls by a number.
    pub(crate) fn connection(self: &Arc<Self>, number: Option<u64>) -> Taken {
        self.taken.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_one();
        Taken { tally: self.clone(), number }
    }

    /// The numbers of connections that have ended, at most so many, each once.
    pub(crate) fn take_ended(&self, most: usize) -> Vec<u64> {
        let mut ended = self.ended.lock();
        let first = ended.len().saturating_sub(most);
        ended.split_off(first)
    }

    /// An HTTP exchange begins.
    pub(super) fn handshake(&self) -> Counting<'_> {
        self.handshakes.fetch_add(1, Ordering::Relaxed);
        Counting { tally: self, now: &self.handshakes }
    }

    /// A session begins.
    pub(super) fn session(&self) -> Counting<'_> {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        Counting { tally: self, now: &self.sessions }
    }

    /// Counts events for a process that has no sessions.
    pub(crate) fn events(&self) -> Arc<AtomicU64> {
        self.events.clone()
    }

    /// An action came in.
    pub(super) fn event(&self) {
        self.events.fetch_add(1, Ordering::Relaxed);
    }
}

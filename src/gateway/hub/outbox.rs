//! A session's outbox: the hub puts in under its lock, the session takes out when it likes.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Weak};

use tokio::sync::mpsc;

use super::{Hub, Inner};
use crate::gateway::core::Delivery;
use crate::limits::OUTBOX_MESSAGES_MAX;
use crate::types::SessionId;

/// Nobody asks.
const NOBODY: usize = usize::MAX;

/// Where a session's deliveries go in.
#[derive(Debug)]
pub(super) struct Inlet {
    sender: mpsc::Sender<Delivery>,
    /// Deliveries that went in.
    count: AtomicU64,
    asked: Arc<AtomicUsize>,
}

/// Where a session's deliveries come out, in order. Bounded: what a slow session has not taken out by then it is read from
/// the journal, as fast as it takes out.
#[derive(Debug)]
pub(crate) struct Outbox {
    receiver: mpsc::Receiver<Delivery>,
    /// The level at which the hub wants to hear of it.
    asked: Arc<AtomicUsize>,
    hub: Weak<Inner>,
    session: SessionId,
}

/// An outbox that holds what the core may put in: verdicts, and a `Close` behind them.
pub(super) fn new(hub: Weak<Inner>, session: SessionId) -> (Inlet, Outbox) {
    let (sender, receiver) = mpsc::channel(OUTBOX_MESSAGES_MAX + 2);
    let asked = Arc::new(AtomicUsize::new(NOBODY));
    (Inlet { sender, count: AtomicU64::new(0), asked: Arc::clone(&asked) }, Outbox { receiver, asked, hub, session })
}

impl Inlet {
    /// Puts a delivery in; false when nobody takes out any more.
    pub(super) fn put(&self, delivery: Delivery) -> bool {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.sender.try_send(delivery).is_ok()
    }

    fn queued(&self) -> usize {
        self.sender.max_capacity() - self.sender.capacity()
    }

    /// Deliveries that were taken out.
    pub(super) fn taken(&self) -> u64 {
        self.count.load(Ordering::Relaxed).saturating_sub(self.queued() as u64)
    }

    /// How many were taken out when at most `level` wait; else the outbox tells the hub when it comes down to that.
    pub(super) fn ask(&self, level: usize) -> Option<u64> {
        self.asked.store(level, Ordering::SeqCst);
        // Either this sees what was taken out, or who takes out sees the question.
        fence(Ordering::SeqCst);
        (self.queued() <= level && self.asked.swap(NOBODY, Ordering::SeqCst) != NOBODY).then(|| self.taken())
    }
}

impl Outbox {
    /// The next delivery; None after [`Delivery::Close`], or when the session was closed.
    pub(crate) async fn recv(&mut self) -> Option<Delivery> {
        let delivery = self.receiver.recv().await;
        self.answer();
        delivery
    }

    /// The next delivery, if there is one already.
    pub(crate) fn try_recv(&mut self) -> Option<Delivery> {
        let delivery = self.receiver.try_recv().ok();
        self.answer();
        delivery
    }

    fn answer(&self) {
        fence(Ordering::SeqCst);
        let level = self.asked.load(Ordering::SeqCst);
        if level == NOBODY || self.receiver.len() > level || self.asked.swap(NOBODY, Ordering::SeqCst) == NOBODY {
            return;
        }
        if let Some(hub) = self.hub.upgrade().map(Hub) {
            hub.drained(self.session);
        }
    }
}

impl Hub {
    /// Puts a delivery into its session's outbox. The core keeps to the bound; where nobody takes out any more, it is gone.
    pub(super) fn deliver(&self, session: u64, delivery: Delivery) {
        let last = matches!(delivery, Delivery::Close { .. });
        let sent = self.0.outboxes.get(&session).map(|inlet| inlet.put(delivery));
        if last || sent == Some(false) {
            // Without its sender the outbox ends after what is in it: the session's own task closes as slow.
            self.0.outboxes.remove(&session);
        }
    }

    /// A session's outbox has come down to the level that was asked for.
    fn drained(&self, session: SessionId) {
        self.with(|state| {
            let taken = self.0.outboxes.get(&session.number).map(|inlet| inlet.taken());
            if let Some(taken) = taken.filter(|_| session.gateway == state.core.incarnation()) {
                state.core.drained(session.number, taken);
            }
        });
    }
}

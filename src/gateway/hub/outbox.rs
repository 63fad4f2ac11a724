//! A session's outbox. The hub puts deliveries in under its lock; the session takes them out when it can.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Weak};

use tokio::sync::mpsc;

use super::{Hub, Inner};
use crate::gateway::step::{Delivery, Input};
use crate::limits::OUTBOX_MESSAGES_MAX;
use crate::types::SessionId;

/// The level when the hub asks for nothing.
const NOBODY: usize = usize::MAX;

/// The hub's end of a session's outbox.
#[derive(Debug)]
pub(super) struct Inlet {
    sender: mpsc::Sender<Delivery>,
    /// The deliveries that were put in.
    count: AtomicU64,
    asked: Arc<AtomicUsize>,
}

/// The session's end of its outbox: its deliveries, in order. The outbox is bounded. When it is full, the gateway reads the rest
/// from the journal, at the session's pace.
#[derive(Debug)]
pub(crate) struct Outbox {
    receiver: mpsc::Receiver<Delivery>,
    /// The number of deliveries at which the hub wants to be told.
    asked: Arc<AtomicUsize>,
    hub: Weak<Inner>,
    session: SessionId,
}

/// Creates an outbox that holds all that the core may put in: verdicts, a wish to move or two, and a `Close` after them.
pub(super) fn new(hub: Weak<Inner>, session: SessionId) -> (Inlet, Outbox) {
    let (sender, receiver) = mpsc::channel(OUTBOX_MESSAGES_MAX + 4);
    let asked = Arc::new(AtomicUsize::new(NOBODY));
    (Inlet { sender, count: AtomicU64::new(0), asked: Arc::clone(&asked) }, Outbox { receiver, asked, hub, session })
}

impl Inlet {
    /// Puts a delivery in. Returns false when the session has dropped its end.
    pub(super) fn put(&self, delivery: Delivery) -> bool {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.sender.try_send(delivery).is_ok()
    }

    fn queued(&self) -> usize {
        self.sender.max_capacity() - self.sender.capacity()
    }

    /// The deliveries that were taken out.
    pub(super) fn taken(&self) -> u64 {
        self.count.load(Ordering::Relaxed).saturating_sub(self.queued() as u64)
    }

    /// If at most `level` deliveries wait, returns how many were taken out. Otherwise the outbox tells the hub when it has drained
    /// to that level.
    pub(super) fn ask(&self, level: usize) -> Option<u64> {
        self.asked.store(level, Ordering::SeqCst);
        // Either this side sees what was taken out, or the side that takes out sees the level.
        fence(Ordering::SeqCst);
        (self.queued() <= level && self.asked.swap(NOBODY, Ordering::SeqCst) != NOBODY).then(|| self.taken())
    }
}

impl Outbox {
    /// The next delivery. None after [`Delivery::Close`], or when the session was closed.
    pub(crate) async fn recv(&mut self) -> Option<Delivery> {
        let delivery = self.receiver.recv().await;
        self.answer();
        delivery
    }

    /// The next delivery, if there is one.
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
    /// Puts a delivery into its session's outbox. The core respects its bound. If the session has dropped its end, the delivery is
    /// lost.
    pub(super) fn deliver(&self, session: u64, delivery: Delivery) {
        let last = matches!(delivery, Delivery::Close { .. });
        let sent = self.0.outboxes.get(&session).map(|inlet| inlet.put(delivery));
        if last || sent == Some(false) {
            // Without this end the outbox ends after what is in it. Then the session's task closes as slow.
            self.0.outboxes.remove(&session);
        }
    }

    /// A session's outbox has drained to the level that the core asked for.
    fn drained(&self, session: SessionId) {
        self.with(|state| {
            let taken = self.0.outboxes.get(&session.number).map(|inlet| inlet.taken());
            if let Some(taken) = taken {
                state.core.apply(Input::OutboxDrained { session: session.number, taken });
            }
        });
    }
}

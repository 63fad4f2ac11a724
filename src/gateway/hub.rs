//! Stands in for the hub: it welcomes, grants nothing, and records what it was told.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::limits::OUTBOX_MESSAGES_MAX;
use crate::types::{Action, Arrival, Incarnation, PlayerId, Role, RoomId, SessionId, Since};
use crate::wire::client::{ErrorCode, Refusal, VerdictFrames, Welcome};

/// Who joins which room.
#[derive(Debug, Clone)]
pub struct Joining {
    /// The room.
    pub room: RoomId,
    /// Whose session it is.
    pub player: PlayerId,
    /// What it may do.
    pub role: Role,
    /// What it has seen of the room.
    pub since: Option<Since>,
}

/// What a session is to be sent.
#[derive(Debug)]
pub enum Delivery {
    /// The first message.
    Welcome(Welcome),
    /// A verdict.
    Verdict {
        /// The first `seq` that it covers, if not its own.
        from: Option<u64>,
        /// The verdict, encoded once for all sessions.
        frames: Arc<VerdictFrames>,
    },
    /// An action that was accepted and then refused.
    Refused(Refusal),
    /// The session is to be closed.
    Close {
        /// WebSocket close code.
        code: u16,
        /// A word for the close frame.
        reason: String,
    },
}

/// What a session is to be sent, in order.
#[derive(Debug)]
pub struct Outbox(mpsc::Receiver<Delivery>);

impl Outbox {
    /// The next delivery; none when the hub is gone.
    pub async fn recv(&mut self) -> Option<Delivery> {
        self.0.recv().await
    }

    /// The next delivery, if it is there.
    pub fn try_recv(&mut self) -> Option<Delivery> {
        self.0.try_recv().ok()
    }
}

/// What the hub was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// `open`, and for whom.
    Open(SessionId, PlayerId),
    /// `act`, with the action's id.
    Act(SessionId, String, Arrival),
    /// `end`, with its code.
    End(SessionId, u16),
    /// `error`, with its reason.
    Error(SessionId, String),
    /// `close`.
    Close(SessionId),
}

#[derive(Debug, Default)]
struct State {
    calls: Vec<Call>,
    outboxes: HashMap<SessionId, mpsc::Sender<Delivery>>,
}

/// Records calls.
#[derive(Debug, Clone, Default)]
pub struct Hub(Arc<Mutex<State>>);

impl Hub {
    /// Joins.
    ///
    /// # Errors
    /// For the room `closed`.
    pub fn open(&self, joining: Joining, _: Arrival) -> Result<(SessionId, Outbox), Refusal> {
        if joining.room.as_str() == "closed" {
            return Err(Refusal { code: ErrorCode::Busy, id: None, message: "room \"closed\" is full".to_owned() });
        }
        let mut state = self.0.lock();
        let id = SessionId { gateway: Incarnation(1), number: state.calls.len() as u64 + 1 };
        state.calls.push(Call::Open(id, joining.player.clone()));
        let (sender, receiver) = mpsc::channel(OUTBOX_MESSAGES_MAX);
        let welcome = Welcome {
            session: id,
            player: joining.player,
            role: joining.role,
            era: 1,
            seq: 0,
            resumed: false,
            gone: false,
            state: None,
            clock: "kernel",
            uncertainty_ns: 2_000,
        };
        if joining.room.as_str() != "unresolved" {
            let _ = sender.try_send(Delivery::Welcome(welcome));
        }
        state.outboxes.insert(id, sender);
        Ok((id, Outbox(receiver)))
    }

    /// Takes an action.
    ///
    /// # Errors
    /// For the op `refuse`.
    pub fn act(&self, session: SessionId, action: Action, arrival: Arrival) -> Result<(), Refusal> {
        if action.op == "refuse" {
            return Err(Refusal { code: ErrorCode::Busy, id: Some(action.id), message: "the room is busy".to_owned() });
        }
        self.0.lock().calls.push(Call::Act(session, action.id, arrival));
        Ok(())
    }

    /// A session ends.
    pub fn end(&self, session: SessionId, code: u16, _: Arrival) {
        self.0.lock().calls.push(Call::End(session, code));
    }

    /// A session broke.
    pub fn error(&self, session: SessionId, reason: String, _: Arrival) {
        self.0.lock().calls.push(Call::Error(session, reason));
    }

    /// A session is over.
    pub fn close(&self, session: SessionId, _: Arrival) {
        let mut state = self.0.lock();
        state.calls.push(Call::Close(session));
        state.outboxes.remove(&session);
    }

    /// What it was told so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.0.lock().calls.clone()
    }

    /// Sends a session something; false when its outbox is full or gone.
    #[must_use]
    pub fn deliver(&self, session: SessionId, delivery: Delivery) -> bool {
        self.0.lock().outboxes.get(&session).is_some_and(|outbox| outbox.try_send(delivery).is_ok())
    }
}

//! What happened on a session, and the journal entry that carries it.

use bytes::Bytes;

use super::{Arrival, Incarnation, Moment, PlayerId, SessionId, Stamp};

/// What a session may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Acts for itself, and sees the verdicts whose audience includes it.
    Player,
    /// A game server. It may act for any player, may use the rules' server actions, and sees every verdict of its room.
    Server,
}

impl Role {
    /// `player` or `server`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Player => "player",
            Self::Server => "server",
        }
    }
}

/// The five socket events (onOpen, onData, onEnd, onError, onClose).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// The session joined its room.
    Open {
        /// The player whose session it is.
        player: PlayerId,
        /// What the session may do.
        role: Role,
    },
    /// An action: [`super::Action`] in its canonical form.
    Data(Bytes),
    /// The session is ending.
    End {
        /// The WebSocket close code of the side that closed first (RFC 6455, section 7.4), or 1006 when neither did.
        code: u16,
    },
    /// The session broke.
    Error {
        /// The error, in one line of at most 200 bytes.
        reason: String,
    },
    /// The session is over. Every session has one Close, as its last event.
    Close,
}

/// One event of one session, as its gateway stamped it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The session's number in its gateway's incarnation.
    pub session: u64,
    /// The gateway's count of its events, in stamp order.
    pub ordinal: u64,
    /// When it arrived.
    pub arrival: Arrival,
    /// What happened.
    pub kind: EventKind,
}

/// One gateway's events of one flush in one room: the unit that a room's stream holds. Events are in stamp order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The gateway's incarnation.
    pub incarnation: Incarnation,
    /// The timeline of the arrivals.
    pub timeline: u32,
    /// Written by a worker for a gateway that was fenced: ends that gateway's sessions here.
    pub death: bool,
    /// The events, at least one. Their ordinals and stamps rise.
    pub events: Vec<Event>,
}

impl Entry {
    /// The full stamp of one of its events.
    #[must_use]
    pub fn stamp(&self, event: &Event) -> Stamp {
        Stamp {
            moment: Moment { timeline: self.timeline, ns: event.arrival.ns },
            incarnation: self.incarnation,
            ordinal: event.ordinal,
        }
    }

    /// The session of one of its events.
    #[must_use]
    pub fn session(&self, event: &Event) -> SessionId {
        SessionId { gateway: self.incarnation, number: event.session }
    }

    /// The highest moment in it; the start of time when it is empty.
    #[must_use]
    pub fn top(&self) -> Moment {
        self.events.last().map_or(Moment::default(), |e| Moment { timeline: self.timeline, ns: e.arrival.ns })
    }
}

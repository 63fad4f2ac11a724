//! The values at the edge of the core: who joins, what a session is sent, what happens around the core ([`Input`]), and what
//! it wants done ([`Command`]).

use std::sync::Arc;
use std::time::Duration;

use super::homes::Loss;
use crate::journal::{Appended, Flush, Homed, Registered, RoomHead, Seen, ShardHome, VerdictPage};
use crate::metrics::Waits;
use crate::types::{Incarnation, PlayerId, Role, RoomId, SessionId, ShardId, Since, Verdict, VerdictKind};
use crate::wire::client::{Refusal, VerdictFrames, Welcome};
use crate::wire::push::Push;

/// Who joins which room.
#[derive(Debug, Clone)]
pub struct Joining {
    /// The room to join.
    pub room: RoomId,
    /// The player's name.
    pub player: PlayerId,
    /// What the session may do.
    pub role: Role,
    /// The last verdict that the player has seen, if it resumes.
    pub since: Option<Since>,
}

impl Joining {
    /// A player that joins for the first time.
    #[must_use]
    pub fn new(room: RoomId, player: PlayerId) -> Self {
        Self { room, player, role: Role::Player, since: None }
    }
}

/// One message to a session.
#[derive(Debug, Clone)]
pub enum Delivery {
    /// The first message.
    Welcome(Box<Welcome>),
    /// A verdict that the session may see.
    Verdict {
        /// The first `seq` that the frame covers; None when it covers only its own.
        from: Option<u64>,
        /// The verdict, encoded once for all sessions.
        frames: Arc<VerdictFrames>,
    },
    /// An action that was not accepted.
    Refused(Box<Refusal>),
    /// The gateway asks the session to move: to connect again, and to end here when it is welcomed there.
    Move {
        /// The time for it, in milliseconds.
        within_ms: u64,
        /// The gateway to connect to; None for the address that the client knows.
        url: Option<Arc<str>>,
    },
    /// The last message.
    Close {
        /// The WebSocket close code.
        code: u16,
        /// The reason, in one line.
        reason: String,
    },
}

impl Delivery {
    /// The verdict, if this is one.
    #[must_use]
    pub fn verdict(&self) -> Option<&Verdict> {
        if let Self::Verdict { frames, .. } = self { Some(frames.verdict()) } else { None }
    }

    /// When the action arrived that this verdict decides; None unless the action was `session`'s own.
    pub(crate) fn decides_since(&self, session: SessionId) -> Option<u64> {
        let verdict = self.verdict()?;
        let own = verdict.kind == VerdictKind::Data
            && verdict.session == session.number
            && verdict.stamp.incarnation == session.gateway;
        own.then_some(verdict.stamp.moment.ns)
    }
}

/// Identifies a read in flight. Its answer carries it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReadId {
    pub(super) number: u64,
    /// Whether the read fills a gap in a room's pushes.
    pub(crate) gap: bool,
}

/// What happened outside the sessions. Most inputs answer a [`Command`].
#[derive(Debug)]
pub(crate) enum Input {
    /// About a second has passed. The value is the time now, in nanoseconds.
    Tick(u64),
    /// It is time to compare rooms with the journal.
    CheckHeads,
    /// The subscription to the pushes is new: what came before it may have been missed.
    Subscribed,
    /// A worker's push.
    Push(Push),
    /// Answers [`Command::Register`], for this turn.
    Registered(ShardId, Incarnation, Homed<Registered>),
    /// Answers [`Command::Append`]. `repeated` says that the flush was sent more than once. Its events may then be resolved
    /// already, and the answer's heads may lie above verdicts that are still to be delivered.
    Appended { flush: Arc<Flush>, answer: Appended, repeated: bool, now_ns: u64 },
    /// Answers [`Command::Read`].
    Page { read: ReadId, page: VerdictPage },
    /// Answers [`Command::Read`]: the page is damaged.
    Unreadable { read: ReadId, why: String },
    /// Answers [`Command::ReadHeads`]. The journal's server that gave the heads comes first.
    Heads(ShardId, Incarnation, Vec<RoomHead>),
    /// Answers [`Command::ReadHome`], with the time now.
    Home(ShardId, ShardHome, u64),
    /// Answers [`Command::AskOutbox`]: the session has taken `taken` deliveries in all.
    OutboxDrained { session: u64, taken: u64 },
    /// Answers [`Command::Rest`]: how long ready tasks then had to wait for the gateway.
    Rested(Duration),
}

/// What the core wants its driver to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Call [`crate::journal::GatewayJournal::register`] until it succeeds, then answer with [`Input::Registered`].
    Register {
        shard: ShardId,
        /// The gateway's turn there.
        gateway: Incarnation,
        /// What an earlier server of the journal had confirmed.
        seen: Seen,
        /// The rooms whose heads the answer must have.
        rooms: Vec<RoomId>,
    },
    /// Call [`crate::journal::GatewayJournal::append`] until it succeeds, then answer with [`Input::Appended`].
    Append {
        flush: Arc<Flush>,
        /// When its events arrived. Empty when the flush is sent again.
        waits: Waits,
    },
    /// Call [`crate::journal::GatewayJournal::verdicts`] until it succeeds, then answer with [`Input::Page`]. When the page is
    /// damaged, answer with [`Input::Unreadable`].
    Read {
        room: RoomId,
        /// The `seq` after which the page begins.
        after: u64,
        /// The most batches that the page may have.
        entries_max: usize,
        read: ReadId,
    },
    /// Answer with [`Input::OutboxDrained`] as soon as the session's outbox holds at most `level` deliveries.
    AskOutbox { session: u64, level: usize },
    /// Answer with [`Input::Rested`] after [`crate::limits::CATCH_UP_REST`].
    Rest,
    /// Call [`crate::journal::GatewayJournal::heads`] and answer with [`Input::Heads`]. A failed call needs no answer.
    ReadHeads(ShardId, Vec<RoomId>),
    /// Call [`crate::journal::GatewayJournal::home`] until it succeeds, then answer with [`Input::Home`]. `again` says that sessions are
    /// held, and that it was asked just now: ask after [`crate::limits::HELD_TRIES`].
    ReadHome { shard: ShardId, again: bool },
    /// Call [`Core::hand_over`](super::core::Core::hand_over) every [`crate::limits::MOVE_STEP`] until it returns None.
    HandOver(ShardId),
    /// Call [`crate::journal::GatewayJournal::leave`] until it succeeds: the shard is handed over.
    Leave(ShardId, Incarnation),
    /// Put the delivery into the outbox of the session with this number. Nothing follows a [`Delivery::Close`].
    Deliver(u64, Delivery),
    /// Log that a turn in a shard is over: the shard has another home, or the gateway was declared dead there.
    Fenced(ShardId, Loss),
    /// Log that verdicts of a room cannot be read.
    Unreadable { room: RoomId, why: String },
}

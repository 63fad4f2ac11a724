//! The gateway as a step function: what happened, and the time, in; actions out. It does no I/O and reads no clock.
//!
//! ```text
//!              open, act, end, close        settled(until)            appended
//!   session ------------------------> pending ------------> flush ------------------> safe
//!              (waiting, before its Open is acknowledged)   one in flight per shard
//!
//!              pushed, page, heads
//!   journal ------------------------> room view (head) ---> session (covered) ------> outbox
//! ```
//!
//! [`super::settle`] has the way in, [`super::deliver`] and [`super::catch_up`] the way out, [`super::leaving`] the end.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;

pub(crate) use super::catch_up::Reading;
use super::catch_up::{Reads, Wait};
use super::deliver::{RoomView, View};
use super::kept::{Kept, Share};
use super::leaving::Leaving;
use super::settle::{PendingEvent, ShardOut};
use crate::journal::{Flush, Seen};
use crate::limits::{Bounds, SESSIONS_PER_ROOM_MAX};
use crate::metrics::Waits;
use crate::types::{
    Action as PlayerAction, Arrival, EventKind, Incarnation, PlayerId, Role, RoomId, SessionId, ShardId, Since, Verdict,
    VerdictKind,
};
use crate::wire::action;
use crate::wire::client::{ErrorCode, Refusal, VerdictFrames, Welcome};

/// Who wants in.
#[derive(Debug, Clone)]
pub struct Joining {
    /// Where.
    pub room: RoomId,
    /// As whom.
    pub player: PlayerId,
    /// What it may do.
    pub role: Role,
    /// What it has seen already.
    pub since: Option<Since>,
}

impl Joining {
    /// A player that joins afresh.
    #[must_use]
    pub fn new(room: RoomId, player: PlayerId) -> Self {
        Self { room, player, role: Role::Player, since: None }
    }
}

/// What a session is to be sent.
#[derive(Debug, Clone)]
pub enum Delivery {
    /// First of all.
    Welcome(Box<Welcome>),
    /// A verdict that it may see.
    Verdict {
        /// The first `seq` that the frame covers, when that is not its own.
        from: Option<u64>,
        /// Encoded once for all sessions.
        frames: Arc<VerdictFrames>,
    },
    /// An action that was not accepted.
    Refused(Box<Refusal>),
    /// Last of all.
    Close {
        /// WebSocket close code.
        code: u16,
        /// One line.
        reason: String,
    },
}

impl Delivery {
    /// The verdict, when it is one.
    #[must_use]
    pub fn verdict(&self) -> Option<&Verdict> {
        if let Self::Verdict { frames, .. } = self { Some(frames.verdict()) } else { None }
    }

    /// When the action arrived that this is the verdict on, if it is one of `session`'s own.
    pub(crate) fn decides_since(&self, session: SessionId) -> Option<u64> {
        let verdict = self.verdict()?;
        let own = verdict.kind == VerdictKind::Data
            && verdict.session == session.number
            && verdict.stamp.incarnation == session.gateway;
        own.then_some(verdict.stamp.moment.ns)
    }
}

/// What the driver is to do.
#[derive(Debug)]
pub(crate) enum Action {
    /// [`crate::journal::GatewayJournal::register`], again until it is answered; answer with [`Core::registered`].
    Register {
        /// Where.
        shard: ShardId,
        /// What an earlier server of the journal had confirmed.
        seen: Seen,
        /// The rooms whose heads are asked for.
        rooms: Vec<RoomId>,
    },
    /// [`crate::journal::GatewayJournal::append`], again until it is answered; answer with [`Core::appended`].
    Append {
        /// What to append.
        flush: Arc<Flush>,
        /// When its events arrived; of those that it is sent again with, the first flush told.
        waits: Waits,
    },
    /// [`crate::journal::GatewayJournal::verdicts`], again until it is answered; answer with [`Core::page`], or with
    /// [`Core::unreadable`] when it is damaged.
    Read {
        /// The room.
        room: RoomId,
        /// Verdicts after this `seq`.
        after: u64,
        /// Batches at most.
        entries_max: usize,
        /// Comes back with the answer.
        reading: Reading,
    },
    /// Answer with [`Core::drained`] as soon as at most `level` deliveries wait in the session's outbox.
    AskOutbox {
        /// Whose.
        session: u64,
        /// Deliveries.
        level: usize,
    },
    /// Answer with [`Core::rested`] after [`crate::limits::CATCH_UP_REST`].
    Rest,
    /// [`crate::journal::GatewayJournal::heads`]; answer with [`Core::heads`].
    ReadHeads(ShardId, Vec<RoomId>),
    /// Put it into the session's outbox. After [`Delivery::Close`] nothing more follows.
    Deliver(u64, Delivery),
    /// [`crate::journal::GatewayJournal::leave`]. No answer needed.
    Leave(ShardId, Incarnation),
    /// This incarnation was fenced, everything that could still be appended was: call [`Core::reborn`].
    Rebirth,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) room: RoomId,
    pub(super) player: PlayerId,
    pub(super) role: Role,
    pub(super) since: Option<Since>,
    /// Its Open is in the journal (rule S7).
    pub(super) opened: bool,
    pub(super) opened_at_ns: u64,
    /// What came before that.
    pub(super) waiting: Vec<(EventKind, Arrival, Share)>,
    pub(super) waiting_actions: usize,
    /// No stamp of it may lie below (rule S2 and rule S7).
    pub(super) floor_ns: u64,
    /// The order of its last event; the next precedes it in neither.
    pub(super) last_order: (u64, u64),
    pub(super) view: View,
    pub(super) wait: Wait,
    /// Deliveries that went into its outbox, and how many of them it is known to have taken out.
    pub(super) sent: u64,
    pub(super) taken: u64,
    /// Whether the outbox was asked for that.
    pub(super) asked: bool,
    /// The last `seq` that it was sent, ranges included.
    pub(super) covered: u64,
    /// Every verdict up to here was looked at for it, whether it may see it or not.
    pub(super) seen: u64,
    /// The room's life that it is in; 0 before its Open is resolved.
    pub(super) era: u64,
    /// The `seq` of its own Open, and the rules' answer to it.
    pub(super) open: Option<(u64, Option<Bytes>)>,
    /// Why it was told to go, and when it counts as gone whether it went or not.
    pub(super) leaving: Option<Leaving>,
}

/// One gateway.
#[derive(Debug)]
pub(crate) struct Core {
    pub(super) incarnation: Incarnation,
    pub(super) timeline: u32,
    pub(super) clock: &'static str,
    pub(super) precision_ns: u64,
    pub(super) bounds: Bounds,
    pub(super) sessions: BTreeMap<u64, Session>,
    pub(super) rooms: HashMap<RoomId, RoomView>,
    pub(super) shards: Vec<ShardOut>,
    /// The sum over `rooms`.
    pub(super) unresolved: usize,
    /// What the journal does not have yet, in bytes.
    pub(super) kept: Kept,
    pub(super) read_count: u64,
    pub(super) reads: Reads,
    pub(super) next_session: u64,
    pub(super) fenced: bool,
    pub(super) draining: bool,
    pub(super) actions: Vec<Action>,
}

impl Core {
    /// A gateway without sessions. `clock` and `precision_ns` are what `welcome` says about its stamps.
    #[must_use]
    pub(crate) fn new(incarnation: Incarnation, timeline: u32, shards: u16, clock: &'static str, precision_ns: u64) -> Self {
        Self {
            incarnation,
            timeline,
            clock,
            precision_ns,
            bounds: Bounds::default(),
            sessions: BTreeMap::new(),
            rooms: HashMap::new(),
            shards: (0..shards).map(|_| ShardOut::default()).collect(),
            unresolved: 0,
            kept: Kept::default(),
            read_count: 0,
            reads: Reads::default(),
            next_session: 0,
            fenced: false,
            draining: false,
            actions: Vec::new(),
        }
    }

    /// The same with other bounds than the usual ones.
    pub(crate) fn bounded(self, bounds: Bounds) -> Self {
        Self { bounds, ..self }
    }

    /// What is to be done, in this order; empties the list.
    pub(crate) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// Whether there is anything to be done.
    #[must_use]
    pub(crate) fn has_actions(&self) -> bool {
        !self.actions.is_empty()
    }

    pub(super) fn act_on(&mut self, action: Action) {
        self.actions.push(action);
    }

    /// This gateway.
    #[must_use]
    pub(crate) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Sessions that are open.
    #[cfg(test)]
    pub(crate) fn session_count(&self) -> usize {
        self.sessions.len()
    }

    pub(super) fn shard_of(&self, room: &RoomId) -> ShardId {
        #[expect(clippy::cast_possible_truncation, reason = "made from a u16")]
        ShardId::of(room, self.shards.len() as u16)
    }

    /// A session joins its room. Its `welcome` follows when the Open was resolved.
    ///
    /// # Errors
    /// A refusal when a bound is reached or the gateway is going down.
    pub(crate) fn open(&mut self, joining: Joining, arrival: Arrival) -> Result<SessionId, Refusal> {
        let refuse = |code, message: String| Err(Refusal { code, id: None, message });
        if self.fenced || self.draining {
            return refuse(ErrorCode::ShuttingDown, "this gateway is going down: connect again".to_owned());
        }
        let sessions_max = self.bounds.sessions_max;
        if self.sessions.len() >= sessions_max {
            return refuse(ErrorCode::Busy, format!("this gateway has {sessions_max} sessions, its limit"));
        }
        let shard = self.shard_of(&joining.room);
        let (kept, out) = (&self.kept, &mut self.shards[usize::from(shard.0)]);
        let view = self.rooms.entry(joining.room.clone()).or_insert_with(|| {
            out.followed.insert(joining.room.clone());
            RoomView::new(shard, kept.within())
        });
        if view.sessions.len() >= SESSIONS_PER_ROOM_MAX {
            return refuse(
                ErrorCode::Busy,
                format!("room {} has {SESSIONS_PER_ROOM_MAX} sessions here, its limit", joining.room),
            );
        }
        self.next_session += 1;
        let number = self.next_session;
        view.join(number, joining.role);
        let open = EventKind::Open { player: joining.player.clone(), role: joining.role };
        let session = Session {
            room: joining.room,
            player: joining.player,
            role: joining.role,
            since: joining.since,
            opened: false,
            opened_at_ns: arrival.ns,
            waiting: Vec::new(),
            waiting_actions: 0,
            floor_ns: 0,
            last_order: (0, 0),
            view: View::Joining,
            wait: Wait::Nothing,
            sent: 0,
            taken: 0,
            asked: false,
            covered: 0,
            seen: 0,
            era: 0,
            open: None,
            leaving: None,
        };
        self.sessions.insert(number, session);
        self.enqueue(number, open, arrival);
        Ok(SessionId { gateway: self.incarnation, number })
    }

    /// A session acts.
    ///
    /// # Errors
    /// A refusal: not a server session but acting for another player, or too much unresolved (`busy`: send it again later).
    pub(crate) fn act(&mut self, number: u64, action: &PlayerAction, arrival: Arrival) -> Result<(), Refusal> {
        let refuse = |code, message: String| Err(Refusal { code, id: Some(action.id.clone()), message });
        let Some(session) = self.sessions.get_mut(&number) else {
            return refuse(ErrorCode::ShuttingDown, "the session is over".to_owned());
        };
        if let Some(player) = &action.player
            && session.role != Role::Server
        {
            return refuse(ErrorCode::Forbidden, format!("\"as\": {player:?} needs a session with the server role"));
        }
        if !session.opened && session.waiting_actions >= self.bounds.waiting_actions_max {
            let waiting = session.waiting_actions;
            return refuse(ErrorCode::Busy, format!("{waiting} actions wait for the welcome already"));
        }
        let kind = EventKind::Data(action::encode(action));
        if let Err(message) = self.admit(number, &kind) {
            return refuse(ErrorCode::Busy, format!("{message}: send it again later"));
        }
        if let Some(session) = self.sessions.get_mut(&number).filter(|session| !session.opened) {
            session.waiting_actions += 1;
        }
        self.enqueue(number, kind, arrival);
        Ok(())
    }

    /// A session says that it is ending.
    pub(crate) fn end(&mut self, number: u64, code: u16, arrival: Arrival) {
        self.enqueue(number, EventKind::End { code }, arrival);
    }

    /// A session broke. The reason is cut to its limit.
    pub(crate) fn error(&mut self, number: u64, reason: &str, arrival: Arrival) {
        let mut end = reason.len().min(crate::limits::REASON_BYTES_MAX);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        self.enqueue(number, EventKind::Error { reason: reason[..end].to_owned() }, arrival);
    }

    /// A session is over. Nothing is delivered to it any more; a second call does nothing.
    pub(crate) fn close(&mut self, number: u64, arrival: Arrival) {
        self.enqueue(number, EventKind::Close, arrival);
        if let Some(session) = self.sessions.get_mut(&number) {
            session.view = View::Closed;
            let room = session.room.clone();
            if session.opened {
                self.sessions.remove(&number);
            }
            if let Some(view) = self.rooms.get_mut(&room) {
                view.leave(number);
            }
            self.let_go(&room);
        }
        self.forget_reads(number);
        self.check_reborn();
    }

    /// Puts an event where it belongs: behind the session's Open while that is not acknowledged, else into its shard.
    pub(super) fn enqueue(&mut self, number: u64, kind: EventKind, arrival: Arrival) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        if matches!(session.view, View::Closed) {
            return;
        }
        let share = self.rooms.get(&session.room).map_or(&self.kept, |view| &view.kept).share(&kind);
        if !session.opened && !matches!(kind, EventKind::Open { .. }) {
            session.waiting.push((kind, arrival, share));
            return;
        }
        self.pend(number, kind, arrival, share);
    }

    pub(super) fn pend(&mut self, number: u64, kind: EventKind, arrival: Arrival, share: Share) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        let shard = ShardId::of(&session.room, u16::try_from(self.shards.len()).unwrap_or(u16::MAX));
        let out = &mut self.shards[usize::from(shard.0)];
        if out.fenced {
            return;
        }
        // Rule W2: nothing at or below a published watermark. Rule S2, rule S7: nothing below the session's floor.
        let arrival = arrival.clamped_to(session.floor_ns.max(session.last_order.0).max(out.first_free_ns()));
        // What it sent before may be moved to the first stamp that is free then, which may be this one's: it stays before it.
        let order = arrival.order();
        let order = (order.0, order.1.max(session.last_order.1));
        session.last_order = order;
        self.read_count += 1;
        let event = PendingEvent {
            order: (order.0, order.1, self.read_count),
            room: session.room.clone(),
            session: number,
            arrival,
            kind,
            share,
        };
        // Where nobody follows the room any more, no verdict would take it off again.
        if let Some(view) = self.rooms.get_mut(&session.room) {
            view.unresolved += 1;
            self.unresolved += 1;
        }
        if out.pend(event) {
            self.register(shard);
        }
    }
}

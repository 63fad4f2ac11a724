//! The gateway as a step function: what sessions do and every other [`Input`] go in, [`Command`]s come out. It does no I/O and
//! reads no clock.
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
//! Its values are in [`super::step`] and [`super::state`]. [`super::settle`] is the way in, [`super::deliver`] and
//! [`super::catch_up`] are the way out, [`super::moves`] and [`super::leaving`] are the end.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::backlog::{Backlog, Share};
use super::reads::Reads;
use super::state::{PendingEvent, RoomView, Session, ShardOut, View, shard_of};
use super::step::{Command, Input, Joining};
use crate::limits::{Bounds, REASON_BYTES_MAX, SESSIONS_PER_ROOM_MAX};
use crate::types::{Action, Arrival, EventKind, HostId, Incarnation, Role, RoomId, SessionId, ShardId};
use crate::wire::action;
use crate::wire::client::{ErrorCode, Refusal};

/// One gateway.
#[derive(Debug)]
pub(crate) struct Core {
    pub(super) incarnation: Incarnation,
    pub(super) clock: &'static str,
    pub(super) precision_ns: u64,
    pub(super) bounds: Bounds,
    pub(super) sessions: BTreeMap<u64, Session>,
    pub(super) rooms: HashMap<RoomId, RoomView>,
    pub(super) shards: Vec<ShardOut>,
    /// The sum over all `rooms`.
    pub(super) unresolved: usize,
    pub(super) backlog: Backlog,
    /// How many events were read: the order of reading.
    pub(super) read_count: u64,
    pub(super) reads: Reads,
    pub(super) next_session: u64,
    /// The last shard that it was looked at whether anything was missed in it.
    pub(super) checked: ShardId,
    /// Whether all shards are looked at next time: whoever was declared dead in one may be so in others.
    pub(super) check_all: bool,
    /// The last turn that was begun, in any shard.
    pub(super) turns: u32,
    pub(super) draining: bool,
    /// This gateway's host; None if every home counts as its own.
    pub(super) here: Option<HostId>,
    /// The hosts with a gateway that takes sessions, and their URLs.
    pub(super) hosts: BTreeMap<HostId, String>,
    /// The shards whose server is silent, so that other hosts may have their rooms.
    pub(super) cut_off: BTreeSet<ShardId>,
    /// The latest time that was told.
    pub(super) now_ns: u64,
    pub(super) commands: Vec<Command>,
}

impl Core {
    /// Creates a gateway without sessions. Its `welcome` names `clock` and `precision_ns`.
    #[must_use]
    pub(crate) fn new(incarnation: Incarnation, shards: u16, clock: &'static str, precision_ns: u64) -> Self {
        Self {
            incarnation,
            clock,
            precision_ns,
            bounds: Bounds::default(),
            sessions: BTreeMap::new(),
            rooms: HashMap::new(),
            shards: (0..shards).map(|_| ShardOut { turn: incarnation, ..ShardOut::default() }).collect(),
            unresolved: 0,
            backlog: Backlog::default(),
            read_count: 0,
            reads: Reads::default(),
            next_session: 0,
            checked: ShardId(0),
            check_all: false,
            turns: 0,
            draining: false,
            here: None,
            hosts: BTreeMap::new(),
            cut_off: BTreeSet::new(),
            now_ns: 0,
            commands: Vec::new(),
        }
    }

    /// Replaces the default bounds.
    pub(crate) fn bounded(self, bounds: Bounds) -> Self {
        Self { bounds, ..self }
    }

    /// It is this late now.
    pub(crate) fn now(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
    }

    /// Takes what happened outside the sessions.
    pub(crate) fn apply(&mut self, input: Input) {
        match input {
            Input::Tick(now_ns) => self.tick(now_ns),
            Input::CheckHeads => {
                let shards = self.next_to_check();
                self.check_heads(&shards);
            }
            Input::Subscribed => self.check_heads(&self.all_shards()),
            Input::Push(push) => self.pushed(push),
            Input::Registered(shard, gateway, answer) => self.registered(shard, gateway, &answer),
            Input::Appended { flush, answer, repeated, now_ns } => self.appended(&flush, &answer, repeated, now_ns),
            Input::Page { read, page } => self.page(&read, &page),
            Input::Unreadable { read, why } => self.unreadable(&read, why),
            Input::Heads(shard, server, heads) => self.heads(shard, server, &heads),
            Input::Home(shard, home, now_ns) => self.homed(shard, home, now_ns),
            Input::OutboxDrained { session, taken } => self.outbox_drained(session, taken),
            Input::Rested(waited) => self.rested(waited),
        }
    }

    /// Takes all commands, in the order in which the driver must carry them out.
    pub(crate) fn take_commands(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.commands)
    }

    /// Whether any command waits.
    #[must_use]
    pub(crate) fn has_commands(&self) -> bool {
        !self.commands.is_empty()
    }

    pub(super) fn issue(&mut self, command: Command) {
        self.commands.push(command);
    }

    /// The identity of this gateway's process.
    #[cfg(test)]
    pub(crate) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The number of sessions.
    pub(crate) fn session_count(&self) -> usize {
        self.sessions.len()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining
    }

    /// A session joins its room. Its `welcome` follows once the Open is resolved.
    /// Refused when a bound is reached or the gateway is stopping.
    pub(crate) fn open(&mut self, joining: Joining, arrival: Arrival) -> Result<SessionId, Refusal> {
        let refuse = |code, message: String| Err(Refusal { code, id: None, message });
        if self.draining {
            return refuse(ErrorCode::ShuttingDown, "this gateway is stopping: connect again".to_owned());
        }
        let sessions_max = self.bounds.sessions_max;
        if self.sessions.len() >= sessions_max {
            return refuse(ErrorCode::Busy, format!("this gateway has {sessions_max} sessions, its limit"));
        }
        self.now(arrival.ns);
        if let Some(told) = self.turned_away(&joining.room, self.now_ns) {
            return Ok(self.turn_away(joining, arrival, told));
        }
        let shard = shard_of(&self.shards, &joining.room);
        let (backlog, out) = (&self.backlog, &mut self.shards[usize::from(shard.0)]);
        let view = self.rooms.entry(joining.room.clone()).or_insert_with(|| {
            out.followed.insert(joining.room.clone());
            RoomView::new(shard, backlog.within())
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
        let turn = out.turn;
        let session = Session::new(joining, turn, arrival.ns);
        self.sessions.insert(number, session);
        self.enqueue(number, open, arrival);
        Ok(SessionId { gateway: turn, number })
    }

    /// The gateway's turn in a shard.
    pub(crate) fn turn_in(&self, shard: ShardId) -> Incarnation {
        self.shards.get(usize::from(shard.0)).map_or(self.incarnation, |out| out.turn)
    }

    /// The number of the home of a room's shard, as far as this gateway knows it; 0 if it does not.
    #[cfg(test)]
    pub(crate) fn home_of(&self, room: &RoomId) -> u32 {
        self.shards[usize::from(shard_of(&self.shards, room).0)].home.unwrap_or(0)
    }

    /// A session as verdicts name it.
    pub(crate) fn session_id(&self, number: u64) -> SessionId {
        SessionId { gateway: self.sessions.get(&number).map_or(self.incarnation, |session| session.turn), number }
    }

    /// Whether the turn that a session joined under is over: nothing of it can leave any more.
    fn is_lost(&self, session: &Session) -> bool {
        self.turn_in(shard_of(&self.shards, &session.room)) != session.turn
    }

    /// A session acts.
    /// Refused when a player's session acts for another player, or too much is unresolved (`busy`: send it again later).
    pub(crate) fn act(&mut self, number: u64, action: &Action, arrival: Arrival) -> Result<(), Refusal> {
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
        if let Some(session) = self.sessions.get_mut(&number) {
            session.unanswered += 1;
            session.waiting_actions += usize::from(!session.opened);
        }
        self.enqueue(number, kind, arrival);
        Ok(())
    }

    /// A session announces its end.
    pub(crate) fn end(&mut self, number: u64, code: u16, arrival: Arrival) {
        self.enqueue(number, EventKind::End { code }, arrival);
    }

    /// A session broke. A long reason is cut to [`REASON_BYTES_MAX`].
    pub(crate) fn error(&mut self, number: u64, reason: &str, arrival: Arrival) {
        let mut end = reason.len().min(REASON_BYTES_MAX);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        self.enqueue(number, EventKind::Error { reason: reason[..end].to_owned() }, arrival);
    }

    /// A session has ended. It is sent nothing more. A second call does nothing.
    pub(crate) fn close(&mut self, number: u64, arrival: Arrival) {
        self.enqueue(number, EventKind::Close, arrival);
        let lost = self.sessions.get(&number).is_some_and(|session| self.is_lost(session));
        if let Some(session) = self.sessions.get_mut(&number) {
            session.view = View::Closed;
            let room = session.room.clone();
            if session.opened || lost {
                self.sessions.remove(&number);
            }
            if let Some(view) = self.rooms.get_mut(&room) {
                view.leave(number);
            }
            self.let_go(&room);
            self.let_go_of(shard_of(&self.shards, &room));
        }
        self.forget_reads(number);
    }

    /// Adds an event to its shard, or to the session's waiting events while the journal does not have the session's Open.
    pub(super) fn enqueue(&mut self, number: u64, kind: EventKind, arrival: Arrival) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        if matches!(session.view, View::Closed) {
            return;
        }
        let share = self.rooms.get(&session.room).map_or(&self.backlog, |view| &view.backlog).share(&kind);
        if !session.opened && !matches!(kind, EventKind::Open { .. }) {
            session.waiting.push((kind, arrival, share));
            return;
        }
        self.pend(number, kind, arrival, share);
    }

    pub(super) fn pend(&mut self, number: u64, kind: EventKind, arrival: Arrival, share: Share) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        let shard = shard_of(&self.shards, &session.room);
        let out = &mut self.shards[usize::from(shard.0)];
        if out.turn != session.turn {
            return;
        }
        // Rule W2: nothing at or below a published watermark. Rule S2, rule S7: nothing below the session's floor.
        let arrival = arrival.clamped_to(session.floor_ns.max(session.last_order.0).max(out.first_free_ns()));
        // The session's earlier events may have been moved up to this event's stamp. They stay before it.
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
        // In a room that is no longer followed, no verdict would come to count the event as resolved.
        if let Some(view) = self.rooms.get_mut(&session.room) {
            view.unresolved += 1;
            self.unresolved += 1;
        }
        if out.pend(event) {
            self.seek(shard);
        }
    }
}

#[cfg(test)]
mod tests;

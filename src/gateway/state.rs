//! What a gateway knows of its sessions, its rooms and its shards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::backlog::{Backlog, Share};
use super::homes::{Handing, Known};
use super::reads::Wait;
use super::step::Joining;
use crate::journal::{Flush, Seen};
use crate::types::{Arrival, EventKind, Incarnation, Moment, PlayerId, Role, RoomId, ShardId, Since};

/// A session as the core knows it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) room: RoomId,
    /// The gateway's turn in the room's shard, as it was when the session opened.
    pub(super) turn: Incarnation,
    pub(super) player: PlayerId,
    pub(super) role: Role,
    pub(super) since: Option<Since>,
    /// Whether the journal has its Open (rule S7).
    pub(super) opened: bool,
    pub(super) opened_at_ns: u64,
    /// Events that wait until the journal has the Open.
    pub(super) waiting: Vec<(EventKind, Arrival, Share)>,
    /// How many of them are actions.
    pub(super) waiting_actions: usize,
    /// The lowest stamp that its next event may get (rule S2 and rule S7).
    pub(super) floor_ns: u64,
    /// Stamp and raw stamp of its last event. The next event is below it in neither.
    pub(super) last_order: (u64, u64),
    pub(super) view: View,
    pub(super) wait: Wait,
    /// Whether it has its place in the line for pages.
    pub(super) in_line: bool,
    /// Deliveries that the core put into its outbox.
    pub(super) sent: u64,
    /// Deliveries that it took out of its outbox, as far as the core knows.
    pub(super) taken: u64,
    /// Whether an answer to [`Command::AskOutbox`](super::step::Command::AskOutbox) is awaited.
    pub(super) asked: bool,
    /// The last `seq` that a frame to it covered.
    pub(super) covered: u64,
    /// The last `seq` that was considered for it, visible or not.
    pub(super) seen: u64,
    /// The era of the room that it joined; 0 until its Open is resolved.
    pub(super) era: u64,
    /// The `seq` of its own Open, and the rules' answer to it.
    pub(super) open: Option<(u64, Option<Bytes>)>,
    /// Its actions in the journal, or on their way there, that are not decided yet.
    pub(super) unanswered: usize,
    /// When it was last asked to move; 0 if never.
    pub(super) asked_to_move_ns: u64,
    /// Set once the session is dismissed.
    pub(super) leaving: Option<Leaving>,
}

impl Session {
    /// One that joins, under a turn of its room's shard, at `opened_at_ns`.
    pub(super) fn new(joining: Joining, turn: Incarnation, opened_at_ns: u64) -> Self {
        Self {
            room: joining.room,
            turn,
            player: joining.player,
            role: joining.role,
            since: joining.since,
            opened: false,
            opened_at_ns,
            waiting: Vec::new(),
            waiting_actions: 0,
            floor_ns: 0,
            last_order: (0, 0),
            view: View::Joining,
            wait: Wait::Nothing,
            in_line: false,
            sent: 0,
            taken: 0,
            asked: false,
            covered: 0,
            seen: 0,
            era: 0,
            open: None,
            unanswered: 0,
            asked_to_move_ns: 0,
            leaving: None,
        }
    }

    /// The most deliveries that can be in its outbox now.
    pub(super) fn queued(&self) -> usize {
        usize::try_from(self.sent - self.taken).unwrap_or(usize::MAX)
    }

    /// Whether it was sent its welcome, and was not dismissed.
    pub(super) fn is_inside(&self) -> bool {
        self.since.is_none() && matches!(self.view, View::Live | View::CatchingUp { .. })
    }

    /// Whether it is live and still needs the room's verdict `seq`.
    pub(super) fn follows(&self, seq: u64) -> bool {
        self.view == View::Live && self.seen < seq && self.covered < seq
    }
}

/// How a session follows its room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    /// Its Open is not resolved yet.
    Joining,
    /// It reads the verdict stream after `read_to`, because it resumes, repeated an action, or had a full outbox.
    CatchingUp { read_to: u64 },
    /// It gets each verdict as the room gets it.
    Live,
    /// It was dismissed. It is sent nothing more.
    Leaving,
    /// It has ended.
    Closed,
}

/// A dismissed session's close code and deadline.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leaving {
    pub(super) code: u16,
    /// When the core ends the session itself. The first tick sets it.
    pub(super) by_ns: Option<u64>,
}

/// A room as this gateway follows it.
#[derive(Debug)]
pub(super) struct RoomView {
    pub(super) shard: ShardId,
    pub(super) era: u64,
    /// The last `seq` that was delivered; None until the journal has said where the room stands.
    pub(super) head: Option<u64>,
    /// The highest `seq` that any push or head has named.
    pub(super) heard: u64,
    /// Whether a gap is being read.
    pub(super) filling: bool,
    pub(super) sessions: Vec<u64>,
    /// Those of its sessions that have the server role.
    pub(super) servers: Vec<u64>,
    /// Whether its sessions were dismissed and no verdict has come since.
    pub(super) at_rest: bool,
    /// This gateway's events in the room that have no verdict yet.
    pub(super) unresolved: usize,
    pub(super) backlog: Backlog,
}

impl RoomView {
    pub(super) fn new(shard: ShardId, backlog: Backlog) -> Self {
        let (sessions, servers) = (Vec::new(), Vec::new());
        Self { shard, era: 0, head: None, heard: 0, filling: false, sessions, servers, at_rest: false, unresolved: 0, backlog }
    }

    pub(super) fn join(&mut self, session: u64, role: Role) {
        self.sessions.push(session);
        if role == Role::Server {
            self.servers.push(session);
        }
    }

    pub(super) fn leave(&mut self, session: u64) {
        self.sessions.retain(|s| *s != session);
        self.servers.retain(|s| *s != session);
    }
}

/// An event that the gateway has read and not yet put into a flush.
#[derive(Debug)]
pub(super) struct PendingEvent {
    /// Stamp, raw stamp and reading order. Ordinals are given in this order.
    pub(super) order: (u64, u64, u64),
    pub(super) room: RoomId,
    pub(super) session: u64,
    pub(super) arrival: Arrival,
    pub(super) kind: EventKind,
    pub(super) share: Share,
}

/// Whether the journal knows this gateway in a shard.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Registration {
    #[default]
    Unknown,
    Asked,
    Done,
}

/// One shard as this gateway writes to it.
#[derive(Debug, Default)]
pub(super) struct ShardOut {
    /// Who the gateway is here: a fence ends a turn, and the next one begins.
    pub(super) turn: Incarnation,
    pub(super) registration: Registration,
    /// The number of the shard's home, while that is here: the first part of the stamps.
    pub(super) home: Option<u32>,
    /// What was last said of its home, while that is not here.
    pub(super) known: Option<Known>,
    /// Whether a read of that is in flight.
    pub(super) reading_home: bool,
    /// Set while the shard is handed over to another host.
    pub(super) handing: Option<Handing>,
    /// The journal's server that the gateway is registered with.
    pub(super) server: Incarnation,
    /// The highest commit that this server has named.
    pub(super) commit: u64,
    /// Whether the registration was withdrawn, because the gateway stops.
    pub(super) left: bool,
    /// The rooms of this shard that the gateway follows.
    pub(super) followed: BTreeSet<RoomId>,
    /// The number of the last flush.
    pub(super) number: u64,
    /// The watermark of the last flush.
    pub(super) watermark: Moment,
    /// The last ordinal that was given.
    pub(super) ordinal: u64,
    pub(super) pending: Vec<PendingEvent>,
    pub(super) in_flight: Option<Arc<Flush>>,
    /// The backlog shares of the events in flight.
    pub(super) shares_in_flight: Vec<Share>,
    /// Whether the flush in flight was also sent to an earlier server.
    pub(super) resent: bool,
    /// Sessions whose Open is in the flush in flight.
    pub(super) opening: Vec<u64>,
    /// Closes that a damaged room has not been told yet.
    pub(super) owed_closes: BTreeMap<RoomId, BTreeSet<u64>>,
    /// The highest watermark that was asked for.
    pub(super) probed: Moment,
    /// The lowest one that was asked for and not answered. Those who ask on and on do not put it off.
    pub(super) asked: Moment,
}

/// The shard of a room, among all `shards` of the journal.
pub(super) fn shard_of(shards: &[ShardOut], room: &RoomId) -> ShardId {
    #[expect(clippy::cast_possible_truncation, reason = "made from a u16")]
    ShardId::of(room, shards.len() as u16)
}

impl ShardOut {
    /// Adds an event. Returns true when the gateway must register in the shard first.
    pub(super) fn pend(&mut self, event: PendingEvent) -> bool {
        self.pending.push(event);
        self.registration == Registration::Unknown
    }

    /// Somebody waits for a watermark of at least `until`.
    pub(super) fn ask(&mut self, until: Moment) {
        if self.probed <= self.watermark {
            self.asked = until;
        }
        self.probed = self.probed.max(until);
    }

    /// Whether a registration is in flight.
    pub(super) fn is_registering(&self) -> bool {
        self.registration == Registration::Asked && !self.left
    }

    /// Whether the journal knows this gateway.
    pub(super) fn is_registered(&self) -> bool {
        self.registration == Registration::Done && !self.left
    }

    /// What the journal has confirmed to this gateway.
    pub(super) fn seen(&self) -> Seen {
        let flush = self.number - u64::from(self.in_flight.is_some());
        Seen { server: self.server, flush, commit: self.commit, home: self.home.unwrap_or(0) }
    }

    /// The lowest stamp above the last watermark.
    pub(super) fn first_free_ns(&self) -> u64 {
        if self.number == 0 { 0 } else { self.watermark.ns.saturating_add(1) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.in_flight.is_none()
    }

    /// Whether a settled moment would let a flush leave.
    pub(super) fn wants_settling(&self) -> bool {
        let ready = self.is_registered() && self.in_flight.is_none();
        ready && (!self.pending.is_empty() || self.probed > self.watermark)
    }
}

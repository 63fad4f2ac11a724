//! One room in a worker: what the worker has read of it, holds, and has resolved. Only the lane changes its state.
//!
//! ```text
//!              last page             job is done           deserted
//!   new --> Loading ------> Restoring ---------> Live ------------> Ending --> ended: removed
//!            ^ ^ ^             | |               | ^                 | |
//!            | | |             | `- no room:     | `-----------------' |
//!            | | `-------------'    removed      |      not ended      |
//!            | |  no room, but a bell rang       |                     |
//!            | `---------------------------------|---------------------'
//!            |      ended, but a bell rang       |
//!            |                                   | the rules panic, or take too long
//!            |  its last commit is final         v
//!            +-------------------------------- Failed
//!            |  the time is over
//!            `-------------- Quarantined <---- any state: the stored room is damaged
//!
//!   Live:      something is proven         permit           job is done
//!         Idle ------------------> Queued ---------> Busy -------------> Resolved
//!         ^ ^ ^                     |  |              ^                     |
//!         | | `---------------------'  | a suspect    | it is counted       |
//!         | |   nothing is any more    v              |                     |
//!         | `----------------------- Attempting ------'                     |
//!         `--------- the last part of the result leaves with a commit ------'
//! ```
//!
//! A lane that begins anew, in `Loading` or `Quarantined`, has a new token: answers to steps and jobs of before are discarded.
//! While a `Live` lane is `reading`, the journal has entries that it has not read. Bells wait behind them; nothing is released.

mod committing;
mod failing;
mod reading;
mod snapshots;
mod unread;

use std::collections::{BTreeMap, VecDeque};

pub(super) use self::committing::Departure;
pub(super) use self::reading::{Paged, Restored};
use self::snapshots::Snapshots;
use self::unread::Unread;
use super::job::{LaneId, Resolved, Resolving};
use super::step::WorkerLimits;
use crate::engine::{Held, HostClock, Resequencer, Room};
use crate::journal::Gathering;
use crate::rules::{Crew, Fault, Keep};
use crate::types::{Entry, Incarnation, Moment, Stamp, StreamId};

/// What a lane is doing.
#[derive(Debug)]
enum State {
    /// The worker reads the stored room, page by page.
    Loading { pages: Box<Gathering>, unread: Unread },
    /// A job restores the room from those pages.
    Restoring { unread: Unread },
    /// The room is in memory: here, or in a job.
    Live { turn: Turn, reading: Option<Unread> },
    /// The room's state is lost. It is loaded again once the lane's last commit is final.
    Failed,
    /// The room is empty, and the journal is asked to end it.
    Ending { room: Box<Room>, unread: Unread },
    /// The stored room cannot be continued. It is loaded again after a while; never, if this worker has no rules for it.
    Quarantined { until_ns: u64 },
}

impl State {
    fn loading() -> Self {
        Self::Loading { pages: Box::default(), unread: Unread::default() }
    }
}

/// Where a live lane's room is.
#[derive(Debug)]
enum Turn {
    /// There is nothing to resolve.
    Idle(Box<Room>),
    /// The lane waits for a permit; a suspect waits for its trial.
    Queued(Box<Room>),
    /// The lane is a suspect, and the journal counts its attempt.
    Attempting(Box<Room>),
    /// A job has the room.
    Busy,
    /// The result waits for commits, each of which takes one part. The cursor moves to `cursor` with the last part.
    Resolved { room: Box<Room>, parts: VecDeque<Resolved>, cursor: StreamId, resolved_ns: u64 },
}

impl Turn {
    fn idle(room: Box<Room>) -> Self {
        Self::Idle(room)
    }

    fn room(&self) -> Option<&Room> {
        match self {
            Self::Idle(room) | Self::Queued(room) | Self::Attempting(room) | Self::Resolved { room, .. } => Some(room),
            Self::Busy => None,
        }
    }
}

/// How carefully a lane resolves, until its cursor reaches a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caution {
    None,
    /// The last owner died with these events unresolved: they are resolved on a thread that the watchdog watches.
    Watched(StreamId),
    /// One of these events may have killed or hung a worker. They are resolved one at a time, with no other suspect beside them,
    /// and the journal counts each attempt first.
    Suspect(StreamId),
}

#[derive(Debug)]
pub(super) struct Lane {
    token: u64,
    /// Whose permits its jobs need.
    pub(super) crew: Crew,
    state: State,
    hold: Resequencer,
    /// How far the room's stream was read.
    position: StreamId,
    /// How far the room's stream was committed.
    cursor: StreamId,
    /// Whether the commit in flight has a part of this lane.
    committing: bool,
    /// Whether the lane is in the queue for the next commit.
    to_commit: bool,
    caution: Caution,
    /// How often in a row the room could not be continued.
    failures: u32,
    /// Events on which the rules failed, and what they did. Their verdicts are void.
    poisoned: BTreeMap<Stamp, String>,
    /// Why a program outside did not decide the last time.
    fault: Option<Fault>,
    /// How much of the room's past the journal keeps.
    keep: Keep,
    /// Gateways whose death was written to this room, with the last ordinal read from them by then. If more is read, that death
    /// came too early and counts as a duplicate: another one is written.
    deaths: BTreeMap<Incarnation, u64>,
    snapshots: Snapshots,
    /// The gateways inside, as the journal was last told. None if unknown.
    told_inside: Option<Vec<Incarnation>>,
    /// When the next timer is due, in milliseconds of room time, as the journal was last told.
    told_due: Option<u64>,
    /// When this lane is to be looked at because of a timer: a moment of this host's clock.
    due_ns: Option<u64>,
    /// Since when nobody and nothing keeps the room. Repeating timers do not.
    empty_since_ns: Option<u64>,
    /// The room's stream was read to a tail that was observed after this moment.
    tail: Option<Moment>,
    /// When the read was asked for that is to move the tail.
    looking_since: Option<Moment>,
}

impl Lane {
    /// A lane whose room is to be loaded. No other lane of this worker has the same `token`.
    pub(super) fn loading(token: u64, crew: Crew) -> Self {
        Self::new(token, crew, State::loading())
    }

    /// The same lane, whose room keeps so much of its past.
    pub(super) fn keeping(self, keep: Keep) -> Self {
        Self { keep, ..self }
    }

    /// A lane for a room that this worker has no rules for, and never will.
    pub(super) fn without_rules(token: u64) -> Self {
        Self::new(token, Crew::default(), State::Quarantined { until_ns: u64::MAX })
    }

    fn new(token: u64, crew: Crew, state: State) -> Self {
        Self {
            token,
            crew,
            state,
            hold: Resequencer::default(),
            position: StreamId::default(),
            cursor: StreamId::default(),
            committing: false,
            to_commit: false,
            caution: Caution::None,
            failures: 0,
            poisoned: BTreeMap::new(),
            fault: None,
            keep: Keep::default(),
            deaths: BTreeMap::new(),
            snapshots: Snapshots::default(),
            told_inside: None,
            told_due: None,
            due_ns: None,
            empty_since_ns: None,
            tail: None,
            looking_since: None,
        }
    }

    /// Begins anew. The lane keeps only what the journal does not know.
    fn renew(&mut self, token: u64, state: State) {
        let (failures, poisoned) = (self.failures, std::mem::take(&mut self.poisoned));
        let caution = if self.is_suspect() { self.caution } else { Caution::None };
        let (fault, keep) = (self.fault.take(), self.keep);
        let due_ns = self.due_ns;
        *self = Self { failures, poisoned, caution, fault, keep, due_ns, ..Self::new(token, self.crew, state) };
    }

    /// Identifies this lane among all that the room had: results of an earlier lane are discarded.
    pub(super) fn token(&self) -> u64 {
        self.token
    }

    /// Whether its next event must be resolved alone.
    pub(super) fn is_suspect(&self) -> bool {
        matches!(self.caution, Caution::Suspect(_))
    }

    pub(super) fn is_quarantined(&self) -> bool {
        matches!(self.state, State::Quarantined { .. })
    }

    /// Whether a job resolves some of its events.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self.state, State::Live { turn: Turn::Busy, .. })
    }

    fn is_failed(&self) -> bool {
        matches!(self.state, State::Failed)
    }

    /// Whether the room is in memory and everything that watermarks vouch for was read. Otherwise nothing may be released.
    pub(super) fn may_advance(&self) -> bool {
        matches!(self.state, State::Live { reading: None, .. })
    }

    /// The gateways with sessions inside.
    pub(super) fn gateways(&self) -> impl Iterator<Item = Incarnation> + '_ {
        self.hold.gateways()
    }

    /// The gateways whose watermarks it waits for, and up to which moment.
    pub(super) fn waits_for(
        &self,
        fire: Option<Moment>,
        watermark_of: impl Fn(Incarnation) -> Moment,
    ) -> Vec<(Incarnation, Moment)> {
        if self.may_advance() { self.hold.waits_for(fire, watermark_of) } else { Vec::new() }
    }

    /// The deaths of fenced gateways to write now. A gateway's death is written again only if more of its events were read since.
    pub(super) fn deaths(&mut self, is_fenced: impl Fn(Incarnation) -> bool, now: Moment) -> Vec<(Incarnation, Entry)> {
        let dead: Vec<Incarnation> = self.hold.gateways().filter(|gateway| is_fenced(*gateway)).collect();
        let death = |gateway: Incarnation| {
            let (last, _) = self.hold.last_read(gateway)?;
            if self.deaths.get(&gateway) == Some(&last) {
                return None;
            }
            let entry = self.hold.death_entry(gateway, now)?;
            self.deaths.insert(gateway, last);
            Some((gateway, entry))
        };
        dead.into_iter().filter_map(death).collect()
    }

    /// The journal has forgotten this gateway.
    pub(super) fn forget(&mut self, gateway: Incarnation) {
        self.deaths.remove(&gateway);
    }

    /// Where the next timer fires, if the room is here.
    pub(super) fn next_fire(&self, clock: HostClock) -> Option<Moment> {
        if let State::Live { turn, .. } = &self.state { turn.room()?.next_fire(clock) } else { None }
    }

    /// The earliest moment that the next timer may be said to be of, if the room is here.
    fn next_moment(&self, clock: HostClock) -> Option<Moment> {
        if let State::Live { turn, .. } = &self.state { turn.room()?.next_moment(clock) } else { None }
    }

    /// Where the next timer fires, if it is due.
    pub(super) fn due_fire(&self, clock: HostClock, now_ns: u64) -> Option<Moment> {
        self.next_fire(clock).filter(|place| *place <= Moment { timeline: clock.timeline, ns: now_ns })
    }

    /// Up to which moment timers may fire (rule T2): all gateways inside have promised it, or, if nobody is inside, the room was
    /// read to a tail that was observed after it. Never past an event that is held.
    fn fires_until(&self, watermark_of: impl Fn(Incarnation) -> Moment) -> Option<Moment> {
        fires_until(&self.hold, self.tail, watermark_of)
    }

    /// Moves the lane's place among the shard's due lanes. Returns the place before.
    pub(super) fn move_due(&mut self, due_ns: Option<u64>) -> Option<u64> {
        std::mem::replace(&mut self.due_ns, due_ns)
    }

    /// A timer is due while nobody is inside: asks for the room's tail, unless that is under way. Returns the position to read from.
    pub(super) fn look_for_tail(&mut self, place: Moment, now: Moment) -> Option<StreamId> {
        if self.hold.gateways().next().is_some() || !self.hold.is_empty() || self.tail.is_some_and(|tail| tail >= place) {
            return None;
        }
        let State::Live { reading: reading @ None, .. } = &mut self.state else { return None };
        *reading = Some(Unread::default());
        self.looking_since = Some(now);
        Some(self.position)
    }

    /// Idle -> Queued, if the first held event is proven, or a timer may fire. Returns whether it is.
    pub(super) fn enqueue(&mut self, clock: HostClock, watermark_of: impl Fn(Incarnation) -> Moment + Copy) -> bool {
        let fires = self.next_fire(clock).is_some_and(|place| self.fires_until(watermark_of).is_some_and(|until| place <= until));
        let State::Live { turn: turn @ Turn::Idle(_), reading: None } = &mut self.state else { return false };
        if !fires && !self.hold.releasable(watermark_of) {
            return false;
        }
        if let Turn::Idle(room) = std::mem::replace(turn, Turn::Busy) {
            *turn = Turn::Queued(room);
        }
        true
    }

    /// Queued -> Busy with the next batch: the lane has a permit. Or Attempting -> Busy with the next event `alone`: its attempt is
    /// counted. To Idle if nothing is proven any more.
    pub(super) fn start(
        &mut self,
        alone: bool,
        of: LaneId,
        releasing: bool,
        limits: &WorkerLimits,
        now: (HostClock, u64),
        watermark_of: impl Fn(Incarnation) -> Moment + Copy,
    ) -> Option<Resolving> {
        let (suspect, bounds, (clock, now_ns)) = (self.is_suspect(), &limits.bounds, now);
        self.hold.note_fire(self.next_moment(clock));
        let unproven = self.hold.unproven().to_vec();
        let State::Live { turn, reading } = &mut self.state else { return None };
        let mut room = match (std::mem::replace(turn, Turn::Busy), alone) {
            (Turn::Queued(room), false) if !suspect => room,
            (Turn::Attempting(room), true) => room,
            (other, _) => {
                *turn = other;
                return None;
            }
        };
        // Whoever has not heard of the last push yet leaves the room as it is (rule P2).
        let push = limits.rules.push_of(&of.room);
        let change = if push > room.push() { limits.rules.rules_for(&of.room).map(|rules| (push, rules)) } else { None };
        let changes_alone = alone && change.is_some();
        let (events, until, fires_max) = match (reading.is_some() || releasing, alone) {
            (true, _) => (Vec::new(), None, 0),
            (false, true) if changes_alone => (Vec::new(), None, 0),
            (false, true) => {
                // A timer fires before an event with the same stamp, also if nobody is inside any more.
                let until = fires_until(&self.hold, self.tail, watermark_of);
                let event = self.hold.first_held().filter(|_| self.hold.releasable(watermark_of));
                match until.max(event).filter(|until| room.next_fire_by(clock, *until).is_some()) {
                    Some(until) => (Vec::new(), Some(until), 1),
                    None => (self.hold.release_one(watermark_of), None, 0),
                }
            }
            (false, false) => {
                let events = self.hold.release(bounds.resolve_events_max, watermark_of);
                (events, fires_until(&self.hold, self.tail, watermark_of), bounds.resolve_events_max)
            }
        };
        if !(changes_alone && reading.is_none() && !releasing)
            && events.is_empty()
            && until.is_none_or(|until| room.next_fire_by(clock, until).is_none())
        {
            *turn = Turn::idle(room);
            return None;
        }
        // A suspect's rules are asked for a decision only.
        let snapshot = !alone && self.snapshots.is_due(room.seq() + events.len() as u64, bounds);
        if snapshot {
            // Deaths that are read later lie behind this snapshot's cursor.
            room.note_unproven(self.hold.unproven());
        }
        let watched = alone || self.caution != Caution::None || snapshot && self.snapshots.is_slow();
        let (poisoned, bytes_max) = (self.poisoned.clone(), bounds.commit_bytes_max);
        Some(Resolving {
            of,
            room,
            change,
            events,
            clock,
            now_ns,
            until,
            fires_max,
            unproven,
            poisoned,
            snapshot,
            bytes_max,
            watched,
        })
    }

    /// Queued -> Attempting; returns the lane's token. Or Queued -> Idle if it cannot go on now.
    pub(super) fn attempt(&mut self, releasing: bool) -> Option<u64> {
        let State::Live { turn: turn @ Turn::Queued(_), reading } = &mut self.state else { return None };
        let Turn::Queued(room) = std::mem::replace(turn, Turn::Busy) else { return None };
        let goes_on = reading.is_none() && !releasing;
        *turn = if goes_on { Turn::Attempting(room) } else { Turn::idle(room) };
        goes_on.then_some(self.token)
    }

    /// Whether an event of the lane with this token is being resolved or committed. Until its verdict is final, the death of the
    /// worker counts against this room.
    pub(super) fn is_on_trial(&self, token: u64) -> bool {
        let turn = match &self.state {
            State::Live { turn, .. } => !matches!(turn, Turn::Idle(_) | Turn::Queued(_)),
            _ => false,
        };
        self.token == token && (turn || self.committing)
    }

    /// Busy -> Resolved. Returns false if the lane does not wait for a result.
    pub(super) fn resolved(&mut self, room: Box<Room>, parts: VecDeque<Resolved>, rest: Vec<Held>, now_ns: u64) -> bool {
        let State::Live { turn: turn @ Turn::Busy, .. } = &mut self.state else { return false };
        self.hold.take_back(rest);
        if parts.is_empty() {
            *turn = Turn::idle(room);
            return false;
        }
        let cursor = self.hold.cursor(self.position);
        *turn = Turn::Resolved { room, parts, cursor, resolved_ns: now_ns };
        true
    }

    /// Whether everything is resolved and committed, and no snapshot is being written.
    fn is_settled(&self) -> bool {
        !self.committing && !self.snapshots.is_writing() && self.cursor >= self.position
    }

    /// Whether nobody was inside when the room was last looked at, so that it may end.
    pub(super) fn is_deserted(&self) -> bool {
        self.empty_since_ns.is_some()
    }

    /// Idle -> Ending, if the room was deserted for `linger_ns`: nobody is inside, nothing is held, and no timer keeps it. Returns
    /// the room's `seq`.
    pub(super) fn end(&mut self, now_ns: u64, linger_ns: u64) -> Option<u64> {
        let (occupied, settled) = (self.hold.gateways().next().is_some() || !self.hold.is_empty(), self.is_settled());
        let State::Live { turn: turn @ Turn::Idle(_), reading: None } = &mut self.state else { return None };
        if occupied || turn.room().is_some_and(Room::is_kept_by_timers) {
            self.empty_since_ns = None;
            return None;
        }
        let since_ns = *self.empty_since_ns.get_or_insert(now_ns);
        if !settled || now_ns.saturating_sub(since_ns) < linger_ns {
            return None;
        }
        let Turn::Idle(room) = std::mem::replace(turn, Turn::Busy) else { return None };
        let seq = room.seq();
        self.state = State::Ending { room, unread: Unread::default() };
        Some(seq)
    }

    /// Ending -> Live: the journal did not end the room. Returns the position to read on from, if there is more to read.
    pub(super) fn stay(&mut self, now_ns: u64, watermark_of: impl Fn(Incarnation) -> Moment) -> Option<StreamId> {
        match std::mem::replace(&mut self.state, State::Failed) {
            State::Ending { room, unread } => {
                let reading = self.catch_up(unread, now_ns, watermark_of);
                self.go_live(room, reading)
            }
            other => {
                self.state = other;
                None
            }
        }
    }

    /// Ending -> Loading: the room has ended, but a bell rang meanwhile. Returns false if none did.
    pub(super) fn begin_again(&mut self, token: impl FnOnce() -> u64) -> bool {
        let State::Ending { unread, .. } = &mut self.state else { return false };
        let unread = std::mem::take(unread);
        let came = unread.came();
        if came {
            let state = State::Loading { pages: Box::default(), unread: unread.for_a_new_read() };
            let due_ns = self.due_ns;
            *self = Self { due_ns, ..Self::new(token(), self.crew, state).keeping(self.keep) };
        }
        came
    }
}

fn fires_until(hold: &Resequencer, tail: Option<Moment>, watermark_of: impl Fn(Incarnation) -> Moment) -> Option<Moment> {
    let proven = hold.frontier(watermark_of).or(tail)?;
    Some(hold.first_held().map_or(proven, |held| proven.min(held)))
}

#[cfg(test)]
mod tests;

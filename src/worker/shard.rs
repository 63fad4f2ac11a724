//! One owned shard: its bells, its gateways, its lanes, and its commits.
//!
//! ```text
//!   Following --subscribed--> Surveying --survey, all active rooms read--> Live
//!       ^                     ^   |  ^                                       |
//!       `------- claimed      |   |  `------ gap in the bells, subscribed ---'
//!                             |   v
//!               known      Rejoining: it is unknown whether this server of the journal has every commit
//! ```

mod commits;
mod gateways;
mod handing;
mod rejoin;
mod rooms;
mod suspects;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use self::gateways::GatewayView;
use self::handing::Handing;
pub(super) use self::rejoin::Memory;
use self::rejoin::Rejoin;
use super::job::{Job, LaneId, Tally};
use super::lane::Lane;
use super::state::Shared;
use super::step::{Command, EXCUSE_NS};
use crate::engine::HostClock;
use crate::journal::{Bell, Commit, FlushEntry, Lease, Survey};
use crate::types::{Incarnation, Moment, RoomId, ShardId};
use crate::wire::entry;

#[derive(Debug)]
enum State {
    Following,
    /// `missed`: more bells rang than the buffer holds.
    Surveying {
        buffer: Vec<Bell>,
        missed: bool,
    },
    /// It is unknown whether a commit is missing, or the rooms are beginning a new era.
    Rejoining(Rejoin),
    Live,
}

#[derive(Debug)]
pub(super) struct Shard {
    id: ShardId,
    pub(super) lease: Lease,
    /// When this worker came to own it.
    owned_since_ns: u64,
    state: State,
    /// What this worker knows from an earlier ownership, until it was compared with what is stored.
    memory: Option<Memory>,
    /// Whether that was done, so that this ownership knows of every commit.
    whole: bool,
    /// The count of the last append heard of.
    append: u64,
    /// The number of the last final commit.
    commit: u64,
    gateways: BTreeMap<Incarnation, GatewayView>,
    pub(super) lanes: BTreeMap<RoomId, Lane>,
    /// When rooms are to be looked at because a timer is due: moments of this host's clock.
    due: BTreeSet<(u64, RoomId)>,
    /// Rooms that have something for the next commit.
    resolved: VecDeque<RoomId>,
    in_flight: Option<Arc<Commit>>,
    /// The verdicts of the commit in flight.
    tally: Tally,
    /// Stored rooms that are not loaded yet.
    pub(super) adopt: VecDeque<RoomId>,
    /// How many times `ROOMS_PER_SHARD_WARNED` rooms there have to be for the next warning.
    crowd: usize,
    pub(super) releasing: bool,
    /// While it is handed over to another host.
    handing: Option<Handing>,
    /// The count of appends when somebody last asked how busy it is.
    busy_from: u64,
    pub(super) quarantined: usize,
    checked_at_ns: u64,
    forgot_at_ns: u64,
    /// Until then, silence does not count against gateways that have not found this server of the journal.
    excused_until_ns: u64,
    /// Whether the gateways are still to be told how far the rooms are.
    announce: bool,
    /// How many times a room was advanced.
    #[cfg(test)]
    advanced: usize,
}

impl Shard {
    pub(super) fn new(id: ShardId, lease: Lease, memory: Option<Memory>, now_ns: u64) -> Self {
        Self {
            id,
            lease,
            owned_since_ns: now_ns,
            state: State::Following,
            memory,
            whole: false,
            append: 0,
            commit: 0,
            gateways: BTreeMap::new(),
            lanes: BTreeMap::new(),
            due: BTreeSet::new(),
            resolved: VecDeque::new(),
            in_flight: None,
            tally: Tally::default(),
            adopt: VecDeque::new(),
            crowd: 1,
            releasing: false,
            handing: None,
            busy_from: 0,
            quarantined: 0,
            checked_at_ns: 0,
            forgot_at_ns: 0,
            excused_until_ns: 0,
            announce: true,
            #[cfg(test)]
            advanced: 0,
        }
    }

    /// The clocks of this host, as the shard's rooms count by them.
    fn clock(&self, shared: &Shared) -> HostClock {
        let (epoch_ns, since_ns) = shared.wall;
        HostClock { timeline: self.lease.home, epoch_ns, since_ns, from_ns: self.owned_since_ns }
    }

    /// The moment of the current input.
    fn now(&self, shared: &Shared) -> Moment {
        Moment { timeline: self.lease.home, ns: shared.now_ns }
    }

    /// Bells are subscribed, for the first time or again. A survey finds what was missed.
    pub(super) fn subscribed(&mut self, shared: &mut Shared) {
        self.state = State::Surveying { buffer: Vec::new(), missed: false };
        shared.emit(Command::Survey { shard: self.id, rooms: self.announce });
    }

    pub(super) fn bell(&mut self, bell: Bell, shared: &mut Shared) {
        match &mut self.state {
            State::Following => {}
            State::Surveying { buffer, .. } if buffer.len() < shared.limits.bounds.shard_bells_max => buffer.push(bell),
            State::Surveying { buffer, missed } => {
                buffer.clear();
                *missed = true;
            }
            State::Rejoining(_) => self.rejoined(bell.incarnation, shared),
            State::Live => {
                if bell.append == self.append.saturating_add(1) {
                    self.apply(bell, shared);
                } else if bell.append > self.append {
                    self.subscribed(shared);
                    self.bell(bell, shared);
                } else if self.gateways.get_mut(&bell.incarnation).is_some_and(|g| std::mem::take(&mut g.on_earlier_server)) {
                    // The gateway has registered with this server: its record says whether it may go on.
                    self.subscribed(shared);
                }
            }
        }
    }

    /// Returns false if another server of the journal has answered, where this lease is not valid.
    pub(super) fn surveyed(&mut self, mut survey: Survey, shared: &mut Shared) -> bool {
        if survey.server != self.lease.server {
            return false;
        }
        self.look_who_is_inside(&survey, shared);
        let (buffer, missed) = match &mut self.state {
            State::Following | State::Rejoining(_) => return true,
            State::Surveying { buffer, missed } => (std::mem::take(buffer), *missed),
            // The answer to an earlier survey came first, and saw less.
            State::Live if survey.append > self.append => (Vec::new(), false),
            State::Live => return true,
        };
        if !self.is_whole(&survey, shared) {
            for bell in buffer {
                self.rejoined(bell.incarnation, shared);
            }
            return true;
        }
        let page = survey.take_page();
        self.state = State::Live;
        self.append = self.append.max(survey.append);
        self.commit = survey.commit.max(self.commit);
        for record in survey.gateways {
            let gateway = self.gateways.entry(record.incarnation).or_default();
            gateway.watermark = gateway.watermark.max(record.watermark);
            gateway.fenced |= record.fenced;
            gateway.on_earlier_server = !record.fenced && record.server != self.lease.server;
            gateway.heard_at_ns = shared.now_ns;
        }
        for incarnation in survey.damaged_gateways {
            self.fence_damaged(incarnation, shared);
        }
        for room in survey.active {
            match self.lanes.get_mut(&room) {
                None => self.load(&room, shared),
                Some(lane) => {
                    let after = lane.surveyed();
                    self.read_on(&room, after, shared);
                }
            }
        }
        if self.announce {
            self.announce = false;
            self.excused_until_ns = shared.now_ns.saturating_add(EXCUSE_NS);
            self.stored_rooms(page, shared);
        }
        for bell in buffer {
            self.bell(bell, shared);
        }
        if missed && matches!(self.state, State::Live) {
            // No gap may show what was missed: the next bell may never come.
            self.subscribed(shared);
        }
        self.advance_all(shared);
        true
    }

    /// Applies the next bell. Advances the rooms that it names, and those that wait for its gateway.
    fn apply(&mut self, bell: Bell, shared: &mut Shared) {
        self.append = bell.append;
        let gateway = self.gateways.entry(bell.incarnation).or_default();
        let mut changed = BTreeSet::new();
        if bell.watermark > gateway.watermark {
            gateway.watermark = bell.watermark;
            gateway.silent_ns = 0;
            gateway.deaf = false;
            changed = std::mem::take(&mut gateway.waiters);
        }
        gateway.heard_at_ns = shared.now_ns;
        for poked in bell.poked {
            self.gateways.entry(poked).or_default().asked(bell.watermark, shared.now_ns);
        }
        for (room, at, bytes) in bell.entries {
            if !self.lanes.contains_key(&room) {
                self.load(&room, shared);
            }
            if let Some(lane) = self.lanes.get_mut(&room) {
                lane.read(at, &bytes, shared.now_ns, watermarks(&self.gateways));
                if lane.is_quarantined() {
                    self.halt(&room, Some(bell.incarnation), shared);
                    continue;
                }
                changed.insert(room);
            }
        }
        for room in changed {
            self.advance(&room, shared);
        }
    }

    /// When the next timer is due: a moment of this host's clock.
    pub(super) fn next_due_ns(&self) -> Option<u64> {
        self.due.first().map(|(due_ns, _)| *due_ns)
    }

    /// Looks at the rooms whose timers are due by now.
    pub(super) fn fire_due(&mut self, shared: &mut Shared) {
        // What is put there meanwhile lies ahead.
        while self.due.first().is_some_and(|(due_ns, _)| *due_ns <= shared.now_ns)
            && let Some((_, room)) = self.due.pop_first()
        {
            match self.lanes.get_mut(&room) {
                Some(lane) => drop(lane.move_due(None)),
                None => self.load(&room, shared),
            }
            self.advance(&room, shared);
        }
    }

    /// The wall clock was stepped, and differs by this much less from the monotonic clock: what is due when is to be told anew.
    pub(super) fn clock_stepped(&mut self, back_ns: i64, shared: &mut Shared) {
        // Nothing else knows of rooms that are not in memory.
        let moved = |(due_ns, room): (u64, RoomId)| match self.lanes.contains_key(&room) {
            true => (due_ns, room),
            false => (due_ns.saturating_add_signed(back_ns), room),
        };
        self.due = std::mem::take(&mut self.due).into_iter().map(moved).collect();
        self.advance_all(shared);
    }

    fn advance_all(&mut self, shared: &mut Shared) {
        for room in self.lanes.keys().cloned().collect::<Vec<_>>() {
            self.advance(&room, shared);
        }
    }

    /// Queues a lane for a permit if something in it is proven, and asks gateways for the watermarks that are missing. Whatever
    /// changes a lane, or a watermark that it waits for, must call this: nothing else looks at the room.
    fn advance(&mut self, room: &RoomId, shared: &mut Shared) {
        #[cfg(test)]
        {
            self.advanced += 1;
        }
        let (clock, now) = (self.clock(shared), self.now(shared));
        let Some(lane) = self.lanes.get_mut(room) else { return };
        if !lane.may_advance() {
            return;
        }
        let gateways = &self.gateways;
        for (gateway, entry) in lane.deaths(|g| gateways.get(&g).is_some_and(|g| g.fenced), now) {
            let entry = FlushEntry { room: room.clone(), top: entry.top(), bytes: entry::encode(&entry) };
            shared.emit(Command::Death { shard: self.id, lease: self.lease, token: lane.token(), gateway, entry });
        }
        let (next, deserted) = (lane.next_fire(clock), lane.is_deserted());
        // Rule T3: nobody is asked before it is due.
        let fire = next.filter(|place| *place <= now);
        let waits = lane.waits_for(fire, watermarks(gateways));
        let tail = fire.and_then(|place| lane.look_for_tail(place, now));
        let ahead = next.filter(|place| *place > now && place.timeline == now.timeline);
        let due_ns = ahead.map(|place| place.ns);
        let before = lane.move_due(due_ns);
        if due_ns != before {
            before.map(|before| self.due.remove(&(before, room.clone())));
            due_ns.map(|due_ns| self.due.insert((due_ns, room.clone())));
        }
        if lane.has_only_moved() {
            self.queue_commit(room);
        }
        self.read_on(room, tail, shared);
        self.enqueue(room, shared);
        for (gateway, until) in waits {
            self.want(gateway, until, shared);
            if let Some(gateway) = self.gateways.get_mut(&gateway)
                && !gateway.waiters.contains(room)
            {
                gateway.waiters.insert(room.clone());
            }
        }
        if deserted {
            self.end_deserted(room, shared);
        }
    }

    /// Queues a lane for a permit, if something in it is proven.
    fn enqueue(&mut self, room: &RoomId, shared: &mut Shared) {
        let clock = self.clock(shared);
        if !self.releasing
            && let Some(lane) = self.lanes.get_mut(room)
            && lane.enqueue(clock, watermarks(&self.gateways))
        {
            shared.permits.enqueue(self.id, room, lane.crew, lane.is_suspect());
        }
    }

    /// The lane has a permit: returns the job of its next batch, unless nothing is proven any more.
    pub(super) fn start(&mut self, room: &RoomId, shared: &Shared) -> Option<Job> {
        let of = self.lane_id(room)?;
        let now = (self.clock(shared), shared.now_ns);
        let lane = self.lanes.get_mut(room)?;
        let job = lane.start(false, of, self.releasing, &shared.limits, now, watermarks(&self.gateways))?;
        Some(Job::Resolve(job))
    }

    fn lane_id(&self, room: &RoomId) -> Option<LaneId> {
        let token = self.lanes.get(room)?.token();
        Some(LaneId { shard: self.id, epoch: self.lease.epoch, room: room.clone(), token })
    }

    pub(super) fn tick(&mut self, elapsed_ns: u64, shared: &mut Shared) {
        if !matches!(self.state, State::Live) {
            self.tick_rejoin(elapsed_ns, shared);
            return;
        }
        for gateway in self.gateways.values_mut() {
            gateway.renewed = false;
        }
        self.want_again(shared);
        if shared.now_ns.saturating_sub(self.checked_at_ns) >= shared.limits.bounds.check_interval_ns {
            self.checked_at_ns = shared.now_ns;
            self.tick_rooms(shared);
        }
        self.tick_gateways(elapsed_ns, shared);
    }

    /// Whether no job resolves and everything resolved is committed, so that the shard may be handed over.
    pub(super) fn is_quiet(&self) -> bool {
        self.in_flight.is_none() && self.resolved.is_empty() && !self.lanes.values().any(Lane::is_busy)
    }
}

/// The gateways' watermarks.
fn watermarks(gateways: &BTreeMap<Incarnation, GatewayView>) -> impl Fn(Incarnation) -> Moment + Copy + '_ {
    |gateway| gateways.get(&gateway).map_or(Moment::default(), |gateway| gateway.watermark)
}

#[cfg(test)]
pub(in crate::worker) mod tests;

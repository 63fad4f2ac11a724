//! One owned shard: its bells, its gateways' watermarks, its lanes, its commits.
//!
//! ```text
//!   Following --subscribed--> Surveying --survey, all active rooms read--> Live
//!       ^                         ^                                          |
//!       `------- claimed          `--------- gap in the bells, subscribed ---'
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::core::{Action, Shared};
use super::job::{Done, DoneOutcome, Job, Loaded, Loading, RULES_FAILED, Resolving, Tally, death_entry};
use super::lane::{Lane, Phase};
use crate::journal::{Bell, Commit, Committed, FlushEntry, GatewayRecord, Lease, RoomCommit, StoredRoom, Survey};
use crate::limits::{COMMIT_VERDICTS_MAX, RESOLVE_EVENTS_MAX, SHARD_BELLS_MAX};
use crate::types::{Incarnation, Moment, RoomId, ShardId, StreamId};
use crate::wire::{entry, push};

/// How long a room that cannot be continued rests before it is tried again, in nanoseconds.
const QUARANTINE_NS: u64 = 5_000_000_000;
/// Longest stretch between two ticks that counts as a gateway's silence: what is longer is this worker's own pause.
const SILENCE_STEP_NS: u64 = 50_000_000;
/// How long a gateway with sessions may be unheard of before it is asked although nothing waits, in nanoseconds.
const HEARTBEAT_NS: u64 = 5_000_000_000;
/// How often rooms and gateways are looked through for what no event shows, in nanoseconds.
const CHECK_NS: u64 = 1_000_000_000;
/// Rooms in one push of heads.
const HEADS_PER_PUSH: usize = 500;

#[derive(Debug, PartialEq, Eq)]
enum State {
    Following,
    Surveying { buffer: Vec<Bell> },
    Live,
}

/// A gateway as this shard's owner sees it.
#[derive(Debug, Default)]
struct Gateway {
    watermark: Moment,
    fenced: bool,
    fencing: bool,
    /// The highest watermark that a room waits for.
    wanted: Moment,
    /// A room still did at the last tick.
    renewed: bool,
    /// It was not heard of for long, and is asked for this although no room waits.
    checked: Option<Moment>,
    /// How long it has owed that, in time during which this worker was awake and reached the journal.
    silent_ns: u64,
    probed: Moment,
    probed_at_ns: u64,
    heard_at_ns: u64,
}

#[derive(Debug)]
pub(super) struct Shard {
    id: ShardId,
    pub(super) lease: Lease,
    state: State,
    append: u64,
    commit: u64,
    gateways: BTreeMap<Incarnation, Gateway>,
    pub(super) lanes: BTreeMap<RoomId, Lane>,
    /// Rooms that hold something.
    waiting: BTreeSet<RoomId>,
    /// Rooms with a result for the next commit, or a cursor to move.
    resolved: VecDeque<RoomId>,
    in_flight: Option<Arc<Commit>>,
    /// What the commit in flight says.
    tally: Tally,
    /// Stored rooms that are not in memory yet.
    pub(super) adopt: VecDeque<RoomId>,
    pub(super) releasing: bool,
    checked_at_ns: u64,
    announce: bool,
}

impl Shard {
    pub(super) fn new(id: ShardId, lease: Lease) -> Self {
        Self {
            id,
            lease,
            state: State::Following,
            append: 0,
            commit: 0,
            gateways: BTreeMap::new(),
            lanes: BTreeMap::new(),
            waiting: BTreeSet::new(),
            resolved: VecDeque::new(),
            in_flight: None,
            tally: Tally::default(),
            adopt: VecDeque::new(),
            releasing: false,
            checked_at_ns: 0,
            announce: true,
        }
    }

    /// The bells are subscribed (again): whatever was missed is in the journal.
    pub(super) fn subscribed(&mut self, shared: &mut Shared) {
        self.state = State::Surveying { buffer: Vec::new() };
        shared.act(Action::Survey { shard: self.id, rooms: self.announce });
    }

    pub(super) fn bell(&mut self, bell: Bell, shared: &mut Shared) {
        match &mut self.state {
            State::Following => {}
            State::Surveying { buffer } if buffer.len() < SHARD_BELLS_MAX => buffer.push(bell),
            // Too much came in meanwhile: what was missed is in the journal, and the gap will show.
            State::Surveying { buffer } => buffer.clear(),
            State::Live => {
                if bell.append == self.append + 1 {
                    self.apply(bell, shared);
                } else if bell.append > self.append {
                    self.subscribed(shared);
                    self.bell(bell, shared);
                }
            }
        }
    }

    pub(super) fn surveyed(&mut self, survey: Survey, shared: &mut Shared) {
        let buffer = match &mut self.state {
            State::Following => return,
            State::Surveying { buffer } => std::mem::take(buffer),
            // The answer to an earlier survey came first, and saw less.
            State::Live if survey.append > self.append => Vec::new(),
            State::Live => return,
        };
        self.state = State::Live;
        self.append = self.append.max(survey.append);
        self.commit = survey.commit.max(self.commit);
        for record in survey.gateways {
            let gateway = self.gateways.entry(record.incarnation).or_default();
            gateway.watermark = gateway.watermark.max(record.watermark);
            gateway.fenced |= record.fenced;
            gateway.heard_at_ns = shared.now_ns;
        }
        for room in survey.active {
            match self.lanes.get_mut(&room) {
                None => self.load(&room, shared),
                Some(lane) if matches!(lane.phase, Phase::Idle | Phase::Busy) && !lane.reading => {
                    lane.reading = true;
                    shared.act(Action::Read { shard: self.id, room, after: lane.position });
                }
                Some(lane) => lane.stale = true,
            }
        }
        if self.announce {
            self.announce = false;
            let heads: Vec<(RoomId, u64, u64)> = survey.rooms.iter().map(|h| (h.room.clone(), h.era, h.seq)).collect();
            self.adopt.extend(survey.rooms.into_iter().map(|h| h.room));
            let gateways: Vec<Incarnation> = self.gateways.iter().filter(|(_, g)| !g.fenced).map(|(i, _)| *i).collect();
            for rooms in heads.chunks(HEADS_PER_PUSH) {
                let push = push::encode(&push::Push::Heads { shard: self.id, rooms: rooms.to_vec() });
                for gateway in &gateways {
                    shared.act(Action::Publish { gateway: *gateway, push: push.clone() });
                }
            }
        }
        for bell in buffer {
            self.bell(bell, shared);
        }
        self.advance_waiting(shared);
    }

    fn apply(&mut self, bell: Bell, shared: &mut Shared) {
        self.append = bell.append;
        let gateway = self.gateways.entry(bell.incarnation).or_default();
        if bell.watermark > gateway.watermark {
            gateway.watermark = bell.watermark;
            gateway.silent_ns = 0;
        }
        gateway.heard_at_ns = shared.now_ns;
        for (room, at, bytes) in bell.entries {
            if !self.lanes.contains_key(&room) {
                self.load(&room, shared);
            }
            if let Some(lane) = self.lanes.get_mut(&room) {
                let gateways = &self.gateways;
                lane.read(at, &bytes, shared.now_ns, |g| gateways.get(&g).map_or(Moment::default(), |g| g.watermark));
                self.waiting.insert(room);
            }
        }
        self.advance_waiting(shared);
    }

    fn load(&mut self, room: &RoomId, shared: &mut Shared) {
        self.lanes.insert(room.clone(), Lane::new(shared.token()));
        shared.act(Action::Load { shard: self.id, room: room.clone() });
    }

    /// Loads one stored room that nobody asked for yet; false when there is none.
    pub(super) fn adopt_one(&mut self, shared: &mut Shared) -> bool {
        while let Some(room) = self.adopt.pop_front() {
            if !self.lanes.contains_key(&room) {
                self.load(&room, shared);
                return true;
            }
        }
        false
    }

    /// The stored form of a room was read: a job brings it back.
    pub(super) fn stored(&mut self, room: RoomId, stored: StoredRoom, shared: &mut Shared) {
        let Some(lane) = self.lanes.get_mut(&room) else { return };
        if lane.phase != Phase::Loading {
            return;
        }
        match shared.limits.rules.rules_for(&room) {
            Some(rules) => {
                let loading = Loading { shard: self.id, epoch: self.lease.epoch, lane: lane.token, id: room, stored, rules };
                shared.enqueue(Job::Load(Box::new(loading)));
            }
            None => {
                lane.phase = Phase::Quarantined { until_ns: shared.now_ns + QUARANTINE_NS };
                shared.act(Action::Complain(format!("room {room} matches no pattern of the configuration: it is left alone")));
            }
        }
    }

    /// Entries after the lane's position were read, to the tail.
    pub(super) fn read(&mut self, room: &RoomId, entries: &[(StreamId, bytes::Bytes)], shared: &mut Shared) {
        let Some(lane) = self.lanes.get_mut(room) else { return };
        if !lane.reading {
            return;
        }
        lane.reading = false;
        let buffer = if lane.stale { Vec::new() } else { std::mem::take(&mut lane.buffer) };
        for (at, bytes) in entries.iter().chain(&buffer) {
            let gateways = &self.gateways;
            lane.take_in(*at, bytes, shared.now_ns, |g| gateways.get(&g).map_or(Moment::default(), |g| g.watermark));
        }
        self.waiting.insert(room.clone());
        self.read_again(room, shared);
        self.advance(room, shared);
    }

    /// Reads on when what was read or loaded is older than the last survey.
    fn read_again(&mut self, room: &RoomId, shared: &mut Shared) {
        if let Some(lane) = self.lanes.get_mut(room)
            && matches!(lane.phase, Phase::Idle | Phase::Busy)
            && std::mem::take(&mut lane.stale)
        {
            lane.reading = true;
            shared.act(Action::Read { shard: self.id, room: room.clone(), after: lane.position });
        }
    }

    fn advance_waiting(&mut self, shared: &mut Shared) {
        for room in self.waiting.iter().cloned().collect::<Vec<_>>() {
            self.advance(&room, shared);
        }
    }

    /// Starts a lane on what is proven; asks for what is not.
    fn advance(&mut self, room: &RoomId, shared: &mut Shared) {
        let Some(lane) = self.lanes.get_mut(room) else {
            self.waiting.remove(room);
            return;
        };
        if matches!(lane.phase, Phase::Loading | Phase::Failed | Phase::Quarantined { .. } | Phase::Ending) || lane.reading {
            return;
        }
        let dead: Vec<Incarnation> = lane.hold.gateways().filter(|g| self.gateways.get(g).is_some_and(|g| g.fenced)).collect();
        for gateway in dead {
            let now = Moment { timeline: shared.limits.timeline, ns: shared.now_ns };
            let Some((last, _)) = lane.hold.last_read(gateway) else { continue };
            if lane.deaths.get(&gateway) != Some(&last)
                && let Some(entry) = death_entry(&lane.hold, gateway, now)
            {
                lane.deaths.insert(gateway, last);
                let entry = FlushEntry { room: room.clone(), top: entry.top(), bytes: entry::encode(&entry) };
                shared.act(Action::Death { shard: self.id, lease: self.lease, gateway, entry });
            }
        }
        let gateways = &self.gateways;
        let watermark_of = |g: Incarnation| gateways.get(&g).map_or(Moment::default(), |g| g.watermark);
        if lane.can_resolve() && !self.releasing && lane.hold.releasable(watermark_of) {
            lane.queued = true;
            shared.enqueue_lane(self.id, room.clone());
        }
        let waits = lane.hold.waits_for(watermark_of);
        if lane.hold.is_empty() {
            self.waiting.remove(room);
            if lane.phase == Phase::Idle && lane.result.is_none() && !lane.committing && lane.cursor < lane.position {
                // Only duplicates were read: the cursor moves without a verdict.
                self.queue_commit(room);
            }
        }
        for (gateway, until) in waits {
            self.want(gateway, until, shared);
        }
    }

    fn want(&mut self, incarnation: Incarnation, until: Moment, shared: &mut Shared) {
        let gateway = self.gateways.entry(incarnation).or_default();
        if gateway.wanted <= gateway.watermark {
            gateway.silent_ns = 0;
        }
        gateway.wanted = gateway.wanted.max(until);
        gateway.renewed = true;
        if gateway.fenced {
            return;
        }
        // One question at a time; its answer, or the interval, allows the next.
        let answered = gateway.watermark >= gateway.probed;
        let interval_over = shared.now_ns.saturating_sub(gateway.probed_at_ns) >= shared.limits.probe_interval_ns;
        if (answered && gateway.wanted > gateway.probed) || interval_over {
            gateway.probed = gateway.wanted;
            gateway.probed_at_ns = shared.now_ns;
            let push = push::encode(&push::Push::Probe { shard: self.id, until: gateway.wanted });
            shared.act(Action::Publish { gateway: incarnation, push });
        }
    }

    /// A permit is there: the lane's next batch, unless nothing is proven any more.
    pub(super) fn start(&mut self, room: &RoomId) -> Option<Job> {
        let lane = self.lanes.get_mut(room)?;
        lane.queued = false;
        if !lane.can_resolve() || self.releasing {
            return None;
        }
        let gateways = &self.gateways;
        let events = lane.hold.release(RESOLVE_EVENTS_MAX, |g| gateways.get(&g).map_or(Moment::default(), |g| g.watermark));
        if events.is_empty() {
            return None;
        }
        let room_state = lane.room.take()?;
        lane.phase = Phase::Busy;
        let snapshot = lane.snapshot_due(room_state.seq() + events.len() as u64);
        let poisoned = lane.poisoned.clone();
        Some(Job::Resolve(Resolving {
            shard: self.id,
            epoch: self.lease.epoch,
            lane: lane.token,
            id: room.clone(),
            room: room_state,
            events,
            poisoned,
            snapshot,
        }))
    }

    pub(super) fn done(&mut self, done: Done, shared: &mut Shared) {
        let room = done.id;
        let Some(lane) = self.lanes.get_mut(&room).filter(|lane| lane.token == done.lane) else { return };
        match done.outcome {
            DoneOutcome::Resolved(state, resolved) => {
                lane.room = Some(state);
                lane.phase = Phase::Idle;
                lane.result_cursor = lane.hold.cursor(lane.position);
                lane.result = Some(resolved);
                self.queue_commit(&room);
            }
            DoneOutcome::Panicked { stamp, message } => {
                shared.act(Action::Complain(format!(
                    "rules of room {room} panicked on event {stamp:?}: {message}; its verdict is void ({RULES_FAILED})"
                )));
                lane.phase = Phase::Failed;
                lane.poisoned.insert(stamp);
                self.reload_failed(&room, shared);
            }
            DoneOutcome::Loaded(loaded) => self.loaded(&room, *loaded, shared),
            DoneOutcome::Unloadable(why) => {
                lane.phase = Phase::Quarantined { until_ns: shared.now_ns + QUARANTINE_NS };
                shared.act(Action::Complain(format!(
                    "room {room} cannot be continued: {why}; tried again in {} s",
                    QUARANTINE_NS / 1_000_000_000
                )));
            }
        }
        self.advance(&room, shared);
    }

    fn reload_failed(&mut self, room: &RoomId, shared: &mut Shared) {
        if let Some(lane) = self.lanes.get_mut(room)
            && lane.phase == Phase::Failed
            && !lane.committing
        {
            let poisoned = std::mem::take(&mut lane.poisoned);
            let buffer = std::mem::take(&mut lane.buffer);
            *lane = Lane::new(shared.token());
            lane.poisoned = poisoned;
            lane.buffer = buffer;
            shared.act(Action::Load { shard: self.id, room: room.clone() });
        }
    }

    fn loaded(&mut self, room: &RoomId, loaded: Loaded, shared: &mut Shared) {
        let Some(lane) = self.lanes.get_mut(room) else { return };
        for deviation in loaded.deviations {
            shared.act(Action::Complain(format!("room {room}: replay differs from the record, which stands: {deviation}")));
        }
        let Some(state) = loaded.room else {
            // It ended meanwhile. What came in by bell belongs to a life that began after it was read.
            if lane.buffer.is_empty() && !std::mem::take(&mut lane.stale) {
                self.lanes.remove(room);
                self.waiting.remove(room);
            } else {
                shared.act(Action::Load { shard: self.id, room: room.clone() });
            }
            return;
        };
        lane.hold = crate::engine::Resequencer::resume(state.sessions().map(|(s, _)| s), state.marks());
        lane.room = Some(state);
        lane.phase = Phase::Idle;
        lane.cursor = loaded.cursor;
        lane.position = loaded.cursor;
        if let Some((seq, cursor, bytes)) = loaded.snapshot {
            lane.remember_snapshot(seq, cursor, bytes);
            lane.position = cursor;
        } else {
            lane.position = StreamId::default();
        }
        let gateways = &self.gateways;
        let watermark_of = |g: Incarnation| gateways.get(&g).map_or(Moment::default(), |g| g.watermark);
        for (at, entry) in loaded.entries {
            if at <= lane.position {
                continue;
            }
            lane.position = at;
            match entry {
                Ok(entry) => lane.hold.read(at, &entry, watermark_of(entry.incarnation), shared.now_ns),
                Err(error) => lane.hold.read_unreadable(at, error.to_string()),
            }
        }
        // Between a stale read and the bells that came after it something may be missing.
        let buffer = if lane.stale { Vec::new() } else { std::mem::take(&mut lane.buffer) };
        for (at, bytes) in buffer {
            lane.take_in(at, &bytes, shared.now_ns, watermark_of);
        }
        lane.position = lane.position.max(loaded.cursor);
        self.waiting.insert(room.clone());
        self.read_again(room, shared);
    }

    fn queue_commit(&mut self, room: &RoomId) {
        if let Some(lane) = self.lanes.get_mut(room)
            && !lane.to_commit
        {
            lane.to_commit = true;
            self.resolved.push_back(room.clone());
        }
    }

    /// Sends the next commit, if none is on its way.
    pub(super) fn try_commit(&mut self, shared: &mut Shared) {
        if self.in_flight.is_some() || self.resolved.is_empty() {
            return;
        }
        let (mut rooms, mut taken, mut count, mut tally) = (Vec::new(), Vec::new(), 0, Tally::default());
        let mut pushes: BTreeMap<Incarnation, Vec<usize>> = BTreeMap::new();
        while count < COMMIT_VERDICTS_MAX
            && let Some(room) = self.resolved.pop_front()
        {
            let Some(lane) = self.lanes.get_mut(&room) else { continue };
            if lane.committing {
                lane.to_commit = false;
                continue;
            }
            lane.to_commit = false;
            // A lane whose job is out has no result: it comes again when the job is done.
            let Some((era, seq)) = lane.room.as_ref().map(|r| (r.era(), r.seq())) else { continue };
            let result = lane.result.take();
            let (from, to, verdicts, snapshot, cursor) = match &result {
                Some(r) => (r.from, r.to, r.verdicts.clone(), r.snapshot.clone(), lane.result_cursor),
                None => (seq, seq, bytes::Bytes::new(), None, lane.hold.cursor(lane.position)),
            };
            if result.is_none() && cursor <= lane.cursor {
                continue;
            }
            let trim = snapshot.as_ref().and_then(|bytes| {
                lane.remember_snapshot(to, cursor, bytes.len());
                lane.trim(shared.limits.retention_ms)
            });
            lane.committing = true;
            lane.cursor = cursor;
            if let Some(result) = result {
                count += result.tally.total();
                tally.add(result.tally);
                for (gateway, _) in &result.pushes {
                    pushes.entry(*gateway).or_default().push(taken.len());
                }
                taken.push((room.clone(), result));
            }
            rooms.push(RoomCommit { room, era, from, to, verdicts, cursor, snapshot, trim });
        }
        if rooms.is_empty() {
            return;
        }
        let pushes = pushes.into_iter().map(|(gateway, rooms)| {
            let parts: Vec<(&RoomId, u64, u64, &bytes::Bytes)> = rooms
                .iter()
                .filter_map(|i| {
                    let (room, result) = &taken[*i];
                    let (_, batch) = result.pushes.iter().find(|(g, _)| *g == gateway)?;
                    Some((room, result.from, result.to, batch))
                })
                .collect();
            (gateway, push::encode_verdicts(self.id, parts.into_iter()))
        });
        let commit =
            Arc::new(Commit { shard: self.id, lease: self.lease, number: self.commit + 1, pushes: pushes.collect(), rooms });
        self.in_flight = Some(commit.clone());
        self.tally = tally;
        shared.act(Action::Commit(commit));
        let committed: Vec<RoomId> = self.in_flight.iter().flat_map(|c| &c.rooms).map(|r| r.room.clone()).collect();
        for room in committed {
            self.advance_after_result(&room, shared);
        }
    }

    /// The room's result is on its way: its lane may go on meanwhile.
    fn advance_after_result(&mut self, room: &RoomId, shared: &mut Shared) {
        let Some(lane) = self.lanes.get_mut(room) else { return };
        let gateways = &self.gateways;
        let watermark_of = |g: Incarnation| gateways.get(&g).map_or(Moment::default(), |g| g.watermark);
        if lane.can_resolve() && !self.releasing && lane.hold.releasable(watermark_of) {
            lane.queued = true;
            shared.enqueue_lane(self.id, room.clone());
        }
    }

    /// The answer to a commit; false when the lease is lost.
    pub(super) fn committed(&mut self, number: u64, answer: &Committed, shared: &mut Shared) -> bool {
        let Some(commit) = self.in_flight.take_if(|c| c.number == number) else { return true };
        match answer {
            Committed::Fenced => return false,
            Committed::Done => {
                self.commit = number;
                shared.act(Action::Count(self.tally));
                for room in &commit.rooms {
                    if let Some(lane) = self.lanes.get_mut(&room.room) {
                        lane.committing = false;
                        if lane.phase != Phase::Failed {
                            lane.poisoned.clear();
                        }
                        if lane.result.is_some() {
                            self.queue_commit(&room.room);
                        }
                        self.waiting.insert(room.room.clone());
                    }
                }
            }
            Committed::Refused(refused) => {
                // These rooms are not what this worker thinks; the others go on under the same number.
                for room in refused {
                    shared.act(Action::Complain(format!(
                        "room {room}: the journal has another era or seq than this worker; it is loaded again"
                    )));
                    self.lanes.remove(room);
                    self.load(room, shared);
                }
                let mut rest = Arc::unwrap_or_clone(commit);
                rest.rooms.retain(|r| !refused.contains(&r.room));
                // The pushes cover the refused rooms too; the gateways read the rest of the rooms by their heads.
                rest.pushes.clear();
                if !rest.rooms.is_empty() {
                    let rest = Arc::new(rest);
                    self.in_flight = Some(rest.clone());
                    shared.act(Action::Commit(rest));
                }
                return true;
            }
        }
        for room in &commit.rooms {
            self.reload_failed(&room.room, shared);
            self.advance(&room.room, shared);
        }
        true
    }

    pub(super) fn fenced(&mut self, record: &GatewayRecord, shared: &mut Shared) {
        let gateway = self.gateways.entry(record.incarnation).or_default();
        gateway.fencing = false;
        // Its watermark counts when its last bells were heard (rule R2): its death comes behind them.
        gateway.fenced = true;
        let rooms: Vec<RoomId> = self.lanes.keys().cloned().collect();
        for room in rooms {
            self.advance(&room, shared);
        }
    }

    pub(super) fn room_ended(&mut self, room: &RoomId, ended: bool, shared: &mut Shared) {
        let Some(lane) = self.lanes.get_mut(room) else { return };
        if lane.phase != Phase::Ending {
            return;
        }
        let buffer = std::mem::take(&mut lane.buffer);
        let stale = lane.stale;
        if ended {
            self.lanes.remove(room);
            self.waiting.remove(room);
            if !buffer.is_empty() || stale {
                self.load(room, shared);
                if let Some(lane) = self.lanes.get_mut(room) {
                    lane.buffer = buffer;
                }
            }
        } else {
            lane.phase = Phase::Idle;
            lane.empty_since_ns = None;
            if lane.stale {
                lane.buffer = buffer;
            } else {
                let gateways = &self.gateways;
                for (at, bytes) in buffer {
                    lane.take_in(at, &bytes, shared.now_ns, |g| gateways.get(&g).map_or(Moment::default(), |g| g.watermark));
                }
            }
            self.waiting.insert(room.clone());
            self.read_again(room, shared);
            self.advance(room, shared);
        }
    }

    /// The journal was out of reach: no gateway's silence counts (rule R5).
    pub(super) fn excuse_gateways(&mut self) {
        for gateway in self.gateways.values_mut() {
            gateway.silent_ns = 0;
            gateway.fencing = false;
        }
    }

    pub(super) fn tick(&mut self, elapsed_ns: u64, shared: &mut Shared) {
        if self.state != State::Live {
            return;
        }
        for gateway in self.gateways.values_mut() {
            gateway.renewed = false;
        }
        self.advance_waiting(shared);
        if shared.now_ns.saturating_sub(self.checked_at_ns) >= CHECK_NS {
            self.checked_at_ns = shared.now_ns;
            self.check_gateways(shared);
            self.tick_rooms(shared);
        }
        self.tick_gateways(elapsed_ns, shared);
    }

    /// Counts the silence of gateways that something waits for, and fences those that were silent for too long.
    fn tick_gateways(&mut self, elapsed_ns: u64, shared: &mut Shared) {
        let checked: Vec<(Incarnation, Moment)> = self
            .gateways
            .iter()
            .filter_map(|(i, g)| g.checked.filter(|until| g.watermark < *until).map(|until| (*i, until)))
            .collect();
        for (incarnation, until) in checked {
            self.want(incarnation, until, shared);
        }
        for (incarnation, gateway) in &mut self.gateways {
            if gateway.fenced || gateway.fencing {
                continue;
            }
            if !gateway.renewed || gateway.wanted <= gateway.watermark {
                gateway.wanted = Moment::default();
                gateway.silent_ns = 0;
                continue;
            }
            gateway.silent_ns += elapsed_ns.min(SILENCE_STEP_NS);
            if gateway.silent_ns > shared.limits.gateway_timeout_ns {
                gateway.fencing = true;
                shared.act(Action::Fence { shard: self.id, lease: self.lease, gateway: *incarnation });
            }
        }
    }

    /// Asks gateways that have sessions here and were not heard of for long: they may have died where nothing waits.
    fn check_gateways(&mut self, shared: &mut Shared) {
        let inside: BTreeSet<Incarnation> = self.lanes.values().flat_map(|lane| lane.hold.gateways()).collect();
        let now = Moment { timeline: shared.limits.timeline, ns: shared.now_ns };
        for (incarnation, gateway) in &mut self.gateways {
            let quiet = shared.now_ns.saturating_sub(gateway.heard_at_ns) > HEARTBEAT_NS;
            gateway.checked = match gateway.checked {
                _ if !inside.contains(incarnation) || !quiet => None,
                Some(until) if gateway.watermark < until => Some(until),
                _ => Some(now),
            };
        }
    }

    fn tick_rooms(&mut self, shared: &mut Shared) {
        let mut reload = Vec::new();
        for (room, lane) in &mut self.lanes {
            match lane.phase {
                Phase::Quarantined { until_ns } if shared.now_ns >= until_ns => reload.push(room.clone()),
                Phase::Idle if !self.releasing && lane.is_deserted() && lane.cursor >= lane.position => {
                    let since = *lane.empty_since_ns.get_or_insert(shared.now_ns);
                    if shared.now_ns.saturating_sub(since) >= shared.limits.room_linger_ns {
                        lane.phase = Phase::Ending;
                        let seq = lane.room.as_ref().map_or(0, |r| r.seq());
                        shared.act(Action::EndRoom { shard: self.id, lease: self.lease, room: room.clone(), seq });
                    }
                }
                _ => {}
            }
        }
        for room in reload {
            if let Some(lane) = self.lanes.get_mut(&room) {
                let buffer = std::mem::take(&mut lane.buffer);
                *lane = Lane::new(shared.token());
                lane.buffer = buffer;
                shared.act(Action::Load { shard: self.id, room });
            }
        }
    }

    /// Whether everything resolved is committed and no job is out, so that the shard may be handed over.
    pub(super) fn is_quiet(&self) -> bool {
        self.in_flight.is_none() && self.resolved.is_empty() && !self.lanes.values().any(|lane| lane.phase == Phase::Busy)
    }
}

#[cfg(test)]
#[path = "shard_tests.rs"]
mod tests;

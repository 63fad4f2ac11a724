//! A shard's rooms: they are loaded, resolved by jobs, and ended when they are empty.

use super::{Shard, watermarks};
use crate::engine::RULES_FAILED;
use crate::journal::{Lease, Place, RoomsPage, StoredPage};
use crate::limits::ROOMS_PER_SHARD_WARNED;
use crate::rules::Fault;
use crate::types::{Incarnation, RoomId, ShardId, StreamId};
use crate::wire::push;
use crate::worker::job::{Done, DoneOutcome, Loading};
use crate::worker::lane::{Lane, Paged, Restored};
use crate::worker::restore::Loaded;
use crate::worker::state::Shared;
use crate::worker::step::Command;

/// Rooms in one push of heads.
const HEADS_PER_PUSH: usize = 500;

impl Shard {
    /// Takes a page of the shard's rooms, and asks for the next one. The pages are read while the shard is live: what has changed since
    /// the page before, bells and this shard's own commits have told. Returns false if another server of the journal has answered.
    pub(in crate::worker) fn stored_rooms(&mut self, page: RoomsPage, shared: &mut Shared) -> bool {
        if page.server != self.lease.server {
            return false;
        }
        // Rule T7: those that are due are loaded at once, the others when they are due, or in this order when there is time.
        for (room, due_ms) in page.due {
            let due_ns = due_ms.saturating_mul(1_000_000).saturating_sub(shared.wall.0);
            if due_ns > shared.now_ns {
                self.due.insert((due_ns, room.clone()));
                self.adopt.push_back(room);
            } else if !self.lanes.contains_key(&room) {
                self.load(&room, shared);
            }
        }
        let heads: Vec<(RoomId, u64, u64)> = page.rooms.iter().map(|h| (h.room.clone(), h.era, h.seq)).collect();
        self.adopt.extend(page.rooms.into_iter().map(|h| h.room).chain(page.damaged_rooms));
        let gateways: Vec<Incarnation> = self.gateways.iter().filter(|(_, g)| !g.fenced).map(|(i, _)| *i).collect();
        for rooms in heads.chunks(HEADS_PER_PUSH) {
            let push = push::encode(&push::Push::Heads { shard: self.id, server: self.lease.server, rooms: rooms.to_vec() });
            for gateway in &gateways {
                shared.emit(Command::Publish { shard: self.id, gateway: *gateway, push: push.clone(), answer: false });
            }
        }
        if let Some(place) = page.next {
            shared.emit(Command::Rooms { shard: self.id, place, count: shared.limits.bounds.survey_rooms });
        }
        true
    }

    pub(super) fn load(&mut self, room: &RoomId, shared: &mut Shared) {
        self.warn_of_crowd(shared);
        let token = shared.token();
        if shared.limits.rules.knows(room) {
            let rules = &shared.limits.rules;
            let lane = Lane::loading(token, rules.crew_of(room)).keeping(rules.keep_of(room));
            self.lanes.insert(room.clone(), lane);
            self.load_from(room, Place::default(), shared);
        } else {
            self.lanes.insert(room.clone(), Lane::without_rules(token));
            shared.emit(Command::Warn(format!(
                "room {room} matches no pattern of the configuration, so this worker does not resolve it"
            )));
            self.halt(room, None, shared);
        }
    }

    /// Says how many shards it would take when the shard has come to have many rooms, and again whenever it has twice as many.
    fn warn_of_crowd(&mut self, shared: &mut Shared) {
        let (rooms, times) = (self.lanes.len() + 1, self.crowd * 2);
        if rooms > ROOMS_PER_SHARD_WARNED * self.crowd {
            self.crowd = times;
            let id = self.id;
            shared.emit(Command::Warn(format!(
                "shard {id} has {rooms} rooms, and if all are busy when a worker dies, all wait while its successor counts: a deployment \
                 of {times} times as many shards would have fewer than {ROOMS_PER_SHARD_WARNED} in each"
            )));
        }
    }

    pub(super) fn load_from(&self, room: &RoomId, place: Place, shared: &mut Shared) {
        let Some(token) = self.lanes.get(room).map(Lane::token) else { return };
        shared.emit(Command::Load { shard: self.id, room: room.clone(), token, place });
    }

    /// Loads one stored room that is not in memory. Returns false if there is none.
    pub(in crate::worker) fn adopt_one(&mut self, shared: &mut Shared) -> bool {
        while let Some(room) = self.adopt.pop_front() {
            if !self.lanes.contains_key(&room) {
                self.load(&room, shared);
                return true;
            }
        }
        false
    }

    /// Takes a page of a stored room. Loads the next one, or starts the job that restores the room.
    pub(in crate::worker) fn stored(&mut self, room: &RoomId, token: u64, place: Place, page: StoredPage, shared: &mut Shared) {
        let Some(lane) = self.lanes.get_mut(room).filter(|lane| lane.token() == token) else { return };
        match lane.page(place, page) {
            Paged::Discarded => {}
            Paged::More(place) => self.load_from(room, place, shared),
            Paged::All(stored) => {
                let book = &shared.limits.rules;
                let (Some(of), Some(rules)) = (self.lane_id(room), book.factory_of(room)) else { return };
                let (push, library) = (book.push_of(room), shared.limits.library.clone());
                shared.permits.enqueue_load(Box::new(Loading { of, stored: *stored, rules, push, library }));
            }
        }
    }

    /// A program that the job needs was read, or is not there.
    pub(in crate::worker) fn fetched(&mut self, loading: Box<Loading>, shared: &mut Shared) {
        if self.lanes.get(&loading.of.room).is_some_and(|lane| lane.token() == loading.of.token) {
            shared.permits.enqueue_load(loading);
        }
    }

    /// Takes a page of entries after the lane's position.
    pub(in crate::worker) fn read(&mut self, room: &RoomId, token: u64, page: &StoredPage, shared: &mut Shared) {
        let Some(lane) = self.lanes.get_mut(room).filter(|lane| lane.token() == token) else { return };
        let after = lane.read_page(page, shared.now_ns, watermarks(&self.gateways));
        self.read_on(room, after, shared);
        self.advance(room, shared);
    }

    /// Reads the room's entries after this position, if there is one.
    pub(super) fn read_on(&self, room: &RoomId, after: Option<StreamId>, shared: &mut Shared) {
        if let (Some(lane), Some(after)) = (self.lanes.get(room), after) {
            shared.emit(Command::Read { shard: self.id, room: room.clone(), token: lane.token(), after });
        }
    }

    pub(in crate::worker) fn done(&mut self, done: Done, shared: &mut Shared) {
        let room = done.of.room;
        let Some(lane) = self.lanes.get_mut(&room).filter(|lane| lane.token() == done.of.token) else { return };
        match done.outcome {
            DoneOutcome::Resolved(state, resolved, rest) => {
                let to_commit = lane.resolved(state, resolved, rest, shared.now_ns);
                if let Some(fault) = &done.fault {
                    lane.suspect(fault);
                }
                if to_commit {
                    self.queue_commit(&room);
                }
                if let Some(Fault::Other(why)) = done.fault {
                    self.quarantine(&room, done.of.token, &why, shared);
                }
            }
            // That it is void has not helped.
            DoneOutcome::Panicked { stamp, message } if lane.is_poisoned(stamp) => {
                let why = format!("its job panicked again on event {stamp:?}: {message}");
                self.quarantine(&room, done.of.token, &why, shared);
            }
            DoneOutcome::Panicked { stamp, message } => {
                if lane.panicked(stamp, format!("the rules panicked: {message}")) {
                    shared.emit(Command::Warn(format!(
                        "rules of room {room} panicked on event {stamp:?}: {message}; its verdict is void ({RULES_FAILED})"
                    )));
                    self.reload_failed(&room, shared);
                }
            }
            DoneOutcome::Loaded(loaded) => self.loaded(&room, *loaded, shared),
            DoneOutcome::Wants(program, loading) => shared.emit(Command::Fetch { shard: self.id, program, loading }),
            DoneOutcome::Unloadable(why) => self.quarantine(&room, done.of.token, &why, shared),
        }
        self.advance(&room, shared);
    }

    pub(super) fn reload_failed(&mut self, room: &RoomId, shared: &mut Shared) {
        if self.lanes.get_mut(room).is_some_and(|lane| lane.reload_failed(|| shared.token())) {
            self.load_from(room, Place::default(), shared);
        }
    }

    fn loaded(&mut self, room: &RoomId, mut loaded: Loaded, shared: &mut Shared) {
        let now = (self.clock(shared), shared.now_ns);
        let Some(lane) = self.lanes.get_mut(room) else { return };
        for deviation in std::mem::take(&mut loaded.deviations) {
            shared.emit(Command::Warn(format!("room {room}: replay differs from the record, which stands: {deviation}")));
        }
        match lane.restored(loaded, now, watermarks(&self.gateways)) {
            Restored::Discarded => {}
            Restored::Live(after) => self.read_on(room, after, shared),
            Restored::LookAgain => self.load_from(room, Place::default(), shared),
            Restored::Gone => self.remove_lane(room),
        }
    }

    pub(in crate::worker) fn room_ended(&mut self, room: &RoomId, token: u64, ended: bool, shared: &mut Shared) {
        let Some(lane) = self.lanes.get_mut(room).filter(|lane| lane.token() == token) else { return };
        if !ended {
            let after = lane.stay(shared.now_ns, watermarks(&self.gateways));
            self.read_on(room, after, shared);
            self.advance(room, shared);
        } else if lane.begin_again(|| shared.token()) {
            self.load_from(room, Place::default(), shared);
        } else {
            self.remove_lane(room);
        }
    }

    /// The room is gone, and its timers with it.
    fn remove_lane(&mut self, room: &RoomId) {
        if let Some(due_ns) = self.lanes.remove(room).and_then(|mut lane| lane.move_due(None)) {
            self.due.remove(&(due_ns, room.clone()));
        }
    }

    /// A room in which timers fire again and again rests between two commits only, where a tick may never meet it.
    pub(super) fn end_deserted(&mut self, room: &RoomId, shared: &mut Shared) {
        if let Some(lane) = self.lanes.get_mut(room).filter(|lane| lane.is_deserted() && !self.releasing) {
            end(self.id, self.lease, room, lane, shared);
        }
    }

    pub(super) fn tick_rooms(&mut self, shared: &mut Shared) {
        let mut awake = Vec::new();
        self.quarantined = self.lanes.values().filter(|lane| lane.is_quarantined()).count();
        for (room, lane) in &mut self.lanes {
            if lane.wake(shared.now_ns, || shared.token()) {
                awake.push(room.clone());
            } else if !self.releasing {
                end(self.id, self.lease, room, lane, shared);
            }
        }
        for room in awake {
            self.load_from(&room, Place::default(), shared);
        }
    }
}

fn end(shard: ShardId, lease: Lease, room: &RoomId, lane: &mut Lane, shared: &mut Shared) {
    if let Some(seq) = lane.end(shared.now_ns, shared.limits.room_linger_ns) {
        shared.emit(Command::EndRoom { shard, lease, room: room.clone(), token: lane.token(), seq });
    }
}

//! A shard's rooms: from the journal into memory, through their jobs, and out again when they are empty.

use super::*;

/// Owners lost in a row without a verdict in between, from which on a room's events are resolved alone. One is what every
/// crash leaves in the rooms that were busy: they go on in batches.
const DEATHS_SUSPICIOUS: u32 = 2;

impl Shard {
    pub(super) fn load(&mut self, room: &RoomId, shared: &mut Shared) {
        let mut lane = Lane::new(shared.token());
        let known = shared.limits.rules.knows(room);
        if !known {
            // Another worker may have some; this one will not get any.
            lane.phase = Phase::Quarantined { until_ns: u64::MAX };
        }
        self.lanes.insert(room.clone(), lane);
        if known {
            self.load_from(room, Place::default(), shared);
        } else {
            shared.emit(Command::Warn(format!("room {room} matches no pattern of the configuration: it is left alone")));
            self.halt(room, None, shared);
        }
    }

    pub(super) fn load_from(&self, room: &RoomId, place: Place, shared: &mut Shared) {
        let Some(lane) = self.lanes.get(room).map(|lane| lane.token) else { return };
        shared.emit(Command::Load { shard: self.id, room: room.clone(), lane, place });
    }

    /// Loads one stored room that nobody asked for yet; false when there is none.
    pub(in crate::worker) fn adopt_one(&mut self, shared: &mut Shared) -> bool {
        while let Some(room) = self.adopt.pop_front() {
            if !self.lanes.contains_key(&room) {
                self.load(&room, shared);
                return true;
            }
        }
        false
    }

    /// A page of a stored room was read: the next one is, or a job brings the room back. What an earlier lane of the room asked
    /// for may be of an earlier moment than what this one stands on.
    pub(in crate::worker) fn stored(&mut self, room: &RoomId, token: u64, place: Place, page: StoredPage, shared: &mut Shared) {
        let Some(lane) = self.lanes.get_mut(room).filter(|lane| lane.token == token) else { return };
        if lane.phase != Phase::Loading || lane.gathering.place() != place {
            return;
        }
        if !lane.gathering.add(page) {
            let place = lane.gathering.place();
            self.load_from(room, place, shared);
            return;
        }
        let stored = std::mem::take(&mut lane.gathering);
        let Some(rules) = shared.limits.rules.rules_for(room) else { return };
        let (shard, epoch, lane, id) = (self.id, self.lease.epoch, lane.token, room.clone());
        shared.permits.enqueue_load(Box::new(Loading { shard, epoch, lane, id, stored, rules }));
    }

    /// A page of entries after the lane's position was read. Nothing is released before the last one, which ends at the tail.
    pub(in crate::worker) fn read(&mut self, room: &RoomId, token: u64, page: &StoredPage, shared: &mut Shared) {
        let Some(lane) = self.lanes.get_mut(room).filter(|lane| lane.token == token) else { return };
        if !lane.reading {
            return;
        }
        lane.reading = page.next.is_some();
        let buffer = if lane.stale || lane.reading { Vec::new() } else { lane.buffer.take() };
        for (at, bytes) in page.entries.iter().chain(&buffer) {
            let gateways = &self.gateways;
            lane.take_in(*at, bytes, shared.now_ns, |g| gateways.get(&g).map_or(Moment::default(), |g| g.watermark));
        }
        if let Some(Place::Entries(after)) = page.next {
            shared.emit(Command::Read { shard: self.id, room: room.clone(), lane: token, after });
            return;
        }
        self.read_again(room, shared);
        self.advance(room, shared);
    }

    /// Reads on when what was read or loaded is older than the last survey.
    pub(super) fn read_again(&mut self, room: &RoomId, shared: &mut Shared) {
        if let Some(lane) = self.lanes.get_mut(room)
            && matches!(lane.phase, Phase::Idle | Phase::Busy)
            && std::mem::take(&mut lane.stale)
        {
            lane.reading = true;
            shared.emit(Command::Read { shard: self.id, room: room.clone(), lane: lane.token, after: lane.position });
        }
    }

    pub(in crate::worker) fn done(&mut self, done: Done, shared: &mut Shared) {
        let room = done.id;
        let Some(lane) = self.lanes.get_mut(&room).filter(|lane| lane.token == done.lane) else { return };
        // It was given up, and came back before the room was loaded again.
        if lane.phase == Phase::Failed {
            return;
        }
        match done.outcome {
            DoneOutcome::Resolved(state, resolved) => {
                lane.room = Some(state);
                lane.phase = Phase::Idle;
                lane.result_cursor = lane.hold.cursor(lane.position);
                lane.results = resolved;
                lane.resolved_ns = shared.now_ns;
                self.queue_commit(&room);
            }
            DoneOutcome::Panicked { stamp, message } => {
                shared.emit(Command::Warn(format!(
                    "rules of room {room} panicked on event {stamp:?}: {message}; its verdict is void ({RULES_FAILED})"
                )));
                lane.phase = Phase::Failed;
                lane.poisoned.insert(stamp);
                self.reload_failed(&room, shared);
            }
            // Of a room that is in memory, or rests, nothing else is brought back.
            DoneOutcome::Loaded(_) | DoneOutcome::Unloadable(_) if lane.phase != Phase::Loading => return,
            DoneOutcome::Loaded(loaded) => self.loaded(&room, *loaded, shared),
            DoneOutcome::Unloadable(why) => {
                self.quarantine(&room, &why, shared);
            }
        }
        self.advance(&room, shared);
    }

    pub(super) fn reload_failed(&mut self, room: &RoomId, shared: &mut Shared) {
        if let Some(lane) = self.lanes.get_mut(room)
            && lane.phase == Phase::Failed
            && !lane.committing
        {
            lane.replace(shared.token());
            self.load_from(room, Place::default(), shared);
        }
    }

    pub(super) fn loaded(&mut self, room: &RoomId, loaded: Loaded, shared: &mut Shared) {
        let Some(lane) = self.lanes.get_mut(room) else { return };
        for deviation in loaded.deviations {
            shared.emit(Command::Warn(format!("room {room}: replay differs from the record, which stands: {deviation}")));
        }
        let Some(state) = loaded.room else {
            // It ended meanwhile. What came in by bell belongs to a life that began after it was read, and what is asked for
            // now has it: if not, the room is not there, and only what comes after this is a reason to look again.
            let came = !lane.buffer.take().is_empty();
            if came | std::mem::take(&mut lane.stale) {
                self.load_from(room, Place::default(), shared);
            } else {
                self.lanes.remove(room);
            }
            return;
        };
        lane.hold = crate::engine::Resequencer::resume(state.sessions().map(|(s, _)| s), state.marks(), state.unproven());
        lane.room = Some(state);
        lane.phase = Phase::Idle;
        lane.cursor = loaded.cursor;
        lane.resume_trims(loaded.trims);
        lane.position = loaded.cursor;
        if let Some((seq, cursor, bytes)) = loaded.snapshot {
            lane.remember_snapshot(seq, bytes);
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
        let buffer = if lane.stale { Vec::new() } else { lane.buffer.take() };
        for (at, bytes) in buffer {
            lane.take_in(at, &bytes, shared.now_ns, watermark_of);
        }
        lane.position = lane.position.max(loaded.cursor);
        let until = Some(lane.position).filter(|tail| lane.cursor < *tail);
        let alone = lane.alone.is_some() || loaded.deaths >= DEATHS_SUSPICIOUS || loaded.attempts > 0;
        lane.watched = until.filter(|_| loaded.deaths > 0);
        lane.alone = until.filter(|_| alone);
        self.read_again(room, shared);
    }

    pub(in crate::worker) fn room_ended(&mut self, room: &RoomId, ended: bool, shared: &mut Shared) {
        let Some(lane) = self.lanes.get_mut(room) else { return };
        if lane.phase != Phase::Ending {
            return;
        }
        let mut buffer = std::mem::take(&mut lane.buffer);
        let stale = lane.stale;
        if ended {
            self.lanes.remove(room);
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
                for (at, bytes) in buffer.take() {
                    lane.take_in(at, &bytes, shared.now_ns, |g| gateways.get(&g).map_or(Moment::default(), |g| g.watermark));
                }
            }
            self.read_again(room, shared);
            self.advance(room, shared);
        }
    }

    pub(super) fn tick_rooms(&mut self, shared: &mut Shared) {
        let mut reload = Vec::new();
        self.quarantined = self.lanes.values().filter(|lane| matches!(lane.phase, Phase::Quarantined { .. })).count();
        for (room, lane) in &mut self.lanes {
            match lane.phase {
                Phase::Quarantined { until_ns } if shared.now_ns >= until_ns => reload.push(room.clone()),
                Phase::Idle if !self.releasing && lane.is_deserted() && lane.cursor >= lane.position => {
                    let since = *lane.empty_since_ns.get_or_insert(shared.now_ns);
                    if shared.now_ns.saturating_sub(since) >= shared.limits.room_linger_ns {
                        lane.phase = Phase::Ending;
                        let seq = lane.room.as_ref().map_or(0, |r| r.seq());
                        shared.emit(Command::EndRoom { shard: self.id, lease: self.lease, room: room.clone(), seq });
                    }
                }
                _ => {}
            }
        }
        for room in reload {
            if let Some(lane) = self.lanes.get_mut(&room) {
                lane.replace(shared.token());
                self.load_from(&room, Place::default(), shared);
            }
        }
    }
}

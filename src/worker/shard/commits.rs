//! A shard's commits: one in flight at a time, with everything that was resolved since the last one.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::Shard;
use crate::journal::{AheadPart, Commit, CommitSnapshot, Committed};
use crate::limits::SNAPSHOT_BYTES_MAX;
use crate::types::{Incarnation, RoomId};
use crate::wire::push;
use crate::worker::job::Tally;
use crate::worker::lane::Departure;
use crate::worker::state::Shared;
use crate::worker::step::Command;

impl Shard {
    pub(super) fn queue_commit(&mut self, room: &RoomId) {
        if let Some(lane) = self.lanes.get_mut(room)
            && lane.queue_commit()
        {
            self.resolved.push_back(room.clone());
        }
    }

    /// A part of a snapshot was written ahead. The next part follows, or a commit refers to all of them.
    pub(in crate::worker) fn written_ahead(&mut self, room: &RoomId, part: &AheadPart, shared: &mut Shared) {
        let Some(lane) = self.lanes.get_mut(room) else { return };
        match lane.written_ahead(part) {
            Some(part) => shared.emit(Command::WriteAhead { shard: self.id, lease: self.lease, room: room.clone(), part }),
            None if lane.has_more() => self.queue_commit(room),
            None => {}
        }
    }

    /// Sends the next commit, if none is in flight.
    pub(in crate::worker) fn try_commit(&mut self, shared: &mut Shared) {
        if self.in_flight.is_some() || self.resolved.is_empty() {
            return;
        }
        let (mut rooms, mut taken, mut tally) = (Vec::new(), Vec::new(), Tally::default());
        let (mut count, mut bytes) = (0, 0);
        let mut pushes: BTreeMap<Incarnation, Vec<usize>> = BTreeMap::new();
        let bounds = shared.limits.bounds;
        while count < bounds.commit_verdicts_max
            && bytes < bounds.commit_bytes_max
            && let Some(room) = self.resolved.pop_front()
        {
            let Some(lane) = self.lanes.get_mut(&room) else { continue };
            let pattern_of = || shared.limits.rules.pattern_of(&room).unwrap_or_default().to_owned();
            let departure = lane.depart(&room, shared.now_ns, &bounds, shared.limits.retention_ms, pattern_of);
            let Some(Departure { commit, resolved, waited_ns, ahead }) = departure else { continue };
            if let Some((large, part)) = ahead {
                if large > SNAPSHOT_BYTES_MAX {
                    let (mib, max) = (large >> 20, SNAPSHOT_BYTES_MAX >> 20);
                    let why = "loading it may take seconds; its rules keep too much state";
                    shared.emit(Command::Warn(format!("room {room} has a snapshot of {mib} MiB, more than {max}: {why}")));
                }
                shared.emit(Command::WriteAhead { shard: self.id, lease: self.lease, room: room.clone(), part });
            }
            if let Some(CommitSnapshot::Whole(whole)) = &commit.snapshot {
                bytes += whole.len();
            }
            if let Some(resolved) = resolved {
                let verdicts = resolved.tally.total();
                count += verdicts;
                bytes += resolved.bytes();
                tally.add(resolved.tally);
                tally.waited_ns = tally.waited_ns.saturating_add(waited_ns.saturating_mul(verdicts as u64));
                for (gateway, _) in &resolved.pushes {
                    pushes.entry(*gateway).or_default().push(taken.len());
                }
                taken.push((room, resolved));
            }
            rooms.push(commit);
        }
        if rooms.is_empty() {
            return;
        }
        let pushes = pushes.into_iter().map(|(gateway, rooms)| {
            let parts: Vec<(&RoomId, u64, u64, &Bytes)> = rooms
                .iter()
                .filter_map(|i| {
                    let (room, result) = &taken[*i];
                    let (_, batch) = result.pushes.iter().find(|(g, _)| *g == gateway)?;
                    Some((room, result.from, result.to, batch))
                })
                .collect();
            (gateway, push::encode_verdicts((self.id, self.lease.server, self.commit.saturating_add(1)), parts.into_iter()))
        });
        let commit = Arc::new(Commit {
            shard: self.id,
            lease: self.lease,
            number: self.commit.saturating_add(1),
            pushes: pushes.collect(),
            rooms,
        });
        self.in_flight = Some(commit.clone());
        self.tally = tally;
        shared.emit(Command::Commit(commit.clone()));
        // Their lanes may go on while the commit is in flight.
        for part in &commit.rooms {
            self.enqueue(&part.room, shared);
        }
    }

    /// Takes the answer to a commit. Returns false if the lease is lost.
    pub(in crate::worker) fn committed(&mut self, number: u64, answer: &Committed, shared: &mut Shared) -> bool {
        let Some(commit) = self.in_flight.take_if(|c| c.number == number) else { return true };
        match answer {
            Committed::Fenced => return false,
            Committed::Done => {
                self.commit = number;
                shared.emit(Command::CountVerdicts(self.tally));
                for room in &commit.rooms {
                    if let Some(lane) = self.lanes.get_mut(&room.room) {
                        lane.committed();
                        if lane.has_more() {
                            self.queue_commit(&room.room);
                        }
                    }
                }
            }
            Committed::Refused(refused) => {
                // The stored rooms differ from this worker's. The other rooms are committed again under the same number.
                for room in refused {
                    shared.emit(Command::Warn(format!(
                        "room {room}: the stored room has another era or seq than this worker's, or is damaged; it is loaded again"
                    )));
                    self.load(room, shared);
                }
                let mut rest = Arc::unwrap_or_clone(commit);
                rest.rooms.retain(|r| !refused.contains(&r.room));
                rest.pushes = rest.pushes.iter().filter_map(|(to, push)| Some((*to, without(push, refused)?))).collect();
                if !rest.rooms.is_empty() {
                    let rest = Arc::new(rest);
                    self.in_flight = Some(rest.clone());
                    shared.emit(Command::Commit(rest));
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
}

/// A push of verdicts without some of its rooms. None if nothing is left.
fn without(push: &Bytes, refused: &[RoomId]) -> Option<Bytes> {
    // The worker has encoded the push itself. A gateway that misses one finds the gap with the next heads.
    let Ok(push::Push::Verdicts { shard, server, commit, mut rooms }) = push::decode(push) else { return None };
    rooms.retain(|part| !refused.contains(&part.room));
    (!rooms.is_empty()).then(|| push::encode(&push::Push::Verdicts { shard, server, commit, rooms }))
}

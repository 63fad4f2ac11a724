//! Rooms that may be the death of their worker, and rooms that are damaged: they hold up nobody else.
//!
//! A room is suspect when two owners in a row were lost before its next verdict, or when its rules had one event for too
//! long. Of all suspects of a worker one event is resolved at a time, on a thread of its own, and the attempt is counted in
//! the journal before: whoever does not come back from it leaves the count behind for the next owner (rule C6).

use super::{Shard, watermarks};
use crate::engine::RULES_FAILED;
use crate::limits::RULES_ATTEMPTS_MAX;
use crate::types::{Incarnation, RoomId};
use crate::wire::push;
use crate::worker::job::Job;
use crate::worker::state::Shared;
use crate::worker::step::Command;

impl Shard {
    /// Whether the lane's event is still under way, its commit included: until that is final, a death would be laid to it.
    pub(in crate::worker) fn is_on_trial(&self, room: &RoomId, token: u64) -> bool {
        self.lanes.get(room).is_some_and(|lane| lane.is_on_trial(token))
    }

    /// The lane may go on, if it still has something to go on with; its token.
    pub(in crate::worker) fn begin_trial(&mut self, room: &RoomId) -> Option<u64> {
        self.lanes.get_mut(room)?.attempt(self.releasing)
    }

    /// The attempt is counted: now it is made, or was the last one long ago.
    pub(in crate::worker) fn attempted(&mut self, room: &RoomId, token: u64, attempts: u32, shared: &mut Shared) {
        let Some(of) = self.lane_id(room).filter(|of| of.token == token) else { return };
        let Some(lane) = self.lanes.get_mut(room) else { return };
        let job = lane.start(true, of, self.releasing, &shared.limits.bounds, watermarks(&self.gateways));
        let Some(mut job) = job else {
            self.advance(room, shared);
            return;
        };
        if attempts > RULES_ATTEMPTS_MAX {
            for held in &job.events {
                shared.emit(Command::Warn(format!(
                    "room {room}: nobody came back from event {:?} in {RULES_ATTEMPTS_MAX} attempts; its verdict is void ({RULES_FAILED})",
                    held.stamp
                )));
                job.poisoned.insert(held.stamp);
            }
        }
        shared.permits.take();
        shared.emit(Command::Run(Job::Resolve(job)));
    }

    /// The rules do not come back. The room is loaded again, and goes on as a suspect; bringing it back only takes longer.
    pub(in crate::worker) fn overrun(&mut self, room: &RoomId, token: u64, shared: &mut Shared) {
        let Some(lane) = self.lanes.get_mut(room).filter(|lane| lane.token() == token) else { return };
        if !lane.overrun() {
            shared.emit(Command::Warn(format!("room {room}: its rules take long to bring it back; it waits for them")));
            return;
        }
        shared.emit(Command::Warn(format!("room {room}: its rules do not come to an end with one event; it is loaded again")));
        self.reload_failed(room, shared);
    }

    /// The room cannot be continued: it is quarantined, and loaded again after a while.
    pub(in crate::worker) fn quarantine(&mut self, room: &RoomId, token: u64, why: &str, shared: &mut Shared) {
        let Some(lane) = self.lanes.get_mut(room).filter(|lane| lane.token() == token) else { return };
        let retry_s = lane.quarantine(shared.now_ns, || shared.token());
        shared.emit(Command::Warn(format!("room {room} cannot be continued: {why}; tried again in {retry_s} s")));
        self.halt(room, None, shared);
    }

    /// Tells one gateway, or all, that the room is quarantined, so that it closes its sessions there.
    pub(super) fn halt(&self, room: &RoomId, gateway: Option<Incarnation>, shared: &mut Shared) {
        let known = shared.limits.rules.knows(room);
        let push = push::encode(&push::Push::Halted { shard: self.id, room: room.clone(), known });
        let told = self.gateways.iter().filter(|(told, g)| !g.fenced && gateway.is_none_or(|gateway| gateway == **told));
        for (gateway, _) in told {
            shared.emit(Command::Publish { gateway: *gateway, push: push.clone(), answer: false });
        }
    }
}

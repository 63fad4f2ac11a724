//! Rooms that may be the death of their worker, and rooms that are damaged: they hold up nobody else.
//!
//! A room is suspect when two owners in a row were lost before its next verdict, or when its rules had one event for too
//! long. Of all suspects of a worker one event is resolved at a time, on a thread of its own, and the attempt is counted in
//! the journal before: whoever does not come back from it leaves the count behind for the next owner (rule C6).

use super::*;
use crate::limits::{QUARANTINE_MAX, QUARANTINE_MIN, RULES_ATTEMPTS_MAX};

impl Shard {
    /// Whether the lane's event is still under way, its commit included: until that is final, a death would be laid to it.
    pub(in crate::worker) fn is_on_trial(&self, room: &RoomId, lane: u64) -> bool {
        let under_way = |l: &Lane| l.attempting || l.phase == Phase::Busy || !l.results.is_empty() || l.committing;
        self.lanes.get(room).is_some_and(|l| l.token == lane && under_way(l))
    }

    /// The lane may go on, if it still has something to go on with; its number.
    pub(in crate::worker) fn begin_trial(&mut self, room: &RoomId) -> Option<u64> {
        let lane = self.lanes.get_mut(room)?;
        lane.queued = false;
        lane.attempting = lane.can_resolve() && !self.releasing;
        lane.attempting.then_some(lane.token)
    }

    /// The attempt is counted: now it is made, or was the last one long ago.
    pub(in crate::worker) fn attempted(&mut self, room: &RoomId, token: u64, attempts: u32, shared: &mut Shared) {
        let Some(lane) = self.lanes.get_mut(room).filter(|lane| lane.token == token) else { return };
        lane.attempting = false;
        let Some(Job::Resolve(mut job)) = self.take(room, true, &shared.limits.bounds) else {
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
        let Some(lane) = self.lanes.get_mut(room).filter(|lane| lane.token == token) else { return };
        if lane.phase != Phase::Busy {
            shared.emit(Command::Warn(format!("room {room}: its rules take long to bring it back; it waits for them")));
            return;
        }
        shared.emit(Command::Warn(format!("room {room}: its rules do not come to an end with one event; it is loaded again")));
        lane.phase = Phase::Failed;
        lane.alone = Some(lane.position);
        self.reload_failed(room, shared);
    }

    /// The room cannot go on: it rests, and is tried again after a while. What was resolved and not committed is resolved
    /// again then.
    pub(in crate::worker) fn quarantine(&mut self, room: &RoomId, why: &str, shared: &mut Shared) {
        let Some(lane) = self.lanes.get_mut(room) else { return };
        // Another step of before it rested says the same.
        if matches!(lane.phase, Phase::Quarantined { .. }) {
            return;
        }
        lane.replace(shared.token());
        let (least, most) = (QUARANTINE_MIN.as_secs(), QUARANTINE_MAX.as_secs());
        let rest_s = least.saturating_mul(1 << lane.failures.min(16)).min(most);
        lane.failures = lane.failures.saturating_add(1);
        lane.phase = Phase::Quarantined { until_ns: shared.now_ns.saturating_add(rest_s * 1_000_000_000) };
        shared.emit(Command::Warn(format!("room {room} cannot be continued: {why}; tried again in {rest_s} s")));
        self.halt(room, None, shared);
    }

    /// Tells a gateway, or all, that the room rests: its sessions there wait for nothing.
    pub(super) fn halt(&self, room: &RoomId, gateway: Option<Incarnation>, shared: &mut Shared) {
        let known = shared.limits.rules.knows(room);
        let push = push::encode(&push::Push::Halted { shard: self.id, room: room.clone(), known });
        let told = self.gateways.iter().filter(|(told, g)| !g.fenced && gateway.is_none_or(|gateway| gateway == **told));
        for (gateway, _) in told {
            shared.emit(Command::Publish { gateway: *gateway, push: push.clone(), answer: false });
        }
    }
}

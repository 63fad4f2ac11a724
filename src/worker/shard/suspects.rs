//! Rooms that may kill their worker, and rooms that are damaged. Neither holds up other rooms.
//!
//! A room is suspect if two owners in a row died before its next verdict, or if its rules did not return from an event in time. A
//! worker resolves one event of all its suspects at a time, on a thread of its own. The journal counts the attempt first, so
//! that the next owner finds the count if this worker dies (rule C6).
//!
//! A room is suspect, too, if a program outside did not decide its events. Each such program has trials of its own, so that nobody else
//! waits for it. It cannot kill the worker, so as many of its rooms are on trial at once as its jobs may run.

use super::{Shard, watermarks};
use crate::engine::RULES_FAILED;
use crate::rules::Crew;
use crate::types::{Incarnation, RoomId, Stamp};
use crate::wire::push;
use crate::worker::job::Job;
use crate::worker::state::Shared;
use crate::worker::step::Command;

impl Shard {
    /// See [`Lane::is_on_trial`](crate::worker::lane::Lane::is_on_trial).
    pub(in crate::worker) fn is_on_trial(&self, room: &RoomId, token: u64) -> bool {
        self.lanes.get(room).is_some_and(|lane| lane.is_on_trial(token))
    }

    /// Begins the trial of a lane, if it can still go on. Returns its token.
    pub(in crate::worker) fn begin_trial(&mut self, room: &RoomId) -> Option<u64> {
        self.lanes.get_mut(room)?.attempt(self.releasing)
    }

    /// The attempt is counted. Resolves the event, which is void after too many attempts.
    pub(in crate::worker) fn attempted(&mut self, room: &RoomId, token: u64, attempts: u32, shared: &mut Shared) {
        let Some(of) = self.lane_id(room).filter(|of| of.token == token) else { return };
        let now = (self.clock(shared), shared.now_ns);
        let Some(lane) = self.lanes.get_mut(room) else { return };
        let crew = lane.crew;
        let job = lane.start(true, of, self.releasing, &shared.limits, now, watermarks(&self.gateways));
        let Some(mut job) = job else {
            self.advance(room, shared);
            return;
        };
        let most = shared.limits.rules.keep_of(room).attempts;
        if attempts > most && !lane.waits_for_its_program() {
            let outside = matches!(crew, Crew::Process { .. });
            let who = if outside { "its program did not decide" } else { "no worker survived" };
            let plural = if most == 1 { "" } else { "s" };
            let last = lane.fault().map(|why| format!(": {why}")).unwrap_or_default();
            for name in job.names() {
                shared.emit(Command::Warn(format!(
                    "room {room}: {who} event {name:?} in {most} attempt{plural}{last}; its verdict is void ({RULES_FAILED})"
                )));
                job.poisoned.insert(name, format!("{who} it in {most} attempt{plural}{last}"));
            }
        }
        shared.permits.take(crew, token);
        shared.emit(Command::Run(Job::Resolve(job)));
    }

    /// The rules have not returned in time. The room is loaded again and goes on as a suspect. A job that restores a room is
    /// waited for.
    pub(in crate::worker) fn overrun(&mut self, room: &RoomId, token: u64, hopeless: Option<Stamp>, shared: &mut Shared) {
        let Some(lane) = self.lanes.get_mut(room).filter(|lane| lane.token() == token) else { return };
        let why = || "its program does not return from it: what it does cannot be stopped".to_owned();
        if let Some(name) = hopeless.filter(|name| lane.panicked(*name, why())) {
            shared.emit(Command::Warn(format!(
                "room {room}: its program does not return from event {name:?}; its verdict is void ({RULES_FAILED})"
            )));
            self.reload_failed(room, shared);
            return;
        }
        if !lane.overrun() {
            shared.emit(Command::Warn(format!("room {room}: its rules take long to restore it; it waits for them")));
            return;
        }
        shared.emit(Command::Warn(format!("room {room}: its rules do not return from an event; it is loaded again")));
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
            shared.emit(Command::Publish { shard: self.id, gateway: *gateway, push: push.clone(), answer: false });
        }
    }
}

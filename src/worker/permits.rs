//! Which lane may go on: who waits for a permit, and who has one.

use std::collections::{BTreeSet, VecDeque};

use super::job::Loading;
use crate::limits::{LOADS_MAX, STUCK_JOBS_MAX};
use crate::types::{RoomId, ShardId};

/// Permits to resolve, and to bring rooms back.
#[derive(Debug, Default)]
pub(super) struct Permits {
    /// Lanes that have something to resolve.
    queue: VecDeque<(ShardId, RoomId)>,
    /// Permits that are out.
    resolving: usize,
    /// Stored rooms that are to be brought back: small ones, large ones.
    loads: [Loads; 2],
    /// Lanes whose next event is to be resolved alone.
    suspects: VecDeque<(ShardId, RoomId)>,
    /// The suspect that goes on. One at a time: an event that kills its worker leaves a mark on the right room (rule C6).
    trial: Option<(ShardId, RoomId, u64)>,
    /// Lanes whose job was given up: nobody waits for it, and its permit is free again.
    stuck: BTreeSet<u64>,
}

#[derive(Debug, Default)]
struct Loads {
    queue: VecDeque<Box<Loading>>,
    /// Lanes whose room is being brought back.
    running: BTreeSet<u64>,
}

impl Permits {
    /// The lane waits for its turn, a suspect for its trial.
    pub(super) fn enqueue(&mut self, shard: ShardId, room: &RoomId, suspect: bool) {
        let queue = if suspect { &mut self.suspects } else { &mut self.queue };
        queue.push_back((shard, room.clone()));
    }

    /// The next lane that may go on, while fewer than `concurrency` do. Followed by [`Permits::take`] if it does.
    pub(super) fn next(&mut self, concurrency: usize) -> Option<(ShardId, RoomId)> {
        if self.resolving < concurrency { self.queue.pop_front() } else { None }
    }

    /// A job starts. A trial's starts beside the permits: there is one at most.
    pub(super) fn take(&mut self) {
        self.resolving += 1;
    }

    /// The lane's job is over, or given up. One that was given up has no permit any more.
    pub(super) fn free(&mut self, token: u64) {
        let loading = self.loads.iter_mut().any(|loads| loads.running.remove(&token));
        if !loading && !self.stuck.remove(&token) {
            self.resolving = self.resolving.saturating_sub(1);
        }
    }

    pub(super) fn enqueue_load(&mut self, job: Box<Loading>) {
        self.loads[usize::from(job.is_large())].queue.push_back(job);
    }

    /// The next stored room to be brought back, if one may be.
    pub(super) fn next_load(&mut self) -> Option<Box<Loading>> {
        let loads = self.loads.iter_mut().find(|loads| loads.running.len() < LOADS_MAX && !loads.queue.is_empty())?;
        let job = loads.queue.pop_front()?;
        loads.running.insert(job.of.token);
        Some(job)
    }

    /// Whether a lane or a stored room waits for a permit.
    pub(super) fn are_wanted(&self) -> bool {
        !self.queue.is_empty() || self.loads.iter().any(|loads| !loads.queue.is_empty())
    }

    /// The suspect that goes on.
    pub(super) fn trial(&self) -> Option<&(ShardId, RoomId, u64)> {
        self.trial.as_ref()
    }

    /// This suspect's lane goes on.
    pub(super) fn begin_trial(&mut self, shard: ShardId, room: RoomId, token: u64) {
        self.trial = Some((shard, room, token));
    }

    /// The trial is over: who waits for the next one.
    pub(super) fn next_suspect(&mut self) -> Option<(ShardId, RoomId)> {
        self.trial = None;
        self.suspects.pop_front()
    }

    /// The lane's job is given up. False when it was before.
    pub(super) fn give_up(&mut self, token: u64) -> bool {
        if self.stuck.contains(&token) {
            return false;
        }
        self.free(token);
        self.stuck.insert(token)
    }

    /// Jobs that were given up and still run.
    pub(super) fn stuck_count(&self) -> usize {
        self.stuck.len()
    }

    /// Whether the rules keep so many threads that this worker may have no more.
    pub(super) fn are_used_up(&self) -> bool {
        self.stuck.len() >= STUCK_JOBS_MAX
    }
}

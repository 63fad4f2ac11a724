//! Permits to run jobs: which lanes wait for one, and which have one.

use std::collections::{BTreeSet, VecDeque};

use super::job::Loading;
use crate::limits::{LOADS_MAX, STUCK_JOBS_MAX};
use crate::types::{RoomId, ShardId};

/// Permits to resolve events, and to load rooms.
#[derive(Debug, Default)]
pub(super) struct Permits {
    /// Lanes that wait for a permit to resolve.
    queue: VecDeque<(ShardId, RoomId)>,
    /// How many lanes have such a permit.
    resolving: usize,
    /// Rooms to load: the small ones, and the large ones.
    loads: [Loads; 2],
    /// Lanes whose next event is to be resolved alone.
    suspects: VecDeque<(ShardId, RoomId)>,
    /// The suspect that goes on. There is at most one, so that the death of the worker counts against the right room (rule C6).
    trial: Option<(ShardId, RoomId, u64)>,
    /// Tokens of lanes whose job hangs. Its permit is free again.
    stuck: BTreeSet<u64>,
}

#[derive(Debug, Default)]
struct Loads {
    queue: VecDeque<Box<Loading>>,
    /// Tokens of the lanes whose room is being loaded.
    running: BTreeSet<u64>,
}

impl Permits {
    /// Puts a lane into the queue for permits, or a suspect into the queue for the trial.
    pub(super) fn enqueue(&mut self, shard: ShardId, room: &RoomId, suspect: bool) {
        let queue = if suspect { &mut self.suspects } else { &mut self.queue };
        queue.push_back((shard, room.clone()));
    }

    /// The next lane in the queue, if fewer than `concurrency` have a permit. The caller follows with [`Permits::take`] if it
    /// starts a job.
    pub(super) fn next(&mut self, concurrency: usize) -> Option<(ShardId, RoomId)> {
        if self.resolving < concurrency { self.queue.pop_front() } else { None }
    }

    /// Hands out a permit. A suspect's job takes one beyond the limit; there is at most one such job.
    pub(super) fn take(&mut self) {
        self.resolving += 1;
    }

    /// Takes back the permit of a lane's job, unless [`Permits::give_up`] already has.
    pub(super) fn free(&mut self, token: u64) {
        let loading = self.loads.iter_mut().any(|loads| loads.running.remove(&token));
        if !loading && !self.stuck.remove(&token) {
            self.resolving = self.resolving.saturating_sub(1);
        }
    }

    pub(super) fn enqueue_load(&mut self, job: Box<Loading>) {
        self.loads[usize::from(job.is_large())].queue.push_back(job);
    }

    /// The next room to load, if there is a permit.
    pub(super) fn next_load(&mut self) -> Option<Box<Loading>> {
        let loads = self.loads.iter_mut().find(|loads| loads.running.len() < LOADS_MAX && !loads.queue.is_empty())?;
        let job = loads.queue.pop_front()?;
        loads.running.insert(job.of.token);
        Some(job)
    }

    /// Whether a lane waits for a permit.
    pub(super) fn are_wanted(&self) -> bool {
        !self.queue.is_empty() || self.loads.iter().any(|loads| !loads.queue.is_empty())
    }

    pub(super) fn trial(&self) -> Option<&(ShardId, RoomId, u64)> {
        self.trial.as_ref()
    }

    pub(super) fn begin_trial(&mut self, shard: ShardId, room: RoomId, token: u64) {
        self.trial = Some((shard, room, token));
    }

    /// Ends the trial. Returns the next suspect in the queue.
    pub(super) fn next_suspect(&mut self) -> Option<(ShardId, RoomId)> {
        self.trial = None;
        self.suspects.pop_front()
    }

    /// Takes back the permit of a job that hangs. Returns false if that was done before.
    pub(super) fn give_up(&mut self, token: u64) -> bool {
        if self.stuck.contains(&token) {
            return false;
        }
        self.free(token);
        self.stuck.insert(token)
    }

    /// The number of jobs that hang.
    pub(super) fn stuck_count(&self) -> usize {
        self.stuck.len()
    }

    /// Whether so many jobs hang that this worker may start no more.
    pub(super) fn are_used_up(&self) -> bool {
        self.stuck.len() >= STUCK_JOBS_MAX
    }
}

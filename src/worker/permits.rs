//! Permits to run jobs: which lanes wait for one, and which have one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::job::Loading;
use crate::limits::{LOADS_MAX, STUCK_JOBS_MAX};
use crate::rules::Crew;
use crate::types::{RoomId, ShardId};

/// Permits to resolve events, and to load rooms.
#[derive(Debug, Default)]
pub(super) struct Permits {
    /// Who resolves: the rules inside the worker, programs in files, and each program outside.
    crews: BTreeMap<Crew, Resolvers>,
    /// Tokens of the lanes with a permit of a program.
    of_programs: BTreeMap<u64, Crew>,
    /// Rooms to load: the small ones, and the large ones.
    loads: [Loads; 2],
    /// Tokens of lanes whose job hangs. Its permit is free again.
    stuck: BTreeSet<u64>,
}

/// The permits of one crew: a program that is slow, or down, holds up its own rooms only.
#[derive(Debug, Default)]
struct Resolvers {
    /// Lanes that wait for a permit to resolve.
    queue: VecDeque<(ShardId, RoomId)>,
    /// How many lanes have such a permit.
    resolving: usize,
    /// Lanes whose next event is to be resolved alone.
    suspects: VecDeque<(ShardId, RoomId)>,
    /// The suspects that go on.
    trials: Vec<Trial>,
}

/// The lane of a suspect that goes on, and its token.
pub(super) type Trial = (ShardId, RoomId, u64);

#[derive(Debug, Default)]
struct Loads {
    queue: VecDeque<Box<Loading>>,
    /// Tokens of the lanes whose room is being loaded.
    running: BTreeSet<u64>,
}

impl Permits {
    /// Puts a lane into the queue for permits, or a suspect into the queue for the trial.
    pub(super) fn enqueue(&mut self, shard: ShardId, room: &RoomId, crew: Crew, suspect: bool) {
        let crew = self.crews.entry(crew).or_default();
        let queue = if suspect { &mut crew.suspects } else { &mut crew.queue };
        queue.push_back((shard, room.clone()));
    }

    /// The next lane in a queue, if fewer than `concurrency`, or than a program outside may have, have a permit. The caller follows
    /// with [`Permits::take`] if it starts a job.
    pub(super) fn next(&mut self, concurrency: usize) -> Option<(ShardId, RoomId, Crew)> {
        self.crews.iter_mut().find_map(|(crew, resolvers)| {
            let most = if let Crew::Process { jobs, .. } = crew { *jobs } else { concurrency };
            let (shard, room) = if resolvers.resolving < most { resolvers.queue.pop_front() } else { None }?;
            Some((shard, room, *crew))
        })
    }

    /// Hands out a permit. A suspect's job takes one beyond the limit; there are as many such jobs as trials.
    pub(super) fn take(&mut self, crew: Crew, token: u64) {
        self.crews.entry(crew).or_default().resolving += 1;
        if crew != Crew::Inside {
            self.of_programs.insert(token, crew);
        }
    }

    /// Takes back the permit of a lane's job, unless [`Permits::give_up`] already has.
    pub(super) fn free(&mut self, token: u64) {
        let loading = self.loads.iter_mut().any(|loads| loads.running.remove(&token));
        if !loading && !self.stuck.remove(&token) {
            let crew = self.crews.entry(self.of_programs.remove(&token).unwrap_or_default()).or_default();
            crew.resolving = crew.resolving.saturating_sub(1);
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

    /// Whether a room waits to be loaded, or for the rules inside the worker. One that waits for a program holds up its own kind only.
    pub(super) fn are_wanted(&self) -> bool {
        self.crews.get(&Crew::Inside).is_some_and(|crew| !crew.queue.is_empty())
            || self.loads.iter().any(|loads| !loads.queue.is_empty())
    }

    /// The crews with suspects, and those that go on.
    pub(super) fn trials(&self) -> Vec<(Crew, Vec<Trial>)> {
        let there = self.crews.iter().filter(|(_, crew)| !crew.trials.is_empty() || !crew.suspects.is_empty());
        there.map(|(crew, resolvers)| (*crew, resolvers.trials.clone())).collect()
    }

    pub(super) fn begin_trial(&mut self, crew: Crew, shard: ShardId, room: RoomId, token: u64) {
        self.crews.entry(crew).or_default().trials.push((shard, room, token));
    }

    pub(super) fn end_trial(&mut self, crew: Crew, token: u64) {
        self.crews.entry(crew).or_default().trials.retain(|(_, _, other)| *other != token);
    }

    /// The next suspect in a crew's queue, if it may go on. The death of the worker counts against the right room if it is the only one
    /// (rule C6). A program outside does not kill the worker: as many of its rooms go on as it has jobs.
    pub(super) fn next_suspect(&mut self, crew: Crew) -> Option<(ShardId, RoomId)> {
        let most = if let Crew::Process { jobs, .. } = crew { jobs } else { 1 };
        let resolvers = self.crews.get_mut(&crew)?;
        if resolvers.trials.len() < most { resolvers.suspects.pop_front() } else { None }
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

#[cfg(test)]
mod tests {
    use super::*;

    const PROCESS: Crew = Crew::Process { number: 1, jobs: 2 };

    /// Puts that many rooms of a crew into the queue.
    fn waiting(crew: Crew, rooms: u64) -> Permits {
        let mut permits = Permits::default();
        let room = |n: u64| RoomId::new(&format!("room{n}")).expect("a name");
        (0..rooms).for_each(|n| permits.enqueue(ShardId(0), &room(n), crew, false));
        permits
    }

    /// Hands out all permits that there are.
    fn handed_out(permits: &mut Permits, concurrency: usize) -> usize {
        let mut count = 0;
        while let Some((_, _, crew)) = permits.next(concurrency) {
            count += 1;
            permits.take(crew, 100 * count);
        }
        usize::try_from(count).expect("few")
    }

    /// Programs that hang, in files or outside, hold up neither the built-in rules nor rooms that nobody has loaded yet.
    #[test]
    fn a_program_that_hangs_holds_up_its_own_rooms_only() {
        for (crew, jobs) in [(Crew::Files, 3), (PROCESS, 2)] {
            let mut permits = waiting(crew, 7);
            assert_eq!(handed_out(&mut permits, 3), jobs);
            assert!(!permits.are_wanted(), "stored rooms are loaded meanwhile");
            permits.enqueue(ShardId(0), &RoomId::new("pit").expect("a name"), Crew::Inside, false);
            assert!(permits.are_wanted());
            assert_eq!(handed_out(&mut permits, 3), 1);
            permits.free(100 * jobs as u64);
            assert_eq!(handed_out(&mut permits, 3), 1, "a permit goes back to whose it was");
        }
    }
}

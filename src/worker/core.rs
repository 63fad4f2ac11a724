//! The worker as a step function: what happened, and the time, in; commands out. It does no I/O and reads no clock.

mod answers;
mod trials;

use std::collections::{BTreeMap, BTreeSet};

use super::job::Job;
use super::ownership;
use super::shard::{Memory, Shard};
use super::state::Shared;
use super::step::{Command, Failure, Input, WorkerLimits};
use crate::journal::{Lease, Leased, WorkerRecord};
use crate::types::{Incarnation, ShardId};

/// Stored rooms that a tick brings into memory per shard when nothing else is to do.
const ADOPT_PER_TICK: usize = 16;

/// One worker.
#[derive(Debug)]
pub(crate) struct Core {
    me: Incarnation,
    shards_total: u16,
    shards: BTreeMap<ShardId, Shard>,
    claiming: BTreeSet<ShardId>,
    /// What is known of shards that were lost, for the next claim.
    memories: BTreeMap<ShardId, Memory>,
    /// Steps under way by shard. A shard that was lost is not claimed again before they are answered: an answer to an
    /// earlier ownership would pass for one to this.
    unanswered: BTreeMap<ShardId, usize>,
    /// Shards to claim once their owners are read.
    wanted: Vec<ShardId>,
    /// Shards whose living owner did not list them when they were last looked for.
    suspected: BTreeMap<ShardId, Lease>,
    living: Vec<WorkerRecord>,
    shared: Shared,
    heartbeat_at_ns: u64,
    ticked_at_ns: u64,
    /// Until then no gateway's silence counts.
    excused_until_ns: u64,
    stopping: bool,
}

impl Core {
    /// A worker that owns nothing yet.
    #[must_use]
    pub(crate) fn new(me: Incarnation, shards_total: u16, limits: WorkerLimits) -> Self {
        Self {
            me,
            shards_total,
            shards: BTreeMap::new(),
            claiming: BTreeSet::new(),
            memories: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            wanted: Vec::new(),
            suspected: BTreeMap::new(),
            living: Vec::new(),
            shared: Shared::new(limits),
            heartbeat_at_ns: 0,
            ticked_at_ns: 0,
            excused_until_ns: 0,
            stopping: false,
        }
    }

    /// The only way in: takes what happened, at `now_ns`.
    pub(crate) fn apply(&mut self, input: Input, now_ns: u64) {
        self.shared.now_ns = now_ns;
        match input {
            Input::Tick => self.tick(),
            Input::Stop => self.stop(),
            Input::ShardIsFree => self.heartbeat(),
            Input::Alive { living, failure } => self.alive(living, failure.as_ref()),
            Input::Owners(owners) => self.owners(&owners),
            Input::Claimed(shard, answer) => self.claimed(shard, answer),
            Input::Subscribed(shard) => self.subscribed(shard),
            Input::Bell(bell) => self.with(bell.shard, |shard, shared| shard.bell(bell, shared)),
            Input::Surveyed(shard, survey) => self.surveyed(shard, survey),
            Input::Stored { shard, room, token, place, page } => {
                self.answered(shard);
                self.with(shard, |shard, shared| shard.stored(&room, token, place, page, shared));
            }
            Input::Read { shard, room, token, page } => {
                self.answered(shard);
                self.with(shard, |shard, shared| shard.read(&room, token, &page, shared));
            }
            Input::WrittenAhead { shard, room, part, answer } => self.written_ahead(shard, &room, &part, &answer),
            Input::Done(done) => self.done(done),
            Input::Overrun(lane) => self.overrun(&lane),
            Input::Committed { shard, lease, number, answer } => self.committed(shard, lease, number, &answer),
            Input::Published(gateway, listeners) => {
                self.shards.values_mut().for_each(|shard| shard.published(gateway, listeners));
            }
            Input::Testified(shard, rooms) => self.testified(shard, rooms),
            Input::Fenced { shard, lease, answer } => self.fenced(shard, lease, &answer),
            Input::FenceFailed { shard, gateway, failure } => self.fence_failed(shard, gateway, &failure),
            Input::Forgotten { shard, lease, gateways, answer } => self.forgotten(shard, lease, &gateways, &answer),
            Input::DeathWritten(shard, answer) => self.death_written(shard, &answer),
            Input::Attempted { shard, room, token, answer } => self.attempted(shard, &room, token, &answer),
            Input::RoomEnded { shard, room, token, answer } => self.room_ended(shard, &room, token, &answer),
            Input::Damaged { shard, room, token, why } => {
                self.answered(shard);
                self.with(shard, |shard, shared| shard.quarantine(&room, token, &why, shared));
            }
            Input::Failed(failure) => self.failed(&failure),
        }
        self.hand_over();
    }

    /// What is to be done, in this order; empties the list. Starts as many jobs as there are permits. Commits what is
    /// resolved, unless quick jobs were started: they are done at once, and their results leave with the same commit.
    pub(crate) fn take_commands(&mut self) -> Vec<Command> {
        if !self.start_jobs() {
            for shard in self.shards.values_mut() {
                shard.try_commit(&mut self.shared);
            }
            // A lane whose result has left may go on.
            self.start_jobs();
            self.start_trial();
            self.hand_over();
        }
        let commands = self.shared.take_commands();
        for shard in commands.iter().filter_map(Command::answered_to) {
            *self.unanswered.entry(shard).or_default() += 1;
        }
        commands
    }

    fn answered(&mut self, shard: ShardId) {
        if let Some(count) = self.unanswered.get_mut(&shard) {
            *count -= 1;
            if *count == 0 {
                self.unanswered.remove(&shard);
            }
        }
    }

    /// Whether a quick one is among them.
    fn start_jobs(&mut self) -> bool {
        while let Some(job) = self.shared.permits.next_load() {
            self.shared.emit(Command::Run(Job::Load(job)));
        }
        let mut quick = false;
        while let Some((shard, room)) = self.shared.permits.next(self.shared.limits.concurrency) {
            if let Some(job) = self.shards.get_mut(&shard).and_then(|s| s.start(&room, &self.shared.limits.bounds)) {
                self.shared.permits.take();
                quick |= job.is_quick();
                self.shared.emit(Command::Run(job));
            }
        }
        quick
    }

    /// Rooms that are left alone for now, as of about a second ago.
    #[must_use]
    pub(crate) fn quarantined_count(&self) -> usize {
        self.shards.values().map(|s| s.quarantined).sum()
    }

    /// Shards that this worker owns.
    pub(crate) fn owned(&self) -> impl Iterator<Item = ShardId> + '_ {
        self.shards.keys().copied()
    }

    /// Rooms in memory.
    #[must_use]
    pub(crate) fn room_count(&self) -> usize {
        self.shards.values().map(|s| s.lanes.len()).sum()
    }

    fn with(&mut self, shard: ShardId, f: impl FnOnce(&mut Shard, &mut Shared)) {
        if let Some(shard) = self.shards.get_mut(&shard) {
            f(shard, &mut self.shared);
        }
    }

    fn tick(&mut self) {
        let now_ns = self.shared.now_ns;
        let elapsed = if self.ticked_at_ns == 0 { 0 } else { now_ns.saturating_sub(self.ticked_at_ns) };
        self.ticked_at_ns = now_ns;
        if self.heartbeat_at_ns == 0 || now_ns.saturating_sub(self.heartbeat_at_ns) >= self.shared.limits.heartbeat_interval_ns {
            self.heartbeat_at_ns = now_ns;
            self.heartbeat();
        }
        let counted = if now_ns < self.excused_until_ns { 0 } else { elapsed };
        for (id, shard) in &mut self.shards {
            shard.tick(counted, &mut self.shared);
            // A death that is still under way needs its gateway's record.
            if !self.unanswered.contains_key(id) {
                shard.forget_gateways(&mut self.shared);
            }
            // Rooms that nobody asked for yet come in while nothing else waits for a permit.
            if !self.shared.permits.are_wanted() && !shard.releasing {
                for _ in 0..ADOPT_PER_TICK {
                    if !shard.adopt_one(&mut self.shared) {
                        break;
                    }
                }
            }
        }
    }

    fn heartbeat(&mut self) {
        self.heartbeat_without(&[]);
    }

    fn heartbeat_without(&mut self, freed: &[ShardId]) {
        let owned = self.shards.keys().copied().filter(|id| !freed.contains(id)).collect();
        self.shared.emit(Command::Heartbeat(owned));
    }

    fn alive(&mut self, living: Vec<WorkerRecord>, failure: Option<&Failure>) {
        if let Some(failure) = failure {
            self.failed(failure);
        }
        self.living = living;
        if self.stopping {
            return;
        }
        let mine: BTreeSet<ShardId> = self.shards.keys().copied().chain(self.claiming.iter().copied()).collect();
        let plan = ownership::plan(self.me, &mine, &self.living, self.shards_total);
        if let Some(shard) = plan.release.and_then(|id| self.shards.get_mut(&id)) {
            shard.releasing = true;
        }
        // Two that say they own one shard: the one that lost it may have nothing to commit, and would never find out.
        let others = self.living.iter().filter(|w| w.incarnation != self.me);
        let contested = others.flat_map(|w| &w.shards).any(|shard| self.shards.contains_key(shard));
        if !plan.claim.is_empty() || contested {
            self.wanted = plan.claim;
            self.shared.emit(Command::ReadOwners);
        }
    }

    fn others(&self) -> Vec<Incarnation> {
        self.living.iter().map(|w| w.incarnation).filter(|w| *w != self.me).collect()
    }

    fn owners(&mut self, owners: &[Option<Lease>]) {
        let newer =
            |id: ShardId, lease: Lease| owners.get(usize::from(id.0)).copied().flatten().is_some_and(|l| l.epoch > lease.epoch);
        let lost: Vec<ShardId> = self.shards.iter().filter(|(id, shard)| newer(**id, shard.lease)).map(|(id, _)| *id).collect();
        lost.into_iter().for_each(|shard| self.lose(shard));
        for shard in std::mem::take(&mut self.wanted) {
            let from = owners.get(usize::from(shard.0)).copied().flatten();
            let lives = |lease: Lease| lease.owner != self.me && self.living.iter().any(|w| w.incarnation == lease.owner);
            if self.stopping || self.shards.contains_key(&shard) || self.unanswered.contains_key(&shard) {
                continue;
            }
            // An owner that lives and does not say so twice in a row does not know it: its claim was never answered.
            if let Some(lease) = from.filter(|lease| lives(*lease))
                && self.suspected.insert(shard, lease) != Some(lease)
            {
                continue;
            }
            self.suspected.remove(&shard);
            self.claiming.insert(shard);
            self.shared.emit(Command::Claim { shard, from });
        }
    }

    fn claimed(&mut self, shard: ShardId, answer: Option<Leased<Lease>>) {
        self.claiming.remove(&shard);
        if let Some(Leased::Done(lease)) = answer {
            if self.stopping {
                let tell = self.others();
                self.shared.emit(Command::Release { shard, lease, tell });
                return;
            }
            self.shards.insert(shard, Shard::new(shard, lease, self.memories.remove(&shard)));
            self.shared.emit(Command::Follow(shard));
            self.heartbeat();
        }
    }

    fn stop(&mut self) {
        self.stopping = true;
        for shard in self.shards.values_mut() {
            shard.releasing = true;
        }
    }

    /// Whether everything was handed over.
    #[must_use]
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopping && self.shards.is_empty() && self.claiming.is_empty()
    }

    fn hand_over(&mut self) {
        let quiet: Vec<ShardId> = self.shards.iter().filter(|(_, s)| s.releasing && s.is_quiet()).map(|(id, _)| *id).collect();
        if !quiet.is_empty() {
            // First it is no longer said to be owned, then it is free, then the others are told: in this order they
            // find it free when they look.
            self.heartbeat_without(&quiet);
        }
        for id in quiet {
            if let Some(shard) = self.shards.remove(&id) {
                self.shared.emit(Command::Unfollow(id));
                let tell = self.others();
                self.shared.emit(Command::Release { shard: id, lease: shard.lease, tell });
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! The worker as a step function: inputs and the time go in, commands come out. It does no I/O and reads no clock.

mod answers;
mod away;
mod owners;
mod trials;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use self::away::Away;
use super::homes;
use super::job::Job;
use super::shard::{Memory, Shard};
use super::state::Shared;
use super::step::{Command, Input, WorkerLimits};
use crate::journal::{Beats, Lease, Leased, WorkerRecord};
use crate::limits::GATEWAYS_CHECKED_MAX;
use crate::types::{HostId, Incarnation, ShardId};

/// Gateways and workers whose locks one tick looks at.
const LOOKS_MAX: usize = 128;
/// In how many ticks a worker that stops hands its shards over.
const HAND_OVER_STEPS: usize = 8;
/// How long it waits to be told who lives.
const HAND_OVER_WAIT_NS: u64 = 100_000_000;
/// How many stored rooms a tick loads while no lane waits for a permit. Those who play share the journal and the cores with that, just
/// when shards move.
const ADOPT_PER_TICK: usize = 4;

/// One worker.
#[derive(Debug)]
pub(crate) struct Core {
    me: Incarnation,
    shards_total: u16,
    shards: BTreeMap<ShardId, Shard>,
    /// The shards whose claims are under way, and whether their homes change by that.
    claiming: BTreeMap<ShardId, bool>,
    /// What this worker knows of shards that it has lost, for its next claim.
    memories: BTreeMap<ShardId, Memory>,
    /// How many steps per shard are unanswered ([`Command::answered_to`]).
    unanswered: BTreeMap<ShardId, usize>,
    /// Shards whose stored owner lives, but did not list them in its last heartbeat; and since when.
    suspected: BTreeMap<ShardId, (Lease, u64)>,
    /// The living workers of this host.
    living: Vec<WorkerRecord>,
    /// Those of other hosts.
    abroad: Vec<WorkerRecord>,
    beats: Beats,
    homes: homes::Memory,
    /// The hosts that may be a home, with their URLs.
    eligible: BTreeMap<HostId, String>,
    /// What somebody has asked for since the last heartbeat.
    given: Vec<(ShardId, HostId)>,
    /// Workers whose locks were free while their heartbeats were still good, and the shards that their last heartbeat lists. The
    /// record of one that is gone never changes again.
    gone: BTreeMap<Incarnation, Option<Vec<ShardId>>>,
    /// Workers that went on beating although their locks were free. Their heartbeats alone tell.
    unlocked: BTreeSet<Incarnation>,
    /// Since when this worker owns more than its share.
    beyond_since_ns: Option<u64>,
    looked_at_ns: u64,
    /// Whether a look is under way.
    looking: bool,
    /// Whom the last look ended with.
    looked_last: Incarnation,
    /// When gateways were last chosen to be probed that were not heard of for long, and the last of those.
    checked_at_ns: u64,
    checked_last: (ShardId, Incarnation),
    shared: Shared,
    heartbeat_at_ns: u64,
    ticked_at_ns: u64,
    /// No gateway's silence counts until then (rule R5).
    excused_until_ns: u64,
    away: Away,
    stopping: bool,
    /// While it stops: since when, and how many shards it hands over with each tick. None until it was told who lives.
    stopped_at_ns: u64,
    hands_over: Option<usize>,
}

impl Core {
    /// A worker that owns nothing yet.
    #[must_use]
    pub(crate) fn new(me: Incarnation, shards_total: u16, limits: WorkerLimits) -> Self {
        Self {
            me,
            shards_total,
            shards: BTreeMap::new(),
            claiming: BTreeMap::new(),
            memories: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            suspected: BTreeMap::new(),
            living: Vec::new(),
            abroad: Vec::new(),
            beats: Beats::default(),
            homes: homes::Memory::default(),
            eligible: BTreeMap::new(),
            given: Vec::new(),
            gone: BTreeMap::new(),
            unlocked: BTreeSet::new(),
            beyond_since_ns: None,
            looked_at_ns: 0,
            looking: false,
            looked_last: Incarnation::NONE,
            checked_at_ns: 0,
            checked_last: (ShardId(0), Incarnation::NONE),
            shared: Shared::new(limits),
            heartbeat_at_ns: 0,
            ticked_at_ns: 0,
            excused_until_ns: 0,
            away: Away::default(),
            stopping: false,
            stopped_at_ns: 0,
            hands_over: None,
        }
    }

    /// Applies one input, at `now_ns`. Nothing else changes a core.
    pub(crate) fn apply(&mut self, input: Input, now_ns: u64) {
        self.shared.now_ns = now_ns;
        if self.shared.wall.1 == 0 {
            self.shared.wall.1 = now_ns;
        }
        match input {
            Input::Tick => self.tick(),
            Input::Due => self.each(Shard::fire_due),
            Input::Clock(epoch_ns) => {
                let back_ns = i64::try_from(i128::from(self.shared.wall.0) - i128::from(epoch_ns)).unwrap_or(0);
                self.shared.wall = (epoch_ns, now_ns);
                self.each(|shard, shared| shard.clock_stepped(back_ns, shared));
            }
            // Rooms change with their next event or timer.
            Input::Rules(rules) => self.shared.limits.rules = rules,
            Input::Stop => self.stop(),
            Input::ShardIsFree => self.heartbeat(),
            Input::Alive { living, beats, failure } => self.alive(living, beats, failure.as_ref()),
            Input::Give(shard, host) => self.give(shard, host),
            Input::Named(shard, lease, answer) => self.named(shard, lease, &answer),
            Input::Owners(owners) => self.owners(&owners),
            Input::Claimed(shard, answer) => self.claimed(shard, answer),
            Input::Subscribed(shard) => self.subscribed(shard),
            Input::Bell(bell) => self.with(bell.shard, |shard, shared| shard.bell(bell, shared)),
            Input::Surveyed(shard, survey) => self.surveyed(shard, survey),
            Input::Rooms(shard, page) => self.rooms(shard, page),
            Input::Stored { shard, room, token, place, page } => {
                self.answered(shard);
                self.with(shard, |shard, shared| shard.stored(&room, token, place, page, shared));
            }
            Input::Read { shard, room, token, page } => {
                self.answered(shard);
                self.with(shard, |shard, shared| shard.read(&room, token, &page, shared));
            }
            Input::WrittenAhead { shard, room, part, answer } => {
                self.leased(shard, answer, |shard, (), shared| shard.written_ahead(&room, &part, shared));
            }
            Input::Fetched(shard, loading) => {
                self.answered(shard);
                self.with(shard, |shard, shared| shard.fetched(loading, shared));
            }
            Input::Done(done) => self.done(done),
            Input::Overrun { of, hopeless } => self.overrun(&of, hopeless),
            Input::Committed { shard, lease, number, answer } => self.committed(shard, lease, number, &answer),
            Input::Published(shard, gateway, listeners) => {
                if let Some(shard) = self.shards.get_mut(&shard) {
                    shard.published(gateway, listeners);
                }
            }
            Input::Gone(who) => self.gone(&who),
            Input::Testified(shard, rooms) => self.testified(shard, rooms),
            Input::Fenced { shard, lease, answer } => self.fenced(shard, lease, &answer),
            Input::FenceFailed { shard, gateway, failure } => self.fence_failed(shard, gateway, &failure),
            Input::Forgotten { shard, lease, gateways, answer } => self.forgotten(shard, lease, &gateways, &answer),
            // The entry itself comes with its bell.
            Input::DeathWritten(shard, answer) => self.leased(shard, answer, |_, (), _| {}),
            Input::Attempted { shard, room, token, answer } => {
                self.leased(shard, answer, |shard, attempts, shared| shard.attempted(&room, token, attempts, shared));
            }
            Input::RoomEnded { shard, room, token, answer } => {
                self.leased(shard, answer, |shard, ended, shared| shard.room_ended(&room, token, ended, shared));
            }
            Input::Damaged { shard, room, token, why } => {
                self.answered(shard);
                self.with(shard, |shard, shared| shard.quarantine(&room, token, &why, shared));
            }
            Input::Failed(failure) => self.failed(&failure),
            Input::Away(failures) => self.parts_away(failures),
        }
        self.hand_over();
    }

    /// Takes the commands, in the order in which to carry them out. Starts as many jobs as there are permits. Then commits what
    /// is resolved, unless quick jobs are among them: the driver runs those at once, so that one commit carries all results.
    pub(crate) fn take_commands(&mut self) -> Vec<Command> {
        if !self.start_jobs() {
            for shard in self.shards.values_mut() {
                shard.try_commit(&mut self.shared);
            }
            // A lane may go on when a commit has taken its result.
            self.start_jobs();
            self.start_trials();
            self.hand_over();
        }
        let commands = self.shared.take_commands();
        for shard in commands.iter().filter_map(Command::answered_to) {
            *self.unanswered.entry(shard).or_default() += 1;
        }
        commands
    }

    /// Takes the answer to a step that only the holder of the lease may make.
    fn leased<T>(&mut self, shard: ShardId, answer: Leased<T>, then: impl FnOnce(&mut Shard, T, &mut Shared)) {
        self.answered(shard);
        match answer {
            Leased::Done(value) => self.with(shard, |shard, shared| then(shard, value, shared)),
            Leased::Lost => self.lose(shard),
        }
    }

    fn answered(&mut self, shard: ShardId) {
        if let Some(count) = self.unanswered.get_mut(&shard) {
            *count -= 1;
            if *count == 0 {
                self.unanswered.remove(&shard);
            }
        }
    }

    /// Starts as many jobs as there are permits. Returns whether a quick job is among them.
    fn start_jobs(&mut self) -> bool {
        while let Some(job) = self.shared.permits.next_load() {
            self.shared.emit(Command::Run(Job::Load(job)));
        }
        let mut quick = false;
        while let Some((shard, room, crew)) = self.shared.permits.next(self.shared.limits.concurrency) {
            if let Some(job) = self.shards.get_mut(&shard).and_then(|s| s.start(&room, &self.shared)) {
                self.shared.permits.take(crew, job.of().token);
                quick |= job.is_quick();
                self.shared.emit(Command::Run(job));
            }
        }
        quick
    }

    /// The number of rooms in quarantine, as of the last check.
    #[must_use]
    pub(crate) fn quarantined_count(&self) -> usize {
        self.shards.values().map(|s| s.quarantined).sum()
    }

    /// The shards that this worker owns.
    pub(crate) fn owned(&self) -> impl Iterator<Item = ShardId> + '_ {
        self.shards.keys().copied()
    }

    /// The number of rooms in memory.
    #[must_use]
    pub(crate) fn room_count(&self) -> usize {
        self.shards.values().map(|s| s.lanes.len()).sum()
    }

    /// The number of rooms in the fullest shard.
    #[must_use]
    pub(crate) fn fullest_shard(&self) -> usize {
        self.shards.values().map(|s| s.lanes.len()).max().unwrap_or_default()
    }

    /// When the next timer is due: a moment of this host's clock. [`Input::Due`] is to follow then.
    #[must_use]
    pub(crate) fn next_due_ns(&self) -> Option<u64> {
        self.shards.values().filter_map(Shard::next_due_ns).min()
    }

    fn each(&mut self, f: impl Fn(&mut Shard, &mut Shared)) {
        for shard in self.shards.values_mut() {
            f(shard, &mut self.shared);
        }
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
        if self.stopping {
            self.hand_over_next();
        }
        self.check_gateways();
        let mut adopts = ADOPT_PER_TICK;
        for (id, shard) in &mut self.shards {
            let is_excused = now_ns < self.excused_until_ns || self.away.is_excused(*id, now_ns);
            shard.tick(if is_excused { 0 } else { elapsed }, &mut self.shared);
            // A death that is not written yet needs its gateway's record.
            if !self.unanswered.contains_key(id) {
                shard.forget_gateways(&mut self.shared);
            }
            // Idle time loads rooms that no bell has named yet.
            if !self.shared.permits.are_wanted() && !shard.releasing {
                while adopts > 0 && shard.adopt_one(&mut self.shared) {
                    adopts -= 1;
                }
            }
        }
        self.look();
    }

    /// Lets some gateways be probed that were not heard of for long: each in each shard has its turn (rule N12).
    fn check_gateways(&mut self) {
        let now_ns = self.shared.now_ns;
        if now_ns.saturating_sub(self.checked_at_ns) < self.shared.limits.bounds.check_interval_ns {
            return;
        }
        self.checked_at_ns = now_ns;
        let of = |(id, shard): (&ShardId, &Shard)| {
            shard.quiet_gateways(now_ns).into_iter().map(|gateway| (*id, gateway)).collect::<Vec<_>>()
        };
        let quiet: BTreeSet<(ShardId, Incarnation)> = self.shards.iter().flat_map(of).collect();
        let after = (Bound::Excluded(self.checked_last), Bound::Unbounded);
        let next = quiet.range(after).chain(quiet.range(..=self.checked_last)).take(GATEWAYS_CHECKED_MAX);
        for (id, gateway) in next {
            self.checked_last = (*id, *gateway);
            if let Some(shard) = self.shards.get_mut(id) {
                shard.check_gateway(*gateway, &self.shared);
            }
        }
    }

    /// Looks at the locks of gateways that owe a watermark, and now and then at those of the other workers (rule R9).
    fn look(&mut self) {
        let mut who = std::mem::take(&mut self.shared.owing);
        if self.shared.now_ns.saturating_sub(self.looked_at_ns) >= self.shared.limits.look_interval_ns {
            self.looked_at_ns = self.shared.now_ns;
            who.extend(self.others().into_iter().filter(|worker| !self.unlocked.contains(worker)));
        }
        // Those beyond the bound have their turn with the next look.
        let after = (Bound::Excluded(self.looked_last), Bound::Unbounded);
        let looks: Vec<Incarnation> = who.range(after).chain(who.range(..=self.looked_last)).copied().take(LOOKS_MAX).collect();
        // One at a time: a file system may hang.
        if let Some(last) = looks.last()
            && !self.looking
        {
            (self.looking, self.looked_last) = (true, *last);
            self.shared.emit(Command::Look(looks));
        }
    }

    fn gone(&mut self, who: &[Incarnation]) {
        self.looking = false;
        for shard in self.shards.values_mut() {
            shard.gone(who, &mut self.shared);
        }
        let workers: Vec<Incarnation> = self.others().into_iter().filter(|worker| who.contains(worker)).collect();
        let known = self.gone.len();
        for worker in workers {
            self.gone.entry(worker).or_default();
        }
        if self.gone.len() > known {
            // Its answer says what the living own by now.
            self.heartbeat();
        }
    }

    fn heartbeat(&mut self) {
        self.heartbeat_without(&[]);
    }

    fn heartbeat_without(&mut self, freed: &[ShardId]) {
        let owned = self.shards.keys().copied().filter(|id| !freed.contains(id)).collect();
        self.shared.emit(Command::Heartbeat(owned));
    }

    fn claimed(&mut self, shard: ShardId, answer: Option<Leased<Lease>>) {
        let moves = self.claiming.remove(&shard).unwrap_or_default();
        self.away.claimed(shard, answer.is_none());
        match answer {
            Some(Leased::Done(lease)) if self.stopping => {
                let tell = self.others();
                self.shared.emit(Command::Release { shard, lease, tell });
            }
            Some(Leased::Done(lease)) => {
                self.shards.insert(shard, Shard::new(shard, lease, self.memories.remove(&shard), self.shared.now_ns));
                self.shared.emit(Command::Follow(shard));
                if moves {
                    self.tell_of_home(shard, lease.home);
                }
                self.heartbeat();
            }
            // Another was faster: another shard may still be free. But the same one is not tried at full speed.
            Some(Leased::Lost) => {
                let (now_ns, within_ns) = (self.shared.now_ns, self.shared.limits.heartbeat_interval_ns);
                if self.away.is_first_loss(shard, now_ns, within_ns) {
                    self.heartbeat();
                }
            }
            None => {}
        }
    }

    fn stop(&mut self) {
        (self.stopping, self.stopped_at_ns) = (true, self.shared.now_ns);
        // Its answer says who is there for the shards: in a reload, the successor has only just come.
        self.heartbeat();
    }

    /// Lets go of the next shards. The rooms of one wait until its next owner has read them: one after the other they wait a moment each,
    /// together they would wait for all.
    fn hand_over_next(&mut self) {
        // A journal that does not answer takes nothing over.
        let is_late = self.shared.now_ns.saturating_sub(self.stopped_at_ns) >= HAND_OVER_WAIT_NS;
        let Some(count) = self.hands_over.or_else(|| is_late.then_some(usize::MAX)) else { return };
        for shard in self.shards.values_mut().filter(|shard| !shard.releasing).take(count) {
            shard.releasing = true;
        }
    }

    /// Whether the worker was asked to stop and has handed over every shard.
    #[must_use]
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopping && self.shards.is_empty() && self.claiming.is_empty()
    }

    fn hand_over(&mut self) {
        let quiet: Vec<ShardId> = self.shards.iter().filter(|(_, s)| s.releasing && s.is_quiet()).map(|(id, _)| *id).collect();
        if !quiet.is_empty() {
            // In this order the others find the shards free when they look: first no heartbeat lists them, then they are
            // released, then the others are told.
            self.heartbeat_without(&quiet);
        }
        for id in quiet {
            if let Some(shard) = self.shards.remove(&id) {
                self.shared.emit(Command::Unfollow(id));
                let mut tell = self.others();
                tell.extend(shard.successor().into_iter().flat_map(|host| self.workers_of(host)));
                self.shared.emit(Command::Release { shard: id, lease: shard.lease, tell });
            }
        }
    }
}

#[cfg(test)]
mod tests;

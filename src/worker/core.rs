//! The worker as a step function: what happened, and the time, in; actions out. It does no I/O and reads no clock.

mod answers;
mod trials;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::job::{Done, Job, Loading, Tally};
use super::lane::Lane;
use super::ownership;
use super::shard::{Memory, Shard};
use crate::journal::{
    AheadPart, Bell, Commit, Committed, FlushEntry, GatewayRecord, JournalError, Lease, Leased, Place, StoredPage, Survey,
    Witness, WorkerRecord,
};
use crate::limits::{Bounds, LOADS_MAX, REDIS_RESPONSE_TIMEOUT, RESUBSCRIBE_DELAY_MAX, RETRY_MAX};
use crate::rules::RulesBook;
use crate::types::{Incarnation, RoomId, ShardId, StreamId};

/// What bounds and drives a worker.
#[derive(Clone)]
pub(crate) struct WorkerLimits {
    /// How much is taken at once.
    pub bounds: Bounds,
    /// Which rules a room plays by.
    pub rules: RulesBook,
    /// This host's clock, for the moments of deaths and questions.
    pub timeline: u32,
    /// Rooms that are resolved at once.
    pub concurrency: usize,
    /// How long a gateway may owe a watermark before it is fenced.
    pub gateway_timeout_ns: u64,
    /// How long at most when nobody listens for it.
    pub deaf_timeout_ns: u64,
    /// How long gateways may take to say whether they have seen a commit whose outcome is unknown, when the journal has
    /// another server.
    pub rejoin_window_ns: u64,
    /// How often a lagging gateway is asked again.
    pub probe_interval_ns: u64,
    /// Whether the journal may come back without commits that it confirmed.
    pub commits_may_be_lost: bool,
    /// How often the worker says that it lives.
    pub heartbeat_interval_ns: u64,
    /// How long that is good for.
    pub lease_ms: u64,
    /// How long a room may be empty before it ends.
    pub room_linger_ns: u64,
    /// How long resolved events and verdicts are kept.
    pub retention_ms: u64,
}

impl std::fmt::Debug for WorkerLimits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerLimits").field("concurrency", &self.concurrency).finish_non_exhaustive()
    }
}

/// What the driver is to do. Answers come back through [`Core`]'s methods.
#[derive(Debug)]
pub(crate) enum Action {
    /// Say that this worker lives and owns these; answer with [`Core::alive`].
    Heartbeat(Vec<ShardId>),
    /// Answer with [`Core::owners`].
    ReadOwners,
    /// Answer with [`Core::claimed`].
    Claim { shard: ShardId, from: Option<Lease> },
    /// Then tell these workers that a shard is free ([`crate::wire::push::Push::Free`]). No answer needed.
    Release { shard: ShardId, lease: Lease, tell: Vec<Incarnation> },
    /// Subscribe the shard's bells; every (re)subscription comes in by [`Core::subscribed`], bells by [`Core::bell`].
    Follow(ShardId),
    /// No longer.
    Unfollow(ShardId),
    /// Answer with [`Core::surveyed`].
    Survey { shard: ShardId, rooms: bool },
    /// A page from this place on; answer with [`Core::stored`].
    Load { shard: ShardId, room: RoomId, lane: u64, place: Place },
    /// A page of entries; answer with [`Core::read`].
    Read { shard: ShardId, room: RoomId, lane: u64, after: StreamId },
    /// Answer with [`Core::written_ahead`].
    WriteAhead { shard: ShardId, lease: Lease, room: RoomId, part: AheadPart },
    /// Run it; answer with [`Core::done`].
    Run(Job),
    /// Again until it is answered; answer with [`Core::committed`].
    Commit(Arc<Commit>),
    /// Answer with [`Core::published`] when `answer` says so.
    Publish { gateway: Incarnation, push: Bytes, answer: bool },
    /// Answer with [`Core::testified`].
    Testify { shard: ShardId, witness: Witness },
    /// Answer with [`Core::fenced`].
    Fence { shard: ShardId, lease: Lease, gateway: Incarnation },
    /// Answer with [`Core::forgotten`].
    Forget { shard: ShardId, lease: Lease, gateways: Vec<Incarnation> },
    /// Answer with [`Core::death_written`].
    Death { shard: ShardId, lease: Lease, gateway: Incarnation, entry: FlushEntry },
    /// Answer with [`Core::attempted`].
    Attempt { shard: ShardId, lease: Lease, room: RoomId, lane: u64 },
    /// Answer with [`Core::room_ended`].
    EndRoom { shard: ShardId, lease: Lease, room: RoomId, seq: u64 },
    /// Verdicts became final.
    Count(Tally),
    /// So many rooms began a new era, because verdicts are missing or may be.
    RolledBack(u64),
    /// Something that whoever operates this should know.
    Complain(String),
}

/// What a step is about, for what its failure says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing but whether the journal takes steps.
    Ping,
    /// A shard, a gateway's record, the workers.
    Shared,
    /// One room.
    Room,
}

/// What the shards of a worker share: bounds, time, the queue for permits, and the list of actions.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) limits: WorkerLimits,
    pub(super) now_ns: u64,
    actions: Vec<Action>,
    queue: VecDeque<(ShardId, RoomId)>,
    running: usize,
    /// Stored rooms that are to be brought back: small ones, large ones.
    loads: [Loads; 2],
    /// Rooms whose next event is to be resolved alone.
    suspects: VecDeque<(ShardId, RoomId)>,
    /// The lane whose event is. One at a time: whoever dies of it leaves a mark on the right room (rule C6).
    trial: Option<(ShardId, RoomId, u64)>,
    /// Lanes whose job was given up: nobody waits for it, and its permit is free again.
    stuck: BTreeSet<u64>,
    tokens: u64,
}

#[derive(Debug, Default)]
struct Loads {
    queue: VecDeque<Box<Loading>>,
    /// Lanes whose room is being brought back.
    running: BTreeSet<u64>,
}

impl Shared {
    pub(super) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    /// A number that was never given before.
    pub(super) fn token(&mut self) -> u64 {
        self.tokens += 1;
        self.tokens
    }

    pub(super) fn enqueue_load(&mut self, job: Box<Loading>) {
        self.loads[usize::from(job.is_large())].queue.push_back(job);
    }

    /// The lane has something to resolve.
    pub(super) fn enqueue_lane(&mut self, shard: ShardId, room: &RoomId, lane: &mut Lane) {
        lane.queued = true;
        match lane.alone {
            None => self.queue.push_back((shard, room.clone())),
            Some(_) => self.suspects.push_back((shard, room.clone())),
        }
    }

    /// The lane's job is over, or given up. One that was given up has none any more.
    fn free_permit(&mut self, lane: u64) {
        let loading = self.loads.iter_mut().any(|loads| loads.running.remove(&lane));
        if !loading && !self.stuck.remove(&lane) {
            self.running = self.running.saturating_sub(1);
        }
    }

    /// Beside the permits: there is one at most.
    pub(super) fn run_alone(&mut self, job: Job) {
        self.running += 1;
        self.act(Action::Run(job));
    }
}

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
            shared: Shared {
                limits,
                now_ns: 0,
                actions: Vec::new(),
                queue: VecDeque::new(),
                running: 0,
                loads: Default::default(),
                suspects: VecDeque::new(),
                trial: None,
                stuck: BTreeSet::new(),
                tokens: 0,
            },
            heartbeat_at_ns: 0,
            ticked_at_ns: 0,
            excused_until_ns: 0,
            stopping: false,
        }
    }

    /// What is to be done, in this order; empties the list. Starts as many jobs as there are permits. Commits what is
    /// resolved, unless quick jobs were started: they are done at once, and their results leave with the same commit.
    pub(crate) fn take_actions(&mut self) -> Vec<Action> {
        if !self.start_jobs() {
            for shard in self.shards.values_mut() {
                shard.try_commit(&mut self.shared);
            }
            // A lane whose result has left may go on.
            self.start_jobs();
            self.start_trial();
            self.hand_over();
        }
        let actions = std::mem::take(&mut self.shared.actions);
        for action in &actions {
            if let Action::Survey { shard, .. }
            | Action::Load { shard, .. }
            | Action::Read { shard, .. }
            | Action::WriteAhead { shard, .. }
            | Action::Death { shard, .. }
            | Action::Attempt { shard, .. }
            | Action::Testify { shard, .. }
            | Action::EndRoom { shard, .. } = action
            {
                *self.unanswered.entry(*shard).or_default() += 1;
            }
        }
        actions
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
        for loads in &mut self.shared.loads {
            while loads.running.len() < LOADS_MAX
                && let Some(job) = loads.queue.pop_front()
            {
                loads.running.insert(job.lane);
                self.shared.actions.push(Action::Run(Job::Load(job)));
            }
        }
        let mut quick = false;
        while self.shared.running < self.shared.limits.concurrency
            && let Some((shard, room)) = self.shared.queue.pop_front()
        {
            if let Some(job) = self.shards.get_mut(&shard).and_then(|s| s.start(&room, &self.shared.limits.bounds)) {
                self.shared.running += 1;
                quick |= job.is_quick();
                self.shared.actions.push(Action::Run(job));
            }
        }
        quick
    }

    /// What the journal holds of a room is damaged: the answer to any step for this room alone.
    pub(crate) fn damaged(&mut self, shard: ShardId, room: &RoomId, why: &str, now_ns: u64) {
        self.answered(shard);
        self.with(shard, now_ns, |shard, shared| shard.quarantine(room, why, shared));
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

    #[cfg(test)]
    pub(super) fn shard_mut(&mut self, shard: ShardId) -> &mut Shard {
        self.shards.get_mut(&shard).expect("an owned shard")
    }

    fn with(&mut self, shard: ShardId, now_ns: u64, f: impl FnOnce(&mut Shard, &mut Shared)) {
        self.shared.now_ns = now_ns;
        if let Some(shard) = self.shards.get_mut(&shard) {
            f(shard, &mut self.shared);
        }
        self.hand_over();
    }

    /// Time passes. Call about every [`crate::limits::PROBE_INTERVAL`].
    pub(crate) fn tick(&mut self, now_ns: u64) {
        let elapsed = if self.ticked_at_ns == 0 { 0 } else { now_ns.saturating_sub(self.ticked_at_ns) };
        self.ticked_at_ns = now_ns;
        self.shared.now_ns = now_ns;
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
            let waiting = !self.shared.queue.is_empty() || self.shared.loads.iter().any(|loads| !loads.queue.is_empty());
            if !waiting && !shard.releasing {
                for _ in 0..ADOPT_PER_TICK {
                    if !shard.adopt_one(&mut self.shared) {
                        break;
                    }
                }
            }
        }
        self.hand_over();
    }

    fn heartbeat(&mut self) {
        self.heartbeat_without(&[]);
    }

    fn heartbeat_without(&mut self, freed: &[ShardId]) {
        let owned = self.shards.keys().copied().filter(|id| !freed.contains(id)).collect();
        self.shared.act(Action::Heartbeat(owned));
    }

    /// The answer to [`Action::Heartbeat`].
    pub(crate) fn alive(&mut self, living: Vec<WorkerRecord>, now_ns: u64) {
        self.shared.now_ns = now_ns;
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
            self.shared.act(Action::ReadOwners);
        }
        self.hand_over();
    }

    fn others(&self) -> Vec<Incarnation> {
        self.living.iter().map(|w| w.incarnation).filter(|w| *w != self.me).collect()
    }

    /// Another worker let a shard go: whoever lacks one looks at once.
    pub(crate) fn shard_is_free(&mut self, now_ns: u64) {
        self.shared.now_ns = now_ns;
        self.heartbeat();
    }

    /// The answer to [`Action::ReadOwners`].
    pub(crate) fn owners(&mut self, owners: &[Option<Lease>]) {
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
            self.shared.act(Action::Claim { shard, from });
        }
    }

    /// The answer to [`Action::Claim`]; None when its outcome is unknown.
    pub(crate) fn claimed(&mut self, shard: ShardId, answer: Option<Leased<Lease>>, now_ns: u64) {
        self.shared.now_ns = now_ns;
        self.claiming.remove(&shard);
        if let Some(Leased::Done(lease)) = answer {
            if self.stopping {
                let tell = self.others();
                self.shared.act(Action::Release { shard, lease, tell });
                return;
            }
            self.shards.insert(shard, Shard::new(shard, lease, self.memories.remove(&shard)));
            self.shared.act(Action::Follow(shard));
            self.heartbeat();
        }
    }

    /// Stops: every shard is handed over as soon as what it resolved is committed.
    pub(crate) fn stop(&mut self) {
        self.stopping = true;
        for shard in self.shards.values_mut() {
            shard.releasing = true;
        }
        self.hand_over();
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
                self.shared.act(Action::Unfollow(id));
                let tell = self.others();
                self.shared.act(Action::Release { shard: id, lease: shard.lease, tell });
            }
        }
    }
}

/// How long after this worker a gateway may find its way back to the journal: what it waits for an answer on a connection
/// that has gone silent, and its pause before it tries again. In nanoseconds.
pub(super) const EXCUSE_NS: u64 = (REDIS_RESPONSE_TIMEOUT.as_millis() + RETRY_MAX.as_millis()) as u64 * 1_000_000;
/// The same after a connection that broke: what a gateway's subscription and its next try may wait.
const BROKEN_EXCUSE_NS: u64 = (RESUBSCRIBE_DELAY_MAX.as_millis() + RETRY_MAX.as_millis()) as u64 * 1_000_000;
/// Stored rooms that a tick brings into memory per shard when nothing else is to do.
const ADOPT_PER_TICK: usize = 16;

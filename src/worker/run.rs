//! Drives a worker's [`Core`]: one loop that applies one input at a time, a task per journal step, a thread per job.

mod beats;
mod health;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quanta::Instant;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use super::core::Core;
use super::job::{Job, Progress};
use super::join::{Joined, WorkerError, join};
use super::library::{self, Shelf};
use super::listen::{follow, hear_of_shards, say_patterns};
use super::meters::Meters;
use super::programs::{self, Programs};
use super::release::Releases;
use super::step::{Command, Failure, Input, Scope, WorkerLimits};
use super::threads::Threads;
use super::wake::{Turn, Wake};
use super::watchdog::Watchdog;
use crate::clock;
use crate::journal::{self, JournalError, Leased, PageSize, Place, ProcessRecord, StoredPage, WorkerJournal};
use crate::limits::{
    Bounds, DEAF_TIMEOUT_MIN, DRAIN_TIMEOUT, LOOK_AFTER, LOOK_INTERVAL, PAGES_MAX, PROBE_INTERVAL, REJOIN_WINDOW, STUCK_JOBS_MAX,
};
use crate::metrics as names;
use crate::rules::RulesBook;
use crate::types::{RoomId, ShardId};

/// How many inputs may wait for the loop. The core bounds answers and jobs among them. When it is full, bells wait where they are.
const INPUTS_MAX: usize = 4096;

/// The settings of a worker.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// How many rooms are resolved at once.
    pub concurrency: usize,
    /// How long a gateway may owe a watermark before it is fenced.
    pub gateway_timeout: Duration,
    /// How long the rules may take over one event. Then the room stops waiting: the event is tried again, and void after too many
    /// attempts. Quick rules ([`crate::rules::Rules::is_quick`]) have no such limit: they run in the worker's own loop, and if they
    /// never return, other workers take over when its lease has run out.
    pub rules_timeout: Duration,
    /// How long a worker's heartbeat is valid: other workers take its shards over this long after it died.
    pub lease: Duration,
    /// How long a shard's home may be without a worker or a gateway before another host takes the shard over, 1.6 s to 10 minutes. None:
    /// two leases.
    pub rehome_after: Option<Duration>,
    /// How long a room may be empty before it ends.
    pub room_linger: Duration,
    /// How long the journal keeps resolved events and verdicts.
    pub retention: Duration,
    /// Counts the events whose verdicts are final, since the start. Keep a clone of it to see how far the worker is.
    pub resolved: Arc<std::sync::atomic::AtomicU64>,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self {
            concurrency: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            gateway_timeout: crate::limits::GATEWAY_TIMEOUT,
            rules_timeout: crate::limits::RULES_TIMEOUT,
            lease: crate::limits::LEASE_TIMEOUT,
            rehome_after: None,
            room_linger: crate::limits::ROOM_LINGER,
            retention: crate::limits::RETENTION,
            resolved: Arc::default(),
        }
    }
}

/// Resolves rooms until `stop`, then hands its shards over and returns. `health` tells what keeps the worker from working; None
/// while it works.
///
/// # Errors
/// When the journal does not work at the start (later, the worker waits for it), or when too many jobs of the rules never
/// returned.
pub async fn run(
    journal: Arc<dyn WorkerJournal>,
    rules: RulesBook,
    options: WorkerOptions,
    stop: CancellationToken,
    health: tokio::sync::watch::Sender<Option<String>>,
) -> Result<(), WorkerError> {
    let joined = join(journal).await?;
    run_joined(joined, programs::start(rules)?, options, stop, (health, tokio::sync::watch::Sender::new(None))).await
}

/// As [`run`], after the worker has joined: from here on it waits for a journal that does not work. The programs end with it.
///
/// # Errors
/// When too many jobs of the rules never returned.
pub(crate) async fn run_joined(
    joined: Joined,
    (rules, _programs): (RulesBook, Programs),
    options: WorkerOptions,
    stop: CancellationToken,
    (health, away): health::Told,
) -> Result<(), WorkerError> {
    let Joined { journal, record, pushes, lock: _lock } = joined;
    let me = record.incarnation;
    let ns = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let Some(rules) = library::settled(&*journal, rules, &stop).await else { return Ok(()) };
    let (shelf, told) = (Arc::new(Shelf::new(rules.clone())), Arc::new(Notify::new()));
    let limits = WorkerLimits {
        bounds: Bounds::default(),
        rules: rules.clone(),
        library: shelf.clone(),
        epoch_ns: clock::epoch_ns(),
        concurrency: options.concurrency.max(1),
        gateway_timeout_ns: ns(options.gateway_timeout),
        deaf_timeout_ns: ns((options.gateway_timeout / 4).max(DEAF_TIMEOUT_MIN)),
        rejoin_window_ns: ns(REJOIN_WINDOW),
        probe_interval_ns: ns(PROBE_INTERVAL),
        look_after_ns: ns(LOOK_AFTER),
        look_interval_ns: ns(LOOK_INTERVAL),
        commits_may_be_lost: journal.commits_may_be_lost(),
        host: record.host.clone(),
        rehome_after_ns: ns(options.rehome_after.unwrap_or(options.lease * 2)),
        heartbeat_interval_ns: ns(options.lease) / 4,
        lease_ms: ms(options.lease),
        room_linger_ns: ns(options.room_linger),
        retention_ms: ms(options.retention),
    };
    let (lease_ms, size, wake) = (limits.lease_ms, PageSize::of(&limits.bounds), Wake::new(limits.epoch_ns));
    let (releases, patterns, threads) =
        (Releases::new(journal.clone()), limits.rules.patterns(), Threads::new(limits.concurrency));
    let core = Core::new(me, journal.shards(), limits);
    tracing::info!(worker.id = %me, "worker started");
    let (inputs, receiver) = mpsc::channel(INPUTS_MAX);
    let news = tokio::spawn(hear_of_shards(pushes, told.clone(), inputs.clone()));
    let pushed = tokio::spawn(library::follow(journal.clone(), rules, told, inputs.clone()));
    let entered = tokio::spawn(say_patterns(journal.clone(), me, patterns, inputs.clone()));
    let worker = Worker {
        core,
        journal,
        record,
        lacks: Arc::default(),
        lease_ms,
        inputs,
        following: HashMap::new(),
        pages: Arc::new(Semaphore::new(PAGES_MAX)),
        size,
        quick: Vec::new(),
        watchdog: Watchdog::new(options.rules_timeout),
        threads,
        shelf,
        releases,
        meters: Arc::new(Meters::new(options.resolved)),
        health: health::Health::new(health, away),
    };
    let given_up = worker.run(receiver, wake, stop).await;
    [news, entered, pushed].iter().for_each(tokio::task::JoinHandle::abort);
    if given_up { Err(WorkerError::Rules(STUCK_JOBS_MAX)) } else { Ok(()) }
}

struct Worker {
    core: Core,
    journal: Arc<dyn WorkerJournal>,
    /// What it says of itself with each beat.
    record: ProcessRecord,
    /// The shards that the last ping did not reach.
    lacks: Arc<Mutex<BTreeSet<ShardId>>>,
    lease_ms: u64,
    inputs: mpsc::Sender<Input>,
    following: HashMap<ShardId, AbortHandle>,
    /// Permits to load a page of a room, so that other steps do not queue behind the pages of many rooms.
    pages: Arc<Semaphore>,
    size: PageSize,
    /// Quick jobs to run in this turn of the loop.
    quick: Vec<Job>,
    /// Watches the jobs that run on threads of their own.
    watchdog: Watchdog,
    /// What programs are decided on.
    threads: Threads,
    /// The programs that recorded rooms were decided by.
    shelf: Arc<Shelf>,
    releases: Releases,
    meters: Arc<Meters>,
    health: health::Health,
}

impl Worker {
    /// Runs until it is asked to stop, or until too many jobs of the rules hang: then it returns true.
    async fn run(mut self, mut receiver: mpsc::Receiver<Input>, mut wake: Wake, stop: CancellationToken) -> bool {
        let stop = stop.child_token();
        let mut stopping = false;
        let deadline = tokio::time::sleep(Duration::MAX / 4);
        tokio::pin!(deadline);
        while !self.core.is_stopped() {
            tokio::select! {
                biased;
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    deadline.as_mut().reset(tokio::time::Instant::now() + DRAIN_TIMEOUT / 2);
                    self.core.apply(Input::Stop, clock::monotonic_ns());
                }
                () = &mut deadline => {
                    tracing::warn!("shards could not be handed over in time; their leases run out");
                    break;
                }
                turn = wake.turn(&mut receiver) => match turn {
                    Turn::Input(input) => self.apply(input),
                    Turn::Due => self.core.apply(Input::Due, clock::monotonic_ns()),
                    Turn::Tick => {
                        if let Some(epoch_ns) = wake.stepped() {
                            self.core.apply(Input::Clock(epoch_ns), clock::monotonic_ns());
                        }
                        for (of, hopeless) in self.watchdog.overdue() {
                            metrics::counter!(names::RULES_OVERRUNS_TOTAL).increment(1);
                            self.threads.give_up(of.token);
                            self.core.apply(Input::Overrun { of, hopeless }, clock::monotonic_ns());
                        }
                        self.core.apply(Input::Tick, clock::monotonic_ns());
                        if self.core.has_given_up() {
                            stop.cancel();
                        }
                    }
                }
            }
            // One commit carries what follows from all inputs that wait.
            for _ in 0..INPUTS_MAX {
                let Ok(input) = receiver.try_recv() else { break };
                self.apply(input);
            }
            self.perform();
            wake.at(self.core.next_due_ns());
        }
        self.releases.say_goodbye(&self.record).await;
        self.core.has_given_up()
    }

    fn apply(&mut self, input: Input) {
        match &input {
            Input::Alive { failure: None, .. } => {
                self.health.alive();
            }
            Input::Away(failures) => self.health.away(failures),
            Input::Alive { failure: Some(failure), .. } | Input::FenceFailed { failure, .. } | Input::Failed(failure) => {
                self.health.failed(failure);
            }
            Input::Done(done) => {
                self.watchdog.done(done);
                self.threads.done(done.of.token);
            }
            Input::Fenced { answer: Leased::Done(_), .. } => metrics::counter!(names::GATEWAY_DEATHS_TOTAL).increment(1),
            _ => {}
        }
        self.core.apply(input, clock::monotonic_ns());
    }

    fn perform(&mut self) {
        loop {
            for command in self.core.take_commands() {
                self.carry_out(command);
            }
            // What follows from quick jobs is carried out in the same turn.
            let quick = std::mem::take(&mut self.quick);
            if quick.is_empty() {
                break;
            }
            let began = Instant::now();
            for job in quick {
                let done = self.meters.run(job, began, &Progress::default());
                self.core.apply(Input::Done(done), clock::monotonic_ns());
            }
        }
        self.meters.show(&self.core);
    }

    fn carry_out(&mut self, command: Command) {
        let journal = self.journal.clone();
        match command {
            Command::Heartbeat(owned) => self.heartbeat(owned),
            Command::ReadOwners => self.once("read owners", None, async move { journal.owners().await.map(Input::Owners) }),
            Command::Claim { shard, from, homing } => self.claim(shard, from, homing),
            Command::Name { shard, lease, to } => self.name(shard, lease, to),
            Command::Tell(process, push) => self.tell(process, push),
            Command::Release { shard, lease, tell } => self.releases.start(shard, lease, tell),
            Command::CountVerdicts(tally) => self.meters.count(tally),
            Command::Follow(shard) => {
                let task = tokio::spawn(follow(journal, shard, self.inputs.clone()));
                if let Some(old) = self.following.insert(shard, task.abort_handle()) {
                    old.abort();
                }
            }
            Command::Unfollow(shard) => {
                if let Some(task) = self.following.remove(&shard) {
                    task.abort();
                }
            }
            Command::Survey { shard, rooms } => self.insist(Scope::Shared, "survey", shard, move |journal| async move {
                journal.survey(shard, rooms).await.map(|survey| Input::Surveyed(shard, survey))
            }),
            Command::Rooms { shard, place, count } => self.insist(Scope::Shared, "survey", shard, move |journal| {
                let place = place.clone();
                async move { journal.rooms(shard, &place, count).await.map(|page| Input::Rooms(shard, page)) }
            }),
            Command::Load { shard, room, token, place } => {
                self.load("load room", (shard, room, token), place, move |room, page| Input::Stored {
                    shard,
                    room,
                    token,
                    place,
                    page,
                });
            }
            Command::Read { shard, room, token, after } => {
                let place = Place::Entries(after);
                self.load("read room", (shard, room, token), place, move |room, page| Input::Read { shard, room, token, page });
            }
            Command::Fetch { shard, program, loading } => {
                tokio::spawn(library::fetch(journal, self.shelf.clone(), (shard, program, loading), self.inputs.clone()));
            }
            Command::WriteAhead { shard, lease, room, part } => {
                self.insist_on_room("write snapshot ahead", (shard, room, part.name.lane), move |journal, room| {
                    let part = part.clone();
                    async move {
                        let answer = journal.write_ahead(shard, lease, &room, &part).await?;
                        Ok(Input::WrittenAhead { shard, room, part, answer })
                    }
                });
            }
            Command::Run(job) => {
                self.meters.waited(job.events());
                if job.is_quick() {
                    self.quick.push(job);
                    return;
                }
                let (inputs, meters, progress) = (self.inputs.clone(), self.meters.clone(), self.watchdog.start(&job));
                let (began, token, is_program) = (Instant::now(), job.of().token, job.is_program());
                let task = move || drop(inputs.blocking_send(Input::Done(meters.run(job, began, &progress))));
                if is_program {
                    self.threads.run(token, task);
                } else {
                    tokio::task::spawn_blocking(task);
                }
            }
            Command::Commit(commit) => {
                let meters = self.meters.clone();
                self.insist(Scope::Shared, "commit", commit.shard, move |journal| {
                    let (commit, meters) = (commit.clone(), meters.clone());
                    async move {
                        let began = Instant::now();
                        let answer = journal.commit(&commit).await?;
                        meters.committed(&commit, began);
                        Ok(Input::Committed { shard: commit.shard, lease: commit.lease, number: commit.number, answer })
                    }
                })
            }
            Command::Publish { shard, gateway, push, answer } => {
                let inputs = self.inputs.clone();
                tokio::spawn(async move {
                    let input = match journal.publish(Some(shard), gateway, push).await {
                        Ok(listeners) if answer => Input::Published(shard, gateway, listeners),
                        Ok(_) => return,
                        Err(error) => {
                            Input::Failed(Failure::new("publish", Scope::Shared, error).at(journal.beside(Some(shard))))
                        }
                    };
                    let _ = inputs.send(input).await;
                });
            }
            // On a thread of its own: a file system may hang.
            Command::Look(who) => {
                let inputs = self.inputs.clone();
                tokio::task::spawn_blocking(move || {
                    let _ = inputs.blocking_send(Input::Gone(journal.gone(&who)));
                });
            }
            Command::Testify { shard, witness } => self.insist(Scope::Shared, "testify", shard, move |journal| async move {
                journal.testify(shard, witness).await.map(|rooms| Input::Testified(shard, rooms))
            }),
            // Not repeated: a journal that refuses the fence may refuse the gateway's flushes, too, so its silence counts anew.
            Command::Fence { shard, lease, gateway } => self.once("fence", Some(shard), async move {
                let answer = journal.fence(shard, lease, gateway).await;
                Ok(match answer {
                    Ok(answer) => Input::Fenced { shard, lease, answer },
                    Err(error) => {
                        let failure = Failure::new("fence", Scope::Shared, error).at(journal.beside(Some(shard)));
                        Input::FenceFailed { shard, gateway, failure }
                    }
                })
            }),
            Command::Forget { shard, lease, gateways } => self.once("forget gateways", Some(shard), async move {
                let answer = journal.forget(shard, lease, &gateways).await?;
                Ok(Input::Forgotten { shard, lease, gateways, answer })
            }),
            Command::Death { shard, lease, token, gateway, entry } => {
                self.insist_on_room("write death", (shard, entry.room.clone(), token), move |journal, _| {
                    let entry = entry.clone();
                    async move {
                        journal.death(shard, lease, gateway, &entry).await.map(|answer| Input::DeathWritten(shard, answer))
                    }
                });
            }
            Command::Attempt { shard, lease, room, token, name } => {
                self.insist_on_room("count attempt", (shard, room, token), move |journal, room| async move {
                    let answer = journal.attempt(shard, lease, &room, name).await?;
                    Ok(Input::Attempted { shard, room, token, answer })
                });
            }
            Command::EndRoom { shard, lease, room, token, seq } => {
                self.insist_on_room("end room", (shard, room, token), move |journal, room| async move {
                    let answer = journal.end_room(shard, lease, &room, seq).await?;
                    Ok(Input::RoomEnded { shard, room, token, answer })
                });
            }
            Command::RolledBack(rooms) => {
                metrics::counter!(names::ROLLED_BACK_TOTAL).increment(rooms);
                tracing::error!(rooms, "the journal has lost delivered verdicts, or may have: rooms begin a new era");
            }
            Command::Warn(text) => tracing::warn!("{text}"),
        }
    }

    /// Runs a step once. When it fails, the core asks for it again.
    fn once(
        &self,
        what: &'static str,
        of: Option<ShardId>,
        step: impl Future<Output = Result<Input, JournalError>> + Send + 'static,
    ) {
        let (inputs, journal) = (self.inputs.clone(), self.journal.clone());
        tokio::spawn(async move {
            let failed = |error| Input::Failed(Failure::new(what, Scope::Shared, error).at(journal.beside(of)));
            let input = step.await.unwrap_or_else(failed);
            let _ = inputs.send(input).await;
        });
    }

    /// Loads a page of a room.
    fn load(
        &self,
        what: &'static str,
        of: (ShardId, RoomId, u64),
        place: Place,
        input: impl Fn(RoomId, StoredPage) -> Input + Copy + Send + 'static,
    ) {
        let (pages, size) = (self.pages.clone(), self.size);
        self.insist_on_room(what, of, move |journal, room| {
            let pages = pages.clone();
            async move {
                let _turn = pages.acquire().await;
                let page = journal.load(&room, place, size).await?;
                Ok(input(room, page))
            }
        });
    }

    /// [`Worker::insist`] for a step on one room, of the lane with this token. If the stored room is damaged, that is the answer.
    fn insist_on_room<F>(
        &self,
        what: &'static str,
        (shard, room, token): (ShardId, RoomId, u64),
        step: impl Fn(Arc<dyn WorkerJournal>, RoomId) -> F + Send + 'static,
    ) where
        F: Future<Output = Result<Input, JournalError>> + Send,
    {
        self.insist(Scope::Room, what, shard, move |journal| {
            let (step, room) = (step(journal, room.clone()), room.clone());
            async move {
                match step.await {
                    Err(error @ JournalError::Damaged(_)) => Ok(Input::Damaged { shard, room, token, why: error.to_string() }),
                    other => other,
                }
            }
        });
    }

    /// Repeats a step until its outcome is known.
    fn insist<F>(
        &self,
        scope: Scope,
        what: &'static str,
        of: ShardId,
        step: impl Fn(Arc<dyn WorkerJournal>) -> F + Send + 'static,
    ) where
        F: Future<Output = Result<Input, JournalError>> + Send,
    {
        let (journal, inputs) = (self.journal.clone(), self.inputs.clone());
        let beside = journal.clone();
        let step = move || step(journal.clone());
        tokio::spawn(async move {
            let failed = |error| inputs.send(Input::Failed(Failure::new(what, scope, error).at(beside.beside(Some(of)))));
            if let Ok(input) = journal::insist(step, failed).await {
                let _ = inputs.send(input).await;
            }
        });
    }
}

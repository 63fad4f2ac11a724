//! Drives a worker's [`Core`]: one loop that takes one input at a time, a task per journal step, a thread per job.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use quanta::Instant;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::core::{Action, Core, Step, WorkerLimits};
use super::elsewhere::Elsewhere;
use super::job::{Done, Job, Progress};
use super::join::{Joined, join};
use super::listen::{follow, hear_of_shards, stay_entered};
use super::stages::{Stages, count};
use crate::clock;
use crate::journal::{
    self, AheadPart, Bell, Commit, Committed, GatewayRecord, JournalError, Lease, Leased, PageSize, Place, StoredPage, Survey,
    WorkerJournal, WorkerRecord,
};
use crate::limits::{
    Bounds, DEAF_TIMEOUT_MIN, DRAIN_TIMEOUT, PAGES_MAX, PROBE_INTERVAL, REJOIN_WINDOW, RETRY_MAX, STUCK_JOBS_MAX,
};
use crate::metrics as names;
use crate::rules::RulesBook;
use crate::types::{Incarnation, RoomId, ShardId};
use crate::wire::push::{self, Push};

/// Inputs that wait for the loop. Journal answers and jobs are bounded by what the core has under way; bells wait in
/// their subscription when this is full.
const INPUTS_MAX: usize = 4096;

/// How a worker is set up.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// Rooms that are resolved at once.
    pub concurrency: usize,
    /// How long a gateway may owe a watermark before it is fenced.
    pub gateway_timeout: Duration,
    /// How long rules may take over one event before the room goes on without waiting for them: the event is tried again,
    /// and in the end void. Quick rules ([`crate::rules::Rules::is_quick`]) are not watched: while they run, the worker does nothing
    /// else, and is replaced when its lease has run out.
    pub rules_timeout: Duration,
    /// How long a worker's heartbeat is good for: how soon its shards are taken over after it died.
    pub lease: Duration,
    /// How long a room may be empty before it ends.
    pub room_linger: Duration,
    /// How long resolved events and verdicts are kept.
    pub retention: Duration,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        use crate::limits;
        Self {
            concurrency: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            gateway_timeout: limits::GATEWAY_TIMEOUT,
            rules_timeout: limits::RULES_TIMEOUT,
            lease: limits::LEASE_TIMEOUT,
            room_linger: limits::ROOM_LINGER,
            retention: limits::RETENTION,
        }
    }
}

pub(super) enum Input {
    /// Who lives, and why the journal does not take steps, if it does not.
    Alive(Vec<WorkerRecord>, Option<JournalError>),
    Owners(Vec<Option<Lease>>),
    Claimed(ShardId, Option<Leased<Lease>>),
    Subscribed(ShardId),
    Bell(Bell),
    Surveyed(ShardId, Survey),
    Stored(ShardId, RoomId, u64, Place, StoredPage),
    Read(ShardId, RoomId, u64, StoredPage),
    WrittenAhead(ShardId, RoomId, AheadPart, Leased<()>),
    Done(Done),
    Committed(Arc<Commit>, Committed),
    Testified(ShardId, u64),
    Fenced(ShardId, Lease, Leased<GatewayRecord>),
    NotFenced(ShardId, Incarnation, JournalError),
    Forgotten(ShardId, Lease, Vec<Incarnation>, Leased<()>),
    Death(ShardId, Leased<()>),
    RoomEnded(ShardId, RoomId, Leased<bool>),
    Published(Incarnation, u64),
    Attempted(ShardId, RoomId, u64, Leased<u32>),
    /// What the journal holds of a room is damaged.
    Damaged(ShardId, RoomId, String),
    /// Another worker let a shard go, or such news may have been missed.
    ShardIsFree,
    Trouble(&'static str, Step, JournalError),
}

/// Resolves rooms until `stop`, then hands its shards over and comes back. What keeps it from working is told through
/// `health` (None while it works).
///
/// # Errors
/// When the journal does not work at the start (later it is waited for), or when the rules never came back too often.
pub async fn run(
    journal: Arc<dyn WorkerJournal>,
    rules: RulesBook,
    options: WorkerOptions,
    stop: CancellationToken,
    health: tokio::sync::watch::Sender<Option<String>>,
) -> Result<(), WorkerError> {
    run_joined(join(journal).await?, rules, options, stop, health).await
}

/// As [`run`], after its first steps: from here on a journal that does not work is waited for.
///
/// # Errors
/// When the rules never came back too often.
pub async fn run_joined(
    joined: Joined,
    rules: RulesBook,
    options: WorkerOptions,
    stop: CancellationToken,
    health: tokio::sync::watch::Sender<Option<String>>,
) -> Result<(), WorkerError> {
    let Joined { journal, timeline, me, pushes } = joined;
    let ns = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let limits = WorkerLimits {
        bounds: Bounds::default(),
        rules,
        timeline,
        concurrency: options.concurrency.max(1),
        gateway_timeout_ns: ns(options.gateway_timeout),
        deaf_timeout_ns: ns((options.gateway_timeout / 4).max(DEAF_TIMEOUT_MIN)),
        rejoin_window_ns: ns(REJOIN_WINDOW),
        probe_interval_ns: ns(PROBE_INTERVAL),
        commits_may_be_lost: journal.commits_may_be_lost(),
        heartbeat_interval_ns: ns(options.lease) / 4,
        lease_ms: ms(options.lease),
        room_linger_ns: ns(options.room_linger),
        retention_ms: ms(options.retention),
    };
    let (lease_ms, size) = (limits.lease_ms, PageSize::of(&limits.bounds));
    let patterns = limits.rules.patterns();
    let core = Core::new(me, journal.shards(), limits);
    tracing::info!(worker.id = %me, "worker started");
    let (inputs, receiver) = mpsc::channel(INPUTS_MAX);
    let news = tokio::spawn(hear_of_shards(pushes, inputs.clone()));
    let entered = tokio::spawn(stay_entered(journal.clone(), timeline, (me, patterns), inputs.clone()));
    let worker = Worker {
        core,
        journal,
        me,
        lease_ms,
        inputs,
        following: HashMap::new(),
        pages: Arc::new(Semaphore::new(PAGES_MAX)),
        size,
        quick: Vec::new(),
        elsewhere: Elsewhere::new(options.rules_timeout),
        releases: TaskTracker::new(),
        stages: Stages::new(),
        health,
    };
    let given_up = worker.run(receiver, stop).await;
    news.abort();
    entered.abort();
    if given_up { Err(WorkerError::Rules(STUCK_JOBS_MAX)) } else { Ok(()) }
}

/// Why a worker ended otherwise than asked.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Its journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The rules keep so many threads.
    #[error("{0} jobs of the rules never came to an end: start the worker again, and mend the rules that its log names")]
    Rules(usize),
}

struct Worker {
    core: Core,
    journal: Arc<dyn WorkerJournal>,
    me: Incarnation,
    lease_ms: u64,
    inputs: mpsc::Sender<Input>,
    following: HashMap<ShardId, AbortHandle>,
    /// Turns to read a page of a room: other steps do not queue behind the pages of many rooms.
    pages: Arc<Semaphore>,
    size: PageSize,
    /// Quick jobs that are to run in this turn.
    quick: Vec<Job>,
    /// Jobs that run elsewhere.
    elsewhere: Elsewhere,
    /// Shards that are being let go.
    releases: TaskTracker,
    stages: Stages,
    health: tokio::sync::watch::Sender<Option<String>>,
}

impl Worker {
    /// Until it is asked to stop, or, then it says so, the rules keep too many threads.
    async fn run(mut self, mut receiver: mpsc::Receiver<Input>, stop: CancellationToken) -> bool {
        let stop = stop.child_token();
        let mut tick = tokio::time::interval(PROBE_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut stopping = false;
        let deadline = tokio::time::sleep(Duration::MAX / 4);
        tokio::pin!(deadline);
        while !self.core.is_stopped() {
            tokio::select! {
                biased;
                Some(input) = receiver.recv() => {
                    self.apply(input);
                    // What came in together is resolved and committed together.
                    while let Ok(input) = receiver.try_recv() {
                        self.apply(input);
                    }
                }
                _ = tick.tick() => {
                    for ticket in self.elsewhere.overdue() {
                        metrics::counter!(names::RULES_OVERRUNS_TOTAL).increment(1);
                        self.core.overrun(&ticket, clock::monotonic_ns());
                    }
                    self.core.tick(clock::monotonic_ns());
                    if self.core.has_given_up() {
                        stop.cancel();
                    }
                }
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    deadline.as_mut().reset(tokio::time::Instant::now() + DRAIN_TIMEOUT / 2);
                    self.core.stop();
                }
                () = &mut deadline => {
                    tracing::warn!("shards could not be handed over in time; their leases run out");
                    break;
                }
            }
            self.perform();
        }
        self.releases.close();
        let _ = tokio::time::timeout(RETRY_MAX, self.releases.wait()).await;
        let goodbye = self.journal.heartbeat(self.me, &[], 0);
        if let Ok(Err(error)) = tokio::time::timeout(RETRY_MAX, goodbye).await {
            tracing::warn!(%error, "no goodbye to the other workers");
        }
        self.core.has_given_up()
    }

    fn apply(&mut self, input: Input) {
        let now = clock::monotonic_ns();
        match input {
            Input::Alive(living, trouble) => {
                match trouble {
                    None => {
                        self.health.send_if_modified(|trouble| trouble.take().is_some());
                    }
                    Some(error) => self.trouble("ping", Step::Ping, &error),
                }
                self.core.alive(living, now);
            }
            Input::Owners(owners) => self.core.owners(&owners),
            Input::Claimed(shard, answer) => self.core.claimed(shard, answer, now),
            Input::Subscribed(shard) => self.core.subscribed(shard, now),
            Input::Bell(bell) => self.core.bell(bell, now),
            Input::Surveyed(shard, survey) => self.core.surveyed(shard, survey, now),
            Input::Stored(shard, room, lane, place, page) => self.core.stored(shard, &room, lane, place, page, now),
            Input::Read(shard, room, lane, page) => self.core.read(shard, &room, lane, &page, now),
            Input::WrittenAhead(shard, room, part, answer) => self.core.written_ahead(shard, &room, &part, &answer, now),
            Input::Done(done) => {
                self.elsewhere.done(&done);
                self.core.done(done, now);
            }
            Input::Committed(commit, answer) => self.core.committed(commit.shard, commit.lease, commit.number, &answer, now),
            Input::Testified(shard, rooms) => self.core.testified(shard, rooms, now),
            Input::Fenced(shard, lease, answer) => {
                metrics::counter!(names::GATEWAY_DEATHS_TOTAL).increment(1);
                self.core.fenced(shard, lease, &answer, now);
            }
            Input::NotFenced(shard, gateway, error) => {
                self.trouble("fence", Step::Shared, &error);
                self.core.fence_failed(shard, gateway);
            }
            Input::Forgotten(shard, lease, gateways, answer) => self.core.forgotten(shard, lease, &gateways, &answer),
            Input::Death(shard, answer) => self.core.death_written(shard, &answer),
            Input::RoomEnded(shard, room, answer) => self.core.room_ended(shard, &room, &answer, now),
            Input::Published(gateway, listeners) => self.core.published(gateway, listeners),
            Input::Attempted(shard, room, lane, answer) => self.core.attempted(shard, &room, lane, &answer, now),
            Input::Damaged(shard, room, why) => self.core.damaged(shard, &room, &why, now),
            Input::ShardIsFree => self.core.shard_is_free(now),
            Input::Trouble(what, step, error) => self.trouble(what, step, &error),
        }
    }

    fn trouble(&mut self, what: &str, step: Step, error: &JournalError) {
        metrics::counter!(names::JOURNAL_ERRORS_TOTAL, "kind" => error.kind()).increment(1);
        if !self.core.journal_failed(step, error) {
            tracing::warn!(%error, "trouble with a part of the journal: {what}; tried again until it works");
        } else if self.health.send_if_modified(|trouble| trouble.replace(error.to_string()).is_none()) {
            tracing::warn!(%error, "journal trouble: {what}; tried again until it works");
        }
    }

    fn perform(&mut self) {
        loop {
            for action in self.core.take_actions() {
                self.act(action);
            }
            // Quick jobs run here and now; what follows from them goes out in the same turn.
            let quick = std::mem::take(&mut self.quick);
            if quick.is_empty() {
                break;
            }
            let began = Instant::now();
            for job in quick {
                self.core.done(self.stages.run(job, began, &Progress::default()), clock::monotonic_ns());
            }
        }
        metrics::gauge!(names::SHARDS_OWNED).set(self.core.owned().count() as f64);
        metrics::gauge!(names::ROOMS_IN_MEMORY).set(self.core.room_count() as f64);
        metrics::gauge!(names::ROOMS_QUARANTINED).set(self.core.quarantined_count() as f64);
    }

    fn act(&mut self, action: Action) {
        let journal = self.journal.clone();
        let (me, lease_ms) = (self.me, self.lease_ms);
        match action {
            // A full journal still takes heartbeats, so that shards stay where they are: whether it takes more is asked too.
            Action::Heartbeat(owned) => self.once("heartbeat", async move {
                let living = journal.heartbeat(me, &owned, lease_ms).await?;
                Ok(Input::Alive(living, journal.ping().await.err()))
            }),
            Action::ReadOwners => self.once("read owners", async move { journal.owners().await.map(Input::Owners) }),
            Action::Claim { shard, from } => {
                let inputs = self.inputs.clone();
                tokio::spawn(async move {
                    let answer = journal.claim(shard, from, me).await;
                    let _ = inputs.send(Input::Claimed(shard, answer.ok())).await;
                });
            }
            Action::Release { shard, lease, tell } => {
                self.releases.spawn(async move {
                    if let Err(error) = journal.release(shard, lease).await {
                        tracing::warn!(%error, %shard, "shard could not be released; its lease runs out");
                        return;
                    }
                    // A hint: who misses it finds the shard free at its next heartbeat.
                    for worker in tell {
                        let _ = journal.publish(worker, push::encode(&Push::Free { shard })).await;
                    }
                });
            }
            Action::Count(tally) => count(tally),
            Action::Follow(shard) => {
                let task = tokio::spawn(follow(journal, shard, self.inputs.clone()));
                if let Some(old) = self.following.insert(shard, task.abort_handle()) {
                    old.abort();
                }
            }
            Action::Unfollow(shard) => {
                if let Some(task) = self.following.remove(&shard) {
                    task.abort();
                }
            }
            Action::Survey { shard, rooms } => self.insist(Step::Shared, "survey", move || {
                let journal = journal.clone();
                async move { journal.survey(shard, rooms).await.map(|survey| Input::Surveyed(shard, survey)) }
            }),
            Action::Load { shard, room, lane, place } => {
                let (pages, size) = (self.pages.clone(), self.size);
                self.insist_on_room("load room", shard, room.clone(), move || {
                    let (journal, room, pages) = (journal.clone(), room.clone(), pages.clone());
                    async move {
                        let _turn = pages.acquire().await;
                        let page = journal.load(&room, place, size).await?;
                        Ok(Input::Stored(shard, room, lane, place, page))
                    }
                });
            }
            Action::Read { shard, room, lane, after } => {
                let (pages, size) = (self.pages.clone(), self.size);
                self.insist_on_room("read room", shard, room.clone(), move || {
                    let (journal, room, pages) = (journal.clone(), room.clone(), pages.clone());
                    async move {
                        let _turn = pages.acquire().await;
                        let page = journal.load(&room, Place::Entries(after), size).await?;
                        Ok(Input::Read(shard, room, lane, page))
                    }
                });
            }
            Action::WriteAhead { shard, lease, room, part } => {
                self.insist_on_room("write snapshot ahead", shard, room.clone(), move || {
                    let (journal, room, part) = (journal.clone(), room.clone(), part.clone());
                    async move {
                        let answer = journal.write_ahead(shard, lease, &room, &part).await?;
                        Ok(Input::WrittenAhead(shard, room, part, answer))
                    }
                });
            }
            Action::Run(job) => {
                self.stages.waited(job.events());
                if job.is_quick() {
                    self.quick.push(job);
                    return;
                }
                let (inputs, stages, progress) = (self.inputs.clone(), self.stages.clone(), self.elsewhere.start(&job));
                let began = Instant::now();
                tokio::task::spawn_blocking(move || {
                    let _ = inputs.blocking_send(Input::Done(stages.run(job, began, &progress)));
                });
            }
            Action::Commit(commit) => self.insist(Step::Shared, "commit", move || {
                let (journal, commit) = (journal.clone(), commit.clone());
                async move {
                    let began = Instant::now();
                    let answer = journal.commit(&commit).await?;
                    metrics::histogram!(names::COMMIT_SECONDS).record(began.elapsed().as_secs_f64());
                    metrics::counter!(names::COMMITS_TOTAL).increment(1);
                    metrics::counter!(names::PUSHES_TOTAL).increment(commit.pushes.len() as u64);
                    Ok(Input::Committed(commit, answer))
                }
            }),
            Action::Publish { gateway, push, answer } => {
                let inputs = self.inputs.clone();
                tokio::spawn(async move {
                    let input = match journal.publish(gateway, push).await {
                        Ok(listeners) if answer => Input::Published(gateway, listeners),
                        Ok(_) => return,
                        Err(error) => Input::Trouble("publish", Step::Shared, error),
                    };
                    let _ = inputs.send(input).await;
                });
            }
            Action::Testify { shard, witness } => self.insist(Step::Shared, "testify", move || {
                let journal = journal.clone();
                async move { journal.testify(shard, witness).await.map(|rooms| Input::Testified(shard, rooms)) }
            }),
            // Not insisted on: a journal that refuses the fence refuses the gateway's flushes too, so its silence starts anew.
            Action::Fence { shard, lease, gateway } => self.once("fence", async move {
                let answer = journal.fence(shard, lease, gateway).await;
                Ok(answer.map_or_else(
                    |error| Input::NotFenced(shard, gateway, error),
                    |answer| Input::Fenced(shard, lease, answer),
                ))
            }),
            Action::Forget { shard, lease, gateways } => self.once("forget gateways", async move {
                journal.forget(shard, lease, &gateways).await.map(|answer| Input::Forgotten(shard, lease, gateways, answer))
            }),
            Action::Death { shard, lease, gateway, entry } => self.insist_on_room("write death", shard, entry.room.clone(), move || {
                let (journal, entry) = (journal.clone(), entry.clone());
                async move { journal.death(shard, lease, gateway, &entry).await.map(|answer| Input::Death(shard, answer)) }
            }),
            Action::Attempt { shard, lease, room, lane } => self.insist_on_room("count attempt", shard, room.clone(), move || {
                let (journal, room) = (journal.clone(), room.clone());
                async move {
                    let answer = journal.attempt(shard, lease, &room, lane).await?;
                    Ok(Input::Attempted(shard, room, lane, answer))
                }
            }),
            Action::EndRoom { shard, lease, room, seq } => self.insist_on_room("end room", shard, room.clone(), move || {
                let (journal, room) = (journal.clone(), room.clone());
                async move { journal.end_room(shard, lease, &room, seq).await.map(|answer| Input::RoomEnded(shard, room, answer)) }
            }),
            Action::RolledBack(rooms) => {
                metrics::counter!(names::ROLLED_BACK_TOTAL).increment(rooms);
                tracing::error!(rooms, "the journal came back, and verdicts that were delivered are missing or may be: its rooms begin a new era");
            }
            Action::Complain(text) => tracing::warn!("{text}"),
        }
    }

    /// A step that is asked again by itself when it fails.
    fn once(&self, what: &'static str, step: impl Future<Output = Result<Input, JournalError>> + Send + 'static) {
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let input = step.await.unwrap_or_else(|error| Input::Trouble(what, Step::Shared, error));
            let _ = inputs.send(input).await;
        });
    }

    /// [`Worker::insist`], for a step that only this room may fail: then it is known to be damaged.
    fn insist_on_room<F>(&self, what: &'static str, shard: ShardId, room: RoomId, step: impl Fn() -> F + Send + 'static)
    where
        F: Future<Output = Result<Input, JournalError>> + Send,
    {
        self.insist(Step::Room, what, move || {
            let (step, room) = (step(), room.clone());
            async move {
                match step.await {
                    Err(JournalError::Damaged(why)) => Ok(Input::Damaged(shard, room, JournalError::Damaged(why).to_string())),
                    other => other,
                }
            }
        });
    }

    /// A step that is done until its outcome is known. Ends with the worker.
    fn insist<F>(&self, of: Step, what: &'static str, step: impl Fn() -> F + Send + 'static)
    where
        F: Future<Output = Result<Input, JournalError>> + Send,
    {
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let failed = |error| inputs.send(Input::Trouble(what, of, error));
            if let Ok(input) = journal::insist(step, failed).await {
                let _ = inputs.send(input).await;
            }
        });
    }
}

//! What a process does, by its role.

mod files;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admin::{Admin, AdminError, Readiness};
use crate::arena;
use crate::child::link::{Link, Passed, Wish};
use crate::clock::Clock;
use crate::config::Config;
use crate::gateway::front::arrival::{self, Drains, KERNEL_STAMPS};
use crate::gateway::front::auth::Gatekeeper;
use crate::gateway::front::{Front, Intake, Settings, advertised, sweep};
use crate::gateway::{Hub, Presence, Settle};
use crate::journal::memory::MemoryJournal;
use crate::journal::redis::{RedisJournal, RedisOptions};
use crate::journal::{self, GatewayJournal, JournalError};
use crate::limits::{REDIS_START_TIMEOUT, SESSIONS_MAX};
use crate::metrics::{self, MetricsError};
use crate::rules::RulesBook;
use crate::runtime;
use crate::shutdown::Shutdown;
use crate::worker::programs::{self, Programs};
use crate::worker::{self, WorkerError, WorkerOptions};

/// Why a role failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RoleError {
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Worker(#[from] WorkerError),
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("the worker's thread cannot start: {0}")]
    Thread(io::Error),
}

impl RoleError {
    /// Whether it is of no use to start again before somebody has changed the settings.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Journal(JournalError::Unfit(_)))
    }
}

/// A supervisor above this process.
pub(crate) struct Above {
    pub(crate) link: Link,
    pub(crate) passed: Passed,
    /// What its rooms are decided by.
    pub(crate) rules: RulesBook,
}

/// Serves health and metrics until it is dropped.
struct Side {
    readiness: Readiness,
    stop: CancellationToken,
}

impl Side {
    /// A supervisor above shows the metrics of its children, and asks for them itself.
    async fn start(config: &Config, above: Option<&Above>) -> Result<Self, RoleError> {
        let (readiness, stop) = (Readiness::new(), CancellationToken::new());
        readiness.fail("started", "still starting");
        if let Some(address) = config.admin.filter(|_| above.is_none()) {
            let admin = Admin::bind(address).await?;
            tracing::info!("health and metrics on http://{}/", admin.address());
            tokio::spawn(admin.run(readiness.clone(), metrics::install()?, stop.clone()));
        }
        Ok(Self { readiness, stop })
    }

    /// Shows what `/readyz` adds although the process is ready.
    fn note(&self, what: &'static str, mut told: watch::Receiver<Option<String>>) {
        let readiness = self.readiness.clone();
        tokio::spawn(async move {
            loop {
                readiness.note(what, told.borrow_and_update().clone());
                if told.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    /// Shows a part's last failure as a check of `/readyz`. The check fails for good once the part has ended.
    fn watch(&self, check: &'static str, mut trouble: watch::Receiver<Option<String>>) {
        let readiness = self.readiness.clone();
        tokio::spawn(async move {
            loop {
                let now = trouble.borrow_and_update().clone();
                readiness.set(check, now.map_or(Ok(()), Err));
                if trouble.changed().await.is_err() {
                    readiness.fail(check, "it has ended");
                    return;
                }
            }
        });
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Gateway and worker in one process, on the memory journal.
pub(crate) async fn serve(config: Config, shutdown: Shutdown) -> Result<(), RoleError> {
    let journal = Arc::new(MemoryJournal::new(config.shards));
    let side = Side::start(&config, None).await?;
    let (trouble, worker_stop) = (watch::Sender::new(None), CancellationToken::new());
    let away = watch::Sender::new(None);
    side.watch("worker", trouble.subscribe());
    // The gateway's thread reads sockets and does nothing else.
    let (options, stop) = (worker_options(&config, None), worker_stop.clone());
    let rules = start_rules(config.rules_book(), &side)?;
    let priority = config.priority;
    let (worker_journal, watch, book) = (journal.clone(), config.watch, config.rules_book());
    let thread = std::thread::Builder::new().name("worker".to_owned()).spawn(move || {
        let runtime = runtime::worker(priority)?;
        runtime.spawn(files::follow_files(worker_journal.clone(), book, watch));
        let working = runtime.spawn(async move {
            let joined = worker::join(worker_journal).await?;
            worker::run_joined(joined, rules, options, stop, (trouble, away)).await
        });
        let ended = runtime.block_on(working);
        // Rules that never return keep their threads. Nobody waits for them.
        runtime.shutdown_background();
        ended?.map_err(io::Error::other)
    });
    let thread = thread.map_err(RoleError::Thread)?;
    let ended = run_gateway(&config, &side, journal, &shutdown, None).await;
    worker_stop.cancel();
    let joined = tokio::task::spawn_blocking(move || thread.join()).await;
    if !matches!(joined, Ok(Ok(Ok(())))) {
        tracing::error!("the worker failed");
    }
    ended
}

/// A gateway on Redis.
pub(crate) async fn gateway(config: Config, shutdown: Shutdown, above: Option<Above>) -> Result<(), RoleError> {
    let side = Side::start(&config, above.as_ref()).await?;
    let Some(journal) = connect(&config, &side, &shutdown).await? else { return Ok(()) };
    run_gateway(&config, &side, journal, &shutdown, above).await
}

/// A worker on Redis.
pub(crate) async fn worker(config: Config, shutdown: Shutdown, above: Option<Above>) -> Result<(), RoleError> {
    let book = above.as_ref().map_or_else(|| config.rules_book(), |above| above.rules.clone());
    let Some(Prepared { journal, options, health, side }) = prepare_worker(&config, &shutdown, above).await? else {
        return Ok(());
    };
    let Some(joined) = insist(&side, &shutdown, || worker::join(journal.clone())).await? else { return Ok(()) };
    side.readiness.pass("started");
    let stop = shutdown.token().clone();
    let rules = start_rules(book.clone(), &side)?;
    tokio::spawn(files::follow_files(journal, book, config.watch));
    // As a task of its own: waking the future of `block_on` takes a detour through the driver.
    let working = {
        let away = watch::Sender::new(None);
        side.note("journal", away.subscribe());
        tokio::spawn(worker::run_joined(joined, rules, options, stop, (health, away)))
    };
    working.await.map_err(|error| RoleError::Thread(io::Error::other(error)))??;
    Ok(())
}

/// What a worker on Redis is run with.
pub(crate) struct Prepared {
    pub(crate) journal: Arc<RedisJournal>,
    pub(crate) options: WorkerOptions,
    /// After the first heartbeat a supervisor above takes the worker for ready.
    pub(crate) health: watch::Sender<Option<String>>,
    side: Side,
}

/// Connects a worker with its journal and its supervisor. None when it is asked to stop.
pub(crate) async fn prepare_worker(
    config: &Config,
    shutdown: &Shutdown,
    above: Option<Above>,
) -> Result<Option<Prepared>, RoleError> {
    let side = Side::start(config, above.as_ref()).await?;
    let Some(journal) = connect(config, &side, shutdown).await? else { return Ok(None) };
    let (options, health) = (worker_options(config, above.as_ref()), watch::Sender::new(Some("no heartbeat yet".to_owned())));
    side.watch("journal", health.subscribe());
    side.readiness.pass("started");
    if let Some(Above { link, passed, .. }) = above {
        let readiness = side.readiness.clone();
        tokio::spawn(async move {
            readiness.passed().await;
            link.ready(0);
        });
        fulfil(passed.wishes, shutdown.clone(), None);
    }
    Ok(Some(Prepared { journal, options, health, side }))
}

async fn connect(config: &Config, side: &Side, shutdown: &Shutdown) -> Result<Option<Arc<RedisJournal>>, RoleError> {
    let url = config.redis.as_ref().map(|url| url.reveal().to_owned()).unwrap_or_default();
    let shards = Some(config.shards);
    let options = RedisOptions {
        prefix: config.prefix.clone(),
        shards,
        durability: Some(config.durability),
        runtime_dir: config.runtime_dir.clone(),
    };
    let journal = insist(side, shutdown, || RedisJournal::connect(&url, options.clone())).await?;
    Ok(journal.map(Arc::new))
}

/// Takes a step of the start. Waits for a journal that cannot be reached, but not for one that refuses. None when the process
/// is asked to stop.
async fn insist<T, F: Future<Output = Result<T, JournalError>>>(
    side: &Side,
    shutdown: &Shutdown,
    step: impl Fn() -> F,
) -> Result<Option<T>, JournalError> {
    let (deadline, mut told) = (Instant::now() + REDIS_START_TIMEOUT, false);
    let failed = |error| {
        let passes = matches!(error, JournalError::Unreachable(_) | JournalError::Silent(_)) && Instant::now() < deadline;
        if passes {
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(%error, "waiting for redis, {} s at most", REDIS_START_TIMEOUT.as_secs());
            }
            side.readiness.fail("started", error.to_string());
        }
        std::future::ready(if passes { Ok(()) } else { Err(error) })
    };
    shutdown.token().run_until_cancelled(journal::insist(step, failed)).await.transpose()
}

/// Starts the programs of the rules. `/readyz` says when an instance is missing.
fn start_rules(book: RulesBook, side: &Side) -> Result<(RulesBook, Programs), WorkerError> {
    let (rules, programs) = programs::start(book)?;
    if programs.are_there() {
        side.watch("programs", programs.trouble());
    }
    Ok((rules, programs))
}

/// A supervisor above counts what is resolved.
fn worker_options(config: &Config, above: Option<&Above>) -> WorkerOptions {
    WorkerOptions {
        concurrency: config.concurrency,
        gateway_timeout: config.gateway_timeout,
        rules_timeout: config.rules_timeout,
        lease: config.lease,
        rehome_after: config.rehome_after,
        room_linger: config.room_linger,
        retention: config.retention,
        resolved: above.map(|above| above.link.tally().events()).unwrap_or_default(),
    }
}

/// Does what the supervisor wants. `hub` has the sessions, if there are any.
fn fulfil(mut wishes: mpsc::Receiver<Wish>, shutdown: Shutdown, hub: Option<Hub>) {
    tokio::spawn(async move {
        while let Some(wish) = wishes.recv().await {
            match (wish, &hub) {
                (Wish::Offer(sessions), Some(hub)) => _ = hub.offer_moves(sessions),
                (Wish::Offer(_), None) => {}
                (Wish::Leave(window), Some(_)) => {
                    tracing::info!("sessions are moved to other gateways within {} s", window.as_secs());
                    shutdown.request_moving(window);
                }
                (Wish::Leave(_), None) => shutdown.request(),
            }
        }
    });
}

async fn run_gateway(
    config: &Config,
    side: &Side,
    journal: Arc<dyn GatewayJournal>,
    shutdown: &Shutdown,
    above: Option<Above>,
) -> Result<(), RoleError> {
    let failed = |source| RoleError::Listen { address: config.listen, source };
    // Without a supervisor that passes connections it listens itself.
    let intake = match above {
        Some(above) => Ok(above),
        None => Err(arrival::listen(config.listen).map_err(failed)?),
    };
    let (clock, drains) = (Clock::new().behind_a_card(config.uncertainty), Drains::new(config.sweep_guard));
    let source = if KERNEL_STAMPS { "kernel" } else { "read" };
    if !KERNEL_STAMPS {
        tracing::warn!("this system has no kernel stamps: events are stamped when they are read, which is less exact");
    }
    let sessions_max = config.sessions_max.unwrap_or(SESSIONS_MAX);
    let rehome_after = config.rehome_after.unwrap_or(config.lease * 2);
    let presence = || Presence { advertise: config.advertise.clone(), lease: config.lease, rehome_after };
    let start = || Hub::start(journal.clone(), Settle::Sweep, sessions_max, source, clock.uncertainty_ns(), presence());
    let Some(hub) = insist(side, shutdown, start).await? else { return Ok(()) };
    side.watch("journal", hub.health());
    side.note("journal", hub.away());
    let sweeping = CancellationToken::new();
    tokio::spawn(sweep::sweep(hub.clone(), drains.clone(), sweeping.clone()));
    let settings = Settings {
        sessions_max,
        sessions_per_address: config.sessions_per_address,
        connections_per_second: config.connections_per_second,
        sessions_per_player: config.sessions_per_player,
        actions_per_second: config.actions_per_second,
        advertise: config.advertise.clone().unwrap_or_default(),
        ..Settings::default()
    };
    let gatekeeper = Gatekeeper::new(config.jwt_key.as_ref(), config.allowed_origins.clone(), config.allow_host_names);
    let leaving = CancellationToken::new();
    let front = Front::new(hub.clone(), gatekeeper, arena::asset, clock, drains, settings, leaving.clone());
    side.readiness.pass("started");
    if let Some(url) = &config.advertise {
        tokio::spawn(advertised::check(hub.clone(), url.clone(), leaving.clone()));
    }
    let (front, intake) = match intake {
        Err(listener) => {
            let address = listener.local_addr().map_err(failed)?;
            tracing::info!("open http://{address}/ to play, connect to ws://{address}/v1/room/ROOM");
            (front, Intake::Listener(listener))
        }
        Ok(Above { link, passed, .. }) => {
            let front = front.counting(link.tally());
            side.readiness.passed().await;
            link.ready(sessions_max);
            fulfil(passed.wishes, shutdown.clone(), Some(hub.clone()));
            (front, Intake::Passed(passed.connections))
        }
    };
    let serving = Arc::new(front).serve(intake, shutdown.token().clone());
    let drained = async {
        shutdown.requested().await;
        side.readiness.fail("draining", "asked to stop");
        if let Some(window) = shutdown.moving() {
            hub.move_sessions(window, None).await;
        }
        // Each session is read to its end and closed, and its last events reach the journal.
        leaving.cancel();
        hub.drain().await;
    };
    tokio::join!(serving, drained);
    sweeping.cancel();
    Ok(())
}

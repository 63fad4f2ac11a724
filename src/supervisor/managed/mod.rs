//! A Redis of the supervisor's own (`--redis managed`): it is started before all other processes, started again when it ends, and
//! stopped last. One that a killed supervisor has left behind is found by its lock, and used.

mod home;
mod server;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

pub(super) use self::home::Home;
use super::ask::{self, Process as Row};
use super::logs::{Logs, REDIS};
use super::parked::Descriptors;
use super::policy::backoff::Backoff;
use super::spawn::{Cost, Process};
use super::state;
use crate::journal::JournalError;
use crate::journal::redis::Durability;
use crate::journal::redis::own::{ServerSettings, server_settings, set_up};
use crate::limits::{MANAGED_LAST_WORDS, MANAGED_LOCK_TIMEOUT, MANAGED_POLL};

/// What the server is to be.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) home: Home,
    /// The highest level of those who use it.
    pub(super) durability: Durability,
    /// How long it may say nothing before it is ready.
    pub(super) ready_timeout: Duration,
    /// How long it may take to end.
    pub(super) stop_timeout: Duration,
}

/// The server, looked after until [`Managed::stop`].
#[derive(Debug)]
pub(super) struct Managed {
    shared: Arc<Shared>,
    stop: CancellationToken,
    /// Tells whether it ended as it was asked to.
    keeping: JoinHandle<bool>,
}

#[derive(Debug)]
struct Shared {
    wanted: Wanted,
    settings: ServerSettings,
    logs: Logs,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    process: Option<Process>,
    /// When it was started or found, and when it answered.
    since: Instant,
    ready: Option<Instant>,
    /// When it is started again.
    due: Option<Instant>,
    crashes: u64,
    last_end: Option<String>,
    cpu: f64,
    cost: (Instant, Cost),
}

impl Managed {
    /// Starts a server on the data of its home, or uses the one that lives there. Returns once it answers; None if it was stopped
    /// before.
    ///
    /// # Errors
    /// One line: it does not start, and its last words.
    pub(super) async fn start(wanted: Wanted, logs: Logs, stop: &CancellationToken) -> Result<Option<Self>, String> {
        let now = Instant::now();
        let state = State {
            process: None,
            since: now,
            ready: None,
            due: None,
            crashes: 0,
            last_end: None,
            cpu: 0.0,
            cost: (now, Cost::default()),
        };
        let settings = server_settings(wanted.durability);
        let shared = Arc::new(Shared { settings, wanted, logs, state: Mutex::new(state) });
        match stop.run_until_cancelled(shared.begin()).await {
            None => {
                shared.end().await;
                return Ok(None);
            }
            Some(Err(why)) => {
                shared.end().await;
                return Err(why);
            }
            Some(Ok(())) => {}
        }
        let stop = CancellationToken::new();
        let keeping = tokio::spawn(shared.clone().keep(stop.clone()));
        Ok(Some(Self { shared, stop, keeping }))
    }

    /// Lets go of it, for the next image: it runs on.
    ///
    /// # Errors
    /// When a descriptor cannot be kept.
    pub(super) async fn park(self, descriptors: &mut Descriptors) -> io::Result<state::Managed> {
        self.keeping.abort();
        let _ = self.keeping.await;
        let shared = Arc::try_unwrap(self.shared).map_err(|_| io::Error::other("somebody still looks after redis"))?;
        let Shared { wanted, state, .. } = shared;
        let Wanted { home, durability, ready_timeout, stop_timeout } = wanted;
        let State { process, since, ready, crashes, last_end, .. } = state.into_inner();
        let parked = state::Managed {
            folder: home.folder.clone(),
            durability: durability.as_str().to_owned(),
            ready_timeout,
            stop_timeout,
            pid: process.as_ref().filter(|_| ready.is_some()).map(|process| process.pid),
            age: since.elapsed(),
            crashes,
            last_end,
        };
        descriptors.put("data lock", home.into_lock());
        if let Some(process) = process {
            descriptors.put("redis", process.into_descriptor()?);
        }
        Ok(parked)
    }

    /// Looks after it again. One that was not ready is found by its lock, or started.
    ///
    /// # Errors
    /// When a descriptor is missing.
    pub(super) fn resume(parked: state::Managed, descriptors: &mut Descriptors, logs: Logs) -> io::Result<Self> {
        let home = Home::resume(parked.folder, descriptors.need("data lock")?.into());
        let durability = parked.durability.parse().unwrap_or(Durability::Disk);
        let wanted = Wanted { home, durability, ready_timeout: parked.ready_timeout, stop_timeout: parked.stop_timeout };
        let held = descriptors.take("redis");
        let process =
            parked.pid.map(|pid| Process::held(pid, held.ok_or_else(|| io::Error::other("redis was not handed over"))?));
        let now = Instant::now();
        let state = State {
            process: process.transpose()?,
            since: now.checked_sub(parked.age).unwrap_or(now),
            ready: parked.pid.map(|_| now),
            due: None,
            crashes: parked.crashes,
            last_end: parked.last_end,
            cpu: 0.0,
            cost: (now, parked.pid.and_then(Cost::of).unwrap_or_default()),
        };
        let shared = Arc::new(Shared { settings: server_settings(durability), wanted, logs, state: Mutex::new(state) });
        if parked.pid.is_some() {
            shared.read()?;
        }
        let stop = CancellationToken::new();
        let keeping = tokio::spawn(shared.clone().keep(stop.clone()));
        Ok(Self { shared, stop, keeping })
    }

    /// Ends it as it wants to end, with everything on its disk. False if it did not end in time, and was killed.
    pub(super) async fn stop(self) -> bool {
        self.stop.cancel();
        self.keeping.await.unwrap_or(false)
    }

    /// Measures what it costs.
    pub(super) fn measure(&self) {
        let mut state = self.shared.state.lock();
        let Some(cost) = state.process.as_ref().and_then(|process| Cost::of(process.pid)) else { return };
        let now = Instant::now();
        let (since, before) = std::mem::replace(&mut state.cost, (now, cost));
        state.cpu = (cost.cpu_s - before.cpu_s).max(0.0) / (now - since).as_secs_f64().max(0.001);
    }

    /// Its line in `lasthit ps`.
    pub(super) fn row(&self) -> Row {
        let state = self.shared.state.lock();
        let phase = match (&state.process, state.ready) {
            _ if self.stop.is_cancelled() => "leaving",
            (None, _) => "waiting",
            (Some(_), None) => "starting",
            (Some(_), Some(_)) => "ready",
        };
        Row {
            name: REDIS.to_owned(),
            phase: phase.to_owned(),
            pid: state.process.as_ref().map(|process| process.pid),
            age_s: state.process.as_ref().map_or(0.0, |_| ask::seconds(state.since.elapsed())),
            cpu: state.cpu,
            memory_bytes: state.cost.1.memory_bytes,
            sessions: 0,
            actions_per_s: 0.0,
            crashes: state.crashes,
            starts_in_s: state.due.map(|due| ask::seconds(due.saturating_duration_since(Instant::now()))),
            last_end: state.last_end.clone(),
            generation: 1,
        }
    }
}

impl Shared {
    /// Looks after it until it is to stop. Tells whether it then ended in time.
    async fn keep(self: Arc<Self>, stop: CancellationToken) -> bool {
        let mut backoff = Backoff::default();
        loop {
            let (process, ready) = {
                let state = self.state.lock();
                (state.process.clone(), state.ready)
            };
            if let Some(process) = process {
                let Some(how) = stop.run_until_cancelled(how_it_ended(&process)).await else { break };
                self.gone(format!("redis-server {how}"));
            }
            let pause = backoff.pause(ready.map_or(Duration::ZERO, |ready| ready.elapsed()));
            tracing::error!("redis is started again in {} ms", pause.as_millis());
            self.state.lock().due = Some(Instant::now() + pause);
            if stop.run_until_cancelled(sleep(pause)).await.is_none() {
                break;
            }
            match stop.run_until_cancelled(self.begin()).await {
                None => break,
                Some(Ok(())) => {}
                Some(Err(why)) => {
                    self.end().await;
                    self.gone(why);
                }
            }
        }
        self.end().await
    }

    /// It has no process any more, and why.
    fn gone(&self, why: String) {
        let mut state = self.state.lock();
        tracing::error!("{why}");
        state.crashes += 1;
        (state.process, state.ready, state.last_end, state.cpu) = (None, None, Some(why), 0.0);
    }

    /// Starts it, or finds the one that lives, and waits until it answers.
    async fn begin(&self) -> Result<(), String> {
        let pipe = self.pipe().map_err(|error| self.unusable(&error))?;
        let (process, is_new) = self.obtain().await?;
        let now = Instant::now();
        {
            let mut state = self.state.lock();
            (state.process, state.since, state.due) = (Some(process.clone()), now, None);
            state.cost = (now, Cost::of(process.pid).unwrap_or_default());
        }
        let mut reading = self.listen(pipe);
        let ready = tokio::select! {
            ready = self.ready(&process) => ready,
            how = how_it_ended(&process) => {
                let _ = timeout(MANAGED_LAST_WORDS, &mut reading).await;
                // Without the time and the process, which are before the sign of a warning.
                let last = self.logs.last_of(REDIS).unwrap_or_default();
                let last = last.split_once(" # ").map_or(&*last, |(_, said)| said);
                self.state.lock().process = None;
                Err(format!("redis-server {how} before it was ready: {last}"))
            }
        };
        ready?;
        self.state.lock().ready = Some(Instant::now());
        let how = if is_new { "runs" } else { "has run on, and is used" };
        tracing::info!(process = REDIS, pid = process.pid, "{how}: data in {}", self.wanted.home.folder.display());
        Ok(())
    }

    /// Where it writes its lines.
    fn pipe(&self) -> io::Result<pipe::Receiver> {
        pipe::OpenOptions::new().open_receiver(self.wanted.home.output()?)
    }

    fn listen(&self, mut pipe: pipe::Receiver) -> JoinHandle<()> {
        let logs = self.logs.clone();
        tokio::spawn(async move { drop(logs.take_in(REDIS, &mut pipe, Vec::new(), &CancellationToken::new()).await) })
    }

    /// Takes in what it writes from here on.
    fn read(&self) -> io::Result<()> {
        drop(self.listen(self.pipe()?));
        Ok(())
    }

    fn unusable(&self, error: &io::Error) -> String {
        format!("redis cannot be started in {} ({error})", self.wanted.home.folder.display())
    }

    /// A process: a new one, or the one that has the lock.
    async fn obtain(&self) -> Result<(Process, bool), String> {
        let home = &self.wanted.home;
        let until = Instant::now() + MANAGED_LOCK_TIMEOUT;
        loop {
            if let Some(lock) = home.lock_of_server().map_err(|error| self.unusable(&error))? {
                let program = server::program().await?;
                let process = server::start(&program, home, &self.settings, lock).map_err(|error| self.unusable(&error))?;
                return Ok((process, true));
            }
            match server::find(home).await {
                Ok(process) => return Ok((process, false)),
                Err(error) if Instant::now() >= until => {
                    return Err(format!(
                        "a process holds the lock on the data in {}, and nobody answers there ({error}): end it, then try again",
                        home.folder.display()
                    ));
                }
                Err(_) => sleep(MANAGED_POLL).await,
            }
        }
    }

    /// Returns once it answers, and is set up. One that says that it loads its data may take as long as that takes.
    async fn ready(&self, process: &Process) -> Result<(), String> {
        let url = self.wanted.home.url();
        let mut heard = Instant::now();
        loop {
            match set_up(&url, &self.settings).await {
                Ok(true) => return Ok(()),
                Ok(false) => heard = Instant::now(),
                Err(JournalError::Unreachable(_) | JournalError::Silent(_)) if heard.elapsed() < self.wanted.ready_timeout => {}
                Err(error) => return Err(format!("redis-server (process {}) cannot be used: {error}", process.pid)),
            }
            sleep(MANAGED_POLL).await;
        }
    }

    /// Ends what runs. False if it had to be killed.
    async fn end(&self) -> bool {
        let Some(process) = self.state.lock().process.clone() else { return true };
        process.terminate();
        if timeout(self.wanted.stop_timeout, how_it_ended(&process)).await.is_ok() {
            tracing::info!(process = REDIS, pid = process.pid, "has ended");
            return true;
        }
        tracing::error!(
            process = REDIS,
            pid = process.pid,
            "did not end within {} s: killed",
            self.wanted.stop_timeout.as_secs()
        );
        process.kill();
        let _ = timeout(self.wanted.stop_timeout, how_it_ended(&process)).await;
        false
    }
}

/// Returns when it has ended. How is known of those alone that this supervisor has started.
async fn how_it_ended(process: &Process) -> String {
    process.ended().await.map_or_else(|_| "has ended".to_owned(), |exit| exit.to_string())
}

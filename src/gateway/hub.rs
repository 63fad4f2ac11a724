//! Drives a gateway's `Core`: one lock around it, a task per journal step, an outbox per session. This is a gateway without
//! WebSockets. `front` adds them; a server that has its own sockets uses the hub directly.

mod commands;
mod homes;
mod meters;
mod outbox;
mod upkeep;

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use homes::Homes;
use meters::Meters;
use outbox::Inlet;
pub(crate) use outbox::Outbox;
use upkeep::{beat, ping_journal, run_timers};

use super::core::Core;
use super::moves::Departure;
use super::step::{Input, Joining};
use crate::clock;
use crate::journal::{self, GatewayJournal, JournalError, LockFile, Part, ProcessRecord};
use crate::limits::{self, Bounds};
use crate::metrics as names;
use crate::rules::Pattern;
use crate::types::{Action, Arrival, Incarnation, SessionId};
use crate::wire::client::{ErrorCode, Refusal, close};

/// The interval at which the core ticks and the journal is pinged.
const TICK: Duration = Duration::from_secs(1);

/// How the hub knows that everything up to a moment has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settle {
    /// Stamps are given under the lock that guards the watermark, so at any moment everything before it has been read.
    Lock,
    /// The front reads sockets, and calls [`Hub::settled`] after each sweep while [`Hub::wants_sweep`] is true.
    Sweep,
}

/// What a gateway says of its place among others.
#[derive(Debug, Clone)]
pub(crate) struct Presence {
    /// Under which URL players reach this host.
    pub advertise: Option<String>,
    /// How long a worker's heartbeat is valid. While another host is there, a gateway beats as workers do.
    pub lease: Duration,
    /// How long the journal may be silent before other hosts may have this one's rooms.
    pub rehome_after: Duration,
}

impl Default for Presence {
    fn default() -> Self {
        Self { advertise: None, lease: limits::LEASE_TIMEOUT, rehome_after: limits::LEASE_TIMEOUT * 2 }
    }
}

/// A gateway without sockets. It is cheap to clone. Any task of the runtime that it was started on may call its methods.
#[derive(Clone)]
pub(crate) struct Hub(Arc<Inner>);

struct Inner {
    journal: Arc<dyn GatewayJournal>,
    /// What it says of itself with each beat.
    record: ProcessRecord,
    settle: Settle,
    state: Mutex<State>,
    /// By session number. Deliveries are put in under the lock, so that they are in order.
    outboxes: DashMap<u64, Inlet>,
    /// Notified when something waits for a sweep.
    sweep: Notify,
    /// The rooms for which workers have rules; None while that is not known.
    known: RwLock<Option<Vec<Pattern>>>,
    /// Why the journal failed last; None while it works.
    trouble: tokio::sync::watch::Sender<Option<String>>,
    /// Which shards are out of reach while the journal works; None while all can be reached.
    away: tokio::sync::watch::Sender<Option<String>>,
    meters: Meters,
    homes: Homes,
    runtime: tokio::runtime::Handle,
    drained: Notify,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

struct State {
    core: Core,
    /// Shows the workers of this host that this process lives.
    lock: Option<LockFile>,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("settle", &self.0.settle).finish_non_exhaustive()
    }
}

impl Hub {
    /// Starts a gateway of at most `sessions_max` sessions on `journal`, under a new identity. Its `welcome` names `clock` and
    /// `precision_ns`.
    ///
    /// # Errors
    /// When the journal fails, or refuses this gateway ([`journal::enter`]).
    pub(crate) async fn start(
        journal: Arc<dyn GatewayJournal>,
        settle: Settle,
        sessions_max: usize,
        clock: &'static str,
        precision_ns: u64,
        presence: Presence,
    ) -> Result<Self, JournalError> {
        let incarnation = Incarnation::random();
        let record =
            journal::enter(&*journal, incarnation, Part::Gateway, presence.advertise.as_deref(), clock::epoch_us).await?;
        let bounds = Bounds { sessions_max, ..Bounds::default() };
        let core = Core::new(incarnation, journal.shards(), clock, precision_ns).bounded(bounds).at(journal.host().clone());
        let stop = CancellationToken::new();
        let hub = Self(Arc::new(Inner {
            journal,
            record,
            settle,
            state: Mutex::new(State { core, lock: None }),
            outboxes: DashMap::new(),
            sweep: Notify::new(),
            known: RwLock::new(None),
            trouble: tokio::sync::watch::Sender::new(None),
            away: tokio::sync::watch::Sender::new(None),
            meters: Meters::new(),
            homes: Homes::new(presence.rehome_after),
            runtime: tokio::runtime::Handle::current(),
            drained: Notify::new(),
            _stop_on_drop: stop.clone().drop_guard(),
            stop,
        }));
        hub.subscribe(incarnation).await?;
        hub.0.runtime.spawn(run_timers(Arc::downgrade(&hub.0), hub.0.stop.clone()));
        hub.0.runtime.spawn(beat(Arc::downgrade(&hub.0), presence.lease, hub.0.stop.clone()));
        hub.0.runtime.spawn(ping_journal(Arc::downgrade(&hub.0), hub.0.stop.clone()));
        tracing::info!(gateway.id = %incarnation, "gateway started");
        Ok(hub)
    }

    /// Why the journal failed last; None while it works.
    #[must_use]
    pub(crate) fn health(&self) -> tokio::sync::watch::Receiver<Option<String>> {
        self.0.trouble.subscribe()
    }

    /// Which shards are out of reach while the journal works; None while all can be reached.
    #[must_use]
    pub(crate) fn away(&self) -> tokio::sync::watch::Receiver<Option<String>> {
        self.0.away.subscribe()
    }

    /// The number of sessions.
    #[cfg(test)]
    pub(crate) fn session_count(&self) -> usize {
        self.0.state.lock().core.session_count()
    }

    /// A session joins its room. `arrival` is the arrival of its request.
    /// Refused when a bound is reached, no worker has rules for the room, or the gateway is stopping.
    pub(crate) fn open(&self, joining: Joining, arrival: Arrival) -> Result<(SessionId, Outbox), Refusal> {
        self.open_at(joining, || arrival)
    }

    /// Calls `arrival` under the lock that guards the watermark.
    fn open_at(&self, joining: Joining, arrival: impl FnOnce() -> Arrival) -> Result<(SessionId, Outbox), Refusal> {
        if self.0.known.read().as_ref().is_some_and(|known| !known.iter().any(|pattern| pattern.matches(&joining.room))) {
            let message = format!("no worker has rules for a room of the name {}: add a pattern that matches it", joining.room);
            return Err(Refusal { code: ErrorCode::UnknownRoom, id: None, message });
        }
        let opened = self.with(|state| {
            let session = state.core.open(joining, arrival())?;
            let (inlet, outbox) = outbox::new(Arc::downgrade(&self.0), session);
            self.0.outboxes.insert(session.number, inlet);
            Ok((session, outbox))
        });
        if opened.is_ok() {
            self.0.meters.opens.increment(1);
        }
        opened
    }

    /// A session acts. `arrival` is when the bytes reached the machine.
    /// Refused when the session is over, acts for another player without the server role, or too much is unresolved.
    pub(crate) fn act(&self, session: SessionId, action: Action, arrival: Arrival) -> Result<(), Refusal> {
        let result = self.with(|state| state.core.act(session.number, &action, arrival));
        if result.is_ok() {
            self.0.meters.data.increment(1);
        }
        result
    }

    /// A session announces its end, with a WebSocket close code.
    pub(crate) fn end(&self, session: SessionId, code: u16, arrival: Arrival) {
        self.finish("end", |core| core.end(session.number, code, arrival));
    }

    /// A session broke.
    pub(crate) fn error(&self, session: SessionId, reason: &str, arrival: Arrival) {
        self.finish("error", |core| core.error(session.number, reason, arrival));
    }

    /// A session has ended. Call this once, after everything else.
    pub(crate) fn close(&self, session: SessionId, arrival: Arrival) {
        self.finish("close", |core| core.close(session.number, arrival));
        self.0.outboxes.remove(&session.number);
    }

    fn finish(&self, kind: &'static str, f: impl FnOnce(&mut Core)) {
        self.with(|state| f(&mut state.core));
        metrics::counter!(names::EVENTS_TOTAL, "kind" => kind).increment(1);
    }

    /// Stamps and adds an event under the lock that guards the watermark, for servers with their own sockets.
    pub(crate) fn arrive<T>(&self, f: impl FnOnce(&mut Core, Arrival) -> T) -> T {
        self.with(|state| f(&mut state.core, Arrival::at(clock::monotonic_ns(), 0)))
    }

    /// A session joins its room now.
    pub(crate) fn join(&self, joining: Joining) -> Result<(SessionId, Outbox), Refusal> {
        self.open_at(joining, || Arrival::at(clock::monotonic_ns(), 0))
    }

    /// A session ends now. Nothing of it stays in memory.
    pub(crate) fn leave(&self, session: SessionId, code: u16) {
        self.with(|state| {
            let now = Arrival::at(clock::monotonic_ns(), 0);
            state.core.end(session.number, code, now);
            state.core.close(session.number, now);
            self.0.outboxes.remove(&session.number);
        });
    }

    /// The number of outboxes.
    #[cfg(test)]
    pub(crate) fn outbox_count(&self) -> usize {
        self.0.outboxes.len()
    }

    /// Whether a sweep would let a flush leave.
    #[must_use]
    pub(crate) fn wants_sweep(&self) -> bool {
        self.0.state.lock().core.wants_settling()
    }

    /// Returns when a sweep may be wanted.
    pub(crate) async fn sweep_wanted(&self) {
        self.0.sweep.notified().await;
    }

    /// Everything that arrived at or before `until_ns` has been read.
    pub(crate) fn settled(&self, until_ns: u64) {
        let mut state = self.0.state.lock();
        state.core.settled(until_ns);
        self.perform(&mut state);
    }

    /// Asks at most `count` quiet sessions to move. Returns how many were asked. Who was asked is left alone for
    /// [`MOVE_AGAIN`](limits::MOVE_AGAIN).
    pub(crate) fn offer_moves(&self, count: usize) -> usize {
        let asked = self.with(|state| state.core.offer_moves(count, clock::monotonic_ns()));
        metrics::counter!(names::MOVES_OFFERED_TOTAL).increment(asked as u64);
        asked
    }

    /// Asks all sessions to move, spread over the first half of `window`, to the gateway at `url` if there is one. New sessions
    /// are still let in, and asked at once. Closes who is still there at the end with 4504, and lets nobody in any more. Returns
    /// when no session is left. [`Hub::drain`] completes the departure.
    pub(crate) async fn move_sessions(&self, window: Duration, url: Option<Arc<str>>) {
        let mut departure = Departure::new(clock::monotonic_ns(), window.min(limits::MOVE_WINDOW_MAX), url);
        loop {
            let now_ns = clock::monotonic_ns();
            if departure.is_over(now_ns) {
                break;
            }
            let asked = self.with(|state| state.core.move_some(&mut departure, now_ns));
            metrics::counter!(names::MOVES_OFFERED_TOTAL).increment(asked as u64);
            tokio::time::sleep(limits::MOVE_STEP).await;
        }
        self.with(|state| state.core.close_unmoved());
        self.until(|core| core.session_count() == 0).await;
    }

    /// Returns once `holds`, which is looked at whenever something has changed while the gateway drains.
    async fn until(&self, holds: impl Fn(&Core) -> bool) {
        loop {
            let changed = self.0.drained.notified();
            if holds(&self.0.state.lock().core) {
                return;
            }
            changed.await;
        }
    }

    /// Dismisses all sessions. Returns when they are gone, all accepted events are in the journal, and this gateway's
    /// registrations are removed.
    pub(crate) async fn drain(&self) {
        self.with(|state| state.core.drain(close::GOING_AWAY, "this gateway is stopping: connect again with since"));
        if let Err(error) = self.0.journal.beat(&self.0.record, 0).await {
            tracing::warn!(%error, "cannot say that this gateway stops: its last beat runs out");
        }
        self.until(Core::is_drained).await;
        let shards = self.0.state.lock().core.leave();
        for (shard, gateway) in shards {
            if let Err(error) = self.0.journal.leave(shard, gateway).await {
                tracing::warn!(%error, "cannot remove this gateway's registrations: workers will fence it");
                return;
            }
        }
    }

    fn is_draining(&self) -> bool {
        self.0.state.lock().core.is_draining()
    }

    fn apply(&self, input: Input) {
        self.with(|state| state.core.apply(input));
    }

    /// Changes the core, then carries out its commands.
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.0.state.lock();
        let result = f(&mut state);
        if state.core.wants_settling() {
            match self.0.settle {
                Settle::Lock => state.core.settled(clock::monotonic_ns()),
                Settle::Sweep => self.0.sweep.notify_one(),
            }
        }
        self.perform(&mut state);
        if state.core.session_count() == 0 {
            self.0.drained.notify_waiters();
        }
        result
    }

    /// Of a step that failed. Which nodes of a cluster are away the pings tell: the others go on.
    fn failed(&self, what: &str, error: &JournalError) {
        match self.0.journal.beside(None) {
            None => self.trouble(what, error),
            Some(_) => {
                metrics::counter!(names::JOURNAL_ERRORS_TOTAL, "kind" => error.kind()).increment(1);
                tracing::debug!(%error, "a step on a node of the cluster failed: {what}; trying again until it works");
            }
        }
    }

    fn works(&self) {
        self.0.trouble.send_if_modified(|trouble| trouble.take().is_some());
    }

    fn trouble(&self, what: &str, error: &JournalError) {
        metrics::counter!(names::JOURNAL_ERRORS_TOTAL, "kind" => error.kind()).increment(1);
        let news = self.0.trouble.send_if_modified(|trouble| trouble.replace(error.to_string()).is_none());
        if news {
            tracing::warn!(%error, "the journal failed: {what}; trying again until it works");
        }
    }
}

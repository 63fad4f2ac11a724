//! Drives a gateway's `Core`: one lock around it, a task per journal step, an outbox per session. This is a gateway without
//! WebSockets. `front` adds them; a server that has its own sockets uses the hub directly.

mod outbox;
mod upkeep;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use parking_lot::{Mutex, RwLock};
use quanta::Instant;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use outbox::Inlet;
pub(crate) use outbox::Outbox;
use upkeep::{ping_journal, run_timers};

use super::core::Core;
use super::step::{Command, Joining, ReadId};
use crate::clock;
use crate::journal::{self, Appended, Flush, GatewayJournal, JournalError, Seen, Signal};
use crate::limits::{Bounds, CATCH_UP_REST, HEADS_INTERVAL};
use crate::metrics as names;
use crate::rules::Pattern;
use crate::types::{Action, Arrival, Incarnation, RoomId, SessionId, ShardId};
use crate::wire::client::{ErrorCode, Refusal, close};
use crate::wire::push;

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

/// A gateway without sockets. It is cheap to clone. Any task of the runtime that it was started on may call its methods.
#[derive(Clone)]
pub(crate) struct Hub(Arc<Inner>);

struct Inner {
    journal: Arc<dyn GatewayJournal>,
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
    /// The time from an action's arrival to its verdict. Looked up once.
    verdict_seconds: metrics::Histogram,
    runtime: tokio::runtime::Handle,
    drained: Notify,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

struct State {
    core: Core,
    subscription: Option<JoinHandle<()>>,
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
    /// When the journal fails.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) async fn start(
        journal: Arc<dyn GatewayJournal>,
        settle: Settle,
        sessions_max: usize,
        clock: &'static str,
        precision_ns: u64,
    ) -> Result<Self, JournalError> {
        let timeline = journal::enter(&*journal, &clock::timeline_name()).await?;
        let incarnation = Incarnation::random();
        let bounds = Bounds { sessions_max, ..Bounds::default() };
        let core = Core::new(incarnation, timeline, journal.shards(), clock, precision_ns).bounded(bounds);
        let stop = CancellationToken::new();
        let hub = Self(Arc::new(Inner {
            journal,
            settle,
            state: Mutex::new(State { core, subscription: None }),
            outboxes: DashMap::new(),
            sweep: Notify::new(),
            known: RwLock::new(None),
            trouble: tokio::sync::watch::Sender::new(None),
            verdict_seconds: metrics::histogram!(names::VERDICT_SECONDS),
            runtime: tokio::runtime::Handle::current(),
            drained: Notify::new(),
            _stop_on_drop: stop.clone().drop_guard(),
            stop,
        }));
        hub.subscribe(incarnation).await?;
        hub.0.runtime.spawn(run_timers(Arc::downgrade(&hub.0), timeline, hub.0.stop.clone()));
        hub.0.runtime.spawn(ping_journal(Arc::downgrade(&hub.0), hub.0.stop.clone()));
        tracing::info!(gateway.id = %incarnation, "gateway started");
        Ok(hub)
    }

    /// Why the journal failed last; None while it works.
    #[must_use]
    pub(crate) fn health(&self) -> tokio::sync::watch::Receiver<Option<String>> {
        self.0.trouble.subscribe()
    }

    /// The number of sessions.
    #[cfg(test)]
    pub(crate) fn session_count(&self) -> usize {
        self.0.state.lock().core.session_count()
    }

    /// A session joins its room. `arrival` is the arrival of its request.
    ///
    /// # Errors
    /// A refusal when a bound is reached, no worker has rules for the room, or the gateway is stopping.
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
            metrics::counter!(names::EVENTS_TOTAL, "kind" => "open").increment(1);
        }
        opened
    }

    /// A session acts. `arrival` is when the bytes reached the machine.
    ///
    /// # Errors
    /// A refusal: the session is over, acts for another player without the server role, or too much is unresolved.
    pub(crate) fn act(&self, session: SessionId, action: Action, arrival: Arrival) -> Result<(), Refusal> {
        let result = self.with(|state| {
            if session.gateway != state.core.incarnation() {
                return Err(Refusal {
                    code: ErrorCode::ShuttingDown,
                    id: Some(action.id.clone()),
                    message: "the session is over".to_owned(),
                });
            }
            state.core.act(session.number, &action, arrival)
        });
        if result.is_ok() {
            metrics::counter!(names::EVENTS_TOTAL, "kind" => "data").increment(1);
        }
        result
    }

    /// A session announces its end, with a WebSocket close code.
    pub(crate) fn end(&self, session: SessionId, code: u16, arrival: Arrival) {
        self.finish(session, "end", |core| core.end(session.number, code, arrival));
    }

    /// A session broke.
    pub(crate) fn error(&self, session: SessionId, reason: &str, arrival: Arrival) {
        self.finish(session, "error", |core| core.error(session.number, reason, arrival));
    }

    /// A session has ended. Call this once, after everything else.
    pub(crate) fn close(&self, session: SessionId, arrival: Arrival) {
        self.finish(session, "close", |core| core.close(session.number, arrival));
        self.0.outboxes.remove(&session.number);
    }

    fn finish(&self, session: SessionId, kind: &'static str, f: impl FnOnce(&mut Core)) {
        self.with(|state| {
            if session.gateway == state.core.incarnation() {
                f(&mut state.core);
            }
        });
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
            if session.gateway == state.core.incarnation() {
                state.core.end(session.number, code, now);
                state.core.close(session.number, now);
            }
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

    /// Dismisses all sessions. Returns when they are gone, all accepted events are in the journal, and this gateway's
    /// registrations are removed.
    pub(crate) async fn drain(&self) {
        self.with(|state| state.core.drain(close::GOING_AWAY, "this gateway is stopping: connect again with since"));
        loop {
            let changed = self.0.drained.notified();
            if self.0.state.lock().core.is_drained() {
                break;
            }
            changed.await;
        }
        let (gateway, shards) = {
            let mut state = self.0.state.lock();
            (state.core.incarnation(), state.core.leave())
        };
        for shard in shards {
            if let Err(error) = self.0.journal.leave(shard, gateway).await {
                tracing::warn!(%error, "cannot remove this gateway's registrations: workers will fence it");
                return;
            }
        }
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
        if state.core.is_drained() {
            self.0.drained.notify_waiters();
        }
        result
    }

    fn perform(&self, state: &mut State) {
        let mut now_ns = 0;
        while state.core.has_commands() {
            for command in state.core.take_commands() {
                match command {
                    Command::Deliver(session, delivery) => {
                        if let Some(arrived_ns) =
                            delivery.decides_since(SessionId { gateway: state.core.incarnation(), number: session })
                        {
                            if now_ns == 0 {
                                now_ns = clock::monotonic_ns();
                            }
                            self.0.verdict_seconds.record(Duration::from_nanos(now_ns.saturating_sub(arrived_ns)));
                        }
                        self.deliver(session, delivery);
                    }
                    Command::Append { flush, mut waits } => {
                        if !waits.is_empty() {
                            waits.end(clock::monotonic_ns(), &metrics::histogram!(names::SETTLE_SECONDS));
                        }
                        self.spawn(|hub| hub.append(flush));
                    }
                    Command::Register { shard, seen, rooms } => {
                        let incarnation = state.core.incarnation();
                        self.spawn(move |hub| hub.register(shard, incarnation, seen, rooms));
                    }
                    Command::Read { room, after, entries_max, read } => {
                        self.spawn(move |hub| hub.read(room, after, entries_max, read))
                    }
                    Command::AskOutbox { session, level } => {
                        let taken = self.0.outboxes.get(&session).and_then(|inlet| inlet.ask(level));
                        if let Some(taken) = taken {
                            state.core.drained(session, taken);
                        }
                    }
                    Command::Rest => self.spawn(|hub| async move {
                        tokio::time::sleep(CATCH_UP_REST).await;
                        // Once around everybody who is ready to run.
                        let began = Instant::now();
                        tokio::task::yield_now().await;
                        hub.with(|state| state.core.rested(began.elapsed()));
                    }),
                    Command::ReadHeads(shard, rooms) => self.spawn(move |hub| async move {
                        match hub.0.journal.heads(shard, &rooms).await {
                            Ok((server, heads)) => hub.with(|state| state.core.heads(shard, server, &heads)),
                            Err(error) => hub.trouble("read heads", &error),
                        }
                    }),
                    Command::Leave(shard, gateway) => self.spawn(move |hub| async move {
                        if let Err(error) = hub.0.journal.leave(shard, gateway).await {
                            hub.trouble("remove a registration", &error);
                        }
                    }),
                    Command::Rebirth => self.rebirth(state),
                }
            }
        }
    }

    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: impl FnOnce(Hub) -> F) {
        let (work, stop) = (task(self.clone()), self.0.stop.clone());
        self.0.runtime.spawn(async move { stop.run_until_cancelled(work).await });
    }

    async fn register(self, shard: ShardId, incarnation: Incarnation, seen: Seen, rooms: Vec<RoomId>) {
        let answer = self.insist("register", || self.0.journal.register(shard, incarnation, seen, &rooms)).await;
        if seen.flush > 0 {
            tracing::info!(
                shard = shard.0,
                "this gateway has registered with another server of the journal, and told it what the earlier one had"
            );
        }
        if answer.renewed > 0 {
            metrics::counter!(names::ROLLED_BACK_TOTAL).increment(answer.renewed);
            tracing::error!(
                shard = shard.0,
                rooms = answer.renewed,
                "the journal has lost delivered verdicts: its rooms begin a new era"
            );
        }
        self.with(|state| state.core.registered(shard, &answer));
    }

    async fn append(self, flush: Arc<Flush>) {
        let began = Instant::now();
        let sent = AtomicU32::new(0);
        let answer = self
            .insist("append", || {
                sent.fetch_add(1, Ordering::Relaxed);
                self.0.journal.append(&flush)
            })
            .await;
        metrics::histogram!(names::APPEND_SECONDS).record(began.elapsed().as_secs_f64());
        match &answer {
            Appended::Stored(_) => metrics::counter!(names::FLUSHES_TOTAL).increment(1),
            Appended::Moved => {}
            Appended::Refused(rooms) => {
                let rooms = rooms.iter().map(RoomId::as_str).collect::<Vec<_>>().join(", ");
                tracing::error!(
                    "rooms are damaged in the journal, and their sessions are sent away: {rooms}: restore their keys"
                );
            }
            Appended::Gap { .. } | Appended::Fenced => {
                tracing::warn!(shard = flush.shard.0, ?answer, "this gateway was declared dead: it starts again");
            }
        }
        let repeated = sent.into_inner() > 1;
        self.with(|state| state.core.appended(&flush, &answer, repeated, clock::monotonic_ns()));
    }

    async fn read(self, room: RoomId, after: u64, entries_max: usize, read: ReadId) {
        if read.gap {
            metrics::counter!(names::GAPS_FILLED_TOTAL).increment(1);
        }
        let step = || async {
            match self.0.journal.verdicts(&room, after, entries_max).await {
                // A damaged room must not hold up reads of other rooms.
                Err(error @ JournalError::Damaged(_)) => Ok(Err(error)),
                answer => answer.map(Ok),
            }
        };
        let told = match self.insist("read verdicts", step).await {
            Ok(page) => self.with(|state| state.core.page(&room, after, read, &page)).map_err(|error| error.to_string()),
            Err(error) => {
                self.with(|state| state.core.unreadable(&read));
                Err(error.to_string())
            }
        };
        if let Err(error) = told {
            tracing::error!(room.id = %room, error, "cannot read verdicts");
        }
    }

    /// Does a step of the journal until its outcome is known (rule W5).
    async fn insist<T, F: Future<Output = Result<T, JournalError>>>(&self, what: &str, step: impl Fn() -> F) -> T {
        let failed = |error| async move {
            metrics::counter!(names::JOURNAL_RETRIES_TOTAL).increment(1);
            match error {
                // Only this room is affected, and its repair takes longer than an outage.
                JournalError::Damaged(_) => {
                    tracing::warn!(%error, "{what} of a room");
                    tokio::time::sleep(HEADS_INTERVAL).await;
                }
                error => self.trouble(what, &error),
            }
            Ok::<(), Infallible>(())
        };
        let Ok(value) = journal::insist(step, failed).await;
        self.works();
        value
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

    async fn subscribe(&self, incarnation: Incarnation) -> Result<(), JournalError> {
        let mut pushes = self.0.journal.pushes(incarnation).await?;
        let (hub, stop) = (Arc::downgrade(&self.0), self.0.stop.clone());
        let task = self.0.runtime.spawn(async move {
            let listen = async {
                while let Some(signal) = pushes.recv().await {
                    let Some(hub) = hub.upgrade().map(Hub) else { return };
                    hub.signal(signal);
                    while let Ok(signal) = pushes.try_recv() {
                        hub.signal(signal);
                    }
                }
            };
            stop.run_until_cancelled(listen).await;
        });
        if let Some(old) = self.0.state.lock().subscription.replace(task) {
            old.abort();
        }
        Ok(())
    }

    fn signal(&self, signal: Signal<Bytes>) {
        match signal {
            Signal::Subscribed => self.with(|state| state.core.check_heads()),
            Signal::Message(bytes) => match push::decode(&bytes) {
                Ok(push) => self.with(|state| state.core.pushed(push)),
                Err(error) => tracing::error!(%error, "cannot read a push"),
            },
        }
    }

    /// The core starts again under a new identity. Its pushes are subscribed before it registers in any shard.
    fn rebirth(&self, state: &mut State) {
        let incarnation = Incarnation::random();
        state.core.reborn(incarnation);
        self.0.outboxes.clear();
        tracing::warn!(gateway.id = %incarnation, "gateway starts again under a new identity");
        self.spawn(move |hub| async move {
            hub.insist("subscribe", || hub.subscribe(incarnation)).await;
        });
    }
}

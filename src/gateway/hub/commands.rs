//! Carries out what the core wants done: a task for each step of the journal, which answers with an [`Input`].

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quanta::Instant;

use super::{Hub, State};
use crate::clock;
use crate::gateway::homes::Loss;
use crate::gateway::step::{Command, Input, ReadId};
use crate::journal::{self, Appended, Flush, Homed, JournalError, Registered, Seen, Signal};
use crate::limits::{CATCH_UP_REST, HEADS_INTERVAL, ROOMS_PER_SHARD_MAX};
use crate::metrics as names;
use crate::types::{Incarnation, RoomId, ShardId};
use crate::wire::push::{self, Push};

impl Hub {
    pub(super) fn perform(&self, state: &mut State) {
        let mut now_ns = 0;
        while state.core.has_commands() {
            for command in state.core.take_commands() {
                match command {
                    Command::Deliver(session, delivery) => {
                        if let Some(arrived_ns) = delivery.decides_since(state.core.session_id(session)) {
                            if now_ns == 0 {
                                now_ns = clock::monotonic_ns();
                            }
                            self.0.meters.verdict.record(Duration::from_nanos(now_ns.saturating_sub(arrived_ns)));
                        }
                        self.deliver(session, delivery);
                    }
                    Command::Append { flush, mut waits } => {
                        if !waits.is_empty() {
                            waits.end(clock::monotonic_ns(), &self.0.meters.settle);
                        }
                        self.spawn(|hub| hub.append(flush));
                    }
                    Command::Register { shard, gateway, seen, rooms } => {
                        self.spawn(move |hub| hub.register(shard, gateway, seen, rooms));
                    }
                    Command::ReadHome { shard, again } => self.spawn(move |hub| hub.read_home(shard, again)),
                    Command::HandOver(shard) => self.spawn(move |hub| hub.hand_over(shard)),
                    Command::Leave(shard, gateway) => self.spawn(move |hub| async move {
                        hub.insist("leave", || hub.0.journal.leave(shard, gateway)).await;
                    }),
                    Command::Read { room, after, entries_max, read } => {
                        self.spawn(move |hub| hub.read(room, after, entries_max, read))
                    }
                    Command::AskOutbox { session, level } => {
                        let taken = self.0.outboxes.get(&session).and_then(|inlet| inlet.ask(level));
                        if let Some(taken) = taken {
                            state.core.apply(Input::OutboxDrained { session, taken });
                        }
                    }
                    Command::Rest => self.spawn(|hub| async move {
                        tokio::time::sleep(CATCH_UP_REST).await;
                        // Returns after every ready task has run.
                        let began = Instant::now();
                        tokio::task::yield_now().await;
                        hub.apply(Input::Rested(began.elapsed()));
                    }),
                    Command::ReadHeads(shard, rooms) => self.spawn(move |hub| async move {
                        match hub.0.journal.heads(shard, &rooms).await {
                            Ok((server, heads)) => hub.apply(Input::Heads(shard, server, heads)),
                            Err(error) => hub.failed("read heads", &error),
                        }
                    }),
                    Command::Fenced(shard, Loss::Dead) => {
                        tracing::warn!(
                            shard = shard.0,
                            "this gateway was declared dead in a shard: its sessions there connect again"
                        );
                    }
                    Command::Fenced(shard, _) => {
                        tracing::info!(shard = shard.0, "a shard has another home: its sessions are sent on");
                    }
                    Command::Unreadable { room, why } => {
                        tracing::error!(room.id = %room, error = why, "cannot read verdicts");
                    }
                }
            }
        }
    }

    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: impl FnOnce(Hub) -> F) {
        let (work, stop) = (task(self.clone()), self.0.stop.clone());
        self.0.runtime.spawn(async move { stop.run_until_cancelled(work).await });
    }

    async fn register(self, shard: ShardId, gateway: Incarnation, seen: Seen, rooms: Vec<RoomId>) {
        let answer = self.insist("register", || self.0.journal.register(shard, gateway, seen, &rooms)).await;
        if seen.flush > 0 {
            tracing::info!(
                shard = shard.0,
                "this gateway has registered with another server of the journal, and told it what the earlier one had confirmed"
            );
        }
        if let Homed::Here(Registered { renewed: renewed @ 1.., .. }) = answer {
            metrics::counter!(names::ROLLED_BACK_TOTAL).increment(renewed);
            tracing::error!(
                shard = shard.0,
                rooms = renewed,
                "the journal has lost delivered verdicts: its rooms begin a new era"
            );
        }
        self.apply(Input::Registered(shard, gateway, answer));
        self.0.homes.told.notify_waiters();
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
        self.0.meters.append.record(began.elapsed().as_secs_f64());
        match &answer {
            Appended::Stored(_) => self.0.meters.flushes.increment(1),
            Appended::Moved => {}
            Appended::Refused(rooms) => {
                let rooms = rooms.iter().map(RoomId::as_str).collect::<Vec<_>>().join(", ");
                tracing::error!(
                    "rooms are damaged in the journal, and their sessions were dismissed: {rooms}: restore their keys"
                );
            }
            Appended::Full(rooms) => {
                let rooms = rooms.iter().map(RoomId::as_str).collect::<Vec<_>>().join(", ");
                tracing::error!(
                    shard = flush.shard.0,
                    "the shard has {ROOMS_PER_SHARD_MAX} rooms, the most, and the sessions of new ones were dismissed: {rooms}: a \
                     deployment of more shards has places for more"
                );
            }
            Appended::Gap { .. } | Appended::Fenced | Appended::Elsewhere(_) => {}
        }
        let repeated = sent.into_inner() > 1;
        self.with(|state| {
            let now_ns = clock::monotonic_ns();
            state.core.apply(Input::Appended { flush, answer, repeated, now_ns });
        });
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
        self.apply(match self.insist("read verdicts", step).await {
            Ok(page) => Input::Page { read, page },
            Err(error) => Input::Unreadable { read, why: error.to_string() },
        });
    }

    /// Does a step of the journal until its outcome is known (rule W5).
    pub(super) async fn insist<T, F: Future<Output = Result<T, JournalError>>>(&self, what: &str, step: impl Fn() -> F) -> T {
        let failed = |error| async move {
            metrics::counter!(names::JOURNAL_RETRIES_TOTAL).increment(1);
            match error {
                // Only this room is affected, and its repair takes longer than an outage.
                JournalError::Damaged(_) => {
                    tracing::warn!(%error, "cannot {what}: a room is damaged");
                    tokio::time::sleep(HEADS_INTERVAL).await;
                }
                error => self.failed(what, &error),
            }
            Ok::<(), Infallible>(())
        };
        let Ok(value) = journal::insist(step, failed).await;
        // Of a cluster this says something about one node.
        if self.0.journal.beside(None).is_none() {
            self.0.homes.reached_all_but([]);
            self.works();
        }
        value
    }

    pub(super) async fn subscribe(&self, incarnation: Incarnation) -> Result<(), JournalError> {
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
        // The task ends with the hub.
        drop(task);
        self.0.state.lock().lock = self.0.journal.lock(incarnation);
        Ok(())
    }

    fn signal(&self, signal: Signal<Bytes>) {
        match signal {
            Signal::Subscribed => self.apply(Input::Subscribed),
            Signal::Message(bytes) => match push::decode(&bytes) {
                Ok(push) => self.with(|state| {
                    if matches!(push, Push::Moving { .. } | Push::Home { .. }) {
                        state.core.now(clock::monotonic_ns());
                    }
                    state.core.apply(Input::Push(push));
                }),
                Err(error) => tracing::error!(%error, "cannot read a push"),
            },
        }
    }
}

//! The processes as their drivers drive them: a gateway around its core, a worker around its core.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;

use super::client::Message;
use super::journal::{Answer, Call, LEASE_MS};
use super::rules::{Editions, book};
use super::world::{Channel, Happening, Kind, Listening, MS, Pid, US, World};
use crate::gateway::Delivery;
use crate::gateway::core::Core as GatewayCore;
use crate::gateway::step::{Command as GatewayCommand, Input as GatewayInput};
use crate::journal::{Beats, Bell};
use crate::limits::{HEADS_INTERVAL, HELD_TRIES};
use crate::supervisor::plan::step::Exit;
use crate::types::{Arrival, Incarnation, ShardId};
use crate::wire::push;
use crate::worker::core::Core as WorkerCore;
use crate::worker::step::{Input, WorkerLimits};

/// How long a gateway may owe a watermark here.
const GATEWAY_TIMEOUT_NS: u64 = 60 * MS;

/// For how long the journal may be silent before a gateway takes its rooms for another host's.
pub(super) const SILENCE_NS: u64 = 2 * LEASE_MS * MS;

/// A place in a subscription; what is under way to an older generation is lost.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) pid: Pid,
    pub(super) generation: u64,
    pub(super) connected: bool,
}

/// Bytes that lie in a socket until the gateway reads them.
#[derive(Debug)]
pub(super) struct Unread {
    pub(super) arrival_ns: u64,
    pub(super) conn: u64,
    pub(super) message: Message,
}

#[derive(Debug)]
pub(super) struct GatewayProcess {
    pub(super) core: Option<GatewayCore>,
    pub(super) incarnation: Incarnation,
    pub(super) start: u64,
    pub(super) paused_until: u64,
    pub(super) sockets: Vec<Unread>,
    pub(super) sessions: BTreeMap<u64, u64>,
    turning: bool,
    /// It ends once it is drained.
    pub(super) ending: bool,
    /// Connections that were passed to it and that it has not let in yet.
    pub(super) coming: u64,
    /// Actions that came in.
    pub(super) events: u64,
    /// Whether the journal did not answer the last time, and when it did.
    pub(super) trouble: bool,
    pub(super) answered_at: u64,
    /// Whether no other host was seen.
    pub(super) alone: bool,
}

#[derive(Debug)]
pub(super) struct WorkerProcess {
    pub(super) core: Option<WorkerCore>,
    /// The wall clock less the monotonic clock, as it measured it last.
    epoch_ns: u64,
    /// When it wakes up because a timer is due.
    pub(super) due_ns: Option<u64>,
    pub(super) incarnation: Incarnation,
    pub(super) start: u64,
    pub(super) paused_until: u64,
    /// The programs that it has read.
    pub(super) editions: std::sync::Arc<Editions>,
    /// The last push that it has heard of.
    pub(super) known: u64,
}

impl GatewayProcess {
    pub(super) fn nobody() -> Self {
        Self {
            core: None,
            incarnation: Incarnation::NONE,
            start: 0,
            paused_until: 0,
            sockets: Vec::new(),
            sessions: BTreeMap::new(),
            turning: false,
            ending: false,
            coming: 0,
            events: 0,
            trouble: false,
            answered_at: 0,
            alone: true,
        }
    }
}

impl WorkerProcess {
    pub(super) fn nobody() -> Self {
        let editions = std::sync::Arc::default();
        Self {
            core: None,
            epoch_ns: 0,
            due_ns: None,
            incarnation: Incarnation::NONE,
            start: 0,
            paused_until: 0,
            editions,
            known: 0,
        }
    }
}

impl World {
    pub(super) fn gateway_pid(&self, index: usize) -> Pid {
        Pid { kind: Kind::Gateway, index, start: self.gateways[index].start }
    }

    pub(super) fn worker_pid(&self, index: usize) -> Pid {
        Pid { kind: Kind::Worker, index, start: self.workers[index].start }
    }

    pub(super) fn start_gateway(&mut self, index: usize) {
        let incarnation = self.incarnation();
        let start = self.gateways[index].start + 1;
        let core =
            GatewayCore::new(incarnation, self.store.shards(), "sim", 0).bounded(self.options.bounds).at(self.host_id(index));
        let coming = self.gateways[index].coming;
        let answered_at = self.now;
        self.gateways[index] =
            GatewayProcess { core: Some(core), incarnation, start, coming, answered_at, ..GatewayProcess::nobody() };
        self.trace(|| format!("gateway {index} starts as {incarnation:?}"));
        let pid = self.gateway_pid(index);
        self.listen(pid, Listening::Pushes(incarnation));
        self.after(1, Some(pid), Happening::Beat);
        self.after(1_000 * MS, Some(pid), Happening::Tick);
        self.after(HEADS_INTERVAL.as_nanos() as u64, Some(pid), Happening::CheckHeads);
    }

    pub(super) fn start_worker(&mut self, index: usize) {
        let incarnation = self.incarnation();
        let start = self.workers[index].start + 1;
        // Whoever starts has read what was pushed, or has an older file, and hears of the last push later.
        let pushed = self.pushed;
        let known = if pushed > 0 && self.below(4) == 0 { self.below(pushed) } else { pushed };
        if known < pushed {
            let delay = self.below(100 * MS);
            self.after(delay, Some(Pid { kind: Kind::Worker, index, start }), Happening::Pushed(pushed));
        }
        let editions = std::sync::Arc::new(Editions::default());
        // Every process measures it a little otherwise.
        let epoch_ns = self.host(index).epoch(self.now) + self.below(2 * US);
        let limits = WorkerLimits {
            bounds: self.options.bounds,
            rules: book(known),
            library: editions.clone(),
            epoch_ns,
            concurrency: 2,
            gateway_timeout_ns: GATEWAY_TIMEOUT_NS,
            deaf_timeout_ns: GATEWAY_TIMEOUT_NS / 4,
            rejoin_window_ns: 80 * MS,
            probe_interval_ns: 5 * MS,
            look_after_ns: 8 * MS,
            look_interval_ns: 10 * MS,
            commits_may_be_lost: true,
            host: self.host_id(index),
            rehome_after_ns: SILENCE_NS,
            heartbeat_interval_ns: 20 * MS,
            lease_ms: LEASE_MS,
            room_linger_ns: self.options.room_linger_ns,
            retention_ms: self.options.retention_ms,
        };
        let core = WorkerCore::new(incarnation, self.store.shards(), limits);
        self.workers[index] =
            WorkerProcess { core: Some(core), epoch_ns, due_ns: None, incarnation, start, paused_until: 0, editions, known };
        self.trace(|| format!("worker {index} starts as {incarnation:?}"));
        let pid = self.worker_pid(index);
        self.after(1, Some(pid), Happening::Tick);
    }

    /// Subscribes, or subscribes again after a break.
    pub(super) fn listen(&mut self, pid: Pid, what: Listening) {
        let generation = self.generation();
        let subscription = Subscription { pid, generation, connected: false };
        match what {
            Listening::Bells(shard) => self.bells.insert((pid.index, shard), subscription),
            Listening::Pushes(incarnation) => self.pushes.insert(incarnation, subscription),
        };
        let delay = self.delay() + self.cut_off_for(pid);
        self.after(delay, Some(pid), Happening::Connect(what));
    }

    pub(super) fn tick(&mut self, pid: Pid) {
        match pid.kind {
            Kind::Gateway => {
                self.after(1_000 * MS, Some(pid), Happening::Tick);
                self.tell_gateway(pid.index, GatewayInput::Tick(self.local(pid.index)));
            }
            Kind::Worker => {
                let interval = if self.calm { 20 * MS } else { 5 * MS };
                self.after(interval, Some(pid), Happening::Tick);
                let measured = self.host(pid.index).epoch(self.now) + self.below(2 * US);
                let known = &mut self.workers[pid.index].epoch_ns;
                if known.abs_diff(measured) >= MS {
                    *known = measured;
                    self.feed_worker(pid.index, Input::Clock(measured));
                }
                self.feed_worker(pid.index, Input::Tick);
            }
        }
    }

    pub(super) fn check_heads(&mut self, pid: Pid) {
        self.after(HEADS_INTERVAL.as_nanos() as u64, Some(pid), Happening::CheckHeads);
        self.tell_gateway(pid.index, GatewayInput::CheckHeads);
    }

    pub(super) fn bell(&mut self, pid: Pid, shard: ShardId, generation: u64, bell: Option<Bell>) {
        if self.bells.get(&(pid.index, shard)).is_none_or(|s| s.generation != generation) {
            return;
        }
        self.feed_worker(pid.index, bell.map_or(Input::Subscribed(shard), Input::Bell));
    }

    pub(super) fn push(&mut self, pid: Pid, incarnation: Incarnation, generation: u64, push: Option<Bytes>) {
        if self.pushes.get(&incarnation).is_none_or(|s| s.generation != generation) {
            return;
        }
        let now = self.local(pid.index);
        self.gateways[pid.index].core.iter_mut().for_each(|core| core.now(now));
        let pushed = |push| GatewayInput::Push(push::decode(&push).expect("a push"));
        self.tell_gateway(pid.index, push.map_or(GatewayInput::Subscribed, pushed));
    }

    pub(super) fn tell_gateway(&mut self, index: usize, input: GatewayInput) {
        self.with_gateway(index, |core, _| core.apply(input));
    }

    /// Changes a gateway's core, then does what follows from it.
    pub(super) fn with_gateway<T>(&mut self, index: usize, f: impl FnOnce(&mut GatewayCore, u64) -> T) -> Option<T> {
        let now = self.local(index);
        let result = f(self.gateways[index].core.as_mut()?, now);
        loop {
            let commands = self.gateways[index].core.as_mut()?.take_commands();
            if commands.is_empty() {
                break;
            }
            for command in commands {
                self.obey_gateway(index, command);
            }
        }
        if self.gateways[index].ending && self.gateways[index].core.as_ref()?.is_drained() {
            self.gateway_is_drained(index);
            return Some(result);
        }
        if self.gateways[index].core.as_ref()?.wants_settling() {
            self.want_turn(index, 5 * US, 60 * US);
        }
        Some(result)
    }

    fn obey_gateway(&mut self, index: usize, command: GatewayCommand) {
        let pid = self.gateway_pid(index);
        match command {
            GatewayCommand::Register { shard, gateway, seen, rooms } => {
                self.call(pid, Call::Register { shard, gateway, seen, rooms });
            }
            GatewayCommand::ReadHome { shard, again } => match again {
                true => self.after(HELD_TRIES.as_nanos() as u64, Some(pid), Happening::Again(Rc::new(Call::Home(shard)))),
                false => self.call(pid, Call::Home(shard)),
            },
            GatewayCommand::HandOver(shard) => {
                self.ledger.count("shards that gateways handed over");
                self.after(0, Some(pid), Happening::HandOver(shard));
            }
            GatewayCommand::Leave(shard, turn) => self.call(pid, Call::Leave(shard, turn)),
            GatewayCommand::Append { flush, .. } => self.call(pid, Call::Append { flush, sent: Cell::new(0) }),
            GatewayCommand::Read { room, after, entries_max, read } => {
                self.call(pid, Call::Verdicts { room, after, entries_max, read });
            }
            GatewayCommand::AskOutbox { session, .. } => {
                // Its client reads slowly, or does not.
                let slowly = self.chance(500);
                let delay = if slowly { self.below(60 * MS) } else { self.delay() };
                self.after(delay, Some(pid), Happening::Drained(session));
            }
            GatewayCommand::Rest => {
                let delay = self.delay();
                self.after(delay, Some(pid), Happening::Rested);
            }
            GatewayCommand::ReadHeads(shard, rooms) => self.call(pid, Call::Heads(shard, rooms)),
            GatewayCommand::Deliver(session, delivery) => {
                let Some(conn) = self.gateways[index].sessions.get(&session).copied() else { return };
                if matches!(delivery, Delivery::Close { .. }) {
                    let delay = self.delay();
                    self.after(delay, Some(pid), Happening::SessionOver(conn));
                }
                self.along(Channel::ToClient(conn), None, Happening::Deliver { conn, delivery });
            }
            GatewayCommand::Fenced(shard, why) => {
                self.trace(|| format!("gateway {index} begins another turn in {shard:?}: {why:?}"));
                self.ledger.count("turns");
            }
            GatewayCommand::Unreadable { why, .. } => assert!(why.contains("damaged in the journal"), "{why}"),
        }
    }

    pub(super) fn answer_gateway(&mut self, index: usize, call: &Call, answer: Answer) {
        let me = self.gateways[index].incarnation;
        let input = match (call, answer) {
            (Call::Register { shard, gateway, .. }, Answer::Registered(answer)) => {
                GatewayInput::Registered(*shard, *gateway, answer)
            }
            (Call::Append { flush, sent }, Answer::Appended(answer)) => {
                GatewayInput::Appended { flush: flush.clone(), answer, repeated: sent.get() > 1, now_ns: self.local(index) }
            }
            (Call::Verdicts { read, .. }, Answer::Page(page)) => GatewayInput::Page { read: read.clone(), page },
            (Call::Verdicts { read, .. }, Answer::Damaged(_, why)) => GatewayInput::Unreadable { read: read.clone(), why },
            (Call::Leave(..), Answer::Nothing) => return,
            (Call::Home(shard), Answer::Home(home)) => GatewayInput::Home(*shard, home, self.local(index)),
            (Call::Beat { .. }, Answer::Beats(beats)) => return self.heard(index, &beats),
            (Call::Heads(shard, _), Answer::Heads(server, heads)) => GatewayInput::Heads(*shard, server, heads),
            _ => unreachable!("an answer to another question to {me:?}"),
        };
        self.tell_gateway(index, input);
    }

    /// A gateway hears who else lives.
    fn heard(&mut self, index: usize, beats: &Beats) {
        let me = self.record(self.gateway_pid(index), self.host(index).name);
        let was_alone = std::mem::replace(&mut self.gateways[index].alone, beats.other_home(&me).is_none());
        self.beat_again(self.gateway_pid(index), was_alone);
        self.with_gateway(index, |core, _| core.hosts(beats.ready_hosts(&me)));
    }

    pub(super) fn want_turn(&mut self, index: usize, least_ns: u64, spread_ns: u64) {
        if !std::mem::replace(&mut self.gateways[index].turning, true) {
            let delay = least_ns + self.below(spread_ns);
            let pid = self.gateway_pid(index);
            self.after(delay, Some(pid), Happening::Turn);
        }
    }

    /// One sweep: the sockets are read, in any order among sessions, and what had arrived before it is settled. A sweep may
    /// miss what one session sent: that comes in late, below a watermark that was published.
    pub(super) fn turn(&mut self, pid: Pid) {
        let (index, began) = (pid.index, self.local(pid.index));
        self.gateways[index].turning = false;
        let mut unread = std::mem::take(&mut self.gateways[index].sockets);
        let missed = match unread.len() as u64 {
            len if len > 0 && self.chance(self.options.late_per_mille) => Some(unread[self.below(len) as usize].conn),
            _ => None,
        };
        while !unread.is_empty() {
            let any = unread[self.below(unread.len() as u64) as usize].conn;
            let first = unread.iter().position(|u| u.conn == any).expect("it is there");
            let next = unread.remove(first);
            if missed == Some(next.conn) {
                self.ledger.count("read late");
                self.gateways[index].sockets.push(next);
            } else {
                self.feed(index, next);
            }
        }
        self.with_gateway(index, |core, _| {
            if core.wants_settling() {
                core.settled(began);
            }
        });
        if missed.is_some() {
            self.want_turn(index, 50 * US, MS);
        }
    }

    pub(super) fn session_over(&mut self, pid: Pid, conn: u64) {
        let Some(session) = self.live_session(pid.index, conn) else { return };
        self.with_gateway(pid.index, |core, now| {
            core.end(session, 1001, Arrival::at(now, 0));
            core.close(session, Arrival::at(now, 0));
        });
        self.gateways[pid.index].sessions.remove(&session);
    }

    /// The session of a connection, while its gateway still has it.
    pub(super) fn live_session(&self, index: usize, conn: u64) -> Option<u64> {
        let session = self.conns.get(&conn)?.session?;
        (self.gateways[index].sessions.get(&session) == Some(&conn)).then_some(session)
    }

    pub(super) fn end_worker(&mut self, index: usize) {
        let stopped = self.workers[index].core.take().is_some_and(|core| core.is_stopped());
        self.bells.retain(|(worker, _), _| *worker != index);
        if self.supervisor.is_some() {
            return self.child_over((Kind::Worker, index), if stopped { Exit::Code(0) } else { Exit::Signal(9) });
        }
        let delay = 10 * MS + self.below(150 * MS);
        self.after(delay, None, Happening::Revive { kind: Kind::Worker, index });
    }

    pub(super) fn gateways_alive(&self) -> Vec<usize> {
        (0..self.gateways.len()).filter(|i| self.gateways[*i].core.is_some()).collect()
    }
}

//! The world: virtual time, what is going to happen when, and the draws.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::check;
use super::client::{Client, Conn, Message};
use super::faults::Fault;
use super::follow::Following;
use super::hosts::{Homes, Host, Now};
use super::journal::{Answer, Call};
use super::ledger::{Ledger, Rooms};
use super::options::Options;
use super::process::{GatewayProcess, Subscription, WorkerProcess};
use super::supervised::{Child, Deed, Supervisor};
use crate::gateway::Delivery;
use crate::gateway::step::Input as GatewayInput;
use crate::journal::memory::Store;
use crate::journal::{Bell, PageSize, Place};
use crate::supervisor::plan::step::{ChildId, Exit};
use crate::types::{HostId, Incarnation, ProgramId, RoomId, ShardId};
use crate::worker::job::{Job, Loading};
use crate::worker::step::Input;

pub(super) const MS: u64 = 1_000_000;
pub(super) const US: u64 = 1_000;
/// The number of a shard whose home never changed.
pub(super) const TIMELINE: u32 = 1;
/// The wall clock less the world's time, at first.
pub(super) const EPOCH_NS: u64 = 1_700_000_000_000 * MS;
const SHARDS: u16 = 2;
/// How long the world is left alone after the last fault: longer than every timeout of the cores.
const CALM_NS: u64 = 20_000 * MS;
/// How much longer, at most, if a host is being drained: a move may have failed just before.
const DRAIN_NS: u64 = 60_000 * MS;

/// A process: which, and which start of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pid {
    pub(super) kind: Kind,
    pub(super) index: usize,
    pub(super) start: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Gateway,
    Worker,
}

/// A way on which nothing overtakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Channel {
    Bells(usize, ShardId),
    Pushes(Incarnation),
    ToClient(u64),
}

pub(super) enum Happening {
    /// A request reaches the journal.
    Execute {
        /// The name of its sender's host.
        host: u32,
        by: Pid,
        call: Rc<Call>,
        connection: u64,
        answered: bool,
    },
    Answered {
        call: Rc<Call>,
        answer: Answer,
    },
    /// No answer came: the outcome is unknown.
    Unanswered(Rc<Call>),
    /// It is asked again.
    Again(Rc<Call>),
    /// Something that a worker listens to.
    Connect(Listening),
    Bell {
        shard: ShardId,
        generation: u64,
        bell: Option<Bell>,
    },
    Push {
        incarnation: Incarnation,
        generation: u64,
        push: Option<Bytes>,
    },
    ShardIsFree,
    /// A gateway says that it lives.
    Beat,
    /// A gateway goes on handing a shard over.
    HandOver(ShardId),
    /// A worker is asked to give a shard to a host.
    Give(ShardId, HostId),
    /// A worker hears of a push.
    Pushed(u64),
    /// A worker has read a program.
    Fetched(ShardId, ProgramId, Box<Loading>),
    /// The locks of these are free.
    Gone(Vec<Incarnation>),
    Job(Job),
    Tick,
    Turn,
    CheckHeads,
    /// A session's outbox is empty.
    Drained(u64),
    Rested,
    /// A timer may be due.
    Due(u64),
    /// Bytes reach the machine: the true arrival.
    Arrive {
        conn: u64,
        message: Message,
    },
    Deliver {
        conn: u64,
        delivery: Delivery,
    },
    SessionOver(u64),
    ConnectionLost(u64),
    ClientStep(usize),
    /// A move of a player goes on, if it is still this one.
    Follow {
        client: usize,
        number: u64,
        step: Following,
    },
    /// The supervisor looks after its children.
    Look {
        supervisor: u64,
        due: u64,
    },
    /// A child does something.
    Deed((Kind, usize), Deed),
    /// Its process is gone.
    Exited {
        supervisor: u64,
        child: ChildId,
        exit: Exit,
    },
    Rally,
    Fault,
    /// What the journal has now may be all that it has after a restart.
    Remember,
    /// A room's keys are what was written there again.
    Mend(RoomId),
    Restart,
    Revive {
        kind: Kind,
        index: usize,
    },
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Listening {
    Bells(ShardId),
    Pushes(Incarnation),
}

pub(super) struct World {
    pub(super) options: Options,
    rng: StdRng,
    pub(super) now: u64,
    pub(super) hosts: Vec<Host>,
    /// How often hosts have booted: each time one is another host.
    pub(super) boots: u32,
    pub(super) homes: Homes,
    agenda: BTreeMap<(u64, u64), (Option<Pid>, Happening)>,
    drawn: u64,
    channels: BTreeMap<Channel, u64>,
    pub(super) store: Store,
    /// Counts the times that all connections to the journal broke.
    pub(super) connection: u64,
    pub(super) gateways: Vec<GatewayProcess>,
    pub(super) workers: Vec<WorkerProcess>,
    pub(super) supervisor: Option<Supervisor>,
    /// Its processes.
    pub(super) children: BTreeMap<(Kind, usize), Child>,
    /// Until then players may feel that a process has died or stands still.
    pub(super) trouble_until: u64,
    pub(super) clients: Vec<Client>,
    pub(super) conns: BTreeMap<u64, Conn>,
    pub(super) bells: BTreeMap<(usize, ShardId), Subscription>,
    pub(super) pushes: BTreeMap<Incarnation, Subscription>,
    pub(super) rooms: Vec<RoomId>,
    /// Rooms of which a key was spoiled.
    pub(super) spoiled: BTreeSet<RoomId>,
    /// The number of the last push of a program.
    pub(super) pushed: u64,
    /// Processes that died and left a free lock behind, and on which host.
    pub(super) free_locks: BTreeMap<Incarnation, usize>,
    pub(super) ledger: Ledger,
    pub(super) journal_away_until: u64,
    /// What the journal had, lately, and what was really there then.
    pub(super) history: VecDeque<(Store, Rooms, Now)>,
    /// Faults are over.
    pub(super) calm: bool,
    /// Since when they are, if no room is spoiled, and workers have no reason to wait for gateways that may find the journal later.
    pub(super) calm_since: Option<u64>,
}

impl World {
    pub(super) fn new(seed: u64, options: Options) -> Self {
        let name = |i: usize| RoomId::new(&format!("{}{i}", if i == 1 { "slow" } else { "room" })).expect("a name");
        let mut world = Self {
            rng: StdRng::seed_from_u64(seed),
            now: 1_000 * MS,
            hosts: Vec::new(),
            boots: 0,
            homes: Homes::default(),
            agenda: BTreeMap::new(),
            drawn: 0,
            channels: BTreeMap::new(),
            store: Store::new(SHARDS),
            connection: 0,
            gateways: Vec::new(),
            workers: Vec::new(),
            supervisor: None,
            children: BTreeMap::new(),
            trouble_until: 0,
            clients: Vec::new(),
            conns: BTreeMap::new(),
            bells: BTreeMap::new(),
            pushes: BTreeMap::new(),
            rooms: (0..options.rooms).map(name).collect(),
            spoiled: BTreeSet::new(),
            pushed: 0,
            free_locks: BTreeMap::new(),
            ledger: Ledger::default(),
            journal_away_until: 0,
            history: VecDeque::new(),
            calm: false,
            calm_since: None,
            options,
        };
        world.install_hosts();
        if world.options.supervised.is_some() {
            world.start_supervisor();
        }
        for index in 0..world.options.workers {
            world.workers.push(WorkerProcess::nobody());
            world.start_worker(index);
        }
        for index in 0..world.options.gateways {
            world.gateways.push(GatewayProcess::nobody());
            world.start_gateway(index);
        }
        for index in 0..world.options.clients {
            let room = world.rooms[index % world.rooms.len()].clone();
            world.clients.push(Client::new(index, room, world.options.supervised.is_some() || world.options.hosts > 1));
            let at = world.now + world.below(30 * MS);
            world.at(at, None, Happening::ClientStep(index));
        }
        if world.options.clients > 0 {
            world.after(20 * MS, None, Happening::Rally);
        }
        if world.options.restart_interval_ns > 0 || world.options.faults.contains(&Fault::ChangeServer) {
            world.after(MS, None, Happening::Remember);
        }
        if world.options.restart_interval_ns > 0 {
            world.after(100 * MS, None, Happening::Restart);
        }
        if !world.options.faults.is_empty() {
            world.after(30 * MS, None, Happening::Fault);
        }
        world
    }

    /// Plays to the end: the active time, then the calm one.
    pub(super) fn run(&mut self) {
        let calm_at = self.now + self.options.active_ns;
        self.run_until(calm_at);
        self.calm_down();
        let mut mended_at = calm_at;
        if !self.spoiled.is_empty() {
            mended_at += CALM_NS;
            self.run_until(mended_at);
            check::beside(self);
            std::mem::take(&mut self.spoiled);
            // A worker that could not continue a room waits up to as long as it has waited, and then resolves all of it.
            mended_at += CALM_NS;
        }
        self.run_until(mended_at + CALM_NS);
        if self.drains() {
            // A move that failed is tried again after a while.
            self.run_until(mended_at + CALM_NS + DRAIN_NS);
        }
    }

    pub(super) fn run_until(&mut self, end: u64) {
        while let Some(next) = self.agenda.first_entry() {
            let (at, id) = *next.key();
            if at > end {
                break;
            }
            let (pid, happening) = next.remove();
            self.now = self.now.max(at);
            if let Some(pid) = pid {
                let (start, alive, paused_until) = self.life(pid);
                if start != pid.start || !alive {
                    continue;
                }
                if paused_until > self.now {
                    // Everything that reaches a stopped process waits for it, in the order in which it came.
                    self.agenda.insert((paused_until, id), (Some(pid), happening));
                    continue;
                }
            }
            self.happen(pid, happening);
        }
        self.now = self.now.max(end);
    }

    /// Whether the journal has the room in this era.
    pub(super) fn lives(&self, room: &RoomId, era: u64) -> bool {
        self.store.load(room, Place::default(), PageSize::default()).head.era == era
    }

    fn life(&self, pid: Pid) -> (u64, bool, u64) {
        match pid.kind {
            Kind::Gateway => self.gateways.get(pid.index).map(|g| (g.start, g.core.is_some(), g.paused_until)),
            Kind::Worker => self.workers.get(pid.index).map(|w| (w.start, w.core.is_some(), w.paused_until)),
        }
        .expect("a process")
    }

    fn happen(&mut self, pid: Option<Pid>, happening: Happening) {
        match (happening, pid) {
            (Happening::Execute { host, by, call, connection, answered }, _) => {
                self.execute(host, by, &call, connection, answered)
            }
            (Happening::Answered { call, answer }, Some(pid)) => self.answered(pid, &call, answer),
            (Happening::Unanswered(call), Some(pid)) => self.unanswered(pid, &call),
            (Happening::Again(call), Some(pid)) => self.send(pid, call),
            (Happening::Connect(what), Some(pid)) => self.connected(pid, what),
            (Happening::Bell { shard, generation, bell }, Some(pid)) => self.bell(pid, shard, generation, bell),
            (Happening::Push { incarnation, generation, push }, Some(pid)) => self.push(pid, incarnation, generation, push),
            (Happening::Gone(who), Some(pid)) => self.feed_worker(pid.index, Input::Gone(who)),
            (Happening::Pushed(push), Some(pid)) => self.hear_of_push(pid.index, push),
            (Happening::Fetched(shard, program, loading), Some(pid)) => self.fetched(pid.index, shard, program, loading),
            (Happening::Beat, Some(pid)) => self.beat(pid),
            (Happening::HandOver(shard), Some(pid)) => self.hand_over(pid, shard),
            (Happening::Give(shard, host), Some(pid)) => self.feed_worker(pid.index, Input::Give(shard, host)),
            (Happening::ShardIsFree, Some(pid)) => self.feed_worker(pid.index, Input::ShardIsFree),
            (Happening::Job(job), Some(pid)) => self.feed_worker(pid.index, Input::Done(job.run())),
            (Happening::Tick, Some(pid)) => self.tick(pid),
            (Happening::Due(due_ns), Some(pid)) => self.due(pid, due_ns),
            (Happening::Turn, Some(pid)) => self.turn(pid),
            (Happening::Drained(session), Some(pid)) => {
                self.tell_gateway(pid.index, GatewayInput::OutboxDrained { session, taken: u64::MAX });
            }
            (Happening::Rested, Some(pid)) => {
                let waited = std::time::Duration::from_micros(self.below(1_000));
                self.tell_gateway(pid.index, GatewayInput::Rested(waited));
            }
            (Happening::CheckHeads, Some(pid)) => self.check_heads(pid),
            (Happening::Arrive { conn, message }, _) => self.arrive(conn, message),
            (Happening::Deliver { conn, delivery }, _) => self.delivered(conn, delivery),
            (Happening::SessionOver(conn), Some(pid)) => self.session_over(pid, conn),
            (Happening::ConnectionLost(conn), _) => self.connection_lost(conn),
            (Happening::ClientStep(index), _) => self.client_step(index),
            (Happening::Follow { client, number, step }, _) => self.follow(client, number, step),
            (Happening::Look { supervisor, due }, _) => self.look(supervisor, due),
            (Happening::Deed(key, deed), _) => self.deed(key, deed),
            (Happening::Exited { supervisor, child, exit }, _) => self.exited(supervisor, child, exit),
            (Happening::Rally, _) => self.rally(),
            (Happening::Fault, _) => self.fault(),
            (Happening::Remember, _) => self.remember(),
            (Happening::Mend(room), _) => self.mend(&room),
            (Happening::Restart, _) => self.restart_in_a_while(),
            (Happening::Revive { kind, index }, _) => self.revive(kind, index),
            (_, None) => unreachable!("this happens to a process"),
        }
    }

    pub(super) fn at(&mut self, at: u64, pid: Option<Pid>, happening: Happening) {
        self.drawn += 1;
        self.agenda.insert((at, self.drawn), (pid, happening));
    }

    pub(super) fn after(&mut self, ns: u64, pid: Option<Pid>, happening: Happening) {
        self.at(self.now + ns, pid, happening);
    }

    /// After a drawn delay, and never before what went the same way earlier.
    pub(super) fn along(&mut self, channel: Channel, pid: Option<Pid>, happening: Happening) {
        let at = (self.now + self.delay()).max(self.channels.get(&channel).map_or(0, |last| last + 1));
        self.channels.insert(channel, at);
        self.at(at, pid, happening);
    }

    /// Mostly short, sometimes long.
    pub(super) fn delay(&mut self) -> u64 {
        match self.below(100) {
            _ if self.calm || self.options.prompt => 5 * US + self.below(50 * US),
            0..80 => 5 * US + self.below(80 * US),
            80..96 => self.below(2 * MS),
            _ => self.below(30 * MS),
        }
    }

    /// A draw below `n`.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.rng.random_range(0..n.max(1))
    }

    pub(super) fn chance(&mut self, per_mille: u32) -> bool {
        !self.calm && per_mille > 0 && self.rng.random_range(0..1_000) < per_mille
    }

    pub(super) fn incarnation(&mut self) -> Incarnation {
        Incarnation(self.rng.random::<u128>() | 1).process()
    }

    pub(super) fn generation(&mut self) -> u64 {
        self.drawn += 1;
        self.drawn
    }

    pub(super) fn trace(&self, text: impl FnOnce() -> String) {
        if self.options.trace {
            println!("{:>12.3} {}", self.now as f64 / MS as f64, text());
        }
    }

    /// What came of it, in one line.
    pub(super) fn summary(&self) -> String {
        let verdicts: usize = self.ledger.rooms.values().map(|log| log.verdicts.len()).sum();
        format!("{} lives of rooms, {verdicts} verdicts, {:?}", self.ledger.rooms.len(), self.ledger.counts)
    }
}

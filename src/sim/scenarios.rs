//! Findings of the simulation, reduced: each plays one interleaving with the cores and the journal, step by step.

mod damaged;
mod history;
mod order;
mod owners;
mod restarts;
mod timers;

use std::collections::BTreeMap;

use bytes::Bytes;

use super::journal::LEASE_MS;
use super::rules::Race;
use super::world::{MS, TIMELINE};
use crate::gateway::core::Core as GatewayCore;
use crate::gateway::step::{Command as GatewayCommand, Input as GatewayInput, ReadId};
use crate::gateway::{Delivery, Joining};
use crate::journal::memory::Store;
use crate::journal::{Appended, Bell, Flush, Homing, Leased, PageSize, Place, Seen, Witness};
use crate::limits::Bounds;
use crate::rules::NoLibrary;
use crate::rules::RulesBook;
use crate::types::{Action, Arrival, Flags, HostId, Incarnation, Moment, PlayerId, Role, RoomId, ShardId, Since, Verdict};
use crate::wire::push::Push;
use crate::wire::{push, verdicts};
use crate::worker::core::Core as WorkerCore;
use crate::worker::step::{Command as WorkerCommand, Input, WorkerLimits};

const SHARD: ShardId = ShardId(0);

fn room() -> RoomId {
    RoomId::new("pit").expect("a name")
}

fn hit(id: &str) -> Action {
    let (op, contest) = ("hit".to_owned(), Some("baron".to_owned()));
    Action { op, id: id.to_owned(), contest, player: None, seen: None, args: Bytes::from_static(&[0xc0]) }
}

/// One shard's journal, a worker that is asked for its actions one by one, and gateways.
struct Stage {
    store: Store,
    worker: WorkerCore,
    /// Of what the worker reads.
    size: PageSize,
    now: u64,
    /// What the worker wants done, until the scenario does it.
    wanted: Vec<WorkerCommand>,
    committed: Vec<Verdict>,
    pushed: BTreeMap<Incarnation, Vec<Bytes>>,
    /// Deaths that are not written yet.
    deaths: Vec<WorkerCommand>,
    complaints: Vec<String>,
}

struct ScriptedGateway {
    core: GatewayCore,
    told: Vec<(u64, Delivery)>,
    reads: Vec<(RoomId, u64, ReadId)>,
    flush: Option<std::sync::Arc<Flush>>,
    registering: Option<(ShardId, Seen, Vec<RoomId>)>,
}

fn probe(ns: u64) -> GatewayInput {
    GatewayInput::Push(Push::Probe { shard: SHARD, until: Moment { timeline: TIMELINE, ns } })
}

fn gateway(store: &mut Store, name: u128) -> ScriptedGateway {
    let mut core = GatewayCore::new(Incarnation(name), 1, "sim", 0);
    let (answer, _) = store.register(SHARD, Incarnation(name), Seen::default(), &[]).expect("a shard");
    core.apply(probe(0));
    core.apply(GatewayInput::Registered(SHARD, Incarnation(name), answer));
    core.take_commands();
    ScriptedGateway { core, told: Vec::new(), reads: Vec::new(), flush: None, registering: None }
}

impl ScriptedGateway {
    fn collect(&mut self) {
        while self.core.has_commands() {
            self.collect_once();
        }
    }

    fn collect_once(&mut self) {
        for command in self.core.take_commands() {
            match command {
                GatewayCommand::AskOutbox { session, .. } => {
                    self.core.apply(GatewayInput::OutboxDrained { session, taken: u64::MAX });
                }
                GatewayCommand::Rest => self.core.apply(GatewayInput::Rested(std::time::Duration::ZERO)),
                GatewayCommand::Append { flush, .. } => self.flush = Some(flush),
                GatewayCommand::Deliver(session, delivery) => self.told.push((session, delivery)),
                GatewayCommand::Read { room, after, read, .. } => self.reads.push((room, after, read)),
                GatewayCommand::Register { shard, seen, rooms, .. } => self.registering = Some((shard, seen, rooms)),
                GatewayCommand::Unreadable { why, .. } => panic!("{why}"),
                _ => {}
            }
        }
    }

    fn join(&mut self, player: &str, since: Option<Since>, at: u64) -> u64 {
        let joining = Joining { room: room(), player: PlayerId::new(player).expect("a name"), role: Role::Player, since };
        self.core.open(joining, Arrival::at(at, 0)).expect("a session").number
    }

    fn act(&mut self, session: u64, id: &str, at: u64) {
        self.core.act(session, &hit(id), Arrival::at(at, 0)).expect("taken in");
    }

    /// Appends what has arrived up to `until`; the bell is the caller's.
    fn flush(&mut self, store: &mut Store, until: u64, repeated: bool) -> Option<Bell> {
        self.core.settled(until);
        self.collect();
        let flush = self.flush.take().expect("something to append");
        let (answer, bell) = store.append(&flush, crate::types::Seed(1), until / MS).expect("a flush");
        assert!(matches!(answer, Appended::Stored(_)), "{answer:?}");
        self.appended(flush, answer, repeated, until);
        self.collect();
        bell
    }

    fn appended(&mut self, flush: std::sync::Arc<Flush>, answer: Appended, repeated: bool, now_ns: u64) {
        self.core.apply(GatewayInput::Appended { flush, answer, repeated, now_ns });
    }

    fn read(&mut self, store: &Store) {
        for (room, after, read) in std::mem::take(&mut self.reads) {
            self.core.apply(GatewayInput::Page { read, page: store.verdicts(&room, after, 100) });
        }
        self.collect();
    }

    /// Compares its rooms with the journal.
    fn check_heads(&mut self, store: &mut Store) {
        self.core.apply(GatewayInput::CheckHeads);
        for command in self.core.take_commands() {
            if let GatewayCommand::ReadHeads(shard, rooms) = command {
                let heads = store.heads(shard, &rooms).expect("heads");
                self.core.apply(GatewayInput::Heads(shard, store.server(), heads));
            }
        }
        self.collect();
    }

    fn seqs(&self, session: u64) -> Vec<u64> {
        let verdict = |d: &Delivery| if let Delivery::Verdict { frames, .. } = d { Some(frames.verdict().seq) } else { None };
        self.told.iter().filter(|(s, _)| *s == session).filter_map(|(_, d)| verdict(d)).collect()
    }

    fn welcomes(&self, session: u64) -> usize {
        self.told.iter().filter(|(s, d)| *s == session && matches!(d, Delivery::Welcome(_))).count()
    }
}

fn limits() -> WorkerLimits {
    WorkerLimits {
        bounds: Bounds::default(),
        rules: RulesBook::new().room("*", Race::default),
        library: std::sync::Arc::new(NoLibrary),
        epoch_ns: 0,
        concurrency: 1,
        gateway_timeout_ns: 60 * MS,
        deaf_timeout_ns: 15 * MS,
        rejoin_window_ns: 80 * MS,
        probe_interval_ns: 5 * MS,
        look_after_ns: 8 * MS,
        look_interval_ns: 10 * MS,
        commits_may_be_lost: true,
        host: HostId::new("here").expect("a name"),
        rehome_after_ns: 2 * 1_000_000_000,
        heartbeat_interval_ns: 20 * MS,
        lease_ms: LEASE_MS,
        room_linger_ns: 60_000 * MS,
        retention_ms: 3_600_000,
    }
}

impl Stage {
    fn new() -> Self {
        Self::with(limits())
    }

    fn with(limits: WorkerLimits) -> Self {
        let mut stage = Self::unowned(limits);
        stage.own();
        stage
    }

    fn unowned(limits: WorkerLimits) -> Self {
        Self {
            store: Store::at_home(1),
            size: PageSize::of(&limits.bounds),
            worker: WorkerCore::new(Incarnation(100), 1, limits),
            now: 1_000 * MS,
            wanted: Vec::new(),
            committed: Vec::new(),
            pushed: BTreeMap::new(),
            complaints: Vec::new(),
            deaths: Vec::new(),
        }
    }

    /// The worker owns the shard, without having subscribed its bells.
    fn own(&mut self) {
        let lease = self.store.claim(SHARD, None, Incarnation(100), (0, 0), &Homing::default()).expect("a shard");
        let witness = Witness { server: Incarnation::NONE, epoch: Some(0), confirmed: 0, sent: 0 };
        self.store.testify(SHARD, witness).expect("nothing was lost");
        self.worker.apply(Input::Claimed(SHARD, Some(lease)), self.now);
        self.collect();
    }

    fn collect(&mut self) {
        self.wanted.extend(self.worker.take_commands());
    }

    fn bell(&mut self, bell: Option<Bell>) {
        self.worker.apply(Input::Bell(bell.expect("a bell")), self.now);
        self.collect();
    }

    /// Takes out what the worker wants of one kind.
    fn take(&mut self, which: impl Fn(&WorkerCommand) -> bool) -> Vec<WorkerCommand> {
        let (taken, rest) = std::mem::take(&mut self.wanted).into_iter().partition(which);
        self.wanted = rest;
        taken
    }

    fn subscribe(&mut self) {
        self.worker.apply(Input::Subscribed(SHARD), self.now);
        self.collect();
    }

    fn survey(&mut self) {
        let survey = self.store.survey(SHARD, true).expect("a shard");
        self.worker.apply(Input::Surveyed(SHARD, survey), self.now);
        self.collect();
    }

    /// Does everything that the worker wants, at once, until it wants nothing more.
    fn settle(&mut self) {
        while !self.wanted.is_empty() {
            self.turn();
        }
    }

    /// Does what it wants now, and not yet what follows from that.
    fn turn(&mut self) {
        for command in std::mem::take(&mut self.wanted) {
            let now = self.now;
            match command {
                WorkerCommand::Load { shard, room, token, place } => {
                    let page = self.store.load(&room, place, self.size);
                    self.worker.apply(Input::Stored { shard, room, token, place, page }, now);
                }
                WorkerCommand::Read { shard, room, token, after } => {
                    let page = self.store.load(&room, Place::Entries(after), self.size);
                    self.worker.apply(Input::Read { shard, room, token, page }, now);
                }
                WorkerCommand::WriteAhead { shard, lease, room, part } => {
                    let answer = self.store.write_ahead(shard, lease, &room, &part).expect("a part");
                    self.worker.apply(Input::WrittenAhead { shard, room, part, answer }, now);
                }
                WorkerCommand::Run(job) => self.worker.apply(Input::Done(job.run()), now),
                WorkerCommand::Commit(commit) => {
                    let (answer, pushes) = self.store.commit(&commit).expect("a commit");
                    for (gateway, push) in pushes {
                        self.pushed.entry(*gateway).or_default().push(push.clone());
                    }
                    for part in commit.rooms.iter().filter(|part| part.to > part.from) {
                        self.committed.extend(verdicts::decode(&part.verdicts).expect("a batch").verdicts);
                    }
                    self.worker.apply(Input::Committed { shard: SHARD, lease: commit.lease, number: commit.number, answer }, now);
                }
                WorkerCommand::Publish { gateway, push, .. } => self.pushed.entry(gateway).or_default().push(push),
                WorkerCommand::Warn(text) => self.complaints.push(text),
                death @ WorkerCommand::Death { .. } => self.deaths.push(death),
                _ => {}
            }
            self.collect();
        }
    }

    /// A gateway promises that nothing more comes up to `until`.
    fn pass(&mut self, gateway: &mut ScriptedGateway, until: u64) {
        gateway.core.apply(probe(until));
        let bell = gateway.flush(&mut self.store, until, false);
        self.bell(bell);
        self.settle();
    }

    fn push(&mut self, to: &mut ScriptedGateway) {
        for push in self.pushed.remove(&to.core.incarnation()).unwrap_or_default() {
            to.core.apply(GatewayInput::Push(push::decode(&push).expect("a push")));
            to.collect();
        }
    }

    /// The worker follows its shard, and Ann joins by this gateway.
    fn begin(&mut self, gateway: &mut ScriptedGateway) {
        self.subscribe();
        self.take(|command| matches!(command, WorkerCommand::Survey { .. }));
        self.survey();
        gateway.join("ann", None, 1_010 * MS);
        let bell = gateway.flush(&mut self.store, 1_011 * MS, false);
        self.bell(bell);
        self.settle();
    }

    fn ids(&self) -> Vec<&str> {
        self.committed.iter().filter_map(|v| v.id.as_deref()).collect()
    }
}

/// Ann is alone, so that her events wait for nobody.
fn alone() -> (Stage, ScriptedGateway) {
    let mut stage = Stage::new();
    let mut a = gateway(&mut stage.store, 1);
    stage.begin(&mut a);
    (stage, a)
}

/// Two gateways inside, and everything read so far. Session 1 of each.
fn two_inside() -> (Stage, ScriptedGateway, ScriptedGateway) {
    two_inside_on(Stage::new())
}

fn two_inside_on(mut stage: Stage) -> (Stage, ScriptedGateway, ScriptedGateway) {
    let (mut a, mut b) = (gateway(&mut stage.store, 1), gateway(&mut stage.store, 2));
    stage.begin(&mut a);
    b.join("bob", None, 1_020 * MS);
    let bell = b.flush(&mut stage.store, 1_021 * MS, false);
    stage.bell(bell);
    stage.settle();
    (stage, a, b)
}

/// Rule R2: a gateway is fenced while its last bell is on its way. What it had said before its end still comes first.
#[test]
fn a_fence_does_not_overtake_the_dead_gateways_last_bell() {
    let (mut stage, mut a, mut b) = two_inside();
    a.act(1, "a", 1_030 * MS);
    b.act(1, "b", 1_040 * MS);
    let bell = b.flush(&mut stage.store, 1_050 * MS, false);
    stage.bell(bell);
    stage.settle();
    let last = a.flush(&mut stage.store, 1_050 * MS, false);
    let lease = stage.store.owners(0)[0].lease.expect("an owner");
    let Ok(Leased::Done(record)) = stage.store.fence(SHARD, lease, Incarnation(1)) else { panic!("the lease is held") };
    // The worker hears of the fence before it hears that bell.
    stage.worker.apply(Input::Fenced { shard: SHARD, lease, answer: Leased::Done(record) }, stage.now);
    stage.collect();
    stage.settle();
    stage.bell(last);
    stage.settle();
    assert_eq!(stage.ids(), ["a", "b"]);
}

/// Rule R2: a room was asked for before a survey, and its answer comes after it: the survey's watermarks do not count for it yet.
#[test]
fn a_watermark_does_not_count_for_a_room_that_was_read_before_it() {
    let (mut stage, mut a, mut b) = two_inside();
    // Bells are lost; the first survey makes the worker read the room.
    b.act(1, "b", 1_040 * MS);
    b.flush(&mut stage.store, 1_041 * MS, false);
    stage.subscribe();
    stage.survey();
    let reads = stage.take(|command| matches!(command, WorkerCommand::Read { .. }));
    let [WorkerCommand::Read { room, after, .. }] = &reads[..] else { panic!("{reads:?}") };
    let early = stage.store.read(room, *after);
    // Meanwhile a says something earlier and the subscription breaks again: the second survey has a's watermark.
    a.act(1, "a", 1_030 * MS);
    a.flush(&mut stage.store, 1_050 * MS, false);
    stage.subscribe();
    stage.survey();
    stage.worker.read_entries(SHARD, room, &early, stage.now);
    stage.collect();
    stage.settle();
    assert_eq!(stage.ids(), ["a", "b"]);
}

/// Rule W5, rule C5: the append took effect, its answer was lost, the Open was resolved and its push was lost: the second answer knows
/// a `seq` behind the Open, and the session is welcomed all the same.
#[test]
fn a_repeated_append_does_not_hide_the_sessions_own_open() {
    let (mut stage, mut a, mut b) = two_inside();
    let mut c = gateway(&mut stage.store, 3);
    let session = c.join("cid", None, 1_060 * MS);
    c.core.settled(1_061 * MS);
    c.collect();
    let flush = c.flush.take().expect("an Open");
    let (_, bell) = stage.store.append(&flush, crate::types::Seed(1), 1_061).expect("a flush");
    stage.bell(bell);
    stage.pass(&mut a, 1_070 * MS);
    stage.pass(&mut b, 1_070 * MS);
    stage.pushed.clear();
    let (answer, bell) = stage.store.append(&flush, crate::types::Seed(1), 1_071).expect("a flush");
    assert_eq!(bell, None);
    c.appended(flush, answer, true, 1_071 * MS);
    let heads = stage.store.heads(SHARD, &[room()]).expect("a head");
    assert_eq!(heads[0].seq, 3, "the Open is resolved");
    c.core.apply(GatewayInput::Heads(SHARD, stage.store.server(), heads));
    c.collect();
    c.read(&stage.store);
    assert_eq!(c.welcomes(session), 1);
}

/// A session that catches up repeats an id: what lies between its place and the repeat is not skipped, and nothing comes twice.
#[test]
fn a_repeat_while_catching_up_skips_nothing() {
    let (mut stage, mut a, mut b) = two_inside();
    a.act(1, "x", 1_030 * MS);
    let bell = a.flush(&mut stage.store, 1_031 * MS, false);
    stage.bell(bell);
    stage.pass(&mut b, 1_035 * MS);
    stage.push(&mut a);
    let era = stage.store.heads(SHARD, &[room()]).expect("a head")[0].era;
    let session = a.join("ann", Some(Since { era, seq: 0 }), 1_040 * MS);
    let bell = a.flush(&mut stage.store, 1_041 * MS, false);
    stage.bell(bell);
    stage.pass(&mut b, 1_045 * MS);
    stage.push(&mut a);
    // The page is under way while the repeat is resolved and pushed.
    a.act(session, "x", 1_050 * MS);
    let bell = a.flush(&mut stage.store, 1_051 * MS, false);
    stage.bell(bell);
    stage.pass(&mut b, 1_055 * MS);
    stage.push(&mut a);
    for _ in 0..5 {
        a.read(&stage.store);
    }
    assert_eq!((a.welcomes(session), a.seqs(session)), (1, vec![1, 2, 3, 4, 5]));
}

/// Rule R7: what another gateway stamped before the death, and had read after it, is flagged as well.
#[test]
fn what_is_read_after_a_death_may_be_unproven() {
    let (mut stage, a, mut b) = two_inside();
    b.act(1, "b", 1_040 * MS);
    stage.now = 1_100 * MS;
    let lease = stage.store.owners(0)[0].lease.expect("an owner");
    let answer = stage.store.fence(SHARD, lease, a.core.incarnation()).expect("a shard");
    stage.worker.apply(Input::Fenced { shard: SHARD, lease, answer }, stage.now);
    stage.collect();
    let deaths = stage.take(|command| matches!(command, WorkerCommand::Death { .. }));
    let [WorkerCommand::Death { gateway, entry, .. }] = &deaths[..] else { panic!("{deaths:?}") };
    let (_, bell) = stage.store.death(SHARD, lease, *gateway, entry, 1_100).expect("it is fenced");
    stage.bell(bell);
    let bell = b.flush(&mut stage.store, 1_110 * MS, false);
    stage.bell(bell);
    stage.settle();
    let verdict = stage.committed.iter().find(|v| v.id.as_deref() == Some("b")).expect("a verdict");
    assert!(verdict.flags.has(Flags::UNPROVEN), "{verdict:?}");
}

/// Rule R6: a gateway that was fenced while it had nothing to say finds out by its own slow heartbeat.
#[test]
fn a_fenced_gateway_that_is_idle_finds_out() {
    let (mut stage, mut a, _b) = two_inside();
    let lease = stage.store.owners(0)[0].lease.expect("an owner");
    stage.store.fence(SHARD, lease, a.core.incarnation()).expect("a shard");
    a.core.apply(GatewayInput::CheckHeads);
    assert!(a.core.wants_settling(), "it has something to say");
    a.core.settled(1_200 * MS);
    a.collect();
    let flush = a.flush.take().expect("a bare watermark");
    let (answer, _) = stage.store.append(&flush, crate::types::Seed(1), 1_200).expect("a flush");
    assert_eq!(answer, Appended::Fenced);
    a.appended(flush, answer, false, 1_200 * MS);
    a.collect();
    assert!(a.told.iter().any(|(s, d)| *s == 1 && matches!(d, Delivery::Close { .. })), "its session is closed");
}

//! Which shards a core takes and hands over, and when.

use std::collections::BTreeSet;

use crate::journal::{
    Beats, Bell, GatewayRecord, JournalError, Lease, Leased, Part, ProcessRecord, ShardOwner, Successor, Survey, WorkerRecord,
};
use crate::limits::GATEWAYS_CHECKED_MAX;
use crate::types::{Home, HostId, Incarnation, Moment, ShardId};
use crate::wire::push::{self, Push};
use crate::worker::core::Core;
use crate::worker::shard::tests::limits;
use crate::worker::step::{Command, Failure, Input, Scope};

const MS: u64 = 1_000_000;
const SERVER: Incarnation = Incarnation(7);
const ME: Incarnation = Incarnation(100);

fn record(worker: u128, shards: impl IntoIterator<Item = u16>) -> WorkerRecord {
    WorkerRecord { incarnation: Incarnation(worker), shards: shards.into_iter().map(ShardId).collect() }
}

/// A core, the time, and who owns what by the journal.
struct Scene {
    core: Core,
    now_ns: u64,
    owners: Vec<Option<Lease>>,
}

impl Scene {
    fn new(shards: u16) -> Self {
        Self { core: Core::new(ME, shards, limits()), now_ns: 1_000 * MS, owners: vec![None; usize::from(shards)] }
    }

    fn apply(&mut self, input: Input) -> Vec<Command> {
        self.core.apply(input, self.now_ns);
        self.core.take_commands()
    }

    fn owned(&self) -> Vec<u16> {
        self.core.owned().map(|shard| shard.0).collect()
    }

    fn own(&mut self, shard: u16, worker: Incarnation) -> Lease {
        let before = self.owners[usize::from(shard)].map_or(0, |lease| lease.epoch);
        let lease = Lease { epoch: before + 1, owner: worker, server: SERVER, home: 1 };
        self.owners[usize::from(shard)] = Some(lease);
        lease
    }

    /// All shards are at home here once they were owned.
    fn rows(&self) -> Vec<ShardOwner> {
        let home = || Home { number: 1, host: limits().host, address: String::new() };
        self.owners.iter().map(|lease| ShardOwner { lease: *lease, home: lease.map(|_| home()), next: None }).collect()
    }

    /// A heartbeat's answer; the shards that are claimed then.
    fn alive(&mut self, living: &[WorkerRecord]) -> Vec<u16> {
        let mut commands = self.apply(Input::Alive { living: living.to_vec(), beats: Beats::default(), failure: None });
        if commands.iter().any(|command| matches!(command, Command::ReadOwners)) {
            commands = self.apply(Input::Owners(self.rows()));
        }
        let shard = |command: &Command| if let Command::Claim { shard, .. } = command { Some(shard.0) } else { None };
        commands.iter().filter_map(shard).collect()
    }

    /// It is alone, and takes all shards.
    fn takes_all(&mut self) {
        for shard in self.alive(&[]) {
            let lease = self.own(shard, ME);
            self.apply(Input::Claimed(ShardId(shard), Some(Leased::Done(lease))));
        }
        assert_eq!(self.owned().len(), self.owners.len());
    }

    /// Time passes; the shards that are released then.
    fn tick(&mut self, ms: u64) -> Vec<u16> {
        self.now_ns += ms * MS;
        released(&self.apply(Input::Tick))
    }
}

fn released(commands: &[Command]) -> Vec<u16> {
    let shard = |command: &Command| if let Command::Release { shard, .. } = command { Some(shard.0) } else { None };
    commands.iter().filter_map(shard).collect()
}

fn beats(commands: &[Command]) -> bool {
    commands.iter().any(|command| matches!(command, Command::Heartbeat(_)))
}

/// Who looked at the same moment takes another one: the shards that the plan names may all be somebody's by now.
#[test]
fn a_claim_that_came_too_late_is_followed_by_another() {
    let mut scene = Scene::new(4);
    let living = [record(100, []), record(101, [])];
    assert_eq!(scene.alive(&living), [0, 1]);
    scene.own(0, Incarnation(101));
    assert!(beats(&scene.apply(Input::Claimed(ShardId(0), Some(Leased::Lost)))), "it looks again at once");
    let lease = scene.own(1, ME);
    scene.apply(Input::Claimed(ShardId(1), Some(Leased::Done(lease))));
    // The other one has not said yet that it owns 0.
    assert_eq!(scene.alive(&living), [2], "not 0, and not more than its share");
}

#[test]
fn who_has_more_than_its_share_for_a_moment_keeps_it() {
    let mut scene = Scene::new(4);
    scene.takes_all();
    let both = [record(100, 0..4), record(101, [])];
    assert!(scene.alive(&both).is_empty());
    assert!(scene.alive(&both).is_empty() && scene.tick(0).is_empty(), "the same moment");
    // It has gone again: what comes later is counted anew.
    scene.alive(&both[..1]);
    scene.now_ns += limits().heartbeat_interval_ns;
    scene.alive(&both);
    assert!(scene.tick(0).is_empty());
    scene.now_ns += limits().heartbeat_interval_ns;
    scene.alive(&both);
    assert_eq!(scene.owned(), [0, 1, 2], "one at a time");
}

/// In a reload the successor has come after the last heartbeat.
#[test]
fn a_core_that_stops_asks_who_is_there_and_hands_over_step_by_step() {
    let mut scene = Scene::new(16);
    scene.takes_all();
    let commands = scene.apply(Input::Stop);
    assert!(beats(&commands) && released(&commands).is_empty());
    assert!(scene.tick(20).is_empty());
    let commands =
        scene.apply(Input::Alive { living: vec![record(100, 0..16), record(101, [])], beats: Beats::default(), failure: None });
    assert_eq!(released(&commands), [0, 1]);
    let tells = |command: &Command| matches!(command, Command::Release { tell, .. } if *tell == [Incarnation(101)]);
    assert!(commands.iter().any(tells), "{commands:?}");
    for step in 1..8 {
        assert_eq!(scene.tick(20), [step * 2, step * 2 + 1]);
    }
    assert!(scene.core.is_stopped());
}

#[test]
fn a_core_that_stops_alone_hands_all_over_at_once() {
    let mut scene = Scene::new(16);
    scene.takes_all();
    scene.apply(Input::Stop);
    let commands = scene.apply(Input::Alive { living: vec![record(100, 0..16)], beats: Beats::default(), failure: None });
    assert_eq!((released(&commands).len(), scene.core.is_stopped()), (16, true));
}

#[test]
fn a_core_that_stops_does_not_wait_for_a_journal_that_does_not_answer() {
    let mut scene = Scene::new(16);
    scene.takes_all();
    scene.apply(Input::Stop);
    assert!(scene.tick(80).is_empty());
    assert_eq!((scene.tick(20).len(), scene.core.is_stopped()), (16, true));
}

/// While the catalog of a cluster is away nobody can say that it lives. Whoever is first afterwards finds no other.
#[test]
fn after_the_catalog_was_away_nobody_is_taken_for_dead_at_once() {
    let away = |shards: Option<Vec<ShardId>>| {
        let mut scene = Scene::new(4);
        for shard in 0..3 {
            scene.own(shard, Incarnation(200));
        }
        assert_eq!(scene.alive(&[record(200, [0, 1, 2])]), [3]);
        let lease = scene.own(3, ME);
        scene.apply(Input::Claimed(ShardId(3), Some(Leased::Done(lease))));
        let error = JournalError::Unreachable("away".to_owned());
        scene.apply(Input::Failed(Failure::new("heartbeat", Scope::Shared, error).at(shards)));
        let at_once = scene.alive(&[]);
        scene.now_ns += limits().lease_ms * MS;
        (at_once, scene.alive(&[]))
    };
    assert_eq!(away(Some(vec![ShardId(0)])), (vec![], vec![0, 1, 2]), "one lease later the silence counts");
    assert_eq!(away(None).0, [0, 1, 2], "a single server was away for everybody");
}

/// A shard whose node is away, or that is damaged, is tried after the others.
#[test]
fn what_cannot_be_claimed_keeps_nobody_from_the_rest() {
    let mut scene = Scene::new(4);
    let other = [record(200, [])];
    assert_eq!(scene.alive(&other), [0, 1]);
    for shard in [0, 1] {
        scene.apply(Input::Claimed(ShardId(shard), None));
    }
    assert_eq!(scene.alive(&other), [2, 3]);
    for shard in [2, 3] {
        let lease = scene.own(shard, ME);
        scene.apply(Input::Claimed(ShardId(shard), Some(Leased::Done(lease))));
    }
    assert_eq!(scene.owned(), [2, 3]);
}

/// A shard whose claim is lost again and again, because something is wrong with it, is claimed with heartbeats only.
#[test]
fn a_claim_that_is_lost_again_and_again_is_not_made_at_full_speed() {
    let mut scene = Scene::new(1);
    let mut claims = 0;
    for _ in 0..1_000 {
        scene.now_ns += MS;
        let commands = scene.apply(Input::Tick);
        if commands.iter().any(|command| matches!(command, Command::Heartbeat(_))) {
            // Whatever follows at once takes no time.
            for _ in 0..100 {
                let claimed = scene.alive(&[]);
                claims += claimed.len();
                let lost = scene.apply(Input::Claimed(ShardId(0), Some(Leased::Lost)));
                if !lost.iter().any(|command| matches!(command, Command::Heartbeat(_))) {
                    break;
                }
            }
        }
    }
    assert!((4..=10).contains(&claims), "{claims} in a second, with four heartbeats");
}

/// A shard with one gateway.
fn survey(gateway: Incarnation, fenced: bool) -> Survey {
    let watermark = Moment { timeline: 1, ns: 1 };
    Survey {
        server: SERVER,
        append: 1,
        commit: 0,
        doubt: None,
        gateways: vec![GatewayRecord { incarnation: gateway, number: 1, watermark, fenced, server: SERVER }],
        damaged_gateways: Vec::new(),
        damaged_rooms: Vec::new(),
        due: Vec::new(),
        active: Vec::new(),
        rooms: Vec::new(),
        next: None,
    }
}

/// Rule H7: the successor's name is in the journal before the shard is free, and is renewed until then.
#[test]
fn a_shard_is_free_only_when_its_successor_is_named_and_its_gateways_have_left() {
    let (mut scene, gateway) = (Scene::new(1), Incarnation(1));
    scene.takes_all();
    let (shard, lease, there) = (ShardId(0), scene.owners[0].expect("a lease"), HostId::new("there").expect("a name"));
    let process = |number: u128, host: &HostId, part| {
        let record = ProcessRecord::new(Incarnation(number), host.clone(), part);
        ProcessRecord { ready: true, url: format!("ws://{host}:1"), ..record }
    };
    let here = limits().host;
    let processes =
        [(1, &here, Part::Gateway), (100, &here, Part::Worker), (2, &there, Part::Gateway), (200, &there, Part::Worker)];
    let processes = processes.map(|(number, host, part)| process(number, host, part)).to_vec();
    let beats = Beats { processes, ..Beats::default() };
    // What is said of the successor's name after a heartbeat, and who is told.
    let beat = |scene: &mut Scene| {
        scene.now_ns += limits().heartbeat_interval_ns;
        let living = vec![record(100, [0]), record(200, [])];
        scene.apply(Input::Alive { living, beats: beats.clone(), failure: None });
        let commands = scene.apply(Input::Owners(scene.rows()));
        let name = |command: &Command| if let Command::Name { to, .. } = command { Some(to.clone()) } else { None };
        let told = commands.iter().any(|command| matches!(command, Command::Publish { gateway: to, .. } if *to == gateway));
        (commands.iter().filter_map(name).collect::<Vec<_>>(), told)
    };
    scene.apply(Input::Subscribed(shard));
    scene.apply(Input::Surveyed(shard, survey(gateway, false)));
    assert_eq!(beat(&mut scene), (vec![], false));
    scene.apply(Input::Give(shard, there.clone()));
    let named = (vec![Some(Successor { host: there, url: "ws://there:1".to_owned() })], true);
    assert_eq!(beat(&mut scene), named);
    // All have left, and the journal has not answered: another host might be faster than the name.
    let let_go = |scene: &mut Scene, left| released(&scene.apply(Input::Surveyed(shard, survey(gateway, left))));
    assert!(let_go(&mut scene, true).is_empty());
    let asks = scene.apply(Input::Named(shard, lease, Leased::Done(())));
    assert!(asks.iter().any(|command| matches!(command, Command::Survey { .. })), "{asks:?}");
    assert!(let_go(&mut scene, false).is_empty(), "a gateway is inside");
    assert_eq!(beat(&mut scene), named, "the name would run out");
    assert_eq!(let_go(&mut scene, true), [0]);
}

/// Rule N12: however many shards there are, few gateways are asked in a second whether they live, and each has its turn.
#[test]
fn few_quiet_gateways_are_asked_at_a_time() {
    let (shards, mut scene) = (64_usize, Scene::new(64));
    scene.takes_all();
    let gateway = Incarnation(1);
    for shard in scene.core.owned().collect::<Vec<_>>() {
        scene.apply(Input::Subscribed(shard));
        scene.apply(Input::Surveyed(shard, survey(gateway, false)));
    }
    let (mut asked, mut most) = (BTreeSet::new(), 0);
    for second in 0..70 {
        let mut now = 0;
        for step in 0..50 {
            scene.now_ns += 20 * MS;
            for command in scene.apply(Input::Tick) {
                let Command::Publish { shard, push, .. } = command else { continue };
                let Ok(Push::Probe { until, .. }) = push::decode(&push) else { panic!("no probe") };
                now += 1;
                asked.insert(shard);
                let append = 2 + second * 50 + step;
                let bell = Bell {
                    shard,
                    append,
                    incarnation: gateway,
                    number: append,
                    watermark: until,
                    entries: vec![],
                    poked: vec![],
                };
                let survey = scene.apply(Input::Bell(bell));
                assert!(survey.iter().all(|command| !matches!(command, Command::Fence { .. })));
            }
        }
        most = most.max(now);
    }
    assert_eq!((asked.len(), most), (shards, GATEWAYS_CHECKED_MAX));
}

//! Homes move between hosts, and sessions follow or wait.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::step::{Delivery, Input};
use super::*;
use crate::journal::memory::Store;
use crate::journal::{Appended, Homing, Leased, ShardOwner, Successor};
use crate::limits::WELCOME_TIMEOUT;
use crate::types::{PlayerId, Seed};
use crate::wire::push::Push;

const MS: u64 = 1_000_000;
const S: u64 = 1_000 * MS;

fn host(name: &str) -> HostId {
    HostId::new(name).expect("a name")
}

fn url(name: &str) -> String {
    format!("ws://{name}:1")
}

/// A gateway on the host "here", its journal of two shards, and what it did.
struct Scene {
    core: Core,
    store: Store,
    now: u64,
    /// Of each session that was closed.
    closed: BTreeMap<u64, (u16, String)>,
    /// The numbers that sessions were told, in that order.
    told: Vec<u32>,
    moves: Vec<(u64, Option<String>)>,
    /// The turns that left, by their shard.
    left: Vec<(ShardId, Incarnation)>,
    /// Reads that were asked for, and not answered yet.
    reads: Vec<(ShardId, bool)>,
    handing: Vec<ShardId>,
    /// The rooms that were appended to, each with the number of the home.
    appended: Vec<(RoomId, u32)>,
}

impl Scene {
    fn new() -> Self {
        let mut core = Core::new(Incarnation(1), 2, "test", 0).at(host("here"));
        core.hosts(["here", "there"].map(|name| (host(name), url(name))).into());
        let (closed, told, moves, left, reads, handing, appended) = Default::default();
        Self { core, store: Store::new(2), now: S, closed, told, moves, left, reads, handing, appended }
    }

    /// With both shards here, and registered.
    fn at_home() -> Self {
        let mut scene = Self::new();
        for shard in [ShardId(0), ShardId(1)] {
            scene.claim(shard, "here");
            let gone = scene.join(shard);
            scene.perform();
            scene.leave(gone);
        }
        scene.appended.clear();
        scene
    }

    /// A worker of a host takes a shard. Returns the number of its home.
    fn claim(&mut self, shard: ShardId, name: &str) -> u32 {
        let from = &self.store.owners(0)[usize::from(shard.0)];
        let ShardOwner { lease: from, home, .. } = from.clone();
        let homing = Homing::moves_from(home);
        let claimed = self.store.by(&host(name)).claim(shard, from, Incarnation(77), (0, 0), &homing);
        let Ok(Leased::Done(lease)) = claimed else { panic!("{claimed:?}") };
        lease.home
    }

    fn room(shard: ShardId) -> RoomId {
        let mut names = (0..100).map(|n| RoomId::new(&format!("pit{n}")).expect("a name"));
        names.find(|room| ShardId::of(room, 2) == shard).expect("a room of the shard")
    }

    fn join(&mut self, shard: ShardId) -> u64 {
        self.now += MS;
        let joining = Joining::new(Self::room(shard), PlayerId::new("ann").expect("a name"));
        self.core.open(joining, Arrival::at(self.now, 0)).expect("taken in").number
    }

    fn leave(&mut self, session: u64) {
        self.now += MS;
        self.core.end(session, 1000, Arrival::at(self.now, 0));
        self.core.close(session, Arrival::at(self.now, 0));
        self.perform();
    }

    fn locate(&mut self, shard: ShardId) -> Option<Located> {
        let located = self.core.locate(&Self::room(shard), false, self.now);
        self.perform();
        located
    }

    /// Answers the reads that were asked for as the journal stands, or with `next` as the successor.
    fn answer(&mut self, next: Option<(Successor, u64)>) {
        let (next, left_ms) = next.map_or((None, 0), |(next, left_ms)| (Some(next), left_ms));
        for (shard, _) in std::mem::take(&mut self.reads) {
            let home = self.store.by(&host("here")).home_of(shard, 0).expect("a shard").home;
            let home = home.map(|home| Home { address: url(home.host.as_str()), ..home });
            let next_left_ms = if next.is_some() { left_ms } else { 0 };
            self.core.apply(Input::Home(shard, ShardHome { home, next: next.clone(), next_left_ms }, self.now));
        }
        self.perform();
    }

    /// Carries out what the core wants; reads of homes wait for [`Scene::answer`].
    fn perform(&mut self) {
        for _ in 0..20 {
            self.now += MS;
            self.core.settled(self.now);
            let commands = self.core.take_commands();
            if commands.is_empty() {
                return;
            }
            for command in commands {
                match command {
                    Command::Append { flush, .. } => {
                        let answer = self.store.by(&host("here")).append(&flush, Seed(1), 1).expect("a flush").0;
                        if let Appended::Stored(_) = &answer {
                            let rooms = flush.entries.iter().map(|entry| (entry.room.clone(), flush.watermark.timeline));
                            self.appended.extend(rooms);
                        }
                        self.core.apply(Input::Appended { flush, answer, repeated: false, now_ns: self.now });
                    }
                    Command::Register { shard, gateway, seen, rooms } => {
                        let answer = self.store.by(&host("here")).register(shard, gateway, seen, &rooms).expect("a shard").0;
                        self.core.apply(Input::Registered(shard, gateway, answer));
                    }
                    Command::ReadHome { shard, again } => self.reads.push((shard, again)),
                    Command::Deliver(session, Delivery::Close { code, reason }) => {
                        if code == close::ELSEWHERE {
                            let (_, number) = reason.split_once('#').expect("a number");
                            self.told.push(number.parse().expect("a number"));
                        }
                        assert_eq!(self.closed.insert(session, (code, reason)), None, "told twice");
                    }
                    Command::Deliver(session, Delivery::Move { url, .. }) => {
                        self.moves.push((session, url.map(|url| url.to_string())));
                    }
                    Command::Leave(shard, turn) => {
                        self.store.leave(shard, turn).expect("a shard");
                        self.left.push((shard, turn));
                    }
                    Command::HandOver(shard) => self.handing.push(shard),
                    _ => {}
                }
            }
        }
        panic!("it does not come to rest");
    }

    #[track_caller]
    fn assert_closed(&self, session: u64, code: u16, part: &str) {
        let (was, reason) = self.closed.get(&session).expect("closed");
        assert!(*was == code && reason.contains(part) && reason.len() <= 123, "{was} {reason}");
    }
}

const SHARD: ShardId = ShardId(0);
const OTHER: ShardId = ShardId(1);

/// Rules H5 and H8: who is in a shard that has got another home is sent there, and nobody else is.
#[test]
fn a_lost_home_sends_its_sessions_on_and_no_others() {
    let mut scene = Scene::at_home();
    let (ann, bob) = (scene.join(SHARD), scene.join(OTHER));
    scene.perform();
    let number = scene.claim(SHARD, "there");
    // The next thing that it says finds out.
    let late = scene.join(SHARD);
    scene.perform();
    for session in [ann, late] {
        scene.assert_closed(session, 4421, &format!("ws://there:1#{number}"));
    }
    assert_eq!(scene.closed.len(), 2, "{:?}", scene.closed);
    assert_eq!(scene.locate(SHARD), Some(Located::Away { url: url("there"), number }));
    assert!(matches!(scene.locate(OTHER), Some(Located::Here(_))));
    scene.appended.clear();
    let sent_on = scene.join(SHARD);
    scene.perform();
    scene.assert_closed(sent_on, 4421, &format!("ws://there:1#{number}"));
    for session in [ann, late, sent_on, bob] {
        scene.leave(session);
    }
    assert_eq!(scene.core.session_count(), 0);
    assert!(scene.appended.iter().all(|(room, _)| *room == Scene::room(OTHER)), "{:?}", scene.appended);
}

#[test]
fn how_the_sessions_of_a_lost_home_are_closed() {
    let home = |number, name: &str, address: &str| Home { number, host: host(name), address: address.to_owned() };
    for (to, code, part) in [
        (Some(home(9, "there", "")), 4421, "ws://there:1#9"),
        (Some(home(9, "there", "ws://old:1")), 4421, "ws://there:1#9"),
        (Some(home(9, "new", "ws://new:1")), 4421, "ws://new:1#9"),
        (Some(home(9, "new", "")), 1013, "--advertise"),
        (Some(home(9, "mute", "")), 1013, "--advertise"),
        (Some(home(9, "here", "")), 4503, "connect again"),
        (None, 4503, "connect again"),
    ] {
        let mut scene = Scene::at_home();
        scene.core.hosts([("there", url("there")), ("mute", String::new())].map(|(name, url)| (host(name), url)).into());
        let ann = scene.join(SHARD);
        scene.perform();
        scene.core.refused(SHARD, to.as_ref());
        scene.perform();
        scene.assert_closed(ann, code, part);
    }
}

/// Rule H8: an Open waits without a number until the shard has a home, and goes there.
#[test]
fn who_joins_a_shard_of_nobody_is_held_until_it_has_a_home() {
    for name in ["here", "there"] {
        let mut scene = Scene::new();
        let ann = scene.join(SHARD);
        scene.perform();
        for _ in 0..3 {
            assert_eq!(scene.reads, [(SHARD, true)], "it asks again");
            scene.answer(None);
        }
        assert!(scene.closed.is_empty() && scene.appended.is_empty());
        assert_eq!(scene.locate(SHARD), Some(Located::Held));
        let number = scene.claim(SHARD, name);
        scene.answer(None);
        if name == "here" {
            assert_eq!(scene.appended, [(Scene::room(SHARD), number)]);
            assert!(scene.closed.is_empty() && scene.reads.is_empty());
            continue;
        }
        scene.assert_closed(ann, 4421, &format!("ws://there:1#{number}"));
        assert!(scene.appended.is_empty() && scene.reads.is_empty());
        scene.leave(ann);
        assert_eq!(scene.core.session_count(), 0);
    }
}

/// Interleaving 53: it may be this very machine, before it booted.
#[test]
fn a_home_that_does_not_beat_is_nobodys() {
    let mut scene = Scene::new();
    scene.core.hosts([(host("here"), url("here"))].into());
    let number = scene.claim(SHARD, "there");
    let ann = scene.join(SHARD);
    scene.perform();
    scene.answer(None);
    assert_eq!((scene.locate(SHARD), scene.closed.len()), (Some(Located::Held), 0));
    assert!(scene.core.locate(&Scene::room(SHARD), true, scene.now).is_some(), "known");
    scene.core.hosts([(host("there"), url("there"))].into());
    scene.answer(None);
    scene.assert_closed(ann, 4421, &format!("#{number}"));
}

#[test]
fn nobody_is_held_for_longer_than_for_a_welcome() {
    let mut scene = Scene::new();
    let ann = scene.join(SHARD);
    scene.perform();
    scene.answer(None);
    scene.now += nanos(WELCOME_TIMEOUT) + MS;
    scene.core.apply(Input::Tick(scene.now));
    scene.perform();
    scene.assert_closed(ann, 1013, "try again");
    scene.leave(ann);
    scene.core.apply(Input::Tick(scene.now));
    scene.answer(None);
    assert!(scene.reads.is_empty() && scene.core.session_count() == 0, "nobody waits any more");
}

/// Rule H9.
#[test]
fn an_answer_with_a_lower_number_is_dropped() {
    let mut scene = Scene::new();
    let home = |number| Home { number, host: host("there"), address: String::new() };
    let say = |scene: &mut Scene, number| {
        scene.core.apply(Input::Home(SHARD, ShardHome { home: Some(home(number)), next: None, next_left_ms: 0 }, scene.now));
    };
    let known = |scene: &Scene| scene.core.last_located(&Scene::room(SHARD), scene.now);
    let away = |number| Some(Located::Away { url: url("there"), number });
    say(&mut scene, 7);
    assert_eq!(known(&scene), away(7));
    say(&mut scene, 6);
    scene.core.apply(Input::Push(Push::Home { shard: SHARD, home: home(6) }));
    assert_eq!(known(&scene), away(7));
    scene.core.apply(Input::Push(Push::Home { shard: SHARD, home: home(8) }));
    assert_eq!(known(&scene), away(8));
    // The journal was rolled back: it says so for longer than any answer takes. What workers said may still be on its way.
    scene.now += nanos(HOME_STALE) + MS;
    scene.core.now(scene.now);
    scene.core.apply(Input::Push(Push::Home { shard: SHARD, home: home(7) }));
    assert_eq!(known(&scene), None);
    say(&mut scene, 6);
    assert_eq!(known(&scene), away(6));
}

#[test]
fn the_journal_is_asked_again_when_what_it_said_is_old() {
    let mut scene = Scene::new();
    scene.claim(SHARD, "there");
    assert_eq!(scene.locate(SHARD), None);
    assert_eq!(scene.locate(SHARD), None);
    assert_eq!(scene.reads, [(SHARD, false)], "one read at a time");
    scene.answer(None);
    assert!(matches!(scene.locate(SHARD), Some(Located::Away { .. })));
    scene.now += nanos(HOME_FRESH);
    let number = scene.claim(SHARD, "here");
    assert_eq!(scene.locate(SHARD), None);
    scene.answer(None);
    assert_eq!(scene.locate(SHARD), Some(Located::Here(number)));
    // A session that joins is what asks, where nothing is known: on one host that is all.
    let mut scene = Scene::new();
    let number = scene.claim(SHARD, "here");
    assert_eq!(scene.core.locate(&Scene::room(SHARD), true, scene.now), None);
    scene.perform();
    assert_eq!(scene.reads, []);
    assert_eq!(scene.core.locate(&Scene::room(SHARD), true, scene.now), Some(Located::Here(number)));
}

fn moving(number: u32, within_ms: u64) -> Input {
    Input::Push(Push::Moving { shard: SHARD, number, host: host("there"), url: url("there"), within_ms })
}

/// Rule H8, rule X5: a shard is handed over with its sessions, and its turn ends when everything is in the journal.
#[test]
fn a_shard_is_handed_over_with_its_sessions() {
    let mut scene = Scene::at_home();
    let (ann, bob, other) = (scene.join(SHARD), scene.join(SHARD), scene.join(OTHER));
    scene.perform();
    let (turn, number) = (scene.core.turn_in(SHARD), scene.core.home_of(&Scene::room(SHARD)));
    for session in [ann, bob, other] {
        // As if they had been welcomed.
        scene.core.sessions.get_mut(&session).expect("a session").view = View::Live;
    }
    scene.core.now(scene.now);
    scene.core.apply(moving(number - 1, 2_000));
    assert!(matches!(scene.locate(SHARD), Some(Located::Here(_))), "of an earlier home");
    scene.core.apply(moving(number, 2_000));
    scene.core.apply(moving(number, 1_999));
    scene.perform();
    assert_eq!(scene.handing, [SHARD], "once");
    let by = scene.now + 1_900 * MS;
    let cid = scene.join(SHARD);
    scene.perform();
    scene.core.sessions.get_mut(&cid).expect("still taken in").view = View::Live;
    while scene.now + 60 * MS < by {
        assert!(scene.core.hand_over(SHARD, scene.now).is_some());
        scene.perform();
        scene.now += 50 * MS;
    }
    let mut asked = scene.moves.clone();
    asked.sort();
    assert_eq!(asked, [ann, bob, cid].map(|session| (session, Some(url("there")))));
    scene.leave(ann);
    scene.leave(cid);
    assert!(scene.closed.is_empty() && scene.left.is_empty(), "bob has time");
    scene.now = by + 10 * MS;
    assert!(scene.core.hand_over(SHARD, scene.now).is_some());
    scene.perform();
    scene.assert_closed(bob, 4421, &format!("ws://there:1#{number}"));
    let late = scene.join(SHARD);
    scene.perform();
    scene.assert_closed(late, 4421, &format!("ws://there:1#{number}"));
    assert!(scene.left.is_empty(), "what bob has sent is not in the journal yet");
    scene.appended.clear();
    scene.leave(bob);
    assert_eq!(scene.appended.len(), 1, "its end");
    assert_eq!(scene.left, [(SHARD, turn)]);
    assert_eq!(scene.core.hand_over(SHARD, scene.now), None);
    assert!(!scene.closed.contains_key(&other) && scene.core.turn_in(SHARD) != turn);
    assert!(matches!(scene.core.last_located(&Scene::room(SHARD), scene.now), Some(Located::Away { .. })));
    // The name runs out, and the home is still here: another turn.
    scene.now += 2 * S;
    scene.appended.clear();
    assert_eq!(scene.locate(SHARD), None);
    scene.answer(None);
    let back = scene.join(SHARD);
    scene.perform();
    assert!(!scene.closed.contains_key(&back));
    assert_eq!(scene.appended, [(Scene::room(SHARD), number)]);
}

/// A gateway that has nobody in the shard leaves at once.
#[test]
fn a_shard_without_sessions_is_left_at_once() {
    let mut scene = Scene::at_home();
    let number = scene.core.home_of(&Scene::room(SHARD));
    scene.core.apply(moving(number, u64::MAX));
    assert_eq!(scene.core.hand_over(SHARD, scene.now), None);
    scene.perform();
    assert_eq!(scene.left.len(), 1);
}

/// Who comes to the successor early waits there, and is taken in under the new number.
#[test]
fn the_successor_holds_who_comes_early() {
    let mut scene = Scene::new();
    let before = scene.claim(SHARD, "there");
    let next = Some((Successor { host: host("here"), url: url("here") }, 1_000));
    let ann = scene.join(SHARD);
    scene.perform();
    for _ in 0..3 {
        scene.answer(next.clone());
        assert!(scene.closed.is_empty() && scene.appended.is_empty());
    }
    assert_eq!(scene.locate(SHARD), Some(Located::Here(before)), "whoever asks may come");
    let number = scene.claim(SHARD, "here");
    let home = Home { number, host: host("here"), address: url("here") };
    scene.core.apply(Input::Push(Push::Home { shard: SHARD, home }));
    scene.perform();
    assert_eq!(scene.appended, [(Scene::room(SHARD), number)]);
    // It does not come: who waits goes back.
    let mut scene = Scene::new();
    let before = scene.claim(SHARD, "there");
    let bob = scene.join(SHARD);
    scene.perform();
    scene.answer(next.clone());
    scene.answer(next.map(|(next, _)| (next, 0)));
    scene.assert_closed(bob, 4421, &format!("ws://there:1#{before}"));
    assert!(!scene.closed.contains_key(&ann) || ann == bob);
}

#[test]
fn who_is_cut_off_is_told_once_and_nobody_comes_in() {
    let mut scene = Scene::at_home();
    let (ann, eve) = (scene.join(SHARD), scene.join(OTHER));
    scene.perform();
    for _ in 0..2 {
        scene.core.cut_off([SHARD].into());
        scene.perform();
    }
    scene.assert_closed(ann, 1013, "does not reach");
    let bob = scene.join(SHARD);
    scene.perform();
    scene.assert_closed(bob, 1013, "does not reach");
    assert_eq!(scene.locate(SHARD), Some(Located::CutOff));
    // The other shard is elsewhere in the journal: who is there notices nothing, and others come in.
    assert!(matches!(scene.locate(OTHER), Some(Located::Here(_))));
    let dan = scene.join(OTHER);
    scene.perform();
    assert!([eve, dan].iter().all(|session| !scene.closed.contains_key(session)), "{:?}", scene.closed);

    scene.core.cut_off(scene.core.all_shards().into_iter().collect());
    scene.perform();
    for session in [eve, dan] {
        scene.assert_closed(session, 1013, "does not reach");
    }
    scene.core.cut_off(BTreeSet::new());
    for shard in [SHARD, OTHER] {
        let cid = scene.join(shard);
        scene.perform();
        assert!(!scene.closed.contains_key(&cid), "{shard}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Claim(bool),
    Join,
    Leave,
    Answer,
    Late,
    Hosts(bool),
    Moving,
    HandOver,
    CutOff(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        any::<bool>().prop_map(Step::Claim),
        Just(Step::Join),
        Just(Step::Join),
        Just(Step::Leave),
        Just(Step::Answer),
        Just(Step::Answer),
        Just(Step::Late),
        any::<bool>().prop_map(Step::Hosts),
        Just(Step::Moving),
        Just(Step::HandOver),
        any::<bool>().prop_map(Step::CutOff),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Whatever happens: what is appended bears the number of a home here, whoever is sent on is sent to the other host, numbers that
    /// are told do not fall, and in the end whoever joins is taken in.
    #[test]
    fn homes_come_and_go(steps in vec(step(), 1..40)) {
        let mut scene = Scene::new();
        let (mut inside, mut here) = (Vec::new(), BTreeSet::new());
        for step in steps {
            match step {
                Step::Claim(mine) => {
                    let number = scene.claim(SHARD, if mine { "here" } else { "there" });
                    if mine {
                        here.insert(number);
                    }
                }
                Step::Join => inside.push(scene.join(SHARD)),
                Step::Leave => inside.pop().into_iter().for_each(|session| scene.leave(session)),
                Step::Answer => scene.answer(None),
                Step::Late => {
                    scene.now += 3 * S;
                    scene.core.apply(Input::Tick(scene.now));
                    let shards = scene.core.all_shards();
                    scene.core.check_heads(&shards);
                }
                Step::Hosts(both) => {
                    let hosts = [host("here"), host("there")].into_iter().take(1 + usize::from(both));
                    scene.core.hosts(hosts.map(|host| (host.clone(), url(host.as_str()))).collect());
                }
                Step::Moving => {
                    let number = scene.core.home_of(&Scene::room(SHARD));
                    scene.core.apply(moving(number, 500));
                }
                Step::HandOver => _ = scene.core.hand_over(SHARD, scene.now),
                Step::CutOff(yes) => scene.core.cut_off(yes.then_some(SHARD).into_iter().collect()),
            }
            scene.perform();
        }
        for (_, number) in &scene.appended {
            prop_assert!(here.contains(number), "{number} of {here:?}");
        }
        prop_assert!(scene.closed.values().all(|(code, _)| [4421, 4503, 1013].contains(code)), "{:?}", scene.closed);
        prop_assert!(scene.told.is_sorted(), "{:?}", scene.told);
        // Everybody goes, the shard comes here, and what was handed over is over.
        scene.core.cut_off(BTreeSet::new());
        for session in scene.core.sessions.keys().copied().collect::<Vec<_>>() {
            scene.leave(session);
        }
        scene.now += nanos(MOVE_WINDOW_MAX);
        let _ = scene.core.hand_over(SHARD, scene.now);
        scene.claim(SHARD, "here");
        let shards = scene.core.all_shards();
                    scene.core.check_heads(&shards);
        scene.perform();
        scene.answer(None);
        scene.now += nanos(HOME_STALE);
        scene.appended.clear();
        let last = scene.join(SHARD);
        scene.perform();
        scene.answer(None);
        scene.answer(None);
        prop_assert!(!scene.closed.contains_key(&last), "{:?}", scene.closed.get(&last));
        prop_assert_eq!(scene.appended.len(), 1);
    }
}

//! Properties of the resequencer and of a room's snapshot, over any history.

mod bounds;
mod stretches;
mod time;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;

use super::{Held, Resequencer, Room, program_of};
use crate::rules::js::{Budget, Checking, JsRules, Program};
use crate::rules::{LastHit, Rules};
use crate::types::{
    Action, Arrival, Entry, Event, EventKind, Flags, Incarnation, Moment, PlayerId, Role, SessionId, Stamp, StreamId,
};

const GATEWAYS: usize = 3;

fn moment(ns: u64) -> Moment {
    Moment { timeline: 1, ns }
}

fn incarnation(gateway: usize) -> Incarnation {
    Incarnation(gateway as u128 + 1)
}

/// One step of a history. The number chooses the gateway.
#[derive(Debug, Clone)]
enum Step {
    /// An event arrives this many nanoseconds later and stays pending: an Open if the gateway has no session, sometimes a Close.
    Arrive(usize, u64, bool),
    /// The gateway flushes its pending events, with a watermark of now.
    Flush(usize),
    /// The worker reads the next entry of the stream, sometimes an earlier one again, or the next watermark.
    Read(bool),
    /// The gateway dies; a worker writes its death.
    Die(usize),
    /// The worker releases what is proven.
    Release(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..GATEWAYS, 0u64..4, prop::bool::weighted(0.15)).prop_map(|(g, ns, close)| Step::Arrive(g, ns, close)),
        4 => (0..GATEWAYS).prop_map(Step::Flush),
        5 => prop::bool::weighted(0.1).prop_map(Step::Read),
        1 => (0..GATEWAYS).prop_map(Step::Die),
        3 => (1usize..5).prop_map(Step::Release),
    ]
}

#[derive(Default)]
struct FakeGateway {
    pending: Vec<Event>,
    inside: bool,
    leaving: bool,
    dead: bool,
    ordinal: u64,
    watermark: u64,
    /// Everything after an Open lies above this (rule S7).
    floor: u64,
}

enum Line {
    Entry(Entry),
    Watermark(usize, u64),
}

/// One room's stream, three gateways that write to it, and one worker that reads it, in any interleaving.
#[derive(Default)]
struct History {
    now: u64,
    gateways: Vec<FakeGateway>,
    /// Entries and watermarks in the order of the bells.
    stream: Vec<Line>,
    read: usize,
    top: u64,
    hold: Resequencer,
    watermarks: BTreeMap<Incarnation, u64>,
    released: Vec<Held>,
}

impl History {
    fn new() -> Self {
        Self { now: 10, gateways: (0..GATEWAYS).map(|_| FakeGateway::default()).collect(), ..Self::default() }
    }

    fn play(&mut self, step: &Step) {
        match *step {
            Step::Arrive(g, ns, close) => {
                self.now += ns;
                let gateway = &mut self.gateways[g];
                if gateway.dead || gateway.leaving {
                    return;
                }
                gateway.ordinal += 1;
                let kind = match (gateway.inside, close) {
                    (false, _) => EventKind::Open { player: PlayerId::new("ann").expect("a name"), role: Role::Player },
                    (true, true) => EventKind::Close,
                    (true, false) => EventKind::Data(Bytes::new()),
                };
                gateway.leaving = kind == EventKind::Close;
                // An Open keeps its arrival. What follows waits until the Open is acknowledged.
                let ns = if gateway.inside { self.now.max(gateway.floor) } else { self.now.max(gateway.watermark + 1) };
                let ns = gateway.pending.last().map_or(ns, |last| ns.max(last.arrival.ns));
                let opens = !gateway.inside;
                gateway.pending.push(Event { session: 1, ordinal: gateway.ordinal, arrival: Arrival::at(ns, 0), kind });
                if opens {
                    self.flush(g);
                    let gateway = &mut self.gateways[g];
                    (gateway.inside, gateway.floor) = (true, self.now.max(self.top + 1).max(gateway.watermark + 1));
                }
            }
            Step::Flush(g) => self.flush(g),
            Step::Read(again) => self.read(again),
            Step::Die(g) => {
                let gateway = &mut self.gateways[g];
                if gateway.dead || !gateway.inside {
                    return;
                }
                gateway.dead = true;
                // The worker reads to the tail before it writes the death.
                while self.read < self.stream.len() {
                    self.read(false);
                }
                if self.hold.sessions_of(incarnation(g)).next().is_none() {
                    return;
                }
                let (ordinal, last) = self.hold.last_read(incarnation(g)).expect("its Open was read");
                let arrival = Arrival { ns: last.ns + 1, raw_ns: Some(self.now), ..Arrival::default() };
                let close = Event { session: 1, ordinal: ordinal + 1, arrival, kind: EventKind::Close };
                self.append(Entry { incarnation: incarnation(g), timeline: 1, death: true, events: vec![close] });
            }
            Step::Release(max) => self.release(max),
        }
    }

    fn append(&mut self, entry: Entry) {
        self.top = self.top.max(entry.top().ns);
        self.stream.push(Line::Entry(entry));
    }

    fn flush(&mut self, g: usize) {
        let gateway = &mut self.gateways[g];
        if gateway.dead {
            return;
        }
        let events = std::mem::take(&mut gateway.pending);
        gateway.watermark = events.last().map_or(self.now, |e| self.now.max(e.arrival.ns)).max(gateway.watermark);
        gateway.floor = gateway.floor.max(gateway.watermark + 1);
        let watermark = gateway.watermark;
        if gateway.leaving {
            (gateway.inside, gateway.leaving) = (false, false);
        }
        if !events.is_empty() {
            self.append(Entry { incarnation: incarnation(g), timeline: 1, death: false, events });
        }
        self.stream.push(Line::Watermark(g, watermark));
    }

    fn read(&mut self, again: bool) {
        let index = if again { self.read / 2 } else { self.read };
        let Some(line) = self.stream.get(index) else { return };
        match line {
            Line::Entry(entry) => {
                let watermark = self.watermarks.get(&entry.incarnation).copied().unwrap_or(0);
                self.hold.read(StreamId { ms: 1, seq: index as u64 }, entry, moment(watermark), 0);
            }
            Line::Watermark(g, ns) => {
                let known = self.watermarks.entry(incarnation(*g)).or_default();
                *known = (*known).max(*ns);
            }
        }
        self.read = self.read.max(index + 1);
    }

    fn release(&mut self, max: usize) {
        let watermarks = &self.watermarks;
        let watermark_of = |g: Incarnation| watermarks.get(&g).map_or(Moment::default(), |ns| moment(*ns));
        let inside: BTreeSet<Incarnation> = self.hold.gateways().collect();
        let releasable = self.hold.releasable(watermark_of);
        let released = self.hold.release(max, watermark_of);
        assert_eq!(releasable, !released.is_empty(), "releasable tells what release does");
        for held in &released {
            for gateway in &inside {
                assert!(watermark_of(*gateway) >= held.stamp.moment, "{:?} is released before {gateway:?} passed it", held.stamp);
            }
        }
        if released.len() < max {
            let waits = self.hold.waits_for(None, watermark_of);
            assert_eq!(self.hold.is_empty(), waits.is_empty(), "what is held waits for somebody, and nothing else does");
        }
        self.released.extend(released);
    }

    /// All gateways flush, and the worker reads everything.
    fn finish(&mut self) {
        self.now += 1_000;
        (0..GATEWAYS).for_each(|g| self.flush(g));
        while self.read < self.stream.len() {
            self.read(false);
        }
        self.release(usize::MAX);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Events are released in stamp order; only an Open, or a death's Close, may lie below what was released before it was read.
    /// Nothing is released unproven or twice, and everything is released once it is proven.
    #[test]
    fn any_interleaving_is_released_in_stamp_order(steps in prop::collection::vec(step(), 1..80)) {
        let mut history = History::new();
        steps.iter().for_each(|step| history.play(step));
        history.finish();
        let deaths: BTreeSet<(Incarnation, u64)> = history.stream.iter().filter_map(|line| match line {
            Line::Entry(entry) if entry.death => Some((entry.incarnation, entry.events[0].ordinal)),
            _ => None,
        }).collect();
        let exempt = |held: &&Held| !matches!(held.kind, Some(EventKind::Open { .. }))
            && !deaths.contains(&(held.stamp.incarnation, held.stamp.ordinal));
        let stamps: Vec<Stamp> = history.released.iter().filter(exempt).map(|held| held.stamp).collect();
        prop_assert!(stamps.is_sorted(), "{stamps:?}");
        let unique: BTreeSet<(Incarnation, u64)> =
            history.released.iter().map(|held| (held.stamp.incarnation, held.stamp.ordinal)).collect();
        prop_assert_eq!(unique.len(), history.released.len(), "something is released twice");
        let written: usize = history.stream.iter().map(|line| if let Line::Entry(e) = line { e.events.len() } else { 0 }).sum();
        prop_assert_eq!(history.released.len(), written, "something is not released");
        prop_assert!(history.hold.is_empty());
    }

    /// A room that is saved and restored at any point decides the same as without.
    #[test]
    fn a_snapshot_anywhere_changes_no_verdict(
        acts in prop::collection::vec((0u64..4, 0usize..5, 0u64..3, 0u64..12), 1..60),
        at in any::<prop::sample::Index>(),
    ) {
        let events: Vec<Held> = acts.iter().enumerate().map(|(i, act)| held(i as u64 + 1, *act)).collect();
        let mut straight = Room::new(3, Box::new(LastHit::new()));
        let expected: Vec<_> = events.iter().map(|held| straight.resolve(held, None)).collect();
        let mut room = Room::new(3, Box::new(LastHit::new()));
        let mut verdicts = Vec::new();
        for (i, held) in events.iter().enumerate() {
            if i == at.index(events.len()) {
                room = Room::restore(&room.snapshot(), Box::new(LastHit::new())).expect("a snapshot");
            }
            verdicts.push(room.resolve(held, None));
        }
        prop_assert_eq!(verdicts, expected);
        prop_assert_eq!(room.snapshot(), straight.snapshot());
    }
}

/// Rule R7: more gateways die than there is room for stretches. The oldest are merged, and all still count.
#[test]
fn more_deaths_than_stretches_forget_none() {
    const DEATHS: u64 = 20;
    let event = |ordinal, ns, kind| Event { session: 1, ordinal, arrival: Arrival::at(ns, 0), kind };
    let entry = |g: u64, death, event| Entry { incarnation: Incarnation(g.into()), timeline: 1, death, events: vec![event] };
    let open = || EventKind::Open { player: PlayerId::new("ann").expect("a name"), role: Role::Player };
    let mut hold = Resequencer::default();
    let mut position = 0;
    let mut read = |hold: &mut Resequencer, entry: &Entry, watermark_ns| {
        position += 1;
        hold.read(StreamId { ms: 1, seq: position }, entry, moment(watermark_ns), 0);
    };
    read(&mut hold, &entry(99, false, event(1, 5, open())), 0);
    for g in 1..=DEATHS {
        read(&mut hold, &entry(g, false, event(1, 10, open())), 0);
        let mut close = event(2, 11, EventKind::Close);
        close.arrival.raw_ns = Some(1_000 + g);
        read(&mut hold, &entry(g, true, close), 100 + g);
    }
    assert_eq!(hold.unproven().len(), crate::limits::UNPROVEN_PER_ROOM_MAX);
    // Below them all, in the first alone, in the last alone.
    for (ordinal, ns) in [(2, 101), (3, 102), (4, 1_000 + DEATHS)] {
        read(&mut hold, &entry(99, false, event(ordinal, ns, EventKind::Data(Bytes::new()))), 0);
    }
    let released = hold.release(usize::MAX, |_| moment(2_000));
    let flags =
        released.iter().filter(|h| matches!(h.kind, Some(EventKind::Data(_)))).map(|h| h.arrival.flags.has(Flags::UNPROVEN));
    assert_eq!(flags.collect::<Vec<_>>(), [false, true, true]);
    assert!(!hold.unproven().is_empty(), "what was released may set timers in them");
    assert!(hold.release(usize::MAX, |_| moment(2_000)).is_empty() && hold.unproven().is_empty(), "everybody has passed them");
}

/// Rule R7: only the first of two events with the same stamp is released. The second keeps its stretch.
#[test]
fn what_is_left_behind_keeps_its_stretch() {
    let (dead, alive) = (incarnation(0), incarnation(1));
    let mut hold = Resequencer::default();
    let open = EventKind::Open { player: PlayerId::new("ann").expect("a name"), role: Role::Player };
    let event = |ordinal, ns, kind| Event { session: 1, ordinal, arrival: Arrival::at(ns, 0), kind };
    let mut read = |incarnation, death, events| {
        let entry = Entry { incarnation, timeline: 1, death, events };
        hold.read(StreamId { ms: 1, seq: 0 }, &entry, moment(5), 0);
    };
    read(dead, false, vec![event(1, 1, open.clone())]);
    read(alive, false, vec![event(1, 2, open)]);
    read(alive, false, vec![event(2, 10, EventKind::Data(Bytes::new())), event(3, 10, EventKind::Data(Bytes::new()))]);
    let arrival = Arrival { raw_ns: Some(20), ..Arrival::at(5, 0) };
    read(dead, true, vec![Event { session: 1, ordinal: 2, arrival, kind: EventKind::Close }]);
    let passed = |_| moment(100);
    assert_eq!(hold.release(2, passed).len(), 2, "the Opens");
    assert_eq!(hold.release_one(passed).len(), 1, "the death");
    let first = hold.release_one(passed);
    assert_eq!(first.iter().map(|held| held.stamp.ordinal).collect::<Vec<_>>(), [2]);
    assert_eq!(hold.unproven().len(), 1, "the other is held");
    let second = hold.release_one(passed);
    assert!(second.len() == 1 && second[0].arrival.flags.has(Flags::UNPROVEN), "{second:?}");
    assert!(hold.is_empty() && hold.release_one(passed).is_empty() && hold.unproven().is_empty());
}

/// Rule T2: a timer of the room lies in the stretch.
#[test]
fn a_timer_keeps_the_stretch_that_it_fires_in() {
    let dead = incarnation(0);
    let mut hold = Resequencer::default();
    let open = EventKind::Open { player: PlayerId::new("ann").expect("a name"), role: Role::Player };
    let event = |ordinal, ns, kind| Event { session: 1, ordinal, arrival: Arrival::at(ns, 0), kind };
    let mut read = |death, event| {
        let entry = Entry { incarnation: dead, timeline: 1, death, events: vec![event] };
        hold.read(StreamId { ms: 1, seq: 0 }, &entry, moment(5), 0);
    };
    read(false, event(1, 1, open));
    let mut close = event(2, 5, EventKind::Close);
    close.arrival.raw_ns = Some(20);
    read(true, close);
    assert_eq!(hold.release(9, |_| moment(5)).len(), 2);
    hold.note_fire(Some(moment(20)));
    assert!(hold.release(9, |_| moment(5)).is_empty() && hold.unproven().len() == 1);
    hold.note_fire(Some(moment(21)));
    assert!(hold.release(9, |_| moment(5)).is_empty() && hold.unproven().is_empty());
}

/// A program in a file that calls itself as other rules do.
fn namesake() -> Box<dyn Rules> {
    let text = b"export default { name: 'last_hit', version: 1 };";
    Box::new(JsRules::new(Program::load("hit.js", text, Budget::default()).expect("a program"), Checking::Off))
}

#[test]
fn a_snapshot_names_its_program_or_says_that_it_cannot() {
    let program = namesake().program();
    let by_file = Room::new(1, namesake()).snapshot();
    assert_eq!(program_of(&by_file), Ok(Some(program)));
    assert_eq!(program_of(&Room::new(1, Box::new(LastHit::new())).snapshot()), Ok(None));
    for end in 0..by_file.len() {
        assert!(program_of(&by_file[..end]).is_err(), "{end} bytes");
    }
}

#[test]
fn rules_of_the_same_name_do_not_go_on_with_a_programs_state() {
    let snapshot = Room::new(1, namesake()).snapshot();
    let error = Room::restore(&snapshot, Box::new(LastHit::new())).map(|_| ()).expect_err("refused").to_string();
    assert!(error.contains("last_hit") && error.contains("give the room rules = { file } again"), "{error}");
    assert!(Room::restore(&snapshot, namesake()).is_ok());
}

/// Session 0 is a game server's; every session opens with its first event in most histories, acts, and closes.
fn held(ordinal: u64, (session, what, contest, id): (u64, usize, u64, u64)) -> Held {
    let role = if session == 0 { Role::Server } else { Role::Player };
    let args = |key: &str| Bytes::from(rmp_serde::to_vec_named(&BTreeMap::from([(key, 2u64)])).expect("encodes"));
    let action = |op: &str, args| {
        let (id, contest) = (id.to_string(), Some(format!("t{contest}")));
        EventKind::Data(crate::wire::action::encode(&Action { op: op.to_owned(), id, contest, player: None, seen: None, args }))
    };
    let kind = match what {
        0 => EventKind::Open { player: PlayerId::new(&format!("p{session}")).expect("a name"), role },
        1 if session == 0 => action("spawn", args("hp")),
        4 if ordinal.is_multiple_of(5) => EventKind::Close,
        _ => action("hit", args("damage")),
    };
    let incarnation = incarnation(session as usize % 2);
    Held {
        at: StreamId { ms: 1, seq: ordinal },
        stamp: Stamp { moment: moment(ordinal * 10), incarnation, ordinal },
        arrival: Arrival { uncertainty_ns: ordinal % 30, flags: Flags::default(), ..Arrival::at(ordinal * 10, 0) },
        session: SessionId { gateway: incarnation, number: session + 1 },
        kind: Some(kind),
        unreadable: None,
        read_ns: 0,
    }
}

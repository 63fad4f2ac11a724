//! What a room's rules take for an event: those of a program in JavaScript, beside the built-in ones.

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use lasthit::internals::engine::{Held, Resequencer, Room};
use lasthit::internals::wire::action;
use lasthit::rules::js::{Budget, Checking, JsRules, Program};
use lasthit::rules::{LastHit, Rules};
use lasthit::types::{Action, Arrival, Entry, Event, EventKind, Incarnation, Moment, Outcome, PlayerId, Role, StreamId};
use serde_json::{Value, json};

const EVENTS: u64 = 64;

/// A state of ten keys with 100 bytes each, of which an event reads and writes one.
const TOUCHES: &str = "
const text = 'x'.repeat(60);
const one = (n) => ({ hp: 1000 + n, max_hp: 100000, by: null, text });
const state = () => Object.fromEntries(Array.from({ length: 10 }, (_, n) => ['key' + n, one(n)]));
export default { name: 'touches', version: 1, state, on: {
  nothing() {},
  hit(ctx, args) {
    const target = ctx.state.key5;
    target.hp += args.damage;
    target.by = ctx.player;
    return { hp: target.hp };
  },
} };";

/// Ten sessions join, and the last one may do `first`; then `op` happens, [`EVENTS`] times.
fn scene(make: &dyn Fn() -> Box<dyn Rules>, first: Option<(&str, Value)>, op: (&str, Value)) -> (Bytes, Vec<Held>) {
    let data = |op: &str, id: String, args: &Value| {
        let args = Bytes::from(rmp_serde::to_vec_named(args).expect("args"));
        let contest = Some("baron".to_owned());
        EventKind::Data(action::encode(&Action { op: op.to_owned(), id, contest, player: None, seen: None, args }))
    };
    let opens = (0..10).map(|session| {
        let player = PlayerId::new(&format!("p{session}")).expect("name");
        (session, EventKind::Open { player, role: if session == 9 { Role::Server } else { Role::Player } })
    });
    let first = first.map(|(op, args)| (9, data(op, "first".to_owned(), &args)));
    let events = (0..EVENTS).map(|n| (n % 10, data(op.0, format!("i{n}"), &op.1)));
    let before = 10 + u64::from(first.is_some());
    let mut hold = Resequencer::default();
    for (n, (session, kind)) in (1..).zip(opens.chain(first).chain(events)) {
        let event = Event { session, ordinal: n, arrival: Arrival::at(1_000_000 + n * 1_000, 0), kind };
        let entry = Entry { incarnation: Incarnation(1), timeline: 1, death: false, events: vec![event] };
        hold.read(StreamId { ms: n, seq: 0 }, &entry, Moment::default(), 0);
    }
    let mut all = hold.release(usize::MAX, |_| Moment { timeline: 1, ns: u64::MAX });
    let events = all.split_off(usize::try_from(before).expect("small"));
    let mut room = Room::new(1, make());
    for held in all {
        assert_eq!(room.resolve(&held, None).outcome, Outcome::Granted);
    }
    (room.snapshot(), events)
}

fn main() {
    let mut c = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    c = c.sample_size(40).configure_from_args();
    let load = |file: &str, text: &str| Program::load(file, text.as_bytes(), Budget::default()).expect("a program");
    let (touches, arena) = (load("touches.js", TOUCHES), load("arena.js", include_str!("../examples/rules/arena.js")));
    let js = |program: &std::sync::Arc<Program>| {
        let program = program.clone();
        move || -> Box<dyn Rules> { Box::new(JsRules::new(program.clone(), Checking::Off)) }
    };
    let (touches, arena) = (js(&touches), js(&arena));
    let built_in = || -> Box<dyn Rules> { Box::new(LastHit::new()) };
    let state = touches().snapshot().len();
    assert!((1000..1250).contains(&state), "a state of {state} bytes");
    let spawn = || Some(("spawn", json!({"hp": 1_000_000})));
    let hit = || ("hit", json!({"damage": 2}));
    let mut group = c.benchmark_group("rules");
    group.throughput(Throughput::Elements(EVENTS));
    for (name, make, first, op) in [
        ("built-in: 64 hits", &built_in as &dyn Fn() -> Box<dyn Rules>, spawn(), hit()),
        ("JavaScript: 64 hits in examples/rules/arena.js", &arena, spawn(), hit()),
        ("JavaScript: 64 events, 100 of 1,024 bytes touched", &touches, None, hit()),
        ("JavaScript: 64 events, nothing touched", &touches, None, ("nothing", json!(null))),
    ] {
        let (snapshot, events) = scene(make, first, op);
        let room = || Room::restore(&snapshot, make()).expect("restored");
        let mut one = room();
        assert!(events.iter().all(|held| one.resolve(held, None).outcome == Outcome::Granted), "{name}");
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                room,
                |room| events.iter().map(|held| room.resolve(black_box(held), None).seq).max(),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
    c.final_summary();
}

//! The deterministic part: putting events back into order, and a lane's resolve for each of the built-in rules.

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use lasthit::internals::engine::{Held, Resequencer, Room};
use lasthit::internals::wire::{action, verdicts};
use lasthit::rules::{Claim, LastHit, Rules};
use lasthit::types::{
    Action, Arrival, Audience, Entry, Event, EventKind, Flags, Incarnation, Moment, Outcome, PlayerId, Role, StreamId,
};

const GATEWAYS: u64 = 2;
const EVENTS: u64 = 64;
const SESSIONS: u64 = 10;

/// `kinds` as the entries of one flush per gateway and round, each event a microsecond after the one before.
fn entries(kinds: impl Iterator<Item = (u64, EventKind)>, first: u64) -> Vec<(StreamId, Entry)> {
    let mut entries: Vec<(StreamId, Entry)> = Vec::new();
    for (i, (session, kind)) in (first..).zip(kinds) {
        let event = Event { session, ordinal: i + 1, arrival: Arrival::at(1_000_000 + i * 1_000, 2_000), kind };
        let incarnation = Incarnation(u128::from(session % GATEWAYS) + 1);
        let at = StreamId { ms: 1 + i / 16, seq: session % GATEWAYS };
        match entries.iter_mut().find(|(found, _)| *found == at) {
            Some((_, entry)) => entry.events.push(event),
            None => entries.push((at, Entry { incarnation, timeline: 1, death: false, events: vec![event] })),
        }
    }
    entries
}

fn opens() -> impl Iterator<Item = (u64, EventKind)> {
    (0..SESSIONS).map(|session| {
        let player = PlayerId::new(&format!("p{session}")).expect("name");
        // The last one may spawn.
        let role = if session == SESSIONS - 1 { Role::Server } else { Role::Player };
        (session, EventKind::Open { player, role })
    })
}

fn data(op: &str, id: String, contest: &str, args: &serde_json::Value) -> EventKind {
    let args = Bytes::from(rmp_serde::to_vec_named(args).expect("args"));
    EventKind::Data(action::encode(&Action {
        op: op.to_owned(),
        id,
        contest: Some(contest.to_owned()),
        player: None,
        seen: None,
        args,
    }))
}

fn everything(_: Incarnation) -> Moment {
    Moment { timeline: 1, ns: u64::MAX }
}

fn order(hold: &mut Resequencer, entries: &[(StreamId, Entry)]) -> Vec<Held> {
    for (at, entry) in entries {
        hold.read(*at, entry, Moment::default(), 0);
    }
    hold.release(usize::MAX, everything)
}

fn resequence(c: &mut Criterion) {
    let claims = (0..EVENTS).map(|i| (i % SESSIONS, data("claim", format!("i{i}"), "key", &serde_json::Value::Null)));
    let (opens, claims) = (entries(opens(), 0), entries(claims, SESSIONS));
    let inside = || {
        let mut hold = Resequencer::default();
        order(&mut hold, &opens);
        hold
    };
    let ordered = order(&mut inside(), &claims);
    assert_eq!(ordered.len() as u64, EVENTS);
    assert!(ordered.windows(2).all(|pair| pair[0].stamp < pair[1].stamp), "not in stamp order");

    let mut group = c.benchmark_group("engine/resequence");
    group.throughput(Throughput::Elements(EVENTS));
    group.bench_function("64 events of two gateways", |b| {
        b.iter_batched_ref(inside, |hold| order(hold, black_box(&claims)), BatchSize::SmallInput);
    });
    group.finish();
}

/// A room whose sessions are inside, as a snapshot, and the events to resolve there.
fn scene(rules: Box<dyn Rules>, first: Option<EventKind>, events: impl Iterator<Item = (u64, EventKind)>) -> (Bytes, Vec<Held>) {
    let mut hold = Resequencer::default();
    let mut room = Room::new(1, rules);
    let prelude: Vec<_> = opens().chain(first.map(|kind| (SESSIONS - 1, kind))).collect();
    let count = prelude.len() as u64;
    for held in order(&mut hold, &entries(prelude.into_iter(), 0)) {
        assert_eq!(room.resolve(&held, None).outcome, Outcome::Granted);
    }
    (room.snapshot(), order(&mut hold, &entries(events, count)))
}

fn resolve(c: &mut Criterion) {
    let claims = (0..EVENTS).map(|i| {
        let contest = format!("c{}", i / SESSIONS);
        (i % SESSIONS, data("claim", format!("i{i}"), &contest, &serde_json::Value::Null))
    });
    let claim = || -> Box<dyn Rules> { Box::new(Claim::new(Audience::Session)) };
    let hits = (0..EVENTS).map(|i| (i % SESSIONS, data("hit", format!("i{i}"), "baron", &serde_json::json!({ "damage": 2 }))));
    let last_hit = || -> Box<dyn Rules> { Box::new(LastHit::new()) };
    let spawn = data("spawn", "s".to_owned(), "baron", &serde_json::json!({ "hp": EVENTS }));
    let (claim_room, claims) = scene(claim(), None, claims);
    let (hit_room, hits) = scene(last_hit(), Some(spawn), hits);

    let mut group = c.benchmark_group("engine/resolve");
    group.throughput(Throughput::Elements(EVENTS));
    for (name, snapshot, make, events, granted) in [
        ("64 claims, ten a contest", claim_room, &claim as &dyn Fn() -> Box<dyn Rules>, claims, EVENTS.div_ceil(SESSIONS)),
        ("64 hits, half of them late", hit_room, &last_hit, hits, EVENTS / 2),
    ] {
        let room = || Room::restore(&snapshot, make()).expect("restored");
        let mut one = room();
        let verdicts: Vec<_> = events.iter().map(|held| one.resolve(held, None)).collect();
        assert_eq!(verdicts.iter().filter(|v| v.outcome == Outcome::Granted).count() as u64, granted, "{name}");
        let late = verdicts.iter().filter(|v| v.outcome == Outcome::Denied("late".to_owned()));
        assert!(late.clone().all(|v| v.behind_ns.is_some()) && late.count() as u64 == EVENTS - granted, "{name}");
        assert!(verdicts.iter().all(|v| v.flags == Flags::default() || v.flags == Flags::PHOTO_FINISH), "{name}");
        let encoded = verdicts::encode(&lasthit::types::VerdictBatch { era: 1, epoch: None, decided: None, verdicts });
        assert_eq!(verdicts::decode(&encoded).expect("batch").verdicts.len() as u64, EVENTS, "{name}");
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                room,
                |room| events.iter().map(|held| room.resolve(black_box(held), None).seq).max(),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn main() {
    let mut c = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    c = c.sample_size(40).configure_from_args();
    resequence(&mut c);
    resolve(&mut c);
    c.final_summary();
}

//! Encoding and decoding of every form: what the journal holds, what is pushed, and the clients' messages in both encodings.

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput};
use lasthit::internals::wire::push::{Push, RoomPush};
use lasthit::internals::wire::{action, entry, push, verdicts};
use lasthit::types::{
    Action, Arrival, Entry, Event, EventKind, Flags, Incarnation, Moment, Outcome, PlayerId, Role, RoomId, SessionId, ShardId,
    Stamp, Verdict, VerdictBatch, VerdictKind,
};
use lasthit::wire::client::{Encoding, ErrorCode, Refusal, VerdictFrames, Welcome, encode_refusal, encode_welcome, parse_action};

const GATEWAY: Incarnation = Incarnation(0x5f3c_a81e_0000_0000_0000_0000_0000_0001);

fn packed(value: &serde_json::Value) -> Bytes {
    Bytes::from(rmp_serde::to_vec_named(value).expect("memory"))
}

fn hit() -> Action {
    let args = packed(&serde_json::json!({ "damage": 300 }));
    Action { op: "hit".to_owned(), id: "k3v9-1".to_owned(), contest: Some("baron".to_owned()), player: None, seen: None, args }
}

fn entry_of(events: u64) -> Entry {
    let event = |i| Event {
        session: i,
        ordinal: 1_000 + i,
        arrival: Arrival::at(48_211_900_312_744 + i * 900, 2_100),
        kind: EventKind::Data(action::encode(&hit())),
    };
    Entry { incarnation: GATEWAY, timeline: 1, death: false, events: (0..events).map(event).collect() }
}

fn verdict(seq: u64) -> Verdict {
    Verdict {
        session: 4,
        player: Some(PlayerId::new("ann").expect("name")),
        id: Some(format!("k3v9-{seq}")),
        contest: Some("baron".to_owned()),
        round: 1,
        outcome: Outcome::Denied("late".to_owned()),
        uncertainty_ns: 2_100,
        behind_ns: Some(1_300),
        flags: Flags::PHOTO_FINISH,
        body: Some(packed(&serde_json::json!({ "target": "baron", "hp": 0, "max_hp": 12000, "round": 1, "damage": 300 }))),
        ..Verdict::granted(
            seq,
            Stamp {
                moment: Moment { timeline: 1, ns: 48_211_900_312_744 + seq * 900 },
                incarnation: GATEWAY,
                ordinal: 1_000 + seq,
            },
            VerdictKind::Data,
        )
    }
}

fn batch_of(verdicts: u64) -> VerdictBatch {
    VerdictBatch { era: 3, epoch: None, decided: None, verdicts: (1..=verdicts).map(verdict).collect() }
}

/// Asserts that decoding gives back what was encoded, then times both.
fn both<T: PartialEq + std::fmt::Debug>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    value: &T,
    encode: impl Fn(&T) -> Bytes,
    decode: impl Fn(&Bytes) -> T,
) {
    let bytes = encode(value);
    assert_eq!(&decode(&bytes), value, "{name}");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function(format!("encode {name}"), |b| b.iter(|| encode(black_box(value))));
    group.bench_function(format!("decode {name}"), |b| b.iter(|| decode(black_box(&bytes))));
}

fn journal_forms(c: &mut Criterion) {
    let mut group = c.benchmark_group("wire");
    both(&mut group, "action", &hit(), action::encode, |b| action::decode(b).expect("action"));
    for events in [1, 16] {
        let name = format!("entry of {events}");
        both(&mut group, &name, &entry_of(events), entry::encode, |b| entry::decode(b).expect("entry"));
    }
    for count in [1, 16] {
        let name = format!("verdict batch of {count}");
        both(&mut group, &name, &batch_of(count), verdicts::encode, |b| verdicts::decode(b).expect("batch"));
    }
    let room = |n| RoomPush { room: RoomId::new(&format!("baron-{n}")).expect("name"), from: 0, to: 4, batch: batch_of(4) };
    let pushes = [
        (
            "push of 4 rooms with 4 verdicts",
            Push::Verdicts { shard: ShardId(3), server: GATEWAY, commit: 1, rooms: (0..4).map(room).collect() },
        ),
        ("probe", Push::Probe { shard: ShardId(3), until: Moment { timeline: 1, ns: 48_211_900_312_744 } }),
    ];
    for (name, value) in pushes {
        both(&mut group, name, &value, push::encode, |b| push::decode(b).expect("push"));
    }
    group.finish();
}

fn client_forms(c: &mut Criterion) {
    let mut group = c.benchmark_group("wire/client");
    let welcome = Welcome {
        home: 7,
        session: SessionId { gateway: GATEWAY, number: 4 },
        player: PlayerId::new("ann").expect("name"),
        role: Role::Player,
        era: 3,
        seq: 16,
        resumed: false,
        gone: false,
        state: Some(packed(&serde_json::json!({ "targets": { "baron": { "hp": 12000, "max_hp": 12000, "round": 1 } } }))),
        clock: "kernel",
        uncertainty_ns: 2_100,
    };
    let refusal = Refusal { code: ErrorCode::Busy, id: Some("k3v9-1".to_owned()), message: "send it again later".to_owned() };
    let sent = serde_json::json!({ "op": "hit", "id": "k3v9-1", "contest": "baron", "args": { "damage": 300 } });
    for (name, encoding) in [("json", Encoding::Json), ("msgpack", Encoding::Msgpack)] {
        let message = match encoding {
            Encoding::Json => Bytes::from(sent.to_string()),
            Encoding::Msgpack => packed(&sent),
        };
        assert_eq!(parse_action(encoding, &message).expect("action"), hit());
        group.throughput(Throughput::Bytes(message.len() as u64));
        group.bench_function(format!("parse action, {name}"), |b| b.iter(|| parse_action(encoding, black_box(&message))));

        let frame = VerdictFrames::new(verdict(17), None).encode(encoding, None);
        assert_eq!(read(encoding, &frame)["seq"], 17);
        group.throughput(Throughput::Bytes(frame.len() as u64));
        group.bench_function(format!("encode verdict, {name}"), |b| {
            let fresh = || VerdictFrames::new(verdict(17), None);
            b.iter_batched_ref(fresh, |frames| frames.encode(encoding, None), BatchSize::SmallInput);
        });
        let frames = VerdictFrames::new(verdict(17), None);
        assert_eq!(read(encoding, &frames.encode(encoding, Some(12)))["from"], 12);
        group.bench_function(format!("encode verdict for the next session, {name}"), |b| {
            b.iter(|| frames.encode(encoding, None));
        });
        group.bench_function(format!("encode verdict that covers a range, {name}"), |b| {
            b.iter(|| frames.encode(encoding, black_box(Some(12))));
        });

        assert_eq!(read(encoding, &encode_welcome(encoding, &welcome))["era"], 3);
        group.bench_function(format!("encode welcome, {name}"), |b| b.iter(|| encode_welcome(encoding, black_box(&welcome))));
        assert_eq!(read(encoding, &encode_refusal(encoding, &refusal))["code"], "busy");
        group.bench_function(format!("encode error, {name}"), |b| b.iter(|| encode_refusal(encoding, black_box(&refusal))));
    }
    group.finish();
}

fn read(encoding: Encoding, frame: &Bytes) -> serde_json::Value {
    match encoding {
        Encoding::Json => serde_json::from_slice(frame).expect("json"),
        Encoding::Msgpack => rmp_serde::from_slice(frame).expect("msgpack"),
    }
}

fn main() {
    let mut c = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    c = c.sample_size(30).configure_from_args();
    journal_forms(&mut c);
    client_forms(&mut c);
    c.final_summary();
}

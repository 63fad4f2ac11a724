//! Numbers at the ends of their ranges, in stored rooms and in answers of the journal: a worker does not panic.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::engine::Held;
use crate::journal::StoredSnapshot;

fn edge() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(1), Just(u64::MAX), Just(u64::MAX - 1), Just(1 << 63), 2..200_u64]
}

fn kind() -> impl Strategy<Value = EventKind> {
    let name = PlayerId::new("ann").expect("name");
    prop_oneof![
        Just(EventKind::Open { player: name, role: Role::Server }),
        Just(EventKind::Data(Bytes::new())),
        Just(EventKind::End { code: 0 }),
        Just(EventKind::Close),
    ]
}

fn entry_bytes() -> impl Strategy<Value = Bytes> {
    let event = (edge(), edge(), edge(), edge(), proptest::option::of(edge()), kind()).prop_map(
        |(session, ordinal, ns, uncertainty_ns, raw_ns, kind)| Event {
            session,
            ordinal,
            arrival: Arrival { raw_ns, ..Arrival::at(ns, uncertainty_ns) },
            kind,
        },
    );
    let entry = (1..3_u128, prop_oneof![Just(1), Just(u32::MAX)], any::<bool>(), vec(event, 1..4));
    entry.prop_map(|(of, timeline, death, mut events): (u128, u32, bool, Vec<Event>)| {
        // Out of order is another test's.
        let (mut ordinals, mut times): (Vec<u64>, Vec<u64>) = events.iter().map(|e| (e.ordinal, e.arrival.ns)).unzip();
        ordinals.sort_unstable();
        times.sort_unstable();
        for (event, (ordinal, ns)) in events.iter_mut().zip(ordinals.into_iter().zip(times)) {
            (event.ordinal, event.arrival.ns) = (ordinal, ns);
        }
        entry::encode(&Entry { incarnation: Incarnation(of), timeline, death, events })
    })
}

fn position() -> impl Strategy<Value = StreamId> {
    (edge(), edge()).prop_map(|(ms, seq)| StreamId { ms, seq })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn numbers_at_the_edge_stop_no_worker(
        stored in vec((position(), entry_bytes()), 0..4),
        rung in vec((position(), entry_bytes(), edge()), 0..4),
        (era, seq, cursor) in (edge(), edge(), position()),
        (append, commit, watermark_ns) in (edge(), edge(), edge()),
        with_snapshot: bool,
        now in vec(edge(), 2),
    ) {
        let (mut core, room) = (worker(), RoomId::new("pit").expect("name"));
        let mut found = survey(append, &room, watermark_ns);
        found.commit = commit;
        found.rooms.push(RoomHead { room: room.clone(), era, seq, top: Moment { timeline: u32::MAX, ns: watermark_ns } });
        core.apply(Input::Surveyed(SHARD, found), now[0]);
        let mut state = crate::engine::Room::new(era, Box::new(Claim::new(Audience::Room)));
        state.resolve(&Held {
            at: cursor, stamp: crate::types::Stamp { moment: Moment::default(), incarnation: A, ordinal: 1 },
            arrival: Arrival::default(), session: crate::types::SessionId { gateway: A, number: 1 }, kind: None, unreadable: None, read_ns: 0,
        }, None);
        let snapshot = with_snapshot.then(|| StoredSnapshot { seq: 1, cursor, bytes: state.snapshot() });
        let seq = if with_snapshot { 1 } else { 0 };
        core.stored_room(SHARD, room.clone(), StoredRoom { era, seq, cursor, snapshot, entries: stored, ..StoredRoom::default() }, now[0]);
        let mut said = perform(&mut core);
        for (at, bytes, number) in rung {
            let watermark = Moment { timeline: 1, ns: number };
            let entries = vec![(room.clone(), at, bytes)];
            core.apply(Input::Bell(Bell { shard: SHARD, append: append.wrapping_add(1), incarnation: B, number, watermark, entries, poked: vec![] }), now[1]);
        }
        for incarnation in [A, B] {
            let record = GatewayRecord { incarnation, number: 1, watermark: Moment { timeline: 1, ns: watermark_ns }, fenced: true, server: Incarnation::NONE };
            core.apply(Input::Fenced { shard: SHARD, lease: LEASE, answer: Leased::Done(record) }, now[1]);
        }
        core.apply(Input::Tick, now[0]);
        core.apply(Input::Tick, now[1]);
        said.extend(perform(&mut core));
        for command in said {
            match command {
                Command::Warn(text) => prop_assert!(!text.contains("panicked"), "{text}"),
                Command::Commit(commit) => done(&mut core, &commit, now[1]),
                _ => {}
            }
        }
        perform(&mut core);
    }
}

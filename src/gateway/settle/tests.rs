//! Flushes of sessions that sent much right after their upgrade.

use bytes::Bytes;

use super::super::core::Core;
use super::super::step::{Command, Joining};
use crate::journal::memory::Store;
use crate::journal::{Appended, Flush, Seen};
use crate::limits::{FLUSH_BYTES_MAX, FLUSH_EVENTS_MAX, WAITING_ACTIONS_MAX};
use crate::types::{Action, Arrival, Event, EventKind, Flags, Incarnation, Moment, PlayerId, RoomId, ShardId};
use crate::wire::entry;

const SHARD: ShardId = ShardId(0);
const SESSIONS: usize = 32;

fn action(id: usize, bytes: usize) -> Action {
    let length = u16::try_from(bytes).expect("short");
    let args = [&[0xc5][..], &length.to_be_bytes(), &vec![0; bytes]].concat();
    Action { op: "hit".to_owned(), id: id.to_string(), contest: None, player: None, seen: None, args: Bytes::from(args) }
}

fn events(flush: &Flush) -> Vec<Event> {
    let mut events: Vec<Event> = flush.entries.iter().flat_map(|e| entry::decode(&e.bytes).expect("an entry").events).collect();
    events.sort_by_key(|event| event.ordinal);
    events
}

/// Sessions join and send at once, in turns. Returns all flushes that leave.
fn pipelined(action_bytes: usize) -> Vec<Flush> {
    let (mut core, mut store) = (Core::new(Incarnation(1), 1, "test", 0), Store::at_home(1));
    core.probed(SHARD, Moment::default());
    core.registered(SHARD, Incarnation(1), &store.register(SHARD, Incarnation(1), Seen::default(), &[]).expect("a shard").0);
    core.take_commands();
    let mut now = 1_000;
    let mut tick = || {
        now += 10;
        now
    };
    let sessions: Vec<u64> = (0..SESSIONS)
        .map(|n| {
            let room = RoomId::new(if n % 2 == 0 { "pit" } else { "den" }).expect("a name");
            let joining = Joining::new(room, PlayerId::new(&format!("p{n}")).expect("a name"));
            core.open(joining, Arrival::at(tick(), 0)).expect("a session").number
        })
        .collect();
    for id in 0..WAITING_ACTIONS_MAX {
        for session in &sessions {
            core.act(*session, &action(id, action_bytes), Arrival::at(tick(), 0)).expect("taken in");
        }
    }
    let mut flushes = Vec::new();
    loop {
        let until = tick();
        core.settled(until);
        let append = |action| if let Command::Append { flush, .. } = action { Some(flush) } else { None };
        let Some(flush) = core.take_commands().into_iter().find_map(append) else { return flushes };
        let answer = store.append(&flush, crate::types::Seed(1), 1).expect("a flush").0;
        assert!(matches!(answer, Appended::Stored(_)), "{answer:?}");
        flushes.push((*flush).clone());
        // All sessions have one floor.
        core.appended(&flush, &answer, false, until + 5);
    }
}

#[test]
fn what_waited_for_the_welcome_leaves_in_flushes_of_the_usual_size() {
    for action_bytes in [10, 3_900] {
        let flushes = pipelined(action_bytes);
        let of_actions = &flushes[1..];
        assert!(of_actions.len() > 1, "{} flushes", flushes.len());
        for flush in &flushes {
            let bytes: usize = flush.entries.iter().map(|entry| entry.bytes.len() + entry.room.as_str().len()).sum();
            assert!(bytes <= FLUSH_BYTES_MAX, "{bytes} bytes in a flush");
            assert!(events(flush).len() <= FLUSH_EVENTS_MAX, "{} events in a flush", events(flush).len());
        }
        let all: Vec<Event> = of_actions.iter().flat_map(events).collect();
        assert_eq!(all.len(), SESSIONS * WAITING_ACTIONS_MAX);
        // Over all flushes and sessions, events keep the order of their arrival. Moved events are flagged.
        for pair in all.windows(2) {
            assert!(pair[0].arrival.raw_ns < pair[1].arrival.raw_ns && pair[0].arrival.ns <= pair[1].arrival.ns, "{pair:?}");
        }
        for event in &all {
            let raw = event.arrival.raw_ns.expect("moved");
            assert!(event.arrival.flags.has(Flags::CLAMPED) && matches!(event.kind, EventKind::Data(_)));
            assert_eq!(event.arrival.uncertainty_ns, event.arrival.ns - raw, "by how far it was moved");
        }
    }
}

/// A full flush moves events that have its last stamp to the next flush. The session's later events may be there already, with
/// a lower kernel stamp.
#[test]
fn what_a_full_flush_moves_stays_before_what_its_session_sent_later() {
    let (mut core, mut store) = (Core::new(Incarnation(1), 1, "test", 0), Store::at_home(1));
    core.probed(SHARD, Moment::default());
    core.registered(SHARD, Incarnation(1), &store.register(SHARD, Incarnation(1), Seen::default(), &[]).expect("a shard").0);
    core.take_commands();
    let joining = || Joining::new(RoomId::new("pit").expect("a name"), PlayerId::new("ann").expect("a name"));
    let sessions = [1, 2].map(|ns| core.open(joining(), Arrival::at(ns, 0)).expect("a session").number);
    let mut flush = |core: &mut Core, until: u64| {
        core.settled(until);
        let append = |action| if let Command::Append { flush, .. } = action { Some(flush) } else { None };
        let flush = core.take_commands().into_iter().find_map(append).expect("a flush");
        let answer = store.append(&flush, crate::types::Seed(1), 1).expect("a flush").0;
        core.appended(&flush, &answer, false, until);
        events(&flush)
    };
    flush(&mut core, 10);
    core.bounds.flush_events_max = 1;
    let at = 1_000;
    core.act(sessions[0], &action(0, 1), Arrival::at(at, 0)).expect("taken in");
    core.act(sessions[1], &action(1, 1), Arrival::at(at, 0)).expect("taken in");
    let moved = Arrival { raw_ns: Some(at - 5), ..Arrival::at(at + 1, 0) };
    core.act(sessions[1], &action(2, 1), moved).expect("taken in");
    let data = |n: usize| EventKind::Data(crate::wire::action::encode(&action(n, 1)));
    for n in 0..3 {
        let left = flush(&mut core, at + 1 + n as u64);
        assert_eq!(left.iter().map(|event| &event.kind).collect::<Vec<_>>(), [&data(n)]);
    }
}

/// Rule S7, where the room's highest stamp is another host's: that clock says nothing of this one's, and moves nothing.
#[test]
fn a_stamp_of_another_timeline_moves_nothing() {
    for (timeline, moved) in [(1, true), (2, false)] {
        let (mut core, mut store) = (Core::new(Incarnation(1), 1, "test", 0), Store::at_home(1));
        core.probed(SHARD, Moment::default());
        core.registered(SHARD, Incarnation(1), &store.register(SHARD, Incarnation(1), Seen::default(), &[]).expect("a shard").0);
        core.take_commands();
        let joining = Joining::new(RoomId::new("pit").expect("a name"), PlayerId::new("ann").expect("a name"));
        let session = core.open(joining, Arrival::at(1, 0)).expect("a session").number;
        let mut flush = |core: &mut Core, until: u64| {
            core.settled(until);
            let append = |action| if let Command::Append { flush, .. } = action { Some(flush) } else { None };
            let flush = core.take_commands().into_iter().find_map(append).expect("a flush");
            let Appended::Stored(mut heads) = store.append(&flush, crate::types::Seed(1), 1).expect("a flush").0 else {
                panic!("not stored")
            };
            heads[0].top = Moment { timeline, ns: 5_000 };
            core.appended(&flush, &Appended::Stored(heads), false, until);
            events(&flush)
        };
        flush(&mut core, 10);
        core.act(session, &action(0, 1), Arrival::at(100, 0)).expect("taken in");
        let stamped = flush(&mut core, 6_000)[0].arrival;
        assert_eq!(stamped.ns, if moved { 5_001 } else { 100 }, "{stamped:?}");
    }
}

/// Rule W2. The journal cannot check it, because it does not read entries.
#[test]
fn a_flush_carries_what_lies_between_its_watermarks() {
    let flushes = pipelined(3_900);
    for (flush, next) in flushes.iter().zip(&flushes[1..]) {
        assert_eq!(flush.watermark, next.previous);
    }
    for flush in &flushes {
        let within = |event: &Event| event.arrival.ns > flush.previous.ns && event.arrival.ns <= flush.watermark.ns;
        assert!(events(flush).iter().all(within), "({:?}, {:?}]: {:?}", flush.previous, flush.watermark, events(flush));
    }
}

/// Another gateway's appends ask during each sweep for more than that sweep proves: the first question is answered all the same.
#[test]
fn who_asks_on_and_on_puts_no_answer_off() {
    let (mut core, mut store) = (Core::new(Incarnation(1), 1, "test", 0), Store::at_home(1));
    core.probed(SHARD, Moment::default());
    core.registered(SHARD, Incarnation(1), &store.register(SHARD, Incarnation(1), Seen::default(), &[]).expect("a shard").0);
    core.take_commands();
    let at = |ns| Moment { timeline: 1, ns };
    core.probed(SHARD, at(1_000));
    let mut watermarks = Vec::new();
    for began in (990..1_100).step_by(10) {
        core.probed(SHARD, at(began + 5));
        core.settled(began);
        let append = |action| if let Command::Append { flush, .. } = action { Some(flush) } else { None };
        if let Some(flush) = core.take_commands().into_iter().find_map(append) {
            let answer = store.append(&flush, crate::types::Seed(1), 1).expect("a flush").0;
            core.appended(&flush, &answer, false, began);
            watermarks.push(flush.watermark.ns);
        }
    }
    assert_eq!(watermarks.first(), Some(&1_000), "{watermarks:?}");
    assert!(watermarks.len() > 2, "{watermarks:?}");
}

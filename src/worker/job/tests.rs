mod outside;

use super::*;
use crate::engine::RULES_FAILED;
use crate::engine::Resequencer;
use crate::limits::RECENT_IDS_PER_PLAYER_MAX;
use crate::rules::LastHit;
use crate::types::{Action, Arrival, Entry, Event, EventKind, Moment, PlayerId, Role, SessionId, Since, StreamId};
use crate::wire::action;
use crate::worker::Programs;
use crate::worker::restore::replay;

fn resolving(room: Room, events: Vec<Held>) -> Resolving {
    Resolving {
        of: LaneId { shard: ShardId(0), epoch: 1, room: RoomId::new("pit").expect("name"), token: 1 },
        room: Box::new(room),
        change: None,
        events,
        clock: HostClock::default(),
        now_ns: 0,
        until: None,
        fires_max: 0,
        unproven: Vec::new(),
        poisoned: BTreeMap::new(),
        snapshot: false,
        watched: false,
        bytes_max: 1 << 20,
    }
}

/// Sessions join through two gateways. Each gateway gets the state for its own sessions, and learns that the others joined.
#[test]
fn what_a_room_says_to_one_who_joins_goes_to_its_gateway() {
    let (one, other) = (Incarnation(1), Incarnation(2));
    let event = |n: u64, gateway| {
        let kind = EventKind::Open { player: PlayerId::new(&format!("p{n}")).expect("name"), role: Role::Player };
        let arrival = Arrival::at(n, 0);
        let stamp = Stamp { moment: Moment { timeline: 1, ns: n }, incarnation: gateway, ordinal: n };
        let session = SessionId { gateway, number: n };
        Held { at: StreamId { ms: 1, seq: n }, stamp, arrival, session, kind: Some(kind), unreadable: None, read_ns: 0 }
    };
    let job = resolving(Room::new(1, Box::new(LastHit::new())), vec![event(1, one), event(2, other), event(3, one)]);
    let DoneOutcome::Resolved(_, parts, _) = Job::Resolve(job).run().outcome else { panic!("resolved") };
    let resolved = parts.front().expect("one part");
    let bodies = |bytes: &Bytes| -> Vec<bool> {
        verdicts::decode(bytes).expect("a batch").verdicts.iter().map(|verdict| verdict.body.is_some()).collect()
    };
    assert_eq!(bodies(&resolved.verdicts), [true; 3], "the record has them all");
    let pushed: Vec<_> = resolved.pushes.iter().map(|(gateway, bytes)| (*gateway, bodies(bytes))).collect();
    assert_eq!(pushed, [(one, vec![true, false, true]), (other, vec![false, true, false])]);
}

/// A session is not let in. Its gateway has no other session in the room, and still gets the verdicts on its events.
#[test]
fn what_became_of_an_event_goes_to_its_gateway_whoever_is_inside() {
    let (one, other) = (Incarnation(1), Incarnation(2));
    let event = |n: u64, gateway, kind| {
        let arrival = Arrival::at(n, 0);
        let stamp = Stamp { moment: Moment { timeline: 1, ns: n }, incarnation: gateway, ordinal: n };
        let session = SessionId { gateway, number: 1 };
        Held { at: StreamId { ms: 1, seq: n }, stamp, arrival, session, kind: Some(kind), unreadable: None, read_ns: 0 }
    };
    let open = EventKind::Open { player: PlayerId::new("ann").expect("name"), role: Role::Player };
    let job = resolving(
        Room::new(1, Box::new(LastHit::new())),
        vec![event(1, one, open), event(2, other, EventKind::End { code: 1013 }), event(3, other, EventKind::Close)],
    );
    let DoneOutcome::Resolved(_, parts, _) = Job::Resolve(job).run().outcome else { panic!("resolved") };
    let pushed: Vec<_> = parts.iter().flat_map(|part| part.pushes.iter().map(|(gateway, _)| *gateway)).collect();
    assert_eq!(pushed, [one, other]);
    assert_eq!(parts.back().and_then(|part| part.inside.clone()), Some(vec![one]), "and is not inside");
}

/// A room was rolled back and goes on in a new era, with a snapshot of the old one. What a client has seen in the new era counts
/// when the record is resolved again, as it did at first.
#[test]
fn a_record_is_resolved_again_in_the_era_that_it_is_of() {
    let gateway = Incarnation(1);
    let act = |n: u64, seen| {
        let (op, id) = ("hit".to_owned(), format!("i{n}"));
        let action = Action { op, id, contest: None, player: None, seen, args: Bytes::from_static(&[0xc0]) };
        EventKind::Data(action::encode(&action))
    };
    let last = RECENT_IDS_PER_PLAYER_MAX as u64 + 10;
    let event = |n: u64| {
        let kind = match n {
            1 => EventKind::Open { player: PlayerId::new("ann").expect("name"), role: Role::Player },
            // Sent again, and its first sending never arrived: nothing above what was seen is forgotten.
            n if n == last => act(n, Some(Since { era: 2, seq: n - 1 })),
            n => act(n, None),
        };
        Event { session: 1, ordinal: n, arrival: Arrival::at(n, 0), kind }
    };
    let entry = Entry { incarnation: gateway, timeline: 1, death: false, events: (1..=last).map(event).collect() };
    let mut hold = Resequencer::default();
    hold.read(StreamId { ms: 1, seq: 0 }, &entry, Moment::default(), 0);
    let mut room = Room::new(2, Box::new(LastHit::new()));
    let verdicts: Vec<Verdict> =
        hold.release(usize::MAX, |_| Moment { timeline: 1, ns: u64::MAX }).iter().map(|held| room.resolve(held, None)).collect();
    assert_eq!(verdicts.last().map(|v| &v.outcome), Some(&Outcome::Denied("no_contest".to_owned())), "the rules were asked");
    let batch = verdicts::encode(&VerdictBatch { era: 2, epoch: None, decided: None, verdicts });
    let mut again = Room::new(1, Box::new(LastHit::new()));
    let (_, deviations) = replay(
        &mut again,
        &[(StreamId { ms: 1, seq: 0 }, Ok(entry))],
        &[batch],
        Programs::Asked,
        &|_| Err(String::new()),
        |_: &Room, _: &Verdict| {},
    )
    .expect("resolved");
    assert_eq!((deviations, again.snapshot()), (Vec::new(), room.snapshot()));
}

/// The version before had forgotten an id that this one remembers, and its rules failed on the second action with that id.
#[test]
fn what_the_rules_failed_on_in_the_version_before_is_void_again() {
    let action = Action {
        op: "hit".to_owned(),
        id: "same".to_owned(),
        contest: None,
        player: None,
        seen: None,
        args: Bytes::from_static(&[0xc0]),
    };
    let event = |n: u64| {
        let kind = match n {
            1 => EventKind::Open { player: PlayerId::new("ann").expect("name"), role: Role::Player },
            _ => EventKind::Data(action::encode(&action)),
        };
        Event { session: 1, ordinal: n, arrival: Arrival::at(n, 0), kind }
    };
    let entry = Entry { incarnation: Incarnation(1), timeline: 1, death: false, events: (1..=3).map(event).collect() };
    let mut hold = Resequencer::default();
    hold.read(StreamId { ms: 1, seq: 0 }, &entry, Moment::default(), 0);
    let rules = || Box::new(LastHit::new());
    let mut room = Room::new(1, rules());
    let mut all: Vec<Verdict> =
        hold.release(usize::MAX, |_| Moment { timeline: 1, ns: u64::MAX }).iter().map(|held| room.resolve(held, None)).collect();
    let again = all.pop().expect("three verdicts");
    assert_eq!(again.outcome, Outcome::Repeat { of: 2 });
    let failed = Verdict { outcome: Outcome::Void(RULES_FAILED.to_owned()), ..again };
    let before = verdicts::encode(&VerdictBatch { era: 1, epoch: None, decided: None, verdicts: all });
    let earlier = verdicts::encode_earlier(2, &VerdictBatch { era: 1, epoch: None, decided: None, verdicts: vec![failed] });
    assert!(verdicts::remembers_otherwise(&earlier));
    let batches = [before, earlier];
    let (count, deviations) = replay(
        &mut Room::new(1, rules()),
        &[(StreamId { ms: 1, seq: 0 }, Ok(entry))],
        &batches,
        Programs::Asked,
        &|_| Err(String::new()),
        |_: &Room, _: &Verdict| {},
    )
    .expect("resolved");
    assert_eq!((count, deviations), (3, Vec::new()));
}

/// Fails where nothing but the guard of the whole job is around it.
#[derive(Default)]
struct Unwritable;

impl Rules for Unwritable {
    fn name(&self) -> &str {
        "unwritable"
    }

    fn version(&self) -> u32 {
        1
    }

    fn resolve(&mut self, _event: &crate::rules::Happening<'_>) -> crate::rules::Decision {
        crate::rules::Decision::granted()
    }

    fn snapshot(&self) -> Vec<u8> {
        panic!("as it must")
    }

    fn restore(&mut self, _version: u32, _bytes: &[u8]) -> Result<(), String> {
        Ok(())
    }
}

/// No event is void for it: none is at fault.
#[test]
fn a_job_that_panics_after_its_events_is_done() {
    let mut job = resolving(Room::new(1, Box::new(Unwritable)), Vec::new());
    job.snapshot = true;
    let stamp = Stamp { moment: Moment { timeline: 1, ns: 1 }, incarnation: Incarnation(1), ordinal: 1 };
    let session = SessionId { gateway: Incarnation(1), number: 1 };
    let kind = Some(EventKind::Open { player: PlayerId::new("ann").expect("name"), role: Role::Player });
    let at = StreamId { ms: 1, seq: 1 };
    job.events = vec![Held { at, stamp, arrival: Arrival::at(1, 0), session, kind, unreadable: None, read_ns: 0 }];
    let done = Job::Resolve(job).run();
    assert!(matches!(&done.outcome, DoneOutcome::Unloadable(why) if why.ends_with("as it must")), "{done:?}");
}

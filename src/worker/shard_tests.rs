use bytes::Bytes;

use super::super::core::{Action, Core, WorkerLimits};
use super::*;
use crate::journal::{Leased, RoomHead};
use crate::rules::{RulesBook, claim::Claim};
use crate::types::{Arrival, Audience, Entry, Event, EventKind, PlayerId, Role};

const SHARD: ShardId = ShardId(0);
const A: Incarnation = Incarnation(1);
const B: Incarnation = Incarnation(2);

fn worker() -> Core {
    let limits = WorkerLimits {
        rules: RulesBook::new().room("*", || Claim::new(Audience::Room)),
        timeline: 1,
        concurrency: 4,
        gateway_timeout_ns: 1_000_000_000,
        rejoin_window_ns: 3_000_000_000,
        probe_interval_ns: 20_000_000,
        heartbeat_interval_ns: 250_000_000,
        lease_ms: 1_000,
        room_linger_ns: 30_000_000_000,
        retention_ms: 600_000,
    };
    let mut core = Core::new(Incarnation(9), 1, limits);
    core.claimed(SHARD, Some(Leased::Done(Lease { epoch: 1, owner: Incarnation(9), server: Incarnation::NONE })), 1);
    core.subscribed(SHARD, 1);
    core
}

/// A session's Open at `ns`, as it lies in the stream.
fn open(gateway: Incarnation, ns: u64) -> Bytes {
    let kind = EventKind::Open { player: PlayerId::new("ann").expect("name"), role: Role::Player };
    let event = Event { session: 1, ordinal: 1, arrival: Arrival::at(ns, 0), kind };
    entry::encode(&Entry { incarnation: gateway, timeline: 1, death: false, events: vec![event] })
}

fn survey(append: u64, room: &RoomId, watermark_ns: u64) -> Survey {
    let record = |incarnation| GatewayRecord {
        incarnation,
        number: append,
        watermark: Moment { timeline: 1, ns: watermark_ns },
        fenced: false,
        server: Incarnation::NONE,
    };
    let head = RoomHead { room: room.clone(), era: 1, seq: 0, top: Moment::default() };
    Survey {
        server: Incarnation::NONE,
        append,
        commit: 0,
        gateways: vec![record(A), record(B)],
        active: vec![room.clone()],
        rooms: vec![head],
    }
}

/// Does the jobs; gives the other actions.
fn perform(core: &mut Core) -> Vec<Action> {
    let mut others = Vec::new();
    loop {
        let actions = core.take_actions();
        if actions.is_empty() {
            return others;
        }
        for action in actions {
            match action {
                Action::Run(job) => core.done(job.run(), 1),
                other => others.push(other),
            }
        }
    }
}

fn at(ms: u64) -> StreamId {
    StreamId { ms, seq: 0 }
}

/// The order of the events that the commit among these actions carries, by gateway.
fn committed(actions: &[Action]) -> Option<Vec<Incarnation>> {
    let commit = actions.iter().find_map(|action| if let Action::Commit(commit) = action { Some(commit) } else { None })?;
    let batch = crate::wire::verdicts::decode(&commit.rooms[0].verdicts).expect("batch");
    Some(batch.verdicts.iter().map(|v| v.stamp.incarnation).collect())
}

/// The bells of an entry were missed while its room was being read: the survey's watermark vouches for that entry too,
/// so the room is read again before anything is released.
#[test]
fn what_was_asked_for_before_a_survey_is_read_again() {
    let (mut core, room) = (worker(), RoomId::new("pit").expect("name"));
    core.surveyed(SHARD, survey(1, &room, 100), 1);
    let loads = perform(&mut core).into_iter().filter(|a| matches!(a, Action::Load { .. })).count();
    assert_eq!(loads, 1);

    // The load left the journal with B's entry only; A's came in behind it, unheard, stamped below B's.
    core.subscribed(SHARD, 2);
    core.surveyed(SHARD, survey(2, &room, 100), 2);
    let stored = StoredRoom { era: 1, entries: vec![(at(1), open(B, 50))], ..StoredRoom::default() };
    core.stored(SHARD, room.clone(), stored, 2);
    let actions = perform(&mut core);
    assert_eq!(committed(&actions), None, "released without having read what the watermark vouches for");
    assert!(actions.iter().any(|a| matches!(a, Action::Read { after, .. } if *after == at(1))), "{actions:?}");

    core.read(SHARD, &room, &[(at(2), open(A, 40))], 3);
    assert_eq!(committed(&perform(&mut core)), Some(vec![A, B]));
}

/// The same while the room is read because of an earlier survey; a bell that came meanwhile keeps its place.
#[test]
fn a_read_that_an_outdated_survey_asked_for_is_followed_by_another() {
    let (mut core, room) = (worker(), RoomId::new("pit").expect("name"));
    core.surveyed(SHARD, Survey { active: Vec::new(), ..survey(0, &room, 0) }, 1);
    core.tick(1);
    assert!(perform(&mut core).iter().any(|a| matches!(a, Action::Load { .. })));
    core.stored(SHARD, room.clone(), StoredRoom { era: 1, ..StoredRoom::default() }, 1);
    perform(&mut core);

    core.subscribed(SHARD, 2);
    core.surveyed(SHARD, survey(1, &room, 30), 2);
    core.subscribed(SHARD, 3);
    core.surveyed(SHARD, survey(2, &room, 60), 3);
    let third = Incarnation(3);
    let watermark = Moment { timeline: 1, ns: 60 };
    let entries = vec![(room.clone(), at(3), open(third, 55))];
    core.bell(Bell { shard: SHARD, append: 3, incarnation: third, number: 1, watermark, entries }, 3);
    perform(&mut core);

    core.read(SHARD, &room, &[(at(1), open(B, 50))], 4);
    let actions = perform(&mut core);
    assert_eq!(committed(&actions), None);
    assert!(actions.iter().any(|a| matches!(a, Action::Read { after, .. } if *after == at(1))), "{actions:?}");
    core.read(SHARD, &room, &[(at(2), open(A, 40)), (at(3), open(third, 55))], 5);
    assert_eq!(committed(&perform(&mut core)), Some(vec![A, B, third]));
}

/// Two surveys are under way, and bells were missed between them: the second answer counts although the first made the
/// shard live.
#[test]
fn the_second_of_two_surveys_counts() {
    let (mut core, room) = (worker(), RoomId::new("pit").expect("name"));
    core.subscribed(SHARD, 2);
    core.surveyed(
        SHARD,
        Survey { server: Incarnation::NONE, append: 0, commit: 0, gateways: Vec::new(), active: Vec::new(), rooms: Vec::new() },
        2,
    );
    assert!(!perform(&mut core).iter().any(|a| matches!(a, Action::Load { .. })));
    core.surveyed(SHARD, survey(1, &room, 60), 2);
    assert!(perform(&mut core).iter().any(|a| matches!(a, Action::Load { .. })), "a room that nobody rings for is left alone");
}

//! One shard of a worker. The test answers for the journal: surveys, reads, probes of gateways.

mod commits;
mod history;
mod hostile;
mod quarantine;
mod rejoin;
mod silence;
mod suspects;
mod timers;

use bytes::Bytes;

use super::*;
use crate::engine::RULES_FAILED;
use crate::journal::{
    Committed, GatewayRecord, JournalError, Leased, Place, RoomHead, RoomsPage, RoomsPlace, StoredPage, StoredRoom, Witness,
};
use crate::limits::Bounds;
use crate::rules::NoLibrary;
use crate::rules::{RulesBook, claim::Claim};
use crate::types::{Arrival, Audience, Entry, Event, EventKind, HostId, PlayerId, Role, StreamId};
use crate::wire::push;
use crate::worker::core::Core;
use crate::worker::step::{Failure, Input, Scope, WorkerLimits};

const SHARD: ShardId = ShardId(0);
const LEASE: Lease = Lease { epoch: 1, owner: Incarnation(9), server: Incarnation::NONE, home: 1 };
const A: Incarnation = Incarnation(1);
const B: Incarnation = Incarnation(2);

pub(in crate::worker) fn limits() -> WorkerLimits {
    WorkerLimits {
        bounds: Bounds::default(),
        rules: RulesBook::new().room("*", || Claim::new(Audience::Room)),
        library: Arc::new(NoLibrary),
        epoch_ns: 0,
        concurrency: 4,
        gateway_timeout_ns: 1_000_000_000,
        deaf_timeout_ns: 250_000_000,
        rejoin_window_ns: 3_000_000_000,
        probe_interval_ns: 20_000_000,
        look_after_ns: 20_000_000,
        look_interval_ns: 50_000_000,
        commits_may_be_lost: true,
        host: HostId::new("here").expect("a name"),
        rehome_after_ns: 2 * 1_000_000_000,
        heartbeat_interval_ns: 250_000_000,
        lease_ms: 1_000,
        room_linger_ns: 30_000_000_000,
        retention_ms: 600_000,
    }
}

fn worker() -> Core {
    worker_limited(|_| {})
}

fn worker_limited(limit: impl FnOnce(&mut WorkerLimits)) -> Core {
    let mut limits = limits();
    limit(&mut limits);
    let mut core = Core::new(Incarnation(9), 1, limits);
    core.apply(Input::Claimed(SHARD, Some(Leased::Done(LEASE))), 1);
    core.apply(Input::Subscribed(SHARD), 1);
    core
}

/// The commit is final.
fn done(core: &mut Core, commit: &Commit, now_ns: u64) {
    let answer = Committed::Done;
    core.apply(Input::Committed { shard: SHARD, lease: commit.lease, number: commit.number, answer }, now_ns);
}

/// The gateway is fenced.
fn fenced(core: &mut Core, incarnation: Incarnation, now_ns: u64) {
    let (watermark, server) = (Moment::default(), Incarnation::NONE);
    let record = GatewayRecord { incarnation, number: 1, watermark, fenced: true, server };
    core.apply(Input::Fenced { shard: SHARD, lease: LEASE, answer: Leased::Done(record) }, now_ns);
}

/// A session's Open at `ns`, as it lies in the stream.
fn open(gateway: Incarnation, ns: u64) -> Bytes {
    let kind = EventKind::Open { player: PlayerId::new("ann").expect("name"), role: Role::Player };
    let event = Event { session: 1, ordinal: 1, arrival: Arrival::at(ns, 0), kind };
    entry::encode(&Entry { incarnation: gateway, timeline: 1, death: false, events: vec![event] })
}

/// An unreadable action of that session, at `ns`.
fn again(gateway: Incarnation, ns: u64) -> Bytes {
    let event = Event { session: 1, ordinal: 2, arrival: Arrival::at(ns, 0), kind: EventKind::Data(Bytes::new()) };
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
        doubt: None,
        gateways: vec![record(A), record(B)],
        damaged_gateways: Vec::new(),
        damaged_rooms: Vec::new(),
        due: Vec::new(),
        active: vec![room.clone()],
        rooms: vec![head],
        next: None,
    }
}

/// Runs the jobs, and answers probes as if the gateways received them. Returns the other commands.
fn perform(core: &mut Core) -> Vec<Command> {
    let mut others = Vec::new();
    loop {
        let commands = core.take_commands();
        if commands.is_empty() {
            return others;
        }
        for command in commands {
            match command {
                Command::Run(job) => core.apply(Input::Done(job.run()), 1),
                Command::Publish { shard, gateway, push, answer: true } => {
                    core.apply(Input::Published(shard, gateway, 1), 1);
                    others.push(Command::Publish { shard, gateway, push, answer: true });
                }
                other => others.push(other),
            }
        }
    }
}

fn at(ms: u64) -> StreamId {
    StreamId { ms, seq: 0 }
}

/// The gateways of the verdicts in the commit among these commands, in order.
fn committed(commands: &[Command]) -> Option<Vec<Incarnation>> {
    let commit = commands.iter().find_map(|command| if let Command::Commit(commit) = command { Some(commit) } else { None })?;
    let batch = crate::wire::verdicts::decode(&commit.rooms[0].verdicts).expect("batch");
    Some(batch.verdicts.iter().map(|v| v.stamp.incarnation).collect())
}

/// The bell of an entry was missed while its room was being loaded. The survey's watermark vouches for that entry, too, so the room
/// is read again before anything is released.
#[test]
fn what_was_asked_for_before_a_survey_is_read_again() {
    let (mut core, room) = (worker(), RoomId::new("pit").expect("name"));
    core.apply(Input::Surveyed(SHARD, survey(1, &room, 100)), 1);
    let loads = perform(&mut core).into_iter().filter(|a| matches!(a, Command::Load { .. })).count();
    assert_eq!(loads, 1);

    // The load left the journal with B's entry only; A's came in behind it, unheard, stamped below B's.
    core.apply(Input::Subscribed(SHARD), 2);
    core.apply(Input::Surveyed(SHARD, survey(2, &room, 100)), 2);
    let stored = StoredRoom { era: 1, entries: vec![(at(1), open(B, 50))], ..StoredRoom::default() };
    core.stored_room(SHARD, room.clone(), stored, 2);
    let commands = perform(&mut core);
    assert_eq!(committed(&commands), None, "released without having read what the watermark vouches for");
    assert!(commands.iter().any(|a| matches!(a, Command::Read { after, .. } if *after == at(1))), "{commands:?}");

    core.read_entries(SHARD, &room, &[(at(2), open(A, 40))], 3);
    assert_eq!(committed(&perform(&mut core)), Some(vec![A, B]));
}

/// The same while the room is read because of an earlier survey. A bell that rang meanwhile keeps its place.
#[test]
fn a_read_that_an_outdated_survey_asked_for_is_followed_by_another() {
    let (mut core, room) = (worker(), RoomId::new("pit").expect("name"));
    core.apply(Input::Surveyed(SHARD, Survey { active: Vec::new(), ..survey(0, &room, 0) }), 1);
    core.apply(Input::Tick, 1);
    assert!(perform(&mut core).iter().any(|a| matches!(a, Command::Load { .. })));
    core.stored_room(SHARD, room.clone(), StoredRoom { era: 1, ..StoredRoom::default() }, 1);
    perform(&mut core);

    core.apply(Input::Subscribed(SHARD), 2);
    core.apply(Input::Surveyed(SHARD, survey(1, &room, 30)), 2);
    core.apply(Input::Subscribed(SHARD), 3);
    core.apply(Input::Surveyed(SHARD, survey(2, &room, 60)), 3);
    let third = Incarnation(3);
    let watermark = Moment { timeline: 1, ns: 60 };
    let entries = vec![(room.clone(), at(3), open(third, 55))];
    core.apply(
        Input::Bell(Bell { shard: SHARD, append: 3, incarnation: third, number: 1, watermark, entries, poked: vec![] }),
        3,
    );
    perform(&mut core);

    core.read_entries(SHARD, &room, &[(at(1), open(B, 50))], 4);
    let commands = perform(&mut core);
    assert_eq!(committed(&commands), None);
    assert!(commands.iter().any(|a| matches!(a, Command::Read { after, .. } if *after == at(1))), "{commands:?}");
    core.read_entries(SHARD, &room, &[(at(2), open(A, 40)), (at(3), open(third, 55))], 5);
    assert_eq!(committed(&perform(&mut core)), Some(vec![A, B, third]));
}

/// Two surveys are in flight, and bells were missed between them. The second answer counts, although the first made the shard live.
#[test]
fn the_second_of_two_surveys_counts() {
    let (mut core, room) = (worker(), RoomId::new("pit").expect("name"));
    core.apply(Input::Subscribed(SHARD), 2);
    let empty = Survey { gateways: Vec::new(), active: Vec::new(), rooms: Vec::new(), ..survey(0, &room, 0) };
    core.apply(Input::Surveyed(SHARD, empty), 2);
    assert!(!perform(&mut core).iter().any(|a| matches!(a, Command::Load { .. })));
    core.apply(Input::Surveyed(SHARD, survey(1, &room, 60)), 2);
    assert!(perform(&mut core).iter().any(|a| matches!(a, Command::Load { .. })), "a room that nobody rings for is left alone");
}

/// A worker with A and B inside the room. Everything up to a watermark of 100 is resolved and committed.
fn two_inside() -> (Core, RoomId, Vec<Command>) {
    let (mut core, room) = (worker(), RoomId::new("pit").expect("name"));
    core.apply(Input::Surveyed(SHARD, survey(2, &room, 100)), 1);
    perform(&mut core);
    let entries = vec![(at(1), open(A, 40)), (at(2), open(B, 50))];
    core.stored_room(SHARD, room.clone(), StoredRoom { era: 1, entries, ..StoredRoom::default() }, 1);
    let commands = perform(&mut core);
    (core, room, commands)
}

fn bell(append: u64, room: &RoomId, ns: u64, poked: Vec<Incarnation>) -> Bell {
    let kind = EventKind::End { code: 1000 };
    let event = Event { session: 1, ordinal: append, arrival: Arrival::at(ns, 0), kind };
    let bytes = entry::encode(&Entry { incarnation: A, timeline: 1, death: false, events: vec![event] });
    let watermark = Moment { timeline: 1, ns: ns + 10 };
    Bell {
        shard: SHARD,
        append,
        incarnation: A,
        number: append,
        watermark,
        entries: vec![(room.clone(), at(append), bytes)],
        poked,
    }
}

/// The gateways that these commands probe.
fn asked(commands: &[Command]) -> Vec<Incarnation> {
    let ask = |command: &Command| match command {
        Command::Publish { gateway, push, .. } => {
            let probe = matches!(push::decode(push), Ok(push::Push::Probe { .. }));
            probe.then_some(*gateway)
        }
        _ => None,
    };
    commands.iter().filter_map(ask).collect()
}

/// The worker probes a gateway that the append has probed only if no answer comes (rule R4).
#[test]
fn what_an_append_asked_is_asked_again_only_after_the_interval() {
    let (mut core, room, _) = two_inside();
    core.apply(Input::Bell(bell(3, &room, 200, vec![])), 1_000);
    assert_eq!(asked(&perform(&mut core)), [B], "nobody else did");

    let (mut core, room, _) = two_inside();
    core.apply(Input::Bell(bell(3, &room, 200, vec![B])), 1_000);
    core.apply(Input::Tick, 19_000_000);
    assert_eq!(asked(&perform(&mut core)), []);
    core.apply(Input::Tick, 21_000_000);
    assert_eq!(asked(&perform(&mut core)), [B], "the append's question was lost");
}

/// A commit tells the journal which gateways are inside when that has changed; none, if there is only one.
#[test]
fn a_commit_tells_who_is_inside_when_that_changed() {
    let told = |commands: &[Command]| {
        let commit = commands.iter().find_map(|a| if let Command::Commit(commit) = a { Some(commit.clone()) } else { None });
        commit.expect("a commit").rooms[0].gateways.clone()
    };
    let (mut core, room, commands) = two_inside();
    assert_eq!(told(&commands), Some(vec![A, B]));
    core.apply(Input::Committed { shard: SHARD, lease: LEASE, number: 1, answer: Committed::Done }, 2);
    core.apply(
        Input::Bell(Bell {
            watermark: Moment { timeline: 1, ns: 300 },
            incarnation: B,
            entries: vec![],
            ..bell(3, &room, 290, vec![])
        }),
        2,
    );
    core.apply(Input::Bell(bell(4, &room, 200, vec![])), 2);
    assert_eq!(told(&perform(&mut core)), None);
    core.apply(Input::Committed { shard: SHARD, lease: LEASE, number: 2, answer: Committed::Done }, 3);
    let kind = EventKind::Close;
    let event = Event { session: 1, ordinal: 2, arrival: Arrival::at(290, 0), kind };
    let bytes = entry::encode(&Entry { incarnation: B, timeline: 1, death: false, events: vec![event] });
    core.apply(
        Input::Bell(Bell { incarnation: B, entries: vec![(room.clone(), at(5), bytes)], ..bell(5, &room, 290, vec![]) }),
        3,
    );
    core.apply(Input::Bell(Bell { entries: vec![], ..bell(6, &room, 290, vec![]) }), 3);
    assert_eq!(told(&perform(&mut core)), Some(vec![]));
}

const MINUTE_NS: u64 = 60_000_000_000;

/// Ticks until `to_ns` with gateways that are gone. Returns how many fences were asked for, and who was forgotten.
fn tick_until(core: &mut Core, from_ns: u64, to_ns: u64) -> (usize, Vec<Incarnation>) {
    let (mut fences, mut forgotten) = (0, Vec::new());
    for now in (from_ns..to_ns).step_by(20_000_000) {
        core.apply(Input::Tick, now);
        for command in perform(core) {
            match command {
                Command::Fence { gateway, .. } => {
                    fences += 1;
                    fenced(core, gateway, now);
                }
                Command::Forget { shard, lease, gateways } => {
                    core.apply(Input::Forgotten { shard, lease, gateways: gateways.clone(), answer: Leased::Done(()) }, now);
                    forgotten.extend(gateways);
                }
                _ => {}
            }
        }
    }
    (fences, forgotten)
}

/// Gateways that stopped with nobody inside any room are fenced and forgotten, once.
#[test]
fn gateways_that_are_gone_are_forgotten() {
    let (mut core, room) = (worker(), RoomId::new("pit").expect("name"));
    perform(&mut core);
    core.apply(Input::Surveyed(SHARD, Survey { active: Vec::new(), rooms: Vec::new(), ..survey(1, &room, 100) }), 1);
    assert_eq!(tick_until(&mut core, 1, MINUTE_NS), (0, Vec::new()), "one that has nothing to say is left alone");
    let (fences, mut forgotten) = tick_until(&mut core, MINUTE_NS, 5 * MINUTE_NS);
    forgotten.sort_unstable();
    assert_eq!((fences, forgotten), (2, vec![A, B]));
}

/// A room that is not loaded may have a gateway inside: no gateway is forgotten before.
#[test]
fn nobody_is_forgotten_while_a_room_is_not_loaded() {
    let (mut core, room) = (worker(), RoomId::new("pit").expect("name"));
    perform(&mut core);
    core.apply(Input::Surveyed(SHARD, survey(1, &room, 100)), 1);
    let (fences, forgotten) = tick_until(&mut core, 1, 5 * MINUTE_NS);
    assert_eq!((fences, forgotten), (2, Vec::new()));
}

/// A dead gateway is not forgotten while its sessions are in a room.
#[test]
fn a_gateway_that_a_room_knows_is_not_forgotten() {
    let (mut core, room) = (worker(), RoomId::new("pit").expect("name"));
    perform(&mut core);
    core.apply(Input::Surveyed(SHARD, survey(1, &room, 100)), 1);
    perform(&mut core);
    let stored = StoredRoom { era: 1, entries: vec![(at(1), open(A, 50))], ..StoredRoom::default() };
    core.stored_room(SHARD, room.clone(), stored, 1);
    // The death that the worker writes for it is never heard of, but answered.
    let (mut forgotten, mut deaths) = (Vec::new(), 0);
    for now in (1..5 * MINUTE_NS).step_by(20_000_000) {
        core.apply(Input::Tick, now);
        for command in perform(&mut core) {
            match command {
                Command::Fence { gateway, .. } => fenced(&mut core, gateway, now),
                Command::Death { shard, .. } => {
                    deaths += 1;
                    core.apply(Input::DeathWritten(shard, Leased::Done(())), now);
                }
                Command::Commit(commit) => done(&mut core, &commit, now),
                Command::Forget { gateways, .. } => forgotten.extend(gateways),
                _ => {}
            }
        }
    }
    forgotten.dedup();
    assert_eq!((deaths, forgotten), (1, vec![B]));
}

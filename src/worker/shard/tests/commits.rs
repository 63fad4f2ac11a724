//! What a commit carries.

use super::*;
use crate::limits::{BODY_BYTES_MAX, COMMIT_BYTES_MAX};
use crate::rules::{Decision, Happening, Rules};
use crate::types::Action;
use crate::wire::{action, verdicts};

/// Rules whose bodies are as large as they may be.
struct Talker;

impl Rules for Talker {
    fn name(&self) -> &'static str {
        "talker"
    }

    fn version(&self) -> u32 {
        1
    }

    fn resolve(&mut self, _event: &Happening<'_>) -> Decision {
        Decision::granted().body(&"x".repeat(BODY_BYTES_MAX - 16))
    }

    fn snapshot(&self) -> Vec<u8> {
        Vec::new()
    }

    fn restore(&mut self, _version: u32, _bytes: &[u8]) -> Result<(), String> {
        Ok(())
    }
}

/// A room with this many events of each of two gateways.
fn busy_room(events: u64) -> StoredRoom {
    let of = |gateway: Incarnation| {
        let kind = |ordinal| match ordinal {
            1 => EventKind::Open { player: PlayerId::new("ann").expect("name"), role: Role::Player },
            _ => EventKind::Data(action::encode(&Action {
                op: "say".to_owned(),
                id: format!("i{ordinal}"),
                contest: None,
                player: None,
                seen: None,
                args: Bytes::from_static(&[0xc0]),
            })),
        };
        let event = |n| Event { session: 1, ordinal: n, arrival: Arrival::at(n, 0), kind: kind(n) };
        entry::encode(&Entry { incarnation: gateway, timeline: 1, death: false, events: (1..=events).map(event).collect() })
    };
    StoredRoom { era: 1, entries: vec![(at(1), of(A)), (at(2), of(B))], ..StoredRoom::default() }
}

/// Rooms with large results are taken over at once. The verdicts leave in several commits, each room's in order, and all are pushed.
#[test]
fn commits_and_pushes_are_bounded_in_bytes() {
    let mut core = worker_limited(|limits| limits.rules = RulesBook::new().room("*", || Talker));
    let rooms: Vec<RoomId> = (0..4).map(|i| RoomId::new(&format!("room-{i}")).expect("name")).collect();
    core.apply(Input::Surveyed(SHARD, Survey { active: rooms.clone(), ..survey(1, &rooms[0], 1_000) }), 1);
    for room in &rooms {
        core.stored_room(SHARD, room.clone(), busy_room(300), 1);
    }
    let mut committed: BTreeMap<RoomId, Vec<u64>> = BTreeMap::new();
    let mut pushed: BTreeMap<(Incarnation, RoomId), u64> = BTreeMap::new();
    let mut largest = 0;
    loop {
        let commands = perform(&mut core);
        let commits: Vec<_> =
            commands.iter().filter_map(|a| if let Command::Commit(commit) = a { Some(commit) } else { None }).collect();
        if commits.is_empty() {
            break;
        }
        for commit in commits {
            let parts: usize = commit.rooms.iter().map(|r| r.verdicts.len()).sum();
            let pushes: usize = commit.pushes.iter().map(|(_, push)| push.len()).sum();
            largest = largest.max(parts + pushes);
            for part in &commit.rooms {
                let seqs = committed.entry(part.room.clone()).or_default();
                assert_eq!(part.from, seqs.last().copied().unwrap_or(0), "in order");
                seqs.extend(verdicts::decode(&part.verdicts).expect("batch").verdicts.iter().map(|v| v.seq));
                assert_eq!(part.to, *seqs.last().expect("verdicts"));
                assert_eq!(part.cursor == at(2), part.to == 600, "what is not final yet is read again by the next owner");
            }
            for (gateway, bytes) in &commit.pushes {
                let Ok(push::Push::Verdicts { rooms, .. }) = push::decode(bytes) else { panic!("not verdicts") };
                for part in rooms {
                    let seen = pushed.insert((*gateway, part.room), part.to).unwrap_or(0);
                    assert_eq!(part.from, seen, "nothing between two pushes");
                }
            }
            done(&mut core, commit, 1);
        }
    }
    assert!(committed.values().all(|seqs| seqs.iter().copied().eq(1..=600)) && committed.len() == rooms.len());
    assert!(pushed.values().all(|to| *to == 600) && pushed.len() == 2 * rooms.len());
    assert!((COMMIT_BYTES_MAX..2 * COMMIT_BYTES_MAX).contains(&largest), "{largest}");
}

/// The journal refuses one room of a commit. The verdicts of the other rooms are pushed all the same, and none of that room's.
#[test]
fn a_refused_room_takes_no_others_pushes_with_it() {
    let rooms: Vec<RoomId> = ["bad", "good"].iter().map(|name| RoomId::new(name).expect("name")).collect();
    let mut core = worker();
    core.apply(Input::Surveyed(SHARD, Survey { active: rooms.clone(), ..survey(1, &rooms[0], 1_000) }), 1);
    for room in &rooms {
        core.stored_room(SHARD, room.clone(), busy_room(2), 1);
    }
    let commit = |commands: Vec<Command>| {
        let mut commits = commands.into_iter().filter_map(|a| if let Command::Commit(commit) = a { Some(commit) } else { None });
        commits.next().expect("a commit")
    };
    let pushed = |commit: &Commit| -> BTreeMap<Incarnation, Vec<push::RoomPush>> {
        let parts = commit.pushes.iter().map(|(gateway, bytes)| match push::decode(bytes) {
            Ok(push::Push::Verdicts { rooms, commit: number, .. }) if number == commit.number => (*gateway, rooms),
            other => panic!("{other:?}"),
        });
        parts.collect()
    };
    let whole = commit(perform(&mut core));
    let mut expected = pushed(&whole);
    assert!(expected.len() == 2 && expected.values().all(|parts| parts.len() == 2), "{expected:?}");
    core.apply(
        Input::Committed {
            shard: SHARD,
            lease: whole.lease,
            number: whole.number,
            answer: Committed::Refused(vec![rooms[0].clone()]),
        },
        1,
    );
    let rest = commit(core.take_commands());
    assert_eq!((rest.number, rest.rooms.len()), (whole.number, 1));
    expected.values_mut().for_each(|parts| parts.retain(|part| part.room == rooms[1]));
    assert_eq!(pushed(&rest), expected);
}

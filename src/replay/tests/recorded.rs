//! Rooms that earlier versions played and recorded: this version reads, replays and continues them.
//!
//! `tests/recorded` holds what `lasthit dump` wrote of rooms that clients played through two gateways and a worker:
//! `quiz-1` (claim; repeats, named players, a snapshot in its middle), `quiz-2` (claim; without a snapshot), `baron-pit` (last_hit;
//! sessions join while the state changes) and `pit-3` (last_hit; its beginning was trimmed). Of entry version 2, verdict batch version
//! 3 and snapshot version 4 are `quiz-3` (claim; repeats, a named player, a snapshot in its middle), `pit-4` (last_hit) and `quiz-4`
//! (claim; one of its gateways was killed). All are dumps of version 2. A version that changes a stored form leaves these as they are
//! and adds its own.

use std::path::{Path, PathBuf};

use crate::engine::Held;
use crate::replay::*;
use crate::rules::{Claim, LastHit};
use crate::types::{Arrival, Audience, EventKind, Incarnation, Moment, Outcome, Role, SessionId, Stamp, VerdictBatch};

pub(super) fn book() -> RulesBook {
    RulesBook::new().room("quiz-*", || Claim::new(Audience::Room)).room("*", LastHit::new)
}

pub(super) fn recorded() -> Vec<(PathBuf, Recording)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded");
    let mut files: Vec<_> = std::fs::read_dir(dir).expect("directory").map(|file| file.expect("file").path()).collect();
    files.sort();
    let rooms: Vec<_> = files.into_iter().map(|path| (path.clone(), dump::read(&path).expect("a dump"))).collect();
    assert!(rooms.len() >= 7, "{rooms:?}");
    rooms
}

/// The state that a worker begins with: that of the snapshot, or none.
fn begun(recording: &Recording) -> Room {
    let rules = book().rules_for(&recording.room).expect("rules");
    match &recording.snapshot {
        Some(snapshot) => Room::restore(&snapshot.bytes, rules).expect("restored"),
        None => Room::new(recording.era, rules),
    }
}

/// Brings `room` up to the end of the record. What it said on the way.
fn replayed(recording: &Recording, room: &mut Room) -> Vec<Verdict> {
    let entries: Vec<_> = recording.entries.iter().map(|(at, bytes)| (*at, entry::decode(bytes))).collect();
    let mut said = Vec::new();
    let seen = |_: &Room, verdict: &Verdict| said.push(verdict.clone());
    let (_, deviations) =
        worker::replay(room, &entries, &recording.verdicts, worker::Programs::Asked, &|_| Err(String::new()), seen)
            .expect("brought back");
    assert_eq!((deviations, room.seq()), (Vec::new(), recording.seq), "{}", recording.room);
    said
}

#[test]
fn rooms_of_earlier_versions_come_out_the_same() {
    for (path, recording) in recorded() {
        let replayed = recording.resolve(&book()).expect("resolved");
        assert_eq!(replayed.deviations, Vec::<String>::new(), "{path:?}");
        assert!(replayed.verdicts > 0 && replayed.to == recording.seq, "{path:?}: {replayed:?}");
    }
}

/// From its beginning and from its snapshot, each batch comes out as the bytes that are recorded.
#[test]
fn rooms_of_the_last_version_come_out_byte_for_byte() {
    let (mut batches, mut dead) = (0, 0);
    for (path, recording) in recorded() {
        let first = recording.decode_verdicts().expect("verdicts").first().map(|first| first.seq);
        let from_the_beginning =
            (first == Some(1)).then(|| Room::new(recording.era, book().rules_for(&recording.room).expect("rules")));
        for mut room in from_the_beginning.into_iter().chain([begun(&recording)]) {
            let mut said = replayed(&recording, &mut room).into_iter().peekable();
            for bytes in &recording.verdicts {
                let batch = verdicts::decode(bytes).expect("a batch");
                let covered = |verdict: &Verdict| batch.verdicts.iter().any(|recorded| recorded.seq == verdict.seq);
                let again: Vec<Verdict> = std::iter::from_fn(|| said.next_if(covered)).collect();
                // Version 2 wrote bodies otherwise. The snapshot may lie within a batch.
                if bytes[0] == 3 && again.len() == batch.verdicts.len() {
                    let again = VerdictBatch { verdicts: again, ..batch };
                    assert_eq!(verdicts::encode_earlier(3, &again), bytes, "{path:?}");
                    batches += 1;
                }
            }
            assert_eq!(said.next(), None, "{path:?}");
        }
        dead += recording.entries.iter().filter(|(_, bytes)| entry::decode(bytes).expect("an entry").death).count();
    }
    assert!(batches > 300 && dead > 0, "{batches} batches, {dead} deaths");
}

/// A worker takes the room over from its snapshot, a player's last action is sent again, and the room is saved and brought back.
#[test]
fn rooms_of_earlier_versions_are_continued() {
    for (path, recording) in recorded() {
        let rules = || book().rules_for(&recording.room).expect("rules");
        let mut room = begun(&recording);
        replayed(&recording, &mut room);
        let all = recording.decode_verdicts().expect("verdicts");
        let last = all.iter().rev().find(|v| v.kind == VerdictKind::Data && v.outcome == Outcome::Granted).expect("an action");
        let (player, id) = (last.player.clone().expect("a player"), last.id.clone().expect("an id"));

        let session = SessionId { gateway: Incarnation(u128::MAX), number: 1 };
        let ns = all.last().map_or(0, |v| v.stamp.moment.ns) + 1;
        let held = |ordinal: u64, kind| {
            let arrival = Arrival::at(ns + ordinal, 0);
            let moment = Moment { timeline: last.stamp.moment.timeline, ns: arrival.ns };
            let stamp = Stamp { moment, incarnation: session.gateway, ordinal };
            let at = StreamId { ms: u64::MAX, seq: ordinal };
            Held { at, stamp, arrival, session, kind: Some(kind), unreadable: None, read_ns: 0 }
        };
        room.resolve(&held(1, EventKind::Open { player, role: Role::Player }), None);
        let mut again = Room::restore(&room.snapshot(), rules()).expect("restored");
        let action = crate::types::Action {
            op: "any".to_owned(),
            id,
            contest: None,
            player: None,
            seen: None,
            args: Bytes::from_static(&[0xc0]),
        };
        let repeat = held(2, EventKind::Data(crate::wire::action::encode(&action)));
        let verdict = room.resolve(&repeat, None);
        assert_eq!(verdict.outcome, Outcome::Repeat { of: last.seq }, "{path:?}");
        assert_eq!(again.resolve(&repeat, None), verdict, "{path:?}");
        assert_eq!(again.snapshot(), room.snapshot(), "{path:?}");
    }
}

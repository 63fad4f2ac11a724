//! Rooms that earlier versions played and recorded: this version reads, replays and continues them.
//!
//! `tests/recorded` holds what `lasthit dump` wrote of rooms that clients played through two gateways and a worker:
//! `quiz-1` (claim; repeats, named players, a snapshot in its middle), `quiz-2` (claim; without a snapshot), `baron-pit` (last_hit;
//! sessions join while the state changes) and `pit-3` (last_hit; its beginning was trimmed). A version that changes a stored form
//! leaves these as they are and adds its own.

use std::path::{Path, PathBuf};

use crate::engine::Held;
use crate::replay::*;
use crate::rules::{Claim, LastHit};
use crate::types::{Arrival, Audience, EventKind, Incarnation, Moment, Outcome, Role, SessionId, Stamp};

fn book() -> RulesBook {
    RulesBook::new().room("quiz-*", || Claim::new(Audience::Room)).room("*", LastHit::new)
}

fn recorded() -> Vec<(PathBuf, Recording)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded");
    let mut files: Vec<_> = std::fs::read_dir(dir).expect("directory").map(|file| file.expect("file").path()).collect();
    files.sort();
    let rooms: Vec<_> = files.into_iter().map(|path| (path.clone(), dump::read(&path).expect("a dump"))).collect();
    assert!(rooms.len() >= 4, "{rooms:?}");
    rooms
}

#[test]
fn rooms_of_earlier_versions_come_out_the_same() {
    for (path, recording) in recorded() {
        let replayed = recording.resolve(&book()).expect("resolved");
        assert_eq!(replayed.deviations, Vec::<String>::new(), "{path:?}");
        assert!(replayed.verdicts > 0 && replayed.to == recording.seq, "{path:?}: {replayed:?}");
    }
}

/// A worker takes the room over from its snapshot, a player's last action is sent again, and the room is saved and brought back.
#[test]
fn rooms_of_earlier_versions_are_continued() {
    for (path, recording) in recorded() {
        let rules = || book().rules_for(&recording.room).expect("rules");
        let mut room = match &recording.snapshot {
            Some(snapshot) => Room::restore(&snapshot.bytes, rules()).expect("restored"),
            None => Room::new(recording.era, rules()),
        };
        let entries: Vec<_> = recording.entries.iter().map(|(at, bytes)| (*at, entry::decode(bytes))).collect();
        let (_, deviations) = worker::replay(&mut room, &entries, &recording.verdicts, |_, _| {}).expect("brought back");
        assert_eq!((deviations, room.seq()), (Vec::new(), recording.seq), "{path:?}");
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

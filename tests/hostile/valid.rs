//! Good bytes of every kind, to be spoiled.

use ::bytes::Bytes;
use lasthit::internals::engine::{Held, Resequencer, Room};
use lasthit::internals::wire::push::{Push, RoomPush};
use lasthit::internals::wire::{action, entry, push, verdicts};
use lasthit::rules::{Claim, LastHit, Rules};
use lasthit::types::{
    Action, Arrival, Audience, Entry, Event, EventKind, Home, HostId, Incarnation, Moment, PlayerId, Role, RoomId, ShardId,
    StreamId, Verdict, VerdictBatch,
};
use serde_json::json;

pub(crate) fn rules(last_hit: bool) -> Box<dyn Rules> {
    if last_hit { Box::new(LastHit::new()) } else { Box::new(Claim::new(Audience::Room)) }
}

pub(crate) fn act(op: &str, id: &str, args: &serde_json::Value) -> Bytes {
    let args = Bytes::from(rmp_serde::to_vec_named(args).expect("args"));
    let player = Some(PlayerId::new("bob").expect("name"));
    action::encode(&Action { op: op.to_owned(), id: id.to_owned(), contest: Some("baron".to_owned()), player, seen: None, args })
}

pub(crate) fn entries() -> Vec<Entry> {
    let name = |name| PlayerId::new(name).expect("name");
    let kinds = [
        EventKind::Open { player: name("ann"), role: Role::Server },
        EventKind::Data(act("spawn", "1", &json!({"hp": 3}))),
        EventKind::Data(act("claim", "2", &json!(null))),
        EventKind::Data(act("hit", "3", &json!({"damage": 5, "more": ["deep", {"er": 1.5}]}))),
        EventKind::Data(act("hit", "3", &json!({"damage": 1}))),
        EventKind::End { code: 1000 },
        EventKind::Error { reason: "lost".to_owned() },
        EventKind::Close,
    ];
    let event = |(n, kind): (usize, EventKind)| {
        let arrival = Arrival { raw_ns: (n % 2 == 0).then_some(n as u64), ..Arrival::at(1_000 + n as u64, 7) };
        Event { session: 1, ordinal: n as u64 + 1, arrival, kind }
    };
    let events: Vec<Event> = kinds.into_iter().enumerate().map(event).collect();
    let dead = Event {
        session: 2,
        ordinal: 9,
        arrival: Arrival { raw_ns: Some(5_000), ..Arrival::at(2_000, 0) },
        kind: EventKind::Close,
    };
    vec![
        Entry { incarnation: Incarnation(7), timeline: 1, death: false, events },
        Entry { incarnation: Incarnation(7), timeline: 1, death: true, events: vec![dead] },
    ]
}

/// Everything that these entries hold, as a worker reads it.
pub(crate) fn held(entries: &[Entry]) -> Vec<Held> {
    let mut hold = Resequencer::default();
    for (n, entry) in entries.iter().enumerate() {
        hold.read(StreamId { ms: n as u64, seq: 0 }, entry, Moment::default(), 0);
        let _ = hold.waits_for(None, |_| Moment::default());
    }
    let _ = hold.cursor(StreamId::default());
    hold.release(usize::MAX, |_| Moment { timeline: u32::MAX, ns: u64::MAX })
}

/// A room that has seen `held`, and what it said.
pub(crate) fn resolved(held: &[Held], last_hit: bool) -> (Room, Vec<Verdict>) {
    let mut room = Room::new(1, rules(last_hit));
    let verdicts = held.iter().map(|held| room.resolve(held, None)).collect();
    (room, verdicts)
}

pub(crate) fn batch() -> VerdictBatch {
    VerdictBatch { epoch: None, decided: None, era: 1, verdicts: resolved(&held(&entries()), true).1 }
}

/// One of each, by name.
pub(crate) fn all() -> Vec<(&'static str, Bytes)> {
    let held = held(&entries());
    let room = RoomId::new("pit").expect("name");
    let part = RoomPush { room: room.clone(), from: 0, to: batch().verdicts.len() as u64, batch: batch() };
    let host = HostId::new("boot/time:[1]").expect("name");
    let pushes = [
        Push::Verdicts { shard: ShardId(1), server: Incarnation(7), commit: 3, rooms: vec![part] },
        Push::Probe { shard: ShardId(1), until: Moment { timeline: 1, ns: 9 } },
        Push::Free { shard: ShardId(3) },
        Push::Heads { shard: ShardId(0), server: Incarnation(7), rooms: vec![(room, 1, 2)] },
        Push::Moving { shard: ShardId(1), number: 5, host: host.clone(), url: "wss://b.example".to_owned(), within_ms: 900 },
        Push::Home { shard: ShardId(1), home: Home { number: 6, host: host.clone(), address: "wss://b.example".to_owned() } },
        Push::Give { shard: ShardId(1), host },
    ];
    let mut all = vec![("action", act("hit", "1", &json!({"damage": 1}))), ("verdicts", verdicts::encode(&batch()))];
    all.extend(entries().iter().map(|e| ("entry", entry::encode(e))));
    all.extend(pushes.iter().map(|p| ("push", push::encode(p))));
    for last_hit in [true, false] {
        // Before the session left, and behind it.
        for seen in [&held[..5], &held[..]] {
            all.push(("snapshot", resolved(seen, last_hit).0.snapshot()));
        }
    }
    let mut claims = Claim::new(Audience::Room);
    let saved: (Vec<&str>, Vec<(&str, usize)>) = (vec!["ann", "bob"], vec![("a", 0), ("b", 1)]);
    let state = rmp_serde::to_vec(&saved).expect("state");
    claims.restore(1, &state).expect("a state");
    all.push(("claims", state.into()));
    let saved = vec![("baron", 0_u64, 9_u64, 2_u64, Some("ann")), ("drake", 3, 5, 1, None)];
    let state = rmp_serde::to_vec(&saved).expect("state");
    LastHit::new().restore(1, &state).expect("a state");
    all.push(("targets", state.into()));
    let client = json!({"op": "hit", "id": "1", "contest": "baron", "args": {"damage": 1, "list": [1, [2.5, null], "x"]}});
    all.push(("json", client.to_string().into()));
    all.push(("msgpack", rmp_serde::to_vec_named(&client).expect("encoded").into()));
    all
}

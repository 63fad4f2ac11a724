use super::*;
use crate::rules::LastHit;
use crate::types::{EventKind, PlayerId, Role, SessionId};

/// Sessions join through two gateways: each gateway is told what its own sessions find, and that the others joined.
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
    let job = Resolving {
        shard: ShardId(0),
        epoch: 1,
        lane: 1,
        id: RoomId::new("pit").expect("name"),
        room: Box::new(Room::new(1, Box::new(LastHit::new()))),
        events: vec![event(1, one), event(2, other), event(3, one)],
        poisoned: BTreeSet::new(),
        snapshot: false,
        watched: false,
        bytes_max: 1 << 20,
    };
    let DoneOutcome::Resolved(_, parts) = Job::Resolve(job).run().outcome else { panic!("resolved") };
    let resolved = parts.front().expect("one part");
    let bodies = |bytes: &Bytes| -> Vec<bool> {
        verdicts::decode(bytes).expect("a batch").verdicts.iter().map(|verdict| verdict.body.is_some()).collect()
    };
    assert_eq!(bodies(&resolved.verdicts), [true; 3], "the record has them all");
    let pushed: Vec<_> = resolved.pushes.iter().map(|(gateway, bytes)| (*gateway, bodies(bytes))).collect();
    assert_eq!(pushed, [(one, vec![true, false, true]), (other, vec![false, true, false])]);
}

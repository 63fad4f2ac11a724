//! Rooms that live longer, and see more, than they can remember.

use bytes::Bytes;

use super::{Held, Room};
use crate::limits::CONTESTS_PER_ROOM_MAX;
use crate::rules::Claim;
use crate::types::{
    Action, Arrival, Audience, EventKind, Incarnation, Moment, Outcome, PlayerId, Role, SessionId, Stamp, StreamId, Verdict,
};

/// A claim room with one server session, which acts for whoever it names.
struct Game {
    room: Room,
    events: u64,
}

impl Game {
    fn new() -> Self {
        let mut game = Self { room: Room::new(1, Box::new(Claim::new(Audience::Room))), events: 0 };
        game.happens(EventKind::Open { player: PlayerId::new("game").expect("name"), role: Role::Server });
        game
    }

    fn happens(&mut self, kind: EventKind) -> Verdict {
        self.events += 1;
        let (incarnation, ordinal) = (Incarnation(7), self.events);
        let arrival = Arrival::at(ordinal * 10, 1);
        let stamp = Stamp { moment: Moment { timeline: 1, ns: arrival.ns }, incarnation, ordinal };
        let session = SessionId { gateway: incarnation, number: 1 };
        let at = StreamId { ms: 1, seq: ordinal };
        self.room.resolve(&Held { at, stamp, arrival, session, kind: Some(kind), unreadable: None, read_ns: 0 }, None)
    }

    fn act(&mut self, player: &str, op: &str, key: &str, id: &str) -> Verdict {
        let player = Some(PlayerId::new(player).expect("name"));
        let (op, id, contest) = (op.to_owned(), id.to_owned(), Some(key.to_owned()));
        let action = Action { op, id, contest, player, args: Bytes::from_static(&[0xc0]) };
        self.happens(EventKind::Data(crate::wire::action::encode(&action)))
    }
}

#[test]
fn a_room_sees_more_contests_than_it_remembers() {
    let mut game = Game::new();
    for n in 0..=CONTESTS_PER_ROOM_MAX {
        for op in ["claim", "release"] {
            let verdict = game.act("ann", op, &format!("key-{n}"), &format!("{op}-{n}"));
            assert_eq!(verdict.outcome, Outcome::Granted, "{op} of key {n}");
        }
    }
    for n in [0, CONTESTS_PER_ROOM_MAX] {
        let verdict = game.act("bob", "claim", &format!("key-{n}"), &format!("again-{n}"));
        assert_eq!((verdict.outcome, verdict.round), (Outcome::Granted, 2), "round 1 was ann's");
    }
    let late = game.act("ann", "claim", "key-0", "late");
    assert_eq!((late.outcome, late.round, late.behind_ns), (Outcome::Denied("late".to_owned()), 2, Some(20)));
    let mut again =
        Game { room: Room::restore(&game.room.snapshot(), Box::new(Claim::new(Audience::Room))).expect("room"), ..game };
    assert_eq!(again.act("bob", "claim", "never-seen", "n").round, 2, "what was forgotten is remembered to be");
}

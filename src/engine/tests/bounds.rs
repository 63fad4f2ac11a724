//! Rooms that see more than they can remember.

use bytes::Bytes;

use crate::engine::{Held, Known, Room};
use crate::limits::{
    CLAIMS_PER_ROOM_MAX, CONTESTS_PER_ROOM_MAX, RECENT_IDS_PER_PLAYER_MAX, RECENT_IDS_PER_ROOM_MAX, RECENT_PLAYER_IDS,
    ROOM_SESSIONS_MAX, SNAPSHOT_BYTES_MAX,
};
use crate::rules::Claim;
use crate::types::{
    Action, Arrival, Audience, EventKind, Incarnation, Moment, Outcome, PlayerId, Role, SessionId, Since, Stamp, StreamId,
    Verdict,
};

/// A claim room with one game server, whose actions name the player.
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
        self.on(1, kind)
    }

    fn on(&mut self, session: u64, kind: EventKind) -> Verdict {
        self.again(session, kind, None)
    }

    /// What a record says of it is `known`.
    fn again(&mut self, session: u64, kind: EventKind, known: Option<Known<'_>>) -> Verdict {
        self.events += 1;
        let (incarnation, ordinal) = (Incarnation(7), self.events);
        let arrival = Arrival::at(ordinal * 10, 1);
        let stamp = Stamp { moment: Moment { timeline: 1, ns: arrival.ns }, incarnation, ordinal };
        let session = SessionId { gateway: incarnation, number: session };
        let at = StreamId { ms: 1, seq: ordinal };
        self.room.resolve(&Held { at, stamp, arrival, session, kind: Some(kind), unreadable: None, read_ns: 0 }, known)
    }

    fn act(&mut self, player: &str, op: &str, key: &str, id: &str) -> Verdict {
        self.act_again(player, op, key, id, None)
    }

    /// `seen` is how far its client had seen the room when it sent it first.
    fn act_again(&mut self, player: &str, op: &str, key: &str, id: &str, seen: Option<Since>) -> Verdict {
        let player = Some(PlayerId::new(player).expect("name"));
        let (op, id, contest) = (op.to_owned(), id.to_owned(), Some(key.to_owned()));
        let action = Action { op, id, contest, player, seen, args: Bytes::from_static(&[0xc0]) };
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

#[test]
fn a_repeat_among_thousands_of_players_acts_once() {
    const PLAYERS: usize = 5_000;
    let mut game = Game::new();
    let mut first = Vec::new();
    for n in 0..PLAYERS {
        first.push(game.act(&format!("p{n}"), "claim", &format!("key-{n}"), "same").seq);
        game.act(&format!("p{n}"), "release", &format!("key-{n}"), "other");
    }
    for (n, of) in first.into_iter().enumerate() {
        let verdict = game.act(&format!("p{n}"), "claim", &format!("key-{n}"), "same");
        assert_eq!(verdict.outcome, Outcome::Repeat { of }, "of player {n}");
    }
}

#[test]
fn what_was_sent_before_and_may_be_forgotten_is_void_and_what_is_new_acts() {
    let mut game = Game::new();
    let first = game.act("ann", "claim", "key", "a-0");
    for n in 1..=RECENT_IDS_PER_PLAYER_MAX {
        game.act("ann", "release", "none", &format!("a-{n}"));
    }
    let since = |era, seq| Some(Since { era, seq });
    let again = game.act_again("ann", "release", "key", "a-0", since(1, first.seq - 1));
    assert_eq!(again.outcome, Outcome::Void("forgotten".to_owned()), "{again:?}");
    let elsewhere = game.act_again("ann", "release", "key", "b-1", since(9, u64::MAX));
    assert_eq!(elsewhere.outcome, Outcome::Void("forgotten".to_owned()), "another era's seq is no proof");
    let repeat = game.act_again("ann", "release", "key", "a-0", since(1, first.seq - 1));
    assert_eq!(repeat.outcome, Outcome::Repeat { of: again.seq }, "that was its verdict");
    let lost = game.act_again("ann", "release", "key", "a-new", since(1, again.seq));
    assert_eq!(lost.outcome, Outcome::Granted, "its first sending never arrived: it would be remembered");
    assert_eq!(game.act("ann", "claim", "key", "a-next").outcome, Outcome::Granted);
    assert_eq!(
        game.act_again("bob", "claim", "other", "b", since(1, 0)).outcome,
        Outcome::Granted,
        "nothing of bob's was forgotten"
    );
}

#[test]
fn a_full_room_denies_the_next_session_and_takes_it_when_one_has_left() {
    let mut game = Game::new();
    let open = |n: u64| EventKind::Open { player: PlayerId::new(&format!("p{n}")).expect("name"), role: Role::Player };
    for n in 2..=ROOM_SESSIONS_MAX as u64 {
        assert_eq!(game.on(n, open(n)).outcome, Outcome::Granted);
    }
    let denied = game.on(1_000_000, open(0));
    assert_eq!((denied.outcome, denied.audience), (Outcome::Void("room_full".to_owned()), Audience::Session));
    assert_eq!(game.on(1_000_000, EventKind::Close).outcome, Outcome::Void("no_session".to_owned()), "it never joined");
    game.on(2, EventKind::Close);
    assert_eq!(game.on(1_000_001, open(0)).outcome, Outcome::Granted);
}

#[test]
fn a_record_of_the_version_before_holds_as_many_sessions_as_it_did() {
    let mut game = Game::new();
    let open = |n: u64| EventKind::Open { player: PlayerId::new(&format!("p{n}")).expect("name"), role: Role::Player };
    for n in 2..=ROOM_SESSIONS_MAX as u64 {
        game.on(n, open(n));
    }
    let recorded = Verdict { outcome: Outcome::Granted, ..game.on(1, EventKind::End { code: 1000 }) };
    let more = game.again(1_000_000, open(0), Some(Known::Earlier(&recorded)));
    assert_eq!(more.outcome, Outcome::Granted, "that version had no such bound");
    assert_ne!(game.on(1_000_001, open(1)).outcome, Outcome::Granted);
}

#[test]
fn the_snapshot_of_a_full_room_has_a_bound() {
    let mut game = Game::new();
    let long = |n: usize| format!("{n:0>64}");
    let players = RECENT_IDS_PER_ROOM_MAX / (2 + RECENT_PLAYER_IDS);
    for n in 0..CLAIMS_PER_ROOM_MAX {
        let verdict = game.act(&long(n % players), "claim", &long(n), &long(n));
        assert_eq!(verdict.outcome, Outcome::Granted);
    }
    for n in 0..players {
        game.act(&long(n), "release", "none", "last");
    }
    let snapshot = game.room.snapshot();
    assert!(snapshot.len() > SNAPSHOT_BYTES_MAX / 2 && snapshot.len() <= SNAPSHOT_BYTES_MAX, "{} bytes", snapshot.len());
    assert_eq!(Room::restore(&snapshot, Box::new(Claim::new(Audience::Room))).expect("room").snapshot(), snapshot);
}

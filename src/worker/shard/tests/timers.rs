//! When a shard looks at rooms whose timers are due.

use std::time::Duration;

use super::*;
use crate::journal::StoredPage;
use crate::rules::{Decision, Due, Happening, Rules, What, When};

const WALL_NS: u64 = 1_767_225_600_000_000_000;
const HOUR_NS: u64 = 3_600_000_000_000;

/// Whoever joins sets a timer that repeats every hour.
struct Hourly;

impl Rules for Hourly {
    fn name(&self) -> &str {
        "hourly"
    }

    fn version(&self) -> u32 {
        1
    }

    fn resolve(&mut self, event: &Happening<'_>) -> Decision {
        let hour = When::Every(Duration::from_nanos(HOUR_NS));
        if matches!(event.what, What::Open) { Decision::granted().timer("t", hour, &()) } else { Decision::granted() }
    }

    fn fire(&mut self, _timer: &Due<'_>) -> Decision {
        Decision::granted()
    }

    fn snapshot(&self) -> Vec<u8> {
        Vec::new()
    }

    fn restore(&mut self, _version: u32, _bytes: &[u8]) -> Result<(), String> {
        Ok(())
    }
}

fn hourly() -> Core {
    worker_limited(|limits| {
        limits.rules = RulesBook::new().room("*", || Hourly);
        limits.epoch_ns = WALL_NS;
        limits.room_linger_ns = 0;
    })
}

/// A worker that has loaded none of these rooms yet, each of which has a timer that is due so many hours after its start.
fn with_due(rooms: &[(RoomId, u64)]) -> Core {
    let mut core = hourly();
    let due = rooms.iter().map(|(room, hours)| (room.clone(), (WALL_NS + hours * HOUR_NS) / 1_000_000)).collect();
    core.apply(Input::Surveyed(SHARD, Survey { active: Vec::new(), due, ..survey(1, &rooms[0].0, 100) }), 1);
    perform(&mut core);
    core
}

fn room(name: &str) -> RoomId {
    RoomId::new(name).expect("a name")
}

fn loads(core: &mut Core) -> Vec<RoomId> {
    let load = |command| if let Command::Load { room, .. } = command { Some(room) } else { None };
    perform(core).into_iter().filter_map(load).collect()
}

#[test]
fn what_is_due_is_looked_at_and_nothing_else() {
    let mut core = with_due(&[(room("a"), 1), (room("b"), 2), (room("c"), 3)]);
    core.apply(Input::Due, 2 * HOUR_NS);
    assert_eq!(loads(&mut core), [room("a"), room("b")]);
    assert_eq!(core.next_due_ns(), Some(3 * HOUR_NS));
}

/// Rule T7.
#[test]
fn a_takeover_loads_what_is_due_first() {
    let mut core = hourly();
    let due = [("late", 0), ("due", 0), ("next", 1), ("far", 2)];
    let due = due.map(|(name, hours)| (room(name), (WALL_NS + hours * HOUR_NS) / 1_000_000)).to_vec();
    let heads = ["other", "far", "next", "due", "late"];
    let heads = heads.map(|name| RoomHead { room: room(name), era: 1, seq: 0, top: Moment::default() }).to_vec();
    core.apply(Input::Surveyed(SHARD, Survey { active: Vec::new(), due, rooms: heads, ..survey(1, &room("a"), 100) }), 1);
    assert_eq!(loads(&mut core), [room("late"), room("due")], "at once");
    let mut later = Vec::new();
    for ms in 1..10 {
        core.apply(Input::Tick, ms * 1_000_000);
        later.extend(loads(&mut core));
    }
    assert_eq!(later, [room("next"), room("far"), room("other")], "when there is time");
}

/// The shard is live before all its rooms are read; each page is used when it comes. A page of another server is none.
#[test]
fn a_takeover_reads_its_rooms_page_by_page() {
    let mut core = hourly();
    let due = |name, hours| (room(name), (WALL_NS + hours * HOUR_NS) / 1_000_000);
    let head = |name| RoomHead { room: room(name), era: 1, seq: 7, top: Moment::default() };
    let place = |cursor: &str| RoomsPlace::Heads(cursor.to_owned());
    let first = Survey { due: vec![due("a", 0)], rooms: Vec::new(), next: Some(place("1")), ..survey(1, &room("busy"), 100) };
    core.apply(Input::Surveyed(SHARD, first), 1);
    let told = |core: &mut Core| {
        let (mut loaded, mut pushed, mut next) = (Vec::new(), Vec::new(), None);
        for command in perform(core) {
            match command {
                Command::Load { room, .. } => loaded.push(room),
                Command::Rooms { place, .. } => next = Some(place),
                Command::Publish { gateway: A, push, .. } => match push::decode(&push) {
                    Ok(push::Push::Heads { rooms, .. }) => pushed.extend(rooms),
                    other => panic!("{other:?}"),
                },
                _ => {}
            }
        }
        (loaded, pushed, next)
    };
    assert_eq!(told(&mut core), (vec![room("busy"), room("a")], vec![], Some(place("1"))));

    let page =
        RoomsPage { due: vec![due("b", 0), due("c", 1)], rooms: vec![head("b")], next: Some(place("2")), ..RoomsPage::default() };
    core.apply(Input::Rooms(SHARD, page), 2);
    assert_eq!(told(&mut core), (vec![room("b")], vec![(room("b"), 1, 7)], Some(place("2"))));
    core.apply(Input::Rooms(SHARD, RoomsPage { rooms: vec![head("c"), head("d")], ..RoomsPage::default() }), 3);
    assert_eq!(told(&mut core), (vec![], vec![(room("c"), 1, 7), (room("d"), 1, 7)], None));
    for ms in 1..10 {
        core.apply(Input::Tick, ms * 1_000_000);
    }
    assert_eq!(told(&mut core).0, [room("c"), room("d")], "when there is time");

    core.apply(Input::Rooms(SHARD, RoomsPage { server: Incarnation(77), ..RoomsPage::default() }), 10_000_000);
    assert!(perform(&mut core).iter().any(|command| matches!(command, Command::Unfollow(SHARD))), "the lease is lost");
}

/// Rule T3: two rooms are due at one moment, and their gateways have nothing to say of themselves.
#[test]
fn who_is_inside_is_asked_once_from_the_due_moment_on() {
    let (mut core, rooms) = (hourly(), [room("a"), room("b")]);
    let heads = rooms.clone().map(|room| RoomHead { room, era: 1, seq: 0, top: Moment::default() }).to_vec();
    core.apply(Input::Surveyed(SHARD, Survey { active: rooms.to_vec(), rooms: heads, ..survey(2, &rooms[0], 100) }), 1);
    perform(&mut core);
    for room in &rooms {
        let entries = vec![(at(1), open(A, 40)), (at(2), open(B, 50))];
        core.stored_room(SHARD, room.clone(), StoredRoom { era: 1, entries, ..StoredRoom::default() }, 1);
    }
    let mut before = asked(&perform(&mut core));
    assert_eq!(core.next_due_ns(), Some(HOUR_NS + 50));
    core.apply(Input::Due, HOUR_NS + 49);
    before.extend(asked(&perform(&mut core)));
    assert_eq!(before, [], "nobody before");
    core.apply(Input::Due, HOUR_NS + 50);
    let mut now = asked(&perform(&mut core));
    now.sort_unstable();
    assert_eq!(now, [A, B], "each once, for both rooms");
}

/// Also if nobody has loaded them.
#[test]
fn rooms_follow_a_step_of_the_wall_clock() {
    let mut core = with_due(&[(room("a"), 2), (room("b"), 5)]);
    core.apply(Input::Clock(WALL_NS + HOUR_NS), 10);
    assert_eq!(core.next_due_ns(), Some(HOUR_NS), "the clock went forward");
    core.apply(Input::Clock(WALL_NS - HOUR_NS), 20);
    assert_eq!(core.next_due_ns(), Some(3 * HOUR_NS), "and back");
    core.apply(Input::Clock(WALL_NS + 3 * HOUR_NS), 30);
    core.apply(Input::Due, 40);
    assert_eq!(loads(&mut core), [room("a")]);
    assert_eq!(core.next_due_ns(), Some(2 * HOUR_NS));
}

/// A room of `core` that its only player has left.
fn left(core: &mut Core) {
    let room = room("pit");
    core.apply(Input::Surveyed(SHARD, survey(1, &room, 100)), 1);
    perform(core);
    let close = Event { session: 1, ordinal: 2, arrival: Arrival::at(50, 0), kind: EventKind::Close };
    let close = entry::encode(&Entry { incarnation: A, timeline: 1, death: false, events: vec![close] });
    let entries = vec![(at(1), open(A, 40)), (at(2), close)];
    core.stored_room(SHARD, room, StoredRoom { era: 1, entries, ..StoredRoom::default() }, 1);
}

/// However often its timers fire: each tick meets a commit under way.
#[test]
fn a_room_whose_commits_meet_every_tick_ends() {
    let mut core = hourly();
    left(&mut core);
    for hour in 1..10 {
        core.apply(Input::Due, hour * HOUR_NS + 40);
        let mut commands = perform(&mut core);
        while !commands.is_empty() {
            for command in std::mem::take(&mut commands) {
                match command {
                    Command::Commit(commit) => {
                        core.apply(Input::Tick, hour * HOUR_NS + 41);
                        done(&mut core, &commit, hour * HOUR_NS + 42);
                    }
                    // Before it fires, it looks for what it has not read.
                    Command::Read { shard, room, token, .. } => {
                        core.apply(Input::Read { shard, room, token, page: StoredPage::default() }, hour * HOUR_NS + 42);
                    }
                    Command::EndRoom { .. } => return,
                    _ => {}
                }
            }
            commands = perform(&mut core);
        }
    }
    panic!("the room does not end");
}

#[test]
fn a_room_that_has_ended_leaves_no_timer_behind() {
    let mut core = hourly();
    left(&mut core);
    let (mut now, mut ended) = (1, false);
    while !ended {
        now += 1_000_000_000;
        assert!(now < HOUR_NS, "the room does not end");
        core.apply(Input::Tick, now);
        for command in perform(&mut core) {
            match command {
                Command::Commit(commit) => {
                    done(&mut core, &commit, now);
                    assert_eq!(core.next_due_ns(), Some(HOUR_NS + 40));
                }
                Command::EndRoom { shard, room, token, .. } => {
                    core.apply(Input::RoomEnded { shard, room, token, answer: Leased::Done(true) }, now);
                    ended = true;
                }
                _ => {}
            }
        }
    }
    assert_eq!(core.next_due_ns(), None);
    core.apply(Input::Due, 2 * HOUR_NS);
    assert_eq!(loads(&mut core), [], "a room that is no more is not loaded again");
}

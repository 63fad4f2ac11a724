//! What time it is in a room, over steps of the wall clock and boots of the host; and what its timers do.

use std::time::Duration;

use super::*;
use crate::engine::HostClock;
use crate::limits::FIRES_ALONE_MAX;
use crate::rules::{Act, Decision, Due, Happening, Rules, What, When};
use crate::types::{Outcome, RoomTime, Verdict};

const WALL: u64 = 1_767_225_600_000_000_000;
const MS: u64 = 1_000_000;

/// `set` sets a timer by the contest's name, so many milliseconds ahead; `every` one that repeats; `bad` goes over a bound. A timer
/// says the time, and `chain` sets itself again.
#[derive(Default)]
struct Alarm {
    decided: u8,
    undone: u8,
}

impl Rules for Alarm {
    fn name(&self) -> &str {
        "alarm"
    }
    fn version(&self) -> u32 {
        1
    }
    fn resolve(&mut self, event: &Happening<'_>) -> Decision {
        self.decided += 1;
        let What::Data(Act { op, contest: Some(name), .. }) = event.what else { return Decision::granted() };
        let ahead = Duration::from_millis(match event.what {
            What::Data(act) => act.args().expect("a number"),
            _ => 0,
        });
        let granted = Decision::granted().body(&event.facts.now.0);
        match op {
            "set" | "bad" => granted.timer(name, When::After(ahead), &7),
            _ => granted.timer(name, When::Every(ahead), &7),
        }
    }
    fn fire(&mut self, timer: &Due<'_>) -> Decision {
        let granted = Decision::granted().body(&(timer.facts.now.0, timer.data[0], timer.facts.random(0)));
        if timer.name == "chain" { granted.timer("chain", When::After(Duration::from_millis(16)), &7) } else { granted }
    }
    fn undo(&mut self) {
        self.undone += 1;
    }
    fn snapshot(&self) -> Vec<u8> {
        vec![self.decided, self.undone]
    }
    fn restore(&mut self, _version: u32, bytes: &[u8]) -> Result<(), String> {
        (self.decided, self.undone) = (bytes[0], bytes[1]);
        Ok(())
    }
}

/// A room, and the clocks of the host that its worker is on.
struct Scene {
    room: Room,
    clock: HostClock,
    ordinal: u64,
}

impl Scene {
    fn new() -> Self {
        let mut scene = Self {
            room: Room::with_seed(1, 42, Box::new(Alarm::default())),
            clock: HostClock { timeline: 1, epoch_ns: WALL, since_ns: 0, from_ns: 0 },
            ordinal: 0,
        };
        scene.happen(1, EventKind::Open { player: PlayerId::new("ann").expect("a name"), role: Role::Player });
        scene
    }

    fn happen(&mut self, ms: u64, kind: EventKind) -> Verdict {
        self.ordinal += 1;
        let moment = Moment { timeline: self.clock.timeline, ns: ms * MS };
        let stamp = Stamp { moment, incarnation: incarnation(0), ordinal: self.ordinal };
        let session = SessionId { gateway: incarnation(0), number: 1 };
        let arrival = Arrival::at(moment.ns, 0);
        let at = StreamId { ms: 1, seq: self.ordinal };
        self.room.keep_time(self.clock, moment);
        self.room.resolve(&Held { at, stamp, arrival, session, kind: Some(kind), unreadable: None, read_ns: 0 }, None)
    }

    fn act(&mut self, ms: u64, op: &str, name: &str, ahead_ms: u64) -> Verdict {
        let args = Bytes::from(rmp_serde::to_vec(&ahead_ms).expect("a number"));
        let id = format!("{}", self.ordinal);
        let action = Action { op: op.to_owned(), id, contest: Some(name.to_owned()), player: None, seen: None, args };
        self.happen(ms, EventKind::Data(crate::wire::action::encode(&action)))
    }

    /// Fires what may fire up to `ms`. Returns the names, and their places in milliseconds.
    fn fire(&mut self, ms: u64) -> Vec<(String, u64)> {
        let until = Moment { timeline: self.clock.timeline, ns: ms * MS };
        self.room.thin_out(self.clock, until, None);
        let mut fired = Vec::new();
        while let Some(place) = self.room.next_fire(self.clock).filter(|place| *place <= until) {
            self.room.keep_time(self.clock, place);
            let verdict = self.room.fire(place, (self.clock, ms * MS), Flags::default(), None).expect("a timer");
            fired.push((verdict.fire.expect("a fire").name, verdict.stamp.moment.ns / MS));
        }
        fired
    }

    fn now_ms(&self) -> u64 {
        self.room.now.0.saturating_sub(WALL) / MS
    }
}

fn at(name: &str, ms: u64) -> (String, u64) {
    (name.to_owned(), ms)
}

#[test]
fn timers_fire_in_the_order_in_which_they_are_due() {
    let mut scene = Scene::new();
    scene.act(10, "set", "late", 90);
    scene.act(20, "set", "soon", 30);
    scene.act(30, "every", "tick", 40);
    assert_eq!(scene.fire(49), []);
    assert_eq!(scene.fire(110), [at("soon", 50), at("tick", 70), at("late", 100), at("tick", 110)]);
    scene.act(111, "set", "tick", 16);
    assert_eq!(scene.fire(400), [at("tick", 127)], "it was set anew, and repeats no more");
}

#[test]
fn what_goes_over_a_bound_is_void_and_taken_back() {
    let mut scene = Scene::new();
    let verdict = scene.act(10, "bad", "now", 15);
    assert_eq!(verdict.outcome, Outcome::Void("timer_too_soon".to_owned()));
    assert_eq!((verdict.body, scene.room.rules.snapshot()), (None, vec![2, 1]));
    assert_eq!(scene.fire(1_000), []);
}

/// Rule T1: a step forward makes due what it passes, from the step on; a step back stops the time of nobody.
#[test]
fn a_step_of_the_wall_clock_takes_effect_where_it_was_noticed() {
    let mut scene = Scene::new();
    scene.act(10, "set", "before", 40);
    scene.act(10, "set", "passed", 1_000);
    scene.act(11, "set", "other", 1_000);
    scene.clock = HostClock { epoch_ns: WALL + 60_000 * MS, since_ns: 100 * MS, ..scene.clock };
    assert_eq!(scene.fire(100), [at("before", 50)], "by the time that it was");
    assert_eq!(scene.fire(200), [at("passed", 100), at("other", 100)], "just after the step");
    assert_eq!(scene.now_ms(), 60_100);
    let places: Vec<_> = [scene.room.last, scene.room.fire_stamp(scene.room.last).moment].map(|at| at.ns).into();
    assert_eq!(places, [100 * MS + 1; 2], "nothing comes between them");
    scene.act(210, "set", "back", 50);
    scene.clock = HostClock { epoch_ns: WALL, since_ns: 220 * MS, ..scene.clock };
    scene.act(221, "set", "more", 50);
    assert_eq!(scene.now_ms(), 60_221, "it goes on as it did");
    assert_eq!(scene.fire(300), [at("back", 260), at("more", 271)]);
    // A third owner measures the wall clock a little otherwise: nothing changes.
    let epoch = scene.room.epoch;
    scene.clock.epoch_ns += 900_000;
    scene.act(310, "set", "last", 50);
    assert_eq!(scene.room.epoch, epoch);
}

/// Rule T1: after a boot the monotonic clock begins anew.
#[test]
fn a_boot_neither_forgets_nor_hurries_a_timer() {
    let mut scene = Scene::new();
    scene.act(9_000, "set", "soon", 500);
    scene.act(9_000, "set", "far", 60_000);
    // What was appended before the boot and is resolved after it: the timer lies between.
    scene.clock = HostClock { timeline: 2, epoch_ns: WALL + 20_000 * MS, since_ns: MS, from_ns: 0 };
    let before = Moment { timeline: 1, ns: 9_600 * MS };
    assert_eq!(scene.room.next_fire_by(scene.clock, before), Some(Moment { timeline: 1, ns: 9_500 * MS }));
    assert_eq!(scene.room.next_fire_by(scene.clock, Moment { timeline: 1, ns: 9_400 * MS }), None);
    assert_eq!(scene.fire(10), [at("soon", 0)], "it was due while the host was down");
    assert_eq!(scene.fire(48_999), []);
    assert_eq!(scene.fire(49_000), [at("far", 49_000)]);
    // The wall clock of the next boot is far behind.
    scene.act(49_001, "set", "again", 1_000);
    scene.clock = HostClock { timeline: 3, epoch_ns: WALL / 2, since_ns: MS, from_ns: 0 };
    assert_eq!(scene.fire(998), []);
    assert_eq!(scene.fire(1_001), [at("again", 1_000)]);
}

/// Rule T1: a host that has been up for ten days takes over a room that is ahead of its wall clock. The room's time goes on from where
/// it was, and not by ten days.
#[test]
fn a_room_ahead_of_another_host_goes_on_from_where_it_was() {
    let mut scene = Scene::new();
    scene.act(9_000, "set", "soon", 500);
    scene.act(9_000, "set", "far", 60_000);
    let up_ms = 10 * 24 * 3_600_000;
    let epoch_ns = WALL + 8_000 * MS - up_ms * MS;
    scene.clock = HostClock { timeline: 2, epoch_ns, since_ns: MS, from_ns: up_ms * MS };
    assert_eq!(scene.fire(up_ms + 499), []);
    assert_eq!(scene.fire(up_ms + 10_000), [at("soon", up_ms + 500)]);
    scene.act(up_ms + 10_000, "set", "later", 100);
    assert_eq!(scene.now_ms(), 19_000);
    assert_eq!(scene.fire(up_ms + 60_000), [at("later", up_ms + 10_100), at("far", up_ms + 60_000)]);
    // A gateway stamped something before the host's worker owned the room: it turns no time back.
    let mut scene = Scene::new();
    scene.act(9_000, "set", "soon", 500);
    scene.clock = HostClock { timeline: 2, epoch_ns, since_ns: MS, from_ns: up_ms * MS };
    scene.act(up_ms - 1_000, "set", "early", 600);
    assert_eq!(scene.now_ms(), 9_000);
    assert_eq!(scene.fire(up_ms + 10_000), [at("soon", up_ms + 500), at("early", up_ms + 600)]);
}

/// Rule H4: what was stamped at the home before is told by that home's clock, and by no other.
#[test]
fn what_one_home_has_stamped_is_not_read_on_the_clock_of_another() {
    let mut scene = Scene::new();
    scene.act(9_000, "set", "soon", 500);
    scene.act(9_000, "every", "tick", 100);
    // The next home has just booted. Something of the last one is still to be resolved.
    let before = Moment { timeline: 1, ns: 9_050 * MS };
    scene.clock = HostClock { timeline: 2, epoch_ns: WALL + 10_000 * MS, since_ns: MS, from_ns: 0 };
    scene.room.thin_out(scene.clock, Moment { timeline: 2, ns: 3_600_000 * MS }, Some(before));
    assert_eq!(scene.room.next_due(), Some(RoomTime(WALL + 9_100 * MS)), "nothing becomes one fire across what is held");
    assert_eq!(scene.room.keep_time(scene.clock, before), None);
    assert_eq!(scene.room.time_at(before), RoomTime(WALL + 9_050 * MS));
    assert_eq!(scene.room.time_at(Moment { timeline: 2, ns: 9_500 * MS }), RoomTime(WALL + 9_000 * MS));
    let due = Moment { timeline: 1, ns: 9_100 * MS };
    assert_eq!(scene.room.next_moment(scene.clock), Some(due), "a gateway that died there may have been before it");
    // Whoever owned it last and does not know of the next home goes by its own clock.
    scene.act(1, "set", "later", 60_000);
    scene.clock = HostClock { timeline: 1, epoch_ns: WALL, since_ns: 0, from_ns: 0 };
    assert_eq!(scene.room.next_fire(scene.clock).map(|place| place.timeline), Some(1));
}

/// Rule T6.
#[test]
fn a_chain_of_fires_keeps_no_room_for_ever() {
    let mut scene = Scene::new();
    scene.act(10, "every", "tick", 16);
    assert!(!scene.room.is_kept_by_timers(), "one that repeats keeps nothing");
    scene.act(10, "set", "chain", 16);
    for fires in 0..=FIRES_ALONE_MAX {
        assert!(scene.room.is_kept_by_timers(), "after {fires}");
        let place = scene.room.next_fire(scene.clock).expect("a timer");
        scene.room.timers.remove("tick");
        scene.room.fire(place, (scene.clock, place.ns), Flags::default(), None);
    }
    assert!(!scene.room.is_kept_by_timers());
    scene.act(1_000, "set", "other", 16);
    assert!(scene.room.is_kept_by_timers(), "somebody acts again");
}

/// Rule T4: a room that was taken out of memory, or resolved again, fires the same.
#[test]
fn a_stored_room_fires_as_it_would_have() {
    let mut scene = Scene::new();
    for n in 0..20 {
        scene.act(10 + n, ["set", "every"][n as usize % 2], &format!("t{n}"), 50 + n * 7);
    }
    scene.act(100, "set", "chain", 16);
    let mut again = Scene { room: Room::restore(&scene.room.snapshot(), Box::new(Alarm::default())).expect("a room"), ..scene };
    assert_eq!(again.room.snapshot(), scene.room.snapshot());
    let fired = scene.fire(2_000);
    assert!(fired.len() > 100, "{}", fired.len());
    assert_eq!(again.fire(2_000), fired);
    assert_eq!(again.room.snapshot(), scene.room.snapshot());
    let error = |bytes: &[u8]| Room::restore(bytes, Box::new(Alarm::default())).map(|_| ()).expect_err("cut off");
    let good = scene.room.snapshot();
    (0..good.len()).for_each(|at| drop(error(&good[..at])));
}

#[test]
fn nothing_fires_where_no_time_is_known() {
    let mut scene = Scene::new();
    scene.act(10, "set", "one", 16);
    scene.clock.epoch_ns = 0;
    assert_eq!(scene.fire(u64::MAX / MS / 2), []);
    assert_eq!(scene.room.next_due(), Some(RoomTime(WALL + 26 * MS)));
}

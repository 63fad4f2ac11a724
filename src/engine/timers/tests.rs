use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::limits::{TIMER_AHEAD_MAX, TIMER_AHEAD_MIN};
use crate::rules::When;

/// 2026-01-01T00:00:00Z, a Thursday.
const NEW_YEAR: u64 = 1_767_225_600_000_000_000;
const S: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;

fn set(name: &str, when: When) -> TimerCommand {
    TimerCommand::Set { name: name.to_owned(), when, data: Bytes::new() }
}

fn after(ms: u64) -> When {
    When::After(Duration::from_millis(ms))
}

fn apply(timers: &mut Timers, commands: Vec<TimerCommand>, now: u64) -> Result<(), TimerFault> {
    let changes = timers.check(commands, RoomTime(now))?;
    timers.apply(changes);
    Ok(())
}

fn cron(expression: &str, offset_s: i32) -> When {
    When::Cron { expression: expression.to_owned(), offset_s }
}

/// The next `count` moments, in seconds after [`NEW_YEAR`].
fn moments(when: &When, count: usize) -> Vec<u64> {
    let (due, repeat) = when.first(RoomTime(NEW_YEAR)).expect("a timer");
    let all = std::iter::successors(Some(due), |due| repeat.next(*due, *due));
    all.take(count).map(|due| due.since(RoomTime(NEW_YEAR)) / S).collect()
}

#[test]
fn cron_has_five_or_six_fields_at_an_offset() {
    assert_eq!(moments(&cron("*/15 * * * *", 0), 3), [900, 1_800, 2_700]);
    assert_eq!(moments(&cron("30 0 9 * * *", 0), 2), [32_430, 32_430 + 86_400]);
    // Nine in the morning in Tokyo is midnight, and that is now: the next one.
    assert_eq!(moments(&cron("0 9 * * *", 9 * 3_600), 1), [86_400]);
    assert_eq!(moments(&cron("0 20 * * FRI", 0), 1), [86_400 + 72_000]);
}

#[test]
fn what_cron_cannot_be_is_said() {
    let bad = [
        "",
        "* * *",
        "61 * * * *",
        "* * * * * * *",
        "@daily;",
        "0 0 1 1 * 2099",
        "* * * * * MON#x",
        "L L L L L",
        "99999999999999 * * * *",
    ];
    for expression in bad {
        let fault = cron(expression, 0).first(RoomTime(NEW_YEAR)).expect_err(expression);
        assert!(fault.reason() == "bad_timer" && fault.to_string().contains("cron"), "{fault}");
    }
    assert_eq!(cron("0 0 30 2 *", 0).first(RoomTime(NEW_YEAR)).expect_err("no such day").reason(), "timer_too_far");
    assert_eq!(cron("0 0 1 7 *", 0).first(RoomTime(NEW_YEAR)).expect_err("half a year").reason(), "timer_too_far");
    assert_eq!(cron("* * * * *", 86_400).first(RoomTime(NEW_YEAR)).expect_err("an offset").reason(), "bad_timer");
    assert_eq!(cron(&"1,".repeat(100), 0).first(RoomTime(NEW_YEAR)).expect_err("long").reason(), "bad_timer");
}

#[test]
fn what_goes_over_a_bound_changes_nothing() {
    let mut timers = Timers::default();
    let fill: Vec<_> = (0..TIMERS_PER_ROOM_MAX).map(|n| set(&format!("t{n}"), after(16))).collect();
    apply(&mut timers, fill, NEW_YEAR).expect("as many as fit");
    let full = timers.clone();
    let large = TimerCommand::Set { name: "t1".to_owned(), when: after(16), data: vec![0; TIMER_DATA_BYTES_MAX + 1].into() };
    let days = u64::try_from(TIMER_AHEAD_MAX.as_millis()).expect("days");
    let faults = [
        (vec![set("more", after(16))], "too_many_timers"),
        (vec![set("t1", after(15))], "timer_too_soon"),
        (vec![set("t1", When::At(RoomTime(NEW_YEAR - 1)))], "timer_too_soon"),
        (vec![set("t1", When::Every(Duration::ZERO))], "timer_too_soon"),
        (vec![set("t1", after(days + 1))], "timer_too_far"),
        (vec![large], "timer_data_too_large"),
        (vec![set("", after(16))], "bad_timer"),
        (vec![set(&"x".repeat(FIELD_BYTES_MAX + 1), after(16))], "bad_timer"),
        // The first part would be good by itself.
        (vec![TimerCommand::Cancel("t1".to_owned()), set("t2", after(1))], "timer_too_soon"),
    ];
    for (commands, reason) in faults {
        assert_eq!(apply(&mut timers, commands, NEW_YEAR).expect_err(reason).reason(), reason);
        assert_eq!(timers, full, "{reason}");
    }
    // What is cancelled makes place once, and what is set takes one, however often they are named.
    let twice = |n: usize| {
        let names = (0..n).map(|n| format!("t{n}"));
        names.flat_map(|name| {
            [
                TimerCommand::Cancel(name.clone()),
                TimerCommand::Cancel(name.clone()),
                set(&name, after(16)),
                set(&format!("{name}x"), after(16)),
            ]
        })
    };
    assert_eq!(apply(&mut timers, twice(3).collect(), NEW_YEAR).expect_err("three more").reason(), "too_many_timers");
    assert_eq!(
        apply(&mut timers, twice(256).chain(twice(256)).collect(), NEW_YEAR).expect_err("many").reason(),
        "too_many_timers"
    );
    let swap = vec![TimerCommand::Cancel("t1".to_owned()), set("more", after(days)), TimerCommand::Cancel("none".to_owned())];
    apply(&mut timers, swap, NEW_YEAR).expect("one makes place for another");
    assert_eq!((timers.len(), timers.next_due()), (TIMERS_PER_ROOM_MAX, Some(RoomTime(NEW_YEAR + 16 * MS))));
}

/// Rule T5: an outage of an hour is one fire, the last moments fire by themselves.
#[test]
fn late_moments_of_a_repeating_timer_become_one() {
    let mut timers = Timers::default();
    let commands =
        vec![set("tick", When::Every(Duration::from_millis(100))), set("cron", cron("* * * * * *", 0)), set("once", after(500))];
    apply(&mut timers, commands, NEW_YEAR).expect("set");
    timers.thin_out(RoomTime(NEW_YEAR + 3_600 * S - 200 * MS));
    let mut fired = Vec::new();
    while timers.next_due().is_some_and(|due| due <= RoomTime(NEW_YEAR + 3_600 * S)) {
        let (fire, _) = timers.take_next().expect("due");
        fired.push((fire.name, fire.due.since(RoomTime(NEW_YEAR)) / MS, fire.missed));
    }
    let tick = |ms, missed| ("tick".to_owned(), ms, missed);
    assert_eq!(
        fired,
        [
            ("once".to_owned(), 500, 0),
            ("cron".to_owned(), 3_599_000, CRON_COUNTED_MAX - 1),
            tick(3_599_800, 35_997),
            tick(3_599_900, 0),
            ("cron".to_owned(), 3_600_000, 0),
            tick(3_600_000, 0),
        ]
    );
}

#[test]
fn many_late_crons_are_not_all_counted() {
    let mut timers = Timers::default();
    let commands = (0..TIMERS_PER_ROOM_MAX).map(|n| set(&format!("t{n}"), cron("* * * * * *", 0))).collect();
    apply(&mut timers, commands, NEW_YEAR).expect("set");
    timers.thin_out(RoomTime(NEW_YEAR + 30 * 86_400 * S));
    let counted: u64 = timers.iter().map(|(_, timer)| timer.missed).sum();
    assert!((CRON_COUNTED_MAX - 1..CRON_COUNTED_MAX + 256).contains(&counted), "{counted}");
}

proptest! {
    /// The moments of `every` by counting, and by arithmetic.
    #[test]
    fn every_is_a_grid(every in 16u64..1_000, until in 0u64..100_000) {
        let (due, repeat) = When::Every(Duration::from_millis(every)).first(RoomTime(NEW_YEAR)).expect("set");
        let until = RoomTime(NEW_YEAR + until * MS);
        let grid: Vec<RoomTime> = (1..).map(|n| RoomTime(NEW_YEAR + n * every * MS)).take_while(|at| *at <= until).collect();
        prop_assert_eq!(repeat.count(due, until, u64::MAX), grid.len() as u64);
        prop_assert_eq!(repeat.last(due, until), grid.last().copied());
        let next = RoomTime(NEW_YEAR + (grid.len() as u64 + 1) * every * MS);
        prop_assert_eq!(repeat.next(due, until.max(due)), Some(next.max(due.plus(every * MS))));
    }

    /// Also for values that only a damaged record has.
    #[test]
    fn numbers_at_the_edge_are_no_panic(due: u64, now: u64, every: u64, offset: i32) {
        let cron = Repeat::Cron("* * * * * *".to_owned(), offset);
        for repeat in [Repeat::Never, Repeat::Every(every), cron] {
            let _ = (repeat.next(RoomTime(due), RoomTime(now)), repeat.last(RoomTime(due), RoomTime(now)));
            let _ = repeat.count(RoomTime(due), RoomTime(now), 100);
        }
        for when in [When::At(RoomTime(due)), When::After(Duration::from_nanos(every)), When::Every(Duration::from_nanos(every))] {
            if let Ok((due, _)) = when.first(RoomTime(now)) {
                prop_assert!(due.since(RoomTime(now)) >= TIMER_AHEAD_MIN.as_nanos() as u64);
            }
        }
    }
}

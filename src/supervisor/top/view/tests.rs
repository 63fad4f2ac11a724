use ratatui_core::backend::TestBackend;
use ratatui_core::terminal::Terminal;

use super::super::snapshot::Totals;
use super::*;

fn line(name: &str, phase: &str, sessions: u64) -> Line {
    let process = Process {
        name: name.to_owned(),
        phase: phase.to_owned(),
        pid: Some(4_711),
        age_s: 65.0,
        cpu: 0.123,
        memory_bytes: 25 << 20,
        sessions,
        actions_per_s: 500.0,
        ..Process::default()
    };
    Line { process, ..Line::default() }
}

fn latency(p50_ms: f64, p99_ms: f64) -> Option<Latency> {
    Some(Latency { p50_ms, p99_ms })
}

fn snapshot() -> Snapshot {
    let gateway = Line { verdict: latency(0.361, 1.64), ..line("gateway-2", "ready", 100) };
    let busy = Line { verdict: latency(12.34, 250.0), ..line("gateway-10", "leaving", 7) };
    let worker = Line { hold: latency(0.05, 0.7), ..line("worker-1", "ready", 0) };
    let mut waiting = line("worker-2", "waiting", 0);
    waiting.process = Process {
        pid: None,
        starts_in_s: Some(3.24),
        last_end: Some("was ended by signal 9".to_owned()),
        crashes: 3,
        ..waiting.process
    };
    let totals = Totals {
        cpu: 0.7,
        memory_bytes: 75 << 20,
        sessions: 107,
        actions_per_s: 1_002.6,
        crashes: 3,
        hold: latency(0.05, 0.7),
        verdict: latency(0.4, 2.0),
    };
    let status = "3 of 4 processes ready, 107 sessions".to_owned();
    Snapshot { status, processes: vec![busy, gateway, worker, waiting], totals }
}

fn history() -> VecDeque<(f64, Option<f64>)> {
    [(0.0, None), (250.0, Some(0.5)), (500.0, Some(2.0)), (1_000.0, Some(1.0))].into()
}

/// The screen as text, without the blanks at the ends of lines.
fn screen(width: u16, height: u16, snapshot: &Snapshot, view: &View) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal.draw(|frame| draw(frame.buffer_mut(), snapshot, &history(), view)).expect("drawn");
    let shown = terminal.backend().to_string();
    shown.lines().map(|line| line.trim_matches('"').trim_end().to_owned()).collect()
}

#[test]
fn a_small_screen_has_all_of_it() {
    let lines = screen(80, 24, &snapshot(), &View::new(true));
    let expected = [
        "lasthit top  3 of 4 processes ready, 107 sessions",
        "",
        "actions a second, most 1,000             p99 of verdicts, most 2.00 ms",
        "                                      █                                       █",
        "                                     ▄█                                       █▄",
        "                                    ▆██                                      ▆██",
        "",
        "                                                     HOLD ms  VERDICT ms",
        "NAME       STATE      CPU   MEMORY   SESS  ACT/S   p50   p99   p50   p99 CRASH",
        "all                  70 %   75 MiB    107   1003  0.05  0.70  0.40  2.00     3",
        "gateway-2  ready     12 %   25 MiB    100    500              0.36  1.64     0",
        "gateway-10 leaving   12 %   25 MiB      7    500              12.3   250     0",
        "worker-1   ready     12 %   25 MiB      0    500  0.05  0.70                 0",
        "worker-2   waiting  starts in 3.2 s; was ended by signal 9",
    ];
    assert_eq!(lines[..expected.len()], expected);
    assert!(lines[expected.len()..23].iter().all(String::is_empty), "{lines:#?}");
    assert_eq!(lines[23], "sort [n]ame [c]pu [m]em [s]essions [a]ctions [h]old [v]erdict c[r]ashes  [q]uit");
}

#[test]
fn a_large_screen_has_more() {
    let lines = screen(120, 35, &snapshot(), &View::new(true));
    assert!(lines[9].ends_with("VERDICT ms") && lines[10].starts_with("NAME       STATE        PID    AGE   CPU"), "{lines:#?}");
    assert!(lines[12].starts_with("gateway-2  ready       4711  1 min  12 %"), "{lines:#?}");
}

#[test]
fn lines_are_sorted_by_what_was_pressed_and_the_other_way_round() {
    let mut view = View::new(true);
    let order = |view: &View| -> Vec<String> {
        let lines = screen(80, 24, &snapshot(), view);
        lines[10..14].iter().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect()
    };
    let by_name = ["gateway-2", "gateway-10", "worker-1", "worker-2"];
    assert_eq!(order(&view), by_name);
    view.pressed('n');
    assert_eq!(order(&view), ["worker-2", "worker-1", "gateway-10", "gateway-2"]);
    view.pressed('?');
    assert_eq!(order(&view)[0], "worker-2", "no key");
    for (key, first) in [('s', "gateway-2"), ('v', "gateway-10"), ('H', "worker-1"), ('r', "worker-2"), ('n', "gateway-2")] {
        view.pressed(key);
        assert_eq!(order(&view)[0], first, "{key}");
    }
}

#[test]
fn what_has_no_room_is_scrolled_to() {
    let all = (1..=40).map(|number| line(&format!("gateway-{number}"), "ready", 1)).collect();
    let all = Snapshot { processes: all, ..Snapshot::default() };
    let mut view = View::new(true);
    let lines = screen(80, 24, &all, &view);
    assert!(lines[10].starts_with("gateway-1 ") && lines[22] == "28 more: arrow keys", "{lines:#?}");
    view.scroll(39);
    let lines = screen(80, 24, &all, &view);
    assert!(lines[10].starts_with("gateway-28 ") && lines[22].starts_with("gateway-40 "), "{lines:#?}");
    view.scroll(-100);
    assert!(screen(80, 24, &all, &view)[10].starts_with("gateway-1 "));
}

#[test]
fn trouble_is_shown_and_colours_can_be_left_out() {
    let drawn = |view: &View| {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 80, 24));
        draw(&mut buffer, &snapshot(), &history(), view);
        buffer
    };
    let colours =
        |buffer: &Buffer| buffer.content().iter().filter(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset).count();
    assert!(colours(&drawn(&View::new(true))) > 10);
    assert_eq!(colours(&drawn(&View::new(false))), 0);
    // What has colours has no ground of its own, so that it can be read in light and dark terminals.
    assert!(drawn(&View::new(true)).content().iter().all(|cell| cell.bg == Color::Reset));
    let view = View { trouble: Some("the supervisor does not answer".to_owned()), ..View::new(false) };
    assert!(screen(80, 24, &snapshot(), &view)[0].ends_with("the supervisor does not answer"));
}

proptest::proptest! {
    #[test]
    fn any_size_can_be_drawn_on(width in 0..200_u16, height in 0..60_u16, count in 0..50_usize, above in 0..80_isize) {
        let all = (0..count).map(|number| line(&"long".repeat(number), "ready", u64::MAX)).collect();
        let mut view = View::new(true);
        view.scroll(above);
        let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
        let all = Snapshot { processes: all, ..snapshot() };
        draw(&mut buffer, &all, &(0..300).map(|n| (f64::from(n), Some(f64::NAN))).collect(), &view);
    }
}

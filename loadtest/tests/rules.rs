//! Short runs of the program itself: programs and timers are measured, whatever the figures are, and an auction closes at its moment.

use std::process::Command;

use serde_json::Value;

/// A run that passed: its report, and what it said.
fn rules(arguments: &[&str]) -> (Value, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let json = dir.path().join("rules.json");
    let run = Command::new(env!("CARGO_BIN_EXE_loadtest")).arg("rules").args(arguments).arg("--json").arg(&json).output();
    let run = run.expect("the program");
    let said = format!("{}\n{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{said}");
    (serde_json::from_slice(&std::fs::read(&json).expect("figures")).expect("JSON"), said)
}

#[test]
fn programs_and_timers_are_measured() {
    let (report, said) = rules(&["--quick", "--only", "js_median,room_kib,timer_us,timer_idle,push_s"]);
    let bars = report["bars"].as_object().expect("bars");
    assert_eq!(bars.keys().collect::<Vec<_>>(), ["js_median", "push_s", "room_kib", "timer_idle", "timer_us"], "{said}");
    let value =
        |name: &str, part: usize| bars[name]["figures"][part]["value"].as_f64().unwrap_or_else(|| panic!("{name}: {said}"));
    assert!(value("js_median", 0) > 0.0 && value("timer_idle", 0) > 0.0, "{said}");
    assert!(0.0 < value("timer_us", 0) && value("timer_us", 0) <= value("timer_us", 1), "{said}");
    // 20 rooms, one a second each, for 1.2 s.
    let fires = bars["timer_us"]["raw"]["fires"].as_u64().expect("fires");
    assert!((12..=60).contains(&fires), "{said}");
    // 20 rooms that fire four times a second: what was decided by another version than the room's is never right.
    assert!(value("push_s", 0) > 0.0, "{said}");
    assert_eq!((value("push_s", 1), &bars["push_s"]["raw"]["rooms"]), (0.0, &serde_json::json!(20)), "{said}");
    assert_eq!(report["notes"], serde_json::json!([]), "{said}");
}

#[test]
fn what_cannot_be_compared_is_told_in_one_line() {
    let run =
        Command::new(env!("CARGO_BIN_EXE_loadtest")).args(["rules", "--only", "builtin_cost"]).output().expect("the program");
    let said = String::from_utf8_lossy(&run.stderr);
    assert_eq!((run.status.code(), said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.contains("give it as --before FILE"), "{said}");
}

#[test]
fn an_auction_closes_once_at_its_moment() {
    // Far enough apart for a busy machine: how close they may come is what a run by hand shows.
    for arguments in [&["--trials", "60"][..], &["--kill-worker", "--trials", "3"]] {
        let (report, said) = rules(&[&["--close", "--apart-us", "2000"], arguments].concat());
        for wrong in ["wrong", "wrong_by_arrival", "lost", "not_once", "moved", "wrong_winner"] {
            assert_eq!(report[wrong], 0, "{wrong}: {said}");
        }
        assert!(report["vouched"].as_u64() > Some(0), "{said}");
        assert_eq!(report["kills"].as_u64() >= Some(3), arguments.contains(&"--kill-worker"), "{said}");
    }
}

//! Short runs of the program itself over a supervisor: what is done to it meanwhile is told phase by phase, and nothing is lost.

use std::process::{Command, Output};

use serde_json::Value;

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadtest")).arg("run").args(arguments).output().expect("the program")
}

/// A run in which nothing was lost: its report, and what it said.
fn measured(arguments: &[&str]) -> (Value, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let json = dir.path().join("run.json").display().to_string();
    let load =
        ["--sessions", "20", "--rooms", "5", "--rate", "100", "--warm-up", "0ms", "--duration", "1s", "--lateness-max", "20s"];
    let output = run(&[&load, arguments, &["--quiet", "--json", &json]].concat());
    let said = format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    (serde_json::from_slice(&std::fs::read(&json).expect("a report")).expect("JSON"), said)
}

#[test]
fn a_reload_and_a_crash_are_told_apart_and_lose_nothing() {
    let spawn = ["--spawn", "up:gateways=2,workers=1", "--connects", "20", "--late-after", "15s", "--during", "reload,crash"];
    let (report, said) = measured(&spawn);
    for fault in ["lost", "doubled", "gaps", "two_winners", "overtaken", "unsent", "broken_sessions"] {
        assert_eq!(report[fault], 0, "{fault}: {said}");
    }
    let [reload, crash] = [0, 1].map(|n| &report["phases"][n]);
    assert_eq!((&reload["name"], &crash["name"]), (&"reload".into(), &"crash".into()), "{said}");
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{value}: {said}"));
    for phase in [reload, crash] {
        assert!(number(&phase["begin_s"]) < number(&phase["end_s"]) && number(&phase["took_s"]) > 0.0, "{said}");
        assert!(
            number(&phase["verdicts"]) > 0.0 && number(&phase["p99_us"]) > 0.0 && number(&phase["connects"]["made"]) > 0.0,
            "{said}"
        );
    }
    assert!(number(&report["reload_p99_ratio"]) > 0.0 && number(&report["crash_p99_ratio"]) > 0.0, "{said}");
    // All who were on a gateway that was replaced have followed it; about half were on the one that was killed.
    assert!(number(&reload["moves"]["followed"]) >= 20.0 && number(&reload["moves"]["returned"]) == 0.0, "{said}");
    assert!(number(&crash["moves"]["returned"]) > 0.0 && number(&crash["moves"]["unconnected_ms"]) > 0.0, "{said}");
    let connects = &report["connects"];
    assert_eq!(number(&connects["refused"]), 0.0, "{said}");
    assert_eq!(number(&reload["connects"]["reset"]) + number(&report["outside"]["connects"]["reset"]), 0.0, "{said}");
    assert!(number(&report["outside"]["verdicts"]) > 0.0, "{said}");
}

#[test]
fn what_has_no_supervisor_is_told_in_one_line() {
    for spawn in ["serve", "gateways=2,workers=1"] {
        let output = run(&["--spawn", spawn, "--during", "reload"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), said.trim().lines().count()), (Some(2), 1), "{said}");
        assert!(said.contains("--spawn up:gateways=2,workers=2"), "{said}");
    }
}

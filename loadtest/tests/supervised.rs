//! Short runs of the program itself over a supervisor: what its door costs, whether rivals on two of its gateways are decided fairly, and
//! how its counts follow a load.

use std::process::{Command, Output};

use serde_json::Value;

fn loadtest(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadtest")).args(arguments).output().expect("the program")
}

/// A run that passed: its figures, and what it said.
fn figures(arguments: &[&str]) -> (Value, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let json = dir.path().join("figures.json").display().to_string();
    let run = loadtest(&[arguments, &["--json", &json]].concat());
    let said = format!("{}\n{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{said}");
    (serde_json::from_slice(&std::fs::read(&json).expect("figures")).expect("JSON"), said)
}

#[test]
fn connecting_is_measured_through_the_door_and_beside_it() {
    let (report, said) = figures(&["door", "--samples", "30", "--ramp", "20..40", "--duration", "500ms", "--tasks", "2"]);
    for way in ["through", "alone"] {
        let way = &report[way];
        assert!(way["connect_p50_us"].as_f64() > Some(0.0), "{said}");
        assert!(way["tried"].as_array().is_some_and(|tried| tried.iter().all(|rate| rate["made"].as_u64() >= Some(9))), "{said}");
    }
    assert_eq!((&report["samples"], &report["tasks"]), (&30.into(), &2.into()), "{said}");
    assert!(report["door_connect_us"].is_number() && report["door_connects_per_s"].as_u64() > Some(0), "{said}");
}

#[test]
fn rivals_behind_one_address_are_on_two_gateways() {
    let short = ["--gaps-us", "500", "--trials", "10", "--background", "50"];
    let (report, said) = figures(&[&["fair", "--spawn", "up:gateways=2,workers=1"], &short[..]].concat());
    assert_eq!(report["gaps"][0]["wrong"], 0, "{said}");
    let run = loadtest(&[&["fair", "--spawn", "up:gateways=1,workers=1"], &short[..]].concat());
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.code() == Some(2) && said.contains("both rivals were given to one gateway"), "{said}");
}

#[test]
fn counts_are_told_step_by_step() {
    let spawn = "up:gateways=auto:1..2,workers=1";
    let (report, said) = figures(&["auto", "--spawn", spawn, "--steps", "50:1s,100:1s", "--sessions", "10", "--rooms", "2"]);
    let rates: Vec<Option<u64>> = report["steps"].as_array().expect("steps").iter().map(|step| step["rate"].as_u64()).collect();
    assert_eq!(rates, [Some(50), Some(100)], "{said}");
    let looks = report["looks"].as_array().expect("looks");
    assert!(looks.iter().all(|look| look["gateways"]["ready"] == 1 && look["workers"]["ready"] == 1), "{said}");
    assert!(looks.iter().any(|look| look["rate"] == 100) && said.contains("gateways auto:1..2, workers 1"), "{said}");
}

#[test]
fn what_has_no_supervisor_or_no_counts_to_follow_is_told_in_one_line() {
    for (arguments, named) in [
        (["door", "--spawn", "serve"], "--spawn up:gateways=1,workers=1"),
        (["auto", "--spawn", "gateways=1"], "--spawn up:gateways=auto:1..4,workers=1"),
        (["auto", "--spawn", "up:gateways=2"], "counts that follow the load"),
        (["even", "--spawn", "up:gateways=auto:1..2"], "a fixed number of gateways"),
    ] {
        let run = loadtest(&arguments);
        let said = String::from_utf8_lossy(&run.stderr);
        assert_eq!((run.status.code(), said.trim().lines().count()), (Some(2), 1), "{said}");
        assert!(said.contains(named), "{said}");
    }
}

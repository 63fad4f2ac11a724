//! Sessions are spread over the gateways of a supervisor, and spread again after one of them was killed.

use std::process::Command;

use serde_json::Value;

#[test]
fn sessions_are_even_and_even_again_after_a_kill() {
    let dir = tempfile::tempdir().expect("a directory");
    let json = dir.path().join("even.json");
    let run = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["even", "--spawn", "up:gateways=3,workers=1", "--sessions", "60", "--kill", "--json"])
        .arg(&json)
        .output()
        .expect("the program");
    let said = format!("{}\n{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&std::fs::read(&json).expect("figures")).expect("JSON");
    assert_eq!(report["even_max_over_mean"], 1.0, "{said}");
    // Those of the killed one come again; the others move, unless the next one was there before they came.
    assert!(report["reconnected"].as_u64() >= Some(20) && report["even_after_crash_s"].is_number(), "{said}");
    let last = report["looks"].as_array().and_then(|looks| looks.last()).expect("looks");
    let sessions: Vec<u64> = last["sessions"].as_object().expect("gateways").values().filter_map(Value::as_u64).collect();
    assert!(sessions.len() == 3 && sessions.iter().all(|count| *count <= 22), "{said}");
}

#[test]
fn what_has_no_supervisor_is_told_in_one_line() {
    let run = Command::new(env!("CARGO_BIN_EXE_loadtest")).args(["even", "--spawn", "serve"]).output().expect("the program");
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(!run.status.success() && said.trim().lines().count() == 1 && said.contains("up:gateways=8,workers=1"), "{said}");
}

//! A short run of the program itself: who comes again is told all that was missed, and the others are measured beside it.

use std::process::Command;

use serde_json::Value;

#[test]
fn who_comes_again_is_told_everything() {
    let dir = tempfile::tempdir().expect("a directory");
    let json = dir.path().join("rejoin.json");
    let run = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["run", "--spawn", "serve", "--audience", "room", "--sessions", "4", "--rooms", "2", "--rate", "100"])
        .args(["--warm-up", "200ms", "--duration", "800ms", "--lateness-max", "5s", "--rejoin", "20", "--quiet", "--json"])
        .arg(&json)
        .output()
        .expect("the program");
    let said = format!("{}\n{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&std::fs::read(&json).expect("a report")).expect("JSON");
    // Each of 20 missed half of 100 claims; a verdict that only its sender is told is passed over.
    assert_eq!(report["crowd"]["sessions"], 20, "{said}");
    assert!(report["crowd"]["verdicts"].as_u64().is_some_and(|told| told >= 20 * 40), "{said}");
    assert!(report["p99_ratio"].as_f64().is_some_and(|ratio| ratio > 0.0), "{said}");
    assert_eq!((&report["before"]["passed"], &report["beside"]["passed"]), (&Value::Bool(true), &Value::Bool(true)), "{said}");
}

//! A short run of the program itself: every stage is measured, and an event costs something everywhere.

use std::process::Command;

use serde_json::Value;

#[test]
fn every_stage_of_an_event_is_measured() {
    let dir = tempfile::tempdir().expect("a directory");
    let [json, svg] = ["stages.json", "stages.svg"].map(|name| dir.path().join(name));
    let run = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["stages", "--spawn", "gateways=1,workers=1", "--rates", "400", "--sessions", "8", "--rooms", "4"])
        .args(["--duration", "600ms", "--set", "shards=2", "--json"])
        .arg(&json)
        .arg("--svg")
        .arg(&svg)
        .output()
        .expect("the program");
    let said = format!("{}\n{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&std::fs::read(&json).expect("figures")).expect("JSON");
    let rate = &report["rates"][0];
    let stages = rate["stages"].as_array().expect("stages");
    let time = |stage: &Value| stage["mean_us"].as_f64().expect("a time");
    let sum: f64 = stages.iter().map(time).sum();
    assert!(sum > 0.0 && (sum - rate["service_us"]["mean_us"].as_f64().expect("a time")).abs() < 1e-3, "{said}");
    // What has a measure of its own takes some time.
    for name in ["socket", "append", "resolve", "commit", "deliver"] {
        let stage = stages.iter().find(|stage| stage["name"] == name).expect(name);
        assert!(time(stage) > 0.0, "{name}: {said}");
    }
    let counts = &rate["counts"];
    assert!(counts["events"].as_u64().is_some_and(|events| events > 50), "{said}");
    for kind in ["gateway", "worker", "redis"] {
        assert!(counts["kinds"][kind]["system_calls"].as_f64().is_some_and(|calls| calls > 0.0), "{kind}: {said}");
    }
    for key in ["commands_sent", "commands_in_scripts", "redis_bytes_in", "redis_bytes_out"] {
        assert!(counts[key].as_f64().is_some_and(|count| count > 0.0), "{key}: {said}");
    }
    let drawn = std::fs::read_to_string(&svg).expect("a picture");
    assert!(drawn.contains("400 events a second") && drawn.ends_with("</svg>\n"), "{drawn}");
}

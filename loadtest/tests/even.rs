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

#[test]
fn a_node_cluster_is_measured_beside_it_and_drawn() {
    let dir = tempfile::tempdir().expect("a directory");
    let [json, svg] = ["even.json", "even.svg"].map(|name| dir.path().join(name));
    let run = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["even", "--spawn", "up:gateways=2,workers=1", "--sessions", "20", "--peer", "cluster", "--json"])
        .arg(&json)
        .arg("--svg")
        .arg(&svg)
        .output()
        .expect("the program");
    let said = format!("{}\n{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&std::fs::read(&json).expect("figures")).expect("JSON");
    let peers: Vec<&str> = report["peers"].as_array().expect("peers").iter().filter_map(|peer| peer["name"].as_str()).collect();
    assert_eq!(peers, ["Node cluster, round-robin", "Node cluster, shared accept"], "{said}");
    assert_eq!(report["even_max_over_mean"], 1.0, "{said}");
    // Who gets more sessions there is not for us to say.
    for peer in [0, 1].map(|n| &report["peers"][n]) {
        let over = peer["even_max_over_mean"].as_f64();
        assert!(over >= Some(1.0) && over <= Some(2.0), "{said}");
        let last = peer["looks"].as_array().and_then(|looks| looks.last()).expect("looks");
        let sessions = last["sessions"].as_object().expect("processes").values().filter_map(Value::as_u64);
        assert_eq!(sessions.sum::<u64>(), 20, "{said}");
    }
    let drawn = std::fs::read_to_string(&svg).expect("a picture");
    assert!(drawn.matches("stroke-linejoin").count() == 6 && drawn.ends_with("</svg>\n"), "{drawn}");
}

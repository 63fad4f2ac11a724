//! A short run of the program itself: every kind of fault once, nothing lost, nothing twice, nothing taken back.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

/// What a failure is run again with: `loadtest chaos --duration 20s --seed 20 --durability disk`.
const SEED: &str = "20";

#[test]
fn twenty_seconds_of_every_fault_lose_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let json = dir.path().join("chaos.json");
    let run = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["chaos", "--duration", "20s", "--seed", SEED, "--durability", "disk", "--json"])
        .arg(&json)
        .output()
        .expect("the program");
    let said = format!("{}\n{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&std::fs::read(&json).expect("a report")).expect("JSON");
    for key in ["lost", "doubled", "changed", "two_winners", "inversions", "gaps", "replay"] {
        assert_eq!(report[key], 0, "{key}: {said}");
    }
    let kinds: BTreeSet<&str> = report["faults_by_kind"].as_object().expect("kinds").keys().map(String::as_str).collect();
    assert_eq!(kinds.len(), 18, "{kinds:?}");
    let kills = report["kills_by_kind"].as_object().expect("kills");
    assert!(["worker-kill", "gateway-kill", "redis-kill"].iter().all(|kind| kills.contains_key(*kind)), "{kills:?}");
    for key in ["actions", "events", "seen", "resent", "reconnects"] {
        assert!(report[key].as_u64().is_some_and(|count| count > 0), "{key}: {said}");
    }
    assert!(report["environment"]["redis"].as_str().is_some_and(|version| !version.is_empty()), "{report:#}");
    assert_eq!(report["seed"].to_string(), SEED);
}

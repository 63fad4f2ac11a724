//! Runs of the program on a Redis of many nodes.

use std::collections::BTreeSet;
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

/// Two storms at a time would be each other's faults.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
/// What must not have happened, at a level at which nothing is lost.
const NEVER: [&str; 9] =
    ["lost", "doubled", "changed", "two_winners", "inversions", "gaps", "replay", "rolled_back", "taken_back"];

/// What it does on these arguments, and what it said.
fn loadtest(arguments: &[&str]) -> (Output, String) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let run = Command::new(env!("CARGO_BIN_EXE_loadtest")).args(arguments).output().expect("the program");
    let said = format!("{}\n{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    (run, said)
}

#[test]
fn a_run_starts_a_cluster_of_its_own() {
    let dir = tempfile::tempdir().expect("a directory");
    let json = dir.path().join("run.json").display().to_string();
    let load = ["--rate", "200", "--warm-up", "500ms", "--duration", "1s", "--lateness-max", "5s", "--quiet", "--json", &json];
    let (run, said) = loadtest(&[&["run", "--spawn", "cluster=3,gateways=2,workers=2"], &load[..]].concat());
    assert!(run.status.success() && said.contains("lost 0  doubled 0  gaps 0  two winners 0"), "{said}");
    let report: Value = serde_json::from_slice(&std::fs::read(&json).expect("a report")).expect("JSON");
    assert_eq!((&report["sent"], &report["verdicts"]), (&200.into(), &200.into()), "{said}");
}

/// Chaos with these kinds of faults, and nothing lost. None where there is no such server.
fn chaos(on: &[&str], seconds: &str, kinds: &[&str]) -> Option<Value> {
    let dir = tempfile::tempdir().expect("a directory");
    let (json, only) = (dir.path().join("chaos.json").display().to_string(), kinds.join(","));
    let load = ["--players", "24", "--rooms", "12", "--rate", "120", "--rude", "false", "--gateways", "2", "--workers", "2"];
    let how = ["chaos", "--seed", "20", "--durability", "replicated", "--duration", seconds, "--only", &only, "--json", &json];
    let (run, said) = loadtest(&[&how[..], &load, on].concat());
    if run.status.code() == Some(2) && said.contains("there is no Valkey 9 here") {
        return None;
    }
    assert!(run.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&std::fs::read(&json).expect("a report")).expect("JSON");
    NEVER.iter().for_each(|key| assert_eq!(report[key], 0, "{key}: {said}"));
    let had: BTreeSet<&str> = report["nodes"]["kinds"].as_object().expect("kinds").keys().map(String::as_str).collect();
    assert_eq!(had, kinds.iter().copied().collect(), "{said}");
    assert_eq!(report["nodes"]["rolled_back_unexplained"], 0, "{said}");
    Some(report)
}

/// Each kind of fault once, one after the other on one cluster; of Valkey, where it is there, because that moves slots at once, too.
#[test]
fn nodes_of_a_cluster_are_broken_and_nothing_is_lost() {
    let kinds = ["slot-move-atomic", "node-kill", "node-pause", "node-failover", "minority", "slot-move", "slot-there-and-back"];
    let report = chaos(&["--cluster", "3x2", "--valkey"], "30s", &kinds).or_else(|| {
        eprintln!("skipped, slot-move-atomic: there is no Valkey 9 here");
        chaos(&["--cluster", "3x2"], "30s", &kinds[1..])
    });
    let report = report.expect("redis-server");
    assert_eq!(report["environment"]["journal"], "a cluster of 3x2");
    let kill = &report["nodes"]["kinds"]["node-kill"];
    assert!(kill["rooms"].as_u64() > Some(0) && kill["plays_on_ms"][0].as_u64() > Some(0), "{report:#}");
}

#[test]
fn a_primary_under_sentinels_is_broken_and_nothing_is_lost() {
    let report = chaos(&["--sentinel"], "14s", &["node-kill", "minority"]).expect("redis-server");
    let kill = &report["nodes"]["kinds"]["node-kill"];
    assert_eq!(kill["rooms"].as_u64(), kill["faults"].as_u64().map(|faults| 12 * faults), "all rooms are there: {report:#}");
}

#[test]
fn what_does_not_fit_together_is_told_in_one_line() {
    for (arguments, named) in [
        (&["--valkey"][..], "add one of them"),
        (
            &["--cluster", "3x1", "--durability", "replicated"],
            "--durability replicated needs a replica of each primary: use --cluster 3x2",
        ),
        (&["--only", "node-kill"], "node-kill needs nodes: add --cluster 3x2, or --sentinel"),
        (&["--sentinel", "--only", "slot-move"], "slot-move needs a cluster: use --cluster 3x2"),
        (&["--cluster", "3x1", "--only", "node-failover"], "node-failover needs replicas"),
        (&["--cluster", "3x2", "--only", "cut"], "cut happens to a single Redis: leave out --cluster"),
        (
            &["--cluster", "3x2", "--only", "slot-move-atomic"],
            "slot-move-atomic needs Valkey 9 (CLUSTER MIGRATESLOTS): add --valkey",
        ),
        (&["--hosts", "3"], "--hosts is for hosts on a cluster: add --cluster 3x2, or use `loadtest hosts`"),
        (&["--cluster", "3x2", "--hosts", "3", "--supervised"], "leave out --supervised or --hosts"),
        (&["--cluster", "3x2", "--only", "host-kill"], "host-kill needs hosts: add --hosts 3"),
        (&["--cluster", "3x2", "--hosts", "3", "--only", "worker-kill"], "worker-kill happens to one process"),
        (&["--cluster", "2x2"], "cluster \"2x2\": use 3 to 9 primaries"),
    ] {
        let (run, said) = loadtest(&[&["chaos"], arguments].concat());
        assert!(run.status.code() == Some(2) && said.contains(named), "{said}");
    }
}

//! A short run of the program itself: every kind of fault once, nothing lost, nothing twice, nothing taken back.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

/// What a failure is run again with: `loadtest chaos --duration 20s --seed 20 --durability disk`.
const SEED: &str = "20";

/// Two storms at a time would be each other's faults.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A run that passed: its report, and what it said.
fn chaos(arguments: &[&str]) -> (Value, String) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().expect("a directory");
    let json = dir.path().join("chaos.json");
    let run = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["chaos", "--seed", SEED])
        .args(arguments)
        .arg("--json")
        .arg(&json)
        .output()
        .expect("the program");
    let said = format!("{}\n{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{said}");
    (serde_json::from_slice(&std::fs::read(&json).expect("a report")).expect("JSON"), said)
}

/// `kinds` of faults, and which of them kill.
fn twenty_seconds_lose_nothing(durability: &str, kinds: usize, kills: [&str; 3]) {
    let (report, said) = chaos(&["--duration", "20s", "--durability", durability]);
    for key in ["lost", "doubled", "changed", "two_winners", "inversions", "gaps", "replay", "rolled_back"] {
        assert_eq!(report[key], 0, "{key}: {said}");
    }
    let had: BTreeSet<&str> = report["faults_by_kind"].as_object().expect("kinds").keys().map(String::as_str).collect();
    assert_eq!(had.len(), kinds, "{had:?}");
    let killed = report["kills_by_kind"].as_object().expect("kills");
    assert!(kills.iter().all(|kind| killed.contains_key(*kind)), "{killed:?}");
    for key in ["actions", "events", "seen", "resent", "reconnects"] {
        assert!(report[key].as_u64().is_some_and(|count| count > 0), "{key}: {said}");
    }
    assert!(report["environment"]["redis"].as_str().is_some_and(|version| !version.is_empty()), "{report:#}");
    assert_eq!(report["seed"].to_string(), SEED);
    for key in ["joins", "actions"] {
        assert!(report["rude"][key].as_u64().is_some_and(|count| count > 0), "{key}: {said}");
    }
}

#[test]
fn on_disk() {
    twenty_seconds_lose_nothing("disk", 22, ["worker-kill", "gateway-kill", "redis-kill"]);
}

#[test]
fn with_a_replica() {
    twenty_seconds_lose_nothing("replicated", 23, ["worker-kill", "gateway-kill", "redis-failover"]);
}

/// Nothing is lost when a replica comes or goes, and nobody takes it for a loss: rooms whose worker is killed meanwhile, so that
/// nobody is left who could tell, go on in their era.
#[test]
fn replicas_that_come_and_go_are_no_loss() {
    let only = "replica-attach,replica-detach,worker-kill";
    let (report, said) = chaos(&["--duration", "15s", "--rude", "false", "--only", only]);
    assert_eq!((&report["rolled_back"], &report["own_ends"]), (&0.into(), &0.into()), "{said}");
}

/// What only a supervisor can have, beside a gateway that is killed by hand: nothing is lost, and all is ready in the end.
#[test]
fn a_supervisor_is_broken_too() {
    let kinds = ["worker-hang", "recycle", "supervisor-kill", "gateway-kill"];
    let size = ["--gateways", "1", "--workers", "0", "--supervised", "gateways=1,workers=1"];
    let (report, said) = chaos(&[&["--duration", "20s", "--rude", "false", "--only", &kinds.join(",")], &size[..]].concat());
    for key in ["lost", "doubled", "changed", "two_winners", "inversions", "gaps", "replay", "rolled_back", "crashes"] {
        assert_eq!(report[key], 0, "{key}: {said}");
    }
    let had: BTreeSet<&str> = report["faults_by_kind"].as_object().expect("kinds").keys().map(String::as_str).collect();
    assert_eq!(had, BTreeSet::from(kinds), "{said}");
    let supervisor = &report["supervisor"];
    let kills = report["faults_by_kind"]["supervisor-kill"].as_u64().expect("a count");
    assert!(kills > 0 && supervisor["starts"] == kills + 1, "{said}");
    for kind in ["worker-hang", "recycle"] {
        assert_eq!(supervisor["done"][kind], report["faults_by_kind"][kind], "{said}");
    }
    assert!(supervisor.get("undone").is_none() && report.get("unready").is_none(), "{said}");
    assert_eq!(report["environment"]["supervised"], serde_json::json!([1, 1]), "{said}");
}

#[test]
fn what_needs_a_supervisor_or_somebody_to_play_with_is_told_in_one_line() {
    for (arguments, named) in [
        (&["--only", "reload"][..], "reload needs a supervisor: add --supervised"),
        (&["--gateways", "0"], "gateways 0: use at least 1, or add --supervised"),
        (&["--supervised", "workers=0"], "counts \"workers=0\""),
    ] {
        let run = Command::new(env!("CARGO_BIN_EXE_loadtest")).arg("chaos").args(arguments).output().expect("the program");
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.code() == Some(2) && said.contains(named), "{said}");
    }
}

/// Rooms of a program, whose timers fire once, in their place, however often the workers are killed.
#[test]
fn timers_fire_once() {
    let arena = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/rules/arena.js");
    let (report, said) = chaos(&["--duration", "15s", "--faults-per-minute", "90", "--rules", arena]);
    for key in ["lost", "doubled", "changed", "two_winners", "inversions", "gaps", "replay"] {
        assert_eq!(report[key], 0, "{key}: {said}");
    }
    for key in ["timers_lost", "timers_doubled", "timers_early", "timers_out_of_order"] {
        assert_eq!(report[key], 0, "{key}: {said}");
    }
    assert!(report["fires"].as_u64() > Some(20), "{said}");
    assert_eq!(report["rules"], arena, "{said}");
}

#[test]
fn what_is_no_program_is_told_in_one_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("a.js");
    std::fs::write(&file, "export default {\n  name: 'x',,\n}").expect("written");
    let run = Command::new(env!("CARGO_BIN_EXE_loadtest")).args(["chaos", "--rules"]).arg(&file).output().expect("the program");
    let said = String::from_utf8_lossy(&run.stderr);
    assert_eq!((run.status.code(), said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.contains("--rules a.js:2:13: SyntaxError"), "{said}");
}

//! Short runs over hosts with clocks of their own: nothing wrong, nothing lost.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

/// Two runs at a time would be each other's faults.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
/// What must not have happened.
const NEVER: [&str; 9] =
    ["lost", "doubled", "changed", "two_winners", "inversions", "gaps", "replay", "rolled_back", "taken_back"];

/// The report of a run that passed, and what it said. None where no hosts can be made.
fn loadtest(arguments: &str) -> Option<(Value, String)> {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().expect("a directory");
    let json = dir.path().join("report.json");
    let size = ["--seed", "20", "--rooms", "12", "--players", "24", "--rate", "120", "--json"];
    let run = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(arguments.split_whitespace())
        .args(size)
        .arg(&json)
        .output()
        .expect("the program");
    let said = format!("{}\n{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    if run.status.code() == Some(2) && said.contains("no hosts can be made here") {
        eprintln!("skipped: {said}");
        return None;
    }
    assert!(run.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&std::fs::read(&json).expect("a report")).expect("JSON");
    NEVER.iter().for_each(|key| assert_eq!(report[key], 0, "{key}: {said}"));
    Some((report, said))
}

/// These faults, on this journal: each begins with rooms that are at home on the host, and all of them play on.
fn homes_move(on: &str, kinds: &[&str]) {
    let Some((report, said)) = loadtest(&format!("hosts --races 8 --only {} {on}", kinds.join(","))) else { return };
    let did = report["did"].as_array().expect("what was done");
    assert_eq!(did.iter().filter_map(|told| told["kind"].as_str()).collect::<Vec<_>>(), kinds, "{said}");
    assert!(did.iter().all(|told| told["rooms"] != 0 && told["stuck"] == 0), "{said}");
    assert!(report["races"]["close"].as_u64() > Some(20), "{said}");
    for key in ["wrong_unflagged", "not_one_winner", "lost"] {
        assert_eq!(report["races"][key], 0, "{key}: {said}");
    }
}

#[test]
fn homes_move_and_nothing_is_wrong() {
    homes_move("--duration 25s", &["kill", "pause", "cut-redis", "cut-players", "drain", "clock-step"]);
}

#[test]
fn homes_move_on_a_cluster() {
    homes_move("--duration 16s --cluster 3x2", &["clock-step", "drain", "kill"]);
}

/// Nodes and hosts break in one run.
#[test]
fn nodes_and_hosts_are_broken_and_nothing_is_lost() {
    let kinds = ["host-cut", "host-kill", "node-kill", "slot-move"];
    let how = "chaos --cluster 3x2 --hosts 3 --durability replicated --duration 24s --faults-per-minute 20 --rude false";
    let Some((report, said)) = loadtest(&format!("{how} --only {}", kinds.join(","))) else { return };
    let came = report["nodes"]["kinds"].as_object().expect("kinds");
    assert_eq!(came.keys().map(String::as_str).collect::<BTreeSet<_>>(), kinds.into(), "{said}");
    for key in ["rooms_rolled_back", "rolled_back_unexplained"] {
        assert_eq!(report["nodes"][key], 0, "{key}: {said}");
    }
    assert_eq!((&report["environment"]["hosts"], &report["environment"]["gateways"]), (&3.into(), &2.into()), "{said}");
}

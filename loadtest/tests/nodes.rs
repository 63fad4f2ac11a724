//! Runs of the program on a Redis of many nodes.

use std::process::{Command, Output};

use serde_json::Value;

/// What it does on these arguments, and what it said.
fn loadtest(arguments: &[&str]) -> (Output, String) {
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

//! A short run over clusters of one and two nodes: everything is measured, and a model comes of it.

use std::process::Command;

use serde_json::Value;

fn scale(args: &[&str]) -> (std::process::Output, String) {
    let run = Command::new(env!("CARGO_BIN_EXE_loadtest")).arg("scale").args(args).output().expect("the program");
    let said = format!("{}\n{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    (run, said)
}

#[test]
fn two_nodes_are_compared_with_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let [json, svg] = ["scale.json", "scale.svg"].map(|name| dir.path().join(name).display().to_string());
    let sizes = ["--nodes", "1,2", "--shards", "8", "--rooms", "24", "--rate", "600", "--rounds", "1", "--duration", "400ms"];
    let (run, said) = scale(&[&sizes[..], &["--json", &json, "--svg", &svg]].concat());
    assert!(run.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&std::fs::read(&json).expect("figures")).expect("JSON");
    let points = report["measured"]["points"].as_array().expect("points");
    assert_eq!(points.len(), 5, "{said}");
    for (point, nodes) in points.iter().zip([1, 2, 1, 1, 1]) {
        let of_nodes = point["each_node"].as_array().expect("nodes");
        assert_eq!((of_nodes.len(), point["nodes"].as_u64()), (nodes, u64::try_from(nodes).ok()), "{point}");
        for node in of_nodes {
            for key in ["cpu_share", "commands_per_event", "calls_per_event", "connections"] {
                assert!(node[key].as_f64().is_some_and(|figure| figure > 0.0), "{key}: {point}");
            }
        }
        for kind in ["gateway", "worker", "redis", "generator"] {
            assert!(point["cpu_us"][kind].as_f64().is_some_and(|us| us > 0.0), "{kind}: {point}");
        }
        for key in ["events_per_flush", "rooms_per_flush", "events_per_commit", "rooms_per_commit"] {
            assert!(point[key].as_f64().is_some_and(|size| size > 0.5), "{key}: {point}");
        }
    }
    let ratio = &report["measured"]["ratios"][0];
    assert!(ratio["nodes"] == 2 && ratio["busiest"].as_f64().is_some_and(|share| (0.2..1.5).contains(&share)), "{said}");
    assert_eq!(report["check"]["runs"].as_array().map(Vec::len), Some(points.len()), "{said}");
    let rows = report["predicted"]["rows"].as_array().expect("predictions");
    assert_eq!(rows.iter().map(|row| row["gateways"].as_u64()).collect::<Vec<_>>(), [Some(10), Some(100), Some(1_000)]);
    let drawn = std::fs::read_to_string(&svg).expect("a picture");
    assert!(drawn.contains("Measured: ") && drawn.contains("Predicted, not measured") && drawn.ends_with("</svg>\n"), "{drawn}");
}

#[test]
fn what_cannot_be_measured_is_refused_in_one_line() {
    for (args, named) in [
        (&["--nodes", "3", "--shards", "2"][..], "shards 2: use at least 3"),
        (&["--rooms", "20000"], "rooms 20000: use at most"),
        (&["--duration", "0s"], "duration 0"),
        (&["--rounds", "100"], "runs: use fewer"),
    ] {
        let (run, said) = scale(args);
        assert_eq!(run.status.code(), Some(2), "{said}");
        assert!(said.trim().starts_with("error: ") && said.trim().lines().count() == 1 && said.contains(named), "{said}");
    }
}

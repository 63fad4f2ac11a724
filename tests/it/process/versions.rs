//! Programs outside whose version rises while rooms are played.

use serde_json::json;

use super::{Configured, children, python};
use crate::support::{GatewayProcess, end_by_signal, program, redis, until};

/// The instances are replaced one by one, by kills, while somebody acts: nothing is decided by a mixture, nothing is lost, and the state is
/// migrated once. Then a version that takes over nothing: the room rests, and goes on with the one before.
#[tokio::test]
async fn a_later_version_takes_over_and_one_that_cannot_leaves_the_room_as_it_is() {
    let redis = redis(&[]);
    let file = tempfile::NamedTempFile::new().expect("a file");
    let is = |version: u32| std::fs::write(file.path(), version.to_string()).expect("written");
    is(1);
    let path = file.path().display().to_string();
    let mut rules = python("tests/it/programs/versions.py", &[("instances", json!(2))]);
    rules["process"].as_array_mut().expect("words").push(json!(path));
    let configured = Configured::new(&[("*", rules)]);
    let gateway = GatewayProcess::on(&redis, &["--actions-per-second", "1000000"]);
    let mut worker = configured.worker(&redis);
    until("all instances", || (worker.ready().0 == 200).then_some(()));
    let mut ann = gateway.ticket("room", "ann").join().await;
    let (mut n, mut counts, mut versions) = (0_u64, Vec::new(), Vec::new());
    let mut add = async |versions: &mut Vec<u64>, counts: &mut Vec<u64>| {
        n += 1;
        let verdict = ann.ask("add", &n.to_string(), "c", json!(null)).await;
        assert_eq!(verdict["outcome"], "granted", "{verdict}");
        versions.push(verdict["body"]["version"].as_u64().expect("a version"));
        counts.push(verdict["body"]["count"].as_u64().expect("a count"));
    };
    for _ in 0..20 {
        add(&mut versions, &mut counts).await;
    }
    is(2);
    end_by_signal(children(worker.process.id())[0], "KILL");
    while versions.last() != Some(&2) {
        add(&mut versions, &mut counts).await;
    }
    for _ in 0..20 {
        add(&mut versions, &mut counts).await;
    }
    assert!(versions.is_sorted(), "{versions:?}");
    let migrated = versions.iter().position(|version| *version == 2).expect("version 2");
    let expected: Vec<u64> = (1..).take(migrated).chain(1_001 + migrated as u64..).take(counts.len()).collect();
    assert_eq!(counts, expected);
    let change = ann.find(|v| v["event"] == "rules").await;
    assert_eq!(
        (&change["rules"], &change["version"], &change["from_version"]),
        (&json!("versions"), &json!(2), &json!(1)),
        "{change}"
    );
    assert_eq!(change.get("program"), None);

    // The next owner takes the state from the commits, and does not migrate again.
    worker.process.kill();
    let worker = configured.worker(&redis);
    n += 1;
    let verdict = ann.ask("add", &n.to_string(), "c", json!(null)).await;
    assert_eq!(verdict["body"], json!({"count": counts.last().expect("a count") + 1, "version": 2}));

    // What version 1 decided cannot be asked of version 2; what version 2 decided is the same again.
    let mut replay = program(&["replay", "--redis", &redis.url(), "--config", &configured.path(), "--room", "room", "--json"]);
    let replayed: serde_json::Value = serde_json::from_slice(&replay.output().expect("replayed").stdout).expect("JSON");
    let deviations = replayed["deviations"].as_array().expect("deviations");
    assert!(deviations.len() == 1 && deviations[0].as_str().is_some_and(|d| d.contains("not resolved again")), "{replayed}");

    is(3);
    for child in children(worker.process.id()) {
        end_by_signal(child, "KILL");
    }
    n += 1;
    ann.act("add", &n.to_string(), "c", json!(null)).await;
    worker.process.line_with("does not take over the state of versions version 2: ValueError: version 3 takes over nothing");
    assert_eq!(ann.close_code().await.0, 1013, "the room rests");
    until("the resting room is counted", || (worker.metric("lasthit_rooms_quarantined") == 1.0).then_some(()));
    is(4);
    for child in children(worker.process.id()) {
        end_by_signal(child, "KILL");
    }
    until("the room goes on", || (worker.metric("lasthit_rooms_quarantined") == 0.0).then_some(()));
    let mut again = gateway.ticket("room", "ann").join().await;
    let verdict = again.ask("add", &n.to_string(), "c", json!(null)).await;
    assert_eq!(verdict["body"], json!({"count": counts.last().expect("a count") + 2_002, "version": 4}));
}

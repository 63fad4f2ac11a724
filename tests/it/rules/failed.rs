//! What rules failed on: kept apart, listed, shown, dropped.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use servers::RedisServer;

use super::super::support::{GatewayProcess, Session, WorkerProcess, program, redis, until};

const RULES: &str = "export default { name: 'fragile', version: 3, state: () => ({ n: 0 }), on: {
    count: (ctx) => ++ctx.state.n,
    bad(ctx, args) { ctx.state.n = 1e6; throw new Error(`as it must: ${args.why}`) },
    twice(ctx) { ctx.timer('later', { after: 20 }); return 'x'.repeat(20000) } },
    timers: { later() { throw new Error('in a timer') } } }";

/// A folder with these rules and a configuration; the settings are those of the only pattern.
struct Setup {
    folder: tempfile::TempDir,
    redis: RedisServer,
}

impl Setup {
    fn new(settings: &str) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::write(folder.path().join("fragile.js"), RULES).expect("written");
        std::fs::write(folder.path().join("lasthit.toml"), format!("[[rooms]]\npattern = 'pit-*'\n{settings}\n"))
            .expect("written");
        Self { folder, redis: redis(&[]) }
    }

    fn worker(&self, more: &[&str]) -> WorkerProcess {
        let config = self.folder.path().join("lasthit.toml");
        WorkerProcess::on(&self.redis, &[&["--config", config.to_str().expect("UTF-8")], more].concat())
    }

    /// Runs `lasthit failed`: exit code, stdout, stderr.
    fn run(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let url = self.redis.url();
        let output = program(&[&["failed"], args, &["--redis", &url]].concat()).output().expect("run");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    fn json(&self, args: &[&str]) -> Value {
        let (code, stdout, stderr) = self.run(&[args, &["--json"]].concat());
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{args:?}: {stdout}");
        serde_json::from_str(&stdout).expect("JSON")
    }

    /// What is listed, as (room, seq).
    fn listed(&self, args: &[&str]) -> Vec<(String, u64)> {
        let list = self.json(&[&["list"], args].concat());
        let all = list["failed"].as_array().expect("list").iter();
        all.map(|one| (one["room"].as_str().expect("room").to_owned(), one["seq"].as_u64().expect("seq"))).collect()
    }

    /// The one line on stderr of a command that fails.
    fn fails(&self, args: &[&str], with: i32) -> String {
        let (code, stdout, stderr) = self.run(args);
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (Some(with), "", 1), "{args:?}: {stderr}");
        stderr
    }
}

const FILE: &str = "rules = { file = 'fragile.js' }";

/// Acts so that it fails. Returns the number of the void verdict.
async fn fail(player: &mut Session, id: &str) -> u64 {
    let failed = player.ask("bad", id, "x", json!({ "why": id })).await;
    assert_eq!((&failed["outcome"], &failed["reason"]), (&json!("void"), &json!("rules_failed")), "{failed}");
    failed["seq"].as_u64().expect("seq")
}

#[tokio::test]
async fn a_hundred_throws_are_listed_shown_and_dropped() {
    let setup = Setup::new("rules = { file = 'fragile.js', stack_lines = 1 }");
    let gateway = GatewayProcess::on(&setup.redis, &[]);
    let _worker = setup.worker(&[]);
    let mut ann = gateway.ticket("pit-1", "ann").join().await;
    let mut seqs = Vec::new();
    for n in 1..=100 {
        seqs.push(fail(&mut ann, &format!("b{n}")).await);
        assert_eq!(ann.ask("count", &format!("c{n}"), "x", json!(null)).await["body"], n);
    }
    let all = setup.json(&["list", "--pattern", "pit-*", "--room", "pit-1"]);
    let listed: Vec<u64> = all["failed"].as_array().expect("list").iter().map(|one| one["seq"].as_u64().expect("seq")).collect();
    assert_eq!(listed, seqs.iter().rev().copied().collect::<Vec<_>>(), "each once, the newest first");
    assert_eq!((setup.listed(&["--room", "pit-2"]), setup.listed(&["--pattern", "*"])), (vec![], vec![]));

    let one = setup.json(&["show", "pit-1", &seqs[41].to_string()]);
    let id = one["id"].as_str().expect("id").to_owned();
    assert_eq!(setup.json(&["show", &id]), one);
    let known = ["pattern", "room", "event", "player", "program", "version", "reason", "error"].map(|key| one[key].clone());
    let error = "fragile.js:3:72: Error: as it must: b42";
    assert_eq!(json!(known), json!(["pit-*", "pit-1", "data", "ann", "fragile", 3, "rules_failed", error]));
    assert_eq!(one["action"], json!({"op": "bad", "id": "b42", "contest": "x", "args": {"why": "b42"}}));
    let stack = one["stack"].as_array().expect("stack");
    assert!(stack.len() == 1 && stack[0].as_str().is_some_and(|line| line.contains("fragile.js:3:")), "{stack:?}");
    let now_ms = lasthit::internals::clock::unix_ms();
    let is_now = |key: &str| one[key].as_u64().is_some_and(|ms| (now_ms - 120_000..=now_ms).contains(&ms));
    assert!(is_now("time_ms") && is_now("room_time_ms"), "{one}");
    let (_, text, _) = setup.run(&["show", &id]);
    assert!(
        ["as it must: b42", "fragile.js:3:", "\"why\":\"b42\"", "fragile version 3"].iter().all(|part| text.contains(part)),
        "{text}"
    );
    let (_, text, _) = setup.run(&["list"]);
    assert!(text.lines().count() == 101 && text.contains("data \"bad\"") && text.ends_with("100 failed events\n"), "{text}");

    assert_eq!(setup.json(&["drop", &id]), json!({"dropped": 1}));
    assert!(setup.fails(&["show", &id], 1).contains(&format!("no failed event {id} is kept")));
    assert!(setup.fails(&["drop", &id], 1).contains(&id));
    assert_eq!((setup.listed(&[]).len(), setup.json(&["drop", "--pattern", "none"])), (99, json!({"dropped": 0})));
    assert_eq!(setup.run(&["drop", "--pattern", "pit-*"]).1, "99 failed events dropped\n");
    assert_eq!(setup.listed(&[]), []);
    fail(&mut ann, "again").await;
    assert_eq!((setup.json(&["drop", "--all"]), setup.listed(&[])), (json!({"dropped": 1}), vec![]));
    for (args, expected) in [
        (&["drop"][..], "is missing"),
        (&["drop", "--all", "pit-1/1/2"], "cannot be used with"),
        (&["show", "pit-1"], "write it as list does, ROOM/ERA/SEQ"),
        (&["list", "--room", "p t"], "--room: "),
    ] {
        let line = setup.fails(args, 2);
        assert!(line.contains(expected), "{args:?}: {line}");
    }
    let alone = program(&["failed"]).output().expect("run");
    assert!(alone.status.code() == Some(2) && String::from_utf8_lossy(&alone.stderr).contains("use list, show or drop"));
}

/// Whatever a decision breaks is kept with its words, and what failed stays when its room has ended.
#[tokio::test]
async fn what_failed_outlives_its_room() {
    let setup = Setup::new(FILE);
    let gateway = GatewayProcess::on(&setup.redis, &[]);
    let worker = setup.worker(&["--room-linger", "100ms", "--retention", "1s"]);
    let mut ann = gateway.ticket("pit-1", "ann").server().join().await;
    assert_eq!(ann.ask("twice", "t", "x", json!(null)).await["reason"], "body_too_large");
    fail(&mut ann, "b").await;
    ann.leave(1000).await;
    until("the room has ended", || (worker.metric("lasthit_rooms_in_memory") == 0.0).then_some(()));
    let list = setup.json(&["list"]);
    let errors: Vec<&str> = list["failed"].as_array().expect("list").iter().filter_map(|one| one["error"].as_str()).collect();
    assert_eq!(errors, ["fragile.js:3:72: Error: as it must: b", "the body has 20003 bytes, at most 16384"]);
    let keys: Vec<String> = redis::cmd("KEYS").arg("*pit-1*").query(&mut admin(&setup.redis)).expect("keys");
    assert_eq!(keys, Vec::<String>::new(), "nothing else is left of the room");
}

fn admin(server: &RedisServer) -> redis::Connection {
    redis::Client::open(server.url()).expect("client").get_connection().expect("connection")
}

#[tokio::test]
async fn of_a_pattern_the_newest_are_kept_over_all_rooms() {
    let setup = Setup::new("keep_failed = 10\nrules = { file = 'fragile.js' }");
    let gateway = GatewayProcess::on(&setup.redis, &[]);
    let _worker = setup.worker(&[]);
    let mut expected = Vec::new();
    let mut players = Vec::new();
    for room in 0..6 {
        players.push(gateway.ticket(&format!("pit-{room}"), "ann").join().await);
    }
    for n in 0..8 {
        for (room, player) in players.iter_mut().enumerate() {
            expected.push((format!("pit-{room}"), fail(player, &format!("b{n}")).await));
        }
    }
    let newest: Vec<_> = expected.into_iter().rev().take(10).collect();
    // Several may have failed within one millisecond, in different shards.
    let sorted = |all: &[(String, u64)]| all.iter().cloned().collect::<BTreeSet<_>>();
    let listed = setup.listed(&[]);
    assert_eq!((listed.len(), sorted(&listed)), (10, sorted(&newest)));
    let stored: Vec<String> = redis::cmd("KEYS").arg("*:failed:*").query(&mut admin(&setup.redis)).expect("keys");
    for key in stored {
        let length: usize = redis::cmd("XLEN").arg(&key).query(&mut admin(&setup.redis)).expect("length");
        assert!(length <= 10, "{key}: {length}");
    }
}

/// Written with their verdicts: a worker that dies in between doubles none, and loses none.
#[tokio::test]
async fn killed_workers_double_and_lose_none() {
    let setup = Setup::new(FILE);
    let gateway = GatewayProcess::on(&setup.redis, &[]);
    let mut worker = setup.worker(&[]);
    let mut ann = gateway.ticket("pit-1", "ann").join().await;
    let mut void = BTreeSet::new();
    for round in 0..4 {
        for n in 0..50 {
            ann.act("bad", &format!("b{round}.{n}"), "x", json!({"why": "killed"})).await;
        }
        ann.answer(&format!("b{round}.9")).await;
        worker.process.kill();
        worker = setup.worker(&[]);
    }
    let last = ann.ask("bad", "last", "x", json!({"why": "last"})).await["seq"].as_u64().expect("seq");
    let page: Vec<u64> = (1..=last).collect();
    let listed = setup.listed(&[]);
    assert_eq!(listed.len(), 201, "each once");
    for (_, seq) in listed {
        assert!(void.insert(seq) && page.contains(&seq), "{seq}");
    }
    // Each action had one verdict, and so had the Open.
    assert_eq!((void.first(), void.last(), last), (Some(&2), Some(&202), 202));
}

/// What no instance decided is void with what the last one did.
#[tokio::test]
async fn a_process_that_ends_is_told_with_the_event() {
    let bad = format!("{}/tests/it/programs/bad.py", env!("CARGO_MANIFEST_DIR"));
    let setup = Setup::new(&format!("rules = {{ process = ['python3', '{bad}'], attempts = 2 }}"));
    let gateway = GatewayProcess::on(&setup.redis, &[]);
    let worker = setup.worker(&[]);
    let mut ann = gateway.ticket("pit-1", "ann").join().await;
    assert_eq!(ann.ask("exit", "e", "x", json!(null)).await["reason"], "rules_failed");
    assert_eq!(ann.ask("large_state", "s", "x", json!(null)).await["reason"], "rules_failed");
    assert_eq!(ann.ask("add", "a", "x", json!(null)).await["body"], 1);
    let list = setup.json(&["list"]);
    let errors: Vec<&str> = list["failed"].as_array().expect("list").iter().filter_map(|one| one["error"].as_str()).collect();
    assert!(errors.len() == 2 && errors[0].starts_with("state_too_large: "), "{errors:?}");
    assert!(errors[1].starts_with("its program did not decide it in 2 attempts: "), "{errors:?}");
    until("failures are counted by program", || (worker.metric("lasthit_rules_failures_total") == 2.0).then_some(()));
}

/// Damaged keys stop no commit; list and show tell them, and drop removes them.
#[tokio::test]
async fn damaged_records_stop_nothing_and_are_told() {
    let setup = Setup::new(FILE);
    let gateway = GatewayProcess::on(&setup.redis, &[]);
    let _worker = setup.worker(&[]);
    let mut ann = gateway.ticket("pit-1", "ann").join().await;
    fail(&mut ann, "first").await;
    let mut admin = admin(&setup.redis);
    let keys: Vec<String> = redis::cmd("KEYS").arg("*:failed:*").query(&mut admin).expect("keys");
    let [key] = keys.as_slice() else { panic!("{keys:?}") };
    redis::cmd("XADD").arg(&[key, "*", "f", "not ours"]).exec(&mut admin).expect("added");
    let (code, stdout, stderr) = setup.run(&["list"]);
    assert!(code == Some(1) && stdout.ends_with("1 failed event\n"), "{stdout}");
    assert!(
        stderr.lines().count() == 1 && stderr.contains("pattern \"pit-*\"") && stderr.contains("failed event has version"),
        "{stderr}"
    );
    redis::cmd("DEL").arg(key).exec(&mut admin).expect("deleted");
    redis::cmd("SET").arg(&[key, "not ours"]).exec(&mut admin).expect("set");
    fail(&mut ann, "second").await;
    assert_eq!(ann.ask("count", "c", "x", json!(null)).await["body"], 1);
    let (code, _, stderr) = setup.run(&["list"]);
    assert!(code == Some(1) && stderr.contains(key) && stderr.contains("is damaged"), "{stderr}");
    assert_eq!(setup.run(&["drop", "--all"]).0, Some(0));
    fail(&mut ann, "third").await;
    assert_eq!(setup.listed(&[]).len(), 1);
    let list = key.strip_suffix(":pit-*").expect("of the pattern");
    redis::cmd("DEL").arg(list).exec(&mut admin).expect("deleted");
    redis::cmd("SET").arg(&[list, "not ours"]).exec(&mut admin).expect("set");
    fail(&mut ann, "fourth").await;
    let (code, _, stderr) = setup.run(&["list"]);
    assert!(code == Some(1) && stderr.contains(list) && stderr.contains("delete it"), "{stderr}");
}

/// Beside the age, a count bounds what a room keeps: without it all 3,000 verdicts would be there for an hour.
#[tokio::test]
async fn a_count_bounds_what_a_room_keeps() {
    let setup = Setup::new(&format!("keep_done = 1000\n{FILE}"));
    let gateway = GatewayProcess::on(&setup.redis, &["--actions-per-second", "1000000"]);
    let mut worker = setup.worker(&["--retention", "1h"]);
    let mut ann = gateway.ticket("pit-1", "ann").join().await;
    for n in 0..60 {
        for m in 0..50 {
            ann.act("count", &format!("c{n}.{m}"), "x", json!(null)).await;
        }
        assert_eq!(ann.answer(&format!("c{n}.49")).await["body"], 50 * (n + 1));
    }
    let mut admin = admin(&setup.redis);
    let mut key = |what: &str| -> String {
        let keys: Vec<String> = redis::cmd("KEYS").arg(format!("*:{what}:pit-1")).query(&mut admin).expect("keys");
        keys.into_iter().next().expect("a key")
    };
    let (out, state) = (key("out"), key("state"));
    let mut seq = |range: [&str; 3]| -> u64 {
        let [command, from, to] = range;
        let found = redis::cmd(command).arg(&[out.as_str(), from, to, "COUNT", "1"]).query(&mut admin);
        let entries: Vec<(String, Vec<Vec<u8>>)> = found.expect("entries");
        entries[0].0.split('-').next().and_then(|seq| seq.parse().ok()).expect("a seq")
    };
    let (oldest, newest) = (seq(["XRANGE", "-", "+"]), seq(["XREVRANGE", "+", "-"]));
    let snapshot: u64 = redis::cmd("HGET").arg(&[&state, "snapshot_seq"]).query(&mut admin).expect("a snapshot");
    // It was trimmed at the last snapshot. Less than a block of the stream may be left beyond the count.
    assert!(newest == 3_001 && oldest <= snapshot && newest - oldest < 2_000, "{oldest} to {newest}, snapshot at {snapshot}");
    // Another owner goes on from there.
    worker.process.kill();
    let _other = setup.worker(&["--retention", "1h"]);
    assert_eq!(ann.ask("count", "after", "x", json!(null)).await["body"], 3_001);
}

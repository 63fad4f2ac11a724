//! Rules in JavaScript, played.

mod failed;
mod versions;

use std::io::Write as _;

use serde_json::{Value, json};

use super::support::{GatewayProcess, Process, WorkerProcess, get, now, program, redis, until};

/// A file of `examples/rules`.
fn example(name: &str) -> String {
    format!("{}/examples/rules/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A file with these rules. It is there as long as the handle.
fn rules(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".js").tempfile().expect("file");
    file.write_all(text.as_bytes()).expect("written");
    file
}

fn path(file: &tempfile::NamedTempFile) -> &str {
    file.path().to_str().expect("UTF-8")
}

#[tokio::test]
async fn the_arena_is_played_over_two_gateways_and_redis() {
    let redis = redis(&[]);
    let (a, b) = (GatewayProcess::on(&redis, &[]), GatewayProcess::on(&redis, &[]));
    let _worker = WorkerProcess::on(&redis, &["--rules", &example("arena.js")]);
    let mut keeper = a.ticket("pit", "keeper").server().join().await;
    let mut ann = a.ticket("pit", "ann").join().await;
    let mut bob = b.ticket("pit", "bob").msgpack().join().await;
    assert_eq!(ann.welcome["state"], json!({"targets": {}}));
    assert_eq!(ann.ask("spawn", "s", "baron", json!({"hp": 5})).await["reason"], "server_only");
    let spawned = keeper.ask("spawn", "s", "baron", json!({"hp": 500, "respawn_ms": 60_000})).await;
    assert_eq!((&spawned["outcome"], &spawned["body"]["hp"], &spawned["round"]), (&json!("granted"), &json!(500), &json!(1)));
    assert_eq!(ann.hit("1", "baron", 300).await["body"]["hp"], 200);
    let last = bob.hit("2", "baron", 300).await;
    assert_eq!((&last["body"]["hp"], &last["body"]["overkill"]), (&json!(0), &json!(100)));
    let late = ann.hit("3", "baron", 1).await;
    assert_eq!((&late["outcome"], &late["reason"]), (&json!("denied"), &json!("late")));
    assert!(late["behind_ns"].as_str().and_then(|ns| ns.parse::<u64>().ok()).is_some(), "{late}");
    assert_eq!(keeper.ask("spawn", "s2", "baron", json!({"hp": 10})).await["round"], 2);
    assert_eq!(ann.ask("nothing", "4", "baron", json!(null)).await["reason"], "unknown_op");
    let cy = b.ticket("pit", "cy").join().await;
    assert_eq!(cy.welcome["state"], json!({"targets": {"baron": {"hp": 10, "max_hp": 10, "round": 2}}}));
}

/// What both arenas are asked, and what everybody sees of it, without what differs from room to room.
async fn play_the_arena(a: &GatewayProcess, b: &GatewayProcess, room: &str) -> Vec<Value> {
    let mut keeper = a.ticket(room, "keeper").server().join().await;
    let mut ann = a.ticket(room, "ann").join().await;
    let mut bob = b.ticket(room, "bob").msgpack().join().await;
    assert_eq!(ann.ask("spawn", "s", "baron", json!({"hp": 5})).await["reason"], "server_only");
    for (id, contest, args) in [
        ("s1", "baron", json!({"hp": 500, "respawn_ms": 150})),
        ("s2", "baron", json!({"hp": 1})),
        ("s3", "wolf", json!({"hp": 0})),
        ("s4", "wolf", json!({"hp": 3, "respawn_ms": 60_000})),
        ("s5", "bear", json!({"hp": 3, "respawn_ms": 99})),
        ("s6", "bear", json!(null)),
    ] {
        keeper.ask("spawn", id, contest, args).await;
    }
    ann.hit("1", "baron", 300).await;
    bob.hit("1", "baron", 300).await;
    assert_eq!(ann.hit("2", "baron", 1).await["reason"], "late");
    let back = ann.find(|v| v["timer"] == "respawn:baron").await;
    assert_eq!((&back["round"], &back["body"]["hp"]), (&json!(2), &json!(500)), "{back}");
    ann.hit("3", "baron", 500).await;
    for (id, op, args) in [("4", "hit", json!({"damage": 0})), ("5", "hit", json!(null)), ("6", "fly", json!(null))] {
        bob.ask(op, id, "wolf", args).await;
    }
    bob.hit("7", "toString", 1).await;
    bob.hit("8", "wolf", 9).await;
    keeper.ask("despawn", "d1", "wolf", json!(null)).await;
    keeper.ask("despawn", "d2", "bear", json!(null)).await;
    keeper.ask("spawn", "s7", "wolf", json!({"hp": 7})).await;
    let cy = b.ticket(room, "cy").join().await;
    bob.hit("9", "wolf", 1).await;
    // Servers see all of the room, and this is the last of it.
    keeper.find(|v| v["id"] == "9").await;
    let seen = keeper.seen.iter().filter(|v| v["event"] != "open").map(|v| {
        let told =
            ["event", "timer", "player", "id", "outcome", "reason", "contest", "round", "body"].map(|field| v[field].clone());
        json!([told, v["behind_ns"].is_string()])
    });
    [cy.welcome["state"].clone()].into_iter().chain(seen).collect()
}

/// Makes JavaScript of `arena.ts`, if the machine has what it takes: esbuild, or a node that strips types.
fn of_typescript(folder: &std::path::Path) -> Option<String> {
    let made = folder.join("made.js").display().to_string();
    let (file, out) = (example("arena.ts"), format!("--outfile={made}"));
    let strip = "const { readFileSync, writeFileSync } = require('node:fs');
        writeFileSync(process.argv[2], require('node:module').stripTypeScriptTypes(readFileSync(process.argv[1], 'utf8')));";
    let ways: [(&str, &[&str]); 2] =
        [("esbuild", &[&file, "--bundle", "--format=esm", &out]), ("node", &["-e", strip, &file, &made])];
    let ran = |(program, args): &(&str, &[&str])| {
        std::process::Command::new(program).args(*args).output().is_ok_and(|output| output.status.success())
    };
    ways.iter().any(ran).then_some(made)
}

#[tokio::test]
async fn an_arena_in_typescript_is_played_as_the_one_in_javascript() {
    let folder = tempfile::tempdir().expect("folder");
    let made = of_typescript(folder.path());
    if made.is_none() {
        eprintln!("left out: neither esbuild nor a node that strips types is there; the bundle that is kept is played");
    }
    let files = [("js-*", Some(example("arena.js"))), ("kept-*", Some(example("arena.bundled.js"))), ("made-*", made)];
    let rooms = files.iter().filter_map(|(pattern, file)| {
        let file = json!(file.as_ref()?);
        Some(format!("[[rooms]]\npattern = \"{pattern}\"\nrules = {{ file = {file} }}\n"))
    });
    let config = folder.path().join("lasthit.toml");
    std::fs::write(&config, rooms.collect::<String>()).expect("written");
    let redis = redis(&[]);
    let (a, b) = (GatewayProcess::on(&redis, &[]), GatewayProcess::on(&redis, &[]));
    let _worker = WorkerProcess::on(&redis, &["--config", config.to_str().expect("UTF-8")]);
    let expected = play_the_arena(&a, &b, "js-1").await;
    assert!(expected.len() > 20, "{expected:#?}");
    assert_eq!(play_the_arena(&a, &b, "kept-1").await, expected);
    if files[2].1.is_some() {
        assert_eq!(play_the_arena(&a, &b, "made-1").await, expected);
    }
}

#[tokio::test]
async fn a_worker_takes_over_what_another_one_has_decided() {
    let redis = redis(&[]);
    let a = GatewayProcess::on(&redis, &[]);
    let mut one = WorkerProcess::on(&redis, &["--rules", &example("arena.js")]);
    let mut keeper = a.ticket("pit", "keeper").server().join().await;
    keeper.ask("spawn", "s", "baron", json!({"hp": 1000})).await;
    for n in 0..300 {
        keeper.act("hit", &format!("h{n}"), "baron", json!({"damage": 1})).await;
    }
    assert_eq!(keeper.answer("h299").await["body"]["hp"], 700);
    one.process.kill();
    let _two = WorkerProcess::on(&redis, &["--rules", &example("arena.js")]);
    assert_eq!(keeper.hit("after", "baron", 1).await["body"]["hp"], 699);
    let replay =
        program(&["replay", "--redis", &redis.url(), "--room", "pit", "--rules", &example("arena.js")]).output().expect("run");
    let told = String::from_utf8_lossy(&replay.stdout).into_owned();
    assert!(
        replay.status.success() && told.contains("303 of 303 are the same"),
        "{told} {}",
        String::from_utf8_lossy(&replay.stderr)
    );
}

/// What fails is void, and nothing but that: the state goes on, others are answered, the room stays in memory.
#[tokio::test]
async fn throws() {
    let file = rules(
        "export default { name: 'fragile', version: 1, state: () => ({ n: 0 }), on: {
            count: (ctx) => ++ctx.state.n,
            bad(ctx) { ctx.state.n = 1e6; throw new Error('as it must') } } }",
    );
    let serve = GatewayProcess::serve(&["--rules", path(&file)]);
    let mut ann = serve.ticket("pit", "ann").join().await;
    let mut bob = serve.ticket("pit", "bob").join().await;
    for n in 1..=100 {
        for m in 0..3 {
            bob.act("bad", &format!("b{n}.{m}"), "x", json!(null)).await;
        }
        assert_eq!(ann.ask("count", &format!("c{n}"), "x", json!(null)).await["body"], n);
    }
    let failed = bob.answer("b100.2").await;
    assert_eq!((&failed["outcome"], &failed["reason"]), (&json!("void"), &json!("rules_failed")), "{failed}");
    until("all failures are counted", || (serve.metric("lasthit_rules_failures_total") == 300.0).then_some(()));
    assert_eq!(serve.metric("lasthit_rooms_in_memory"), 1.0);
    let (_, metrics) = get(serve.admin, "/metrics");
    assert!(metrics.contains("lasthit_rules_seconds_count{program=\"fragile\"}"), "{metrics}");
    let line = serve.process.line_with("a program failed");
    assert!(line.contains("as it must") && line.contains(".js:3:"), "{line}");
    let told = serve.process.lines().iter().filter(|line| line.contains("a program failed")).count();
    assert!(told < 100, "{told} lines");
}

#[tokio::test]
async fn a_program_that_never_ends_delays_its_own_room_only() {
    let file = rules(
        "export default { name: 'slow', version: 1, state: () => ({ n: 0 }), on: {
            count: (ctx) => ++ctx.state.n, hang(ctx) { ctx.state.n = 7; for (;;); } } }",
    );
    let mut configured = tempfile::Builder::new().suffix(".toml").tempfile().expect("file");
    let rules = format!("[[rooms]]\npattern = '*'\nrules = {{ file = '{}', budget_ms = 1000 }}\n", path(&file));
    configured.write_all(rules.as_bytes()).expect("written");
    let serve = GatewayProcess::serve(&["--config", path(&configured), "--concurrency", "2"]);
    let mut ann = serve.ticket("pit", "ann").join().await;
    let mut bob = serve.ticket("other", "bob").join().await;
    for n in 1..=3 {
        let (hang, count) = (format!("h{n}"), format!("c{n}"));
        ann.act("hang", &hang, "x", json!(null)).await;
        let hanging = async {
            assert_eq!(ann.answer(&hang).await["reason"], "rules_failed");
            now()
        };
        let other = async {
            assert_eq!(bob.ask("count", &count, "x", json!(null)).await["body"], n);
            now()
        };
        let (void, answered) = tokio::join!(hanging, other);
        assert!(answered < void, "Bob waited for Ann's hang");
        assert_eq!(ann.ask("count", &count, "x", json!(null)).await["body"], n);
    }
}

/// The search takes a second, and the interpreter does not ask whether to go on.
#[tokio::test]
async fn a_built_in_that_cannot_be_stopped_costs_its_own_thread_only() {
    let file = rules(
        "export default { name: 'search', version: 1, state: () => ({ n: 0 }), on: {
            count: (ctx) => ++ctx.state.n,
            search: (ctx) => 'a'.repeat(4e4).indexOf('a'.repeat(2e4) + 'b') } }",
    );
    let serve = GatewayProcess::serve(&["--rules", path(&file), "--concurrency", "1", "--rules-timeout-ms", "100"]);
    let mut ann = serve.ticket("pit", "ann").join().await;
    let mut bob = serve.ticket("other", "bob").join().await;
    ann.act("search", "s", "x", json!(null)).await;
    until("it is given up", || (serve.metric("lasthit_rules_overruns_total") >= 1.0).then_some(()));
    for n in 1..=20 {
        assert_eq!(bob.ask("count", &format!("c{n}"), "x", json!(null)).await["body"], n);
    }
    let failed = ann.answer("s").await;
    assert_eq!((&failed["outcome"], &failed["reason"]), (&json!("void"), &json!("rules_failed")), "{failed}");
    assert_eq!(ann.ask("count", "c", "x", json!(null)).await["body"], 1);
    let threads = || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", serve.process.id())).expect("tasks");
        let name = |task: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(task.ok()?.path().join("comm")).ok();
        tasks.filter_map(name).filter(|name| name.starts_with("rules-")).count()
    };
    until("the threads that were given up end", || (threads() == 1).then_some(()));
}

#[test]
fn what_is_no_program_ends_the_start_with_one_line() {
    let file = rules("export default {\n  name: 'x',,\n}");
    let line = Process::start(&["serve", "--rules", path(&file)], &[]).fails(2);
    assert!(line.starts_with("--rules: ") && line.contains(".js:2:13: SyntaxError"), "{line}");
}

#[tokio::test]
async fn a_slain_target_is_back_when_its_timer_says_so() {
    let serve = GatewayProcess::serve(&["--rules", &example("arena.js")]);
    let mut keeper = serve.ticket("pit", "keeper").server().join().await;
    keeper.ask("spawn", "s", "baron", json!({"hp": 3, "respawn_ms": 200})).await;
    assert_eq!(keeper.hit("1", "baron", 3).await["body"]["hp"], 0);
    let back = keeper.find(|v: &Value| v["event"] == "timer").await;
    assert_eq!(back["body"], json!({"target": "baron", "hp": 3, "max_hp": 3, "round": 2}), "{back}");
    assert_eq!(back["round"], 2);
    assert_eq!(keeper.hit("2", "baron", 3).await["round"], 2);
}

#[tokio::test]
async fn a_lot_closes_at_its_moment() {
    let serve = GatewayProcess::serve(&["--rules", &example("auction.js")]);
    let mut house = serve.ticket("hall", "house").server().join().await;
    let mut ann = serve.ticket("hall", "ann").join().await;
    house.ask("open", "o", "vase", json!({"ms": 300, "from": 10})).await;
    assert_eq!(ann.ask("bid", "1", "vase", json!({"amount": 5})).await["reason"], "too_low");
    assert_eq!(ann.ask("bid", "2", "vase", json!({"amount": 50})).await["outcome"], "granted");
    let closed = house.find(|v: &Value| v["event"] == "timer").await;
    assert_eq!((&closed["body"]["by"], &closed["body"]["amount"]), (&json!("ann"), &json!(50)), "{closed}");
    let late = ann.ask("bid", "3", "vase", json!({"amount": 60})).await;
    assert_eq!((&late["reason"], late["behind_ns"].is_string()), (&json!("late"), true), "{late}");
}

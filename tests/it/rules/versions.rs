//! Programs change by version while rooms are played.

use std::time::Duration;

use lasthit::journal::redis::catalog_key;
use serde_json::{Value, json};
use servers::RedisServer;

use super::super::support::{GatewayProcess, Heard, PATIENCE, Session, WorkerProcess, now, program, redis};

/// Counts hits, and says by which version. `stubborn` rooms refuse every later version.
const FIRST: &str = "export default { name: 'pit', version: 1, state: () => ({ n: 0 }), on: {
    hit: (ctx) => [1, ++ctx.state.n],
    harden(ctx) { ctx.state.stubborn = true } } };";
/// Keeps the count under another name.
const SECOND: &str = "export default { name: 'pit', version: 2, state: () => ({ count: 0 }),
    migrate(state, from) { if (state.stubborn) throw new Error('stubborn'); return { count: state.n, froms: [from] } },
    on: { hit: (ctx) => [2, ++ctx.state.count] } };";
/// Takes over no state.
const THIRD: &str = "export default { name: 'pit', version: 3, state: () => ({}),
    migrate() { throw new Error('as it must') }, on: { hit: () => [3, 0] } };";
const FOURTH: &str = "export default { name: 'pit', version: 4, state: () => ({ count: 0, froms: [] }),
    migrate: ({ count, froms }, from) => ({ count, froms: [...froms, from] }),
    on: { hit: (ctx) => [4, ++ctx.state.count], froms: (ctx) => ctx.state.froms } };";

struct Setup {
    folder: tempfile::TempDir,
    redis: RedisServer,
}

impl Setup {
    /// What workers start with is version 1.
    fn new() -> Self {
        let setup = Self { folder: tempfile::tempdir().expect("folder"), redis: redis(&[]) };
        setup.write("lasthit.toml", "[[rooms]]\npattern = 'pit-*'\nrules = { file = 'start.js' }\n");
        setup.write("start.js", FIRST);
        setup
    }

    /// The path of a file with this text.
    fn write(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        // As editors do.
        let new = self.folder.path().join("new");
        std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, &path)).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    }

    fn worker(&self, more: &[&str]) -> WorkerProcess {
        let config = self.folder.path().join("lasthit.toml");
        WorkerProcess::on(&self.redis, &[&["--config", config.to_str().expect("UTF-8")], more].concat())
    }

    /// Runs `lasthit` with the Redis of this setup: exit code, stdout, stderr.
    fn run(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let url = self.redis.url();
        let output = program(&[args, &["--redis", &url]].concat()).output().expect("run");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    #[track_caller]
    fn json(&self, args: &[&str], code: i32) -> Value {
        let (ended, stdout, stderr) = self.run(&[args, &["--json"]].concat());
        assert_eq!((ended, stderr.as_str()), (Some(code), ""), "{args:?}: {stdout}");
        serde_json::from_str(&stdout).expect("JSON")
    }

    /// The one line on stderr of a command that fails.
    #[track_caller]
    fn fails(&self, args: &[&str], with: i32) -> String {
        let (code, stdout, stderr) = self.run(args);
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (Some(with), "", 1), "{args:?}: {stderr}");
        stderr
    }

    /// Pushes this text. Returns the answer.
    #[track_caller]
    fn push(&self, text: &str) -> Value {
        let file = self.write("pushed.js", text);
        self.json(&["rules", "push", &file, "--pattern", "pit-*"], 0)
    }

    /// The record of a room, resolved again, is the same.
    #[track_caller]
    fn replays(&self, room: &str) -> Value {
        let config = self.folder.path().join("lasthit.toml");
        let told = self.json(&["replay", "--room", room, "--config", config.to_str().expect("UTF-8")], 0);
        assert_eq!((&told["from"], &told["deviations"]), (&json!(1), &json!([])), "{told}");
        told
    }
}

fn is_change(verdict: &Value, version: u64) -> bool {
    verdict["event"] == "rules" && verdict["version"] == version
}

/// Hits until the room has changed to this version, or refused it: workers hear of a push, and rooms change with their next event.
async fn change(session: &mut Session, version: u64) -> Value {
    for n in 0.. {
        if let Some(seen) = session.seen.iter().find(|v| is_change(v, version)) {
            return seen.clone();
        }
        hit(session, &format!("to-{version}-{n}")).await;
    }
    unreachable!()
}

/// Hits, and returns the version that decided and the count.
async fn hit(session: &mut Session, id: &str) -> (u64, u64) {
    let answer = session.ask("hit", id, "baron", json!(null)).await;
    assert_eq!(answer["outcome"], "granted", "{answer}");
    (answer["body"][0].as_u64().expect("version"), answer["body"][1].as_u64().expect("count"))
}

/// Rooms with a player at each gateway, who hit in turns.
struct Load {
    rooms: Vec<(String, [Session; 2])>,
    hits: u64,
}

impl Load {
    /// Everybody hits, until all rooms have changed to this version, or refused it, and are decided by `by`. Every hit counts once.
    async fn until(&mut self, version: u64, expected: u64) {
        loop {
            self.hits += 1;
            let mut all = true;
            for (room, players) in &mut self.rooms {
                let player = &mut players[usize::from(self.hits.is_multiple_of(2))];
                let (by, count) = hit(player, &format!("h{}", self.hits)).await;
                assert_eq!(count, self.hits, "{room}");
                assert!(by <= expected, "{room} by {by}");
                all &= by == expected && (version == 1 || player.seen.iter().any(|v| is_change(v, version)));
            }
            if all {
                return;
            }
        }
    }
}

#[tokio::test]
async fn three_pushes_and_a_migrate_that_fails_while_a_worker_is_killed() {
    let setup = Setup::new();
    let gateways = [GatewayProcess::on(&setup.redis, &[]), GatewayProcess::on(&setup.redis, &[])];
    let mut one = setup.worker(&[]);
    let other = setup.worker(&[]);
    let mut load = Load { rooms: Vec::new(), hits: 0 };
    for n in 0..6 {
        let room = format!("pit-{n}");
        let ann = gateways[0].ticket(&room, "ann").join().await;
        let bob = gateways[1].ticket(&room, "bob").msgpack().join().await;
        load.rooms.push((room, [ann, bob]));
    }
    load.until(1, 1).await;
    let second = setup.push(SECOND);
    assert_eq!(
        (&second["pushed"], &second["before"]["version"], &second["now"]["version"]),
        (&json!(true), &json!(1), &json!(2))
    );
    load.until(2, 2).await;
    for (room, [ann, bob]) in &mut load.rooms {
        let seen = ann.find(|v| is_change(v, 2)).await;
        let told = ["outcome", "rules", "version", "from_version", "program"].map(|field| seen[field].clone());
        assert_eq!(told, [json!("granted"), json!("pit"), json!(2), json!(1), second["now"]["program"].clone()], "{room} {seen}");
        assert_eq!(bob.find(|v| is_change(v, 2)).await["seq"], seen["seq"]);
    }
    let third = setup.push(THIRD);
    assert!(third["now"]["push"].as_u64() > second["now"]["push"].as_u64());
    load.until(3, 2).await;
    for (room, [ann, _]) in &mut load.rooms {
        let refused = ann.find(|v| is_change(v, 3)).await;
        assert_eq!((&refused["outcome"], &refused["reason"]), (&json!("void"), &json!("rules_failed")), "{room} {refused}");
    }
    one.process.kill();
    setup.push(FOURTH);
    load.until(4, 4).await;
    // It has version 1 in its file, and goes on with what was pushed.
    let late = setup.worker(&[]);
    let warned = late.process.line_with("stay with the program");
    assert!(warned.contains("start.js has version 1") && warned.contains("decided by version 4: raise it"), "{warned}");
    drop(other);
    load.hits += 1;
    for (room, [ann, bob]) in &mut load.rooms {
        assert_eq!(hit(ann, "after").await, (4, load.hits), "{room}");
        assert_eq!(bob.ask("froms", "f", "baron", json!(null)).await["body"], json!([1, 2]), "{room}");
        let seen: Vec<&Value> = ann.seen.iter().filter(|v| v["event"] == "rules").map(|v| &v["version"]).collect();
        assert_eq!(seen, [2, 3, 4], "{room}");
    }
    let failed = setup.json(&["failed", "list"], 0);
    let failed = failed["failed"].as_array().expect("a list");
    assert!(
        failed.len() == 6 && failed.iter().all(|f| f["error"].as_str().is_some_and(|e| e.contains("as it must"))),
        "{failed:?}"
    );
    for n in 0..6 {
        setup.replays(&format!("pit-{n}"));
    }
}

#[tokio::test]
async fn a_damaged_text_rests_the_rooms_that_need_it_and_no_others() {
    let setup = Setup::new();
    let gateway = GatewayProcess::on(&setup.redis, &[]);
    let mut worker = setup.worker(&[]);
    let mut rests = gateway.ticket("pit-rests", "ann").join().await;
    rests.ask("harden", "h", "baron", json!(null)).await;
    assert_eq!(hit(&mut rests, "1").await, (1, 1));
    let pushed = setup.push(SECOND);
    assert_eq!(change(&mut rests, 2).await["outcome"], "void");
    let (by, before) = hit(&mut rests, "2").await;
    assert_eq!(by, 1);
    // It begins with version 2, and needs no other.
    let mut goes = gateway.ticket("pit-goes", "ann").join().await;
    assert_eq!(hit(&mut goes, "1").await, (2, 1));
    setup.write("start.js", SECOND);
    worker.process.kill();
    let first = pushed["before"]["program"].as_str().expect("program").to_owned();
    setup.redis.ask::<()>(&["HSET", &catalog_key("programs"), &first, "damaged"]).expect("set");
    let list = setup.json(&["rules", "list"], 0);
    assert_eq!(list["others"], json!([{"program": first, "bytes": 7}]), "{list}");
    let worker = setup.worker(&[]);
    rests.act("hit", "3", "baron", json!(null)).await;
    for n in 2..20 {
        assert_eq!(hit(&mut goes, &n.to_string()).await, (2, n));
    }
    let told = worker.process.line_with(&first);
    assert!(told.contains("pit-rests") && told.contains("lasthit rules push"), "{told}");
    // Its version is too low to decide, but its text is there again.
    let file = setup.write("first.js", FIRST);
    let refused = setup.fails(&["rules", "push", &file, "--pattern", "pit-*"], 1);
    assert!(refused.contains("has version 1") && refused.contains("decided by version 2: raise it"), "{refused}");
    let (code, reason) = rests.close_code().await;
    assert!(code == 1013 && reason.contains("cannot be continued right now"), "{code} {reason}");
    let start = now();
    let mut back = loop {
        let mut session = gateway.ticket("pit-rests", "ann").open().await;
        match session.next().await {
            Heard::Message(welcome) if welcome["t"] == "welcome" => break gateway.ticket("pit-rests", "bob").join().await,
            _ => assert!(start.elapsed() < PATIENCE, "it rests for ever"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    // What was hit while it rested counts.
    assert_eq!(hit(&mut back, "4").await, (1, before + 2));
    setup.replays("pit-rests");
    setup.replays("pit-goes");
}

#[tokio::test]
async fn a_watched_file_and_a_hangup_change_rooms() {
    let setup = Setup::new();
    let file = setup.write("watched.js", FIRST);
    let serve = GatewayProcess::serve(&["--rules", &file, "--watch"]);
    let mut ann = serve.ticket("pit", "ann").join().await;
    assert_eq!(hit(&mut ann, "1").await, (1, 1));
    setup.write("watched.js", "export default { name: 'pit', version: 2, on: {");
    let told = serve.process.line_with("rooms stay with their program");
    assert!(told.contains("watched.js:1:") && told.contains("SyntaxError"), "{told}");
    assert_eq!(hit(&mut ann, "2").await, (1, 2));
    setup.write("watched.js", SECOND);
    let seen = change(&mut ann, 2).await;
    assert_eq!((&seen["outcome"], &seen["from_version"]), (&json!("granted"), &json!(1)), "{seen}");
    assert_eq!(hit(&mut ann, "3").await.0, 2);

    let gateway = GatewayProcess::on(&setup.redis, &[]);
    let worker = setup.worker(&[]);
    let mut ann = gateway.ticket("pit-1", "ann").join().await;
    assert_eq!(hit(&mut ann, "1").await, (1, 1));
    setup.write("start.js", SECOND);
    worker.process.signal("HUP");
    assert_eq!(change(&mut ann, 2).await["outcome"], "granted");
    assert_eq!(hit(&mut ann, "2").await.0, 2);
    setup.replays("pit-1");
}

#[tokio::test]
async fn a_watched_program_that_remembers_is_told_with_both_decisions() {
    let setup = Setup::new();
    let text = "let seen = 0;\nexport default { name: 'pit', version: 1, on: { hit: () => [1, ++seen] } };";
    let file = setup.write("impure.js", text);
    let serve = GatewayProcess::serve(&["--rules", &file, "--watch"]);
    let mut ann = serve.ticket("pit", "ann").join().await;
    let mut hits = 0;
    // The context that checks may have seen as many events, now and then.
    while serve.metric("lasthit_rules_impure_total") == 0.0 {
        hits += 1;
        assert!(hits < 100, "nothing is found");
        hit(&mut ann, &hits.to_string()).await;
    }
    let told = serve.process.line_with("; again ");
    assert!(told.contains("first Granted") && told.contains("body [1,"), "{told}");
}

#[tokio::test]
async fn programs_are_pushed_listed_tried_and_dropped() {
    let setup = Setup::new();
    let file = setup.write("two.js", SECOND);
    let push = |file: &str, pattern: &str| ["rules", "push", file, "--pattern", pattern].map(str::to_owned);
    let refused = |args: [String; 5]| setup.fails(&args.each_ref().map(String::as_str), 1);
    assert!(refused(push(&file, "pit-*")).contains("nor any others: start a worker with one first"));
    let gateway = GatewayProcess::on(&setup.redis, &[]);
    let _worker = setup.worker(&[]);
    let unknown = refused(push(&file, "*"));
    assert!(unknown.contains("\"*\"") && unknown.contains("the patterns that have one are \"pit-*\""), "{unknown}");
    let other = setup.write("other.js", &SECOND.replace("'pit'", "'pot'"));
    let named = refused(push(&other, "pit-*"));
    assert!(named.contains("calls itself \"pot\"") && named.contains("decided by \"pit\": give it the same name"), "{named}");
    let wrong = setup.write("wrong.js", "export default { name: 'pit' };");
    assert!(refused(push(&wrong, "pit-*")).contains("wrong.js:1:"), "its place");

    let mut ann = gateway.ticket("pit-1", "ann").join().await;
    for n in 1..=3 {
        assert_eq!(hit(&mut ann, &n.to_string()).await, (1, n));
    }
    // Tried before it is pushed: it says another version in every hit.
    let tried = setup.json(&["rules", "try", "--room", "pit-1", "--file", &file], 1);
    let otherwise = tried["otherwise"].as_array().expect("a list");
    let hits: Vec<&Value> = otherwise.iter().filter(|one| one["event"] == "data").collect();
    assert_eq!((hits.len(), otherwise.len(), &tried["from"]), (3, 3, &json!(1)), "{tried}");
    assert_eq!(
        (&hits[2]["recorded"]["body"], &hits[2]["now"]["body"], &hits[2]["player"]),
        (&json!([1, 3]), &json!([2, 3]), &json!("ann"))
    );
    let (code, text, _) = setup.run(&["rules", "try", "--room", "pit-1", "--file", &file]);
    assert!(code == Some(1) && text.contains("3 otherwise") && text.contains("body was [1,3], is [2,3]"), "{text}");
    let same = setup.write("same.js", &format!("// As before.\n{FIRST}"));
    assert_eq!(setup.json(&["rules", "try", "--room", "pit-1", "--file", &same], 0)["otherwise"], json!([]));
    assert!(setup.fails(&["rules", "try", "--room", "pit-9", "--file", &file], 2).contains("pit-9 does not exist"));

    let first = setup.json(&["rules", "list"], 0)["patterns"][0]["program"].clone();
    let second = setup.push(SECOND)["now"]["program"].clone();
    assert_eq!(change(&mut ann, 2).await["program"], second);
    assert_eq!(hit(&mut ann, "4").await.0, 2);
    let again = setup.push(SECOND);
    assert_eq!((&again["pushed"], &again["now"]["program"]), (&json!(false), &second));
    let forced = setup.json(&["rules", "push", &file, "--pattern", "pit-*", "--again"], 0);
    assert_eq!((&forced["pushed"], &forced["now"]["program"], &forced["before"]["program"]), (&json!(true), &second, &second));

    // A dump has the texts, so that it is replayed and tried without the deployment.
    let dump = setup.folder.path().join("pit-1.dump").to_str().expect("UTF-8").to_owned();
    assert_eq!(setup.run(&["dump", "--room", "pit-1", "--file", &dump]).0, Some(0));
    let offline = |args: &[&str]| {
        let output = program(args).output().expect("run");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
    };
    let (code, told) = offline(&["replay", "--file", &dump, "--rules", &setup.write("late.js", FOURTH)]);
    assert_eq!(code, Some(0), "{told}");
    let (code, told) = offline(&["rules", "try", "--dump", &dump, "--file", &file]);
    assert!(code == Some(1) && told.contains("body was [1,3], is [2,3]"), "{told}");
    let (code, told) = offline(&["rules", "try", "--dump", &dump, "--file", &file, "--room", "pit-2"]);
    assert!(code == Some(2) && told.contains("the dump is of room pit-1"), "{told}");

    // Nothing happens in the room before another one comes, so the next one decides nothing.
    let unused = setup.push(&SECOND.replace("version: 2", "version: 3"))["now"]["program"].clone();
    let last = setup.push(&SECOND.replace("version: 2", "version: 4"))["now"]["program"].clone();
    let list = setup.json(&["rules", "list"], 0);
    assert_eq!((&list["patterns"][0]["program"], list["others"].as_array().map(Vec::len)), (&last, Some(4)), "{list}");
    let lately = setup.json(&["rules", "drop", "--unused"], 0);
    // The one of another name was kept although it was refused, and decided nothing.
    let counts = ["dropped", "superseded_lately", "used_by_rooms"].map(|what| lately[what].as_array().map(Vec::len));
    assert_eq!(counts, [Some(1), Some(3), Some(0)], "{lately}");
    let record: String = setup.redis.ask(&["HGET", &catalog_key("rules"), "pit-*"]).expect("a record");
    let mut fields: Vec<String> = record.split('|').map(str::to_owned).collect();
    fields[3] = (fields[3].parse::<u64>().expect("ms") - 3_600_000).to_string();
    setup.redis.ask::<()>(&["HSET", &catalog_key("rules"), "pit-*", &fields.join("|")]).expect("set");
    let dropped = setup.json(&["rules", "drop", "--unused"], 0);
    let mut used: Vec<&str> = dropped["used_by_rooms"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    used.sort_unstable();
    let mut expected = [first.as_str().expect("a name"), second.as_str().expect("a name")];
    expected.sort_unstable();
    assert_eq!((used.as_slice(), &dropped["dropped"]), (&expected[..], &json!([unused])), "{dropped}");
    setup.replays("pit-1");

    // A snapshot that this version cannot read may name any program.
    let keys: Vec<String> = setup.redis.ask(&["KEYS", "lasthit:*:state:pit-1"]).expect("keys");
    let [state] = &keys[..] else { panic!("{keys:?}") };
    setup.redis.ask::<()>(&["HDEL", state, "snapshot_parts"]).expect("set");
    setup.redis.ask::<()>(&["HSET", state, "snapshot_seq", "1", "snapshot_cursor", "0-0"]).expect("set");
    setup.redis.ask::<()>(&["SET", &state.replace(":state:", ":snapshot:"), "\u{63}, of a later version"]).expect("set");
    let kept = setup.json(&["rules", "list"], 0)["others"].clone();
    let why = setup.fails(&["rules", "drop", "--unused"], 1);
    assert!(why.contains("nothing is dropped") && why.contains("room pit-1") && why.contains("snapshot"), "{why}");
    assert_eq!(setup.json(&["rules", "list"], 0)["others"], kept);
}

/// Counts hits, and ticks by itself. `hit` and `tick` are what another version does besides, and says.
fn ticking(version: u32, migrate: &str, hit: &str, tick: &str) -> String {
    format!(
        "export default {{ name: 'pit', version: {version}, state: () => ({{ n: 0 }}), migrate(state) {{ {migrate}; return state }},
        on: {{ hit(ctx) {{ {hit}; return [1, ++ctx.state.n] }},
            begin(ctx) {{ ctx.timer('tick', {{ every: 300 }}); ctx.timer('far', {{ after: 3_600_000 }}) }} }},
        timers: {{ tick: () => '{tick}', far() {{}}, extra: () => 'extra' }} }};"
    )
}

/// From the room's beginning, and from a snapshot in which timers are pending.
#[tokio::test]
async fn what_is_tried_fires_the_timers_of_the_record_and_those_that_would_be_due() {
    let setup = Setup::new();
    setup.write("start.js", &ticking(1, "", "", "tick"));
    let gateway = GatewayProcess::on(&setup.redis, &["--actions-per-second", "1000000"]);
    let _worker = setup.worker(&["--retention", "1s"]);
    let mut ann = gateway.ticket("pit-1", "ann").join().await;
    ann.ask("begin", "b", "baron", json!(null)).await;
    let same = setup.write("same.js", &ticking(1, "", "", "tick"));
    let louder = setup.write("louder.js", &ticking(2, "", "", "TICK"));
    let quiet = setup.write("quiet.js", &ticking(2, "", "ctx.cancel('tick')", "tick"));
    let extra = setup.write("extra.js", &ticking(2, "", "ctx.timer('extra', { after: 16 })", "tick"));
    let tried = |file: &str, code: i32| setup.json(&["rules", "try", "--room", "pit-1", "--file", file], code);
    // Two ticks that are resolved again, with a hit between them.
    let is_tick = |verdict: &Value| verdict["timer"] == "tick";
    let mut hits = 0;
    let mut two_ticks = async |ann: &mut Session| loop {
        for _ in 0..2 {
            while !is_tick(&ann.recv().await) {}
            hits += 1;
            assert_eq!(hit(ann, &format!("h{hits}")).await, (1, hits));
        }
        let told = tried(&same, 0);
        assert_eq!(told["otherwise"], json!([]), "{told}");
        let from = told["from"].as_u64().expect("a seq");
        let ticks = ann.seen.iter().filter(|v| is_tick(v) && v["seq"].as_u64() >= Some(from)).count();
        if ticks > 1 {
            return (from, ticks);
        }
    };
    let (mut from, mut ticks) = two_ticks(&mut ann).await;
    assert_eq!(from, 1);
    for trimmed in [false, true] {
        let mut batches = 0;
        while trimmed && from == 1 {
            batches += 1;
            assert!(batches < 30, "nothing is trimmed");
            let batch: Vec<String> = (0..300).map(|n| format!("b{batches}.{n}")).collect();
            for id in &batch {
                ann.act("begin", id, "baron", json!(null)).await;
            }
            ann.answer(&batch[299]).await;
            tokio::time::sleep(Duration::from_millis(1_100)).await;
            (from, ticks) = two_ticks(&mut ann).await;
        }
        let told = tried(&louder, 1);
        let otherwise = told["otherwise"].as_array().expect("a list");
        assert_eq!((&told["from"], otherwise.len()), (&json!(from), ticks), "{told}");
        let words = |one: &Value| (one["event"].clone(), one["recorded"]["body"].clone(), one["now"]["body"].clone());
        assert!(otherwise.iter().all(|one| words(one) == (json!("timer"), json!("tick"), json!("TICK"))), "{told}");

        let told = tried(&quiet, 1);
        let otherwise = told["otherwise"].as_array().expect("a list");
        let is_gone = |one: &Value| one["recorded"]["timer"] == "tick" && one["now"].is_null();
        assert!(!otherwise.is_empty() && otherwise.iter().all(is_gone), "{told}");
        let (_, text, _) = setup.run(&["rules", "try", "--room", "pit-1", "--file", &quiet]);
        assert!(text.contains("timer \"tick\": it fired, and would not"), "{text}");

        let told = tried(&extra, 1);
        let otherwise = told["otherwise"].as_array().expect("a list");
        let is_new = |one: &Value| one["recorded"].is_null() && one["now"]["timer"] == "extra" && one["now"]["body"] == "extra";
        assert!(!otherwise.is_empty() && otherwise.iter().all(is_new), "{told}");
        let (_, text, _) = setup.run(&["rules", "try", "--room", "pit-1", "--file", &extra]);
        assert!(text.contains("timer \"extra\": it would fire, and has not"), "{text}");
    }
    // A beginning that is gone is no matter of taste: the state of the snapshot is taken over, or the room cannot be tried.
    let stubborn = setup.write("stubborn.js", &ticking(2, "throw new Error('stubborn')", "", "tick"));
    let refused = setup.fails(&["rules", "try", "--room", "pit-1", "--file", &stubborn], 2);
    assert!(refused.contains("stubborn"), "{refused}");
}

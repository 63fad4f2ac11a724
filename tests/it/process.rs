//! Programs outside of the worker that decide: in several languages, killed, and bad.

mod flag;
mod inside;
mod versions;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lasthit::journal::redis::{RedisJournal, RedisOptions};
use lasthit::rules::js::{Budget, Checking, JsRules, Program};
use lasthit::rules::{ProgramSource, ProgramSpec, RulesBook};
use lasthit::worker::{self, WorkerOptions};
use serde_json::{Value, json};
use servers::RedisServer;
use tokio_util::sync::CancellationToken;

use self::flag::{Flag, shown};
use super::support::{GatewayProcess, Process, Session, WorkerProcess, end_by_signal, now, redis, until};

fn in_project(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path).display().to_string()
}

/// Whether a language is there; says so if not.
fn has(language: &str) -> bool {
    let found = Command::new(language).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        eprintln!("left out: {language} is not there");
    }
    found
}

/// What all rules of the flag answer, with the program's own failures left to those that have them.
async fn play_the_suite(gateway: &GatewayProcess, room: &str, may_fail: bool) -> Vec<Value> {
    let mut told = Vec::new();
    let mut ann = gateway.ticket(room, "ann").join().await;
    assert_eq!(ann.welcome["state"], json!({"holder": null, "grabs": 0}));
    let mut again = gateway.ticket(room, "ann").join().await;
    let mut bob = gateway.ticket(room, "bob").join().await;
    let mut referee = gateway.ticket(room, "referee").server().join().await;
    told.push(shown(&ann.ask("grab", "1", "flag", json!({"ms": 600_000})).await));
    told.push(shown(&bob.ask("grab", "1", "flag", json!(null)).await));
    told.push(shown(&bob.ask("drop", "2", "flag", json!(null)).await));
    told.push(shown(&again.ask("who", "2", "c", json!(null)).await));
    told.push(shown(&referee.ask("who", "1", "c", json!(null)).await));
    if may_fail {
        let failed = shown(&bob.ask("cheat", "3", "c", json!(null)).await);
        assert_eq!(failed, json!(["data", "bob", "void", "rules_failed", null, null, null]));
    }
    told.push(shown(&bob.ask("grab", "4", "flag", json!(null)).await));
    told.push(shown(&ann.ask("drop", "3", "flag", json!(null)).await));
    told.push(shown(&bob.ask("grab", "5", "flag", json!({"ms": 50})).await));
    let freed = ann.find(|v| v["event"] == "timer").await;
    told.push(shown(&freed));
    told.push(shown(&ann.ask("roll", "4", "c", json!(null)).await));
    ann.act("tell", "5", "c", json!({"to": ["bob"], "text": "grüße 🏁"})).await;
    told.push(shown(&bob.find(|v| v["body"]["text"] == "grüße 🏁").await));
    told.push(shown(&bob.ask("dance", "6", "c", json!([1.5, -1, true, {"a": null}])).await));
    // A repeat never reaches a program.
    let repeated = bob.ask("dance", "6", "c", json!(null)).await;
    assert_eq!(repeated["outcome"], "denied", "{repeated}");
    let carol = gateway.ticket(room, "carol").join().await;
    told.push(carol.welcome["state"].clone());
    told
}

fn spec(words: &[&str], instances: usize) -> ProgramSpec {
    let words = words.iter().map(|word| if word.contains('/') { in_project(word) } else { (*word).to_owned() }).collect();
    ProgramSpec { source: ProgramSource::Command(words), folder: None, instances, budget: Duration::from_secs(5) }
}

const PYTHON: [&str; 2] = ["python3", "examples/rules/flag.py"];
const NODE: [&str; 3] = ["node", "rules/js/lasthit-rules.mjs", "examples/rules/flag.mjs"];
const PERL: [&str; 2] = ["perl", "examples/rules/flag.pl"];

/// A program of `examples/rules` inside the worker.
fn javascript(path: &str) -> impl Fn() -> JsRules + Send + Sync + 'static {
    let text = std::fs::read(in_project(path)).expect("a program");
    let program = Program::load(path, &text, Budget::default()).expect("a program without mistakes");
    move || JsRules::new(program.clone(), Checking::EachEvent)
}

/// A worker inside the test.
struct Embedded {
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Embedded {
    fn start(redis: &RedisServer, book: RulesBook) -> Self {
        let (url, stop) = (redis.url(), CancellationToken::new());
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = lasthit::internals::runtime::worker(lasthit::internals::runtime::Priority::Normal).expect("a runtime");
            runtime.block_on(async {
                let journal = RedisJournal::connect(&url, RedisOptions::default()).await.expect("a journal");
                let options = WorkerOptions::default();
                worker::run(Arc::new(journal), book, options, stopped, Default::default()).await.expect("a worker");
            });
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.stop.cancel();
        let joined = self.thread.take().map(std::thread::JoinHandle::join);
        if !std::thread::panicking() {
            joined.expect("a thread").expect("the worker ended well");
        }
    }
}

#[tokio::test]
async fn one_suite_for_every_language() {
    let redis = redis(&[]);
    let book = RulesBook::new().room("rust", Flag::default).program("python", spec(&PYTHON, 2));
    let book = book.program("node", spec(&NODE, 1)).program("perl", spec(&PERL, 1));
    let book = book.room("javascript", javascript("examples/rules/flag.mjs"));
    let gateway = GatewayProcess::on(&redis, &[]);
    let _worker = Embedded::start(&redis, book);
    let expected = play_the_suite(&gateway, "rust", false).await;
    assert_eq!(expected.len(), 13);
    assert_eq!(expected[1], json!(["data", "bob", "denied", "late", "flag", 1, null]));
    assert_eq!(expected[8], json!(["timer", null, "granted", null, "flag", 3, {"free": true, "from": "bob"}]));
    // The file that node runs, in the worker.
    assert_eq!(play_the_suite(&gateway, "javascript", true).await, expected, "javascript");
    for language in ["python3", "node", "perl"] {
        if has(language) {
            let told = play_the_suite(&gateway, language.trim_end_matches('3'), true).await;
            assert_eq!(told, expected, "{language}");
        }
    }
}

/// A configuration file, which ends with its handle.
struct Configured {
    dir: tempfile::TempDir,
}

impl Configured {
    fn new(rooms: &[(&str, Value)]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let page = |(pattern, rules): &(&str, Value)| {
            let Value::Object(rules) = rules else { panic!("{rules}") };
            let rules: Vec<String> = rules.iter().map(|(key, value)| format!("{key} = {value}")).collect();
            format!("[[rooms]]\npattern = \"{pattern}\"\nrules = {{ {} }}\n", rules.join(", "))
        };
        let text: String = rooms.iter().map(page).collect();
        std::fs::write(dir.path().join("c.toml"), text).expect("written");
        Self { dir }
    }

    fn path(&self) -> String {
        self.dir.path().join("c.toml").display().to_string()
    }

    fn worker(&self, redis: &RedisServer) -> WorkerProcess {
        WorkerProcess::on(redis, &["--config", &self.path(), "--lease-ms", "800"])
    }
}

fn python(script: &str, more: &[(&str, Value)]) -> Value {
    let mut rules = json!({"process": ["python3", in_project(script)]});
    for (key, value) in more {
        rules[*key] = value.clone();
    }
    rules
}

/// `count.py` without a state that tells the process that began it.
fn count_only(more: &[(&str, Value)]) -> Value {
    let mut rules = python("tests/it/programs/count.py", more);
    rules["process"].as_array_mut().expect("words").push(json!("plain"));
    rules
}

/// The processes that this one has started.
fn children(of: u32) -> Vec<u32> {
    let mut children = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("proc").flatten() {
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // The name before it is in brackets.
        let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse::<u32>().ok());
        if parent == Some(of) {
            children.extend(entry.file_name().to_string_lossy().parse::<u32>());
        }
    }
    children
}

fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

/// Counts as fast as the room answers, 16 at a time, until `done`. The counts that were answered.
async fn count(player: &mut Session, done: &AtomicBool) -> Vec<u64> {
    let mut counts = Vec::new();
    for round in 0_u64.. {
        if done.load(Ordering::SeqCst) {
            break;
        }
        let ids: Vec<String> = (0..16).map(|n| format!("{round}-{n}")).collect();
        for id in &ids {
            player.act("add", id, "c", json!(null)).await;
        }
        for id in &ids {
            let answer = player.answer(id).await;
            assert_eq!(answer["outcome"], "granted", "{answer}");
            counts.push(answer["body"]["count"].as_u64().expect("a count"));
        }
    }
    counts
}

/// 0 lost, 0 doubled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_that_are_killed_under_load_cost_time_only() {
    let redis = redis(&[]);
    let configured = Configured::new(&[("*", count_only(&[("instances", json!(3))]))]);
    let gateway = GatewayProcess::on(&redis, &["--actions-per-second", "1000000"]);
    let worker = configured.worker(&redis);
    until("all instances", || (worker.ready().0 == 200).then_some(()));
    let mut players = Vec::new();
    for n in 0..6 {
        players.push(gateway.ticket(&format!("room-{n}"), "ann").join().await);
    }
    let done = Arc::new(AtomicBool::new(false));
    let (killing, pid) = (done.clone(), worker.process.id());
    let killer = std::thread::spawn(move || {
        let (began, mut killed) = (now(), 0);
        while began.elapsed() < Duration::from_secs(6) {
            if let Some(child) = children(pid).get(killed % 3) {
                end_by_signal(*child, "KILL");
                killed += 1;
            }
            std::thread::sleep(Duration::from_millis(250));
        }
        killing.store(true, Ordering::SeqCst);
        killed
    });
    let counted = futures_util::future::join_all(players.iter_mut().map(|player| count(player, &done))).await;
    let killed = killer.join().expect("a killer");
    let all: usize = counted.iter().map(Vec::len).sum();
    println!("{killed} instances were killed under {all} actions");
    assert!(killed >= 10 && all > 1_000, "{killed} killed, {all} actions");
    for counts in counted {
        let expected: Vec<u64> = (1..=counts.len() as u64).collect();
        assert_eq!(counts, expected, "each action counts once, in order");
    }
    assert!(worker.metric("lasthit_program_failures_total") >= 1.0);
    // They are all started again, and every recording is the same when it is resolved again.
    until("all instances", || (worker.ready().0 == 200).then_some(()));
    let replay = ["replay", "--redis", &redis.url(), "--config", &configured.path(), "--room"];
    for n in 0..6 {
        let replayed = super::support::program(&[&replay[..], &[&format!("room-{n}")]].concat()).output().expect("replayed");
        let said = String::from_utf8_lossy(&replayed.stdout).into_owned();
        assert!(
            replayed.status.success() && said.contains("are the same"),
            "{said} {}",
            String::from_utf8_lossy(&replayed.stderr)
        );
    }
}

/// Rule P4: the next owner takes the state that was committed. It does not make it again, and needs no program for it.
#[tokio::test]
async fn a_takeover_goes_on_with_the_state_that_was_committed() {
    let redis = redis(&[]);
    let configured = Configured::new(&[("*", python("tests/it/programs/count.py", &[]))]);
    let gateway = GatewayProcess::on(&redis, &[]);
    let mut worker = configured.worker(&redis);
    let mut ann = gateway.ticket("room", "ann").join().await;
    let first = ann.ask("add", "0", "c", json!(null)).await;
    for n in 1..300 {
        // Behind a snapshot, too.
        ann.ask("add", &n.to_string(), "c", json!(null)).await;
    }
    let programs = children(worker.process.id());
    assert_eq!(programs.len(), 1);
    worker.process.kill();
    let next = configured.worker(&redis);
    let after = ann.ask("add", "300", "c", json!(null)).await;
    assert_eq!(after["body"], json!({"count": 301, "pid": first["body"]["pid"]}), "{after}");
    // The program of the worker that was killed ends when its socket does.
    until("the program ends", || (!lives(programs[0])).then_some(()));

    // Another program does not go on with that state: the room rests, and replay tells.
    drop(next);
    let other = Configured::new(&[("*", python("tests/it/programs/bad.py", &[]))]);
    let resting = other.worker(&redis);
    ann.act("add", "301", "c", json!(null)).await;
    resting.process.line_with("its program is count version 1, the one that runs is bad version 1");
    let mut replay = super::support::program(&["replay", "--redis", &redis.url(), "--config", &other.path(), "--room", "room"]);
    let replayed = replay.output().expect("replayed");
    let said = String::from_utf8_lossy(&replayed.stdout).into_owned();
    assert!(said.contains("decided by count version 1, asked was bad version 1"), "{said}");
}

#[tokio::test]
async fn programs_end_with_their_worker() {
    let redis = redis(&[]);
    let configured = Configured::new(&[("*", python("tests/it/programs/bad.py", &[("instances", json!(2))]))]);
    let mut worker = configured.worker(&redis);
    until("all instances", || (worker.ready().0 == 200).then_some(()));
    let programs = children(worker.process.id());
    assert_eq!(programs.len(), 2);
    worker.process.line_with("bad is here");
    worker.process.signal("TERM");
    assert_eq!(worker.process.code(), Some(0));
    assert!(!programs.into_iter().any(lives));
}

/// Each of these fails on every instance: it is void in the end, the room goes on with the state before, and no other room waits.
#[tokio::test]
async fn what_is_no_answer_is_tried_elsewhere_and_then_void() {
    let redis = redis(&[]);
    let bad = python("tests/it/programs/bad.py", &[("instances", json!(2)), ("budget_ms", json!(300))]);
    let configured = Configured::new(&[("bad-*", bad), ("*", python("tests/it/programs/count.py", &[]))]);
    let gateway = GatewayProcess::on(&redis, &["--actions-per-second", "1000000"]);
    let worker = configured.worker(&redis);
    until("all instances", || (worker.ready().0 == 200).then_some(()));
    let done = AtomicBool::new(false);
    let mut other = gateway.ticket("other", "bob").join().await;
    let story = async {
        let cases = [
            ("garbage", "no message: expected value"),
            ("too_many", "decisions on 1 events"),
            ("too_late", "no answer within 300 ms"),
            ("other_request", "an answer to request"),
            ("nothing", "0 decisions on 1 events"),
            ("large_frame", "a frame of 4294967295 bytes"),
            ("exit", "it closed its socket, or died"),
        ];
        for (op, why) in cases {
            let mut ann = gateway.ticket(&format!("bad-{op}"), "ann").join().await;
            assert_eq!(ann.ask("add", "before", "c", json!(null)).await["body"], 1);
            let failed = ann.ask(op, "bad", "c", json!(null)).await;
            assert_eq!((&failed["outcome"], &failed["reason"]), (&json!("void"), &json!("rules_failed")), "{failed}");
            assert_eq!(ann.ask("add", "after", "c", json!(null)).await["body"], 2, "after {op}");
            let line = worker.process.lines().into_iter().find(|line| line.contains(why));
            let line = line.unwrap_or_else(|| panic!("{op}: no line with {why:?} in {:#?}", worker.process.lines()));
            assert!(line.len() < 1_200 && !line.contains("\u{1b}[2J"), "{line}");
        }
        // A state over its bound, and a value that may not be there: void at once, as they would be again, and no instance is given up.
        let given_up = worker.metric("lasthit_program_failures_total");
        let void = worker.metric("lasthit_rules_failures_total");
        let cases = [
            ("large_state", json!(null), "state_too_large: "),
            ("unknown_field", json!(null), "decisions[0]: unknown field `hat`"),
            ("whisper", json!("no such player"), "decisions[0]: to \"no such player\""),
        ];
        for (op, args, why) in cases {
            let mut ann = gateway.ticket(&format!("bad-{op}"), "ann").join().await;
            let failed = ann.ask(op, "bad", "c", args).await;
            assert_eq!(failed["reason"], "rules_failed", "{failed}");
            assert_eq!(ann.ask("add", "after", "c", json!(null)).await["body"], 1);
            let line = worker.process.line_with(why);
            assert!(line.contains(&format!("bad-{op}")), "{line}");
        }
        assert_eq!(worker.metric("lasthit_program_failures_total"), given_up);
        assert_eq!(worker.metric("lasthit_rules_failures_total"), void + 3.0);
        done.store(true, Ordering::SeqCst);
    };
    let play = async {
        let mut longest = Duration::ZERO;
        for n in 0_u64.. {
            if done.load(Ordering::SeqCst) {
                break;
            }
            let began = now();
            assert_eq!(other.ask("add", &n.to_string(), "c", json!(null)).await["body"]["count"], n + 1);
            longest = longest.max(began.elapsed());
        }
        longest
    };
    let ((), longest) = tokio::join!(story, play);
    println!("another room's longest answer took {longest:?}");
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    worker.process.line_with("its program did not decide event");
}

/// What a handler raises is in the log, with its place, and is counted.
#[tokio::test]
async fn a_failure_is_told_and_counted() {
    let redis = redis(&[]);
    let configured = Configured::new(&[("*", python("examples/rules/flag.py", &[]))]);
    let gateway = GatewayProcess::on(&redis, &[]);
    let worker = configured.worker(&redis);
    let mut ann = gateway.ticket("room", "ann").join().await;
    assert_eq!(ann.ask("cheat", "1", "c", json!(null)).await["reason"], "rules_failed");
    let line = worker.process.line_with("nobody cheats here");
    assert!(line.contains("program=\"flag\"") && line.contains("cheat (") && line.contains("flag.py:"), "{line}");
    assert_eq!(worker.metric("lasthit_rules_failures_total"), 1.0);
}

/// One that ends at once: `/readyz` says so, and other rooms play.
#[tokio::test]
async fn a_program_that_ends_at_start_is_told_and_holds_up_nobody() {
    let redis = redis(&[]);
    let configured = Configured::new(&[
        ("bad-*", json!({"process": ["sh", "-c", "echo no luck >&2; exit 3"]})),
        ("*", python("tests/it/programs/count.py", &[])),
    ]);
    let gateway = GatewayProcess::on(&redis, &[]);
    let worker = configured.worker(&redis);
    worker.process.line_with("no luck");
    worker.process.line_with("it is started again in 400 ms");
    let (status, said) = worker.ready();
    assert!(status == 503 && said.contains("0 of 1 instances") && said.contains("exit status: 3"), "{status} {said}");
    let play = async {
        let mut other = gateway.ticket("other", "bob").join().await;
        assert_eq!(other.ask("add", "1", "c", json!(null)).await["body"]["count"], 1);
        other
    };
    // Once none was there for so long, its events are void: the Open, too.
    let ticket = gateway.ticket("bad-room", "ann");
    let (mut waiting, mut other) = tokio::join!(ticket.join(), play);
    assert_eq!((&waiting.welcome["seq"], waiting.welcome.get("state")), (&json!(1), None), "{}", waiting.welcome);
    assert_eq!(waiting.ask("add", "1", "c", json!(null)).await["reason"], "rules_failed");
    let void = worker.process.lines().iter().filter(|line| line.contains("its verdict is void (rules_failed)")).count();
    assert_eq!(void, 2, "the Open and the action");
    assert_eq!(other.ask("add", "2", "c", json!(null)).await["body"]["count"], 2);
}

/// The start of `docs/rules-protocol.md`, to its first verdicts.
#[tokio::test]
async fn the_start_of_the_page_leads_to_verdicts() {
    let page = include_str!("../../docs/rules-protocol.md");
    let settings = page.split("A program is started in the folder of that file:\n\n").nth(1).expect("a start");
    let settings = settings.split("\n\n").next().expect("settings");
    let dir = tempfile::tempdir().expect("a directory");
    for folder in ["examples", "rules"] {
        std::os::unix::fs::symlink(in_project(folder), dir.path().join(folder)).expect("linked");
    }
    let path = dir.path().join("lasthit.toml");
    std::fs::write(&path, settings).expect("written");
    let serve = GatewayProcess::serve(&["--config", &path.display().to_string()]);
    let mut ann = serve.ticket("flag-1", "ann").join().await;
    let mut bob = serve.ticket("flag-1", "bob").join().await;
    let first = ann.ask("grab", "1", "flag", json!(null)).await;
    assert_eq!((&first["outcome"], &first["body"]), (&json!("granted"), &json!({"grabs": 1})), "{first}");
    let late = bob.ask("grab", "1", "flag", json!(null)).await;
    assert!(late["reason"] == "late" && late["behind_ns"].is_string(), "{late}");
}

/// `rules = { socket = "PATH" }`: somebody else runs it.
#[tokio::test]
async fn a_program_may_be_started_by_somebody_else() {
    let redis = redis(&[]);
    let dir = tempfile::tempdir().expect("a directory");
    let path: PathBuf = dir.path().join("rules.sock");
    let configured = Configured::new(&[("*", json!({"socket": path.display().to_string(), "instances": 2}))]);
    let gateway = GatewayProcess::on(&redis, &[]);
    let worker = configured.worker(&redis);
    until("the socket", || path.exists().then_some(()));
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).expect("a socket").permissions());
    assert_eq!(mode & 0o777, 0o600, "its user's only");
    assert_eq!(worker.ready().0, 503);
    let start = || {
        let script = in_project("tests/it/programs/count.py");
        Process::of(Command::new("python3").arg(script).env("LASTHIT_RULES", &path))
    };
    let mut first = start();
    until("one is enough", || (worker.ready().0 == 200).then_some(()));
    let mut ann = gateway.ticket("room", "ann").join().await;
    assert_eq!(ann.ask("add", "1", "c", json!(null)).await["body"]["count"], 1);
    first.kill();
    until("it is gone", || (worker.ready().0 == 503).then_some(()));
    let _second = start();
    assert_eq!(ann.ask("add", "2", "c", json!(null)).await["body"]["count"], 2);
    // Another program does not take its place.
    let other = in_project("tests/it/programs/bad.py");
    let other = Process::of(Command::new("python3").arg(other).env("LASTHIT_RULES", &path));
    worker.process.line_with("it is bad version 1, but this worker runs count version 1");
    drop(other);
    let pids: BTreeSet<u32> = children(worker.process.id()).into_iter().collect();
    assert!(pids.is_empty(), "the worker has started nothing");
}

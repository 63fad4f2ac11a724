//! Two gateways on a real Redis, behind one address, of which one leaves while a run of the program plays on both.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use lasthit::internals::config::{Config, Flags, ProcessRole};
use lasthit::internals::roles;
use lasthit::internals::runtime::{self, Priority};
use lasthit::journal::redis::{RedisJournal, RedisOptions};
use lasthit::rules::RulesBook;
use lasthit::rules::claim::Claim;
use lasthit::shutdown::Shutdown;
use lasthit::types::Audience;
use lasthit::worker::{self, WorkerOptions};
use serde_json::Value;
use servers::{Proxy, RedisServer, Upstream};

/// A gateway on a thread of its own.
struct Gateway {
    address: SocketAddr,
    shutdown: Shutdown,
    thread: Option<JoinHandle<Result<(), String>>>,
}

impl Gateway {
    fn start(redis: &RedisServer) -> Self {
        let free = servers::free_address().expect("a port");
        let flags = Flags::default().with("redis", &redis.url()).with("listen", &free.to_string()).with("admin", "none");
        let config = Config::load(ProcessRole::Gateway, flags, &|_| None).expect("settings");
        let (shutdown, runtime) = (Shutdown::new(), runtime::gateway(1_000, Priority::Normal).expect("a runtime"));
        let told = shutdown.clone();
        let thread = std::thread::spawn(move || runtime.block_on(roles::gateway(config, told)));
        while std::net::TcpStream::connect(free).is_err() {
            assert!(!thread.is_finished(), "{:?}", thread.join());
            sleep(Duration::from_millis(5));
        }
        Self { address: free, shutdown, thread: Some(thread) }
    }

    /// Moves its sessions; returns when it has ended.
    fn leave(&mut self, window: Duration) {
        self.shutdown.request_moving(window);
        self.thread.take().expect("it runs").join().expect("no panic").expect("drained");
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.shutdown.request();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One run at a time: they count pauses.
static ALONE: Mutex<()> = Mutex::new(());

/// Plays on two gateways, of which the first leaves in the middle and comes back, twice.
fn play(sessions: u64, options: &[&str], window: Duration) -> Value {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let redis = RedisServer::start_with(&[]).expect("a redis-server");
    let worker_stop = Shutdown::new();
    let (stop, url) = (worker_stop.token().clone(), redis.url());
    let worker = std::thread::spawn(move || {
        let runtime = runtime::worker(Priority::Normal).expect("a runtime");
        runtime.block_on(async {
            let journal = RedisJournal::connect(&url, RedisOptions::default()).await.expect("redis");
            let book = RulesBook::new().room("load-*", || Claim::new(Audience::Session)).room("*", || Claim::new(Audience::Room));
            let journal = std::sync::Arc::new(journal);
            worker::run(journal, book, WorkerOptions::default(), stop, Default::default()).await.expect("worked");
        });
    });
    let (mut a, mut b) = (Gateway::start(&redis), Gateway::start(&redis));
    let door = Proxy::start(Upstream::Tcp(a.address)).expect("a proxy");
    let dir = tempfile::tempdir().expect("a directory");
    let json = dir.path().join("moves.json");
    let mut run = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args([
            "run",
            "--url",
            &format!("ws://{}", door.address()),
            "--sessions",
            &sessions.to_string(),
            "--rooms",
            "5",
            "--quiet",
        ])
        .args(["--warm-up", "0ms", "--duration", "7s", "--lateness-max", "20s"])
        .args(options)
        .arg("--json")
        .arg(&json)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program");
    // Each has sent its handshake, and then as many actions again.
    while door.sent() < 2 * sessions {
        assert!(run.try_wait().expect("a run").is_none(), "it ended before it began: {:?}", run.wait_with_output());
        sleep(Duration::from_millis(5));
    }
    door.lead_to(Upstream::Tcp(b.address));
    a.leave(window);
    a = Gateway::start(&redis);
    door.lead_to(Upstream::Tcp(a.address));
    b.leave(window);
    let run = run.wait_with_output().expect("ended");
    let said = format!("{}\n{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    drop((door, a, b));
    worker_stop.request();
    worker.join().expect("no panic");
    assert!(run.status.success(), "{said}");
    println!("{said}");
    let report: Value = serde_json::from_slice(&std::fs::read(&json).expect("a report")).expect("JSON");
    for fault in ["lost", "doubled", "gaps", "two_winners", "overtaken", "unsent", "broken_sessions"] {
        assert_eq!(report[fault], 0, "{fault}: {said}");
    }
    assert_eq!(report["refused"], serde_json::json!({}), "{said}");
    report
}

fn number(report: &Value, field: &str) -> f64 {
    report["moves"][field].as_f64().expect("a number")
}

/// Private verdicts, and sessions that are quiet now and then.
#[test]
fn players_follow_a_gateway_that_leaves_without_a_pause() {
    let report = play(40, &["--rate", "200"], Duration::from_secs(2));
    assert_eq!((number(&report, "followed"), number(&report, "reconnected")), (80.0, 0.0), "{}", report["moves"]);
    // Where the machine is so busy that an answer takes as long as the time between two actions, some pause.
    assert!(number(&report, "paused") < 40.0 && number(&report, "unconnected_ms") <= 1_000.0, "{}", report["moves"]);
}

/// Verdicts for all, which the next connection may know before the old one, or after it.
#[test]
fn players_that_act_on_and_on_lose_nothing_when_a_gateway_leaves() {
    let report = play(10, &["--rate", "3000", "--audience", "room"], Duration::from_secs(1));
    assert_eq!(number(&report, "followed") + number(&report, "reconnected"), 20.0, "{}", report["moves"]);
}

/// Who ignores the wish is closed, comes back at once, and sends what is unanswered again.
#[test]
fn players_that_ignore_a_move_are_closed_and_come_back_with_nothing_lost() {
    let report = play(40, &["--rate", "1000", "--moves", "ignore"], Duration::from_millis(700));
    assert_eq!((number(&report, "followed"), number(&report, "reconnected")), (0.0, 80.0), "{}", report["moves"]);
    assert_eq!((number(&report, "ignored"), number(&report, "returned")), (80.0, 0.0), "{}", report["moves"]);
    assert!(number(&report, "unconnected_ms") > 0.0, "{}", report["moves"]);
}

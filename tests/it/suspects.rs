//! Rules that kill their worker, keep it, or never come back: one event is void in the end, and nobody else is held up for long.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use lasthit::internals::limits::RULES_ATTEMPTS;
use lasthit::journal::redis::{RedisJournal, RedisOptions};
use lasthit::rules::{Act, Decision, Happening, Rules, RulesBook, What};
use lasthit::worker::{self, WorkerOptions};
use serde_json::json;
use servers::RedisServer;

use super::support::{GatewayProcess, Process, Session, WitnessWorker, now, redis};

const LEASE: Duration = Duration::from_millis(800);
/// Nobody waits for its end.
const LONG_LEASE: Duration = Duration::from_secs(15);
/// The heartbeat that notices, loading, and slow machines.
const SLACK: Duration = Duration::from_secs(5);
const REDIS: &str = "DEADLY_WORKERS_REDIS";
const LEASE_MS: &str = "DEADLY_WORKERS_LEASE_MS";

/// `die` ends the process, `hang` never comes back; all else is granted.
struct Deadly {
    quick: bool,
}

impl Rules for Deadly {
    fn name(&self) -> &'static str {
        "deadly"
    }

    fn version(&self) -> u32 {
        1
    }

    fn is_quick(&self) -> bool {
        self.quick
    }

    fn resolve(&mut self, event: &Happening<'_>) -> Decision {
        match event.what {
            What::Data(Act { op: "die", .. }) => std::process::abort(),
            What::Data(Act { op: "hang", .. }) => loop {
                std::thread::park();
            },
            _ => Decision::granted(),
        }
    }

    fn snapshot(&self) -> Vec<u8> {
        Vec::new()
    }

    fn restore(&mut self, _: u32, _: &[u8]) -> Result<(), String> {
        Ok(())
    }
}

/// No test: the process that [`Deadly`] kills. The tests below start it.
#[test]
#[ignore = "started by other tests"]
fn deadly_worker() {
    let (Ok(url), Ok(lease)) = (std::env::var(REDIS), std::env::var(LEASE_MS)) else { return };
    let lease = Duration::from_millis(lease.parse().expect("milliseconds"));
    lasthit::internals::telemetry::init(lasthit::internals::telemetry::LogFormat::Text, "info").expect("log");
    lasthit::internals::runtime::worker(lasthit::internals::runtime::Priority::Normal).expect("a runtime").block_on(async {
        let journal = RedisJournal::connect(&url, RedisOptions::default()).await.expect("a journal");
        let rules = RulesBook::new().room("slow*", || Deadly { quick: false }).room("*", || Deadly { quick: true });
        let options = WorkerOptions { lease, rules_timeout: Duration::from_millis(300), ..WorkerOptions::default() };
        let never = tokio_util::sync::CancellationToken::new();
        worker::run(Arc::new(journal), rules, options, never, Default::default()).await.expect("a worker");
    });
}

fn start(redis: &RedisServer, lease: Duration) -> Process {
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.args(["--exact", "suspects::deadly_worker", "--ignored", "--nocapture"]);
    command.env(REDIS, redis.url()).env(LEASE_MS, lease.as_millis().to_string());
    let process = Process::of(&mut command);
    process.line_with("worker started");
    process
}

/// Keeps two workers alive: whoever dies is started again.
struct Keeper {
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<usize>>,
}

impl Keeper {
    fn start(redis: Arc<RedisServer>, lease: Duration) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let mut workers = vec![start(&redis, lease), start(&redis, lease)];
        let stop = done.clone();
        let thread = std::thread::spawn(move || {
            let mut deaths = 0;
            while !stop.load(Ordering::SeqCst) {
                for worker in &mut workers {
                    if worker.has_ended() {
                        deaths += 1;
                        *worker = start(&redis, lease);
                    }
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            deaths
        });
        Self { done, thread: Some(thread) }
    }

    /// How many died.
    fn deaths(mut self) -> usize {
        self.done.store(true, Ordering::SeqCst);
        self.thread.take().map(|thread| thread.join().expect("workers")).expect("a thread")
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.done.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Plays one round after the other until `done`; the longest that an answer took.
async fn play(player: &mut Session, done: &AtomicBool) -> Duration {
    let mut longest = Duration::ZERO;
    for round in 0.. {
        if done.load(Ordering::SeqCst) {
            break;
        }
        let began = now();
        let answer = player.ask("note", &round.to_string(), "c", json!(null)).await;
        assert_eq!(answer["outcome"], "granted", "{answer}");
        longest = longest.max(began.elapsed());
    }
    longest
}

/// In `room` somebody does `op` between two other things, and is answered; in six others people play. How many workers died,
/// and how long the others waited at most.
async fn suffer(room: &str, op: &str, lease: Duration) -> (usize, Duration) {
    let redis = Arc::new(redis(&[]));
    // The others ask again at each answer.
    let gateway = GatewayProcess::on(&redis, &["--actions-per-second", "1000000"]);
    let keeper = Keeper::start(redis.clone(), lease);
    let mut ann = gateway.ticket(room, "ann").join().await;
    let mut others = Vec::new();
    for other in 0..6 {
        others.push(gateway.ticket(&format!("other-{other}"), "bob").join().await);
    }
    let done = AtomicBool::new(false);
    let story = async {
        for (id, op) in [("before", "note"), ("bad", op), ("behind", "note")] {
            ann.act(op, id, "c", json!(null)).await;
        }
        assert_eq!(ann.answer("before").await["outcome"], "granted");
        let bad = ann.answer("bad").await;
        assert_eq!((&bad["outcome"], &bad["reason"]), (&json!("void"), &json!("rules_failed")));
        assert_eq!(ann.answer("behind").await["outcome"], "granted");
        done.store(true, Ordering::SeqCst);
    };
    let play = futures_util::future::join_all(others.iter_mut().map(|player| play(player, &done)));
    let ((), longest) = tokio::join!(story, play);
    let (deaths, longest) = (keeper.deaths(), longest.into_iter().max().expect("others"));
    println!("{op} in {room}: {deaths} workers died, others waited {longest:?} at most");
    (deaths, longest)
}

#[tokio::test]
async fn an_event_that_kills_its_worker_is_void_after_a_few_and_others_wait_for_leases_only() {
    let (deaths, longest) = suffer("deadly", "die", LEASE).await;
    // One that did not know, one that went on in batches (or two, with a verdict in between), and the counted attempts.
    let counted = RULES_ATTEMPTS as usize;
    assert!((2 + counted..=3 + counted).contains(&deaths), "{deaths}");
    assert!(longest < (LEASE + SLACK) * u32::try_from(deaths).expect("few"), "{longest:?}");
}

#[tokio::test]
async fn a_quick_event_that_hangs_costs_one_worker() {
    let (deaths, longest) = suffer("deadly", "hang", LEASE).await;
    assert_eq!(deaths, 0, "the one that hangs is still there");
    assert!(longest < LEASE + SLACK, "{longest:?}");
}

#[tokio::test]
async fn an_event_that_hangs_costs_threads() {
    let (deaths, longest) = suffer("slow-deadly", "hang", LONG_LEASE).await;
    assert_eq!(deaths, 0);
    assert!(longest < LONG_LEASE, "nobody lost a lease: {longest:?}");
}

#[tokio::test]
async fn rules_that_are_slow_but_come_back_in_time_are_waited_for() {
    let redis = redis(&[]);
    let gateway = GatewayProcess::on(&redis, &[]);
    let options = WorkerOptions { rules_timeout: Duration::from_millis(400), ..WorkerOptions::default() };
    let _worker = WitnessWorker::on(&redis, options);
    let mut ann = gateway.ticket("slow", "ann").join().await;
    // Together they take longer than one may.
    for nap in 0..6 {
        ann.act("nap", &nap.to_string(), "c", json!({"ms": 100})).await;
    }
    for nap in 0..6 {
        assert_eq!(ann.answer(&nap.to_string()).await["outcome"], "granted");
    }
}

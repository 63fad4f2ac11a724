//! The whole way without sockets: an action arrives at a gateway, a worker resolves it, its verdict is delivered; on the
//! memory journal, each role on a thread of its own as in `lasthit serve`.

use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use lasthit::embed::{Delivery, Gateway, Joining, Seat, act};
use lasthit::journal::Journal;
use lasthit::journal::memory::MemoryJournal;
use lasthit::rules::{LastHit, RulesBook};
use lasthit::runtime;
use lasthit::types::{Outcome, Role};
use lasthit::worker::{self, WorkerOptions};
use quanta::Instant;
use tokio_util::sync::CancellationToken;

/// Sends `count` hits and waits for all their verdicts.
async fn round(seat: &mut Seat, count: u64, next: &mut u64) {
    let last = *next + count;
    while *next < last {
        *next += 1;
        let hit = act("hit", &format!("i{next}")).contest("baron").args(&serde_json::json!({ "damage": 1 }));
        seat.arrive(&hit).expect("accepted");
    }
    let mut answered = 0;
    while answered < count {
        if let Delivery::Verdict { frames, .. } = seat.recv().await.expect("open")
            && frames.verdict().id.is_some()
        {
            assert_eq!(frames.verdict().outcome, Outcome::Granted);
            answered += 1;
        }
    }
}

fn main() {
    let mut c = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(4));
    c = c.sample_size(20).configure_from_args();
    let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::new(1));
    let stop = CancellationToken::new();
    let worker = std::thread::spawn({
        let (journal, stop) = (journal.clone(), stop.clone());
        let rules = RulesBook::new().room("*", LastHit::new);
        let run = worker::run(journal, rules, WorkerOptions::default(), stop, Default::default());
        move || runtime::worker().expect("runtime").block_on(run).expect("worker")
    });
    let gateway_runtime = runtime::gateway(10).expect("runtime");
    let mut next = 0;
    let mut seat = gateway_runtime.block_on(async {
        let gateway = Gateway::start(journal).await.expect("gateway");
        let name = |text: &str| text.parse().expect("name");
        let joining = Joining { room: name("pit"), player: "game".parse().expect("name"), role: Role::Server, since: None };
        let mut seat = gateway.join(joining).expect("joined");
        let spawn = act("spawn", "s").contest("baron").args(&serde_json::json!({ "hp": 1_000_000_000_000_u64 }));
        seat.arrive(&spawn).expect("accepted");
        loop {
            match seat.recv().await.expect("open") {
                Delivery::Verdict { frames, .. } if frames.verdict().id.as_deref() == Some("s") => break,
                _ => {}
            }
        }
        round(&mut seat, 100, &mut next).await;
        seat
    });
    let mut group = c.benchmark_group("pipeline");
    for in_flight in [1, 64] {
        group.throughput(Throughput::Elements(in_flight));
        group.bench_function(BenchmarkId::new("actions to verdicts", in_flight), |b| {
            b.iter_custom(|count| {
                gateway_runtime.block_on(async {
                    let began = Instant::now();
                    for _ in 0..count {
                        round(&mut seat, in_flight, &mut next).await;
                    }
                    began.elapsed()
                })
            });
        });
    }
    group.finish();
    drop(seat);
    stop.cancel();
    worker.join().expect("worker");
    c.final_summary();
}

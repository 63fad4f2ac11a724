//! The whole way without sockets: an action arrives at a gateway, a worker resolves it, its verdict is delivered; on the
//! memory journal, each role on a thread of its own as in `lasthit serve`.

use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use lasthit::internals::runtime;
use lasthit::internals::wire::entry;
use lasthit::journal::memory::MemoryJournal;
use lasthit::journal::{Appended, Flush, FlushEntry, Homing, Journal, Leased, Seen};
use lasthit::types::{Arrival, Entry, Event, EventKind, Incarnation, Moment, PlayerId, Role, ShardId};
use quanta::Instant;

mod scene;

/// So many rooms in which an event waits for a gateway that says nothing more.
async fn waiting_rooms(journal: &dyn Journal, count: usize) {
    let shard = ShardId(0);
    let timeline = journal.timeline(&lasthit::internals::clock::timeline_name()).await.expect("timeline");
    let moment = |ns| Moment { timeline, ns };
    let claimed =
        journal.claim(shard, None, Incarnation::random(), lasthit::internals::clock::unix_ms(), &Homing::default()).await;
    let Ok(Leased::Done(lease)) = claimed else { panic!("{claimed:?}") };
    assert_eq!(lease.home, timeline);
    journal.release(shard, lease).await.expect("released");
    for (gateway, ns) in [(Incarnation(1), 1_000), (Incarnation(2), 2_000)] {
        let server =
            journal.register(shard, gateway, Seen::default(), &[]).await.expect("registered").here().expect("its home").server;
        let kind = EventKind::Open { player: PlayerId::new("ann").expect("name"), role: Role::Player };
        let event = Event { session: 1, ordinal: 1, arrival: Arrival::at(ns, 0), kind };
        let bytes = entry::encode(&Entry { incarnation: gateway, timeline, death: false, events: vec![event] });
        let entry = |i| FlushEntry { room: format!("waiting-{i}").parse().expect("name"), top: moment(ns), bytes: bytes.clone() };
        let (previous, watermark, entries) = (Moment::default(), moment(ns), (0..count).map(entry).collect());
        let flush = Flush { shard, server, incarnation: gateway, number: 1, previous, watermark, entries };
        assert!(matches!(journal.append(&flush).await.expect("appended"), Appended::Stored(_)));
    }
}

fn main() {
    let mut c = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(4));
    c = c.sample_size(20).configure_from_args();
    let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::new(1));
    let worker = scene::Worker::start(&journal);
    let gateway_runtime = runtime::gateway(10, runtime::Priority::Normal).expect("runtime");
    let mut scene = gateway_runtime.block_on(scene::Scene::new(journal));
    let mut group = c.benchmark_group("pipeline");
    for in_flight in [1, 64] {
        group.throughput(Throughput::Elements(in_flight));
        group.bench_function(BenchmarkId::new("actions to verdicts", in_flight), |b| {
            b.iter_custom(|count| {
                gateway_runtime.block_on(async {
                    let began = Instant::now();
                    scene.rounds(count, in_flight).await;
                    began.elapsed()
                })
            });
        });
    }
    group.finish();
    drop(scene);
    worker.end();

    // What a bell costs that concerns none of the rooms of its shard that wait for somebody.
    let mut group = c.benchmark_group("pipeline/beside rooms that wait");
    for waiting in [0, 1_000, 10_000] {
        let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::new(1));
        gateway_runtime.block_on(waiting_rooms(&*journal, waiting));
        let worker = scene::Worker::start(&journal);
        let mut scene = gateway_runtime.block_on(scene::Scene::new(journal));
        group.bench_function(BenchmarkId::new("action to verdict", waiting), |b| {
            b.iter_custom(|count| {
                gateway_runtime.block_on(async {
                    let began = Instant::now();
                    scene.rounds(count, 1).await;
                    began.elapsed()
                })
            });
        });
        drop(scene);
        worker.end();
    }
    group.finish();
    c.final_summary();
}

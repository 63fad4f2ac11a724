//! The whole way without sockets: an action arrives at a gateway, a worker resolves it, its verdict is delivered; on the
//! memory journal, each role on a thread of its own as in `lasthit serve`.

use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use lasthit::journal::Journal;
use lasthit::journal::memory::MemoryJournal;
use lasthit::runtime;
use quanta::Instant;

#[path = "pipeline/scene.rs"]
mod scene;

fn main() {
    let mut c = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(4));
    c = c.sample_size(20).configure_from_args();
    let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::new(1));
    let worker = scene::Worker::start(&journal);
    let gateway_runtime = runtime::gateway(10).expect("runtime");
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
    c.final_summary();
}

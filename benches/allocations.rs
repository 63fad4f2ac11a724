//! How often and how much is allocated for one event on its whole way without sockets: on the memory journal, gateway and worker
//! on a thread of their own each, as `benches/pipeline.rs` times it.
#![expect(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use lasthit::internals::runtime;
use lasthit::journal::Journal;
use lasthit::journal::memory::MemoryJournal;

mod scene;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

fn count(layout_bytes: usize) {
    ALLOCATIONS.fetch_add(1, Relaxed);
    BYTES.fetch_add(layout_bytes as u64, Relaxed);
}

// SAFETY: all is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as promised to this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as promised to this function.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(bytes.saturating_sub(layout.size()));
        // SAFETY: as promised to this function.
        unsafe { System.realloc(at, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Events that are counted.
const EVENTS: u64 = 64_000;

fn main() {
    let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::new(1));
    let worker = scene::Worker::start(&journal);
    let gateway_runtime = runtime::gateway(10, runtime::Priority::Normal).expect("runtime");
    let mut scene = gateway_runtime.block_on(scene::Scene::new(journal));
    println!("{:>10}{:>24}{:>18}", "in flight", "allocations an event", "bytes an event");
    for in_flight in [1, 64] {
        gateway_runtime.block_on(async {
            // What grows with its first use has grown.
            scene.rounds(4_096 / in_flight, in_flight).await;
            let before = (ALLOCATIONS.load(Relaxed), BYTES.load(Relaxed));
            scene.rounds(EVENTS / in_flight, in_flight).await;
            let each = |now: u64, before: u64| (now - before) as f64 / EVENTS as f64;
            let (allocations, bytes) = (each(ALLOCATIONS.load(Relaxed), before.0), each(BYTES.load(Relaxed), before.1));
            println!("{in_flight:>10}{allocations:>24.1}{bytes:>18.0}");
        });
    }
    drop(scene);
    worker.end();
}

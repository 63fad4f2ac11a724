//! Everybody joins one room at once: through one gateway, without sockets, on the memory journal. The room has as many targets as
//! it may, so that what it says to each who joins is as much as a `last_hit` room ever says.

use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion};
use lasthit::embed::{Delivery, Gateway, Joining, Seat, act};
use lasthit::internals::limits::{SESSIONS_PER_ROOM_MAX, TARGETS_PER_ROOM_MAX};
use lasthit::internals::runtime;
use lasthit::journal::Journal;
use lasthit::journal::memory::MemoryJournal;
use lasthit::types::{Role, RoomId, Since};
use quanta::Instant;

#[expect(dead_code, reason = "only its worker is used here")]
mod scene;

fn seat(gateway: &Gateway, room: &RoomId, player: &str, role: Role, since: Option<Since>) -> Seat {
    let joining = Joining { room: room.clone(), player: player.parse().expect("name"), role, since };
    gateway.join(joining).expect("joined")
}

/// Reads on until the welcome came, and the verdict `told` if there is one; tells where it is then.
async fn told(seat: &mut Seat, told: Option<u64>) -> Since {
    let mut at = None;
    loop {
        match seat.recv().await.expect("open") {
            Delivery::Welcome(welcome) => at = Some(Since { era: welcome.era, seq: welcome.seq }),
            Delivery::Verdict { frames, .. } => at.as_mut().expect("a welcome").seq = frames.verdict().seq,
            other => panic!("{other:?}"),
        }
        if let Some(at) = at.filter(|at| told.is_none_or(|told| at.seq >= told)) {
            return at;
        }
    }
}

/// A room full of targets.
async fn room(gateway: &Gateway, name: &str) -> (RoomId, Seat, Since) {
    let room: RoomId = name.parse().expect("name");
    let mut game = seat(gateway, &room, "game", Role::Server, None);
    for n in 0..TARGETS_PER_ROOM_MAX {
        let name = format!("target-{n:0>50}");
        game.arrive(&act("spawn", &name).contest(&name).args(&serde_json::json!({ "hp": 1_000_000 }))).expect("accepted");
    }
    let at = told(&mut game, Some(TARGETS_PER_ROOM_MAX as u64 + 1)).await;
    (room, game, at)
}

/// All join at once: the time until each was welcomed, and was told of everybody else.
async fn joined(gateway: &Gateway, name: &str) -> Duration {
    let (room, game, at) = room(gateway, name).await;
    let began = Instant::now();
    let mut seats: Vec<Seat> =
        (1..SESSIONS_PER_ROOM_MAX).map(|n| seat(gateway, &room, &format!("p{n}"), Role::Player, None)).collect();
    let last = at.seq + seats.len() as u64;
    for seat in &mut seats {
        told(seat, Some(last)).await;
    }
    let took = began.elapsed();
    drop((seats, game));
    took
}

fn main() {
    let mut c = Criterion::default().warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_secs(10));
    c = c.sample_size(10).configure_from_args();
    let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::new(1));
    let worker = scene::Worker::start(&journal);
    let gateway_runtime = runtime::gateway(10, runtime::Priority::Normal).expect("runtime");
    let gateway = gateway_runtime.block_on(Gateway::start(journal)).expect("gateway");
    let mut group = c.benchmark_group("joins");
    let mut rooms = 0;
    group.bench_function(BenchmarkId::new("one room, all told of all", SESSIONS_PER_ROOM_MAX), |b| {
        b.iter_custom(|count| {
            let mut took = Duration::ZERO;
            for _ in 0..count {
                rooms += 1;
                took += gateway_runtime.block_on(joined(&gateway, &format!("room-{rooms}")));
            }
            took
        });
    });
    group.finish();
    drop(gateway);
    drop(gateway_runtime);
    worker.end();
    c.final_summary();
}

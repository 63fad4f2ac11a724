//! What a stamp costs: reading the clocks, and a socket read that keeps the kernel's stamp beside one that does not.

use std::hint::black_box;
use std::io::Write as _;
use std::net::TcpListener;
use std::time::Duration;

use criterion::Criterion;
use lasthit::internals::clock::{Clock, monotonic_ns};
use lasthit::internals::gateway::{Drains, KERNEL_STAMPS, StampedStream, listen};
use lasthit::types::Flags;
use quanta::Instant;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

/// A masked binary frame of 40 bytes, as a client sends it.
fn frame() -> Vec<u8> {
    let mut frame = vec![0x82, 0x80 | 40, 1, 2, 3, 4];
    frame.extend([0x55; 40]);
    frame
}

/// Sends one frame and reads it, `count` times; only the reading is timed, from before it to after `then`.
fn timed<S: AsyncRead + Unpin>(
    runtime: &Runtime,
    sender: &mut std::net::TcpStream,
    stream: &mut S,
    count: u64,
    mut then: impl FnMut(&mut S),
) -> Duration {
    let (frame, mut buffer, mut total) = (frame(), [0u8; 2048], Duration::ZERO);
    runtime.block_on(async {
        for _ in 0..count {
            sender.write_all(&frame).expect("sent");
            let began = Instant::now();
            let got = stream.read(&mut buffer).await.expect("read");
            then(stream);
            total += began.elapsed();
            assert_eq!(got, frame.len());
        }
    });
    total
}

fn clocks(c: &mut Criterion) {
    let clock = Clock::new();
    let mut group = c.benchmark_group("stamp/clock");
    assert!(monotonic_ns() <= monotonic_ns());
    group.bench_function("monotonic", |b| b.iter(monotonic_ns));
    let wall_ns = i128::from(lasthit::internals::clock::unix_s()) * 1_000_000_000;
    assert!(clock.read(Some(wall_ns)).kernel_ns.is_some_and(|ns| monotonic_ns() - ns < 2_000_000_000));
    group.bench_function("bracket and conversion", |b| b.iter(|| clock.read(black_box(Some(wall_ns)))));
    group.finish();
}

fn reads(c: &mut Criterion) {
    let runtime = lasthit::internals::runtime::gateway(100, lasthit::internals::runtime::Priority::Normal).expect("runtime");
    let mut group = c.benchmark_group("stamp/read");

    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let mut sender = std::net::TcpStream::connect(listener.local_addr().expect("address")).expect("connected");
    sender.set_nodelay(true).expect("nodelay");
    let accepted = listener.accept().expect("accepted").0;
    accepted.set_nonblocking(true).expect("nonblocking");
    let mut plain = runtime.block_on(async { TcpStream::from_std(accepted) }).expect("stream");
    group.bench_function("plain socket", |b| {
        b.iter_custom(|count| timed(&runtime, &mut sender, &mut plain, count, |_| ()));
    });

    let (mut sender, mut stamped) = runtime.block_on(async {
        let listener = listen("127.0.0.1:0".parse().expect("address")).expect("listening");
        let sender = std::net::TcpStream::connect(listener.local_addr().expect("address")).expect("connected");
        sender.set_nodelay(true).expect("nodelay");
        let accepted = listener.accept().await.expect("accepted").0;
        let mut stamped = StampedStream::new(accepted, Clock::new(), Drains::default()).expect("stream");
        stamped.begin_session(&[]);
        (sender, stamped)
    });
    // The kernel begins to stamp some time after it was asked to.
    timed(&runtime, &mut sender, &mut stamped, 50, |s| assert!(s.arrival().ns > 0));
    std::thread::sleep(Duration::from_millis(50));
    timed(&runtime, &mut sender, &mut stamped, 50, |stream| {
        let arrival = stream.arrival();
        assert!(monotonic_ns() - arrival.ns < 1_000_000_000, "{arrival:?}");
        assert_eq!(arrival.flags.has(Flags::READ_TIME), !KERNEL_STAMPS, "{arrival:?}");
    });
    group.bench_function("stamped socket, arrival included", |b| {
        b.iter_custom(|count| {
            timed(&runtime, &mut sender, &mut stamped, count, |stream| assert!(black_box(stream.arrival()).ns > 0))
        });
    });
    group.finish();
}

fn main() {
    let mut c = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    c = c.sample_size(40).configure_from_args();
    clocks(&mut c);
    reads(&mut c);
    c.final_summary();
}

use std::io::Write;
use std::net::TcpStream as Client;
use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::*;

mod held_back;

/// An empty text message of a client: masked, no payload.
const MESSAGE: [u8; 6] = [0x81, 0x80, 0, 0, 0, 0];

struct Pair {
    client: Client,
    stream: StampedStream,
    drains: Drains,
}

async fn pair_on(clock: &Clock) -> Pair {
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let client = Client::connect(listener.local_addr().unwrap()).unwrap();
    client.set_nodelay(true).unwrap();
    let drains = Drains::default();
    let mut stream = StampedStream::new(listener.accept().await.unwrap().0, clock.clone(), drains.clone()).unwrap();
    stream.begin_session(&[]);
    let mut pair = Pair { client, stream, drains };
    // Stamps begin some 20 ms after the first socket of the system asks for them.
    for _ in 0..200 {
        pair.send(&MESSAGE);
        pair.read(64).await;
        if !KERNEL_STAMPS || !pair.stream.arrival().flags.has(Flags::READ_TIME) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    pair.drain().await;
    pair
}

impl Pair {
    fn send(&mut self, bytes: &[u8]) {
        self.client.write_all(bytes).unwrap();
    }

    async fn read(&mut self, most: usize) -> usize {
        let mut buffer = vec![0; most];
        self.stream.read(&mut buffer).await.unwrap()
    }

    /// Reads until it would block, at least once.
    async fn drain(&mut self) {
        let mut buffer = [0; 64];
        let read =
            tokio::time::timeout(Duration::from_millis(5), async { while self.stream.read(&mut buffer).await.unwrap() > 0 {} });
        read.await.expect_err("it reads for ever");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn stamps_tell_who_sent_first_however_late_and_in_whatever_order_they_are_read() {
    let clock = Clock::new();
    let (mut a, mut b) = (pair_on(&clock).await, pair_on(&clock).await);
    for round in 0..300u32 {
        let a_first = round.wrapping_mul(0x9e37_79b9) & 0x8000 != 0;
        let before = monotonic_ns();
        let (first, second) = if a_first { (&mut a, &mut b) } else { (&mut b, &mut a) };
        first.send(&MESSAGE);
        second.send(&MESSAGE);
        // The reader is busy elsewhere, and then reads in a fixed order.
        std::thread::sleep(Duration::from_micros(300));
        b.read(64).await;
        a.read(64).await;
        let (at_a, at_b) = (a.stream.arrival(), b.stream.arrival());
        assert_eq!((at_a.flags, at_b.flags), (Flags::default(), Flags::default()), "round {round}");
        assert_eq!(at_a.ns < at_b.ns, a_first, "round {round}: {at_a:?} {at_b:?}");
        for at in [at_a, at_b] {
            assert!(before <= at.ns + at.uncertainty_ns, "round {round}: {at:?}");
            assert!(at.uncertainty_ns < 300_000, "the busy reader's delay is no part of it: {at:?}");
        }
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn of_messages_that_were_merged_only_the_last_is_exact() {
    let clock = Clock::new();
    let mut pair = pair_on(&clock).await;
    let mut sent = Vec::new();
    for _ in 0..3 {
        sent.push(monotonic_ns());
        pair.send(&MESSAGE);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(pair.read(64).await, 18);
    let arrivals: Vec<Arrival> = (0..3).map(|_| pair.stream.arrival()).collect();
    for (arrival, sent) in arrivals.iter().zip(&sent) {
        // After a sleep the sender takes longer than usual to reach the kernel.
        let earliest = arrival.ns - arrival.uncertainty_ns;
        assert!(arrival.ns >= *sent && earliest <= *sent + 1_000_000, "{arrival:?} was sent at {sent}");
    }
    assert!(arrivals[0].uncertainty_ns >= 10_000_000 && arrivals[1].uncertainty_ns >= 5_000_000, "{arrivals:?}");
    assert!(arrivals[2].uncertainty_ns < 5_000_000, "{arrivals:?}");
    assert!(arrivals.iter().all(|a| !a.flags.has(Flags::CLAMPED)));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_message_is_inexact_while_more_bytes_follow_it() {
    let clock = Clock::new();
    let mut pair = pair_on(&clock).await;
    let exact = |pair: &mut Pair| pair.stream.arrival().uncertainty_ns < 3_000_000;

    // Part of the next message in the same read.
    std::thread::sleep(Duration::from_millis(3));
    pair.send(&[&MESSAGE[..], &MESSAGE[..2]].concat());
    pair.read(64).await;
    assert!(!exact(&mut pair));
    pair.send(&MESSAGE[2..]);
    pair.read(64).await;
    assert!(exact(&mut pair), "its last byte came alone");

    // The next message is still in the socket.
    pair.drain().await;
    std::thread::sleep(Duration::from_millis(3));
    pair.send(&[MESSAGE, MESSAGE].concat());
    pair.read(6).await;
    assert!(!exact(&mut pair));
    pair.read(6).await;
    assert!(exact(&mut pair), "it fills the buffer exactly and nothing follows");
}

#[tokio::test]
async fn a_session_counts_as_undrained_until_it_would_block() {
    let clock = Clock::new();
    let mut pair = pair_on(&clock).await;
    assert_eq!(pair.drains.undrained(), 0);
    pair.send(&[MESSAGE, MESSAGE].concat());
    pair.read(6).await;
    assert_eq!(pair.drains.undrained(), 1);
    pair.read(6).await;
    assert_eq!(pair.drains.undrained(), 1, "only `would block` proves that nothing is left");
    pair.drain().await;
    assert_eq!(pair.drains.undrained(), 0);
    pair.send(&MESSAGE);
    pair.read(6).await;
    let drains = pair.drains.clone();
    drop(pair);
    assert_eq!(drains.undrained(), 0);
}

#[tokio::test]
async fn a_connection_that_is_no_session_holds_up_no_sweep() {
    let drains = Drains::default();
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut client = Client::connect(listener.local_addr().unwrap()).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut stream = StampedStream::new(listener.accept().await.unwrap().0, Clock::new(), drains.clone()).unwrap();
    stream.read_exact(&mut [0; 18]).await.unwrap();
    assert_eq!(drains.undrained(), 0);
    stream.begin_session(&[]);
    assert_eq!(drains.undrained(), 1, "what may have come behind the upgrade is not read yet");
    stream.end_session();
    assert_eq!(drains.undrained(), 0);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn behind_a_step_of_the_wall_clock_the_read_time_serves_until_the_socket_was_drained() {
    let clock = Clock::new();
    let mut pair = pair_on(&clock).await;
    pair.send(&MESSAGE);
    // The wall clock appears to have been behind by 2 ms until now.
    clock.pretend_step(-2_000_000);
    pair.read(64).await;
    let arrival = pair.stream.arrival();
    assert!(arrival.flags.has(Flags::READ_TIME), "{arrival:?}");
    pair.send(&MESSAGE);
    pair.read(64).await;
    assert!(pair.stream.arrival().flags.has(Flags::READ_TIME), "not drained yet");
    pair.drain().await;
    pair.send(&MESSAGE);
    pair.read(64).await;
    assert_eq!(pair.stream.arrival().flags, Flags::default());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn uncertainty_reaches_back_no_further_than_the_last_sweep() {
    let mut pair = pair_on(&Clock::new()).await;
    // The session is silent for a while, and the gateway's sweeps go on.
    std::thread::sleep(Duration::from_millis(30));
    let swept = monotonic_ns();
    pair.drains.swept(swept);
    pair.send(&[MESSAGE, MESSAGE].concat());
    pair.read(64).await;
    let first = pair.stream.arrival();
    assert_eq!(first.flags, Flags::default());
    assert!(first.ns - first.uncertainty_ns + 3_000 >= swept, "swept at {swept}: {first:?}");
    assert!(first.uncertainty_ns > 0 && first.ns - first.uncertainty_ns <= swept, "swept at {swept}: {first:?}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_was_stamped_below_the_floor_is_moved_above_it_and_flagged() {
    let mut pair = pair_on(&Clock::new()).await;
    // The tail of a message has an early stamp and cannot be read until a withheld byte comes. Sweeps go on meanwhile.
    pair.send(&MESSAGE);
    let floor = monotonic_ns() + 500_000;
    pair.drains.swept(floor);
    pair.drains.swept(floor - 1_000);
    pair.read(64).await;
    let arrival = pair.stream.arrival();
    assert_eq!(arrival.ns, floor, "a floor never sinks");
    assert!(arrival.flags.has(Flags::CLAMPED) && arrival.raw_ns.unwrap() < floor, "{arrival:?}");
}

#[tokio::test]
async fn a_sessions_stamps_never_go_back() {
    let clock = Clock::new();
    let mut pair = pair_on(&clock).await;
    pair.send(&MESSAGE);
    std::thread::sleep(Duration::from_millis(2));
    let now = pair.stream.now();
    pair.read(64).await;
    let arrival = pair.stream.arrival();
    assert!(arrival.ns >= now.ns);
    if KERNEL_STAMPS {
        assert!(arrival.flags.has(Flags::CLAMPED) && arrival.raw_ns.unwrap() < now.ns, "{arrival:?}");
    }
    drop(pair.client);
    let lost = pair.stream.lost();
    assert!(lost.ns >= arrival.ns && lost.flags.has(Flags::READ_TIME));
}

/// However messages are cut, merged, delayed and read, each was sent within the uncertainty of its stamp.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn every_message_was_sent_within_the_uncertainty_of_its_stamp() {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    /// How long a segment may wait in the sender's kernel for an acknowledgement of earlier ones.
    const LATE_NS: u64 = 60_000_000;

    let seed: u64 = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    let clock = Clock::new();
    let mut pair = pair_on(&clock).await;
    let (mut exact, mut inexact, mut late) = (0u32, 0u32, 0u32);
    for round in 0..300 {
        // Messages that are cut into segments anywhere, and when the last byte of each was sent.
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for _ in 0..random.random_range(1..5) {
            let length: u8 = random.random_range(0..120);
            bytes.extend([0x81, 0x80 | length, 0, 0, 0, 0]);
            bytes.resize(bytes.len() + usize::from(length), b' ');
            ends.push(bytes.len());
        }
        let (mut sent, mut read) = (0, 0);
        let (mut sent_at, mut stamps) = (Vec::new(), Vec::new());
        while stamps.len() < ends.len() {
            if sent < bytes.len() && (sent == read || random.random_bool(0.6)) {
                let most = bytes.len() - sent;
                let count = if random.random_bool(0.5) { most } else { random.random_range(1..=most) };
                let before = monotonic_ns();
                pair.send(&bytes[sent..sent + count]);
                sent += count;
                let now = monotonic_ns();
                sent_at.extend(ends.iter().skip(sent_at.len()).take_while(|end| **end <= sent).map(|_| (before, now)));
                std::thread::sleep(Duration::from_micros(random.random_range(0..200)));
            } else {
                read += pair.read(*[3, 40, 126, 4096].get(random.random_range(0..4)).unwrap()).await;
                let ended = ends.iter().filter(|end| **end <= read).count();
                stamps.extend((stamps.len()..ended).map(|_| pair.stream.arrival()));
                if read == sent && random.random_bool(0.5) {
                    pair.drain().await;
                }
            }
        }
        for ((before, after), at) in sent_at.iter().zip(&stamps) {
            let context = || format!("seed {seed} round {round}: sent from {before} to {after}, {at:?}");
            assert_eq!(at.flags, Flags::default(), "{}", context());
            assert!(at.ns + 1_000 >= *before, "{}", context());
            assert!(at.ns - at.uncertainty_ns <= after + LATE_NS, "{}", context());
            // The stamp claims to be exact, so nothing that was sent later may have moved it.
            if at.uncertainty_ns < 3_000 {
                exact += 1;
                late += u32::from(at.ns > after + 20_000);
            } else {
                inexact += 1;
            }
        }
    }
    assert!(exact > 50 && inexact > 50, "both kinds occur: {exact} {inexact}");
    assert!(late * 20 < exact, "seed {seed}: {late} of {exact} exact stamps are later than their message");
}

/// Rule S5: while a session has unread bytes, its gateway promises nothing, however often it sweeps.
#[tokio::test]
async fn no_sweep_settles_while_a_session_is_unread() {
    use crate::gateway::front::sweep::sweep;
    use crate::gateway::{Hub, Joining, Presence, Settle};
    use crate::journal::{GatewayJournal, memory::MemoryJournal};
    use crate::types::{PlayerId, RoomId, ShardId};

    let journal = Arc::new(MemoryJournal::at_home(1));
    let hub = Hub::start(journal.clone(), Settle::Sweep, 100, "kernel", 0, Presence::default()).await.unwrap();
    let mut pair = pair_on(&Clock::new()).await;
    let stop = tokio_util::sync::CancellationToken::new();
    let sweeping = tokio::spawn(sweep(hub.clone(), pair.drains.clone(), stop.clone()));
    pair.send(&[MESSAGE, MESSAGE].concat());
    pair.read(6).await;
    let room = RoomId::new("pit").unwrap();
    let joining = Joining::new(room.clone(), PlayerId::new("ann").unwrap());
    let _session = hub.open(joining, Arrival::at(monotonic_ns(), 0)).unwrap();
    let era = async || journal.heads(ShardId(0), std::slice::from_ref(&room)).await.unwrap().1[0].era;
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
        assert_eq!(era().await, 0, "something left although a session is unread");
    }
    pair.drain().await;
    while era().await == 0 {
        tokio::task::yield_now().await;
    }
    stop.cancel();
    sweeping.await.unwrap();
}

#[test]
fn what_stays_on_the_host_passes_no_network_card() {
    for (peer, own, expected) in [
        ("127.0.0.1", "127.0.0.1", true),
        ("127.9.0.1", "127.0.0.1", true),
        ("::1", "::1", true),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1", true),
        ("192.168.1.7", "192.168.1.7", true),
        ("192.168.1.8", "192.168.1.7", false),
        ("2001:db8::1", "2001:db8::2", false),
    ] {
        assert_eq!(is_local(peer.parse().unwrap(), own.parse().unwrap()), expected, "{peer} to {own}");
    }
}

/// A card may delay its interrupt, and so the stamp. The operator's bound for that is part of every stamp's uncertainty.
#[tokio::test]
async fn what_a_network_card_may_add_is_part_of_every_uncertainty() {
    const BOUND: Duration = Duration::from_micros(70_000);
    let clock = Clock::new().behind_a_card(BOUND);
    let mut pair = pair_on(&clock).await;
    assert_eq!(pair.stream.path_ns(), 0, "loopback has no card");
    // As if the client were on another host.
    pair.stream.path_ns = clock.network_ns();
    pair.send(&[MESSAGE, MESSAGE].concat());
    pair.read(64).await;
    let arrivals = [pair.stream.arrival(), pair.stream.arrival(), pair.stream.lost()];
    for (before, arrival) in arrivals.iter().enumerate() {
        assert!(arrival.uncertainty_ns >= 70_000_000, "{before}: {arrival:?}");
        assert!(!arrival.flags.has(Flags::CLAMPED), "{before}: {arrival:?}");
    }
    assert!(pair.stream.now().uncertainty_ns < 70_000_000, "what the gateway does itself came over no network");
}

//! Bytes that a sender hides in its connection: behind urgent data, and behind a byte that it withholds.

use std::io::ErrorKind;
use std::time::Duration;

use nix::sys::socket::MsgFlags;
use tokio::time::timeout;

use super::*;

/// Longer than anything here takes on a busy machine. No passing test waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

fn send_urgent(pair: &Pair) {
    use std::os::fd::AsRawFd;
    assert_eq!(nix::sys::socket::send(pair.client.as_raw_fd(), b"!", MsgFlags::MSG_OOB).unwrap(), 1);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn urgent_data_hides_nothing_and_ends_the_session() {
    let clock = Clock::new();
    for before in 0..40 {
        let mut pair = pair_on(&clock).await;
        for _ in 0..before % 3 + 1 {
            pair.send(&MESSAGE);
        }
        send_urgent(&pair);
        for _ in 0..15 {
            pair.send(&MESSAGE);
        }
        let mut buffer = [0; 64];
        let reading = async {
            loop {
                let read = pair.stream.read(&mut buffer).await;
                if read.is_err() || pair.drains.undrained() == 0 {
                    return read;
                }
            }
        };
        let read = timeout(PATIENCE, reading).await.expect("what is hidden is never read");
        assert_eq!(read.unwrap_err().kind(), ErrorKind::Unsupported);
        // The rest is read to its end, so that no reset overtakes the close frame.
        drop(pair.client);
        timeout(PATIENCE, async { while pair.stream.read(&mut buffer).await.unwrap() > 0 {} }).await.expect("its end");
    }
}

/// A read that begins at the mark skips it. Nothing is hidden then, so the session stays open.
#[tokio::test]
async fn urgent_data_before_all_else_hides_nothing() {
    let mut pair = pair_on(&Clock::new()).await;
    send_urgent(&pair);
    for _ in 0..15 {
        pair.send(&MESSAGE);
    }
    let mut read = 0;
    while read < 15 * MESSAGE.len() {
        read += timeout(PATIENCE, pair.read(64)).await.expect("what is hidden is never read");
    }
    assert_eq!(read, 15 * MESSAGE.len());
}

/// Drops a client's segments of one byte until they are let through. Later segments overtake them.
#[cfg(target_os = "linux")]
fn withhold_single_bytes(stream: &StampedStream) {
    let step = |code, jump_true, jump_false, value| socket2::SockFilter::new(code, jump_true, jump_false, value);
    let filter = [
        step(0x30, 0, 0, 12),     // the header's length, in words, in the upper half of this byte
        step(0x54, 0, 0, 0xf0),   //
        step(0x74, 0, 0, 2),      // in bytes
        step(0x07, 0, 0, 0),      // to the other register
        step(0x80, 0, 0, 0),      // the segment's length
        step(0x1c, 0, 0, 0),      // without the header
        step(0x15, 0, 1, 1),      // one byte?
        step(0x06, 0, 0, 0),      // drop it
        step(0x06, 0, 0, 0xffff), // take it
    ];
    socket2::SockRef::from(&stream.tcp).attach_filter(&filter).unwrap();
}

#[cfg(target_os = "linux")]
fn let_through(stream: &StampedStream) {
    socket2::SockRef::from(&stream.tcp).detach_filter().unwrap();
}

/// Sends a message whose first byte is withheld. The rest is stamped, and cannot be read.
#[cfg(target_os = "linux")]
fn send_headless(pair: &mut Pair) {
    withhold_single_bytes(&pair.stream);
    pair.send(&MESSAGE[..1]);
    pair.send(&MESSAGE[1..]);
}

/// The withheld byte is let through 20 ms later. The message is then not stamped early, and its uncertainty covers the delay.
#[cfg(target_os = "linux")]
async fn assert_released_late(pair: &mut Pair) {
    std::thread::sleep(Duration::from_millis(20));
    let released_ns = monotonic_ns();
    let_through(&pair.stream);
    let mut read = 0;
    while read < MESSAGE.len() {
        read += timeout(PATIENCE, pair.read(64)).await.expect("the byte comes again");
    }
    let arrival = pair.stream.arrival();
    assert!(arrival.ns >= released_ns, "{} ns early: {arrival:?}", released_ns - arrival.ns);
    assert!(arrival.ns - arrival.uncertainty_ns <= released_ns, "released at {released_ns}: {arrival:?}");
    assert!(arrival.flags.has(Flags::READ_TIME), "{arrival:?}");
}

/// Nothing else happens on the gateway, so no sweep sets a floor.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_withheld_byte_gives_its_message_no_early_stamp() {
    let mut pair = pair_on(&Clock::new()).await;
    send_headless(&mut pair);
    assert_released_late(&mut pair).await;

    // Nothing is held back any more, so a stamp is used however late it is read.
    pair.drain().await;
    pair.send(&MESSAGE);
    std::thread::sleep(Duration::from_millis(2));
    pair.read(64).await;
    let arrival = pair.stream.arrival();
    assert_eq!(arrival.flags, Flags::default(), "{arrival:?}");
}

/// A message that is read late meanwhile updates the kernel's count. What is still held back is not forgotten.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_is_still_held_back_is_not_forgotten() {
    let mut pair = pair_on(&Clock::new()).await;
    pair.send(&MESSAGE);
    send_headless(&mut pair);
    std::thread::sleep(Duration::from_millis(2));
    assert_eq!(pair.read(64).await, MESSAGE.len());
    let first = pair.stream.arrival();
    assert!(first.flags.has(Flags::READ_TIME), "{first:?}");
    assert_released_late(&mut pair).await;
}

/// Before Linux 5.4 the kernel does not count overtaking. The last empty moment then bounds what a sender can gain.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn no_stamp_lies_before_the_moment_at_which_the_socket_was_last_empty() {
    let mut pair = pair_on(&Clock::new()).await;
    // Read long after its stamp, so the session's previous arrival bounds nothing.
    pair.send(&MESSAGE);
    std::thread::sleep(Duration::from_millis(2));
    pair.read(64).await;
    pair.stream.arrival();
    pair.drain().await;
    let empty_ns = pair.stream.empty_ns;
    let read_ns = empty_ns + 50_000_000;
    let received = Received { bytes: MESSAGE.len(), stamp: None, unread: Some(0) };
    let reading = Reading { read_ns, kernel_ns: Some(empty_ns - 30_000_000), uncertainty_ns: 2_000, steps: pair.stream.steps };
    pair.stream.note(&MESSAGE, read_ns, &received, true, reading);
    let arrival = pair.stream.arrival();
    assert_eq!(arrival.ns, pair.drains.floor_of(empty_ns), "{arrival:?}");
    assert!(arrival.flags.has(Flags::CLAMPED) && arrival.uncertainty_ns >= 29_000_000, "{arrival:?}");
}

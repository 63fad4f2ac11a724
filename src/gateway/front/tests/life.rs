use super::super::tally::Tally;
use super::*;
use crate::types::Flags;

#[tokio::test]
async fn what_is_sent_along_with_the_upgrade_is_not_lost() {
    let gateway = gateway(|_| {}).await;
    let mut tcp = TcpStream::connect(gateway.address).await.unwrap();
    tcp.write_all(&[upgrade(&target("ann"), JSON).as_bytes(), &act("early"), &frame(0x88, b"\x03\xe8")].concat()).await.unwrap();
    assert_eq!(gateway.life("ann").await, ["open", "act early", "end 1000", "close"]);
}

#[tokio::test]
async fn actions_bear_the_arrival_of_their_own_message() {
    let gateway = gateway(|_| {}).await;
    let mut ann = gateway.join("ann").await;
    gateway.events_at_least("ann", 1).await;
    // Kernel stamps begin some 20 ms after the first socket asks for them.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut sent = Vec::new();
    for (n, id) in ["1", "2", "3"].into_iter().enumerate() {
        let before = crate::clock::monotonic_ns();
        ann.write_all(&act(id)).await.unwrap();
        sent.push((before, crate::clock::monotonic_ns()));
        gateway.events_at_least("ann", n + 2).await;
    }
    let events = gateway.events("ann").await;
    assert_eq!(events.len(), 4);
    for (event, (before, after)) in events[1..].iter().zip(sent) {
        let arrival = event.arrival;
        assert!(arrival.ns >= before && arrival.ns - arrival.uncertainty_ns <= after, "{arrival:?}: {before} to {after}");
        assert_eq!(arrival.flags.has(Flags::READ_TIME), cfg!(not(target_os = "linux")));
    }
}

#[tokio::test]
async fn a_room_that_does_not_answer_is_to_be_tried_again() {
    let gateway = gateway_without_worker(|s| s.welcome_timeout = Duration::from_millis(40)).await;
    let mut ann = gateway.join("ann").await;
    assert_eq!(rest(&mut ann).await.1, 1013);
    assert_eq!(gateway.life("ann").await, ["open", "end 1013", "close"]);
}

#[tokio::test]
async fn one_that_is_silent_is_pinged_and_then_closed() {
    let gateway = gateway(|s| {
        s.ping_interval = Duration::from_millis(40);
        s.idle_timeout = Duration::from_millis(300);
    })
    .await;
    let mut silent = gateway.join("silent").await;
    let (received, code) = rest(&mut silent).await;
    assert_eq!(code, 4409);
    let pings = received.windows(2).filter(|two| *two == [0x89, 0x00]).count();
    assert!((2..=8).contains(&pings), "{pings}");
    assert_eq!(gateway.life("silent").await, ["open", "end 4409", "close"]);
    assert_eq!(gateway.drains.undrained(), 0, "an ended session holds up no sweep");
}

#[tokio::test]
async fn one_that_answers_pings_stays() {
    let gateway = gateway(|s| {
        s.ping_interval = Duration::from_millis(40);
        s.idle_timeout = Duration::from_millis(300);
    })
    .await;
    let mut ann = gateway.join("ann").await;
    let until = tokio::time::Instant::now() + Duration::from_millis(600);
    while tokio::time::Instant::now() < until {
        ann.write_all(&frame(0x8a, b"")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ann.write_all(&act("still-here")).await.unwrap();
    assert_eq!(word(gateway.events_at_least("ann", 2).await.remove(1).kind), "act still-here");
}

#[tokio::test]
async fn one_that_goes_on_sending_after_its_close_meets_no_reset() {
    for (player, bytes, code) in [("binary", frame(0x82, b"\x80"), 1003), ("fault", frame(0xc1, b"{}"), 1002)] {
        let gateway = gateway(|_| {}).await;
        let mut mallory = gateway.join(player).await;
        mallory.write_all(&bytes).await.unwrap();
        assert_eq!(gateway.life(player).await.len(), 3);
        // A reset would discard what the client has not read yet, on most systems also the close frame.
        for _ in 0..5 {
            mallory.write_all(&frame(0x82, &[0; 100])).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        mallory.write_all(&frame(0x88, b"\x03\xeb")).await.unwrap();
        assert_eq!(rest(&mut mallory).await.1, code);
    }
}

/// A sender can hide an action behind urgent data and release it when it likes.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn one_that_sends_urgent_data_is_told_so_and_closed() {
    use std::os::fd::AsRawFd;

    let gateway = gateway(|_| {}).await;
    let mut mallory = gateway.join("mallory").await;
    gateway.events_at_least("mallory", 1).await;
    // All of it at once, so that the gateway's one read meets the mark.
    mallory.write_all(&act("plain")).await.unwrap();
    let flags = nix::sys::socket::MsgFlags::MSG_OOB;
    assert_eq!(nix::sys::socket::send(mallory.as_raw_fd(), b"!", flags).unwrap(), 1);
    mallory.write_all(&act("hidden")).await.unwrap();
    let life = gateway.life("mallory").await;
    let told = "error io error: tcp urgent data hides what follows it: send none";
    assert_eq!(life, ["open", told, "close"]);
    mallory.shutdown().await.unwrap();
    let (received, code) = rest(&mut mallory).await;
    assert_eq!(code, 1002);
    assert!(received.windows(15).any(|part| part == b"tcp urgent data"), "{received:?}");
}

#[test]
fn a_session_whose_task_is_dropped_is_closed_all_the_same() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (gateway, ann) = runtime.block_on(async {
        let gateway = gateway(|_| {}).await;
        let ann = gateway.join("ann").await;
        gateway.events_at_least("ann", 1).await;
        (gateway, ann)
    });
    assert_eq!(gateway.hub.session_count(), 1);
    drop(runtime);
    assert_eq!(gateway.hub.session_count(), 0);
    drop(ann);
}

#[tokio::test]
async fn a_sessions_task_is_small() {
    let gateway = gateway_without_worker(|_| {}).await;
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let gatekeeper = Gatekeeper::new(None, Vec::new(), false);
    let front = Front::new(
        gateway.hub.clone(),
        gatekeeper,
        |_| None,
        Clock::new(),
        Drains::default(),
        Settings::default(),
        CancellationToken::new(),
    );
    let permit = Arc::new(tokio::sync::Semaphore::new(1)).acquire_owned().await.unwrap();
    let (tcp, peer) = listener.accept().await.unwrap();
    let knock = front.places.knock(&front.settings, peer.ip().into()).unwrap();
    let who = Box::new((peer.ip().into(), Arc::new(Tally::default()).connection(None)));
    let task = Arc::new(front).connection(tcp, (permit, knock), who);
    let bytes = size_of_val(&task);
    assert!(bytes < 2048, "{bytes}");
}

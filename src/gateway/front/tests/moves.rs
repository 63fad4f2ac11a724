//! Sessions that are asked to move, and a gateway that leaves.

use super::*;
use crate::limits::MOVE_GRACE;

/// Whether a text message with `part` is in what was received.
fn told(received: &[u8], part: &str) -> bool {
    received.windows(part.len()).any(|bytes| bytes == part.as_bytes())
}

/// Reads until `part` has come. Returns all that was read.
async fn until_told(session: &mut TcpStream, part: &str) -> Vec<u8> {
    use tokio::io::AsyncReadExt as _;
    let mut received = Vec::new();
    let reading = async {
        while !told(&received, part) {
            assert_ne!(session.read_buf(&mut received).await.unwrap(), 0, "it ended before {part}");
        }
    };
    timeout(PATIENCE, reading).await.unwrap_or_else(|_| panic!("{part} did not come"));
    received
}

const WELCOME: &str = r#""t":"welcome""#;
const MOVE: &str = r#"{"t":"move","within_ms":"#;

/// Rule X4: who acts, waits for an answer, is not welcomed yet or was asked a moment ago is not asked to move.
#[tokio::test]
async fn only_quiet_sessions_are_asked_to_move_and_each_once() {
    let gateway = gateway(|_| {}).await;
    let mut ann = gateway.join("ann").await;
    let mut bob = gateway.join("bob").await;
    until_told(&mut ann, WELCOME).await;
    until_told(&mut bob, WELCOME).await;
    assert_eq!(gateway.hub.offer_moves(10), 0, "both have only just joined");
    tokio::time::sleep(Duration::from_millis(1_050)).await;
    bob.write_all(&act("b1")).await.unwrap();
    until_told(&mut bob, "b1").await;
    let mut cid = gateway.join("cid").await;
    assert_eq!(gateway.hub.offer_moves(10), 1);
    until_told(&mut ann, r#"{"t":"move","within_ms":5000}"#).await;
    tokio::time::sleep(Duration::from_millis(1_050)).await;
    until_told(&mut cid, WELCOME).await;
    assert_eq!(gateway.hub.offer_moves(1), 1, "the one of them that has been here longest");
    until_told(&mut bob, MOVE).await;
    assert_eq!(gateway.hub.offer_moves(10), 1);
    until_told(&mut cid, MOVE).await;
    assert_eq!(gateway.hub.offer_moves(10), 0, "all were asked");
}

#[tokio::test]
async fn who_waits_for_an_answer_is_not_asked_to_move() {
    let gateway = gateway_without_worker(|_| {}).await;
    let stop = CancellationToken::new();
    let rules = RulesBook::new().room("*", LastHit::new);
    let worker =
        tokio::spawn(worker::run(gateway.journal.clone(), rules, WorkerOptions::default(), stop.clone(), Default::default()));
    let mut ann = gateway.join("ann").await;
    until_told(&mut ann, WELCOME).await;
    stop.cancel();
    worker.await.unwrap().unwrap();
    ann.write_all(&act("a1")).await.unwrap();
    gateway.events_at_least("ann", 2).await;
    tokio::time::sleep(Duration::from_millis(1_050)).await;
    assert_eq!(gateway.hub.offer_moves(10), 0);
}

/// Rule X5: a leaving gateway asks everybody, closes those that stay as moved, reads what they had sent, and lets nobody in.
#[tokio::test]
async fn a_gateway_that_leaves_asks_everybody_and_closes_who_stays_when_what_it_sent_is_read() {
    let gateway = gateway(|_| {}).await;
    let (mut mover, mut stays) = (gateway.join("mover").await, gateway.join("stays").await);
    until_told(&mut mover, WELCOME).await;
    until_told(&mut stays, WELCOME).await;
    let hub = gateway.hub.clone();
    let began = tokio::time::Instant::now();
    let window = Duration::from_millis(1_500);
    let leaving = tokio::spawn(async move { hub.move_sessions(window, Some("ws://there:1".into())).await });
    let asked = until_told(&mut mover, r#","url":"ws://there:1"}"#).await;
    assert!(told(&asked, MOVE));
    mover.write_all(&frame(0x88, b"\x03\xe8")).await.unwrap();
    assert_eq!(gateway.life("mover").await, ["open", "end 1000", "close"]);
    until_told(&mut stays, MOVE).await;
    assert!(began.elapsed() < window - MOVE_GRACE, "asked in time");
    let mut late = gateway.join("late").await;
    let asked = until_told(&mut late, MOVE).await;
    assert!(told(&asked, WELCOME), "who comes meanwhile is let in, and asked");
    // It acts on and on, until the gateway closes: all that had arrived by then counts.
    let mut sent = 0;
    while !leaving.is_finished() && began.elapsed() < window + Duration::from_secs(4) {
        if stays.write_all(&act(&format!("s{sent}"))).await.is_err() {
            break;
        }
        sent += 1;
        tokio::time::sleep(Duration::from_millis(2)).await;
        if gateway.hub.session_count() == 0 {
            break;
        }
    }
    let life = gateway.life("stays").await;
    assert_eq!(life[life.len() - 2..], ["end 4504", "close"], "{life:?}");
    let acts = life.len() - 3;
    assert!(acts > 0);
    assert_eq!(life[1..=acts], (0..acts).map(|n| format!("act s{n}")).collect::<Vec<_>>()[..]);
    assert_eq!(gateway.life("late").await.last().map(String::as_str), Some("close"));
    stays.write_all(&frame(0x88, b"\x03\xe8")).await.unwrap();
    assert_eq!(rest(&mut stays).await.1, 4504);
    timeout(PATIENCE, leaving).await.expect("left").unwrap();
    assert!(began.elapsed() >= window);
    let mut nobody = gateway.join("nobody").await;
    assert_eq!(rest(&mut nobody).await.1, 1013);
    timeout(PATIENCE, gateway.hub.drain()).await.expect("drained");
}

#[tokio::test]
async fn a_gateway_whose_sessions_have_moved_leaves_at_once() {
    let gateway = gateway(|_| {}).await;
    let mut ann = gateway.join("ann").await;
    until_told(&mut ann, WELCOME).await;
    let hub = gateway.hub.clone();
    let began = tokio::time::Instant::now();
    let leaving = tokio::spawn(async move { hub.move_sessions(Duration::from_secs(20), None).await });
    until_told(&mut ann, MOVE).await;
    ann.write_all(&frame(0x88, b"\x03\xe8")).await.unwrap();
    timeout(PATIENCE, leaving).await.expect("left").unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

/// What had reached the socket when the gateway closes the session is read first.
#[tokio::test]
async fn what_had_arrived_before_a_close_as_moved_is_read() {
    for round in 0..20 {
        let gateway = gateway(|_| {}).await;
        let mut ann = gateway.join("ann").await;
        until_told(&mut ann, WELCOME).await;
        let hub = gateway.hub.clone();
        // The core closes the session in the same turn in which the bytes arrive: nobody has read them yet.
        let sent: Vec<u8> = (0..10).flat_map(|n| act(&format!("a{n}"))).collect();
        assert_eq!(ann.try_write(&sent).unwrap(), sent.len());
        let leaving = tokio::spawn(async move { hub.move_sessions(Duration::ZERO, None).await });
        let life = gateway.life("ann").await;
        assert_eq!(life.len(), 13, "round {round}: {life:?}");
        assert_eq!(life[11], "end 4504");
        leaving.await.unwrap();
    }
}

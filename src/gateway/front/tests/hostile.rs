use super::*;
use crate::gateway::hub::Delivery;
use crate::limits::{FRAGMENTS_PER_MESSAGE_MAX, MESSAGE_BYTES_MAX};
use crate::wire::client::{ErrorCode, Refusal};

/// A session sends `bytes` as they are: it is closed with `code` after the hub was told `last`, and nobody else notices.
async fn check(subprotocol: &str, bytes: &[u8], code: u16, last: &str) {
    let gateway = gateway(|s| s.close_timeout = Duration::from_millis(200));
    let mut bystander = gateway.join("bystander").await;
    let mut tcp = gateway.raw_session("mallory", subprotocol).await;
    // The gateway may have hung up before all of it is sent.
    let _ = tcp.write_all(bytes).await;
    assert_eq!(raw_close_code(&mut tcp).await, code, "{last}");
    let life = gateway.life("mallory").await;
    assert_eq!(life.first().map(String::as_str), Some("open"));
    assert!(life[life.len() - 2].starts_with(last), "{life:?}");
    assert_eq!(life.iter().filter(|call| *call == "close").count(), 1);
    bystander.is_undisturbed(&gateway).await;
    assert_eq!(gateway.drains.undrained(), 0, "an ended session holds up no sweep");
}

const JSON: &str = "lasthit.v1.json";
const MSGPACK: &str = "lasthit.v1.msgpack";

#[tokio::test]
async fn oversized_messages_whole_announced_or_in_fragments() {
    check(JSON, &frame(0x81, &vec![b' '; MESSAGE_BYTES_MAX + 1]), 1009, "error space limit exceeded").await;
    // Only the header: 2^62 bytes are to follow.
    check(JSON, &[0x81, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 1009, "error space limit exceeded").await;
    let mut fragments = frame(0x01, &[b' '; 3000]);
    fragments.extend(frame(0x80, &[b' '; 3000]));
    check(JSON, &fragments, 1009, "error space limit exceeded").await;
}

#[tokio::test]
async fn endless_fragments_without_a_message() {
    let mut fragments = frame(0x01, b"");
    for _ in 0..=FRAGMENTS_PER_MESSAGE_MAX {
        fragments.extend(frame(0x00, b""));
    }
    check(JSON, &fragments, 1009, "error io error: message in too many fragments").await;
}

#[tokio::test]
async fn text_that_is_not_utf8() {
    check(JSON, &frame(0x81, b"\xff\xfe"), 1007, "error utf-8").await;
}

#[tokio::test]
async fn the_other_subprotocols_kind_of_message() {
    check(MSGPACK, &frame(0x81, b"{}"), 1003, "end 1003").await;
    check(JSON, &frame(0x82, b"\x80"), 1003, "end 1003").await;
}

#[tokio::test]
async fn frames_that_break_the_websocket_protocol() {
    check(JSON, &[0x81, 0x02, b'{', b'}'], 1002, "error websocket protocol error").await;
    check(JSON, &frame(0xc1, b"{}"), 1002, "error websocket protocol error").await;
    check(JSON, &frame(0x83, b"{}"), 1002, "error websocket protocol error").await;
    check(JSON, &frame(0x80, b"{}"), 1002, "error websocket protocol error").await;
    check(JSON, &frame(0x89, &[0; 126]), 1002, "error websocket protocol error").await;
    check(JSON, &frame(0x88, b"\x03"), 1002, "error websocket protocol error").await;
    check(JSON, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", 1002, "error websocket protocol error").await;
}

#[tokio::test]
async fn messages_that_are_no_actions_are_refused_and_the_session_goes_on() {
    let gateway = gateway(|_| {});
    let mut ann = gateway.join("ann").await;
    for (text, code) in [
        ("", "bad_json"),
        ("{", "bad_json"),
        ("[]", "bad_action"),
        (r#"{"op":"hit"}"#, "bad_action"),
        (r#"{"op":"hit","id":"1","x":1}"#, "unknown_field"),
        (r#"{"op":"refuse","id":"7"}"#, "busy"),
    ] {
        ann.send(text).await;
        let error = ann.json().await;
        assert_eq!((error["t"].as_str(), error["code"].as_str()), (Some("error"), Some(code)), "{text}: {error}");
    }
    ann.is_undisturbed(&gateway).await;
}

#[tokio::test]
async fn one_that_sends_too_fast_is_refused_and_then_closed() {
    let gateway = gateway(|s| s.actions_per_second = 20);
    let mut bystander = gateway.join("bystander").await;
    let mut mallory = gateway.join("mallory").await;
    for n in 0..60 {
        if mallory.ws.send(Message::text(format!(r#"{{"op":"hit","id":"{n}"}}"#))).await.is_err() {
            break;
        }
    }
    let refused = mallory.json().await;
    assert_eq!((refused["code"].as_str(), refused["id"].as_str()), (Some("rate_limited"), Some("20")), "{refused}");
    assert_eq!(mallory.close_code().await, (4429, "too_fast".to_owned()));
    let life = gateway.life("mallory").await;
    assert!((21..=25).contains(&life.iter().filter(|call| call.starts_with("act")).count().max(21)), "{life:?}");
    assert_eq!(&life[life.len() - 2..], ["end 4429", "close"]);
    bystander.is_undisturbed(&gateway).await;
}

#[tokio::test]
async fn a_flood_of_pings_counts_as_sending_too_fast() {
    let gateway = gateway(|s| {
        s.actions_per_second = 20;
        s.close_timeout = Duration::from_millis(200);
    });
    let mut tcp = gateway.raw_session("mallory", JSON).await;
    let _ = tcp.write_all(&frame(0x89, b"").repeat(100)).await;
    assert_eq!(raw_close_code(&mut tcp).await, 4429);
}

#[tokio::test]
async fn one_that_never_reads_is_closed_as_slow_and_still_read_meanwhile() {
    let gateway = gateway(|s| {
        s.stall_timeout = Duration::from_millis(150);
        s.close_timeout = Duration::from_millis(50);
    });
    let mut bystander = gateway.join("bystander").await;
    let mut tcp = gateway.raw_session("mallory", JSON).await;
    let id = gateway.session("mallory");
    let message = "x".repeat(64 * 1024);
    // More than the kernel keeps for a connection.
    for _ in 0..400 {
        let refusal = Refusal { code: ErrorCode::Busy, id: None, message: message.clone() };
        assert!(gateway.hub.deliver(id, Delivery::Refused(refusal)));
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    tcp.write_all(&frame(0x81, br#"{"op":"hit","id":"while-blocked"}"#)).await.unwrap();
    assert_eq!(gateway.life("mallory").await, ["open", "act while-blocked", "end 4408", "close"]);
    bystander.is_undisturbed(&gateway).await;
}

#[tokio::test]
async fn one_that_is_silent_is_pinged_and_then_closed() {
    let gateway = gateway(|s| {
        s.ping_interval = Duration::from_millis(40);
        s.idle_timeout = Duration::from_millis(300);
    });
    // The library answers pings only while it is read.
    let mut bystander = gateway.join("bystander").await;
    let mut silent = gateway.raw_session("silent", JSON).await;
    let end = async {
        let mut received = Vec::new();
        silent.read_to_end(&mut received).await.unwrap();
        received
    };
    let pinged = async { while let Message::Ping(_) = bystander.next().await {} };
    let received = tokio::select! {
        received = timeout(PATIENCE, end) => received.expect("an end"),
        () = pinged => panic!("the bystander got something else than a ping"),
    };
    let pings = received.windows(2).filter(|two| *two == [0x89, 0x00]).count();
    assert!((2..=8).contains(&pings), "{pings}");
    assert_eq!(gateway.life("silent").await, ["open", "end 4409", "close"]);
    bystander.is_undisturbed(&gateway).await;
}

#[tokio::test]
async fn one_that_goes_on_sending_after_its_close_meets_no_reset() {
    let gateway = gateway(|_| {});
    let mut mallory = gateway.raw_session("mallory", JSON).await;
    mallory.write_all(&frame(0x82, b"\x80")).await.unwrap();
    assert_eq!(gateway.life("mallory").await, ["open", "end 1003", "close"]);
    // A reset would throw away what the client had not read yet: the close frame, on most systems.
    for _ in 0..5 {
        mallory.write_all(&frame(0x82, &[0; 100])).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    mallory.write_all(&frame(0x88, b"\x03\xeb")).await.unwrap();
    assert_eq!(raw_close_code(&mut mallory).await, 1003);
}

#[tokio::test]
async fn one_that_goes_on_sending_after_its_own_fault_meets_no_reset() {
    let gateway = gateway(|_| {});
    let mut mallory = gateway.raw_session("mallory", JSON).await;
    mallory.write_all(&frame(0xc1, b"{}")).await.unwrap();
    assert_eq!(gateway.life("mallory").await.len(), 3);
    for _ in 0..5 {
        mallory.write_all(&frame(0x82, &[0; 100])).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(raw_close_code(&mut mallory).await, 1002);
}

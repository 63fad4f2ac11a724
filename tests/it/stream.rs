//! Entries that nobody can read in a room's stream: a void verdict, never a stuck room.
//!
//! Whoever puts them there by hand rings no bell. A worker finds them when it reads the stream: when it takes the room over,
//! or when the room's next event shows it that something lies between.

use lasthit::testing::RedisServer;
use lasthit::types::{RoomId, ShardId};
use serde_json::{Value, json};

use super::support::{Gateway, Session, Worker, redis};

const ROOM: &str = "claim-1";

fn connection(redis: &RedisServer) -> ::redis::Connection {
    ::redis::Client::open(redis.url()).and_then(|client| client.get_connection()).expect("redis")
}

fn key(of: &str) -> String {
    let room: RoomId = ROOM.parse().expect("a name");
    format!("lasthit:{{s{}}}:{of}", ShardId::of(&room, 8).0)
}

/// Puts entries into the room's stream that no gateway writes: garbage, an entry of a newer version, one without the field.
fn spoil(redis: &RedisServer) -> usize {
    let newer: &[u8] = &[0x93, 2, 0xa5, b'n', b'e', b'w', b'e', b'r', 0xc0];
    let entries: [(&str, &[u8]); 5] =
        [("e", b"garbage"), ("e", b""), ("e", newer), ("e", &[0xdd, 0xff, 0xff, 0xff, 0xff]), ("e", &[0x97, 1])];
    for (field, bytes) in entries {
        let id: Result<String, _> =
            ::redis::cmd("XADD").arg(key(&format!("room:{ROOM}"))).arg("*").arg(field).arg(bytes).query(&mut connection(redis));
        id.expect("added");
    }
    entries.len()
}

/// The next answer comes, and the void verdicts of what lay before it.
async fn goes_on(session: &mut Session, id: &str, voids: usize) {
    let answer = session.ask("claim", id, id, json!(null)).await;
    assert_eq!(answer["outcome"], "granted", "{answer}");
    let unreadable: Vec<&Value> = session.seen.iter().filter(|v| v["event"] == "unreadable").collect();
    assert_eq!(unreadable.len(), voids, "{unreadable:?}");
    for verdict in unreadable {
        assert_eq!(verdict["outcome"], "void", "{verdict}");
        assert!(verdict["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{verdict}");
        assert!(verdict.get("session").is_none() && verdict.get("player").is_none(), "{verdict}");
    }
}

#[tokio::test]
async fn they_are_void_when_the_rooms_next_event_shows_them() {
    let redis = redis(&[]);
    let (gateway, _worker) = (Gateway::on(&redis, &[]), Worker::on(&redis, &[]));
    let mut ann = gateway.ticket(ROOM, "ann").join().await;
    goes_on(&mut ann, "before", 0).await;
    let count = spoil(&redis);
    goes_on(&mut ann, "after", count).await;
    let count = count + spoil(&redis);
    goes_on(&mut ann, "later", count).await;
    assert!(ann.seen.iter().any(|v| v["reason"].as_str().is_some_and(|reason| reason.contains("version 2"))), "{:?}", ann.seen);
}

#[tokio::test]
async fn they_are_void_for_whoever_takes_the_room_over() {
    let redis = redis(&[]);
    let gateway = Gateway::on(&redis, &[]);
    let mut worker = Worker::on(&redis, &[]);
    let mut ann = gateway.ticket(ROOM, "ann").join().await;
    goes_on(&mut ann, "before", 0).await;
    worker.process.kill();
    let count = spoil(&redis);
    ann.act("claim", "waiting", "waiting", json!(null)).await;
    let mut worker = Worker::on(&redis, &[]);
    assert_eq!(ann.answer("waiting").await["outcome"], "granted");
    goes_on(&mut ann, "after", count).await;
    // And they stay decided: the next one reads them again, and decides nothing.
    worker.process.kill();
    let _worker = Worker::on(&redis, &[]);
    goes_on(&mut ann, "later", count).await;
    let order: Vec<u64> = ann.seen.iter().filter_map(|v| v["seq"].as_u64()).collect();
    assert!(order.is_sorted(), "{order:?}");
}

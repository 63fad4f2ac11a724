//! Entries that nobody can read in a room's stream: a void verdict, never a stuck room.
//!
//! What comes through the append script rings the shard's bell, and is decided at once. What somebody put there with
//! `XADD` rings none: it holds up nothing, and is decided by the next worker that reads the room from its stream.

use lasthit::internals::clock;
use lasthit::journal::redis::{RedisJournal, RedisOptions};
use lasthit::journal::{Appended, CommonJournal as _, Flush, FlushEntry, GatewayJournal as _, Seen};
use lasthit::types::{Incarnation, Moment, RoomId, ShardId};
use serde_json::{Value, json};
use servers::RedisServer;

use super::support::{GatewayProcess, Session, WorkerProcess, redis};

const ROOM: &str = "claim-1";

/// What no gateway of this version writes: garbage, and an entry of a newer version.
const UNREADABLE: [&[u8]; 5] = [b"garbage", b"", b"\x03newer", b"\xdd\xff\xff\xff\xff", b"\x97\x01"];

/// Appends them as a gateway of another version would.
async fn append(redis: &RedisServer) {
    let journal = RedisJournal::connect(&redis.url(), RedisOptions::default()).await.expect("a journal");
    let timeline = journal.timeline(&clock::timeline_name()).await.expect("a timeline");
    let room: RoomId = ROOM.parse().expect("a name");
    let (shard, incarnation) = (ShardId::of(&room, 8), Incarnation::random());
    let server =
        journal.register(shard, incarnation, Seen::default(), &[]).await.expect("registered").here().expect("its home").server;
    let mut previous = Moment::default();
    for (number, bytes) in (1..).zip(UNREADABLE) {
        let watermark = Moment { timeline, ns: clock::monotonic_ns() };
        let entries = vec![FlushEntry { room: room.clone(), top: watermark, bytes: bytes.into() }];
        let answer = journal.append(&Flush { shard, server, incarnation, number, previous, watermark, entries }).await;
        assert!(matches!(answer, Ok(Appended::Stored(_))), "{answer:?}");
        previous = watermark;
    }
}

fn connection(redis: &RedisServer) -> ::redis::Connection {
    ::redis::Client::open(redis.url()).and_then(|client| client.get_connection()).expect("redis")
}

fn key(of: &str) -> String {
    let room: RoomId = ROOM.parse().expect("a name");
    lasthit::journal::redis::shard_key(ShardId::of(&room, 8), 8, of)
}

/// Puts them into the room's stream by hand.
fn add(redis: &RedisServer) {
    for bytes in UNREADABLE {
        let mut add = ::redis::cmd("XADD");
        add.arg(key(&format!("room:{ROOM}"))).arg("*").arg("e").arg(bytes);
        add.query::<String>(&mut connection(redis)).expect("added");
    }
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
async fn appended_ones_are_void_at_once() {
    let redis = redis(&[]);
    let (gateway, _worker) = (GatewayProcess::on(&redis, &[]), WorkerProcess::on(&redis, &[]));
    let mut ann = gateway.ticket(ROOM, "ann").join().await;
    goes_on(&mut ann, "before", 0).await;
    append(&redis).await;
    goes_on(&mut ann, "after", UNREADABLE.len()).await;
    append(&redis).await;
    goes_on(&mut ann, "later", 2 * UNREADABLE.len()).await;
    assert!(ann.seen.iter().any(|v| v["reason"].as_str().is_some_and(|reason| reason.contains("version 3"))), "{:?}", ann.seen);
}

#[tokio::test]
async fn those_put_there_by_hand_hold_up_nothing_and_are_void_for_the_next_worker() {
    let redis = redis(&[]);
    let gateway = GatewayProcess::on(&redis, &[]);
    let mut worker = WorkerProcess::on(&redis, &[]);
    let mut ann = gateway.ticket(ROOM, "ann").join().await;
    goes_on(&mut ann, "before", 0).await;
    add(&redis);
    goes_on(&mut ann, "no-bell", 0).await;
    worker.process.kill();
    add(&redis);
    ann.act("claim", "waiting", "waiting", json!(null)).await;
    let mut worker = WorkerProcess::on(&redis, &[]);
    assert_eq!(ann.answer("waiting").await["outcome"], "granted");
    goes_on(&mut ann, "after", 2 * UNREADABLE.len()).await;
    // And they stay decided: the next one reads them again, and decides nothing.
    worker.process.kill();
    let _worker = WorkerProcess::on(&redis, &[]);
    goes_on(&mut ann, "later", 2 * UNREADABLE.len()).await;
}

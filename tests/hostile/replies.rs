//! What a Redis answers: every step of the journal against replies of any shape.

use std::io::{BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ::bytes::Bytes;
use lasthit::journal::redis::{RedisJournal, RedisOptions};
use lasthit::journal::{
    AheadName, AheadPart, Commit, CommonJournal as _, Flush, FlushEntry, GatewayJournal as _, Homing, Lease, PageSize, Part,
    Place, ProcessRecord, RoomCommit, Seen, Successor, Witness, WorkerJournal as _,
};
use lasthit::types::{Incarnation, Moment, RoomId, ShardId, StreamId};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::peak;

const INFO: &str = "redis_version:7.0.15\r\nloading:0\r\nrole:master\r\nmaxmemory_policy:noeviction\r\n";
/// Memory of one step, beside a multiple of the reply: buffers of the connection.
const FIXED: usize = 512 * 1024;
const TIMES: usize = 512;

/// What the server says to every step, and how often it has said it.
#[derive(Default)]
struct Said {
    reply: Mutex<Vec<u8>>,
    times: AtomicUsize,
}

fn server(said: Arc<Said>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            let said = said.clone();
            std::thread::spawn(move || serve(connection, &said));
        }
    });
    address
}

fn serve(connection: TcpStream, said: &Said) -> Option<()> {
    let mut commands = BufReader::new(connection.try_clone().ok()?);
    let mut connection = connection;
    connection.set_nodelay(true).ok()?;
    loop {
        let words: Vec<Vec<u8>> = (0..length(&mut commands)?).map(|_| word(&mut commands)).collect::<Option<_>>()?;
        let command = words.first()?.to_ascii_uppercase();
        // What a server is looked at by is answered truthfully, or no step would come to be sent: its record (six
        // arguments), and whether it is still the one that it was.
        let looks = words.get(3).is_some_and(|key| key.ends_with(b":deployment"));
        let answer = match command.as_slice() {
            b"INFO" => format!("${}\r\n{INFO}\r\n", INFO.len()).into_bytes(),
            b"EVALSHA" if looks && words.len() == 10 => {
                b"*5\r\n$1\r\n4\r\n$1\r\n4\r\n$5\r\nredis\r\n$0\r\n\r\n$0\r\n\r\n".to_vec()
            }
            b"EVALSHA" if looks => b":0\r\n".to_vec(),
            b"EVALSHA" | b"HMGET" | b"PUBLISH" | b"PING" => {
                // Who announces says PING before its step.
                said.times.fetch_add(usize::from(command != b"PING"), Ordering::Relaxed);
                said.reply.lock().ok()?.clone()
            }
            _ => b"+OK\r\n".to_vec(),
        };
        connection.write_all(&answer).ok()?;
    }
}

fn length(from: &mut impl std::io::BufRead) -> Option<usize> {
    let mut line = String::new();
    from.read_line(&mut line).ok()?;
    line.trim_end().get(1..)?.parse().ok()
}

fn word(from: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length(from)? + 2];
    from.read_exact(&mut bytes).ok()?;
    bytes.truncate(bytes.len() - 2);
    Some(bytes)
}

/// A reply as bytes: trees of everything that Redis can say, with leaves that a step may take for its own.
fn reply() -> impl Strategy<Value = Vec<u8>> {
    let plausible = prop::sample::select(vec![
        "0",
        "1",
        "2",
        "3",
        "pit",
        "e",
        "v",
        "1-0",
        "0-0",
        "18446744073709551615",
        "-1",
        "1|000000010000000000000009|0|00000000000000000000000000000007",
        "000000010000000000000009",
        "00000000000000000000000000000007",
        "0,1,2",
        "99999|",
        "",
    ]);
    let bulk = |bytes: &[u8]| [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
    let leaf = prop_oneof![
        6 => plausible.prop_map(move |text| bulk(text.as_bytes())),
        1 => prop::collection::vec(0_u8.., 0..40).prop_map(move |bytes| bulk(&bytes)),
        3 => prop_oneof![0..4_i64, any::<i64>()].prop_map(|number| format!(":{number}\r\n").into_bytes()),
        1 => Just(b"$-1\r\n".to_vec()),
        1 => Just(b"*-1\r\n".to_vec()),
        1 => Just(b"+OK\r\n".to_vec()),
        1 => prop::sample::select(vec!["ERR no", "WRONGTYPE it is", "LASTHIT odd", "OOM full", "BUSY wait", "READONLY you", "X"])
            .prop_map(|error| format!("-{error}\r\n").into_bytes()),
    ];
    leaf.prop_recursive(4, 40, 9, |inner| {
        prop::collection::vec(inner, 0..9)
            .prop_map(|parts| [format!("*{}\r\n", parts.len()).into_bytes(), parts.concat()].concat())
    })
}

/// How many commands of [`every_step`] the server answers as it likes. `owners` has one for each of four shards.
const ANSWERS: usize = 28;
const CASES: u32 = 300;

/// Every step once. What they say does not matter, only that they say something.
async fn every_step(journal: &RedisJournal) {
    let room = RoomId::new("pit").expect("name");
    let (shard, me) = (ShardId::of(&room, 4), Incarnation(7));
    // The server tells no run id.
    let (server, seen) = (Incarnation::NONE, Seen::default());
    let lease = Lease { epoch: 1, owner: me, server, home: 1 };
    let top = Moment { timeline: 1, ns: 5 };
    let entry = FlushEntry { room: room.clone(), top, bytes: Bytes::from_static(b"x") };
    let flush = Flush {
        shard,
        server,
        incarnation: me,
        number: 1,
        previous: Moment::default(),
        watermark: top,
        entries: vec![entry.clone()],
    };
    let part = RoomCommit {
        room: room.clone(),
        era: 1,
        from: 0,
        to: 1,
        verdicts: Bytes::from_static(b"v"),
        cursor: StreamId::default(),
        snapshot: None,
        trim: None,
        trims: None,
        gateways: None,
        due: None,
        program: None,
        failed: None,
    };
    let commit = Commit { shard, lease, number: 1, rooms: vec![part], pushes: Vec::new() };
    let _ = journal.timeline("host").await;
    let _ = journal.live_timelines(1, 1_000).await;
    let host = lasthit::types::HostId::new("host").expect("a name");
    let _ = journal.beat(&ProcessRecord::new(me, host.clone(), Part::Worker), 1_000).await;
    let _ = journal.drain(&host, true).await;
    let _ = journal.ping().await;
    let _ = journal.register(shard, me, seen, std::slice::from_ref(&room)).await;
    let _ = journal.append(&flush).await;
    let _ = journal.heads(shard, std::slice::from_ref(&room)).await;
    let _ = journal.home(shard).await;
    let _ = journal.verdicts(&room, 0, 10).await;
    let _ = journal.heartbeat(me, &[shard], 1_000).await;
    let _ = journal.living_workers().await;
    let _ = journal.announced_patterns().await;
    let _ = journal.owners().await;
    let _ = journal.claim(shard, Some(lease), me, lasthit::internals::clock::unix_ms(), &Homing::default()).await;
    let to = Successor { host: host.clone(), url: "wss://host".to_owned() };
    let _ = journal.name(shard, lease, Some(&to), 1_000).await;
    let _ = journal.release(shard, lease).await;
    let _ = journal.survey(shard, true).await;
    let name = AheadName { lane: 1, seq: 1 };
    let ahead = AheadPart { name, era: 1, index: 0, bytes: Bytes::from_static(b"part") };
    for place in [Place::default(), Place::Verdicts(1), Place::Entries(StreamId::default())] {
        let _ = journal.load(&room, place, PageSize::default()).await;
    }
    let _ = journal.write_ahead(shard, lease, &room, &ahead).await;
    let _ = journal.commit(&commit).await;
    let _ = journal.fence(shard, lease, me).await;
    let _ = journal.death(shard, lease, me, &entry).await;
    let _ = journal.forget(shard, lease, &[me]).await;
    let _ = journal.testify(shard, Witness { server: Incarnation::NONE, epoch: Some(1), confirmed: 1, sent: 1 }).await;
    let _ = journal.attempt(shard, lease, &room, 1).await;
    let _ = journal.end_room(shard, lease, &room, 1).await;
    let _ = journal.publish(Some(shard), me, Bytes::from_static(b"push")).await;
}

#[test]
fn replies_of_any_shape() {
    let said = Arc::new(Said::default());
    let address = server(said.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let options = RedisOptions { shards: Some(4), ..RedisOptions::default() };
    let journal = runtime.block_on(RedisJournal::connect(&format!("redis://{address}"), options)).expect("found fit");
    let mut runner = TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
    let ran = runner.run(&reply(), |reply| {
        said.reply.lock().expect("said").clone_from(&reply);
        let before = said.times.load(Ordering::Relaxed);
        let took = peak(|| runtime.block_on(every_step(&journal)));
        let times = said.times.load(Ordering::Relaxed) - before;
        prop_assert!(times >= ANSWERS, "{times} of {ANSWERS} commands came to be answered");
        prop_assert!(took < reply.len() * TIMES + FIXED, "{took} bytes of memory for a reply of {}", reply.len());
        Ok(())
    });
    ran.unwrap_or_else(|error| panic!("{error}"));
}

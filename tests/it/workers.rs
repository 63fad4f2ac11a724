//! Workers: shards by lease, a worker's death and its orderly end, bounded concurrency.

use std::time::Duration;

use lasthit::journal::redis::shard_key;
use lasthit::types::ShardId;
use lasthit::worker::WorkerOptions;
use serde_json::json;
use servers::RedisServer;

use super::support::{GatewayProcess, Heard, PATIENCE, Session, WitnessWorker, WorkerProcess, now, redis, until};

const ROOMS: usize = 16;
const LEASE: Duration = Duration::from_secs(1);
/// Time-outs alone tell of a death.
const LOCKLESS: [&str; 2] = ["--runtime-dir", "none"];

async fn players(gateway: &GatewayProcess) -> Vec<Session> {
    let mut players = Vec::new();
    for room in 0..ROOMS {
        players.push(gateway.ticket(&format!("claim-{room}"), "ann").join().await);
    }
    players
}

/// Everybody acts and is answered; ids begin with `name`.
async fn play(players: &mut [Session], name: &str) {
    for round in 0..5 {
        let id = format!("{name}-{round}");
        for player in &mut *players {
            player.act("claim", &id, &id, json!(null)).await;
        }
        for player in &mut *players {
            assert_eq!(player.answer(&id).await["outcome"], "granted");
        }
    }
}

const SHARDS: f64 = 8.0;

fn shared(workers: &[&WorkerProcess]) {
    until("the shards are shared", || {
        let owned: Vec<f64> = workers.iter().map(|worker| worker.metric("lasthit_shards_owned")).collect();
        owned.iter().all(|owned| *owned == SHARDS / workers.len() as f64).then_some(())
    });
}

/// The owners that Redis has on record.
fn owners(redis: &RedisServer) -> Vec<String> {
    let mut connection = ::redis::Client::open(redis.url()).and_then(|client| client.get_connection()).expect("redis");
    let owner = |shard| ::redis::cmd("HGET").arg(shard_key(ShardId(shard), 8, "shard")).arg("owner").query(&mut connection);
    (0..8).map(owner).collect::<Result<_, _>>().expect("owners")
}

#[tokio::test]
async fn workers_share_the_shards_and_each_room_has_one() {
    let redis = redis(&[]);
    let gateway = GatewayProcess::on(&redis, &[]);
    let one = WorkerProcess::on(&redis, &[]);
    let mut players = players(&gateway).await;
    play(&mut players, "alone").await;
    assert_eq!(one.metric("lasthit_shards_owned"), SHARDS);
    let two = WorkerProcess::on(&redis, &[]);
    // While shards move, nothing is lost and nothing is decided twice.
    play(&mut players, "moving").await;
    shared(&[&one, &two]);
    play(&mut players, "shared").await;
    let before = owners(&redis);
    assert_eq!(before.iter().collect::<std::collections::BTreeSet<_>>().len(), 2, "{before:?}");
    play(&mut players, "settled").await;
    assert_eq!(owners(&redis), before, "settled shards stay where they are");
    // Every verdict was committed once: by one worker or the other.
    let verdicts: usize = players.iter().map(|player| player.seen.len() + 1).sum();
    // A player may hear of a verdict before its worker has heard that the commit is through.
    until("all verdicts are counted", || {
        let counted = one.metric("lasthit_verdicts_total") + two.metric("lasthit_verdicts_total");
        assert!(counted <= verdicts as f64, "{counted} of {verdicts}");
        (counted == verdicts as f64).then_some(())
    });
}

#[tokio::test]
async fn a_killed_workers_rooms_go_on_within_its_lease() {
    let redis = redis(&[]);
    let gateway = GatewayProcess::on(&redis, &[]);
    let (mut one, two) = (WorkerProcess::on(&redis, &LOCKLESS), WorkerProcess::on(&redis, &LOCKLESS));
    shared(&[&one, &two]);
    let mut players = players(&gateway).await;
    play(&mut players, "before").await;
    one.process.kill();
    let killed = now();
    play(&mut players, "after").await;
    let took = killed.elapsed();
    // The lease, the heartbeat that notices, and slow machines.
    assert!(took < LEASE + Duration::from_secs(5), "{took:?}");
    assert_eq!(two.metric("lasthit_shards_owned"), SHARDS);
    play(&mut players, "later").await;
}

/// By its lock: its lease would be good for a minute.
#[tokio::test]
async fn a_killed_worker_is_noticed_at_once() {
    let redis = redis(&[]);
    let gateway = GatewayProcess::on(&redis, &[]);
    let patient = ["--lease-ms", "60000"];
    let (mut one, two) = (WorkerProcess::on(&redis, &patient), WorkerProcess::on(&redis, &patient));
    let mut players = players(&gateway).await;
    play(&mut players, "before").await;
    assert!(one.metric("lasthit_shards_owned") > 0.0);
    one.process.kill();
    play(&mut players, "after").await;
    assert_eq!(two.metric("lasthit_shards_owned"), SHARDS);
    // Whoever takes its place is not kept waiting by what it left either.
    drop(two);
    let _three = WorkerProcess::on(&redis, &patient);
    play(&mut players, "later").await;
}

#[tokio::test]
async fn a_worker_that_is_asked_to_stop_hands_over_at_once() {
    let redis = redis(&[]);
    let gateway = GatewayProcess::on(&redis, &[]);
    let long = ["--lease-ms", "10000"];
    let (mut one, two) = (WorkerProcess::on(&redis, &long), WorkerProcess::on(&redis, &long));
    shared(&[&one, &two]);
    let mut players = players(&gateway).await;
    play(&mut players, "before").await;
    one.process.signal("TERM");
    let asked = now();
    play(&mut players, "after").await;
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}: nobody waits for a lease of 10 s");
    assert_eq!(one.process.code(), Some(0));
    assert_eq!(two.metric("lasthit_shards_owned"), SHARDS);
}

/// Its successor has come after its last heartbeat, and counts the one that leaves until its goodbye: the next heartbeats of both are 15 s
/// away, and no lock tells.
#[tokio::test]
async fn a_worker_that_stops_hands_over_to_who_has_only_just_come() {
    let redis = redis(&[]);
    let gateway = GatewayProcess::on(&redis, &[]);
    let patient = [&["--lease-ms", "60000"], &LOCKLESS[..]].concat();
    let mut one = WorkerProcess::on(&redis, &patient);
    let mut players = players(&gateway).await;
    play(&mut players, "before").await;
    let two = WorkerProcess::on(&redis, &patient);
    one.process.signal("TERM");
    let asked = now();
    play(&mut players, "after").await;
    until("all shards are taken", || (two.metric("lasthit_shards_owned") == SHARDS).then_some(()));
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}: nobody waits for a heartbeat");
    assert_eq!(one.process.code(), Some(0));
}

#[tokio::test]
async fn no_more_rooms_than_allowed_are_resolved_at_once() {
    let redis = redis(&[]);
    let gateway = GatewayProcess::on(&redis, &[]);
    let worker = WitnessWorker::on(&redis, WorkerOptions { concurrency: 2, ..WorkerOptions::default() });
    let mut players = players(&gateway).await;
    for round in 0..3 {
        for player in &mut players {
            player.act("nap", &round.to_string(), "c", json!({"ms": 30})).await;
        }
    }
    for player in &mut players {
        assert_eq!(player.answer("2").await["outcome"], "granted");
    }
    assert_eq!(worker.crowd.most(), 2);
}

#[tokio::test]
async fn a_slow_room_holds_up_only_itself() {
    let redis = redis(&[]);
    let gateway = GatewayProcess::on(&redis, &[]);
    let _worker = WitnessWorker::on(&redis, WorkerOptions { concurrency: 2, ..WorkerOptions::default() });
    let mut players = players(&gateway).await;
    let nap = Duration::from_secs(3);
    let (slow, others) = players.split_first_mut().expect("players");
    let began = now();
    slow.act("nap", "nap", "c", json!({"ms": nap.as_millis() as u64})).await;
    slow.act("hit", "behind-it", "c", json!(null)).await;
    for round in 0..5 {
        for player in &mut *others {
            assert_eq!(player.ask("hit", &round.to_string(), "c", json!(null)).await["outcome"], "granted");
        }
    }
    assert!(began.elapsed() < nap, "the others waited: {:?}", began.elapsed());
    assert_eq!(slow.answer("behind-it").await["outcome"], "granted");
    assert!(began.elapsed() >= nap, "a room is serial");
    let order: Vec<_> = slow.seen.iter().map(|v| v["id"].clone()).collect();
    assert_eq!(order, ["nap", "behind-it"]);
}

#[tokio::test]
async fn rules_that_panic_make_one_verdict_void_and_the_room_goes_on() {
    let redis = redis(&[]);
    let gateway = GatewayProcess::on(&redis, &[]);
    let _worker = WitnessWorker::on(&redis, WorkerOptions::default());
    let mut players = players(&gateway).await;
    players[0].act("hit", "before", "c", json!(null)).await;
    players[0].act("trip", "trip", "c", json!(null)).await;
    players[0].act("hit", "after", "c", json!(null)).await;
    assert_eq!(players[0].answer("before").await["outcome"], "granted");
    let tripped = players[0].answer("trip").await;
    assert_eq!((&tripped["outcome"], &tripped["reason"]), (&json!("void"), &json!("rules_failed")));
    assert_eq!(players[0].answer("after").await["outcome"], "granted");
    for player in &mut players[1..] {
        assert_eq!(player.ask("hit", "1", "c", json!(null)).await["outcome"], "granted");
    }
}

/// Rooms that no living worker has rules for are refused at the gateway, before anything of them is written; as soon as a worker
/// has some, they are not.
#[tokio::test]
async fn rooms_without_rules_are_refused_until_a_worker_has_some() {
    let redis = redis(&[]);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "[[rooms]]\npattern = \"quiz-*\"\nrules = \"claim\"\n").expect("written");
    let path = file.path().to_str().expect("a path");
    let _quiz = WorkerProcess::on(&redis, &["--config", path]);
    let gateway = GatewayProcess::on(&redis, &[]);
    // What it hears first; before the gateway knows, the worker has it sent away.
    let joined = async |room: &str| {
        tokio::time::sleep(Duration::from_millis(50)).await;
        match gateway.ticket(room, "ann").open().await.next().await {
            Heard::Message(message) => message,
            Heard::Close(code, reason) => {
                assert!(code == 1013 && reason.contains("nobody has rules"), "{code} {reason}");
                json!({ "t": "close" })
            }
            Heard::Lost(error) => panic!("{error}"),
        }
    };
    let refused = |first: &serde_json::Value| first["code"] == "unknown_room";
    // What the workers say is looked up every few seconds.
    let started = now();
    loop {
        let first = joined("pit").await;
        if refused(&first) {
            assert!(first["message"].as_str().is_some_and(|m| m.contains("no worker has rules") && m.contains("pit")), "{first}");
            break;
        }
        assert!(started.elapsed() < PATIENCE, "{first}");
    }
    assert_eq!(joined("quiz-1").await["t"], "welcome");
    let _others = WorkerProcess::on(&redis, &[]);
    while refused(&joined("pit").await) {
        assert!(started.elapsed() < 2 * PATIENCE);
    }
}

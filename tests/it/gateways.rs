//! Gateways that stop for a while, and what a deployment in which nothing happens costs.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use lasthit::internals::limits::{HEADS_INTERVAL, HEARTBEAT_INTERVAL, SUBSCRIPTION_ECHO_INTERVAL};
use serde_json::json;
use servers::RedisServer;

use super::support::{GatewayProcess, WorkerProcess, redis};

const SHARDS: u32 = 8;

/// Stopped for longer than its timeout and continued, a gateway comes back as another; what it had unread is not let in,
/// what it could have taken along is flagged, and a room that is only on the other gateway does not notice.
#[tokio::test]
async fn one_that_was_stopped_comes_back_as_another() {
    let redis = redis(&[]);
    let worker = WorkerProcess::on(&redis, &["--gateway-timeout-ms", "3000"]);
    let (a, b) = (GatewayProcess::on(&redis, &[]), GatewayProcess::on(&redis, &[]));
    let mut ann = a.ticket("claim-1", "ann").join().await;
    let mut bob = b.ticket("claim-1", "bob").join().await;
    let mut cid = b.ticket("claim-2", "cid").join().await;
    ann.ask("claim", "before", "hat", json!(null)).await;
    bob.find(|v| v["id"] == "before").await;

    a.process.signal("STOP");
    ann.act("claim", "unread", "seat", json!(null)).await;
    bob.act("claim", "waits", "seat", json!(null)).await;
    for n in 0..10 {
        assert_eq!(cid.ask("claim", &n.to_string(), &n.to_string(), json!(null)).await["outcome"], "granted");
    }
    assert!(!worker.process.lines().iter().any(|line| line.contains("is fenced")), "the other room waited for the fence");
    let won = bob.answer("waits").await;
    assert_eq!((&won["outcome"], &won["unproven"]), (&json!("granted"), &json!(true)), "{won}");
    worker.process.line_with("is fenced");

    a.process.signal("CONT");
    let (code, reason) = ann.close_code().await;
    assert_eq!(code, 4503, "{reason}");
    a.process.line_with("was declared dead in a shard");
    let mut back = a.ticket("claim-1", "ann").join().await;
    assert_ne!(back.id, ann.id);
    assert_eq!(back.ask("claim", "again", "seat", json!(null)).await["reason"], "late");
    bob.find(|v| v["id"] == "again").await;
    assert!(bob.seen.iter().all(|v| v["id"] != "unread"), "{:?}", bob.seen);
    assert_eq!(bob.seen.iter().filter(|v| v["session"] == ann.id.as_str() && v["event"] == "close").count(), 1);
}

/// What clients sent to Redis within `time`; what scripts do inside of it is theirs.
fn commands_within(redis: &RedisServer, time: Duration) -> Vec<String> {
    let mut monitor = UnixStream::connect(redis.socket()).expect("redis");
    monitor.write_all(b"MONITOR\r\n").expect("sent");
    let mut lines = BufReader::new(monitor.try_clone().expect("a socket"));
    let mut line = String::new();
    lines.read_line(&mut line).expect("an answer");
    assert_eq!(line, "+OK\r\n");
    // The one wait for time: how often something happens while nothing does shows only in time.
    std::thread::sleep(time);
    monitor.write_all(b"QUIT\r\n").expect("sent");
    let commands = lines.lines().map_while(Result::ok).filter(|line| !line.contains(" lua]"));
    commands.filter(|line| line.contains('"') && !line.to_ascii_uppercase().contains("\"QUIT\"")).collect()
}

#[tokio::test]
async fn an_idle_deployment_leaves_redis_alone() {
    let (sessions, rooms) = (200, 20);
    let redis = redis(&[]);
    let gateways = [GatewayProcess::on(&redis, &[]), GatewayProcess::on(&redis, &[])];
    let workers = [WorkerProcess::on(&redis, &[]), WorkerProcess::on(&redis, &[])];
    let mut players = Vec::new();
    for n in 0..sessions {
        players.push(gateways[n % 2].ticket(&format!("claim-{}", n / 2 % rooms), &format!("p{n}")).join().await);
    }
    // Settled: each worker has its half.
    super::support::until("the shards are shared", || {
        workers.iter().all(|worker| worker.metric("lasthit_shards_owned") == f64::from(SHARDS) / 2.0).then_some(())
    });
    let time = Duration::from_secs(3);
    let commands = commands_within(&redis, time);
    // Each source may strike once more than the time holds its interval.
    let often = |interval: Duration| u32::try_from(time.as_nanos() / interval.as_nanos()).expect("small") + 1;
    // Of each worker: its heartbeat, and a look at which server answers.
    let beats = 2 * 2 * often(HEARTBEAT_INTERVAL);
    // Of each gateway and shard: the heads, and a heartbeat behind a PING; the first time a script may have to be loaded.
    let heads = (3 * 2 * SHARDS + 4) * often(HEADS_INTERVAL) + 2 * SHARDS;
    // Of each process: its echo.
    let echoes = 2 * 2 * often(SUBSCRIPTION_ECHO_INTERVAL);
    let bound = usize::try_from(beats + heads + echoes).expect("small");
    println!("{} commands in {time:?}, at most {bound} are expected", commands.len());
    assert!(commands.len() <= bound, "{} commands in {time:?}, bound {bound}: {commands:#?}", commands.len());
    assert!(commands.len() >= usize::try_from(beats / 4).expect("small"), "too few to be true: {commands:?}");
}

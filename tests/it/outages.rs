//! Redis goes away and comes back. Meanwhile sessions stay open and `/readyz` says no; afterwards everything that was
//! accepted is resolved once, without a restart of anything.

use std::collections::BTreeMap;

use lasthit::internals::limits::UNRESOLVED_PER_ROOM_MAX;
use lasthit::internals::wire::verdicts;
use lasthit::journal::GatewayJournal as _;
use lasthit::journal::redis::{RedisJournal, RedisOptions};
use lasthit::types::{Outcome, RoomId, VerdictKind};
use serde_json::json;
use servers::{Proxy, RedisServer};

use super::support::{GatewayProcess, Process, Session, WorkerProcess, end_by_signal, get, until};

const ROOM: &str = "claim-1";
/// What is sent in one go while Redis does not do its work.
const ACTS: usize = 40;

/// A gateway and a worker in the middle of a game, with a path to Redis that can fail.
pub(super) struct Running {
    pub(super) proxy: Proxy,
    gateway: GatewayProcess,
    worker: WorkerProcess,
    ann: Session,
    acted: usize,
}

impl Running {
    pub(super) async fn on(redis: &RedisServer, flags: &[&str]) -> Self {
        Self::start(redis, flags, flags).await
    }

    async fn start(redis: &RedisServer, gateway: &[&str], worker: &[&str]) -> Self {
        let proxy = Proxy::start(redis.upstream()).expect("a proxy");
        let (gateway, worker) = (GatewayProcess::at(&proxy.url(), gateway), WorkerProcess::at(&proxy.url(), worker));
        let mut ann = gateway.ticket(ROOM, "ann").join().await;
        ann.ask("claim", "before", "before", json!(null)).await;
        Self { proxy, gateway, worker, ann, acted: 0 }
    }

    /// Sends what is to be resolved later.
    pub(super) async fn act(&mut self) {
        for _ in 0..ACTS {
            let id = format!("n{}", self.acted);
            self.ann.act("claim", &id, &id, json!(null)).await;
            self.acted += 1;
        }
    }

    /// `/readyz` of both is false, and says why.
    fn are_not_ready(&self, reason: &str) {
        let (gateway, worker) = (|| self.gateway.ready(), || self.worker.ready());
        for ready in [&gateway as &dyn Fn() -> (u16, String), &worker] {
            until("it is not ready", || {
                let (status, said) = ready();
                (status == 503 && said.contains("journal") && said.contains(reason)).then_some(())
            });
        }
    }

    /// Everything is answered on the same session, once; everything works again, and says so. The client's record is the
    /// stream's.
    pub(super) async fn recovers(mut self, redis: &RedisServer) {
        // Its actions are resolved in their order.
        let last = format!("n{}", self.acted - 1);
        self.ann.find(|v| v["id"] == last.as_str()).await;
        assert_eq!(self.ann.ask("claim", "after", "after", json!(null)).await["outcome"], "granted");
        until("both are ready again", || (self.gateway.ready().0 == 200 && self.worker.ready().0 == 200).then_some(()));
        audit(redis, &self.ann, self.acted + 2).await;
    }
}

/// Every verdict that the client saw stands in the stream, under its `seq`; the stream has no gap, and each action once.
pub(super) async fn audit(redis: &RedisServer, client: &Session, actions: usize) {
    let journal = RedisJournal::connect(&redis.url(), RedisOptions::default()).await.expect("a journal");
    let room: RoomId = ROOM.parse().expect("a name");
    let (mut stored, mut after) = (BTreeMap::new(), 0);
    loop {
        let page = journal.verdicts(&room, after, 100).await.expect("verdicts");
        for batch in &page.batches {
            for verdict in verdicts::decode(batch).expect("readable").verdicts {
                assert_eq!(verdict.seq, after + 1, "contiguous");
                after = verdict.seq;
                if verdict.kind == VerdictKind::Data {
                    assert_eq!(verdict.outcome, Outcome::Granted);
                    let id = verdict.id.clone().expect("an id");
                    assert_eq!(stored.insert(id.clone(), verdict.seq), None, "{id} is resolved once");
                }
            }
        }
        if after >= page.seq {
            break;
        }
    }
    let seen = client.seen.iter().filter(|v| v["event"] == "data");
    let seen: BTreeMap<String, u64> =
        seen.map(|v| (v["id"].as_str().unwrap_or_default().to_owned(), v["seq"].as_u64().unwrap_or_default())).collect();
    assert_eq!(seen, stored);
    assert_eq!(stored.len(), actions);
}

pub(crate) fn tell(redis: &RedisServer, command: &[&str]) {
    redis.ask::<::redis::Value>(command).unwrap_or_else(|error| panic!("{command:?}: {error}"));
}

const DISK: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

#[tokio::test]
async fn killed_and_started_again_on_its_file() {
    let mut redis = RedisServer::start_with(&DISK).expect("redis");
    let mut running = Running::on(&redis, &["--durability", "disk"]).await;
    running.act().await;
    redis.kill().expect("killed");
    running.act().await;
    running.are_not_ready("not reachable");
    redis.restart().expect("started again");
    running.recovers(&redis).await;
}

/// Processes that are started meanwhile wait for it.
#[tokio::test]
async fn away_when_processes_start() {
    let mut redis = RedisServer::start_with(&DISK).expect("redis");
    redis.kill().expect("killed");
    let level = ["--durability", "disk"];
    let start = |role: &str| {
        let path = ["--redis", &redis.url(), "--admin", "127.0.0.1:0"];
        let listen: &[&str] = if role == "gateway" { &["--listen", "127.0.0.1:0"] } else { &[] };
        Process::start(&[&[role], &path[..], listen, &level].concat(), &[])
    };
    let (gateway, worker) = (start("gateway"), start("worker"));
    for process in [&gateway, &worker] {
        process.line_with("waiting for redis");
        let (status, why) = get(process.address_in("health and metrics on http://"), "/readyz");
        assert!(status == 503 && why.contains("no redis at"), "{status} {why}");
    }
    redis.restart().expect("started again");
    worker.line_with("worker started");
    let gateway = GatewayProcess::of(gateway);
    let mut ann = gateway.ticket(ROOM, "ann").join().await;
    assert_eq!(ann.ask("claim", "first", "first", json!(null)).await["outcome"], "granted");
}

/// A process that has reached it loses it again, at each of its first steps in turn, and for some tries in a row. It starts.
#[test]
fn lost_while_processes_start() {
    /// Tries in a row that lose it.
    const LOST: u64 = 3;
    let redis = RedisServer::start_with(&DISK).expect("redis");
    for role in ["gateway", "worker"] {
        let started = |lost: std::ops::Range<u64>| {
            let proxy = Proxy::start(redis.upstream()).expect("a proxy");
            proxy.lose(lost);
            let path = ["--redis", &proxy.url(), "--durability", "disk", "--admin", "127.0.0.1:0"];
            let listen: &[&str] = if role == "gateway" { &["--listen", "127.0.0.1:0"] } else { &[] };
            let mut process = Process::start(&[&[role], &path[..], listen].concat(), &[]);
            let admin = process.address_in("health and metrics on http://");
            until("it is ready", || {
                assert!(!process.has_ended(), "{role} ended: {:?}", process.lines().last());
                (get(admin, "/readyz").0 == 200).then_some(())
            });
            proxy.sent()
        };
        let steps = started(0..0);
        assert!(steps > 5, "{role}: {steps}");
        for step in 0..steps {
            started(step..step + LOST);
        }
    }
}

#[tokio::test]
async fn lost_to_a_replica() {
    const FLAGS: [&str; 2] = ["--min-replicas-to-write", "2"];
    let mut first = RedisServer::start_tcp(&FLAGS).expect("redis");
    let (second, third) = (first.replica(&[]).expect("a replica"), first.replica(&[]).expect("a replica"));
    let mut running = Running::on(&first, &["--durability", "replicated"]).await;
    running.act().await;
    first.kill().expect("killed");
    running.act().await;
    running.are_not_ready("not reachable");
    tell(&second, &["REPLICAOF", "NO", "ONE"]);
    let port = second.address().expect("a port").port().to_string();
    tell(&third, &["REPLICAOF", "127.0.0.1", &port]);
    tell(&second, &["CONFIG", "SET", "min-replicas-to-write", "1"]);
    running.proxy.lead_to(second.upstream());
    running.recovers(&second).await;
}

#[tokio::test]
async fn without_its_replica_for_a_while() {
    let redis = RedisServer::start_tcp(&["--min-replicas-to-write", "1"]).expect("redis");
    let mut replica = redis.replica(&[]).expect("a replica");
    let mut running = Running::on(&redis, &["--durability", "replicated"]).await;
    running.act().await;
    replica.kill().expect("killed");
    running.act().await;
    running.are_not_ready("replicas");
    replica.restart().expect("started again");
    running.recovers(&redis).await;
}

/// The old primary lives on where it was, and its connections with it.
#[tokio::test]
async fn demoted_behind_a_path_that_leads_elsewhere() {
    let first = RedisServer::start_tcp(&[]).expect("redis");
    let second = first.replica(&[]).expect("a replica");
    let mut running = Running::on(&first, &[]).await;
    tell(&first, &["CLIENT", "PAUSE", "60000", "WRITE"]);
    running.act().await;
    let offset = |redis: &RedisServer| {
        let info: String = redis.ask(&["INFO", "replication"]).expect("an answer");
        info.lines().find_map(|line| line.strip_prefix("master_repl_offset:").map(str::to_owned)).expect("an offset")
    };
    until("the replica has everything", || (offset(&first) == offset(&second)).then_some(()));
    tell(&second, &["REPLICAOF", "NO", "ONE"]);
    let port = second.address().expect("a port").port().to_string();
    tell(&first, &["REPLICAOF", "127.0.0.1", &port]);
    tell(&first, &["CLIENT", "UNPAUSE"]);
    running.are_not_ready("read-only");
    running.proxy.lead_to(second.upstream());
    running.recovers(&second).await;
}

#[tokio::test]
async fn full_for_a_while() {
    let redis = RedisServer::start().expect("redis");
    let mut running = Running::on(&redis, &[]).await;
    tell(&redis, &["CONFIG", "SET", "maxmemory", "1"]);
    running.act().await;
    running.are_not_ready("full");
    tell(&redis, &["CONFIG", "SET", "maxmemory", "0"]);
    running.recovers(&redis).await;
}

#[tokio::test]
async fn read_only_for_a_while() {
    let redis = RedisServer::start().expect("redis");
    let mut running = Running::on(&redis, &[]).await;
    tell(&redis, &["REPLICAOF", "127.0.0.1", "1"]);
    running.act().await;
    running.are_not_ready("read-only");
    tell(&redis, &["REPLICAOF", "NO", "ONE"]);
    running.recovers(&redis).await;
}

#[tokio::test]
async fn stopped_for_a_while() {
    let redis = RedisServer::start().expect("redis");
    let mut running = Running::on(&redis, &[]).await;
    end_by_signal(redis.pid(), "STOP");
    running.act().await;
    running.are_not_ready("not reachable");
    end_by_signal(redis.pid(), "CONT");
    running.recovers(&redis).await;
}

#[tokio::test]
async fn paused_for_a_while() {
    let redis = RedisServer::start().expect("redis");
    let mut running = Running::on(&redis, &[]).await;
    tell(&redis, &["CLIENT", "PAUSE", "60000", "WRITE"]);
    running.act().await;
    running.are_not_ready("not reachable");
    tell(&redis, &["CLIENT", "UNPAUSE"]);
    running.recovers(&redis).await;
}

#[tokio::test]
async fn killed_connections_and_forgotten_scripts() {
    let redis = RedisServer::start().expect("redis");
    let mut running = Running::on(&redis, &[]).await;
    for round in 0..3 {
        for command in [
            &["CLIENT", "KILL", "TYPE", "normal"][..],
            &["CLIENT", "KILL", "TYPE", "pubsub"],
            &["SCRIPT", "FLUSH"],
            &["FUNCTION", "FLUSH"],
        ] {
            running.act().await;
            tell(&redis, command);
            // The next comes in the middle of the recovery from this one, or after it.
            if round == 1 {
                let last = format!("n{}", running.acted - 1);
                running.ann.find(|v| v["id"] == last.as_str()).await;
            }
        }
    }
    running.recovers(&redis).await;
}

#[tokio::test]
async fn behind_a_black_hole() {
    let redis = RedisServer::start().expect("redis");
    let mut running = Running::on(&redis, &[]).await;
    running.proxy.swallow(true);
    running.act().await;
    running.are_not_ready("not reachable");
    // What was connected meanwhile stays silent for ever.
    running.proxy.swallow(false);
    running.recovers(&redis).await;
}

#[tokio::test]
async fn behind_a_path_that_is_closed_and_slow() {
    let redis = RedisServer::start().expect("redis");
    let mut running = Running::on(&redis, &[]).await;
    running.proxy.refuse(true);
    running.proxy.cut();
    running.act().await;
    running.are_not_ready("not reachable");
    let slow = std::time::Duration::from_millis(30);
    running.proxy.delay(slow, slow);
    running.proxy.refuse(false);
    running.recovers(&redis).await;
}

/// What is over the bound is refused at once, with a word that says what to do; what is under it is resolved.
#[tokio::test]
async fn away_for_longer_than_there_is_room() {
    const MORE: usize = 500;
    let redis = RedisServer::start().expect("redis");
    let mut running = Running::start(&redis, &["--actions-per-second", "1000000"], &[]).await;
    running.proxy.swallow(true);
    while running.acted < UNRESOLVED_PER_ROOM_MAX + MORE {
        running.act().await;
    }
    running.are_not_ready("not reachable");
    let mut refused = 0;
    while refused < running.acted - UNRESOLVED_PER_ROOM_MAX {
        let error = running.ann.recv().await;
        assert_eq!((&error["t"], &error["code"]), (&json!("error"), &json!("busy")), "{error}");
        // They are the last ones.
        assert_eq!(error["id"], format!("n{}", UNRESOLVED_PER_ROOM_MAX + refused), "{error}");
        refused += 1;
    }
    running.proxy.swallow(false);
    running.acted = UNRESOLVED_PER_ROOM_MAX;
    running.recovers(&redis).await;
}

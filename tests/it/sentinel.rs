//! A game on the primary that Sentinel names. The primary is killed, demoted, cut off: play goes on with the next one, on the same
//! sessions, and without a restart of anything.

use serde_json::json;
use servers::{Program, RedisServer, Sentinels};

use super::outages::{audit, tell};
use super::redis::refused;
use super::support::{GatewayProcess, Process, Session, WorkerProcess, end_by_signal, until};

/// All replicas of three servers confirm: whichever is elected has everything.
const BOTH: [&str; 2] = ["--min-replicas-to-write", "2"];
const REPLICATED: [&str; 2] = ["--durability", "replicated"];
/// What is sent in one go.
const ACTS: usize = 40;

/// A gateway and a worker in the middle of a game, under three sentinels.
struct Running {
    servers: Vec<RedisServer>,
    sentinels: Sentinels,
    gateway: GatewayProcess,
    worker: WorkerProcess,
    ann: Session,
    acted: usize,
}

impl Running {
    /// With two replicas, each of which confirms everything.
    async fn replicated() -> Self {
        Self::on(RedisServer::start_tcp(&BOTH).expect("redis"), 2, &REPLICATED).await
    }

    async fn on(primary: RedisServer, replicas: usize, flags: &[&str]) -> Self {
        let options = if replicas == 2 { &BOTH[..] } else { &[] };
        let mut servers = vec![primary];
        for _ in 0..replicas {
            servers.push(servers[0].replica(options).expect("a replica"));
        }
        let sentinels = Sentinels::start(&servers[0], 3, replicas).expect("sentinels");
        let url = sentinels.url();
        let (gateway, worker) = (GatewayProcess::at(&url, flags), WorkerProcess::at(&url, flags));
        let mut ann = gateway.ticket("claim-1", "ann").join().await;
        ann.ask("claim", "before", "before", json!(null)).await;
        Self { servers, sentinels, gateway, worker, ann, acted: 0 }
    }

    /// Sends what is to be resolved later.
    async fn act(&mut self) {
        for _ in 0..ACTS {
            let id = format!("n{}", self.acted);
            self.ann.act("claim", &id, &id, json!(null)).await;
            self.acted += 1;
        }
    }

    /// Which server is the primary now, as it is not the first one any more.
    fn successor(&self) -> usize {
        let found = self.sentinels.successor(&self.servers, &self.servers[0]).expect("a successor").address();
        self.servers.iter().position(|server| server.address() == found).expect("one of them")
    }

    /// Everything is answered on the same session, once, and stands on the server that is the primary now.
    async fn recovers(mut self, on: usize) {
        let last = format!("n{}", self.acted - 1);
        self.ann.find(|v| v["id"] == last.as_str()).await;
        assert_eq!(self.ann.ask("claim", "after", "after", json!(null)).await["outcome"], "granted");
        until("both are ready again", || (self.gateway.ready().0 == 200 && self.worker.ready().0 == 200).then_some(()));
        audit(&self.servers[on], &self.ann, self.acted + 2).await;
    }
}

#[tokio::test]
async fn the_primary_is_killed() {
    let mut running = Running::replicated().await;
    running.act().await;
    running.servers[0].kill().expect("killed");
    running.act().await;
    let next = running.successor();
    running.act().await;
    // It is one of those that must confirm: the sentinels make it a replica when it is back, empty.
    running.servers[0].restart().expect("started again");
    running.recovers(next).await;
}

/// At the level `redis` nobody waits for the one that is gone.
#[tokio::test]
async fn the_primary_is_gone_for_good() {
    let mut running = Running::on(RedisServer::start_tcp(&[]).expect("redis"), 1, &[]).await;
    let offset = |server: &RedisServer| {
        let info: String = server.ask(&["INFO", "replication"]).expect("an answer");
        info.lines().find_map(|line| line.strip_prefix("master_repl_offset:").map(str::to_owned)).expect("an offset")
    };
    tell(&running.servers[0], &["CLIENT", "PAUSE", "60000", "WRITE"]);
    until("the replica has everything", || (offset(&running.servers[0]) == offset(&running.servers[1])).then_some(()));
    running.servers[0].kill().expect("killed");
    running.act().await;
    let next = running.successor();
    running.act().await;
    running.recovers(next).await;
}

#[tokio::test]
async fn the_primary_is_demoted_by_hand() {
    let mut running = Running::replicated().await;
    running.act().await;
    running.sentinels.all()[0].ask::<()>(&["SENTINEL", "FAILOVER", "main"]).expect("a failover");
    running.act().await;
    let next = running.successor();
    running.act().await;
    running.recovers(next).await;
}

/// For longer than the sentinels wait. When it is back it takes itself for the primary, until they reach it.
#[tokio::test]
async fn the_primary_is_cut_off() {
    let mut running = Running::replicated().await;
    running.act().await;
    end_by_signal(running.servers[0].pid(), "STOP");
    running.act().await;
    let next = running.successor();
    running.act().await;
    end_by_signal(running.servers[0].pid(), "CONT");
    running.act().await;
    running.recovers(next).await;
}

#[tokio::test]
async fn the_primary_is_a_valkey_and_is_killed() {
    let Some(primary) = RedisServer::start_other(Program::Valkey, &BOTH, true).expect("a server") else { return };
    let mut running = Running::on(primary, 2, &REPLICATED).await;
    running.act().await;
    running.servers[0].kill().expect("killed");
    running.act().await;
    let next = running.successor();
    running.servers[0].restart().expect("started again");
    running.recovers(next).await;
}

#[test]
fn what_does_not_fit_is_told() {
    let server = RedisServer::start_tcp(&[]).expect("redis");
    let replica = server.replica(&[]).expect("a replica");
    let sentinels = Sentinels::start(&server, 1, 1).expect("a sentinel");
    let hosts = sentinels.url().trim_start_matches("redis+sentinel://").trim_end_matches("/main").to_owned();
    let plain = server.address().expect("a port");
    refused(&format!("redis+sentinel://u:hush@{hosts}/other"), &["\"other\"", &sentinels.url()]);
    refused(&format!("redis+sentinel://u:hush@{plain}/main"), &["no sentinel", &format!("use redis://{plain}")]);
    refused(&format!("redis://{hosts}"), &["is a sentinel", &sentinels.url()]);
    tell(&server, &["CONFIG", "SET", "min-replicas-to-write", "0"]);
    let flags = ["worker", "--redis", &sentinels.url(), "--durability", "replicated"];
    let line = Process::start(&flags, &[]).fails(1);
    assert!(line.contains(&format!("redis://{plain} has 0: CONFIG SET min-replicas-to-write 1")), "{line}");
    drop(replica);
}

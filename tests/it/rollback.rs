//! Redis comes back with less than it had, or with all of it. Nothing that a client was told is taken back without telling
//! it, and everything goes on without a restart of any process.

use serde_json::json;
use servers::RedisServer;

use super::support::{GatewayProcess, Session, WorkerProcess, redis, until};

const ROOM: &str = "claim-1";

/// Two players on two gateways, and a worker.
struct Running {
    redis: RedisServer,
    gateways: [GatewayProcess; 2],
    worker: WorkerProcess,
    players: [Session; 2],
    late: Vec<(GatewayProcess, WorkerProcess, Session)>,
}

impl Running {
    async fn on(redis: RedisServer) -> Self {
        let gateways = [GatewayProcess::on(&redis, &[]), GatewayProcess::on(&redis, &[])];
        let worker = WorkerProcess::on(&redis, &[]);
        let players = [gateways[0].ticket(ROOM, "ann").join().await, gateways[1].ticket(ROOM, "bob").join().await];
        Self { redis, gateways, worker, players, late: Vec::new() }
    }

    /// Ann claims, and both are told.
    async fn claim(&mut self, contest: &str) {
        assert_eq!(self.players[0].ask("claim", contest, contest, json!(null)).await["outcome"], "granted");
        self.players[1].find(|v| v["id"] == contest).await;
    }

    /// Whoever comes now and whoever came before play in one room, and nothing has happened to it.
    async fn goes_on_as_it_was(&mut self, round: &str) {
        let worker = WorkerProcess::on(&self.redis, &[]);
        let gateway = GatewayProcess::on(&self.redis, &[]);
        let mut carl = gateway.ticket(ROOM, "carl").join().await;
        for n in 0..50 {
            self.claim(&format!("{round} {n}")).await;
        }
        let contest = format!("{round} carl");
        assert_eq!(carl.ask("claim", &contest, &contest, json!(null)).await["outcome"], "granted");
        self.players[0].find(|v| v["id"] == contest.as_str()).await;
        assert_eq!(carl.era(), self.players[0].era(), "{round}");
        self.late.push((gateway, worker, carl));
        assert!(self.rolled_back() < 1.0, "{round}");
        let workers = self.late.iter().map(|(_, worker, _)| worker).chain([&self.worker]);
        let deaths = workers.map(|worker| worker.metric("lasthit_gateway_deaths_total")).sum::<f64>();
        assert!(deaths < 1.0, "{round}: nobody was fenced");
    }

    /// Rooms that began a new era.
    fn rolled_back(&self) -> f64 {
        let name = "lasthit_rolled_back_total";
        let gateways = self.gateways.iter().chain(self.late.iter().map(|(gateway, ..)| gateway));
        let workers = self.late.iter().map(|(_, worker, _)| worker).chain([&self.worker]);
        gateways.map(|gateway| gateway.metric(name)).sum::<f64>() + workers.map(|worker| worker.metric(name)).sum::<f64>()
    }

    /// Both were told of `kept` and of `lost`, which Redis no longer has: they hear that, come back, and see what is.
    async fn goes_on_without(mut self, kept: &str, lost: &str) {
        let mut back = Vec::new();
        for ((player, gateway), name) in self.players.iter_mut().zip(&self.gateways).zip(["ann", "bob"]) {
            let (code, reason) = player.close_code().await;
            assert!(code == 4503 || code == 4410, "{name}: {code} {reason}");
            if code == 4503 {
                gateway.process.line_with("was declared dead in a shard");
            }
            let again = gateway.ticket(ROOM, name).since(player.era(), player.seq).join().await;
            assert_eq!((again.welcome["resumed"].as_bool(), again.welcome["gone"].as_bool()), (Some(false), Some(true)));
            assert_ne!(again.era(), player.era(), "{name}");
            let claims = &again.welcome["state"]["claims"];
            assert!(claims.get(kept).is_some() && claims.get(lost).is_none(), "{name}: {claims}");
            back.push(again);
        }
        assert!(self.rolled_back() >= 1.0);
        assert_eq!(back[0].era(), back[1].era());
        // What is lost is open again, and is decided once.
        assert_eq!(back[1].ask("claim", "again", lost, json!(null)).await["outcome"], "granted");
        assert_eq!(back[0].ask("claim", "late", lost, json!(null)).await["reason"], "late");
        until("all are ready", || {
            (self.gateways.iter().all(|g| g.ready().0 == 200) && self.worker.ready().0 == 200).then_some(())
        });
    }
}

#[tokio::test]
async fn with_a_truncated_log() {
    let mut running = Running::on(redis(&["--appendonly", "yes"])).await;
    running.claim("kept").await;
    let log = running.redis.home().join("appendonlydir/appendonly.aof.1.incr.aof");
    let length = || std::fs::metadata(&log).expect("a log").len();
    let then = length();
    running.claim("lost").await;
    running.redis.kill().expect("killed");
    assert!(length() > then);
    std::fs::OpenOptions::new().write(true).open(&log).and_then(|file| file.set_len(then)).expect("truncated");
    running.redis.restart().expect("restarted");
    running.goes_on_without("kept", "lost").await;
}

#[tokio::test]
async fn with_an_older_snapshot() {
    let mut running = Running::on(redis(&[])).await;
    running.claim("kept").await;
    running.redis.ask::<()>(&["SAVE"]).expect("saved");
    running.claim("lost").await;
    running.redis.kill().expect("killed");
    running.redis.restart().expect("restarted");
    running.goes_on_without("kept", "lost").await;
}

/// Replicas come and go while everybody plays, and processes start in between: nothing is lost, so no session is closed and
/// no room begins a new era.
#[tokio::test]
async fn with_replicas_that_come_and_go() {
    let server = RedisServer::start_tcp(&["--repl-backlog-ttl", "1"]).expect("redis");
    let mut running = Running::on(server).await;
    running.claim("alone").await;
    let replica = running.redis.replica(&[]).expect("a replica");
    running.goes_on_as_it_was("attached").await;
    drop(replica);
    until("the backlog is dropped", || {
        let info = running.redis.ask::<String>(&["INFO", "replication"]).expect("info");
        info.contains("repl_backlog_active:0").then_some(())
    });
    running.goes_on_as_it_was("dropped").await;
    let _replica = running.redis.replica(&[]).expect("a replica");
    running.goes_on_as_it_was("attached again").await;
    let [ann, bob] = &running.players;
    assert_eq!(ann.era(), bob.era());
}

/// Nothing is lost: sessions stay, the era stays, and who was away resumes.
#[tokio::test]
async fn with_everything() {
    let mut running = Running::on(redis(&["--appendonly", "yes", "--appendfsync", "always"])).await;
    running.claim("before").await;
    running.redis.kill().expect("killed");
    running.redis.restart().expect("restarted");
    running.claim("after").await;
    let [ann, _] = &running.players;
    let again = running.gateways[1].ticket(ROOM, "ann").since(ann.era(), ann.seq).join().await;
    assert_eq!((again.welcome["resumed"].as_bool(), again.era()), (Some(true), ann.era()));
    assert!(running.rolled_back() < 1.0);
}

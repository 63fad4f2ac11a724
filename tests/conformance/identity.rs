//! Which server a journal has: the same while nothing can be lost, another one whenever something may be.

use lasthit::journal::redis::{Durability, RedisJournal, RedisOptions};
use lasthit::journal::{Appended, CommonJournal as _, GatewayJournal as _, Leased, Seen, Witness, WorkerJournal as _};
use lasthit::types::Incarnation;
use servers::RedisServer;

use crate::fixture::{self, HOME, SHARD, SHARDS, TestGateway, at, claim, commit, entry, part, room, tell};

/// A server that keeps everything, and may be told to load it again.
const DEBUGGED: [&str; 6] = ["--appendonly", "yes", "--appendfsync", "always", "--enable-debug-command", "yes"];

async fn journal(server: &RedisServer) -> RedisJournal {
    let options = RedisOptions { shards: Some(SHARDS), ..RedisOptions::default() };
    RedisJournal::connect(&server.url(), options).await.expect("journal")
}

/// As somebody learns it who connects now.
async fn name(server: &RedisServer) -> Incarnation {
    journal(server).await.survey(SHARD, false).await.expect("survey").server
}

/// Asks a server until `INFO replication` has this line.
async fn until(server: &RedisServer, line: &str) {
    for _ in 0..1_000 {
        if server.ask::<String>(&["INFO", "replication"]).expect("info").lines().any(|has| has == line) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("never {line}");
}

#[tokio::test]
async fn a_replica_that_comes_and_goes_changes_nothing() {
    let server = RedisServer::start_tcp(&["--repl-backlog-ttl", "1"]).expect("server");
    let early = journal(&server).await;
    let mut gateway = TestGateway::register(&early).await;
    let lease = claim(&early).await;
    let before = name(&server).await;
    let replica = server.replica(&[]).expect("a replica");
    assert_eq!(name(&server).await, before, "a first replica");
    tell(&replica, &["REPLICAOF", "NO", "ONE"]);
    until(&server, "connected_slaves:0").await;
    assert_eq!(name(&server).await, before, "it left");
    until(&server, "repl_backlog_active:0").await;
    assert_eq!(name(&server).await, before, "the backlog is dropped");
    replica.follow(&server).expect("a replica again");
    let late = journal(&server).await;
    assert_eq!(late.survey(SHARD, false).await.expect("survey").server, before, "a first replica again");

    // Who came before and who came after work on one shard.
    let id = gateway.write(&late, room(0), "a").await;
    let first = commit(lease, 1, vec![part(room(0), 1, 0, 1, id)]);
    assert_eq!(late.commit(&first).await.expect("commit"), lasthit::journal::Committed::Done);
    let answer =
        early.register(SHARD, gateway.incarnation, Seen { server: before, flush: 1, commit: 1, home: HOME }, &[room(0)]).await;
    let answer = answer.expect("registered").here().expect("its home");
    assert_eq!((answer.renewed, answer.record.fenced, answer.rooms[0].era, answer.server), (0, false, 1, before));
}

/// Connections on which replicas are waited for are made when they are needed: after the first replica came, too.
#[tokio::test]
async fn connections_of_different_age_know_one_server() {
    let server = RedisServer::start_tcp(&["--repl-backlog-ttl", "1"]).expect("server");
    let first = server.replica(&[]).expect("a replica");
    tell(&server, &["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let options = RedisOptions { shards: Some(SHARDS), durability: Some(Durability::Replicated), ..RedisOptions::default() };
    let journal = RedisJournal::connect(&server.url(), options).await.expect("journal");
    let gateway = TestGateway::register(&journal).await;
    tell(&server, &["CONFIG", "SET", "min-replicas-to-write", "0"]);
    drop(first);
    until(&server, "repl_backlog_active:0").await;
    let _second = server.replica(&[]).expect("a replica");
    tell(&server, &["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let flush = gateway.flush(at(1), vec![entry(room(0), at(1), "a")]);
    assert!(matches!(journal.append(&flush).await.expect("append"), Appended::Stored(_)));
}

#[tokio::test]
async fn what_may_have_lost_something_is_another_server() {
    let mut server = RedisServer::start_tcp(&DEBUGGED).expect("server");
    let mut names = vec![name(&server).await];
    let mut another = |name: Incarnation, what: &str| {
        assert!(name != Incarnation::NONE && !names.contains(&name), "{what}: {name:?} of {names:?}");
        names.push(name);
    };
    server.kill().expect("killed");
    server.restart().expect("restarted");
    another(name(&server).await, "a restart");

    let replica = server.replica(&[]).expect("a replica");
    tell(&replica, &["REPLICAOF", "NO", "ONE"]);
    another(name(&replica).await, "a replica that was promoted");
    // It gets what the other has, which may be less than it had.
    server.follow(&replica).expect("followed");
    tell(&server, &["REPLICAOF", "NO", "ONE"]);
    another(name(&server).await, "one that was its replica's replica");
    // The same where nobody met the other one in between.
    replica.follow(&server).expect("followed");
    name(&server).await;
    tell(&replica, &["REPLICAOF", "NO", "ONE"]);
    server.follow(&replica).expect("followed");
    tell(&server, &["REPLICAOF", "NO", "ONE"]);
    another(name(&server).await, "one that was the replica of a replica whom nobody met");

    tell(&server, &["SAVE"]);
    tell(&server, &["DEBUG", "RELOAD"]);
    assert_eq!(name(&server).await, *names.last().expect("a name"), "everything is there again");
    tell(&server, &["FLUSHALL"]);
    let flushed = name(&server).await;
    assert!(!names.contains(&flushed), "a flush");
}

#[tokio::test]
async fn an_older_snapshot_is_another_server() {
    let mut server = RedisServer::start().expect("server");
    let first = name(&server).await;
    tell(&server, &["SAVE"]);
    server.kill().expect("killed");
    server.restart().expect("restarted");
    let second = name(&server).await;
    assert_ne!(first, second);
    // The snapshot has the first name.
    server.kill().expect("killed");
    server.restart().expect("restarted");
    let third = name(&server).await;
    assert!(third != first && third != second);
}

/// When Redis starts again, every worker loses its leases: whoever claims next has seen nobody die (rule C6).
#[tokio::test]
async fn a_lease_that_ended_with_its_server_is_no_death() {
    let mut server = RedisServer::start_tcp(&DEBUGGED).expect("server");
    let early = journal(&server).await;
    let mut gateway = TestGateway::register(&early).await;
    gateway.write(&early, room(0), "a").await;
    claim(&early).await;
    for restarts in 1..=3 {
        server.kill().expect("killed");
        server.restart().expect("restarted");
        let late = journal(&server).await;
        // Who owned it testifies before anybody claims.
        late.testify(SHARD, Witness { server: Incarnation::NONE, epoch: None, confirmed: 0, sent: 0 }).await.expect("testified");
        let deaths = async || fixture::load(&late, &room(0)).await.expect("load").deaths;
        claim(&late).await;
        assert_eq!(deaths().await, restarts - 1, "the server changed");
        claim(&late).await;
        assert_eq!(deaths().await, restarts, "an owner on this server was lost");
    }
}

/// A journal whose connection lasts finds out that its server lost everything, and no era comes twice.
#[tokio::test]
async fn a_flush_is_noticed_by_those_who_stay_connected() {
    let (server, journal) = fixture::redis().await;
    let mut eras = Vec::new();
    for _ in 0..2 {
        let before = journal.survey(SHARD, false).await.expect("survey").server;
        fixture::settle(&journal).await;
        let lease = claim(&journal).await;
        assert_eq!(journal.survey(SHARD, false).await.expect("survey").doubt, Some(0), "an empty shard may have lost all");
        journal.testify(SHARD, Witness::NONE).await.expect("testify");
        let mut gateway = TestGateway::register(&journal).await;
        let id = gateway.write(&journal, room(0), "a").await;
        let era = journal.heads(SHARD, &[room(0)]).await.expect("heads").1[0].era;
        assert!(!eras.contains(&era), "{era} of {eras:?}");
        eras.push(era);
        let first = commit(lease, 2, vec![part(room(0), era, 0, 1, id)]);
        assert_eq!(journal.commit(&first).await.expect("commit"), lasthit::journal::Committed::Done);

        tell(&server, &["FLUSHALL"]);
        assert_eq!(journal.append(&gateway.flush(at(99), vec![])).await.expect("append"), Appended::Elsewhere(None));
        assert_eq!(journal.fence(SHARD, lease, gateway.incarnation).await.expect("fence"), Leased::Lost);
        journal.ping().await.expect("it works");
        assert_ne!(journal.survey(SHARD, false).await.expect("survey").server, before);
    }
}

/// A record of before there were names: the server has the one that it was known by then.
#[tokio::test]
async fn a_deployment_of_before_keeps_its_server() {
    let server = RedisServer::start().expect("server");
    name(&server).await;
    tell(&server, &["HDEL", "lasthit:deployment", "server", "run", "replid"]);
    let info = server.ask::<String>(&["INFO"]).expect("info");
    let half = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).expect(name)[..16].to_owned();
    let known = half("run_id:") + &half("master_replid:");
    assert_eq!(name(&server).await.to_hex(), known);
    assert_eq!(name(&server).await.to_hex(), known);
}

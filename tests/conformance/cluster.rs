//! A journal on a cluster: slots that move, nodes that are lost, and what is told of a cluster that does not fit.

use std::time::Duration;

use lasthit::journal::redis::{Durability, RedisJournal, RedisOptions};
use lasthit::journal::{
    Appended, Committed, CommonJournal as _, GatewayJournal as _, Homing, JournalError, Lease, Leased, Seen, Witness,
    WorkerJournal as _,
};
use lasthit::types::{Incarnation, ShardId};
use servers::{Cluster, Program, RedisServer};

use crate::durability::refuses;
use crate::fixture::{
    self, HOME, SHARD, SHARDS, TestGateway, at, bytes, claim, commit, entry, key, key_of, message, part, room, settle,
    subscribed, tell, until as asked_until,
};

/// Some elections, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

async fn connect(url: &str, durability: Durability) -> Result<RedisJournal, JournalError> {
    let durability = Some(durability);
    RedisJournal::connect(url, RedisOptions { shards: Some(SHARDS), durability, ..RedisOptions::default() }).await
}

/// Asks until it is so. One question may take seconds.
async fn until(so: impl AsyncFnMut() -> bool) {
    tokio::time::timeout(PATIENCE, asked_until(so)).await.expect("it comes to be so in time");
}

/// Sends a step until its outcome is known.
async fn insist<T>(step: impl AsyncFn() -> Result<T, JournalError>) -> T {
    let tries = async {
        loop {
            match step().await {
                Ok(answer) => return answer,
                Err(error @ (JournalError::Unreachable(_) | JournalError::Silent(_))) => drop(error),
                Err(error) => panic!("{error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, tries).await.expect("an answer in time")
}

fn is_out_of_reach<T: std::fmt::Debug>(answer: &Result<T, JournalError>, says: &[&str]) {
    let why = answer.as_ref().err().map(ToString::to_string).unwrap_or_default();
    let fits = matches!(answer, Err(JournalError::Unreachable(_))) && says.iter().all(|word| why.contains(word));
    assert!(fits && !why.contains('\n'), "{answer:?}");
}

fn url(node: &RedisServer) -> String {
    node.address().expect("a port").to_string()
}

/// A shard that another node has than `SHARD`.
fn elsewhere(cluster: &Cluster) -> ShardId {
    let owner = |shard| cluster.first_owner(&key_of(shard, "shard")).expect("an owner");
    (0..SHARDS).map(ShardId).find(|shard| owner(*shard) != owner(SHARD)).expect("nodes share the shards")
}

async fn server_of(journal: &RedisJournal, shard: ShardId) -> Incarnation {
    insist(async || journal.survey(shard, false).await).await.server
}

/// A gateway's flush, and its verdict in the first commit.
async fn played(journal: &RedisJournal) -> (TestGateway, Lease) {
    let mut gateway = TestGateway::register(journal).await;
    let lease = claim(journal).await;
    let id = gateway.write(journal, room(0), "a").await;
    assert_eq!(journal.commit(&commit(lease, 1, vec![part(room(0), 1, 0, 1, id)])).await.expect("commit"), Committed::Done);
    (gateway, lease)
}

fn seen(gateway: &TestGateway, commit: u64) -> Seen {
    Seen { server: gateway.server, flush: gateway.number, commit, home: HOME }
}

/// Whoever worked on the shard where it was finds another server, and nothing missing.
async fn moves(cluster: &Cluster, go: impl FnOnce(&str, usize, usize)) {
    let journal = connect(&cluster.url(), Durability::Redis).await.expect("journal");
    settle(&journal).await;
    let mut bells = journal.bells(&[SHARD]).await.expect("bells");
    let mut pushes = journal.pushes(Incarnation(9)).await.expect("pushes");
    let (gateway, lease) = played(&journal).await;
    journal.register(SHARD, Incarnation(9), Seen::default(), &[]).await.expect("registered");
    subscribed(&mut bells).await;
    subscribed(&mut pushes).await;
    message(&mut bells).await;
    let (other, from) = (elsewhere(cluster), cluster.first_owner(&key("shard")).expect("an owner"));
    let others = server_of(&journal, other).await;

    let to = (from + 1) % 3;
    go(&key("shard"), from, to);
    let next = commit(lease, 2, vec![part(room(1), 2, 0, 0, Default::default())]);
    assert_eq!(insist(async || journal.commit(&next).await).await, Committed::Fenced, "another server");
    let flush = gateway.flush(gateway.watermark.plus(1), vec![entry(room(0), gateway.watermark.plus(1), "b")]);
    assert_eq!(insist(async || journal.append(&flush).await).await, Appended::Moved);

    let witness = Witness { server: lease.server, epoch: Some(lease.epoch), confirmed: 1, sent: 1 };
    assert_eq!(insist(async || journal.testify(SHARD, witness).await).await, 0);
    let found = journal.survey(SHARD, true).await.expect("survey");
    assert_eq!((found.commit, found.doubt, found.rooms.len()), (1, None, 1), "all is there, and known to be");
    assert_ne!(found.server, lease.server);
    let again = journal.register(SHARD, gateway.incarnation, seen(&gateway, 1), &[room(0)]).await;
    let again = again.expect("registered").here().expect("its home");
    assert_eq!((again.renewed, again.record.fenced, again.record.number, again.rooms[0].era), (0, false, 1, 1));
    assert_eq!(server_of(&journal, other).await == others, cluster.first_owner(&key_of(other, "shard")).expect("one") != to);

    // The channels went along, and their readers were told.
    subscribed(&mut bells).await;
    subscribed(&mut pushes).await;
    let lease = claim(&journal).await;
    assert_eq!(lease.server, found.server);
    let flush = lasthit::journal::Flush { server: again.server, ..flush };
    assert!(matches!(journal.append(&flush).await.expect("append"), Appended::Stored(_)));
    while message(&mut bells).await.number != 2 {}
    let heard = journal.publish(Some(SHARD), Incarnation(9), bytes("push")).await.expect("published");
    assert_eq!((heard, message(&mut pushes).await), (1, bytes("push")));
}

#[tokio::test]
async fn a_slot_that_is_moved_key_by_key_takes_its_shard_along() {
    let cluster = Cluster::start(3, 0, &[]).expect("a cluster");
    moves(&cluster, |key, from, to| cluster.move_slot(key, from, to, || {}).expect("moved")).await;
}

#[tokio::test]
async fn a_slot_that_is_moved_at_once_takes_its_shard_along() {
    let Some(cluster) = Cluster::start_other(Program::Valkey, 3, 0, &[]).expect("a cluster") else { return };
    moves(&cluster, |key, from, to| cluster.migrate_slot(key, from, to).expect("moved")).await;
}

/// A slot goes from one node to another, whose successor loses the last of it, and back: the first node is what it was, and does not know.
#[tokio::test]
async fn what_is_lost_while_a_slot_is_away_is_noticed() {
    let cluster = Cluster::start(3, 0, &[]).expect("a cluster");
    let here = connect(&cluster.url(), Durability::Redis).await.expect("journal");
    settle(&here).await;
    let (gateway, lease) = played(&here).await;
    let from = cluster.first_owner(&key("shard")).expect("an owner");
    let (to, node) = ((from + 1) % 3, &cluster.nodes()[from]);
    let client = redis::Client::open(node.url()).expect("a client");
    let mut admin = client.get_connection().expect("a connection");
    let names: Vec<String> = node.ask(&["KEYS", "lasthit:{s*"]).expect("keys");
    let slot = cluster.slot(&key("shard")).expect("a slot");
    let names: Vec<String> = names.into_iter().filter(|name| cluster.slot(name).expect("a slot") == slot).collect();
    let dump: Vec<(String, Vec<u8>)> =
        names.iter().map(|name| (name.clone(), redis::cmd("DUMP").arg(name).query(&mut admin).expect("dump"))).collect();

    cluster.move_slot(&key("shard"), from, to, || {}).expect("moved");
    // Somebody goes on there: a commit is seen.
    let there = connect(&cluster.url(), Durability::Redis).await.expect("journal");
    let witness = Witness { server: lease.server, epoch: Some(lease.epoch), confirmed: 1, sent: 1 };
    assert_eq!(there.testify(SHARD, witness).await.expect("testified"), 0);
    let second = claim(&there).await;
    let next = commit(second, 2, vec![part(room(0), 1, 1, 2, fixture::last(&there, &room(0)).await)]);
    assert_eq!(there.commit(&next).await.expect("commit"), Committed::Done);
    // It comes back without that, as it was when it left.
    cluster.move_slot(&key("shard"), to, from, || {}).expect("moved");
    for (name, bytes) in dump {
        redis::cmd("RESTORE").arg(name).arg(0).arg(bytes).arg("REPLACE").exec(&mut admin).expect("restored");
    }
    let now = server_of(&connect(&cluster.url(), Durability::Redis).await.expect("journal"), SHARD).await;
    assert!(now != lease.server && now != second.server, "it is not what it was");
    until(async || server_of(&here, SHARD).await == now).await;
    until(async || server_of(&there, SHARD).await == now).await;
    let witness = Witness { server: second.server, epoch: Some(second.epoch), confirmed: 2, sent: 2 };
    assert_eq!(insist(async || there.testify(SHARD, witness).await).await, 1, "its room begins a new era");
    let again = here.register(SHARD, gateway.incarnation, seen(&gateway, 2), &[room(0)]).await.expect("registered");
    assert!(again.here().expect("its home").rooms[0].era > 1);
}

/// A primary dies, and its replica takes over: its shards are in doubt, and the others play on all the while.
#[tokio::test]
async fn a_node_that_is_lost_puts_its_own_shards_into_doubt() {
    let mut cluster = Cluster::start(3, 1, &[]).expect("a cluster");
    let journal = connect(&cluster.url(), Durability::Redis).await.expect("journal");
    settle(&journal).await;
    let (gateway, lease) = played(&journal).await;
    let (other, lost) = (elsewhere(&cluster), cluster.first_owner(&key("shard")).expect("an owner"));
    let mut living = TestGateway::register_in(&journal, other).await;
    let before = journal.survey(other, false).await.expect("survey");
    let (node, replica) = (&cluster.nodes()[lost], 3 + lost);
    // What was confirmed is on the replica too: else it is the loss that this test is not about.
    assert_eq!(node.ask::<u64>(&["WAIT", "1", "5000"]).expect("an answer"), 1);
    cluster.nodes_mut()[lost].kill().expect("killed");
    let away = journal.survey(SHARD, false).await;
    assert!(matches!(away, Err(JournalError::Unreachable(_))), "{away:?}");
    living.append(&journal, at(1), vec![]).await;
    let beside = journal.beside(Some(SHARD)).expect("it is one of several");
    assert!(beside.contains(&SHARD) && !beside.contains(&other), "{beside:?}");
    let failures = journal.ping_shards().await;
    assert!(failures.iter().any(|(shards, _)| shards.contains(&SHARD)), "{failures:?}");
    assert!(!failures.iter().any(|(shards, _)| shards.contains(&other)), "{failures:?}");

    assert_eq!(cluster.promoted(lost).expect("elected"), replica);
    living.append(&journal, at(2), vec![]).await;
    let next = commit(lease, 2, vec![part(room(0), 1, 1, 1, Default::default())]);
    assert_eq!(insist(async || journal.commit(&next).await).await, Committed::Fenced, "another server");
    let wall_ms = lasthit::internals::clock::unix_ms();
    let from = journal.owners().await.expect("owners")[usize::from(SHARD.0)].clone();
    let claimed = journal.claim(SHARD, from.lease, Incarnation(6), wall_ms, &Homing::moves_from(from.home)).await.expect("claim");
    assert!(matches!(claimed, Leased::Done(_)), "{claimed:?}");
    let found = journal.survey(SHARD, false).await.expect("survey");
    assert_eq!((found.commit, found.doubt), (1, Some(lease.epoch)), "its owner has not said whether that is all");
    let again = journal.register(SHARD, gateway.incarnation, seen(&gateway, 1), &[]).await.expect("registered");
    assert_eq!(again.here().expect("its home").renewed, 0);
    living.append(&journal, at(3), vec![]).await;
    let after = journal.survey(other, false).await.expect("survey");
    assert_eq!((after.server, after.doubt), (before.server, before.doubt), "nothing has happened to it");
}

#[tokio::test]
async fn what_a_url_or_a_cluster_gets_wrong_is_told_with_what_was_meant() {
    let single = RedisServer::start_tcp(&[]).expect("a server");
    let error = connect(&format!("redis+cluster://u:secret@{}", url(&single)), Durability::Redis).await;
    assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    let at = url(&single);
    refuses(
        connect(&format!("redis+cluster://{at}"), Durability::Redis).await,
        &[&format!("redis://{at} is a single server"), "use redis://"],
    );
    is_out_of_reach(
        &connect("redis+cluster://127.0.0.1:1", Durability::Redis).await,
        &["no node of the cluster answers (127.0.0.1:1)"],
    );
    refuses(connect("redis+cluster://h/3", Durability::Redis).await, &["no other database than 0", "redis+cluster://USER"]);

    let cluster = Cluster::start(3, 0, &[]).expect("a cluster");
    let [first, second, _] = cluster.nodes() else { panic!("three") };
    let node = url(first);
    refuses(
        connect(&format!("redis://{node}"), Durability::Redis).await,
        &[&format!("redis://{node} is a node of a cluster: use redis+cluster://{node}")],
    );
    let one = connect(&format!("redis+cluster://{node}"), Durability::Redis).await.expect("one node knows all");
    drop(one);

    tell(second, &["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    refuses(connect(&cluster.url(), Durability::Redis).await, &[&url(second), "CONFIG SET maxmemory-policy noeviction"]);
    tell(second, &["CONFIG", "SET", "maxmemory-policy", "noeviction"]);

    let (owner, slot) =
        (cluster.first_owner(&key("shard")).expect("an owner"), cluster.slot(&key("shard")).expect("a slot").to_string());
    for node in cluster.nodes() {
        tell(node, &["CLUSTER", "DELSLOTS", &slot]);
    }
    is_out_of_reach(
        &connect(&cluster.url(), Durability::Redis).await,
        &[&format!("serves slot {slot}, which shard {SHARD} needs"), "CLUSTER ADDSLOTSRANGE"],
    );
    tell(&cluster.nodes()[owner], &["CLUSTER", "ADDSLOTS", &slot]);

    tell(second, &["CONFIG", "SET", "cluster-announce-port", "1"]);
    let wrong = async || matches!(connect(&cluster.url(), Durability::Redis).await, Err(JournalError::Unreachable(why)) if why.contains("no redis at redis://127.0.0.1:1,") && why.contains("cluster-announce-ip"));
    until(wrong).await;
}

#[tokio::test]
async fn a_valkey_without_lua_is_refused_by_the_nodes_name() {
    let Some(cluster) = Cluster::start_other(Program::Valkey, 3, 0, &["--enable-module-command", "yes"]).expect("a cluster")
    else {
        return;
    };
    let node = &cluster.nodes()[cluster.first_owner(&key("shard")).expect("an owner")];
    tell(node, &["MODULE", "UNLOAD", "lua"]);
    refuses(connect(&cluster.url(), Durability::Redis).await, &[&url(node), "valkey has no Lua"]);
}

/// Else one replica confirms what is seen, and the other one is elected.
#[tokio::test]
async fn every_replica_of_a_node_must_confirm() {
    let mut cluster = Cluster::start(1, 2, &["--min-replicas-to-write", "1"]).expect("a cluster");
    let primary = &cluster.nodes()[0];
    let says = [&url(primary), "min-replicas-to-write 2 or more", "CONFIG SET min-replicas-to-write 2", "CLUSTER FORGET"];
    refuses(connect(&cluster.url(), Durability::Replicated).await, &says);
    tell(primary, &["CONFIG", "SET", "min-replicas-to-write", "2"]);
    let journal = connect(&cluster.url(), Durability::Replicated).await.expect("fit");
    settle(&journal).await;
    played(&journal).await;
    // Somebody lowers it under the running journal.
    tell(primary, &["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let refused =
        async || matches!(journal.ping().await, Err(JournalError::Refused(why)) if says.iter().all(|word| why.contains(word)));
    until(refused).await;
    // One that is down counts too.
    cluster.nodes_mut()[2].kill().expect("killed");
    assert!(
        matches!(connect(&cluster.url(), Durability::Replicated).await, Err(JournalError::Refused(_))),
        "it may come back and be elected"
    );
}

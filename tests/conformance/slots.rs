//! A node of a cluster whose slot is being moved to another node: some of a shard's keys have left already. A step does all of its
//! work or none, and what it cannot reach is out of reach, not damaged.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};

use lasthit::journal::redis::{RedisJournal, RedisOptions};
use lasthit::journal::{
    Committed, GatewayJournal as _, Homing, JournalError, Leased, RoomCommit, Seen, Witness, WorkerJournal as _,
};
use lasthit::types::Incarnation;
use servers::RedisServer;

use crate::fixture::{self, SHARD, SHARDS, TestGateway, claim, commit, part, room, tell, until};

/// The other node. Nothing listens there: a node only has to know of it.
const OTHER: &str = "0123456789abcdef0123456789abcdef01234567";

/// Everything in a server, as `DUMP` gives it.
type Dump = BTreeMap<String, Vec<u8>>;

/// A node with all slots, which knows another one.
async fn cluster_of_one() -> RedisServer {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr()).expect("a free port").port();
    let options = ["--cluster-enabled", "yes", "--cluster-port", &port.to_string(), "--cluster-config-file", "nodes.conf"];
    let mut server = RedisServer::start_tcp(&options).expect("a server");
    tell(&server, &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    tell(&server, &["CLUSTER", "SAVECONFIG"]);
    server.kill().expect("killed");
    let path = server.home().join("nodes.conf");
    let nodes = std::fs::read_to_string(&path).expect("nodes");
    std::fs::write(&path, format!("{OTHER} 127.0.0.1:1@2 master - 0 0 0 disconnected\n{nodes}")).expect("written");
    server.restart().expect("restarted");
    until(async || server.ask::<String>(&["CLUSTER", "INFO"]).expect("info").contains("cluster_state:ok")).await;
    server
}

pub(crate) async fn connect(server: &RedisServer) -> RedisJournal {
    let url = format!("redis+cluster://{}", server.address().expect("a port"));
    let options = RedisOptions { shards: Some(SHARDS), ..RedisOptions::default() };
    RedisJournal::connect(&url, options).await.expect("journal")
}

fn admin(server: &RedisServer) -> redis::Connection {
    crate::redis::admin(server)
}

fn dump(server: &RedisServer) -> Dump {
    let mut admin = admin(server);
    let names: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut admin).expect("keys");
    let dump = |name: String| (name.clone(), redis::cmd("DUMP").arg(name).query(&mut admin).expect("dump"));
    names.into_iter().map(dump).collect()
}

/// Everything as it was, with all slots here.
fn restore(server: &RedisServer, dump: &Dump) {
    let mut admin = admin(server);
    tell(server, &["CLUSTER", "SETSLOT", &slot(server), "STABLE"]);
    redis::cmd("FLUSHALL").exec(&mut admin).expect("flushed");
    for (name, bytes) in dump {
        redis::cmd("RESTORE").arg(name).arg(0).arg(bytes).exec(&mut admin).expect("restored");
    }
}

/// One of the shard's rooms leaves for the other node, and the slot is still being moved.
fn leaves(server: &RedisServer, n: usize) {
    let slot = slot(server);
    for key in ["room", "out", "state", "snapshot", "parts"] {
        tell(server, &["DEL", &fixture::key(&format!("{key}:{}", room(n)))]);
    }
    tell(server, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", OTHER]);
}

fn slot(server: &RedisServer) -> String {
    server.ask::<u64>(&["CLUSTER", "KEYSLOT", &fixture::key("shard")]).expect("a slot").to_string()
}

fn is_out_of_reach<T: std::fmt::Debug>(answer: Result<T, JournalError>) {
    assert!(matches!(answer, Err(JournalError::Unreachable(_))), "{answer:?}");
}

/// Rooms with verdicts, all active, of an owner that was lost; some have timers.
async fn scene() -> (RedisServer, RedisJournal, Dump) {
    let server = cluster_of_one().await;
    let journal = connect(&server).await;
    let mut gateway = TestGateway::register(&journal).await;
    let lease = claim(&journal).await;
    let mut parts = Vec::new();
    for n in 0..4 {
        let id = gateway.write(&journal, room(n), "a").await;
        parts.push(RoomCommit { due: Some(Some(1)), ..part(room(n), 1 + n as u64, 0, 1, id) });
    }
    assert_eq!(journal.commit(&commit(lease, 1, parts)).await.expect("commit"), Committed::Done);
    for n in 0..4 {
        gateway.write(&journal, room(n), "b").await;
    }
    let dump = dump(&server);
    (server, journal, dump)
}

#[tokio::test]
async fn of_a_slot_that_is_half_moved_nothing_is_half_done() {
    let (server, journal, whole) = scene().await;
    let shard = fixture::key("shard");
    let wall_ms = lasthit::internals::clock::unix_ms();
    let from = journal.owners().await.expect("owners")[usize::from(SHARD.0)].lease;
    let lost = Seen { server: Incarnation(9), flush: 0, commit: 99, home: 0 };
    let witness = Witness { server: Incarnation(9), epoch: None, confirmed: 99, sent: 99 };

    for n in 0..4 {
        restore(&server, &whole);
        leaves(&server, n);
        let before = dump(&server);

        // They read the rooms that they do not name.
        is_out_of_reach(journal.claim(SHARD, from, Incarnation(6), wall_ms, &Homing::default()).await);
        is_out_of_reach(journal.survey(SHARD, true).await);
        // They name a room that has left.
        is_out_of_reach(journal.register(SHARD, Incarnation(7), lost, &[room(0), room(1), room(2), room(3)]).await);
        assert_eq!(dump(&server), before);

        // They name nothing that has left, and read no rooms: eras are renewed while the slot is being moved.
        let renewed = |dump: &Dump| dump.get(&shard).cloned();
        let answer = journal.register(SHARD, Incarnation(8), lost, &[]).await.expect("registered").here().expect("its home");
        assert_eq!((answer.renewed, answer.commit), (4, 2));
        let after = dump(&server);
        assert_ne!(renewed(&after), renewed(&before));
        restore(&server, &whole);
        leaves(&server, n);
        assert_eq!(journal.testify(SHARD, witness).await.expect("testified"), 4);
        assert_ne!(renewed(&dump(&server)), renewed(&before));
    }

    // Once nothing moves any more, all of it works.
    restore(&server, &whole);
    assert_eq!(journal.survey(SHARD, true).await.expect("survey").rooms.len(), 4);
    assert!(matches!(
        journal.claim(SHARD, from, Incarnation(6), wall_ms, &Homing::default()).await.expect("claim"),
        Leased::Done(_)
    ));
    for n in 0..4 {
        assert_eq!(fixture::load(&journal, &room(n)).await.expect("load").deaths, 1);
    }
}

/// A slot that nobody has: its cluster is down for it. The other way in which a script hears that.
#[tokio::test]
async fn a_slot_that_nobody_has_is_out_of_reach() {
    let (server, journal, _) = scene().await;
    tell(&server, &["CLUSTER", "DELSLOTS", &slot(&server)]);
    is_out_of_reach(journal.survey(SHARD, true).await);
    is_out_of_reach(journal.heads(SHARD, &[room(0)]).await);
    let wall_ms = lasthit::internals::clock::unix_ms();
    is_out_of_reach(journal.claim(SHARD, None, Incarnation(6), wall_ms, &Homing::moves_from(None)).await);
}

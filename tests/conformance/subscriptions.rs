//! The one connection by which a process hears of everything, on deployments of either kind of channels.

use lasthit::journal::redis::{RedisJournal, RedisOptions};
use lasthit::journal::{CommonJournal as _, GatewayJournal as _, JournalError, Seen, WorkerJournal as _};
use lasthit::types::{Incarnation, ShardId};
use servers::{Proxy, RedisServer};

use crate::fixture::{self, SHARD, SHARDS, TestGateway, at, bytes, message, subscribed, tell, until};
use crate::redis::refuses;
use crate::{gateways, programs};

const RECORD: &str = "lasthit:deployment";

/// A deployment as the versions before have recorded it.
async fn old() -> (RedisServer, RedisJournal) {
    let server = RedisServer::start().expect("redis-server");
    tell(&server, &["HSET", RECORD, "format", "4", "shards", &SHARDS.to_string(), "durability", "redis"]);
    let journal = fixture::connect(&server).await;
    (server, journal)
}

fn tags(server: &RedisServer) -> Option<String> {
    server.ask(&["HGET", RECORD, "tags"]).expect("an answer")
}

/// The lines of CLIENT LIST of one type.
fn clients(server: &RedisServer, of: &str) -> Vec<String> {
    let list: String = server.ask(&["CLIENT", "LIST", "TYPE", of]).expect("a list");
    list.lines().filter(|line| !line.contains("cmd=client|list")).map(str::to_owned).collect()
}

/// Scenarios of the suite on the names of an existing deployment. All others run on those of a new one.
macro_rules! on_old_names {
    ($($module:ident :: $scenario:ident),* $(,)?) => {
        mod on_old_names {
            $(#[tokio::test]
            async fn $scenario() {
                let (server, journal) = super::old().await;
                let listener = crate::fixture::Listener::to(&journal).await;
                super::$module::$scenario(&journal).await;
                listener.read_all(&journal).await;
                assert_eq!(super::tags(&server), None, "it stays what it was");
            })*
        }
    };
}

on_old_names! {
    gateways::bells_are_numbered_and_carry_the_flush,
    gateways::an_append_asks_the_idle_gateways_inside,
    gateways::every_message_of_a_step_is_read,
    gateways::every_listener_hears_the_bells_of_its_shards,
    gateways::pushes_arrive_in_the_order_of_their_steps,
    programs::workers_are_told_of_a_push_that_changes_something,
}

/// So whoever else is there, in an earlier version, is heard and hears.
#[tokio::test]
async fn an_existing_deployment_keeps_the_names_of_its_channels() {
    let (server, journal) = old().await;
    let me = Incarnation(7);
    journal.register(SHARD, me, Seen::default(), &[]).await.expect("register");
    let mut pushes = journal.pushes(me).await.expect("pushes");
    let mut bells = journal.bells(&[SHARD]).await.expect("bells");
    subscribed(&mut pushes).await;
    subscribed(&mut bells).await;
    let (push, bell) = (format!("lasthit:push:{}", me.to_hex()), format!("lasthit:{{s{SHARD}}}:bell"));
    for (channel, sharded) in [(&push, true), (&push, false), (&bell, true)] {
        let verb = if sharded { "SPUBLISH" } else { "PUBLISH" };
        assert_eq!(server.ask::<u64>(&[verb, channel, "x"]).expect("published"), u64::from(!sharded), "{verb} {channel}");
    }
    assert_eq!(message(&mut pushes).await, bytes("x"));
    assert_eq!(server.ask::<u64>(&["PUBLISH", &bell, "x"]).expect("published"), 1);
    subscribed(&mut bells).await;
}

#[tokio::test]
async fn the_channels_of_a_new_deployment_are_of_their_shards() {
    let (server, journal) = fixture::redis().await;
    assert_eq!(tags(&server).as_deref(), Some("3"));
    let me = Incarnation(7);
    let mut pushes = journal.pushes(me).await.expect("pushes");
    subscribed(&mut pushes).await;
    let channel = |shard| fixture::key_of(shard, &format!("push:{}", me.to_hex()));
    let publish = |channel: &str, message: &str| server.ask::<u64>(&["SPUBLISH", channel, message]).expect("published");
    assert_eq!(publish(&channel(SHARD), "early"), 0, "it is not registered");
    journal.register(SHARD, me, Seen::default(), &[]).await.expect("register");
    assert_eq!(publish(&channel(SHARD), "of the shard"), 1);
    assert_eq!(publish(&channel(ShardId(1)), "of another"), 0);
    assert_eq!(publish(&format!("lasthit:{{{RECORD}}}:push:{}", me.to_hex()), "of none"), 1);
    for expected in ["of the shard", "of none"] {
        assert_eq!(message(&mut pushes).await, bytes(expected));
    }
    // A channel is the process's, whichever turn of it is in the shard.
    journal.register(ShardId(1), me.turn(3), Seen::default(), &[]).await.expect("register");
    assert_eq!(journal.publish(Some(ShardId(1)), me.turn(3), bytes("to a turn")).await.expect("published"), 1);
    assert_eq!(message(&mut pushes).await, bytes("to a turn"));
    // After a break both are back before it is told.
    tell(&server, &["CLIENT", "KILL", "TYPE", "pubsub"]);
    subscribed(&mut pushes).await;
    assert_eq!(journal.publish(Some(SHARD), me, bytes("again")).await.expect("published"), 1);
    assert_eq!(message(&mut pushes).await, bytes("again"));
}

#[tokio::test]
async fn a_process_has_two_connections_however_much_it_hears() {
    for (server, journal) in [fixture::redis().await, old().await] {
        assert_eq!((clients(&server, "normal").len(), clients(&server, "pubsub").len()), (1, 0));
        let mut bells = Vec::new();
        for shard in (0..SHARDS).map(ShardId) {
            bells.push(journal.bells(&[shard]).await.expect("bells"));
        }
        let mut pushes = Vec::new();
        for n in 1..=3 {
            pushes.push(journal.pushes(Incarnation(n)).await.expect("pushes"));
            for shard in (0..SHARDS).map(ShardId) {
                journal.register(shard, Incarnation(n), Seen::default(), &[]).await.expect("register");
            }
        }
        let (normal, pubsub) = (clients(&server, "normal"), clients(&server, "pubsub"));
        println!("{} + {} connections: {pubsub:?}", normal.len(), pubsub.len());
        assert_eq!((normal.len(), pubsub.len()), (1, 1), "{pubsub:?}");
        // What nobody hears any more is given up, and so at last is the connection.
        bells.clear();
        let channels = if tags(&server).is_some() { " ssub=16 " } else { " sub=4 " };
        until(async || clients(&server, "pubsub")[0].contains(channels)).await;
        pushes.clear();
        until(async || clients(&server, "pubsub").is_empty()).await;
        subscribed(&mut journal.pushes(Incarnation(1)).await.expect("a new one")).await;
    }
}

/// A slot that leaves its server ends the subscriptions there without a word but this.
#[tokio::test]
async fn a_channel_that_the_server_gives_up_is_subscribed_again() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address").port();
    let options = ["--cluster-enabled", "yes", "--cluster-require-full-coverage", "no", "--cluster-port", &port.to_string()];
    let server = RedisServer::start_tcp(&options).expect("redis-server");
    tell(&server, &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    until(async || server.ask::<String>(&["CLUSTER", "INFO"]).expect("info").contains("cluster_state:ok")).await;
    let journal = crate::slots::connect(&server).await;
    fixture::settle(&journal).await;
    let mut bells = journal.bells(&[SHARD]).await.expect("bells");
    let mut others = journal.bells(&[ShardId(1)]).await.expect("bells");
    subscribed(&mut bells).await;
    subscribed(&mut others).await;
    let before = clients(&server, "pubsub").len();
    let slot: u64 = server.ask(&["CLUSTER", "KEYSLOT", &fixture::key("bell")]).expect("a slot");
    tell(&server, &["CLUSTER", "DELSLOTS", &slot.to_string()]);
    // It is asked for all the while.
    let refused = async || {
        let info: String = server.ask(&["INFO", "errorstats"]).expect("info");
        info.contains("errorstat_CLUSTERDOWN")
    };
    until(refused).await;
    let missing = journal.bells(&[SHARD]).await.expect_err("nobody has the slot");
    assert!(matches!(missing, JournalError::Unreachable(_)), "{missing:?}");
    assert!(bells.is_empty() && others.is_empty());
    tell(&server, &["CLUSTER", "ADDSLOTS", &slot.to_string()]);
    subscribed(&mut bells).await;
    TestGateway::register(&journal).await.append(&journal, at(1), vec![]).await;
    assert_eq!(message(&mut bells).await.append, 1);
    TestGateway::register_in(&journal, ShardId(1)).await.append(&journal, at(1), vec![]).await;
    assert_eq!(message(&mut others).await.append, 1, "the others have not even noticed");
    assert_eq!((before, clients(&server, "pubsub").len()), (1, 1));
}

/// Only its own echo shows it: nothing breaks, and nothing is asked there.
#[tokio::test]
async fn a_connection_that_has_gone_silent_is_made_again() {
    let server = RedisServer::start().expect("redis-server");
    let proxy = Proxy::start(server.upstream()).expect("a proxy");
    let options = RedisOptions { shards: Some(SHARDS), ..RedisOptions::default() };
    let journal = RedisJournal::connect(&proxy.url(), options).await.expect("journal");
    let mut pushes = journal.pushes(Incarnation(7)).await.expect("pushes");
    subscribed(&mut pushes).await;
    let channel = format!("lasthit:{{{RECORD}}}:push:{}", Incarnation(7).to_hex());
    // The command's connection is quiet meanwhile, so only the other one loses something.
    proxy.swallow(true);
    assert_eq!(server.ask::<u64>(&["SPUBLISH", &channel, "lost"]).expect("published"), 1);
    until(async || proxy.swallowed() > 0).await;
    proxy.swallow(false);
    subscribed(&mut pushes).await;
    assert_eq!(server.ask::<u64>(&["SPUBLISH", &channel, "heard"]).expect("published"), 2, "the silent one is still there");
    assert_eq!(message(&mut pushes).await, bytes("heard"));
}

#[tokio::test]
async fn a_reader_that_takes_nothing_holds_up_nobody() {
    let (_server, journal) = fixture::redis().await;
    let mut slow = journal.pushes(Incarnation(1)).await.expect("pushes");
    let mut quick = journal.pushes(Incarnation(2)).await.expect("pushes");
    subscribed(&mut quick).await;
    for n in 0..20_000 {
        journal.publish(None, Incarnation(1), bytes(&n.to_string())).await.expect("published");
    }
    journal.publish(None, Incarnation(2), bytes("quick")).await.expect("published");
    assert_eq!(message(&mut quick).await, bytes("quick"));
    subscribed(&mut slow).await;
    let mut heard = 0;
    while let lasthit::journal::Signal::Message(message) = fixture::signal(&mut slow).await {
        assert_eq!(message, bytes(&heard.to_string()));
        heard += 1;
    }
    // It ends with the word that the rest was missed.
    assert!((10_000..20_000).contains(&heard) && slow.try_recv().is_err(), "{heard}");
}

#[tokio::test]
async fn the_kind_of_channels_is_fixed() {
    let server = RedisServer::start().expect("redis-server");
    let journal = fixture::connect(&server).await;
    tell(&server, &["HSET", RECORD, "tags", "4"]);
    refuses(crate::redis::connect(&server.url()).await, "has names of kind \"4\", this lasthit knows kinds up to \"3\"");
    // Somebody lost everything, and another process was there first.
    tell(&server, &["FLUSHALL"]);
    tell(&server, &["HSET", RECORD, "format", "4", "shards", &SHARDS.to_string(), "durability", "redis"]);
    tell(&server, &["CLIENT", "KILL", "TYPE", "normal"]);
    until(async || matches!(journal.ping().await, Err(JournalError::Unfit(_)))).await;
    refuses(journal.ping().await, "start the process again");
    // A process of the old kind that is there first makes it of the old kind.
    let (server, journal) = old().await;
    tell(&server, &["FLUSHALL"]);
    until(async || journal.ping().await.is_ok() && server.ask::<u64>(&["EXISTS", RECORD]).expect("an answer") == 1).await;
    assert_eq!(tags(&server), None);
}

//! A journal on the primary that Sentinel names: it is asked at every connection and every second.

use std::time::Duration;

use lasthit::journal::redis::{Durability, RedisJournal, RedisOptions};
use lasthit::journal::{CommonJournal as _, GatewayJournal as _, JournalError, Seen, Signal, WorkerJournal as _};
use lasthit::types::Incarnation;
use servers::{Program, RedisServer, Sentinels};

use crate::durability::{refuses, stop};
use crate::fixture::{REPLICATED, SHARD, SHARDS, TestGateway, bytes, room, subscribed, tell, until as asked_until};

/// Some seconds until the next look at everything, and more on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

async fn connect(url: &str, durability: Durability) -> Result<RedisJournal, JournalError> {
    let durability = Some(durability);
    RedisJournal::connect(url, RedisOptions { shards: Some(SHARDS), durability, ..RedisOptions::default() }).await
}

/// Asks until it is so. One question may take seconds.
async fn until(so: impl AsyncFnMut() -> bool) {
    tokio::time::timeout(PATIENCE, asked_until(so)).await.expect("it comes to be so in time");
}

fn primary() -> RedisServer {
    RedisServer::start_tcp(&[]).expect("a server")
}

fn hosts(sentinels: &Sentinels) -> String {
    sentinels.url().trim_start_matches("redis+sentinel://").trim_end_matches("/main").to_owned()
}

#[tokio::test]
async fn what_the_url_gets_wrong_is_told_with_what_was_meant() {
    let (server, other) = (primary(), primary());
    let sentinels = Sentinels::start(&server, 1, 0).expect("a sentinel");
    let (host, plain) = (hosts(&sentinels), server.address().expect("a port"));
    connect(&sentinels.url(), Durability::Redis).await.expect("the right one");

    let unknown = connect(&format!("redis+sentinel://u:secret@{host}/master"), Durability::Redis).await;
    refuses(unknown, &["knows a primary \"master\"", &format!("use redis+sentinel://{host}/main")]);
    let no_sentinel = connect(&format!("redis+sentinel://{plain}/main"), Durability::Redis).await;
    refuses(no_sentinel, &[&format!("{plain} is a redis server and no sentinel: use redis://{plain}")]);
    let a_sentinel = connect(&format!("redis://{host}"), Durability::Redis).await;
    refuses(a_sentinel, &[&format!("redis://{host} is a sentinel: use redis+sentinel://{host}/main")]);

    let nobody = connect("redis+sentinel://127.0.0.1:1,127.0.0.1:2/main", Durability::Redis).await;
    assert!(
        matches!(&nobody, Err(JournalError::Unreachable(why)) if why.contains("no sentinel answers: 127.0.0.1:1 ")),
        "{nobody:?}"
    );
    let second = Sentinels::start(&other, 1, 0).expect("a sentinel");
    let contradict = connect(&format!("redis+sentinel://{host},{}/main", hosts(&second)), Durability::Redis).await;
    let says = format!("{host} names {plain}");
    assert!(
        matches!(&contradict, Err(JournalError::Unreachable(why)) if why.contains("2 of 2 sentinels must name") && why.contains(&says)),
        "{contradict:?}"
    );
}

#[tokio::test]
async fn servers_and_sentinels_have_passwords_of_their_own() {
    let server = primary();
    let sentinels = Sentinels::start(&server, 1, 0).expect("a sentinel");
    let host = hosts(&sentinels);
    tell(&server, &["ACL", "SETUSER", "baron", "on", ">secret1", "~*", "&*", "+@all"]);
    sentinels.tell(&["ACL", "SETUSER", "watcher", "on", ">secret2", "~*", "&*", "+@all"]).expect("told");
    sentinels.tell(&["ACL", "SETUSER", "default", ">secret3"]).expect("told");
    let with = |query: &str| format!("redis+sentinel://baron:secret1@{host}/main{query}");
    for query in ["", "?sentinel_password=secret1", "?sentinel_user=watcher&sentinel_password=secret1"] {
        let error = connect(&with(query), Durability::Redis).await;
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        refuses(error, &[&format!("sentinel {host}"), "?sentinel_user=...&sentinel_password=..."]);
    }
    for query in ["?sentinel_password=secret3", "?sentinel_user=watcher&sentinel_password=secret2"] {
        let journal = connect(&with(query), Durability::Redis).await.expect("both are right");
        assert!(!format!("{journal:?}").contains("secret"));
    }
    let wrong = connect(&with("?sentinel_password=secret3").replace("secret1", "secret4"), Durability::Redis).await;
    refuses(wrong, &["redis does not accept user or password"]);
}

/// Else one replica confirms what is seen, and the other one is elected.
#[tokio::test]
async fn every_replica_that_may_be_elected_must_confirm() {
    let server = RedisServer::start_tcp(&REPLICATED).expect("a server");
    let (mut first, mut replica) = (server.replica(&[]).expect("a replica"), server.replica(&[]).expect("a replica"));
    let sentinels = Sentinels::start(&server, 3, 2).expect("sentinels");
    let at = format!("redis://{}", server.address().expect("a port"));
    let says = [at.as_str(), "min-replicas-to-write 2 or more", "CONFIG SET min-replicas-to-write 2", "SENTINEL RESET main"];
    refuses(connect(&sentinels.url(), Durability::Replicated).await, &says);
    connect(&sentinels.url(), Durability::Redis).await.expect("nobody waits at this level");
    tell(&server, &["DEL", "lasthit:deployment"]);

    tell(&server, &["CONFIG", "SET", "min-replicas-to-write", "2"]);
    let journal = connect(&sentinels.url(), Durability::Replicated).await.expect("fit");
    TestGateway::register(&journal).await.write(&journal, room(0), "a").await;
    // Somebody lowers it under the running journal.
    tell(&server, &["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let refused =
        async || matches!(journal.ping().await, Err(JournalError::Refused(why)) if says.iter().all(|word| why.contains(word)));
    until(refused).await;

    // One that is down counts too, until the sentinels are told that it is gone.
    replica.kill().expect("killed");
    assert!(refused().await, "it may come back and be elected");
    // Both are forgotten, and the living one is found again.
    sentinels.tell(&["SENTINEL", "RESET", "main"]).expect("told");
    until(async || journal.ping().await.is_ok()).await;
    // The one that confirms is waited for.
    stop(&first, "STOP");
    let unconfirmed = journal.register(SHARD, Incarnation(8), Seen::default(), &[]).await;
    assert!(unconfirmed.expect_err("not confirmed").to_string().contains("0 of 1 replicas confirmed"));
    stop(&first, "CONT");
    first.kill().expect("killed");
}

/// Whoever is on the side of too few sentinels cannot know whether the primary was deposed.
#[tokio::test]
async fn a_primary_that_too_few_sentinels_name_is_left() {
    let server = primary();
    let sentinels = Sentinels::start(&server, 3, 0).expect("sentinels");
    let journal = connect(&sentinels.url(), Durability::Redis).await.expect("journal");
    let [first, second, _] = sentinels.all() else { panic!("three") };
    stop(first, "STOP");
    journal.ping().await.expect("two are enough");
    stop(second, "STOP");
    let left = async || matches!(journal.ping().await, Err(JournalError::Unreachable(why)) if why.contains("2 of 3 sentinels must name"));
    // Although it answers.
    until(left).await;
    stop(first, "CONT");
    stop(second, "CONT");
    until(async || journal.ping().await.is_ok()).await;
}

#[tokio::test]
async fn subscriptions_follow_to_the_successor() {
    let server = primary();
    let replica = server.replica(&[]).expect("a replica");
    let sentinels = Sentinels::start(&server, 3, 1).expect("sentinels");
    let journal = connect(&sentinels.url(), Durability::Redis).await.expect("journal");
    let mut pushes = journal.pushes(Incarnation(7)).await.expect("pushes");
    subscribed(&mut pushes).await;
    stop(&server, "STOP");
    sentinels.all_name(&replica).expect("elected");
    until(async || {
        // More than one may be made on the way.
        let _ = journal.publish(None, Incarnation(7), bytes("push")).await;
        matches!(pushes.try_recv(), Ok(Signal::Message(push)) if push == bytes("push"))
    })
    .await;
    stop(&server, "CONT");
}

#[tokio::test]
async fn a_valkey_without_lua_is_refused_by_name() {
    let options = ["--enable-module-command", "yes"];
    let Some(server) = RedisServer::start_other(Program::Valkey, &options, false).expect("a server") else { return };
    tell(&server, &["MODULE", "UNLOAD", "lua"]);
    refuses(connect(&server.url(), Durability::Redis).await, &["valkey has no Lua", "libvalkeylua.so"]);
}

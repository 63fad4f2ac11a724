//! What the levels of durability promise: nobody sees what has not survived as much, and a server that cannot keep it is
//! refused.

use lasthit::journal::redis::{Durability, RedisJournal, RedisOptions};
use lasthit::journal::{
    Appended, Committed, CommonJournal as _, GatewayJournal as _, JournalError, Seen, Signal, WorkerJournal as _,
};
use lasthit::types::Incarnation;
use servers::{Proxy, RedisServer};

use crate::fixture::{
    REPLICATED, SHARD, SHARDS, TestGateway, at, bytes, claim, commit, entry, message, part, replicated, room, subscribed, until,
};

const DISK: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

async fn connect(url: &str, durability: Option<Durability>) -> Result<RedisJournal, JournalError> {
    RedisJournal::connect(url, RedisOptions { shards: Some(SHARDS), durability, ..RedisOptions::default() }).await
}

fn tell(server: &RedisServer, command: &[&str]) {
    server.ask::<redis::Value>(command).unwrap_or_else(|error| panic!("{command:?}: {error}"));
}

#[track_caller]
pub(crate) fn refuses<T>(result: Result<T, JournalError>, says: &[&str]) {
    let Err(error) = result else { panic!("a refusal that says {says:?} was expected") };
    let text = error.to_string();
    assert!(says.iter().all(|word| text.contains(word)) && !text.contains('\n'), "{text}");
}

#[tokio::test]
async fn a_server_must_be_set_up_for_the_level() {
    let server = RedisServer::start_with(&DISK).expect("server");
    for (name, wrong, right) in
        [("appendfsync", "everysec", "always"), ("no-appendfsync-on-rewrite", "yes", "no"), ("appendonly", "no", "yes")]
    {
        tell(&server, &["CONFIG", "SET", name, wrong]);
        let says = format!("CONFIG SET {name} {right}");
        refuses(connect(&server.url(), Some(Durability::Disk)).await, &["durability disk", &says]);
        tell(&server, &["CONFIG", "SET", name, right]);
    }
    assert_eq!(connect(&server.url(), Some(Durability::Disk)).await.expect("fit").durability(), Durability::Disk);

    let server = RedisServer::start_tcp(&[]).expect("server");
    let level = Some(Durability::Replicated);
    refuses(connect(&server.url(), level).await, &["CONFIG SET min-replicas-to-write 1"]);
    tell(&server, &["CONFIG", "SET", "min-replicas-to-write", "1"]);
    refuses(connect(&server.url(), level).await, &["needs 1 connected replicas", "bring them up"]);
    let _replica = server.replica(&[]).expect("a replica");
    connect(&server.url(), level).await.expect("fit");
}

#[tokio::test]
async fn a_deployment_has_one_level() {
    let server = RedisServer::start_with(&DISK).expect("server");
    let first = connect(&server.url(), Some(Durability::Disk)).await.expect("fit");
    let other = connect(&server.url(), Some(Durability::Redis)).await;
    refuses(
        other,
        &["has durability disk", "redis is configured", "--durability disk", "HSET lasthit:deployment durability redis"],
    );
    assert_eq!(connect(&server.url(), None).await.expect("as it was made").durability(), first.durability());
    tell(&server, &["HDEL", "lasthit:deployment", "durability"]);
    let older = connect(&server.url(), None).await.expect("made before there were levels");
    assert_eq!(older.durability(), Durability::Redis);
}

#[tokio::test]
async fn a_user_who_may_not_read_the_settings_is_told_what_to_grant() {
    let server = RedisServer::start_with(&DISK).expect("server");
    let user = ["ACL", "SETUSER", "baron", "on", ">secret", "~lasthit:*", "&lasthit:*", "+@all", "-@dangerous", "+info"];
    tell(&server, &user);
    let url = format!("{}?user=baron&pass=secret", server.url());
    refuses(connect(&url, Some(Durability::Disk)).await, &["cannot be checked", "+config|get"]);
    tell(&server, &["ACL", "SETUSER", "baron", "+config|get"]);
    connect(&url, Some(Durability::Disk)).await.expect("what the error named is enough");
}

#[tokio::test]
async fn it_is_looked_at_again_when_it_comes_back() {
    let server = RedisServer::start_with(&DISK).expect("server");
    let proxy = Proxy::start(server.upstream()).expect("a proxy");
    let journal = connect(&proxy.url(), Some(Durability::Disk)).await.expect("fit");
    journal.ping().await.expect("it works");
    tell(&server, &["CONFIG", "SET", "appendfsync", "everysec"]);
    proxy.cut();
    until(async || matches!(journal.ping().await, Err(JournalError::Refused(why)) if why.contains("CONFIG SET appendfsync")))
        .await;
    tell(&server, &["CONFIG", "SET", "appendfsync", "always"]);
    until(async || journal.ping().await.is_ok()).await;
}

/// Rule C3: the replica is there and confirms nothing.
#[tokio::test]
async fn nothing_leaves_before_replicas_confirmed_it() {
    let (server, mut replica, journal) = replicated().await;
    let mut pushes = journal.pushes(Incarnation(7)).await.expect("pushes");
    subscribed(&mut pushes).await;
    let mut gateway = TestGateway::register(&journal).await;
    journal.register(SHARD, Incarnation(7), Seen::default(), &[]).await.expect("register");
    let id = gateway.write(&journal, room(0), "a").await;
    let lease = claim(&journal).await;
    let mut first = commit(lease, 1, vec![part(room(0), 1, 0, 1, id)]);
    first.pushes = vec![(Incarnation(7), bytes("verdict"))];

    // Another process has written nothing yet that a WAIT of its own would be about.
    let reader = connect(&server.url(), None).await.expect("journal");
    stop(&replica, "STOP");
    let flush = gateway.flush(at(50), vec![entry(room(0), at(50), "b")]);
    let (appended, committed, page, heads, registered) = tokio::join!(
        journal.append(&flush),
        journal.commit(&first),
        async {
            // The commit is in the primary by now, for whoever looks there.
            until(async || journal.survey(SHARD, false).await.expect("survey").commit == 1).await;
            reader.verdicts(&room(0), 0, 10).await
        },
        async {
            until(async || journal.survey(SHARD, false).await.expect("survey").commit == 1).await;
            reader.heads(SHARD, &[room(0)]).await
        },
        async {
            until(async || journal.survey(SHARD, false).await.expect("survey").commit == 1).await;
            reader.register(SHARD, Incarnation(8), Seen::default(), &[room(0)]).await
        },
    );
    let unconfirmed = |why: String| assert!(why.contains("0 of 1 replicas confirmed"), "{why}");
    unconfirmed(appended.expect_err("not confirmed").to_string());
    unconfirmed(committed.expect_err("not confirmed").to_string());
    unconfirmed(page.expect_err("not confirmed").to_string());
    unconfirmed(heads.expect_err("not confirmed").to_string());
    unconfirmed(registered.expect_err("not confirmed").to_string());
    // A repeat is not confirmed by having been there before.
    unconfirmed(journal.append(&flush).await.expect_err("not confirmed").to_string());
    unconfirmed(journal.commit(&first).await.expect_err("not confirmed").to_string());
    unconfirmed(reader.commit(&first).await.expect_err("not confirmed").to_string());
    assert!(pushes.try_recv().is_err(), "nothing was pushed");

    stop(&replica, "CONT");
    until(async || matches!(journal.append(&flush).await, Ok(Appended::Stored(_)))).await;
    until(async || matches!(journal.commit(&first).await, Ok(Committed::Done))).await;
    assert_eq!(message(&mut pushes).await, bytes("verdict"), "the repeat publishes");
    assert_eq!(reader.verdicts(&room(0), 0, 10).await.expect("confirmed").batches.len(), 1);
    assert_eq!(
        reader.register(SHARD, Incarnation(8), Seen::default(), &[]).await.expect("confirmed").here().expect("its home").commit,
        1
    );

    // What was confirmed survives the loss of the primary.
    drop(server);
    tell(&replica, &["REPLICAOF", "NO", "ONE"]);
    tell(&replica, &["CONFIG", "SET", "min-replicas-to-write", "0"]);
    assert_eq!(replica.ask::<u64>(&["HGET", &crate::fixture::key("shard"), "commit"]).expect("an answer"), 1);
    replica.kill().expect("killed");
}

/// The same at `disk`, where the server's own answer is the confirmation: the push comes after it.
#[tokio::test]
async fn at_disk_a_commit_publishes_after_it_was_answered() {
    let server = RedisServer::start_with(&DISK).expect("server");
    let journal = connect(&server.url(), Some(Durability::Disk)).await.expect("journal");
    let mut gateway = TestGateway::register(&journal).await;
    let id = gateway.write(&journal, room(0), "a").await;
    let mut first = commit(claim(&journal).await, 1, vec![part(room(0), 1, 0, 1, id)]);
    first.pushes = vec![(Incarnation(7), bytes("verdict"))];
    // No publishing, no answer: then the commit is sent again.
    tell(&server, &["ACL", "SETUSER", "default", "-spublish"]);
    journal.commit(&first).await.expect_err("the push did not leave");
    assert_eq!(journal.survey(SHARD, false).await.expect("survey").commit, 1, "the commit is there without it");
    tell(&server, &["ACL", "SETUSER", "default", "+spublish"]);
    journal.register(SHARD, Incarnation(7), Seen::default(), &[]).await.expect("register");
    let mut pushes = journal.pushes(Incarnation(7)).await.expect("pushes");
    subscribed(&mut pushes).await;
    assert_eq!(journal.commit(&first).await.expect("a repeat"), Committed::Done);
    assert_eq!(message(&mut pushes).await, bytes("verdict"));
}

#[tokio::test]
async fn a_black_hole_is_left_behind() {
    let server = RedisServer::start().expect("server");
    let proxy = Proxy::start(server.upstream()).expect("a proxy");
    let journal = connect(&proxy.url(), None).await.expect("journal");
    let mut pushes = journal.pushes(Incarnation(7)).await.expect("pushes");
    subscribed(&mut pushes).await;
    proxy.swallow(true);
    assert!(matches!(journal.ping().await, Err(JournalError::Unreachable(_) | JournalError::Silent(_))));
    proxy.swallow(false);
    // The old connections stay silent for ever.
    until(async || journal.ping().await.is_ok()).await;
    assert_eq!(pushes.recv().await, Some(Signal::Subscribed), "subscriptions too");
    until(async || {
        journal.publish(None, Incarnation(7), bytes("push")).await.is_ok()
            && matches!(pushes.try_recv(), Ok(Signal::Message(push)) if push == bytes("push"))
    })
    .await;
}

#[tokio::test]
async fn subscriptions_follow_to_another_server() {
    let (old, new) = (RedisServer::start().expect("server"), RedisServer::start().expect("server"));
    let proxy = Proxy::start(old.upstream()).expect("a proxy");
    let journal = connect(&proxy.url(), None).await.expect("journal");
    let mut pushes = journal.pushes(Incarnation(7)).await.expect("pushes");
    subscribed(&mut pushes).await;
    proxy.lead_to(new.upstream());
    // The old one lives on, and its connections with it: only the commands' one notices.
    tell(&old, &["CLIENT", "KILL", "TYPE", "normal"]);
    until(async || journal.ping().await.is_ok()).await;
    subscribed(&mut pushes).await;
    until(async || journal.publish(None, Incarnation(7), bytes("push")).await.is_ok_and(|heard| heard == 1)).await;
    assert_eq!(message(&mut pushes).await, bytes("push"));
}

pub(crate) fn stop(server: &RedisServer, signal: &str) {
    let told = std::process::Command::new("sh").args(["-c", &format!("kill -{signal} {}", server.pid())]).status();
    assert!(told.expect("sh").success());
}

#[tokio::test]
async fn two_levels_of_one_server_are_two_deployments() {
    let server = RedisServer::start_tcp(&REPLICATED).expect("server");
    let _replica = server.replica(&[]).expect("a replica");
    connect(&server.url(), Some(Durability::Replicated)).await.expect("fit");
    let other = RedisOptions { prefix: "other".into(), ..RedisOptions::default() };
    assert_eq!(RedisJournal::connect(&server.url(), other).await.expect("fit").durability(), Durability::Redis);
}

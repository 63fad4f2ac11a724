//! What only a Redis can do to its users: passwords, limits, roles, broken connections.

use std::time::Duration;

use lasthit::internals::limits::SHARDS_DEFAULT;
use lasthit::journal::redis::{RedisJournal, RedisOptions};
use lasthit::journal::{
    Appended, Committed, CommonJournal as _, Flush, GatewayJournal as _, Homing, JournalError, Leased, RoomCommit, Seen, Witness,
    WorkerJournal as _,
};
use lasthit::types::{Incarnation, ShardId, StreamId};
use servers::RedisServer;

use crate::fixture::{
    self, HOME, SHARD, SHARDS, TestGateway, at, bytes, claim, commit, entry, load, message, part, read, room, subscribed, tell,
};

pub(crate) fn admin(server: &RedisServer) -> redis::Connection {
    redis::Client::open(server.url()).expect("client").get_connection().expect("connection")
}

pub(crate) async fn connect(url: &str) -> Result<RedisJournal, JournalError> {
    RedisJournal::connect(url, RedisOptions::default()).await
}

#[track_caller]
pub(crate) fn refuses<T: std::fmt::Debug>(result: Result<T, JournalError>, says: &str) {
    match result {
        Err(JournalError::Refused(why) | JournalError::Unfit(why))
            if why.contains(says) && !why.contains('\n') && !why.contains("secret") => {}
        other => panic!("a refusal that says {says:?} was expected: {other:?}"),
    }
}

#[track_caller]
fn is_unreachable<T: std::fmt::Debug>(result: Result<T, JournalError>) {
    assert!(matches!(&result, Err(JournalError::Unreachable(_) | JournalError::Silent(_))), "{result:?}");
}

#[tokio::test]
async fn users_and_passwords() {
    let server = RedisServer::start_with(&["--requirepass", "secret1"]).expect("server");
    refuses(connect(&server.url()).await, "password");
    refuses(connect(&format!("{}?pass=secret2", server.url())).await, "password");
    let url = format!("{}?pass=secret1", server.url());
    let journal = connect(&url).await.expect("the right password");
    assert!(!format!("{journal:?}").contains("secret"));
    let mut pushes = journal.pushes(Incarnation(1)).await.expect("subscriptions log in too");
    subscribed(&mut pushes).await;

    let mut admin = redis::Client::open(url).expect("client").get_connection().expect("connection");
    let user = ["SETUSER", "baron", "on", ">secret3", "~lasthit:*", "&lasthit:*", "+@all", "-@dangerous", "+info"];
    redis::cmd("ACL").arg(&user).exec(&mut admin).expect("acl");
    let url = format!("{}?user=baron&pass=secret3", server.url());
    let journal = connect(&url).await.expect("a user with the rights that the error names");
    let mut pushes = journal.pushes(Incarnation(2)).await.expect("pushes");
    subscribed(&mut pushes).await;
    TestGateway::register(&journal).await.append(&journal, at(1), vec![entry(fixture_room(), at(1), "a")]).await;
    assert_eq!(journal.publish(None, Incarnation(2), bytes("push")).await.expect("publish"), 1);
    assert_eq!(message(&mut pushes).await, bytes("push"));
    redis::cmd("ACL").arg(&["SETUSER", "baron", "-info"]).exec(&mut admin).expect("acl");
    connect(&url).await.expect("a server that tells nothing is taken at its word");
    redis::cmd("ACL").arg(&["SETUSER", "baron", "-ssubscribe"]).exec(&mut admin).expect("acl");
    refuses(journal.pushes(Incarnation(3)).await, "redis user may not");
    redis::cmd("ACL").arg(&["SETUSER", "baron", "-evalsha"]).exec(&mut admin).expect("acl");
    refuses(journal.timeline("host").await, "redis user may not");
}

/// A room of the default number of shards.
fn fixture_room() -> lasthit::types::RoomId {
    let rooms = (0..).map(|n| format!("room-{n}").parse().expect("name"));
    rooms.into_iter().find(|room| ShardId::of(room, SHARDS_DEFAULT) == SHARD).expect("endless")
}

#[tokio::test]
async fn over_tcp_with_user_and_database() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address").port();
    let port = free.to_string();
    let server = RedisServer::start_with(&["--port", &port, "--requirepass", "p@ss/word"]).expect("server");
    let journal = connect(&format!("redis://default:p%40ss%2Fword@127.0.0.1:{port}/3")).await.expect("journal");
    TestGateway::register(&journal).await.append(&journal, at(1), vec![entry(fixture_room(), at(1), "a")]).await;
    let survey = journal.survey(SHARD, false).await.expect("survey");
    assert_eq!((survey.append, survey.active), (1, vec![fixture_room()]));
    let elsewhere = connect(&format!("{}?pass=p%40ss%2Fword", server.url())).await.expect("journal");
    assert_eq!(elsewhere.survey(SHARD, false).await.expect("survey").append, 0, "another database");
}

/// Keys are of one database, channels of all: two deployments of one prefix must not hear each other.
#[tokio::test]
async fn two_databases_of_one_server_are_apart() {
    let (server, first) = fixture::redis().await;
    let options = RedisOptions { shards: Some(SHARDS), ..RedisOptions::default() };
    let second = RedisJournal::connect(&format!("{}?db=3", server.url()), options).await.expect("journal");
    let journals = [&first, &second];
    let (mut bells, mut pushes) = (Vec::new(), Vec::new());
    for journal in journals {
        let mut heard = journal.bells(&[SHARD]).await.expect("bells");
        subscribed(&mut heard).await;
        bells.push(heard);
        let mut heard = journal.pushes(Incarnation(1)).await.expect("pushes");
        subscribed(&mut heard).await;
        pushes.push(heard);
    }
    let mut gateways = Vec::new();
    for journal in journals {
        let mut gateway = TestGateway::register(journal).await;
        gateway.append(journal, at(1), vec![entry(room(0), at(1), "a")]).await;
        gateways.push(gateway.incarnation);
    }
    for (name, journal) in ["first", "second"].into_iter().zip(journals) {
        assert_eq!(journal.publish(None, Incarnation(1), bytes(name)).await.expect("publish"), 1, "{name}");
    }
    for n in [0, 1] {
        assert_eq!(message(&mut bells[n]).await.incarnation, gateways[n]);
        assert_eq!(message(&mut pushes[n]).await, ["first", "second"][n]);
    }
    // Nothing of the other's came behind.
    for (journal, heard) in journals.into_iter().zip(&mut bells) {
        let mut last = TestGateway::register(journal).await;
        last.append(journal, at(1), vec![]).await;
        assert_eq!(message(heard).await.incarnation, last.incarnation);
    }
}

#[tokio::test]
async fn nobody_there() {
    for url in ["unix:///nowhere/redis.sock?pass=secret", "redis://user:secret@127.0.0.1:1"] {
        let error = connect(url).await.expect_err(url);
        assert!(matches!(&error, JournalError::Unreachable(why) if why.contains("start one there")), "{error:?}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    refuses(connect("localhost:6379").await, "redis://[[user]:password@]host");
    refuses(connect("redis://u:secret@host:x").await, "redis://[[user]:password@]host");
}

#[tokio::test]
async fn tls_needs_a_server_that_speaks_it() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let port = listener.local_addr().expect("address").port();
    let plain = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.expect("accept");
        socket.writable().await.expect("writable");
        socket.try_write(b"-ERR plain text\r\n").expect("write");
    });
    let error = connect(&format!("rediss://127.0.0.1:{port}")).await.expect_err("no tls there");
    assert!(matches!(error, JournalError::Unreachable(_) | JournalError::Silent(_)), "{error:?}");
    plain.await.expect("server");
}

#[tokio::test]
async fn servers_that_are_not_fit() {
    let evicting = RedisServer::start_with(&["--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru"]).expect("server");
    refuses(connect(&evicting.url()).await, "noeviction");
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1 1"]).expect("server");
    refuses(connect(&replica.url()).await, "primary");
}

#[tokio::test]
async fn a_server_that_becomes_a_replica_or_full() {
    let (server, journal) = fixture::redis().await;
    let mut gateway = TestGateway::register(&journal).await;
    let id = gateway.write(&journal, room(0), "a").await;
    let lease = claim(&journal).await;
    let (flush, first) = (gateway.flush(at(9), vec![]), commit(lease, 1, vec![part(room(0), 1, 0, 1, id)]));

    tell(&server, &["REPLICAOF", "127.0.0.1", "1"]);
    refuses(journal.append(&flush).await, "read-only replica");
    refuses(journal.commit(&first).await, "read-only replica");
    tell(&server, &["REPLICAOF", "NO", "ONE"]);

    // It may have had another one's data meanwhile: what was bound to it has to be bound again.
    assert_eq!(journal.append(&flush).await.expect("append"), Appended::Moved);
    assert_eq!(journal.commit(&first).await.expect("commit"), Committed::Fenced);
    let seen = Seen { server: gateway.server, flush: gateway.number, commit: 0, home: HOME };
    let answer = journal.register(SHARD, gateway.incarnation, seen, &[]).await.expect("registered").here().expect("its home");
    assert_eq!((answer.record.fenced, answer.renewed), (false, 0), "nothing is lost");
    let flush = Flush { server: answer.server, ..flush };
    let earlier = lease;
    let lease = claim(&journal).await;
    // Whether something of the owner's is missing is not known here before it has said so.
    let doubt = async || journal.survey(SHARD, false).await.expect("survey").doubt;
    assert_eq!(doubt().await, Some(earlier.epoch));
    let witness = Witness { server: earlier.server, epoch: Some(earlier.epoch), confirmed: 0, sent: 0 };
    assert_eq!((journal.testify(SHARD, witness).await.expect("testify"), doubt().await), (0, None));
    let first = commit(lease, 1, first.rooms);
    let before = journal.survey(SHARD, true).await.expect("survey");

    tell(&server, &["CONFIG", "SET", "maxmemory", "1"]);
    refuses(journal.append(&flush).await, "raise maxmemory");
    refuses(journal.commit(&first).await, "raise maxmemory");
    journal.heartbeat(lease.owner, &[SHARD], 1000).await.expect("workers stay alive");
    assert_eq!(journal.survey(SHARD, true).await.expect("reading goes on"), before);
    tell(&server, &["CONFIG", "SET", "maxmemory", "0"]);
    assert!(matches!(journal.append(&flush).await, Ok(Appended::Stored(_))));
    journal.commit(&first).await.expect("commit");
}

/// Rooms tell their time by their worker's wall clock (rule T1).
#[tokio::test]
async fn a_wall_clock_that_is_off_claims_nothing() {
    let (_server, journal) = fixture::redis().await;
    let me = Incarnation::random();
    let claim = async |wall_ms| journal.claim(SHARD, None, me, wall_ms, &Homing::default()).await;
    let now = lasthit::internals::clock::unix_ms;
    for (wall_ms, says) in [(now() + 65_000, " 6"), (now() - 65_000, " 6"), (0, "s behind"), (u64::MAX >> 12, "s ahead of")] {
        let error = claim(wall_ms).await.expect_err("refused");
        assert!(matches!(error, JournalError::Refused(_)), "{error:?}");
        let error = error.to_string();
        let which = if wall_ms > now() { "ahead of the redis server's" } else { "behind the redis server's" };
        assert!(error.contains(says) && error.contains(which) && error.contains("NTP") && !error.contains('\n'), "{error}");
    }
    assert_eq!(journal.owners().await.expect("owners")[usize::from(SHARD.0)].lease, None, "nothing was written");
    // What is within the bound is taken.
    let Leased::Done(lease) = claim(now() - 700).await.expect("claimed") else { panic!("nobody else claims") };
    let again = journal.claim(SHARD, Some(lease), me, now() + 700, &Homing::default()).await;
    assert!(matches!(again, Ok(Leased::Done(_))), "{again:?}");
}

/// The list of due rooms is a hint: if it is of another type, everything goes on, and it is back as soon as it is deleted.
#[tokio::test]
async fn a_list_of_due_rooms_that_is_damaged_stops_nothing() {
    let (server, journal) = fixture::redis().await;
    let mut gateway = TestGateway::register(&journal).await;
    let id = gateway.write(&journal, room(0), "a").await;
    let key = fixture::key("due");
    tell(&server, &["SET", &key, "not ours"]);
    let lease = claim(&journal).await;
    let due = |from, to, ms| RoomCommit { due: Some(ms), ..part(room(0), 1, from, to, id) };
    for (number, ms) in [(1, Some(5)), (2, None)] {
        let done = journal.commit(&commit(lease, number, vec![due(number - 1, number, ms)])).await;
        assert_eq!(done.expect("commit"), Committed::Done);
    }
    let survey = journal.survey(SHARD, true).await.expect("survey");
    assert_eq!((survey.rooms.len(), survey.due), (1, vec![]));
    let lease = claim(&journal).await;
    tell(&server, &["DEL", &key]);
    journal.commit(&commit(lease, 3, vec![due(2, 3, Some(7))])).await.expect("commit");
    assert_eq!(journal.survey(SHARD, true).await.expect("survey").due, [(room(0), 7)]);
    // What nobody writes is due at once, or never a moment that is out of bounds.
    for odd in ["-1", "inf", "1e300"] {
        tell(&server, &["ZADD", &key, odd, room(0).as_str()]);
        tell(&server, &["ZADD", &key, "3", "not a room"]);
        assert_eq!(journal.survey(SHARD, true).await.expect("survey").due, [(room(0), 0)], "{odd}");
    }
    tell(&server, &["SET", &key, "not ours"]);
    assert_eq!(journal.end_room(SHARD, lease, &room(0), 3).await.expect("end"), Leased::Done(true));
}

#[tokio::test]
async fn subscriptions_come_back() {
    let (server, journal) = fixture::redis().await;
    let mut bells = journal.bells(&[SHARD]).await.expect("bells");
    let mut pushes = journal.pushes(Incarnation(7)).await.expect("pushes");
    let mut gateway = TestGateway::register(&journal).await;
    for round in 1..=3 {
        subscribed(&mut bells).await;
        subscribed(&mut pushes).await;
        gateway.append(&journal, at(round), vec![]).await;
        assert_eq!(message(&mut bells).await.append, round);
        assert_eq!(journal.publish(None, Incarnation(7), bytes("push")).await.expect("publish"), 1);
        assert_eq!(message(&mut pushes).await, bytes("push"));
        tell(&server, &["CLIENT", "KILL", "TYPE", "pubsub"]);
    }
}

#[tokio::test]
async fn a_dropped_subscription_ends() {
    let (server, journal) = fixture::redis().await;
    drop(journal.pushes(Incarnation(7)).await.expect("pushes"));
    for _ in 0..100 {
        if journal.publish(None, Incarnation(7), bytes("push")).await.expect("publish") == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("somebody still listens to {}", server.url());
}

#[tokio::test]
async fn a_bell_that_nobody_can_read_says_look_for_yourself() {
    let (server, journal) = fixture::redis().await;
    let mut bells = journal.bells(&[SHARD]).await.expect("bells");
    subscribed(&mut bells).await;
    let heard: u64 = server.ask(&["SPUBLISH", &fixture::key("bell"), "garbage"]).expect("publish");
    assert_eq!(heard, 1);
    subscribed(&mut bells).await;
    TestGateway::register(&journal).await.append(&journal, at(1), vec![]).await;
    assert_eq!(message(&mut bells).await.append, 1);
}

#[tokio::test]
async fn scripts_are_loaded_again() {
    let (server, journal) = fixture::redis().await;
    let mut gateway = TestGateway::register(&journal).await;
    for round in 0..3 {
        tell(&server, &["SCRIPT", "FLUSH"]);
        gateway.write(&journal, room(0), &format!("{round}")).await;
    }
    assert_eq!(read(&journal, &room(0), StreamId::default()).await.expect("read").len(), 3);
}

#[tokio::test]
async fn connections_come_back() {
    let (server, journal) = fixture::redis().await;
    let mut gateway = TestGateway::register(&journal).await;
    gateway.append(&journal, at(1), vec![]).await;
    tell(&server, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    let flush = gateway.flush(at(2), vec![entry(room(0), at(2), "once")]);
    let mut failures = 0;
    while let Err(error) = journal.append(&flush).await {
        assert!(matches!(error, JournalError::Unreachable(_) | JournalError::Silent(_)), "{error:?}");
        failures += 1;
        assert!(failures < 20, "{error}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(read(&journal, &room(0), StreamId::default()).await.expect("read").len(), 1);
}

#[tokio::test]
async fn a_server_that_hangs_is_unreachable_until_it_answers() {
    let (server, journal) = fixture::redis().await;
    let gateway = TestGateway::register(&journal).await;
    let flush = gateway.flush(at(2), vec![entry(room(0), at(2), "once")]);
    tell(&server, &["CLIENT", "PAUSE", "2600", "ALL"]);
    is_unreachable(journal.append(&flush).await);
    tokio::time::sleep(Duration::from_millis(1000)).await;
    // The outcome was unknown: the same flush again is stored once, whether the first one got through or not.
    assert!(matches!(journal.append(&flush).await, Ok(Appended::Stored(_))));
    let survey = journal.survey(SHARD, false).await.expect("survey");
    assert_eq!((survey.append, survey.active), (1, vec![room(0)]));
    drop(server);
    is_unreachable(journal.ping().await);
    is_unreachable(journal.owners().await);
    is_unreachable(journal.pushes(Incarnation(1)).await);
}

#[tokio::test]
async fn a_password_that_changes_back_is_noticed() {
    let (server, journal) = fixture::redis().await;
    let mut keeper = admin(&server);
    let kill = ["KILL", "TYPE", "normal", "SKIPME", "yes"];
    redis::cmd("CONFIG").arg(&["SET", "requirepass", "secret"]).exec(&mut keeper).expect("config");
    redis::cmd("CLIENT").arg(&kill).exec(&mut keeper).expect("kill");
    let mut refused = false;
    for _ in 0..20 {
        refused |= matches!(journal.ping().await, Err(JournalError::Refused(_)));
    }
    assert!(refused);
    redis::cmd("CONFIG").arg(&["SET", "requirepass", ""]).exec(&mut keeper).expect("config");
    for _ in 0..100 {
        if journal.ping().await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("still refused");
}

/// A room with a key of a type that nobody here writes is refused by name, before anything is written; the others go on.
#[tokio::test]
async fn a_damaged_room_is_refused_by_name() {
    for key in ["room", "state", "out", "snapshot"] {
        let (server, journal) = fixture::redis().await;
        let mut gateway = TestGateway::register(&journal).await;
        let (good, bad) = (room(0), room(1));
        let ids = [gateway.write(&journal, good.clone(), "a").await, gateway.write(&journal, bad.clone(), "b").await];
        let lease = claim(&journal).await;
        let broken = fixture::key(&format!("{key}:{bad}"));
        tell(&server, &["DEL", &broken]);
        tell(&server, &["RPUSH", &broken, "not ours"]);

        let heads = journal.heads(SHARD, &[good.clone(), bad.clone()]).await.expect("heads");
        assert_eq!((heads.1[0].era, heads.1[1].era), (1, if key == "state" { 0 } else { 2 }));
        assert!(journal.survey(SHARD, true).await.expect("survey").rooms.iter().any(|head| head.room == good));
        if key != "snapshot" {
            let damaged = load(&journal, &bad).await;
            assert!(matches!(&damaged, Err(JournalError::Damaged(why)) if why.contains("type")), "{key}: {damaged:?}");
        }
        let whole = commit(lease, 1, vec![part(good.clone(), 1, 0, 1, ids[0]), part(bad.clone(), 2, 0, 1, ids[1])]);
        // Verdicts need no more of the entries' stream than to trim it.
        if key == "room" {
            let mut trims = whole.clone();
            trims.rooms[1].trim = Some((ids[1], 0));
            assert_eq!(journal.commit(&trims).await.expect("commit"), Committed::Refused(vec![bad.clone()]));
            assert_eq!(journal.commit(&whole).await.expect("commit"), Committed::Done);
        }
        if key == "state" || key == "out" {
            let active = || {
                let key = fixture::key("active");
                let mut rooms: Vec<String> = server.ask(&["SMEMBERS", &key]).expect("set");
                rooms.sort();
                rooms
            };
            let before = active();
            assert_eq!(before.len(), 2);
            // The first is found by writing it, which is taken back; the next ones by looks.
            for order in [[0, 1], [1, 0]] {
                let rooms = order.map(|at: usize| whole.rooms[at].clone()).to_vec();
                let answer = journal.commit(&commit(lease, 1, rooms)).await.expect("commit");
                assert_eq!(answer, Committed::Refused(vec![bad.clone()]), "{key}");
            }
            assert_eq!(load(&journal, &good).await.expect("load").seq, 0, "{key}: nothing was written");
            assert_eq!(active(), before, "{key}");
            let rest = commit(lease, 1, vec![whole.rooms[0].clone()]);
            assert_eq!(journal.commit(&rest).await.expect("commit"), Committed::Done);
        }
        if key == "state" || key == "room" {
            let now = at(9);
            let flush = gateway.flush(now, vec![entry(good.clone(), now, "c"), entry(bad.clone(), now, "d")]);
            assert_eq!(journal.append(&flush).await.expect("append"), Appended::Refused(vec![bad.clone()]), "{key}");
            let before = journal.survey(SHARD, false).await.expect("survey").append;
            assert_eq!(read(&journal, &good, ids[0]).await.expect("read"), [], "{key}: nothing was written");
            gateway.append(&journal, now, vec![entry(good.clone(), now, "c")]).await;
            assert_eq!(journal.survey(SHARD, false).await.expect("survey").append, before + 1);
        }
        // Whoever takes over is not stopped by it either.
        claim(&journal).await;
    }
}

/// A restart that keeps everything: a gateway that was forgotten meanwhile is fenced, and the rooms stay as they are.
#[tokio::test]
async fn a_forgotten_gateway_comes_back_after_a_restart() {
    let mut server = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]).expect("server");
    let options = RedisOptions { shards: Some(SHARDS), ..RedisOptions::default() };
    let journal = RedisJournal::connect(&server.url(), options.clone()).await.expect("journal");
    let mut gone = TestGateway::register(&journal).await;
    let id = gone.write(&journal, room(0), "g").await;
    let lease = claim(&journal).await;
    journal.commit(&commit(lease, 1, vec![part(room(0), 1, 0, 1, id)])).await.expect("commit");
    journal.fence(SHARD, lease, gone.incarnation).await.expect("fence");
    journal.forget(SHARD, lease, &[gone.incarnation]).await.expect("forget");
    server.kill().expect("killed");
    server.restart().expect("restarted");
    let journal = RedisJournal::connect(&server.url(), options).await.expect("journal");
    let seen = Seen { server: gone.server, flush: 1, commit: 1, home: HOME };
    let answer = journal.register(SHARD, gone.incarnation, seen, &[room(0)]).await.expect("register").here().expect("its home");
    assert!(answer.record.fenced && answer.server != gone.server, "{answer:?}");
    assert_eq!((answer.renewed, answer.rooms[0].era, answer.rooms[0].seq), (0, 1, 1));
}

/// Records that nobody can read are named by the survey, which tells the rest; the gateway is fenced, and its death is written.
#[tokio::test]
async fn what_is_damaged_is_named_by_the_survey() {
    let (server, journal) = fixture::redis().await;
    let mut gateways = [TestGateway::register(&journal).await, TestGateway::register(&journal).await];
    let (good, bad) = (room(0), room(1));
    gateways[0].write(&journal, good.clone(), "a").await;
    gateways[1].write(&journal, bad.clone(), "b").await;
    let lease = claim(&journal).await;
    let [kept, spoiled] = [gateways[0].incarnation, gateways[1].incarnation];
    let key = fixture::key;
    tell(&server, &["HDEL", &key(&format!("state:{bad}")), "seq"]);
    tell(&server, &["SADD", &key("active"), "no room of ours"]);
    tell(&server, &["SADD", &key("rooms"), "no room of ours"]);
    tell(&server, &["HSET", &key("gateways"), "nobody", "0|0|0|0"]);
    for record in ["garbage", "", "7|00|0|00", "99999999999999999999|000000000000000000000000|0|00000000000000000000000000000001"]
    {
        tell(&server, &["HSET", &key("gateways"), &spoiled.to_hex(), record]);
        let survey = journal.survey(SHARD, true).await.expect("survey");
        let names: Vec<_> = survey.rooms.iter().map(|head| head.room.clone()).collect();
        let known: Vec<_> = survey.gateways.iter().map(|record| record.incarnation).collect();
        assert_eq!((names, survey.damaged_rooms), (vec![good.clone()], vec![bad.clone()]), "{record}");
        assert_eq!((known, survey.damaged_gateways), (vec![kept], vec![spoiled]), "{record}");
        assert_eq!(survey.active, [good.clone(), bad.clone()]);

        journal.forget(SHARD, lease, &[spoiled]).await.expect("only what is fenced is forgotten");
        let Ok(Leased::Done(fenced)) = journal.fence(SHARD, lease, spoiled).await else { panic!("{record}") };
        assert!(fenced.fenced && fenced.incarnation == spoiled, "{fenced:?}");
        assert_eq!(journal.append(&gateways[1].flush(at(9), vec![])).await.expect("append"), Appended::Fenced);
        assert!(journal.survey(SHARD, false).await.expect("survey").gateways.contains(&fenced));
    }
    tell(&server, &["HSET", &key("gateways"), &spoiled.to_hex(), "garbage"]);
    let death = entry(good.clone(), at(9), "death");
    assert_eq!(journal.death(SHARD, lease, spoiled, &death).await.expect("it appends no more"), Leased::Done(()));
    let load = load(&journal, &bad).await;
    assert!(matches!(load, Err(JournalError::Damaged(_))), "{load:?}");
}

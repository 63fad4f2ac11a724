//! Every key that a script touches, spoiled in turn: the step refuses and nothing has changed, or it names the damaged room
//! and does the rest, or it does what it would have done anyway.

use std::collections::{BTreeMap, BTreeSet};

use lasthit::journal::redis::{RedisJournal, RedisOptions};
use lasthit::journal::{
    AheadName, AheadPart, Appended, Commit, CommitSnapshot, Committed, CommonJournal as _, FailedEvents, FailedJournal as _,
    Flush, GatewayJournal as _, Homing, JournalError, Lease, Leased, Part, ProcessRecord, RoomCommit, Seen, Successor, Witness,
    WorkerJournal as _,
};
use lasthit::types::{HostId, Incarnation, Moment, RoomId, ShardId, StreamId};
use servers::RedisServer;

use crate::fixture::{self, HOME, SHARD, SHARDS, TestGateway, at, bytes, claim, commit, entry, part, room};

/// What is not a number, not a moment, not a record; what Lua takes for a number all the same; and numbers out of bounds.
const GARBAGE: [&str; 6] = ["garbage", "", "-1", "1.5", "0x10", "99999999999999999999"];

/// In the year 2255.
const FAR_MS: u64 = 9_000_000_000_000;

/// A shard with something in every key, and what the steps need to know of it.
struct Scene {
    server: RedisServer,
    journal: RedisJournal,
    admin: redis::Connection,
    /// Every key as `DUMP` gives it.
    keys: BTreeMap<String, Vec<u8>>,
    lease: Lease,
    living: TestGateway,
    dead: TestGateway,
    ids: Vec<StreamId>,
}

/// A key as it is compared: streams by their entries without positions, what says a time without it.
#[derive(Debug, PartialEq, Eq)]
enum Content {
    Bytes(Vec<u8>),
    Entries(Vec<Vec<u8>>),
    Fields(BTreeMap<String, String>),
}

impl Content {
    fn of(kind: &str, name: &str, value: redis::Value) -> Self {
        fn read<T: redis::FromRedisValue>(value: redis::Value) -> T {
            redis::from_redis_value(value).expect("of its type")
        }
        match kind {
            "hash" => {
                let mut fields: BTreeMap<String, String> = read(value);
                if [":workers", ":hosts", ":patterns"].iter().any(|end| name.ends_with(end)) {
                    fields.values_mut().for_each(String::clear);
                }
                for another_each_time in ["last", "seed"] {
                    fields.entry(another_each_time.to_owned()).and_modify(String::clear);
                }
                Self::Fields(fields)
            }
            "stream" => {
                let entries: Vec<(String, Vec<Vec<u8>>)> = read(value);
                Self::Entries(entries.into_iter().map(|(_, fields)| fields.concat()).collect())
            }
            "zset" => Self::Fields(read(value)),
            "set" => Self::Fields(read::<BTreeSet<String>>(value).into_iter().map(|member| (member, String::new())).collect()),
            _ => Self::Bytes(read(value)),
        }
    }
}

impl Scene {
    async fn new() -> Self {
        let (server, journal) = fixture::redis().await;
        let mut admin = redis::Client::open(server.url()).expect("client").get_connection().expect("connection");
        let (mut living, mut dead) = (TestGateway::register(&journal).await, TestGateway::register(&journal).await);
        for n in [0, 1, 3] {
            living.write(&journal, room(n), "a").await;
            dead.write(&journal, room(n), "b").await;
        }
        let lost = claim(&journal).await;
        journal.attempt(SHARD, lost, &room(0), 7).await.expect("attempt");
        let lease = claim(&journal).await;
        journal.fence(SHARD, lease, dead.incarnation).await.expect("fence");
        let mut ids = Vec::new();
        for n in [0, 1, 3] {
            ids.push(fixture::last(&journal, &room(n)).await);
        }
        let committed = |n: usize, era| RoomCommit {
            snapshot: Some(CommitSnapshot::Whole(bytes("state"))),
            gateways: Some(vec![living.incarnation, dead.incarnation]),
            // What is due is unresolved, too: a death is counted there whether the list of due rooms is readable or not.
            due: Some(Some(if n == 3 { FAR_MS } else { 1 })),
            failed: Some(failed("earlier")),
            ..part(room(n), era, 0, 2, ids[n.min(2)])
        };
        let first = commit(lease, 1, vec![committed(0, 1), committed(1, 2), committed(3, 3)]);
        assert_eq!(journal.commit(&first).await.expect("commit"), Committed::Done);
        for n in [0, 1] {
            living.write(&journal, room(n), "c").await;
        }
        for n in [0, 1] {
            journal.attempt(SHARD, lease, &room(n), 8).await.expect("attempt");
        }
        journal.write_ahead(SHARD, lease, &room(0), &ahead(1, 9)).await.expect("written ahead");
        let lease = claim(&journal).await;
        journal.heartbeat(Incarnation(5), &[SHARD], 1_000_000).await.expect("heartbeat");
        journal.announce_patterns(Incarnation(5), &["a*".to_owned()], 1_000_000).await.expect("patterns");
        journal.beat(&process(5), 1_000_000).await.expect("beat");
        journal.drain(&process(5).host, true).await.expect("drained");
        journal.timeline("boot-1").await.expect("timeline");
        journal.live_timelines(1, 1_000_000).await.expect("timelines");
        // A shard whose rooms have begun new eras before.
        let shard = fixture::key("shard");
        redis::cmd("HSET").arg(&[&shard, "renewed", &Incarnation(7).to_hex(), "shift", "5"]).exec(&mut admin).expect("hset");
        let mut scene = Self { server, journal, admin, keys: BTreeMap::new(), lease, living, dead, ids };
        scene.keys = scene.dump();
        scene
    }

    fn names(&mut self) -> Vec<String> {
        let mut names: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut self.admin).expect("keys");
        names.sort_unstable();
        names
    }

    fn dump(&mut self) -> BTreeMap<String, Vec<u8>> {
        let names = self.names();
        let dump = |name: &String| redis::cmd("DUMP").arg(name).query(&mut self.admin).expect("dump");
        let dumps: Vec<Vec<u8>> = names.iter().map(dump).collect();
        names.into_iter().zip(dumps).collect()
    }

    /// Everything as it was.
    fn reset(&mut self) {
        let mut pipeline = redis::pipe();
        pipeline.cmd("FLUSHALL").ignore();
        for (name, bytes) in &self.keys {
            pipeline.cmd("RESTORE").arg(name).arg(0).arg(bytes).ignore();
        }
        pipeline.exec(&mut self.admin).expect("restored");
    }

    fn tell(&mut self, command: &[&str]) {
        redis::cmd(command[0]).arg(&command[1..]).exec(&mut self.admin).expect("command");
    }

    fn ask<T: redis::FromRedisValue>(&mut self, command: &[&str]) -> T {
        redis::cmd(command[0]).arg(&command[1..]).query(&mut self.admin).expect("answer")
    }

    fn contents(&mut self) -> BTreeMap<String, Content> {
        let names = self.names();
        let of_all = |command: &[&str], names: &[String]| {
            let mut pipeline = redis::pipe();
            for name in names {
                pipeline.cmd(command[0]).arg(name).arg(&command[1..]);
            }
            pipeline
        };
        let kinds: Vec<String> = of_all(&["TYPE"], &names).query(&mut self.admin).expect("types");
        let mut by_kind: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, kind) in names.into_iter().zip(kinds) {
            by_kind.entry(kind).or_default().push(name);
        }
        let mut contents = BTreeMap::new();
        for (kind, names) in by_kind {
            let command: &[&str] = match kind.as_str() {
                "hash" => &["HGETALL"],
                "stream" => &["XRANGE", "-", "+"],
                "zset" => &["ZRANGE", "0", "-1", "WITHSCORES"],
                "set" => &["SMEMBERS"],
                _ => &["DUMP"],
            };
            let values: Vec<redis::Value> = of_all(command, &names).query(&mut self.admin).expect("contents");
            for (name, value) in names.into_iter().zip(values) {
                let content = Content::of(&kind, &name, value);
                contents.insert(name, content);
            }
        }
        contents
    }

    /// What can be done to a key, as commands.
    fn spoils(&mut self, key: &str) -> Vec<Vec<Vec<String>>> {
        let words = |command: &[&str]| command.iter().map(|word| (*word).to_owned()).collect::<Vec<String>>();
        let mut all = vec![vec![words(&["DEL", key]), words(&["RPUSH", key, "not ours"])]];
        let kind: String = self.ask(&["TYPE", key]);
        match kind.as_str() {
            "hash" => {
                let fields: BTreeMap<String, String> = self.ask(&["HGETALL", key]);
                for (field, value) in fields {
                    all.extend(GARBAGE.map(|garbage| vec![words(&["HSET", key, &field, garbage])]));
                    // The same number, spelled as nobody writes it.
                    all.push(vec![words(&["HSET", key, &field, &format!("0{value}")])]);
                }
            }
            "set" => all.push(vec![words(&["SADD", key, "not a room"])]),
            "zset" => {
                all.push(vec![words(&["ZADD", key, "1", "not a room"])]);
                all.extend(["-1", "1.5", "inf", "-inf", "1e300"].map(|odd| vec![words(&["ZADD", key, odd, room(0).as_str()])]));
            }
            "stream" => all.push(vec![words(&["XADD", key, &format!("{0}-{0}", u64::MAX), "e", "not ours"])]),
            _ => {}
        }
        all
    }

    fn flush(&self, rooms: &[usize]) -> Flush {
        let top = self.living.watermark.plus(1);
        self.living.flush(top, rooms.iter().map(|n| entry(room(*n), top, "d")).collect())
    }

    fn next_commit(&self, rooms: &[usize]) -> Commit {
        let part = |n: &usize| RoomCommit {
            snapshot: Some(CommitSnapshot::Whole(bytes("newer"))),
            gateways: Some(vec![]),
            trim: Some((StreamId::default(), 0)),
            due: Some((*n == 0).then_some(2)),
            failed: Some(failed("newer")),
            ..part(room(*n), SHIFT + 1 + *n as u64, 2, 3, self.ids[*n])
        };
        commit(self.lease, 2, rooms.iter().map(part).collect())
    }

    /// One step of each script: what it answers, and which rooms it refuses by name.
    async fn take(&self, step: &str) -> Result<(String, Vec<RoomId>), JournalError> {
        let (journal, lease) = (&self.journal, self.lease);
        let lost = Seen { server: Incarnation(9), flush: 0, commit: 99, home: HOME };
        let witness = Witness { server: Incarnation(9), epoch: None, confirmed: 99, sent: 99 };
        let last_words = entry(room(0), at(99), "death");
        let answer = match step {
            "append" => match journal.append(&self.flush(&[0, 1, 2])).await? {
                Appended::Refused(rooms) => return Ok((String::new(), rooms)),
                other => format!("{other:?}"),
            },
            "append again" => {
                let mut again = self.flush(&[0, 1]);
                (again.number, again.previous) = (1, Moment::default());
                format!("{:?}", journal.append(&again).await?)
            }
            "attempt" => format!("{:?}", journal.attempt(SHARD, lease, &room(0), 9).await?),
            "beat" => format!("{:?}", journal.beat(&process(6), 1_000_000).await?),
            "claim" => {
                format!(
                    "{:?}",
                    journal
                        .claim(SHARD, Some(lease), Incarnation(3), lasthit::internals::clock::unix_ms(), &Homing::default())
                        .await?
                )
            }
            "commit" => match journal.commit(&self.next_commit(&[0, 1])).await? {
                Committed::Refused(rooms) => return Ok((String::new(), rooms)),
                other => format!("{other:?}"),
            },
            "death" => format!("{:?}", journal.death(SHARD, lease, self.dead.incarnation, &last_words).await?),
            "deployment" => {
                let options = RedisOptions { shards: Some(SHARDS), ..RedisOptions::default() };
                format!("{:?}", RedisJournal::connect(&self.server.url(), options).await?.shards())
            }
            "drain" => format!("{:?}", journal.drain(&HostId::new("there").expect("a name"), true).await?),
            "drop failed" => format!("{:?}", journal.drop_failed(SHARD, "*", &[]).await?),
            "drop one failed" => format!("{:?}", journal.drop_failed(SHARD, "*", &[StreamId { ms: 1, seq: 1 }]).await?),
            "end room" => format!("{:?}", journal.end_room(SHARD, lease, &room(3), 2).await?),
            "failed" => format!("{:?}", journal.failed(SHARD, "*", None).await?.len()),
            "failed patterns" => format!("{:?}", journal.failed_patterns(SHARD).await?),
            "fence" => format!("{:?}", journal.fence(SHARD, lease, self.living.incarnation).await?),
            "forget" => format!("{:?}", journal.forget(SHARD, lease, &[self.dead.incarnation]).await?),
            "heads" => format!("{:?}", journal.heads(SHARD, &[room(0), room(1)]).await?),
            "heartbeat" => format!("{:?}", journal.heartbeat(Incarnation(6), &[SHARD], 1_000_000).await?),
            "host" => format!("{:?}", journal.live_timelines(2, 1_000_000).await?),
            "leave" => format!("{:?}", journal.leave(SHARD, self.living.incarnation).await?),
            "load" => format!("{:?}", fixture::load(journal, &room(0)).await?),
            "name" => {
                let next = Successor { host: process(5).host, url: "wss://a.example".to_owned() };
                format!("{:?}", journal.name(SHARD, lease, Some(&next), 1_000_000).await?)
            }
            "owners" => format!("{:?}", journal.owners().await?),
            "patterns" => {
                journal.announce_patterns(Incarnation(6), &["b*".to_owned()], 1_000_000).await?;
                format!("{:?}", journal.announced_patterns().await?)
            }
            "home" => format!("{:?}", journal.home(SHARD).await?),
            "register" => format!("{:?}", journal.register(SHARD, Incarnation(4), lost, &[room(0), room(1)]).await?),
            "register again" => {
                let seen = Seen { server: self.living.server, flush: 1, commit: 1, home: HOME };
                format!("{:?}", journal.register(SHARD, self.living.incarnation, seen, &[room(0), room(1)]).await?)
            }
            "release" => format!("{:?}", journal.release(SHARD, lease).await?),
            "survey" => format!("{:?}", journal.survey(SHARD, true).await?),
            "testify" => format!("{:?}", journal.testify(SHARD, witness).await?),
            "timeline" => format!("{:?}", journal.timeline("boot-2").await?),
            "write ahead" => format!("{:?}", journal.write_ahead(SHARD, lease, &room(0), &ahead(SHIFT + 1, 3)).await?),
            "verdicts" => format!("{:?}", journal.verdicts(&room(0), 0, 9).await?),
            other => panic!("no step {other}"),
        };
        Ok((answer, Vec::new()))
    }
}

/// What a process says of itself.
fn process(n: u128) -> ProcessRecord {
    ProcessRecord::new(Incarnation(n << 64), HostId::new("here").expect("a name"), Part::Gateway)
}

/// A failed event to keep.
fn failed(text: &str) -> FailedEvents {
    FailedEvents { pattern: "*".to_owned(), keep: 9, records: vec![bytes(text)] }
}

/// The first part of a snapshot.
fn ahead(era: u64, seq: u64) -> AheadPart {
    AheadPart { name: AheadName { lane: 4, seq }, era, index: 0, bytes: bytes("part") }
}

/// How far the scene's rooms are from the eras that are stored with them.
const SHIFT: u64 = 5;

const STEPS: [&str; 33] = [
    "append",
    "append again",
    "attempt",
    "beat",
    "claim",
    "commit",
    "death",
    "deployment",
    "drain",
    "drop failed",
    "drop one failed",
    "end room",
    "failed",
    "failed patterns",
    "fence",
    "forget",
    "heads",
    "home",
    "heartbeat",
    "host",
    "leave",
    "load",
    "name",
    "owners",
    "patterns",
    "register",
    "register again",
    "release",
    "survey",
    "testify",
    "timeline",
    "verdicts",
    "write ahead",
];

#[tokio::test]
async fn of_a_spoiled_key_nothing_is_half_written() {
    let mut scene = Scene::new().await;
    let keys: Vec<String> = scene.keys.keys().cloned().collect();
    let (mut refused, mut named, mut done) = (0, 0, 0);
    for step in STEPS {
        scene.reset();
        scene.take(step).await.expect(step);
        let control = scene.contents();
        for key in &keys {
            scene.reset();
            // A connection keeps the name that the server had when it was made, even a spoiled one.
            scene.journal = fixture::connect(&scene.server).await;
            for spoil in scene.spoils(key) {
                scene.reset();
                for command in &spoil {
                    scene.tell(&command.iter().map(String::as_str).collect::<Vec<_>>());
                }
                let before = scene.contents();
                let answer = scene.take(step).await;
                let after = scene.contents();
                let context = format!("{step}: {spoil:?}: {answer:?}");
                match &answer {
                    Err(_) => {
                        assert_eq!(before, after, "{context}");
                        refused += 1;
                    }
                    Ok((_, rooms)) if !rooms.is_empty() => {
                        assert_eq!(before, after, "{context}");
                        let damaged: Vec<usize> = [0, 1].into_iter().filter(|n| key.ends_with(room(*n).as_str())).collect();
                        assert_eq!(*rooms, damaged.iter().map(|n| room(*n)).collect::<Vec<_>>(), "{context}");
                        let rest: Vec<usize> = [0, 1].into_iter().filter(|n| !damaged.contains(n)).collect();
                        let rest_is_done = match step {
                            "append" => matches!(scene.journal.append(&scene.flush(&rest)).await, Ok(Appended::Stored(_))),
                            _ => matches!(scene.journal.commit(&scene.next_commit(&rest)).await, Ok(Committed::Done)),
                        };
                        assert!(rest_is_done, "{context}");
                        named += 1;
                    }
                    Ok(_) => {
                        // Where it cannot be read on which server the lost owner had the shard, its death is not counted.
                        let unowned = step == "claim" && spoil.iter().flatten().any(|word| word == "owned");
                        // An entry has the time at which it runs out.
                        let timed =
                            |name: &str| step == "beat" && name.ends_with(":procs") || step == "name" && name.ends_with(":shard");
                        let differs = |name: &&String| {
                            *name != key
                                && control.get(*name) != after.get(*name)
                                && !(unowned && name.contains(":state:"))
                                && !timed(name)
                        };
                        let odd: Vec<&String> = control.keys().chain(after.keys()).filter(differs).collect();
                        // The journal may take it for another server from then on, to which nobody has a lease.
                        let renamed = key.ends_with(":deployment");
                        assert!(odd.is_empty() || before == after || renamed, "{context}: half written, see {odd:?}");
                        done += 1;
                    }
                }
            }
        }
    }
    assert!(refused > 100 && named > 20 && done > 100, "{refused} refused, {named} named, {done} done");
}

/// Commits are lost while a room's state is damaged: mended, it is in a new era as all others are, and nobody who was told
/// of the lost ones goes on in it unawares.
#[tokio::test]
async fn a_damaged_room_begins_a_new_era_too() {
    for witness in ["gateway", "worker"] {
        let mut scene = Scene::new().await;
        let state = fixture::key(&format!("state:{}", room(0)));
        scene.tell(&["RENAME", &state, "lasthit:aside"]);
        scene.tell(&["RPUSH", &state, "not ours"]);
        scene.take(if witness == "gateway" { "register" } else { "testify" }).await.expect("taken");
        let other = fixture::load(&scene.journal, &room(1)).await.expect("load").era;
        assert!(other > SHIFT + 2, "{witness}: {other}");
        scene.tell(&["RENAME", "lasthit:aside", &state]);
        let mended = fixture::load(&scene.journal, &room(0)).await.expect("load");
        assert_eq!((mended.era, mended.seq), (other - 1, 2), "{witness}");
        let heads = scene.journal.heads(SHARD, &[room(0)]).await.expect("heads").1;
        assert_eq!(heads[0].era, mended.era);
        let old = scene.next_commit(&[0]);
        assert_eq!(scene.journal.commit(&Commit { number: 3, ..old }).await.expect("commit"), Committed::Refused(vec![room(0)]));
    }
}

/// A shard whose record cannot be read is nobody's to claim, and every other shard's owner is known and may be followed.
#[tokio::test]
async fn a_damaged_shard_stops_no_other() {
    let mut scene = Scene::new().await;
    let key = fixture::key("shard");
    let other = ShardId(SHARD.0 - 1);
    let host: String = scene.ask(&["HGET", &key, "home"]);
    let host = host.split_once('|').expect("a home").1.to_owned();
    let homes = ["", "garbage", "5|", "-1|here", "4294967295|here", "5|he re", "5|a|b"].map(str::to_owned);
    let homes = homes.into_iter().chain([format!("05|{host}"), format!("5|{}", "x".repeat(129))]).collect::<Vec<_>>();
    let homes: Vec<[&str; 4]> = homes.iter().map(|home| ["HSET", &key, "home", home]).collect();
    let spoils: [&[&str]; 7] = [
        &["SET", &key, "not ours"],
        &["HSET", &key, "epoch", "garbage"],
        &["HSET", &key, "owner", "garbage"],
        &["HSET", &key, "owner", "ABCDEFABCDEFABCDEFABCDEFABCDEFAB"],
        &["HDEL", &key, "epoch"],
        &["HSET", &key, "commit", "garbage"],
        &["HSET", &key, "commit", "1.5"],
    ];
    for spoil in spoils.into_iter().chain(homes.iter().map(|spoil| &spoil[..])) {
        scene.reset();
        scene.tell(spoil);
        if spoil.contains(&"home") {
            let register = scene.take("register").await;
            assert!(matches!(&register, Err(JournalError::Unexpected(why)) if why.contains(&key)), "{spoil:?}: {register:?}");
            let owner = scene.journal.owners().await.expect("owners")[usize::from(SHARD.0)].clone();
            assert_eq!((owner.lease.map(|lease| (lease.owner, lease.home)), owner.home), (Some((scene.lease.owner, 0)), None));
        }
        for worker in [Incarnation(3), Incarnation(4)] {
            let owners = scene.journal.owners().await.unwrap_or_else(|error| panic!("{spoil:?}: {error}"));
            assert_eq!(owners.len(), usize::from(SHARDS), "{spoil:?}");
            let refused = scene
                .journal
                .claim(
                    SHARD,
                    owners[usize::from(SHARD.0)].lease,
                    worker,
                    lasthit::internals::clock::unix_ms(),
                    &Homing::default(),
                )
                .await;
            assert!(matches!(&refused, Err(JournalError::Unexpected(why)) if why.contains(&key)), "{spoil:?}: {refused:?}");
            let from = owners[usize::from(other.0)].lease;
            assert_eq!(from.map(|lease| lease.owner), (worker == Incarnation(4)).then_some(Incarnation(3)), "{spoil:?}");
            let claimed =
                scene.journal.claim(other, from, worker, lasthit::internals::clock::unix_ms(), &Homing::default()).await;
            assert!(matches!(claimed, Ok(Leased::Done(_))), "{spoil:?}: {claimed:?}");
        }
    }
}

//! Rules H1 to H7: a shard has one home, whose gateways and workers alone write to it.

use lasthit::internals::clock::{epoch_us, unix_ms};
use lasthit::journal::memory::MemoryJournal;
use lasthit::journal::redis::{RedisJournal, RedisOptions, catalog_key};
use lasthit::journal::{
    Appended, CommonJournal, Flush, GatewayJournal, Homed, Homing, Journal, JournalError, Lease, Leased, Part, ProcessRecord,
    Seen, ShardHome, ShardOwner, Successor, WorkerJournal, enter,
};
use lasthit::types::{Home, HostId, Incarnation, Moment, ShardId};

use crate::fixture::{SHARD, SHARDS, entry, key, redis, room, tell};

fn host(name: &str) -> HostId {
    HostId::new(name).expect("a name")
}

/// One journal, as processes of two hosts use it.
fn memory() -> [MemoryJournal; 2] {
    let journal = MemoryJournal::new(SHARDS);
    ["here", "there"].map(|name| journal.on_host(host(name)))
}

async fn claim(journal: &impl Journal, from: Option<Lease>) -> Lease {
    let seen = journal.owners().await.expect("owners")[usize::from(SHARD.0)].home.clone();
    let claimed = journal.claim(SHARD, from, Incarnation::random(), unix_ms(), &Homing::moves_from(seen)).await;
    let Ok(Leased::Done(lease)) = claimed else { panic!("{claimed:?}") };
    lease
}

async fn register(journal: &impl Journal, gateway: Incarnation, home: u32) -> Homed<lasthit::journal::Registered> {
    journal.register(SHARD, gateway, Seen { home, ..Seen::default() }, &[]).await.expect("an answer")
}

fn at(timeline: u32, ns: u64) -> Moment {
    Moment { timeline, ns }
}

/// A gateway's first flush under a home, with an event at `ns`.
async fn flush(journal: &impl Journal, gateway: Incarnation, home: u32, ns: u64) -> Flush {
    let server = journal.survey(SHARD, false).await.expect("survey").server;
    let (previous, watermark) = (Moment::default(), at(home, ns));
    let entries = vec![entry(room(0), watermark, "a")];
    Flush { shard: SHARD, server, incarnation: gateway, number: 1, previous, watermark, entries }
}

fn home(number: u32, name: &str) -> Home {
    Home { number, host: host(name), address: String::new() }
}

async fn a_shard_has_one_home(here: &impl Journal, there: &impl Journal) {
    let [a, b, c] = [(); 3].map(|()| Incarnation::random());
    assert_eq!(register(here, a, 0).await, Homed::Elsewhere(None), "only a claim makes a home");
    let first = claim(here, None).await;
    assert_eq!(first.home, 1, "the number of the host's timeline");
    assert_eq!(register(here, a, 0).await.here().expect("at home").home, 1);
    let late = flush(here, a, 1, 1_000).await;
    assert!(matches!(here.append(&late).await, Ok(Appended::Stored(_))));
    let of_here = Some(home(1, "here"));
    assert_eq!(register(there, b, 0).await, Homed::Elsewhere(of_here.clone()));
    assert_eq!(there.append(&flush(there, a, 1, 2_000).await).await.expect("append"), Appended::Elsewhere(of_here));

    // A takeover by the same host changes no home and fences nobody.
    let second = claim(here, Some(first)).await;
    assert_eq!((second.epoch, second.home), (2, 1));
    assert!(!here.survey(SHARD, false).await.expect("survey").gateways[0].fenced);
    assert_eq!(register(here, c, 1).await.here().expect("at home").home, 1);

    // Another host's does both, in one step. Its clock shows less.
    let third = claim(there, Some(second)).await;
    assert_eq!((third.epoch, third.home), (3, 2));
    assert_eq!(there.owners().await.expect("owners")[usize::from(SHARD.0)].lease, Some(third));
    assert!(there.survey(SHARD, false).await.expect("survey").gateways.iter().all(|record| record.fenced));
    let of_there = Some(home(2, "there"));
    for number in [0, 1, 2] {
        assert_eq!(register(here, a, number).await, Homed::Elsewhere(of_there.clone()), "as of home {number}");
    }
    assert_eq!(here.append(&late).await.expect("append"), Appended::Elsewhere(of_there.clone()), "not even what is stored");
    assert_eq!(register(there, b, 0).await.here().expect("at home").home, 2);
    assert_eq!(there.append(&flush(there, b, 1, 3_000).await).await.expect("append"), Appended::Elsewhere(of_there));
    let Appended::Stored(heads) = there.append(&flush(there, b, 2, 7).await).await.expect("append") else { panic!("stored") };
    assert_eq!(heads[0].top, at(2, 7), "above all of the home before");

    // And back: what was fenced stays so, whatever number it names.
    let fourth = claim(here, Some(third)).await;
    assert_eq!(fourth.home, 3);
    assert_eq!(register(here, a, 1).await, Homed::Elsewhere(Some(home(3, "here"))));
    assert!(register(here, a, 0).await.here().expect("at home").record.fenced);
    assert_eq!(here.append(&flush(here, a, 3, 4_000).await).await.expect("append"), Appended::Fenced);
    let died = entry(room(0), at(1, 1_001), "a died");
    assert_eq!(here.death(SHARD, fourth, a, &died).await.expect("death"), Leased::Done(()));
    assert_eq!(here.heads(SHARD, &[room(0)]).await.expect("heads").1[0].top, at(2, 7), "a death of another home lifts nothing");
}

#[tokio::test]
async fn a_shard_has_one_home_on_memory() {
    let [here, there] = memory();
    a_shard_has_one_home(&here, &there).await;
}

#[tokio::test]
async fn a_shard_has_one_home_on_redis() {
    let server = servers::RedisServer::start().expect("redis-server");
    let journal = crate::fixture::connect(&server).await;
    let [here, there] = ["here", "there"].map(|name| journal.on_host(host(name)));
    a_shard_has_one_home(&here, &there).await;
}

/// Of two hosts that see the same owner one wins, and the shard has one home more.
async fn of_racing_hosts_one_wins(here: &impl Journal, there: &impl Journal) {
    let mut lease = claim(here, None).await;
    for _ in 0..20 {
        let seen = Homing::moves_from(here.owners().await.expect("owners")[usize::from(SHARD.0)].home.clone());
        let claims = (0..8).map(async |n| {
            let me = Incarnation::random();
            match n % 2 {
                0 => here.claim(SHARD, Some(lease), me, unix_ms(), &seen).await,
                _ => there.claim(SHARD, Some(lease), me, unix_ms(), &seen).await,
            }
        });
        let answers = futures_util::future::join_all(claims).await;
        let won: Vec<Lease> = answers
            .into_iter()
            .filter_map(|answer| match answer {
                Ok(Leased::Done(lease)) => Some(lease),
                _ => None,
            })
            .collect();
        let [next] = won[..] else { panic!("{won:?}") };
        assert!(next.epoch == lease.epoch + 1 && (lease.home..=lease.home + 1).contains(&next.home), "{next:?} after {lease:?}");
        lease = next;
    }
}

#[tokio::test]
async fn of_racing_hosts_one_wins_on_memory() {
    let [here, there] = memory();
    of_racing_hosts_one_wins(&here, &there).await;
}

#[tokio::test]
async fn of_racing_hosts_one_wins_on_redis() {
    let server = servers::RedisServer::start().expect("redis-server");
    let journal = crate::fixture::connect(&server).await;
    let [here, there] = ["here", "there"].map(|name| journal.on_host(host(name)));
    of_racing_hosts_one_wins(&here, &there).await;
}

/// A restored Redis gave the number to another host: it is compared, too.
#[tokio::test]
async fn a_number_that_two_hosts_had_admits_one() {
    let (server, journal) = redis().await;
    let [here, there] = ["here", "there"].map(|name| journal.on_host(host(name)));
    let lease = claim(&here, None).await;
    let gateway = Incarnation::random();
    register(&here, gateway, 0).await.here().expect("at home");
    tell(&server, &["HSET", &key("shard"), "home", &format!("{}|there", lease.home)]);
    let there_now = Some(home(lease.home, "there"));
    assert_eq!(
        here.append(&flush(&here, gateway, lease.home, 5).await).await.expect("append"),
        Appended::Elsewhere(there_now.clone())
    );
    assert_eq!(register(&here, gateway, lease.home).await, Homed::Elsewhere(there_now));
    assert_eq!(claim(&there, Some(lease)).await.home, lease.home, "its own home");
}

/// A deployment of the version before has no homes. Its stamps stay below those of the first.
#[tokio::test]
async fn the_first_home_is_above_all_that_was_written_before() {
    let (server, journal) = redis().await;
    let [here, there] = ["here", "there"].map(|name| journal.on_host(host(name)));
    let (of_here, of_there) = (here.timelines("here").await, there.timelines("there").await);
    assert!(of_here < of_there);
    for (appended, name, number) in [("0", "here", of_here), ("7", "here", of_there + 1), ("7", "there", of_there)] {
        tell(&server, &["DEL", &key("shard")]);
        tell(&server, &["HSET", &key("shard"), "append", appended]);
        let journal = if name == "here" { &here } else { &there };
        assert_eq!(claim(journal, None).await.home, number, "{name}, {appended} flushes");
    }
}

trait Timelines {
    async fn timelines(&self, host: &str) -> u32;
}

impl<J: Journal> Timelines for J {
    async fn timelines(&self, host: &str) -> u32 {
        self.timeline(host).await.expect("timeline")
    }
}

#[tokio::test]
async fn a_damaged_home_is_named_and_holds_up_its_shard_alone() {
    let (server, journal) = redis().await;
    let gateway = Incarnation::random();
    for damaged in ["", "x", "1", "1|", "|here", "12345678901|here", "4294967295|here"] {
        tell(&server, &["HSET", &key("shard"), "home", damaged]);
        let answers = [
            journal.claim(SHARD, None, Incarnation::random(), unix_ms(), &Homing::default()).await.map(|_| ()),
            journal.register(SHARD, gateway, Seen::default(), &[]).await.map(|answer| assert!(answer.here().is_none())),
        ];
        assert!(
            matches!(&answers[0], Err(JournalError::Unexpected(_) | JournalError::Damaged(_) | JournalError::Refused(_))),
            "{damaged:?}: {answers:?}"
        );
        assert!(format!("{:?}", answers[0]).contains("home"), "{damaged:?}: {answers:?}");
        assert_eq!(journal.owners().await.expect("owners")[usize::from(SHARD.0)].lease, None, "{damaged:?}");
    }
}

/// What another process wrote is no reason to stop.
#[tokio::test]
async fn a_process_whose_entry_is_damaged_is_left_out_and_named() {
    let (server, journal) = redis().await;
    let me = ProcessRecord::new(Incarnation(1 << 64), host("here"), Part::Worker);
    let other = Incarnation(2 << 64).to_hex();
    let [procs, drained] = ["procs", "drained"].map(catalog_key);
    for damaged in ["9999999999999|", "9999999999999|here|x|1", "9999999999999|here|g|0|00|0||"] {
        tell(&server, &["HSET", &procs, &other, damaged]);
        tell(&server, &["SADD", &drained, "no host", "there"]);
        let beats = journal.beat(&me, 60_000).await.expect("beat");
        assert_eq!(beats.processes, std::slice::from_ref(&me), "{damaged}");
        assert_eq!(beats.drained.iter().map(HostId::as_str).collect::<Vec<_>>(), ["there"]);
        let [process, host] = &beats.damaged[..] else { panic!("{beats:?}") };
        assert!(process.contains(&other) && host.contains("no host"), "{process}; {host}");
    }
    tell(&server, &["HSET", &procs, &other, "9999999999999|"]);
    tell(&server, &["SET", &drained, "no set"]);
    assert_eq!(journal.beat(&me, 60_000).await.expect("beat").damaged.len(), 2);
}

async fn row(journal: &impl Journal) -> ShardOwner {
    journal.owners().await.expect("owners").swap_remove(usize::from(SHARD.0))
}

/// Who claims what it saw long ago has no leave to take the shard from where it is now.
async fn a_home_changes_only_with_leave_and_as_it_was_seen(here: &impl Journal, there: &impl Journal) {
    let claims = async |journal: &dyn Journal, from, homing: &Homing| {
        journal.claim(SHARD, from, Incarnation::random(), unix_ms(), homing).await.expect("an answer")
    };
    assert_eq!(row(here).await, ShardOwner::default());
    assert_eq!(claims(here, None, &Homing::default()).await, Leased::Lost, "the first home needs leave, too");
    let at = |address: &str, seen| Homing { address: address.to_owned(), ..Homing::moves_from(seen) };
    let Leased::Done(first) = claims(here, None, &at("ws://here", None)).await else { panic!("free") };
    let home_here = Home { address: "ws://here".to_owned(), ..home(first.home, "here") };
    assert_eq!(row(there).await, ShardOwner { lease: Some(first), home: Some(home_here.clone()), next: None });

    for refused in [Homing::default(), Homing::moves_from(None), Homing::moves_from(Some(home(first.home + 1, "here")))] {
        assert_eq!(claims(there, Some(first), &refused).await, Leased::Lost, "{refused:?}");
    }
    here.release(SHARD, first).await.expect("released");
    let Leased::Done(second) = claims(there, None, &at("ws://there", Some(home_here.clone()))).await else { panic!("free") };
    there.release(SHARD, second).await.expect("released");
    assert_eq!(claims(here, None, &Homing::moves_from(Some(home_here))).await, Leased::Lost, "it is there by now");
    let home_there = Home { address: "ws://there".to_owned(), ..home(second.home, "there") };
    assert_eq!(row(here).await, ShardOwner { lease: None, home: Some(home_there.clone()), next: None });

    // At home nobody needs leave. Who knows no address leaves the one that is there.
    let Leased::Done(third) = claims(there, None, &Homing::default()).await else { panic!("at home") };
    assert_eq!((third.home, row(here).await.home), (second.home, Some(home_there)));
    let moved = Homing { address: "ws://new".to_owned(), ..Homing::default() };
    assert!(matches!(claims(there, Some(third), &moved).await, Leased::Done(_)));
    assert_eq!(row(here).await.home.expect("a home").address, "ws://new");
}

#[tokio::test]
async fn a_home_changes_only_with_leave_and_as_it_was_seen_on_memory() {
    let [here, there] = memory();
    a_home_changes_only_with_leave_and_as_it_was_seen(&here, &there).await;
}

#[tokio::test]
async fn a_home_changes_only_with_leave_and_as_it_was_seen_on_redis() {
    let server = servers::RedisServer::start().expect("redis-server");
    let journal = crate::fixture::connect(&server).await;
    let [here, there] = ["here", "there"].map(|name| journal.on_host(host(name)));
    a_home_changes_only_with_leave_and_as_it_was_seen(&here, &there).await;
}

/// Rule H7.
async fn a_named_successor_alone_claims(here: &impl Journal, there: &impl Journal, third: &impl Journal) {
    let lease = claim(here, None).await;
    let next = |name: &str| Successor { host: host(name), url: format!("wss://{name}.example") };
    let seen = row(here).await.home;
    let claims = async |journal: &dyn Journal, from| {
        journal.claim(SHARD, from, Incarnation::random(), unix_ms(), &Homing::moves_from(seen.clone())).await.expect("an answer")
    };
    let other = Lease { owner: Incarnation::random(), ..lease };
    assert_eq!(here.name(SHARD, other, Some(&next("there")), 60_000).await.expect("answer"), Leased::Lost);
    assert_eq!(row(here).await.next, None);
    assert_eq!(here.name(SHARD, lease, Some(&next("there")), 60_000).await.expect("answer"), Leased::Done(()));
    assert_eq!(row(third).await.next, Some(next("there")));
    here.release(SHARD, lease).await.expect("released");
    assert_eq!(claims(third, None).await, Leased::Lost);
    assert_eq!(claims(here, None).await, Leased::Lost, "not even where it is at home");
    let Leased::Done(moved) = claims(there, None).await else { panic!("it is the successor") };
    assert_eq!((moved.home, row(here).await.next), (lease.home + 1, None), "the name has done its work");

    // Taken away, or run out, it keeps nobody off.
    for (named_ms, taken_away) in [(60_000, true), (1, false)] {
        let lease = row(there).await.lease.expect("an owner");
        there.name(SHARD, lease, Some(&next("third")), named_ms).await.expect("named");
        if taken_away {
            assert_eq!(there.name(SHARD, lease, None, 0).await.expect("answer"), Leased::Done(()));
        }
        while row(there).await.next.is_some() {
            tokio::task::yield_now().await;
        }
        let again = there.claim(SHARD, Some(lease), Incarnation::random(), unix_ms(), &Homing::default()).await;
        assert!(matches!(again, Ok(Leased::Done(_))), "{again:?}");
    }
}

#[tokio::test]
async fn a_named_successor_alone_claims_on_memory() {
    let journal = MemoryJournal::new(SHARDS);
    let [here, there, third] = ["here", "there", "third"].map(|name| journal.on_host(host(name)));
    a_named_successor_alone_claims(&here, &there, &third).await;
}

#[tokio::test]
async fn a_named_successor_alone_claims_on_redis() {
    let server = servers::RedisServer::start().expect("redis-server");
    let journal = crate::fixture::connect(&server).await;
    let [here, there, third] = ["here", "there", "third"].map(|name| journal.on_host(host(name)));
    a_named_successor_alone_claims(&here, &there, &third).await;
    // A server that has taken over may have an earlier clock: a name does not last longer than it was meant to for that.
    let lease = row(&there).await.lease.expect("an owner");
    tell(&server, &["HSET", &key("shard"), "next", "garbage"]);
    assert_eq!(row(&there).await.next, None);
    assert!(matches!(there.claim(SHARD, Some(lease), Incarnation(5), unix_ms(), &Homing::default()).await, Ok(Leased::Done(_))));
}

/// Machines that were cloned have one name. Containers of one host have one name, too, and one clock.
#[tokio::test]
async fn a_clone_of_a_living_host_does_not_enter() {
    let (server, _) = redis().await;
    let dir = tempfile::tempdir().expect("a directory");
    let options = RedisOptions { runtime_dir: Some(dir.path().to_owned()), ..RedisOptions::default() };
    let journal = RedisJournal::connect(&server.url(), options).await.expect("a journal");
    let first = enter(&journal, Incarnation(1 << 100), Part::Worker, None, epoch_us).await.expect("alone");
    assert!(first.host_id != 0 && first.host_id == journal.host_id(), "it is kept");
    let enters = async || enter(&journal, Incarnation(2 << 100), Part::Worker, None, epoch_us).await;
    for (host_id, later_us, fits) in [(0, 9_000_000, true), (7, 0, true), (first.host_id, 9_000_000, true), (7, 9_000_000, false)]
    {
        let other = ProcessRecord { host_id, offset_us: first.offset_us + later_us, ..first.clone() };
        journal.beat(&other, 60_000).await.expect("beat");
        match enters().await {
            Ok(_) => assert!(fits, "{other:?}"),
            Err(error) => assert!(!fits && error.to_string().contains("clone"), "{error}"),
        }
    }
}

/// Whoever asks learns where a shard is, from any host.
async fn a_home_is_told(here: &impl Journal, there: &impl Journal) {
    for journal in [here as &dyn GatewayJournal, there] {
        let told = journal.home(SHARD).await.expect("an answer");
        assert_eq!((told.home, told.next, told.next_left_ms), (None, None, 0), "before the first claim");
        assert!(journal.home(ShardId(SHARDS)).await.is_err(), "no such shard");
    }
    let first = claim(here, None).await;
    let told = ShardHome { home: Some(home(first.home, "here")), next: None, next_left_ms: 0 };
    assert_eq!(there.home(SHARD).await.expect("an answer"), told);
    let second = claim(there, Some(first)).await;
    let told = ShardHome { home: Some(home(second.home, "there")), next: None, next_left_ms: 0 };
    assert_eq!(here.home(SHARD).await.expect("an answer"), told);
    assert_eq!(here.home(ShardId(SHARD.0 + 1)).await.expect("an answer").home, None, "another shard");
    let to = Successor { host: host("here"), url: "wss://here:1".to_owned() };
    assert_eq!(there.name(SHARD, second, Some(&to), 60_000).await.expect("named"), Leased::Done(()));
    let told = here.home(SHARD).await.expect("an answer");
    assert!((1..=60_000).contains(&told.next_left_ms) && told.next == Some(to), "{told:?}");
}

#[tokio::test]
async fn a_home_is_told_on_memory() {
    let [here, there] = memory();
    a_home_is_told(&here, &there).await;
}

#[tokio::test]
async fn a_home_is_told_on_redis() {
    let server = servers::RedisServer::start().expect("redis-server");
    let journal = crate::fixture::connect(&server).await;
    let [here, there] = ["here", "there"].map(|name| journal.on_host(host(name)));
    a_home_is_told(&here, &there).await;
}

/// A successor's name runs out by the server's clock; what is damaged is named.
#[tokio::test]
async fn a_successor_is_told_until_its_name_runs_out() {
    let (server, journal) = redis().await;
    let shard = &key("shard");
    for (left_ms, expected) in [(60_000_i64, 1..=60_000), (0, 0..=0), (-5_000, 0..=0)] {
        let until = i64::try_from(unix_ms()).expect("a time") + left_ms;
        tell(&server, &["HSET", shard, "next", &format!("{until}|there|wss://there:1"), "address", "wss://here:1"]);
        let told = journal.home(SHARD).await.expect("an answer");
        assert_eq!(told.home.expect("a home").address, "wss://here:1");
        assert_eq!(told.next, Some(Successor { host: host("there"), url: "wss://there:1".to_owned() }));
        assert!(expected.contains(&told.next_left_ms), "{} of {left_ms}", told.next_left_ms);
    }
    for (field, damaged) in [
        ("next", ""),
        ("next", "x"),
        ("next", "1|there"),
        ("next", "-1|there|ws://t"),
        ("next", "1||ws://t"),
        ("next", "1|there|ws://t|x"),
        ("next", "1|th ere|ws://t"),
        ("next", "1234567890123456|there|ws://t"),
        ("home", ""),
        ("home", "x"),
        ("home", "1|"),
        ("home", "4294967295|here"),
        ("home", "1|he re"),
    ] {
        tell(&server, &["HDEL", shard, "next", "home"]);
        tell(&server, &["HSET", shard, field, damaged]);
        let error = journal.home(SHARD).await.expect_err(damaged).to_string();
        assert!(error.contains(field) && error.contains(damaged) && !error.contains('\n'), "{field} {damaged:?}: {error}");
        assert!(journal.home(ShardId(1)).await.is_ok(), "it holds up its shard alone");
    }
    tell(&server, &["DEL", shard]);
    tell(&server, &["SET", shard, "x"]);
    let error = journal.home(SHARD).await.expect_err("no hash").to_string();
    assert!(error.contains(shard), "{error}");
}

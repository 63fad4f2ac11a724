//! What is long or large in Redis: lists, histories, pages.

use ::redis::Commands;
use lasthit::journal::{Committed, GatewayJournal as _, Leased, PageSize, Place, WorkerJournal as _};
use lasthit::types::{Incarnation, ShardId, StreamId};

use crate::fixture::{self, SHARD, SHARDS, TestGateway, at, claim, commit, entry, part, room, tell};
use crate::redis::admin;

/// More than a call inside a script takes at once.
#[tokio::test]
async fn lists_of_any_length_are_taken() {
    const MANY: usize = 9_000;
    let (server, journal) = fixture::redis().await;
    let mut gateway = TestGateway::register(&journal).await;
    let names = (0..).map(|n| format!("room-{n}").parse().expect("name"));
    let rooms = names.filter(|room| ShardId::of(room, SHARDS) == SHARD).take(MANY);
    let heads = gateway.append(&journal, at(1), rooms.map(|room| entry(room, at(1), "a")).collect()).await;
    assert_eq!(heads.len(), MANY);
    let survey = journal.survey(SHARD, true).await.expect("survey");
    assert_eq!(survey.active.len(), MANY);
    let (mut told, mut next) = (survey.rooms, survey.next);
    assert!(next.is_some() && told.len() < 1_000, "a page of {}", told.len());
    while let Some(place) = next {
        let page = journal.rooms(SHARD, &place, 500).await.expect("a page");
        assert!(page.rooms.len() < 1_000, "a page of {}", page.rooms.len());
        told.extend(page.rooms);
        next = page.next;
    }
    told.sort_unstable_by(|a, b| a.room.cmp(&b.room));
    told.dedup();
    assert_eq!(told.len(), MANY);

    let lease = claim(&journal).await;
    let gone: Vec<Incarnation> = (1..=MANY as u128).map(Incarnation).collect();
    let record = format!("1|{}|1|{}", at(1), lease.server.to_hex());
    let mut records = ::redis::cmd("HSET");
    records.arg(fixture::key("gateways"));
    for gateway in &gone {
        records.arg(gateway.to_hex()).arg(&record);
    }
    records.exec(&mut admin(&server)).expect("records");
    assert_eq!(journal.survey(SHARD, false).await.expect("survey").gateways.len(), MANY + 1);
    assert_eq!(journal.forget(SHARD, lease, &gone).await.expect("forget"), Leased::Done(()));
    assert_eq!(journal.survey(SHARD, false).await.expect("survey").gateways.len(), 1);
}

/// Of what lies below one place to trim at, one call of the server's removes so much: the next commits remove the rest.
#[tokio::test]
async fn a_long_history_is_trimmed_within_a_few_commits() {
    const MANY: u64 = 130_000;
    let (server, journal) = fixture::redis().await;
    let mut gateway = TestGateway::register(&journal).await;
    let first = gateway.write(&journal, room(0), "a").await;
    let lease = claim(&journal).await;
    let key = |name: &str| fixture::key(&format!("{name}:{}", room(0)));
    let fill = "for i = 1, tonumber(ARGV[2]) do redis.call('XADD', KEYS[1], ARGV[1] + i .. '-0', ARGV[3], 'x') end";
    for (stream, behind, field) in [(key("room"), first.ms, "e"), (key("out"), 0, "v")] {
        ::redis::cmd("EVAL").arg((fill, 1, stream, behind, MANY, field)).exec(&mut admin(&server)).expect("filled");
    }
    tell(&server, &["HSET", &key("state"), "seq", &MANY.to_string()]);
    let tail = StreamId { ms: first.ms + MANY, seq: 0 };
    for number in 1..=2 {
        let mut trim = part(room(0), 1, MANY, MANY, tail);
        trim.trim = Some((tail, MANY));
        assert_eq!(journal.commit(&commit(lease, number, vec![trim])).await.expect("commit"), Committed::Done);
    }
    let left = |name| admin(&server).xlen::<_, u64>(key(name)).expect("length");
    // Whole nodes of a stream are removed.
    assert!(left("room") <= 200 && left("out") <= 200, "{} entries, {} batches", left("room"), left("out"));
}

/// The server reads no more for a page than the page holds, and a few pieces more: small ones do not vouch for the next.
#[tokio::test]
async fn small_pieces_before_large_ones_make_no_large_read() {
    const MIB: u64 = 1024 * 1024;
    let (server, journal) = fixture::redis().await;
    let mut gateway = TestGateway::register(&journal).await;
    let first = gateway.write(&journal, room(0), "a").await;
    let key = |name: &str| fixture::key(&format!("{name}:{}", room(0)));
    let fill = "for i = 1, 136 do
        redis.call('XADD', KEYS[1], ARGV[1] + i .. '-0', ARGV[2], string.rep('x', i > 8 and 262144 or 8))
    end";
    for (stream, behind, field) in [(key("room"), first.ms, "e"), (key("out"), 0, "v")] {
        ::redis::cmd("EVAL").arg((fill, 1, stream, behind, field)).exec(&mut admin(&server)).expect("filled");
    }
    tell(&server, &["HSET", &key("state"), "seq", "136"]);
    let peak = || {
        let info: ::redis::InfoDict = ::redis::cmd("INFO").arg("memory").query(&mut admin(&server)).expect("info");
        info.get::<u64>("used_memory_peak").expect("bytes")
    };
    let before = peak();
    for place in [Place::Entries(first), Place::Verdicts(0)] {
        let page = journal.load(&room(0), place, PageSize::default()).await.expect("page");
        assert!(page.entries.len() + page.verdicts.len() > 8, "{place:?}");
        assert!(peak() - before < 8 * MIB, "{place:?}: {} bytes", peak() - before);
    }
    assert!(journal.verdicts(&room(0), 0, 512).await.expect("page").batches.len() > 8);
    assert!(peak() - before < 8 * MIB, "verdicts: {} bytes", peak() - before);
}

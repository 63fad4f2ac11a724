//! Failed events, which are kept apart from their rooms.

use lasthit::journal::{Committed, FailedEvents, Homing, Journal, JournalError, Leased, RoomCommit};
use lasthit::types::{Incarnation, ShardId, StreamId};

use crate::fixture::{self, SHARD, TestGateway, bytes, claim, commit, part, room};

fn failing(n: usize, (from, to): (u64, u64), id: StreamId, pattern: &str, keep: u32, texts: &[&str]) -> RoomCommit {
    let failed = FailedEvents { pattern: pattern.to_owned(), keep, records: texts.iter().map(|text| bytes(text)).collect() };
    RoomCommit { failed: Some(failed), ..part(room(n), n as u64 + 1, from, to, id) }
}

/// What a pattern has, newest first, page by page.
async fn kept(journal: &impl Journal, pattern: &str) -> Vec<String> {
    let (mut all, mut before) = (Vec::new(), None);
    loop {
        let page = journal.failed(SHARD, pattern, before).await.expect("read");
        let Some((last, _)) = page.last() else { return all };
        before = Some(*last);
        all.extend(page.iter().map(|(_, record)| String::from_utf8(record.to_vec()).expect("text")));
    }
}

async fn patterns(journal: &impl Journal) -> Vec<(String, u32)> {
    let mut patterns = journal.failed_patterns(SHARD).await.expect("read");
    patterns.sort_unstable();
    patterns
}

/// A shard with two rooms, and the positions of their entries.
async fn scene(journal: &impl Journal) -> (lasthit::journal::Lease, [StreamId; 2]) {
    let mut gateway = TestGateway::register(journal).await;
    let ids = [gateway.write(journal, room(0), "a").await, gateway.write(journal, room(1), "b").await];
    (claim(journal).await, ids)
}

pub(crate) async fn failed_events_are_kept_once_by_the_commit_that_made_them(journal: &impl Journal) {
    let (lease, ids) = scene(journal).await;
    assert_eq!((patterns(journal).await, kept(journal, "*").await), (vec![], vec![]));
    let both = || vec![failing(0, (0, 2), ids[0], "*", 9, &["one", "two"]), failing(1, (0, 1), ids[1], "b-*", 3, &["three"])];
    for _ in 0..3 {
        assert_eq!(journal.commit(&commit(lease, 1, both())).await.expect("commit"), Committed::Done);
    }
    assert_eq!(patterns(journal).await, [("*".to_owned(), 9), ("b-*".to_owned(), 3)]);
    assert_eq!(
        (kept(journal, "*").await, kept(journal, "b-*").await),
        (vec!["two".to_owned(), "one".to_owned()], vec!["three".to_owned()])
    );
    // Neither what is refused nor what is fenced is kept.
    let odd = commit(lease, 2, vec![failing(0, (2, 3), ids[0], "*", 9, &["no"]), failing(1, (7, 8), ids[1], "*", 9, &["no"])]);
    assert_eq!(journal.commit(&odd).await.expect("commit"), Committed::Refused(vec![room(1)]));
    let next = claim(journal).await;
    let late = commit(lease, 2, vec![failing(0, (2, 3), ids[0], "*", 9, &["no"])]);
    assert_eq!(journal.commit(&late).await.expect("commit"), Committed::Fenced);
    let more = commit(next, 2, vec![failing(0, (2, 3), ids[0], "*", 9, &["four"])]);
    assert_eq!(journal.commit(&more).await.expect("commit"), Committed::Done);
    assert_eq!(kept(journal, "*").await, ["four", "two", "one"]);
    let none = ShardId(fixture::SHARDS);
    assert!(matches!(journal.failed_patterns(none).await, Err(JournalError::Refused(_))));
    assert!(matches!(journal.failed(none, "*", None).await, Err(JournalError::Refused(_))));
    assert!(matches!(journal.drop_failed(none, "*", &[]).await, Err(JournalError::Refused(_))));
}

pub(crate) async fn the_newest_failed_events_of_a_pattern_stay(journal: &impl Journal) {
    let (lease, ids) = scene(journal).await;
    let texts: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    journal.commit(&commit(lease, 1, vec![failing(0, (0, 200), ids[0], "*", 150, &texts[..120])])).await.expect("commit");
    // Two rooms share the pattern.
    let parts =
        vec![failing(1, (0, 1), ids[1], "*", 150, &texts[120..160]), failing(0, (200, 201), ids[0], "*", 150, &texts[160..])];
    journal.commit(&commit(lease, 2, parts)).await.expect("commit");
    let newest: Vec<&str> = texts[50..].iter().rev().copied().collect();
    assert_eq!(kept(journal, "*").await, newest);
    // Who is told to keep fewer, does.
    journal.commit(&commit(lease, 3, vec![failing(0, (201, 202), ids[0], "*", 2, &["last"])])).await.expect("commit");
    assert_eq!(
        (kept(journal, "*").await, patterns(journal).await),
        (vec!["last".to_owned(), "199".to_owned()], vec![("*".to_owned(), 2)])
    );
}

pub(crate) async fn failed_events_outlive_their_room(journal: &impl Journal) {
    let (lease, ids) = scene(journal).await;
    let mut all = failing(0, (0, 2), ids[0], "*", 9, &["one"]);
    all.trim = Some((StreamId { ms: u64::MAX, seq: 0 }, 2));
    journal.commit(&commit(lease, 1, vec![all])).await.expect("commit");
    assert_eq!(journal.end_room(SHARD, lease, &room(0), 2).await.expect("end"), Leased::Done(true));
    let from = journal.owners().await.expect("owners")[usize::from(SHARD.0)].lease;
    let wall_ms = lasthit::internals::clock::unix_ms();
    assert!(matches!(journal.claim(SHARD, from, Incarnation(9), wall_ms, &Homing::default()).await, Ok(Leased::Done(_))));
    assert_eq!(kept(journal, "*").await, ["one"]);
}

pub(crate) async fn failed_events_are_dropped_one_by_one_or_together(journal: &impl Journal) {
    let (lease, ids) = scene(journal).await;
    let parts =
        vec![failing(0, (0, 3), ids[0], "*", 9, &["one", "two", "three"]), failing(1, (0, 1), ids[1], "b-*", 9, &["four"])];
    journal.commit(&commit(lease, 1, parts)).await.expect("commit");
    let all = journal.failed(SHARD, "*", None).await.expect("read");
    for dropped in [1, 0] {
        assert_eq!(journal.drop_failed(SHARD, "*", &[all[1].0]).await.expect("drop"), dropped);
        assert_eq!(kept(journal, "*").await, ["three", "one"]);
    }
    assert_eq!(journal.drop_failed(SHARD, "*", &[]).await.expect("drop"), 2);
    assert_eq!((kept(journal, "*").await, patterns(journal).await), (vec![], vec![("b-*".to_owned(), 9)]));
    let last = journal.failed(SHARD, "b-*", None).await.expect("read");
    assert_eq!(journal.drop_failed(SHARD, "b-*", &[last[0].0, last[0].0]).await.expect("drop"), 1);
    assert_eq!(patterns(journal).await, [], "with the last one the pattern goes");
    assert_eq!(journal.drop_failed(SHARD, "none", &[]).await.expect("drop"), 0);
    let again = commit(lease, 2, vec![failing(0, (3, 4), ids[0], "*", 9, &["five"])]);
    assert_eq!(journal.commit(&again).await.expect("commit"), Committed::Done);
    assert_eq!(kept(journal, "*").await, ["five"]);
}

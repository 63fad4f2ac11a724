//! What lanes rely on: commits, loading, reading, trimming, eras.

use lasthit::journal::{
    CommitSnapshot, Committed, Journal, JournalError, Leased, RoomCommit, StoredRoom, StoredSnapshot, VerdictPage,
};
use lasthit::types::{Moment, StreamId};

use crate::fixture::{SHARD, TestGateway, at, bytes, claim, commit, entry, head, load, part, read, room};

pub(crate) async fn a_commit_is_final_once(journal: &impl Journal) {
    let mut gateway = TestGateway::register(journal).await;
    let id = gateway.write(journal, room(0), "a").await;
    let lease = claim(journal).await;
    let first = commit(lease, 1, vec![part(room(0), 1, 0, 2, id)]);
    for _ in 0..2 {
        assert_eq!(journal.commit(&first).await.expect("commit"), Committed::Done);
        let (server, commit) = (gateway.server, 1);
        let page = VerdictPage { server, commit, era: 1, seq: 2, batches: vec![bytes("verdicts to 2")] };
        assert_eq!(journal.verdicts(&room(0), 0, 10).await.expect("verdicts"), page);
    }
    let ahead = commit(lease, 3, vec![part(room(0), 1, 2, 3, id)]);
    assert_eq!(journal.commit(&ahead).await.expect("commit"), Committed::Fenced);
    let next = commit(lease, 2, vec![part(room(0), 1, 2, 3, id)]);
    assert_eq!(journal.commit(&next).await.expect("commit"), Committed::Done);
    assert_eq!(journal.commit(&first).await.expect("commit"), Committed::Fenced, "an older number is nobody's any more");
    assert_eq!(journal.survey(SHARD, false).await.expect("survey").commit, 2);
    assert_eq!(journal.commit(&commit(lease, 3, vec![])).await.expect("commit"), Committed::Done, "an empty one counts");

    let mut odd = vec![commit(lease, 4, vec![part(room(0), 1, 3, 4, id)]); 4];
    odd[0].number = 0;
    odd[1].rooms[0].verdicts = bytes("");
    odd[2].rooms[0].to = 2;
    odd[3].rooms.push(part(room(0), 1, 4, 5, id));
    for commit in odd {
        assert!(matches!(journal.commit(&commit).await, Err(JournalError::Refused(_))), "{commit:?}");
    }
}

pub(crate) async fn a_commit_by_a_successor_continues_the_count(journal: &impl Journal) {
    let mut gateway = TestGateway::register(journal).await;
    let id = gateway.write(journal, room(0), "a").await;
    let old = claim(journal).await;
    journal.commit(&commit(old, 1, vec![part(room(0), 1, 0, 1, id)])).await.expect("commit");
    let new = claim(journal).await;
    // The stored number, but not under this lease: something else than what is stored.
    let taken = commit(new, 1, vec![part(room(0), 1, 0, 1, id)]);
    assert_eq!(journal.commit(&taken).await.expect("commit"), Committed::Fenced);
    let next = commit(new, 2, vec![part(room(0), 1, 1, 2, id)]);
    assert_eq!(journal.commit(&next).await.expect("commit"), Committed::Done);
    assert_eq!(journal.heads(SHARD, &[room(0)]).await.expect("heads").1, [head(room(0), 1, 2, at(1))]);
}

pub(crate) async fn a_commit_that_does_not_fit_is_refused_as_a_whole(journal: &impl Journal) {
    let mut gateway = TestGateway::register(journal).await;
    let mut ids = Vec::new();
    for n in 0..3 {
        ids.push(gateway.write(journal, room(n), "a").await);
    }
    let lease = claim(journal).await;
    let before = journal.survey(SHARD, true).await.expect("survey");
    let parts = vec![
        part(room(0), 1, 0, 1, ids[0]),
        part(room(1), 1, 0, 1, ids[1]),
        part(room(2), 3, 1, 2, ids[2]),
        part(room(3), 1, 0, 1, ids[2]),
    ];
    let refused = journal.commit(&commit(lease, 1, parts)).await.expect("commit");
    assert_eq!(refused, Committed::Refused(vec![room(1), room(2), room(3)]));
    assert_eq!(journal.survey(SHARD, true).await.expect("survey"), before);
    assert_eq!(load(journal, &room(0)).await.expect("load").verdicts.len(), 0);
    // The same number without them goes through.
    let rest = commit(lease, 1, vec![part(room(0), 1, 0, 1, ids[0])]);
    assert_eq!(journal.commit(&rest).await.expect("commit"), Committed::Done);
}

pub(crate) async fn a_room_is_active_until_its_cursor_is_at_the_tail(journal: &impl Journal) {
    let mut gateway = TestGateway::register(journal).await;
    let first = gateway.write(journal, room(0), "a").await;
    let second = gateway.write(journal, room(0), "b").await;
    assert!(first < second);
    let lease = claim(journal).await;
    let active = async || journal.survey(SHARD, false).await.expect("survey").active;
    assert_eq!(active().await, [room(0)]);
    journal.commit(&commit(lease, 1, vec![part(room(0), 1, 0, 1, first)])).await.expect("commit");
    assert_eq!(active().await, [room(0)]);
    journal.commit(&commit(lease, 2, vec![part(room(0), 1, 1, 1, second)])).await.expect("commit");
    assert_eq!(active().await, []);
    let page = journal.verdicts(&room(0), 0, 10).await.expect("verdicts");
    assert_eq!((page.seq, page.batches.len()), (1, 1), "a moved cursor alone makes no verdict");
    gateway.write(journal, room(0), "c").await;
    assert_eq!(active().await, [room(0)]);
}

pub(crate) async fn a_room_is_loaded_from_its_snapshot_on(journal: &impl Journal) {
    assert_eq!(load(journal, &room(0)).await.expect("load"), StoredRoom::default());
    assert_eq!(read(journal, &room(0), StreamId::default()).await.expect("read"), []);
    let mut gateway = TestGateway::register(journal).await;
    let mut ids = Vec::new();
    for text in ["a", "b", "c"] {
        ids.push(gateway.write(journal, room(0), text).await);
    }
    let lease = claim(journal).await;
    journal.commit(&commit(lease, 1, vec![part(room(0), 1, 0, 1, ids[0])])).await.expect("commit");
    let all: Vec<_> = ids.iter().copied().zip(["a", "b", "c"].map(bytes)).collect();
    let mut expected = StoredRoom {
        era: 1,
        seq: 1,
        cursor: ids[0],
        snapshot: None,
        verdicts: vec![bytes("verdicts to 1")],
        entries: all.clone(),
        deaths: 0,
        attempts: 0,
        trims: vec![],
        seed: load(journal, &room(0)).await.expect("load").seed,
        program: None,
    };
    assert!(expected.seed.is_some());
    assert_eq!(load(journal, &room(0)).await.expect("load"), expected);

    let mut with_snapshot = part(room(0), 1, 1, 3, ids[1]);
    with_snapshot.snapshot = Some(CommitSnapshot::Whole(bytes("state at 3")));
    expected.trims = vec![(ids[0], 1), (StreamId { ms: u64::MAX, seq: 7 }, 3)];
    with_snapshot.trims = Some(expected.trims.clone());
    with_snapshot.program = Some(bytes("a program's state"));
    expected.program.clone_from(&with_snapshot.program);
    journal.commit(&commit(lease, 2, vec![with_snapshot])).await.expect("commit");
    journal.commit(&commit(lease, 3, vec![part(room(0), 1, 3, 4, ids[2])])).await.expect("commit");
    expected.seq = 4;
    expected.cursor = ids[2];
    expected.snapshot = Some(StoredSnapshot { seq: 3, cursor: ids[1], bytes: bytes("state at 3") });
    expected.verdicts = vec![bytes("verdicts to 4")];
    expected.entries = all[2..].to_vec();
    assert_eq!(load(journal, &room(0)).await.expect("load"), expected);

    // The next owner finds the same, and may say that no place to trim at is left.
    let lease = claim(journal).await;
    assert_eq!(load(journal, &room(0)).await.expect("load"), expected);
    let mut none_left = part(room(0), 1, 4, 4, ids[2]);
    none_left.trims = Some(vec![]);
    journal.commit(&commit(lease, 4, vec![none_left])).await.expect("commit");
    expected.trims = vec![];
    assert_eq!(load(journal, &room(0)).await.expect("load"), expected);

    assert_eq!(read(journal, &room(0), ids[0]).await.expect("read"), all[1..]);
    assert_eq!(read(journal, &room(0), ids[1].before()).await.expect("read"), all[1..]);
    assert_eq!(read(journal, &room(0), ids[2]).await.expect("read"), []);

    let mut empty = part(room(0), 1, 4, 4, ids[2]);
    empty.snapshot = Some(CommitSnapshot::Whole(bytes("")));
    journal.commit(&commit(lease, 5, vec![empty])).await.expect("commit");
    let stored = load(journal, &room(0)).await.expect("load").snapshot;
    assert_eq!(stored, Some(StoredSnapshot { seq: 4, cursor: ids[2], bytes: bytes("") }), "empty is not none");
}

pub(crate) async fn a_room_keeps_the_seed_that_it_was_created_with(journal: &impl Journal) {
    let seed = async |n| load(journal, &room(n)).await.expect("load").seed;
    let mut gateway = TestGateway::register(journal).await;
    assert_eq!(seed(0).await, None, "no such room");
    let flush = gateway.flush(at(1), vec![entry(room(0), at(1), "a"), entry(room(1), at(1), "b")]);
    gateway.append(journal, at(1), flush.entries.clone()).await;
    let first = seed(0).await;
    assert!(first.is_some());
    assert_eq!(seed(1).await, first, "of one flush");
    let (zero, one) = (room(0), room(1));
    assert_ne!(first.map(|seed| seed.of(&zero)), first.map(|seed| seed.of(&one)), "but of two rooms");
    journal.append(&flush).await.expect("answered as before");
    let id = gateway.write(journal, room(0), "c").await;
    gateway.write(journal, room(2), "d").await;
    assert_ne!(seed(2).await, first, "of another flush");
    let lease = claim(journal).await;
    let snapshot = Some(CommitSnapshot::Whole(bytes("state")));
    journal.commit(&commit(lease, 1, vec![RoomCommit { snapshot, ..part(room(0), 1, 0, 2, id) }])).await.expect("commit");
    assert_eq!(seed(0).await, first);
    assert_eq!(journal.end_room(SHARD, lease, &room(0), 2).await.expect("end"), Leased::Done(true));
    gateway.write(journal, room(0), "e").await;
    assert!(seed(0).await.is_some_and(|again| Some(again) != first), "another room of this name");
}

pub(crate) async fn verdicts_are_paged(journal: &impl Journal) {
    let server = journal.survey(SHARD, false).await.expect("survey").server;
    let nothing = VerdictPage { server, commit: 0, era: 0, seq: 0, batches: vec![] };
    assert_eq!(journal.verdicts(&room(0), 0, 10).await.expect("verdicts"), nothing);
    let mut gateway = TestGateway::register(journal).await;
    let id = gateway.write(journal, room(0), "a").await;
    let lease = claim(journal).await;
    for (number, (from, to)) in (1..).zip([(0, 3), (3, 4), (4, 9)]) {
        journal.commit(&commit(lease, number, vec![part(room(0), 1, from, to, id)])).await.expect("commit");
    }
    let page = async |seq, max| journal.verdicts(&room(0), seq, max).await.expect("verdicts").batches;
    let all = ["verdicts to 3", "verdicts to 4", "verdicts to 9"].map(bytes);
    assert_eq!(page(0, 10).await, all);
    assert_eq!(page(2, 10).await, all, "the batch that holds 3");
    assert_eq!(page(3, 10).await, all[1..]);
    assert_eq!(page(3, 1).await, all[1..2]);
    assert_eq!(page(3, 0).await, all[..0]);
    assert_eq!(page(8, 10).await, all[2..]);
    assert_eq!(page(9, 10).await, all[..0]);
    assert_eq!(page(u64::MAX, 10).await, all[..0]);
}

pub(crate) async fn trimming_keeps_what_was_not_named(journal: &impl Journal) {
    let mut gateway = TestGateway::register(journal).await;
    let lease = claim(journal).await;
    let mut ids = Vec::new();
    for number in 1..=300 {
        let id = gateway.write(journal, room(0), &format!("entry {number}")).await;
        ids.push(id);
        journal.commit(&commit(lease, number, vec![part(room(0), 1, number - 1, number, id)])).await.expect("commit");
    }
    let mut trim = part(room(0), 1, 300, 300, ids[299]);
    trim.snapshot = Some(CommitSnapshot::Whole(bytes("state")));
    trim.trim = Some((ids[249], 260));
    journal.commit(&commit(lease, 301, vec![trim])).await.expect("commit");
    let entries = read(journal, &room(0), StreamId::default()).await.expect("read");
    assert!(entries.len() < 300 && entries.len() >= 51, "{} entries", entries.len());
    assert_eq!(entries[entries.len() - 51].0, ids[249], "the named position stays");
    let batches = journal.verdicts(&room(0), 0, 1000).await.expect("verdicts").batches;
    assert!(batches.len() < 300 && batches.len() >= 40, "{} batches", batches.len());
    assert_eq!(batches[batches.len() - 40], bytes("verdicts to 261"));

    // Also a stream that was trimmed empty knows its tail.
    let mut all = part(room(0), 1, 300, 300, ids[299]);
    all.trim = Some((StreamId { ms: u64::MAX, seq: 0 }, 300));
    journal.commit(&commit(lease, 302, vec![all])).await.expect("commit");
    assert_eq!(journal.end_room(SHARD, lease, &room(0), 300).await.expect("end"), Leased::Done(true));
}

pub(crate) async fn an_ended_room_begins_a_higher_era(journal: &impl Journal) {
    let mut gateway = TestGateway::register(journal).await;
    let id = gateway.write(journal, room(0), "a").await;
    let lease = claim(journal).await;
    let mut last = part(room(0), 1, 0, 2, id);
    last.snapshot = Some(CommitSnapshot::Whole(bytes("state")));
    journal.commit(&commit(lease, 1, vec![last])).await.expect("commit");
    for _ in 0..2 {
        assert_eq!(journal.end_room(SHARD, lease, &room(0), 2).await.expect("end"), Leased::Done(true));
        assert_eq!(load(journal, &room(0)).await.expect("load"), StoredRoom::default());
        assert_eq!(journal.verdicts(&room(0), 0, 9).await.expect("verdicts").era, 0);
        assert_eq!(journal.heads(SHARD, &[room(0)]).await.expect("heads").1, [head(room(0), 0, 0, Moment::default())]);
        let survey = journal.survey(SHARD, true).await.expect("survey");
        assert_eq!((survey.active, survey.rooms, survey.commit), (vec![], vec![], 1));
    }
    // Another room may come between: no era of the shard comes twice.
    let top = gateway.watermark.plus(1);
    let heads = gateway.append(journal, top, vec![entry(room(1), top, "b"), entry(room(0), top, "c")]).await;
    assert_eq!(heads, [head(room(1), 2, 0, top), head(room(0), 3, 0, top)]);
    let stored = load(journal, &room(0)).await.expect("load");
    assert_eq!((stored.era, stored.seq, stored.entries.len(), stored.snapshot), (3, 0, 1, None));
    let late = commit(lease, 2, vec![part(room(0), 1, 2, 3, id)]);
    assert_eq!(journal.commit(&late).await.expect("commit"), Committed::Refused(vec![room(0)]), "of the old era");
    let again = journal.end_room(SHARD, lease, &room(0), 2).await.expect("end");
    assert_eq!(again, Leased::Done(false), "a late repeat does not end the new life");
}

pub(crate) async fn a_room_does_not_end_before_its_tail(journal: &impl Journal) {
    let mut gateway = TestGateway::register(journal).await;
    let first = gateway.write(journal, room(0), "a").await;
    let lease = claim(journal).await;
    let end = async |seq| journal.end_room(SHARD, lease, &room(0), seq).await.expect("end");
    assert_eq!(end(0).await, Leased::Done(false), "nothing is resolved");
    journal.commit(&commit(lease, 1, vec![part(room(0), 1, 0, 1, first)])).await.expect("commit");
    gateway.write(journal, room(0), "b").await;
    assert_eq!(end(1).await, Leased::Done(false), "something came in");
    let second = read(journal, &room(0), first).await.expect("read")[0].0;
    journal.commit(&commit(lease, 2, vec![part(room(0), 1, 1, 2, second)])).await.expect("commit");
    assert_eq!(end(1).await, Leased::Done(false), "another seq");
    assert_eq!(load(journal, &room(0)).await.expect("load").entries.len(), 2);
    assert_eq!(end(2).await, Leased::Done(true));
}

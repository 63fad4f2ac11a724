//! Rooms of any size: read page by page, their snapshots written ahead.

use lasthit::internals::limits::PAGE_BYTES;
use lasthit::journal::{
    AheadName, AheadPart, Commit, CommitSnapshot, Committed, Journal, JournalError, Lease, Leased, PageSize, Place,
    StoredSnapshot,
};
use lasthit::types::{Incarnation, StreamId};

use crate::fixture::{SHARD, TestGateway, bytes, claim, commit, load, part, room};

const NAME: AheadName = AheadName { lane: 7, seq: 2 };

async fn ahead(journal: &impl Journal, lease: Lease, name: AheadName, era: u64, index: u32, text: &str) -> Leased<()> {
    let part = AheadPart { name, era, index, bytes: bytes(text) };
    journal.write_ahead(SHARD, lease, &room(0), &part).await.expect("written ahead")
}

/// Verdicts `from + 1 ..= to`, with what was written ahead.
fn with_parts(lease: Lease, number: u64, (from, to): (u64, u64), cursor: StreamId, name: AheadName, count: u32) -> Commit {
    let snapshot = Some(CommitSnapshot::Parts { name, cursor, count });
    commit(lease, number, vec![lasthit::journal::RoomCommit { snapshot, ..part(room(0), 1, from, to, cursor) }])
}

/// A page is full at its bound in bytes or in entries, and what comes next begins behind its last piece.
pub(crate) async fn no_page_is_larger_than_asked(journal: &impl Journal) {
    let mut gateway = TestGateway::register(journal).await;
    let lease = claim(journal).await;
    let mut ids = Vec::new();
    for number in 1..=30 {
        let id = gateway.write(journal, room(0), &"x".repeat(100)).await;
        ids.push(id);
        let mut next = part(room(0), 1, number - 1, number, id);
        if number == 1 {
            // As a snapshot of an earlier version may be: one value, however large.
            next.snapshot = Some(CommitSnapshot::Whole(bytes(&"0123456789".repeat(100))));
        }
        journal.commit(&commit(lease, number, vec![next])).await.expect("commit");
    }
    let size = PageSize { bytes: 300, entries: 20 };
    let (mut place, mut pages, mut snapshot) = (Some(Place::default()), 0, 0);
    let (mut verdicts, mut entries) = (0, 0);
    while let Some(from) = place {
        let page = journal.load(&room(0), from, size).await.expect("page");
        assert_eq!((page.head.era, page.head.seq, page.head.snapshot), (1, 30, Some((1, ids[0]))));
        let sizes = [&page.snapshot, &page.verdicts].into_iter().flatten().map(bytes::Bytes::len);
        let sizes: Vec<usize> = sizes.chain(page.entries.iter().map(|(_, bytes)| bytes.len())).collect();
        let before_last: usize = sizes.iter().rev().skip(1).sum();
        assert!(before_last < size.bytes && sizes.len() <= size.entries, "{from:?}: {sizes:?}");
        (snapshot, verdicts) =
            (snapshot + page.snapshot.iter().map(bytes::Bytes::len).sum::<usize>(), verdicts + page.verdicts.len());
        entries += page.entries.len();
        (place, pages) = (page.next, pages + 1);
    }
    assert_eq!((snapshot, verdicts, entries), (1_000, 29, 29));
    assert!((14..=20).contains(&pages), "{pages} pages");

    // From anywhere, also before the snapshot; and behind the end.
    let page = journal.load(&room(0), Place::Entries(StreamId::default()), PageSize::default()).await.expect("page");
    assert_eq!((page.entries.len(), page.next), (30, None));
    let page = journal.load(&room(0), Place::Verdicts(28), PageSize::default()).await.expect("page");
    assert_eq!((page.verdicts.len(), page.entries.len(), page.next), (2, 29, None));
    let page = journal.load(&room(0), Place::Entries(ids[29]), PageSize::default()).await.expect("page");
    assert_eq!((page.entries.len(), page.next), (0, None));

    // A page of verdicts as gateways read them has a bound in bytes, too.
    let large = "x".repeat(PAGE_BYTES / 2);
    for number in 31..=35 {
        let mut next = part(room(0), 1, number - 1, number, ids[29]);
        next.verdicts = bytes(&large);
        journal.commit(&commit(lease, number, vec![next])).await.expect("commit");
    }
    assert_eq!(journal.verdicts(&room(0), 30, 100).await.expect("verdicts").batches.len(), 2);
    assert_eq!(journal.verdicts(&room(0), 34, 100).await.expect("verdicts").batches.len(), 1);
}

pub(crate) async fn a_snapshot_is_written_ahead_and_put_to_use_by_a_commit(journal: &impl Journal) {
    let mut gateway = TestGateway::register(journal).await;
    let lease = claim(journal).await;
    let first = gateway.write(journal, room(0), "a").await;
    let mut small = part(room(0), 1, 0, 1, first);
    small.snapshot = Some(CommitSnapshot::Whole(bytes("small")));
    journal.commit(&commit(lease, 1, vec![small])).await.expect("commit");
    let second = gateway.write(journal, room(0), "b").await;
    let snapshot = async || load(journal, &room(0)).await.expect("load").snapshot;
    let taken = |seq, cursor, text: &str| Some(StoredSnapshot { seq, cursor, bytes: bytes(text) });

    // Before its verdicts are final; the one before stays good, and what is missing is noticed.
    for (index, text) in [(0, "large "), (0, "large "), (2, "state")] {
        assert_eq!(ahead(journal, lease, NAME, 1, index, text).await, Leased::Done(()));
    }
    journal.commit(&commit(lease, 2, vec![part(room(0), 1, 1, 2, second)])).await.expect("commit");
    assert_eq!(snapshot().await, taken(1, first, "small"));
    let whole = with_parts(lease, 3, (2, 2), second, NAME, 3);
    assert_eq!(journal.commit(&whole).await.expect("commit"), Committed::Refused(vec![room(0)]), "part 1 is missing");
    assert_eq!(snapshot().await, taken(1, first, "small"));
    assert_eq!(ahead(journal, lease, NAME, 1, 1, "and whole ").await, Leased::Done(()));

    // Verdicts went on meanwhile: they come after it.
    let third = gateway.write(journal, room(0), "c").await;
    let whole = with_parts(lease, 3, (2, 3), third, NAME, 3);
    let mut whole = whole;
    whole.rooms[0].snapshot = Some(CommitSnapshot::Parts { name: NAME, cursor: second, count: 3 });
    for _ in 0..2 {
        assert_eq!(journal.commit(&whole).await.expect("commit"), Committed::Done);
        let stored = load(journal, &room(0)).await.expect("load");
        assert_eq!(stored.snapshot, taken(2, second, "large and whole state"));
        assert_eq!((stored.seq, stored.verdicts.len(), stored.entries.len()), (3, 1, 1));
    }
    // What comes late changes nothing.
    assert_eq!(ahead(journal, lease, NAME, 1, 1, "and late ").await, Leased::Done(()));
    assert_eq!(snapshot().await, taken(2, second, "large and whole state"));
    // The next large one, and a small one again.
    let name = AheadName { lane: 8, seq: 3 };
    ahead(journal, lease, name, 1, 0, "next").await;
    journal.commit(&with_parts(lease, 4, (3, 3), third, name, 1)).await.expect("commit");
    assert_eq!(snapshot().await, taken(3, third, "next"));
    let mut small = part(room(0), 1, 3, 3, third);
    small.snapshot = Some(CommitSnapshot::Whole(bytes("small again")));
    journal.commit(&commit(lease, 5, vec![small])).await.expect("commit");
    assert_eq!(snapshot().await, taken(3, third, "small again"));
}

/// An owner died with its snapshot half or wholly written, or a room was loaded again: what it wrote is nobody's.
pub(crate) async fn what_was_written_ahead_by_others_is_never_put_to_use(journal: &impl Journal) {
    let mut gateway = TestGateway::register(journal).await;
    let old = claim(journal).await;
    let id = gateway.write(journal, room(0), "a").await;
    for index in 0..3 {
        ahead(journal, old, NAME, 1, index, "old owner").await;
    }
    let lease = claim(journal).await;
    assert_eq!(ahead(journal, old, NAME, 1, 3, "late").await, Leased::Lost);
    let refused = with_parts(lease, 1, (0, 2), id, NAME, 3);
    assert_eq!(journal.commit(&refused).await.expect("commit"), Committed::Refused(vec![room(0)]), "of another epoch");
    // The same name of its own, and one that another lane of the room wrote.
    ahead(journal, lease, AheadName { lane: 6, seq: 2 }, 1, 0, "an earlier lane's").await;
    ahead(journal, lease, NAME, 1, 0, "new ").await;
    ahead(journal, lease, NAME, 1, 1, "owner").await;
    ahead(journal, lease, AheadName { lane: 6, seq: 2 }, 1, 1, "late").await;
    assert_eq!(journal.commit(&with_parts(lease, 1, (0, 2), id, NAME, 2)).await.expect("commit"), Committed::Done);
    let stored = load(journal, &room(0)).await.expect("load");
    assert_eq!(stored.snapshot, Some(StoredSnapshot { seq: 2, cursor: id, bytes: bytes("new owner") }));

    let stranger = AheadPart { name: NAME, era: 1, index: 0, bytes: bytes("x") };
    let outside = journal.write_ahead(SHARD, lease, &crate::fixture::room_of(lasthit::types::ShardId(0), 0), &stranger).await;
    assert!(matches!(outside, Err(JournalError::Refused(_))), "{outside:?}");
    let nobody = Lease { owner: Incarnation::random(), ..lease };
    assert_eq!(ahead(journal, nobody, NAME, 1, 0, "x").await, Leased::Lost);
}

pub(crate) async fn an_ended_room_leaves_nothing_of_its_parts(journal: &impl Journal) {
    let mut gateway = TestGateway::register(journal).await;
    let lease = claim(journal).await;
    let id = gateway.write(journal, room(0), "a").await;
    ahead(journal, lease, NAME, 1, 0, "state").await;
    journal.commit(&with_parts(lease, 1, (0, 2), id, NAME, 1)).await.expect("commit");
    let next = AheadName { lane: 7, seq: 9 };
    ahead(journal, lease, next, 1, 0, "next").await;
    assert_eq!(journal.end_room(SHARD, lease, &room(0), 2).await.expect("end"), Leased::Done(true));
    // A part that comes late: the room is not there, or in another life.
    assert_eq!(ahead(journal, lease, next, 1, 1, "late").await, Leased::Done(()));
    let id = gateway.write(journal, room(0), "b").await;
    assert_eq!(ahead(journal, lease, next, 1, 0, "later").await, Leased::Done(()));
    let stored = load(journal, &room(0)).await.expect("load");
    assert_eq!((stored.era, stored.snapshot), (2, None));
    let mut late = with_parts(lease, 2, (0, 9), id, next, 1);
    late.rooms[0].era = 2;
    assert_eq!(journal.commit(&late).await.expect("commit"), Committed::Refused(vec![room(0)]), "nothing was written");
}

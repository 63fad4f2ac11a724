//! The workers' face of the journal: they own shards by lease, read rooms, and commit what was decided.

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    AheadPart, Bell, Commit, Committed, CommonJournal, FlushEntry, GatewayRecord, JournalError, Lease, Leased, PageSize, Place,
    Signals, StoredPage, Survey, Witness, WorkerRecord,
};
use crate::limits::{HOST_TIMEOUT, PATTERNS_BYTES_MAX};
use crate::types::{Incarnation, RoomId, ShardId};

/// What workers may do. Most steps carry a [`Lease`]: whoever no longer holds it is told so, and changes nothing.
#[async_trait]
pub trait WorkerJournal: CommonJournal {
    /// Whether a server that comes back may be without commits that were confirmed before they were seen.
    fn commits_may_be_lost(&self) -> bool {
        true
    }

    /// Says that a worker lives, for `good_for_ms`, and what it owns; `good_for_ms` 0 takes it back. Tells all living workers.
    ///
    /// # Errors
    /// When the journal does not work.
    async fn heartbeat(
        &self,
        worker: Incarnation,
        owned: &[ShardId],
        good_for_ms: u64,
    ) -> Result<Vec<WorkerRecord>, JournalError>;

    /// Says for which rooms a worker has rules, by pattern, for `good_for_ms`; 0 takes back what it said.
    ///
    /// # Errors
    /// When the journal does not work.
    async fn announce_patterns(&self, worker: Incarnation, patterns: &[String], good_for_ms: u64) -> Result<(), JournalError>;

    /// Who owns each shard as stored; None for a shard that nobody ever owned, whose owner let go, or whose record is damaged:
    /// that one's claim fails.
    ///
    /// # Errors
    /// When the journal does not work.
    async fn owners(&self) -> Result<Vec<Option<Lease>>, JournalError>;

    /// Takes a shard over from `from` (as [`WorkerJournal::owners`] told). The epoch rises. Lost when somebody else was faster.
    /// An owner that had not let go is counted as a death in every active room
    /// ([`StoredRoom::deaths`](super::StoredRoom::deaths)).
    ///
    /// # Errors
    /// When the outcome is unknown: ask [`WorkerJournal::owners`] again.
    async fn claim(&self, shard: ShardId, from: Option<Lease>, worker: Incarnation) -> Result<Leased<Lease>, JournalError>;

    /// Lets a shard go, so that another worker takes it at once. The epoch is kept.
    ///
    /// # Errors
    /// When the outcome is unknown; the lease runs out by itself.
    async fn release(&self, shard: ShardId, lease: Lease) -> Result<(), JournalError>;

    /// The bells of some shards. Subscribes before it returns; reconnects by itself. Bells of one shard come in order.
    ///
    /// # Errors
    /// When the journal does not work.
    async fn bells(&self, shards: &[ShardId]) -> Result<Signals<Bell>, JournalError>;

    /// The shard's counters, gateways and active rooms in one step; with `rooms`, also all rooms' heads.
    ///
    /// # Errors
    /// When the journal does not work.
    async fn survey(&self, shard: ShardId, rooms: bool) -> Result<Survey, JournalError>;

    /// A page of what is needed to continue a room: its snapshot, the verdicts behind that, the entries behind its cursor, to
    /// the stream's tail ([`pages::load`](super::pages::load) reads all). A [`Place`] may lie before the snapshot's.
    ///
    /// # Errors
    /// When the journal does not work; [`JournalError::Damaged`] when what it holds of the room is.
    async fn load(&self, room: &RoomId, place: Place, size: PageSize) -> Result<StoredPage, JournalError>;

    /// Writes a part of a snapshot that is too large for one step, for a later [`Commit`] to put to use. Until then the one
    /// before is good. The first part clears away what others wrote ahead. Nothing is written when the room is of another era
    /// or has a snapshot of the same `seq` or a later one. Idempotent.
    ///
    /// # Errors
    /// When the outcome is unknown: send it again.
    async fn write_ahead(
        &self,
        shard: ShardId,
        lease: Lease,
        room: &RoomId,
        part: &AheadPart,
    ) -> Result<Leased<()>, JournalError>;

    /// Makes verdicts final, then publishes the pushes. A repeat publishes nothing, or the same once more.
    ///
    /// # Errors
    /// When the outcome is unknown: send the same commit again.
    async fn commit(&self, commit: &Commit) -> Result<Committed, JournalError>;

    /// Counts an attempt at a room's next event, before it is made, and tells how many there were with this one; the count
    /// begins anew when the room's `seq` rises. An attempt of the same `name` under the same lease is counted once.
    ///
    /// # Errors
    /// When the outcome is unknown: send it again.
    async fn attempt(&self, shard: ShardId, lease: Lease, room: &RoomId, name: u64) -> Result<Leased<u32>, JournalError>;

    /// Holds what a worker knows under another server against what this one found when somebody owned, or testified of, the
    /// shard first (rule G3). When a commit that was final is missing, every room of the shard begins a new era, its state as
    /// it is: once for each server; it counts as a commit, so that who has seen it notices when it is lost in its turn. When
    /// the witness's is the last ownership that was found, and nothing that it sent is missing, the doubt
    /// ([`Survey::doubt`]) is over. Tells how many rooms with verdicts began a new era.
    ///
    /// # Errors
    /// When the outcome is unknown: send it again.
    async fn testify(&self, shard: ShardId, witness: Witness) -> Result<u64, JournalError>;

    /// Fences a gateway in a shard, for ever. Idempotent.
    ///
    /// # Errors
    /// When the outcome is unknown: send it again.
    async fn fence(&self, shard: ShardId, lease: Lease, gateway: Incarnation) -> Result<Leased<GatewayRecord>, JournalError>;

    /// Removes what is known of fenced gateways, so that the shard does not remember every gateway that ever was. They may
    /// append no more than before. Those that are not fenced stay. Idempotent.
    ///
    /// # Errors
    /// When the outcome is unknown: send it again.
    async fn forget(&self, shard: ShardId, lease: Lease, gateways: &[Incarnation]) -> Result<Leased<()>, JournalError>;

    /// Appends a dead gateway's last entry to a room and rings the bell with number 0. The gateway must be fenced. A room
    /// that is not there has ended: then nothing is written, and that is that. Sent twice it may be there twice: whoever
    /// resolves the room drops the second one as stale.
    ///
    /// # Errors
    /// When the outcome is unknown: send it again.
    async fn death(
        &self,
        shard: ShardId,
        lease: Lease,
        gateway: Incarnation,
        entry: &FlushEntry,
    ) -> Result<Leased<()>, JournalError>;

    /// Ends a room: its keys go, and the next append begins a new era. Done(false) when its cursor is not at its
    /// stream's tail or its `seq` is another: then nothing was written.
    ///
    /// # Errors
    /// When the outcome is unknown: send it again.
    async fn end_room(&self, shard: ShardId, lease: Lease, room: &RoomId, seq: u64) -> Result<Leased<bool>, JournalError>;

    /// Publishes to a gateway without a commit (probes, heads). Tells how many subscribers there were: 0 is a hint
    /// that the gateway is gone, not a proof.
    ///
    /// # Errors
    /// When the journal does not work.
    async fn publish(&self, gateway: Incarnation, push: Bytes) -> Result<u64, JournalError>;
}

/// Says for which rooms a worker has rules; call every [`crate::limits::HEADS_INTERVAL`].
///
/// # Errors
/// When the journal does not work.
pub async fn keep_known(journal: &dyn WorkerJournal, worker: Incarnation, patterns: &[String]) -> Result<(), JournalError> {
    let bytes: usize = patterns.iter().map(String::len).sum();
    // What is too much to say lets everybody in.
    let everything = ["*".to_owned()];
    let patterns = if bytes <= PATTERNS_BYTES_MAX { patterns } else { &everything };
    let good_for_ms = u64::try_from(HOST_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
    journal.announce_patterns(worker, patterns, good_for_ms).await
}

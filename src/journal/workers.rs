//! The journal's trait for workers: they own shards by lease, read rooms, and commit verdicts.

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    AheadPart, Bell, Commit, Committed, FlushEntry, GatewayRecord, Homing, JournalError, Lease, Leased, PageSize, Place,
    ProgramJournal, RoomsPage, RoomsPlace, ShardOwner, Signals, StoredPage, Successor, Survey, Witness, WorkerRecord,
};
use crate::limits::{HOST_TIMEOUT, PATTERNS_BYTES_MAX};
use crate::types::{Incarnation, RoomId, ShardId};

/// What workers may do. Most steps carry a [`Lease`]. If it is lost, the step says so and changes nothing.
#[async_trait]
pub trait WorkerJournal: ProgramJournal {
    /// Whether a server that comes back may have lost commits that it had confirmed.
    fn commits_may_be_lost(&self) -> bool {
        true
    }

    /// Announces for `good_for_ms` that a worker is alive, and what it owns. With 0 it withdraws. Returns all living workers.
    ///
    /// # Errors
    /// When the journal does not work.
    async fn heartbeat(
        &self,
        worker: Incarnation,
        owned: &[ShardId],
        good_for_ms: u64,
    ) -> Result<Vec<WorkerRecord>, JournalError>;

    /// Announces for `good_for_ms` for which rooms a worker has rules, by pattern. With 0 it withdraws.
    ///
    /// # Errors
    /// When the journal does not work.
    async fn announce_patterns(&self, worker: Incarnation, patterns: &[String], good_for_ms: u64) -> Result<(), JournalError>;

    /// The stored owner of each shard, its home, and the successor that was named.
    ///
    /// # Errors
    /// When the journal does not work.
    async fn owners(&self) -> Result<Vec<ShardOwner>, JournalError>;

    /// Takes a shard over from `from`, its owner according to [`WorkerJournal::owners`]. The epoch rises. Lost if another worker
    /// was faster. If that owner had not released the shard, this counts a death in every active room
    /// ([`StoredRoom::deaths`](super::StoredRoom::deaths)), and in the first `DUE_DEATHS_MAX` rooms with a timer that is due.
    ///
    /// If this journal is of another host than the shard's home, or there is none yet, the home changes: its number rises, and all
    /// gateways of the shard are fenced in the same step (rule H3). This needs leave to move, and the home that was seen (rule H1);
    /// otherwise the claim is lost. It is lost, too, while another host is named as successor (rule H7). A claim takes the name away.
    ///
    /// `wall_ms` is the worker's wall clock, in milliseconds since 1970: rooms tell their time by it (rule T1).
    ///
    /// # Errors
    /// [`JournalError::Refused`] if that clock is off the journal server's by more than
    /// `WALL_CLOCK_OFF_MAX`: claim again once it is set. Otherwise when the outcome is unknown:
    /// ask [`WorkerJournal::owners`] again.
    async fn claim(
        &self,
        shard: ShardId,
        from: Option<Lease>,
        worker: Incarnation,
        wall_ms: u64,
        homing: &Homing,
    ) -> Result<Leased<Lease>, JournalError>;

    /// Names the host that is to be the shard's next home, for `good_for_ms` from now; None takes the name away. Meanwhile no worker of
    /// another host claims the shard (rule H7).
    ///
    /// # Errors
    /// When the outcome is unknown: send it again.
    async fn name(
        &self,
        shard: ShardId,
        lease: Lease,
        to: Option<&Successor>,
        good_for_ms: u64,
    ) -> Result<Leased<()>, JournalError>;

    /// Releases a shard, so that another worker can take it at once. The epoch stays.
    ///
    /// # Errors
    /// When the outcome is unknown; the lease runs out by itself.
    async fn release(&self, shard: ShardId, lease: Lease) -> Result<(), JournalError>;

    /// Subscribes to the bells of some shards. The subscription exists when it returns, and reconnects by itself. Bells of one
    /// shard come in order.
    ///
    /// # Errors
    /// When the journal does not work.
    async fn bells(&self, shards: &[ShardId]) -> Result<Signals<Bell>, JournalError>;

    /// The shard's counters, gateways and active rooms in one step; with `rooms`, then also the first page of its rooms.
    ///
    /// # Errors
    /// When the journal does not work.
    async fn survey(&self, shard: ShardId, rooms: bool) -> Result<Survey, JournalError>;

    /// A page of the shard's rooms: which have timers, then the heads of all; about `count`. Some servers tell small sets at once.
    ///
    /// # Errors
    /// When the journal does not work.
    async fn rooms(&self, shard: ShardId, place: &RoomsPlace, count: usize) -> Result<RoomsPage, JournalError>;

    /// A page of what is needed to continue a room: its snapshot, the verdicts after it, and the entries after its cursor, up to
    /// the stream's tail ([`pages::load`](super::pages::load) reads all pages). A [`Place`] may lie before the snapshot's.
    ///
    /// # Errors
    /// When the journal does not work; [`JournalError::Damaged`] if keys of the room are damaged.
    async fn load(&self, room: &RoomId, place: Place, size: PageSize) -> Result<StoredPage, JournalError>;

    /// Stores a part of a snapshot that is too large for one step. A later [`Commit`] makes the snapshot valid; until then the
    /// previous one is. The first part deletes the parts of other snapshots. Nothing is written if the room has another era, or
    /// a snapshot of this `seq` or a later one. Idempotent.
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

    /// Makes verdicts final, then publishes the pushes. A repeated commit publishes nothing, or the same again.
    ///
    /// # Errors
    /// When the outcome is unknown: send the same commit again.
    async fn commit(&self, commit: &Commit) -> Result<Committed, JournalError>;

    /// Counts an attempt at a room's next event before it is made. Returns the count, this one included. It starts again when
    /// the room's `seq` rises. An attempt of the same `name` under the same lease is counted once.
    ///
    /// # Errors
    /// When the outcome is unknown: send it again.
    async fn attempt(&self, shard: ShardId, lease: Lease, room: &RoomId, name: u64) -> Result<Leased<u32>, JournalError>;

    /// Compares what a worker knows of a shard from another server with what this server found when it first met the shard (rule
    /// G3). If a final commit is missing, all rooms of the shard begin a new era with their present state, once for each server.
    /// This counts as a commit, so that a loss of it is noticed, too. If the witness owned the shard last, and nothing that it
    /// sent is missing, the doubt ([`Survey::doubt`]) is over. Returns the count of rooms that began a new era;
    /// 0 in a shard without a commit, where no room has verdicts.
    ///
    /// # Errors
    /// When the outcome is unknown: send it again.
    async fn testify(&self, shard: ShardId, witness: Witness) -> Result<u64, JournalError>;

    /// Fences a gateway in a shard for good. Idempotent.
    ///
    /// # Errors
    /// When the outcome is unknown: send it again.
    async fn fence(&self, shard: ShardId, lease: Lease, gateway: Incarnation) -> Result<Leased<GatewayRecord>, JournalError>;

    /// Deletes the records of fenced gateways, so that a shard does not keep records of all gateways that ever existed. They
    /// still can append nothing. Other gateways' records stay. Idempotent.
    ///
    /// # Errors
    /// When the outcome is unknown: send it again.
    async fn forget(&self, shard: ShardId, lease: Lease, gateways: &[Incarnation]) -> Result<Leased<()>, JournalError>;

    /// Appends a dead gateway's last entry to a room and rings the bell with number 0. The gateway must be fenced. A room
    /// that does not exist has ended: then nothing is written, and the step succeeds. If the entry is written twice, whoever
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

    /// Ends a room: deletes its keys. The next append begins a new era. Done(false) if the cursor is not at the stream's tail, or
    /// the `seq` is another: then nothing was written.
    ///
    /// # Errors
    /// When the outcome is unknown: send it again.
    async fn end_room(&self, shard: ShardId, lease: Lease, room: &RoomId, seq: u64) -> Result<Leased<bool>, JournalError>;

    /// Publishes without a commit: to a gateway what is of a shard (probes, heads), to a worker what is of none. Returns the count
    /// of subscribers: 0 is a hint that the receiver is gone, not a proof.
    ///
    /// # Errors
    /// When the journal does not work.
    async fn publish(&self, shard: Option<ShardId>, to: Incarnation, push: Bytes) -> Result<u64, JournalError>;

    /// Those of these gateways and workers whose processes are proven to be gone (rule R9). Of the others nothing is known.
    fn gone(&self, _who: &[Incarnation]) -> Vec<Incarnation> {
        Vec::new()
    }
}

/// Announces for which rooms a worker has rules. Call it every [`crate::limits::HEADS_INTERVAL`].
///
/// # Errors
/// When the journal does not work.
pub async fn keep_known(journal: &dyn WorkerJournal, worker: Incarnation, patterns: &[String]) -> Result<(), JournalError> {
    let bytes: usize = patterns.iter().map(String::len).sum();
    // If there are too many patterns, the worker announces that it has rules for all rooms.
    let everything = ["*".to_owned()];
    let patterns = if bytes <= PATTERNS_BYTES_MAX { patterns } else { &everything };
    let good_for_ms = u64::try_from(HOST_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
    journal.announce_patterns(worker, patterns, good_for_ms).await
}

//! The journal's trait for gateways: they register, append events, and read verdicts. None of its steps decides anything.

use async_trait::async_trait;

use super::{
    Appended, CommonJournal, Flush, Homed, JournalError, Registered, RoomHead, Seen, Successor, VerdictPage, WorkerRecord,
};
use crate::types::{Home, Incarnation, RoomId, ShardId};

/// Where a shard is at home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardHome {
    /// None: it never had one.
    pub home: Option<Home>,
    /// The host that it is being handed over to.
    pub next: Option<Successor>,
    /// In how many milliseconds that name runs out, by the clock of the server that keeps it; 0 if it has, or if there is none.
    pub next_left_ms: u64,
}

/// What gateways may do. A gateway has only this trait of the journal, so it cannot claim, commit or fence.
#[async_trait]
pub trait GatewayJournal: CommonJournal {
    /// Registers a gateway's incarnation in a shard, once with each server. Idempotent; a fenced gateway stays fenced. If flushes
    /// of the gateway are missing, they are lost or the gateway was forgotten: it is fenced, and none of their verdicts were
    /// delivered. If a commit is missing that it has heard of, all rooms of the shard begin a new era, once for each server.
    /// Returns the heads of `rooms`. If an earlier server knew the gateway, the bell rings, without a new count, for a worker
    /// that waits for the gateway. Only gateways of the shard's home register: there is one once a worker has claimed the shard.
    ///
    /// # Errors
    /// When the journal does not work: send it again.
    async fn register(
        &self,
        shard: ShardId,
        gateway: Incarnation,
        seen: Seen,
        rooms: &[RoomId],
    ) -> Result<Homed<Registered>, JournalError>;

    /// Withdraws a gateway's registration: it stopped gracefully, and everything of its sessions is stored. It can append no
    /// more, as if it were fenced, and nobody waits for it. Idempotent.
    ///
    /// # Errors
    /// When the outcome is unknown: send it again. A gateway that does not withdraw is fenced later.
    async fn leave(&self, shard: ShardId, gateway: Incarnation) -> Result<(), JournalError>;

    /// Appends a flush, rings the shard's bell, and pushes [`Flush::poke`] to the other gateways in the flush's rooms (those in
    /// [`RoomCommit::gateways`](super::RoomCommit::gateways)) whose watermark is below [`Flush::idle_below`]. All checks
    /// come before the first write; a repeated number is answered as before. A room that does not exist begins a new era,
    /// which is higher than every era its shard had.
    ///
    /// # Errors
    /// When the outcome is unknown: send the same flush again.
    async fn append(&self, flush: &Flush) -> Result<Appended, JournalError>;

    /// The heads of some rooms of a shard, in the given order, and the server that they are from.
    ///
    /// # Errors
    /// When the journal does not work.
    async fn heads(&self, shard: ShardId, rooms: &[RoomId]) -> Result<(Incarnation, Vec<RoomHead>), JournalError>;

    /// Where a shard is at home, and to whom it is being handed over.
    ///
    /// # Errors
    /// When the journal does not work, or the shard's record is damaged.
    async fn home(&self, shard: ShardId) -> Result<ShardHome, JournalError>;

    /// The verdicts of a room after `seq`, at most `entries_max` batches.
    ///
    /// # Errors
    /// When the journal does not work.
    async fn verdicts(&self, room: &RoomId, seq: u64, entries_max: usize) -> Result<VerdictPage, JournalError>;

    /// All living workers.
    ///
    /// # Errors
    /// When the journal does not work.
    async fn living_workers(&self) -> Result<Vec<WorkerRecord>, JournalError>;

    /// The patterns of rooms for which workers have rules ([`announce_patterns`](super::WorkerJournal::announce_patterns)).
    ///
    /// # Errors
    /// When the journal does not work.
    async fn announced_patterns(&self) -> Result<Vec<(Incarnation, Vec<String>)>, JournalError>;
}

/// The patterns of rooms for which the living workers have rules. None if that is unknown: no worker is alive, or one has not
/// announced its patterns.
///
/// # Errors
/// When the journal does not work.
pub async fn known_rooms(journal: &dyn GatewayJournal) -> Result<Option<Vec<String>>, JournalError> {
    let living = journal.living_workers().await?;
    let said = journal.announced_patterns().await?;
    let everybody = living.iter().all(|worker| said.iter().any(|(who, _)| *who == worker.incarnation));
    Ok((everybody && !living.is_empty()).then(|| said.into_iter().flat_map(|(_, patterns)| patterns).collect()))
}

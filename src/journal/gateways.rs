//! The gateways' face of the journal: they register, append what arrived, and read what was decided. Nothing here decides.

use async_trait::async_trait;

use super::{Appended, CommonJournal, Flush, JournalError, Registered, RoomHead, Seen, VerdictPage, WorkerRecord};
use crate::types::{Incarnation, RoomId, ShardId};

/// What gateways may do. A gateway holds nothing else of the journal, so it cannot claim, commit or fence.
#[async_trait]
pub trait GatewayJournal: CommonJournal {
    /// Makes a gateway's incarnation known to a shard, as this server knows it; once for each server. Idempotent; a
    /// fenced one stays fenced. One of which flushes are missing is fenced: they are lost, or it was forgotten, and nothing
    /// was delivered of them. When a commit is missing that it has heard of, every room of the shard begins a new era, once for
    /// each server. Tells the heads of `rooms`. When it was known to an earlier server the bell rings, without a new count: a
    /// worker that waits for it hears it.
    ///
    /// # Errors
    /// When the journal does not work: send it again.
    async fn register(
        &self,
        shard: ShardId,
        gateway: Incarnation,
        seen: Seen,
        rooms: &[RoomId],
    ) -> Result<Registered, JournalError>;

    /// Takes a gateway's registration back: it stopped in an orderly way, and everything of its sessions is stored. It may
    /// append no more, as if it were fenced, and nobody waits for it. Idempotent.
    ///
    /// # Errors
    /// When the outcome is unknown: send it again. A gateway that said nothing is found out later.
    async fn leave(&self, shard: ShardId, gateway: Incarnation) -> Result<(), JournalError>;

    /// Appends a flush, rings the shard's bell, and pushes [`Flush::poke`] to the other gateways in the flush's rooms (as
    /// [`RoomCommit::gateways`](super::RoomCommit::gateways) told) whose watermark is below [`Flush::idle_below`]. All checks
    /// come before the first write; a repeated number is answered as before. A room that does not exist begins a new era,
    /// which is higher than every era its shard had.
    ///
    /// # Errors
    /// When the outcome is unknown: send the same flush again.
    async fn append(&self, flush: &Flush) -> Result<Appended, JournalError>;

    /// The heads of some rooms of a shard, in the asked order, and the server that told them.
    ///
    /// # Errors
    /// When the journal does not work.
    async fn heads(&self, shard: ShardId, rooms: &[RoomId]) -> Result<(Incarnation, Vec<RoomHead>), JournalError>;

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

    /// For which rooms workers have rules, by pattern, as [`announce_patterns`](super::WorkerJournal::announce_patterns) said.
    ///
    /// # Errors
    /// When the journal does not work.
    async fn announced_patterns(&self) -> Result<Vec<(Incarnation, Vec<String>)>, JournalError>;
}

/// For which rooms the living workers have rules, by pattern; None when that is not known: none lives, or one has not said.
///
/// # Errors
/// When the journal does not work.
pub async fn known_rooms(journal: &dyn GatewayJournal) -> Result<Option<Vec<String>>, JournalError> {
    let living = journal.living_workers().await?;
    let said = journal.announced_patterns().await?;
    let everybody = living.iter().all(|worker| said.iter().any(|(who, _)| *who == worker.incarnation));
    Ok((everybody && !living.is_empty()).then(|| said.into_iter().flat_map(|(_, patterns)| patterns).collect()))
}

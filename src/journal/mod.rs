//! The durable record between gateways and workers: one trait, two implementations (memory and Redis) that pass one
//! conformance suite.
//!
//! Every method is one atomic step. Expected refusals (fenced, duplicate, gap) are values; a [`JournalError`] means
//! that the outcome is unknown or that the journal refused to work, and the caller sends the same step again.

mod check;
pub mod memory;
pub mod pages;
pub mod redis;
mod signals;
mod steps;

use async_trait::async_trait;
use bytes::Bytes;

pub use pages::{Gathering, PageSize, Place, StoredHead, StoredPage};
pub use steps::*;

use crate::limits::{HOST_TIMEOUT, PATTERNS_BYTES_MAX};
use crate::types::{Incarnation, RoomId, ShardId};

/// Why a step of the journal failed. Its outcome may be unknown: the same step is sent again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// A connection that broke, or none: try again.
    #[error("journal is not reachable: {0}")]
    Unreachable(String),
    /// No answer in time: try again. Others may not have noticed yet.
    #[error("journal is not reachable: {0}")]
    Silent(String),
    /// It answers, and will not work like this (password, version, eviction policy, read-only, memory limit).
    #[error("journal refuses: {0}")]
    Refused(String),
    /// It answered with something that this version does not understand.
    #[error("journal answered with something unexpected: {0}")]
    Unexpected(String),
    /// What it holds of one room is not what was written there: mend the room's keys, or delete them.
    #[error("damaged in the journal: {0}: restore its keys, or delete them to end it")]
    Damaged(String),
}

impl JournalError {
    /// One word for metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unreachable(_) | Self::Silent(_) => "unreachable",
            Self::Refused(_) => "refused",
            Self::Unexpected(_) => "unexpected",
            Self::Damaged(_) => "damaged",
        }
    }
}

/// Enters a host: its timeline's number, unless processes of another host live on the same journal.
///
/// # Errors
/// [`JournalError::Refused`] beside another host; else when the journal does not work.
pub async fn enter(journal: &dyn Journal, host: &str) -> Result<u32, JournalError> {
    let timeline = journal.timeline(host).await?;
    let live = keep_entered(journal, timeline).await?;
    match live.into_iter().find(|other| *other != timeline) {
        None => Ok(timeline),
        Some(other) => {
            // Not counted as living, so that the other host's next start is not refused for this one's try.
            journal.live_timelines(timeline, 0).await?;
            Err(JournalError::Refused(format!(
                "processes of another host (timeline {other}) use this journal, and stamps of two hosts do not compare: run all \
                 gateways and workers on one host; after a move or a reboot wait {} s",
                HOST_TIMEOUT.as_secs()
            )))
        }
    }
}

/// Says that this host still lives; call every [`crate::limits::HEADS_INTERVAL`]. Tells the timelines of living hosts.
///
/// # Errors
/// When the journal does not work.
pub async fn keep_entered(journal: &dyn Journal, timeline: u32) -> Result<Vec<u32>, JournalError> {
    journal.live_timelines(timeline, u64::try_from(HOST_TIMEOUT.as_millis()).unwrap_or(u64::MAX)).await
}

/// For which rooms the living workers have rules, by pattern; None when that is not known: none lives, or one has not said.
/// `asker` is anybody but a worker.
///
/// # Errors
/// When the journal does not work.
pub async fn known_rooms(journal: &dyn Journal, asker: Incarnation) -> Result<Option<Vec<String>>, JournalError> {
    let living = journal.heartbeat(asker, &[], 0).await?;
    let said = journal.patterns(asker, &[], 0).await?;
    let everybody = living.iter().all(|worker| said.iter().any(|(who, _)| *who == worker.incarnation));
    Ok((everybody && !living.is_empty()).then(|| said.into_iter().flat_map(|(_, patterns)| patterns).collect()))
}

/// Says for which rooms a worker has rules; call every [`crate::limits::HEADS_INTERVAL`].
///
/// # Errors
/// When the journal does not work.
pub async fn keep_known(journal: &dyn Journal, worker: Incarnation, patterns: &[String]) -> Result<(), JournalError> {
    let bytes: usize = patterns.iter().map(String::len).sum();
    // What is too much to say lets everybody in.
    let everything = ["*".to_owned()];
    let patterns = if bytes <= PATTERNS_BYTES_MAX { patterns } else { &everything };
    let good_for_ms = u64::try_from(HOST_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
    journal.patterns(worker, patterns, good_for_ms).await.map(drop)
}

/// By how much a shard's eras jump when its rooms begin new ones because commits were lost: random, as `server`
/// is, so that no era comes twice that was given in what is lost. Small enough for many thousand times below 2^53.
fn era_stride(server: Incarnation) -> u64 {
    u64::try_from(server.0 & ((1 << ERA_STRIDE_BITS) - 1)).unwrap_or_default() + 1
}

/// Bits of [`era_stride`].
const ERA_STRIDE_BITS: u32 = 36;

/// What a subscription yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal<T> {
    /// The subscription is in place (again): everything before may have been missed.
    Subscribed,
    /// A message.
    Message(T),
}

/// Messages of a subscription, in the order in which the journal published them. Bounded by
/// [`SIGNALS_MAX`]; what a slow reader misses is announced by another [`Signal::Subscribed`].
pub type Signals<T> = tokio::sync::mpsc::Receiver<Signal<T>>;

/// Messages that wait in a subscription.
pub const SIGNALS_MAX: usize = 16 * 1024;

/// The durable record. Its methods may be called from any task; each is one atomic step.
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    /// The number of shards of this deployment.
    fn shards(&self) -> u16;

    /// Whether it survives the process, for what is said at start.
    fn durable(&self) -> bool;

    /// Whether a server that comes back may be without commits that were confirmed before they were seen.
    fn commits_may_be_lost(&self) -> bool {
        true
    }

    /// The number of this host's timeline: the same for the same name, higher than all before for a new one.
    ///
    /// # Errors
    /// When the journal does not work.
    async fn timeline(&self, host: &str) -> Result<u32, JournalError>;

    /// Says that processes on this timeline live, for `good_for_ms`. Tells all timelines of which that holds: stamps of
    /// two hosts do not compare, so nobody starts beside another (rule S1).
    ///
    /// # Errors
    /// When the journal does not work.
    async fn live_timelines(&self, timeline: u32, good_for_ms: u64) -> Result<Vec<u32>, JournalError>;

    /// One cheap round trip: whether the journal takes steps (one that is full or read-only does not), for `/readyz`.
    ///
    /// # Errors
    /// When it does not.
    async fn ping(&self) -> Result<(), JournalError>;

    // Gateways.

    /// Makes a gateway's incarnation known to a shard, as this server knows it; once for each server. Idempotent; a
    /// fenced one stays fenced. One of which flushes are missing is fenced: they are lost, or it was forgotten, and nothing
    /// was delivered of them. When a commit is missing that it has heard of, every room of the shard begins a new era, once for each server. Tells the heads of `rooms`.
    /// When it was known to an earlier server the bell rings, without a new count: a worker that waits for it hears it.
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
    /// [`RoomCommit::gateways`] told) whose watermark is below [`Flush::idle_below`]. All checks come before the first write;
    /// a repeated number is answered as before. A room that does not exist begins a new era, which is higher than every
    /// era its shard had.
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

    /// What is pushed to one gateway. Subscribes before it returns; reconnects by itself.
    ///
    /// # Errors
    /// When the journal does not work.
    async fn pushes(&self, gateway: Incarnation) -> Result<Signals<Bytes>, JournalError>;

    // Workers.

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

    /// Says for which rooms a worker has rules, by pattern, for `good_for_ms` (0 says nothing, and takes back what was said).
    /// Tells what all workers said for whom that holds.
    ///
    /// # Errors
    /// When the journal does not work.
    async fn patterns(
        &self,
        worker: Incarnation,
        patterns: &[String],
        good_for_ms: u64,
    ) -> Result<Vec<(Incarnation, Vec<String>)>, JournalError>;

    /// Who owns each shard as stored; None for a shard that nobody ever owned or whose owner let go.
    ///
    /// # Errors
    /// When the journal does not work.
    async fn owners(&self) -> Result<Vec<Option<Lease>>, JournalError>;

    /// Takes a shard over from `from` (as [`Journal::owners`] told). The epoch rises. Lost when somebody else was faster.
    /// An owner that had not let go is counted as a death in every active room ([`StoredRoom::deaths`]).
    ///
    /// # Errors
    /// When the outcome is unknown: ask [`Journal::owners`] again.
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
    /// the stream's tail ([`pages::load`] reads all). A [`Place`] may lie before the snapshot's.
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
    /// that is not there has ended: then nothing is written, and that is that.
    ///
    /// # Errors
    /// When the outcome is unknown: read the room, then send it again if it is not there.
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

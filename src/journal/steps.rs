//! What the journal's steps take, and what they answer.

use bytes::Bytes;

use crate::limits::POKE_IDLE;
use crate::types::{Incarnation, Moment, RoomId, ShardId, StreamId};
use crate::wire::push::{self, Push};

/// One gateway's flush of one shard: exactly its events in (previous watermark, watermark], in stamp order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flush {
    /// Where to.
    pub shard: ShardId,
    /// The journal's server that the gateway registered with.
    pub server: Incarnation,
    /// The gateway.
    pub incarnation: Incarnation,
    /// Exactly the stored number + 1; the first is 1.
    pub number: u64,
    /// The watermark of the flush before.
    pub previous: Moment,
    /// The gateway appends nothing more at or below this. Not below `previous`.
    pub watermark: Moment,
    /// One encoded [`crate::types::Entry`] per room, each room at most once. Empty for a bare watermark.
    pub entries: Vec<FlushEntry>,
}

impl Flush {
    /// What the append asks the other gateways in its rooms, so that their promises are under way before a worker has
    /// found out that it waits for them: an encoded probe up to this flush's watermark.
    #[must_use]
    pub fn poke(&self) -> Bytes {
        push::encode(&Push::Probe { shard: self.shard, until: self.watermark })
    }

    /// A gateway whose watermark is not below this appends so often that it needs no question.
    #[must_use]
    pub fn idle_below(&self) -> Moment {
        let busy_ns = u64::try_from(POKE_IDLE.as_nanos()).unwrap_or(u64::MAX);
        Moment { ns: self.watermark.ns.saturating_sub(busy_ns), ..self.watermark }
    }
}

/// A flush's events in one room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlushEntry {
    /// The room.
    pub room: RoomId,
    /// The highest moment in `bytes`.
    pub top: Moment,
    /// [`crate::wire::entry::encode`]'s output; opaque to the journal.
    pub bytes: Bytes,
}

/// The answer to an append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appended {
    /// Stored, now or when the same flush came before; what the journal knows of each room, in the flush's order.
    Stored(Vec<RoomHead>),
    /// The number is higher than stored + 1, or `previous` is not the stored watermark: go back to `number`.
    Gap {
        /// The last number stored.
        number: u64,
        /// The watermark stored with it.
        watermark: Moment,
    },
    /// This incarnation is not registered, or was fenced: it may never append again.
    Fenced,
    /// Nothing was written: what the journal holds of these rooms is damaged. The others go under the same number.
    Refused(Vec<RoomId>),
    /// The journal is served by another server than the flush was meant for: register again, which tells what is stored.
    Moved,
}

/// What a gateway has of a shard when it registers: nothing yet, or what an earlier server confirmed (rule G2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// The server that it was registered with.
    pub server: Incarnation,
    /// Its last flush that was stored for sure.
    pub flush: u64,
    /// The highest commit of the shard that it has heard of.
    pub commit: u64,
}

/// What a worker knows of a shard's commits under an earlier server (rule G3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Witness {
    /// The server that its lease was good at.
    pub server: Incarnation,
    /// Its lease's epoch; None when it cannot speak for everything before it.
    pub epoch: Option<u64>,
    /// The last commit that was final.
    pub confirmed: u64,
    /// The last commit that was sent: its outcome may be unknown.
    pub sent: u64,
}

impl Witness {
    /// Nobody knows what is missing: as good as something.
    pub const NONE: Self = Self { server: Incarnation::NONE, epoch: None, confirmed: u64::MAX, sent: u64::MAX };
}

/// The answer to a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// The journal's server.
    pub server: Incarnation,
    /// As it is now. Fenced when the journal has lost flushes of this gateway.
    pub record: GatewayRecord,
    /// The rooms that were asked for, in their order.
    pub rooms: Vec<RoomHead>,
    /// How many rooms with verdicts began a new era now, because the shard has lost what this gateway has seen (rule G3).
    pub renewed: u64,
    /// The shard's last commit.
    pub commit: u64,
}

/// What the journal knows of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomHead {
    /// The room.
    pub room: RoomId,
    /// Its life; 0 when the room does not exist.
    pub era: u64,
    /// Its last committed `seq`.
    pub seq: u64,
    /// The highest moment ever appended to it.
    pub top: Moment,
}

/// A gateway as the shard knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayRecord {
    /// The gateway.
    pub incarnation: Incarnation,
    /// Its last flush.
    pub number: u64,
    /// The watermark of that flush.
    pub watermark: Moment,
    /// Whether it was fenced.
    pub fenced: bool,
    /// The journal's server with which it registered last.
    pub server: Incarnation,
}

/// Wakes a shard's worker, and carries the flush so that it need not be read again. Bells of one shard are numbered
/// without gaps in the order in which the journal executed the appends: who has seen 1..=n has seen everything up to n.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bell {
    /// The shard.
    pub shard: ShardId,
    /// Count of the shard's appends.
    pub append: u64,
    /// Whose flush.
    pub incarnation: Incarnation,
    /// The flush's number (0 for entries that a worker wrote for a dead gateway).
    pub number: u64,
    /// The flush's watermark (of a death: the dead gateway's last).
    pub watermark: Moment,
    /// Room, position and entry.
    pub entries: Vec<(RoomId, StreamId, Bytes)>,
    /// Gateways that the append has asked for `watermark` already.
    pub poked: Vec<Incarnation>,
}

/// Temporary ownership of a shard. Compared for equality by every step that needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Fencing token: rises with every change of owner.
    pub epoch: u64,
    /// The worker.
    pub owner: Incarnation,
    /// The journal's server that gave it. No other one takes it: what that one has may be less (rule C1, rule G1).
    pub server: Incarnation,
}

/// A shard as its new owner finds it, read in one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// The journal's server.
    pub server: Incarnation,
    /// Count of the shard's appends.
    pub append: u64,
    /// Number of the last commit.
    pub commit: u64,
    /// The epoch that this server found, 0 for none, while nobody has shown that no later commit is missing here
    /// ([`testify`](super::WorkerJournal::testify)).
    pub doubt: Option<u64>,
    /// All registered gateways but for the damaged ones.
    pub gateways: Vec<GatewayRecord>,
    /// Gateways whose record nobody can read. They can append nothing: fence them, which makes their record a good one.
    pub damaged_gateways: Vec<Incarnation>,
    /// Rooms with entries that are not resolved.
    pub active: Vec<RoomId>,
    /// Every room that exists, with its head, but for the damaged ones. Empty unless asked for.
    pub rooms: Vec<RoomHead>,
    /// Rooms whose state nobody can read; what is wrong with one, its load says. Empty unless rooms are asked for.
    pub damaged_rooms: Vec<RoomId>,
}

/// The answer to a step that needs the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leased<T> {
    /// Done, now or when the same step came before.
    Done(T),
    /// Somebody else owns the shard; nothing was written.
    Lost,
}

/// Everything needed to continue a room: state = snapshot, then the verdicts after it in their recorded order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoredRoom {
    /// Its life; 0 when the room does not exist.
    pub era: u64,
    /// Last committed `seq`.
    pub seq: u64,
    /// Every entry at or before this is resolved.
    pub cursor: StreamId,
    /// The encoded snapshot, and the `seq` and cursor that it was taken at. None: the room starts empty at `seq` 0.
    pub snapshot: Option<StoredSnapshot>,
    /// Encoded verdict batches with `seq` above the snapshot's, in order.
    pub verdicts: Vec<Bytes>,
    /// Encoded entries after the snapshot's cursor (all, without a snapshot), in stream order, to the stream's tail.
    pub entries: Vec<(StreamId, Bytes)>,
    /// How many owners in a row the shard lost without a word while the room had something unresolved and `seq` stood
    /// where it stands: one of the room's events may kill whoever resolves it.
    pub deaths: u32,
    /// How many attempts at the next event were counted.
    pub attempts: u32,
    /// [`RoomCommit::trims`], as the last commit that changed them told.
    pub trims: Vec<(StreamId, u64)>,
}

/// A stored snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSnapshot {
    /// The room's `seq` when it was taken.
    pub seq: u64,
    /// The room's cursor when it was taken.
    pub cursor: StreamId,
    /// What [`crate::engine::Room::snapshot`] wrote; opaque to the journal.
    pub bytes: Bytes,
}

/// One batch of a shard's verdicts: all of it or nothing of it becomes final.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Where to.
    pub shard: ShardId,
    /// By whom.
    pub lease: Lease,
    /// Exactly the stored number + 1.
    pub number: u64,
    /// Each room at most once.
    pub rooms: Vec<RoomCommit>,
    /// What to publish once it is final: gateway, and encoded `crate::wire::push`.
    pub pushes: Vec<(Incarnation, Bytes)>,
}

/// One room's part of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomCommit {
    /// The room.
    pub room: RoomId,
    /// Its era, as stored.
    pub era: u64,
    /// The `seq` before this commit, as stored.
    pub from: u64,
    /// The `seq` after it. Equal to `from` when only the cursor moves.
    pub to: u64,
    /// Encoded batch with the verdicts `from + 1 ..= to`; empty when there are none. Stored under the ID `to-0`.
    pub verdicts: Bytes,
    /// Every entry at or before this is resolved. The room leaves `active` when this is its stream's tail.
    pub cursor: StreamId,
    /// The snapshot that is good from here on, when one is due.
    pub snapshot: Option<CommitSnapshot>,
    /// Entries below this position and verdicts at or below this `seq` may be trimmed (approximately).
    pub trim: Option<(StreamId, u64)>,
    /// Where history may be trimmed once it is old enough, oldest first: so much of it as a snapshot was taken behind. None: as
    /// before. At most `TRIM_POINTS_MAX`. For the room's next owner.
    pub trims: Option<Vec<(StreamId, u64)>>,
    /// The gateways that now have sessions in the room, as far as appends to it shall ask them; None: as before. At most
    /// `ROOM_POKES_MAX`. A hint: a worker asks whomever it waits for.
    pub gateways: Option<Vec<Incarnation>>,
}

/// A snapshot as a commit brings it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitSnapshot {
    /// The encoded state at the commit's `to` and `cursor`.
    Whole(Bytes),
    /// One that was written ahead ([`write_ahead`](super::WorkerJournal::write_ahead)), of a state that is final already or with
    /// this commit.
    Parts {
        /// Under which name.
        name: AheadName,
        /// The cursor that it was taken at.
        cursor: StreamId,
        /// How many parts.
        count: u32,
    },
}

/// Names a snapshot that is written ahead, together with its owner's epoch: no other has the same, so that a part that comes
/// late is never one of another snapshot's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AheadName {
    /// What resolved it: a number that the owner of the lease gave once.
    pub lane: u64,
    /// The `seq` that it was taken at.
    pub seq: u64,
}

/// A part of a snapshot that is too large for one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AheadPart {
    /// Whose part.
    pub name: AheadName,
    /// The room's era, as stored.
    pub era: u64,
    /// Its place, from 0.
    pub index: u32,
    /// Its bytes.
    pub bytes: Bytes,
}

/// The answer to a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Committed {
    /// Final, now or when the same commit came before.
    Done,
    /// The lease is somebody else's, or the number is not stored + 1: nothing was written.
    Fenced,
    /// Nothing was written: these rooms' stored era or `seq` are not what the commit expects, or what is stored of them is
    /// damaged.
    Refused(Vec<RoomId>),
}

/// A page of a room's verdict stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerdictPage {
    /// The journal's server.
    pub server: Incarnation,
    /// The shard's last commit: nothing in the page is of a later one.
    pub commit: u64,
    /// The room's life; 0 when the room does not exist.
    pub era: u64,
    /// The room's last committed `seq`.
    pub seq: u64,
    /// Encoded batches that hold every verdict after the asked one that is still kept, in order. The first may
    /// begin before it. When the first begins later than asked + 1, what lies between was trimmed.
    pub batches: Vec<Bytes>,
}

/// A living worker, as the heartbeats tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerRecord {
    /// The worker.
    pub incarnation: Incarnation,
    /// The shards that it said it owns.
    pub shards: Vec<ShardId>,
}

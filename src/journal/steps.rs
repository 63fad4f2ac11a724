//! The arguments and the answers of the journal's steps.

use bytes::Bytes;

use crate::limits::POKE_IDLE;
use crate::types::{Home, Incarnation, Moment, RoomId, Seed, ShardId, StreamId};
use crate::wire::push::{self, Push};

/// One gateway's flush of one shard: exactly its events in (previous watermark, watermark], in stamp order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flush {
    /// The shard to append to.
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
    /// The question that the append sends to the other gateways in its rooms: an encoded probe up to this flush's watermark.
    /// Their answers are then under way before a worker notices that it waits for them.
    #[must_use]
    pub fn poke(&self) -> Bytes {
        push::encode(&Push::Probe { shard: self.shard, until: self.watermark })
    }

    /// A gateway whose watermark is at or above this appends so often that the append does not ask it.
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
    /// Stored, now or by the same flush before. The head of each room, in the flush's order.
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
    /// Nothing was written, because keys of these rooms are damaged. Send the other rooms under the same number.
    Refused(Vec<RoomId>),
    /// Nothing was written: these rooms are new, and the shard has no place for more than `ROOMS_PER_SHARD_MAX`. Send the other rooms
    /// under the same number.
    Full(Vec<RoomId>),
    /// The journal has another server than the flush names. Register again: the answer tells what is stored.
    Moved,
    /// The shard's home is another, or it has none: nothing was written (rule H2).
    Elsewhere(Option<Home>),
}

/// What a gateway of the shard's home is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Homed<T> {
    /// This is the home.
    Here(T),
    /// The home is another, or there is none yet: nothing was written (rule H2).
    Elsewhere(Option<Home>),
}

impl<T> Homed<T> {
    /// The answer of the home. None if this is not the home.
    pub fn here(self) -> Option<T> {
        match self {
            Self::Here(answer) => Some(answer),
            Self::Elsewhere(_) => None,
        }
    }
}

/// What a gateway knows of a shard when it registers: nothing yet, or what an earlier server confirmed (rule G2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// The server that it was registered with.
    pub server: Incarnation,
    /// Its last confirmed flush.
    pub flush: u64,
    /// The highest commit of the shard that it has heard of.
    pub commit: u64,
    /// The number of the home under which it has registered; 0 if it has not.
    pub home: u32,
}

/// What a worker knows of a shard's commits under an earlier server (rule G3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Witness {
    /// The server that its lease was good at.
    pub server: Incarnation,
    /// Its lease's epoch. None if it does not know everything from before that epoch.
    pub epoch: Option<u64>,
    /// The last commit that was final.
    pub confirmed: u64,
    /// The last commit that was sent: its outcome may be unknown.
    pub sent: u64,
}

impl Witness {
    /// Something is missing, or nobody knows whether something is.
    pub const NONE: Self = Self { server: Incarnation::NONE, epoch: None, confirmed: u64::MAX, sent: u64::MAX };
}

/// The answer to a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// The journal's server.
    pub server: Incarnation,
    /// The gateway's record now. It is fenced if the journal has lost flushes of this gateway.
    pub record: GatewayRecord,
    /// The heads of the requested rooms, in their order.
    pub rooms: Vec<RoomHead>,
    /// The count of rooms that began a new era, because the shard has lost what this gateway has seen (rule G3). 0 in a shard without
    /// a commit: no room has verdicts.
    pub renewed: u64,
    /// The shard's last commit.
    pub commit: u64,
    /// The number of the shard's home: the first part of the gateway's stamps there.
    pub home: u32,
}

/// What the journal knows of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomHead {
    /// The room.
    pub room: RoomId,
    /// Its era; 0 if the room does not exist.
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

/// Wakes a shard's worker, and carries the flush, so that the worker need not read it. The bells of a shard are numbered
/// without gaps, in the order of the appends: a worker that has seen 1..=n has seen everything up to n.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bell {
    /// The shard.
    pub shard: ShardId,
    /// Count of the shard's appends.
    pub append: u64,
    /// The gateway that made the flush.
    pub incarnation: Incarnation,
    /// The flush's number (0 for entries that a worker wrote for a dead gateway).
    pub number: u64,
    /// The flush's watermark (for a death, the dead gateway's last one).
    pub watermark: Moment,
    /// Rooms, each with the position and the bytes of its entry.
    pub entries: Vec<(RoomId, StreamId, Bytes)>,
    /// Gateways that the append has already asked for a watermark.
    pub poked: Vec<Incarnation>,
}

/// Temporary ownership of a shard. Compared for equality by every step that needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Fencing token: rises with every change of owner.
    pub epoch: u64,
    /// The worker.
    pub owner: Incarnation,
    /// The journal's server that gave the lease. No other server accepts it, because that one may have less data (rule C1, rule
    /// G1).
    pub server: Incarnation,
    /// The number of the shard's home, whose worker the owner is; 0 where an earlier version has stored none.
    pub home: u32,
}

/// The state of a shard for its new owner, read in one step but for its rooms.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Survey {
    /// The journal's server.
    pub server: Incarnation,
    /// Count of the shard's appends.
    pub append: u64,
    /// Number of the last commit.
    pub commit: u64,
    /// The epoch that is in doubt: the one that this server found (0 for none), until somebody shows that no later commit is
    /// missing here ([`testify`](super::WorkerJournal::testify)).
    pub doubt: Option<u64>,
    /// All registered gateways with a readable record.
    pub gateways: Vec<GatewayRecord>,
    /// Gateways with a damaged record. They can append nothing. Fencing them repairs their record.
    pub damaged_gateways: Vec<Incarnation>,
    /// Rooms with entries that are not resolved.
    pub active: Vec<RoomId>,
    /// The first page of the shard's rooms, if requested: the heads of those with a readable state.
    pub rooms: Vec<RoomHead>,
    /// Of the same page. See [`RoomsPage::damaged_rooms`].
    pub damaged_rooms: Vec<RoomId>,
    /// Of the same page. See [`RoomsPage::due`].
    pub due: Vec<(RoomId, u64)>,
    /// Where the next page begins, if there is one.
    pub next: Option<RoomsPlace>,
}

impl Survey {
    /// With the first page of the shard's rooms.
    pub(super) fn with(self, page: RoomsPage) -> Self {
        let RoomsPage { server: _, rooms, damaged_rooms, due, next } = page;
        Self { rooms, damaged_rooms, due, next, ..self }
    }

    /// Takes the first page of the shard's rooms out.
    pub(crate) fn take_page(&mut self) -> RoomsPage {
        RoomsPage {
            server: self.server,
            rooms: std::mem::take(&mut self.rooms),
            damaged_rooms: std::mem::take(&mut self.damaged_rooms),
            due: std::mem::take(&mut self.due),
            next: self.next.take(),
        }
    }
}

/// Where a page of a shard's rooms begins. What a cursor says is the journal's; it is empty at first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoomsPlace {
    /// Among the rooms with timers. All rooms follow.
    Due(String),
    /// Among all rooms.
    Heads(String),
}

impl Default for RoomsPlace {
    fn default() -> Self {
        Self::Due(String::new())
    }
}

/// A page of a shard's rooms. It is of a later moment than the pages before it: a room that is stored, or has a timer, all the time is on
/// some page, perhaps on two.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RoomsPage {
    /// The journal's server.
    pub server: Incarnation,
    /// The heads of rooms with a readable state.
    pub rooms: Vec<RoomHead>,
    /// Rooms with a damaged state. Loading such a room tells what is wrong with it.
    pub damaged_rooms: Vec<RoomId>,
    /// Rooms with timers, and when the next one is due ([`RoomCommit::due`]): of one page the first due comes first.
    pub due: Vec<(RoomId, u64)>,
    /// Where the next page begins; None after the last.
    pub next: Option<RoomsPlace>,
}

/// The answer to a step that needs the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leased<T> {
    /// Done, now or by the same step before.
    Done(T),
    /// The lease is lost, and nothing was written.
    Lost,
}

/// Everything that is needed to continue a room. Its state is the snapshot, then the verdicts after it in recorded order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoredRoom {
    /// Its era; 0 if the room does not exist.
    pub era: u64,
    /// Its last committed `seq`.
    pub seq: u64,
    /// Every entry at or before this is resolved.
    pub cursor: StreamId,
    /// The encoded snapshot, and the `seq` and cursor that it was taken at. None: the room starts empty at `seq` 0.
    pub snapshot: Option<StoredSnapshot>,
    /// Encoded verdict batches with `seq` above the snapshot's, in order.
    pub verdicts: Vec<Bytes>,
    /// Encoded entries after the snapshot's cursor (all, without a snapshot), in stream order, to the stream's tail.
    pub entries: Vec<(StreamId, Bytes)>,
    /// How many owners in a row the shard lost, without a release, while the room had something unresolved, or a timer due, and this
    /// `seq`: one of the room's events or timers may kill the worker that resolves it.
    pub deaths: u32,
    /// The count of attempts at the next event.
    pub attempts: u32,
    /// The last [`RoomCommit::trims`] that a commit stored.
    pub trims: Vec<(StreamId, u64)>,
    /// Given with the append that created the room. None for a room of a version that gave none.
    pub seed: Option<Seed>,
    /// The last [`RoomCommit::program`] that a commit stored.
    pub program: Option<Bytes>,
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

/// One batch of a shard's verdicts. It becomes final as a whole, or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The shard of all its rooms.
    pub shard: ShardId,
    /// The committing worker's lease.
    pub lease: Lease,
    /// Exactly the stored number + 1.
    pub number: u64,
    /// Each room at most once.
    pub rooms: Vec<RoomCommit>,
    /// What to publish once it is final: gateways, each with an encoded `crate::wire::push`.
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
    /// The new snapshot, when one is due.
    pub snapshot: Option<CommitSnapshot>,
    /// Entries below this position and verdicts at or below this `seq` may be trimmed (approximately).
    pub trim: Option<(StreamId, u64)>,
    /// Places behind which history may be trimmed once it is old enough, oldest first: where snapshots were taken. For the
    /// room's next owner. At most `TRIM_POINTS_MAX`; None keeps the stored ones.
    pub trims: Option<Vec<(StreamId, u64)>>,
    /// Gateways with sessions in the room that appends to it shall ask. At most `ROOM_POKES_MAX`; None keeps the stored ones.
    /// It is only a hint: a worker asks every gateway that it waits for.
    pub gateways: Option<Vec<Incarnation>>,
    /// The room time, in milliseconds since 1970 and rounded down, at which its next timer is due; Some(None) if it has no timer.
    /// None keeps what is stored. It is only a hint for takeovers (rule T7): the room's state has its timers.
    pub due: Option<Option<u64>>,
    /// The state of the program outside that decides the room, after `to`; None keeps the stored one. Opaque to the journal.
    pub program: Option<Bytes>,
    /// What the rules failed on in these verdicts, if they did.
    pub failed: Option<FailedEvents>,
}

/// Failed events of a room, to be kept apart from it: they stay when the room is trimmed, and when it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedEvents {
    /// The room pattern, by which they are kept.
    pub pattern: String,
    /// How many of this pattern the shard keeps, at least 1: the newest.
    pub keep: u32,
    /// Each opaque to the journal; oldest first, at most `keep`.
    pub records: Vec<Bytes>,
}

/// A snapshot in a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitSnapshot {
    /// The encoded state at the commit's `to` and `cursor`.
    Whole(Bytes),
    /// A snapshot that was written ahead ([`write_ahead`](super::WorkerJournal::write_ahead)). Its state is final, at the latest
    /// with this commit.
    Parts {
        /// Its name.
        name: AheadName,
        /// The room's cursor when it was taken.
        cursor: StreamId,
        /// The count of its parts.
        count: u32,
    },
}

/// Names a snapshot that is written ahead, together with its owner's epoch. The name is unique, so a late part never belongs to
/// another snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AheadName {
    /// The lane that resolved it: a number that the owner of the lease uses once.
    pub lane: u64,
    /// The room's `seq` when it was taken.
    pub seq: u64,
}

/// A part of a snapshot that is too large for one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AheadPart {
    /// The name of the snapshot.
    pub name: AheadName,
    /// The room's era, as stored.
    pub era: u64,
    /// Its index, from 0.
    pub index: u32,
    /// Its bytes.
    pub bytes: Bytes,
}

/// The answer to a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Committed {
    /// Final, now or by the same commit before.
    Done,
    /// The lease is lost, or the number is not stored + 1. Nothing was written.
    Fenced,
    /// Nothing was written. These rooms have another era or `seq` than the commit expects, or damaged keys.
    Refused(Vec<RoomId>),
}

/// A page of a room's verdict stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerdictPage {
    /// The journal's server.
    pub server: Incarnation,
    /// The shard's last commit. Everything in the page is from this commit or an earlier one.
    pub commit: u64,
    /// The room's era; 0 if the room does not exist.
    pub era: u64,
    /// The room's last committed `seq`.
    pub seq: u64,
    /// Encoded batches with all verdicts after the requested `seq` that are still stored, in order. The first may begin before
    /// it. If the first begins later than `seq` + 1, the verdicts between were trimmed.
    pub batches: Vec<Bytes>,
}

/// A living worker, according to its heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerRecord {
    /// The worker.
    pub incarnation: Incarnation,
    /// The shards that it owns, as its heartbeat says.
    pub shards: Vec<ShardId>,
}

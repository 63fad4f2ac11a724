//! What goes into the worker's core and what comes out of it: one [`Input`] at a time in, [`Command`]s out.

use std::sync::Arc;

use bytes::Bytes;

use super::job::{Done, Job, LaneId, Tally};
use crate::journal::{
    AheadPart, Bell, Commit, Committed, FlushEntry, GatewayRecord, JournalError, Lease, Leased, Place, StoredPage, Survey,
    Witness, WorkerRecord,
};
use crate::limits::{Bounds, REDIS_RESPONSE_TIMEOUT, RESUBSCRIBE_DELAY_MAX, RETRY_MAX};
use crate::rules::RulesBook;
use crate::types::{Incarnation, RoomId, ShardId, StreamId};

/// What bounds and drives a worker.
#[derive(Clone)]
pub(crate) struct WorkerLimits {
    /// How much is taken at once.
    pub bounds: Bounds,
    /// Which rules a room plays by.
    pub rules: RulesBook,
    /// This host's clock, for the moments of deaths and questions.
    pub timeline: u32,
    /// Rooms that are resolved at once.
    pub concurrency: usize,
    /// How long a gateway may owe a watermark before it is fenced.
    pub gateway_timeout_ns: u64,
    /// The same for a gateway whose subscription is gone.
    pub deaf_timeout_ns: u64,
    /// How long gateways may take to say whether they have seen a commit whose outcome is unknown, when the journal has
    /// another server.
    pub rejoin_window_ns: u64,
    /// How often a lagging gateway is asked again.
    pub probe_interval_ns: u64,
    /// Whether the journal may come back without commits that it confirmed.
    pub commits_may_be_lost: bool,
    /// How often the worker says that it lives.
    pub heartbeat_interval_ns: u64,
    /// How long that is good for.
    pub lease_ms: u64,
    /// How long a room may be empty before it ends.
    pub room_linger_ns: u64,
    /// How long resolved events and verdicts are kept.
    pub retention_ms: u64,
}

impl std::fmt::Debug for WorkerLimits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerLimits").field("concurrency", &self.concurrency).finish_non_exhaustive()
    }
}

/// What happened. Most inputs answer a [`Command`]. A `token` is that of the lane that asked.
#[derive(Debug)]
pub(crate) enum Input {
    /// Time passes. Comes about every [`crate::limits::PROBE_INTERVAL`].
    Tick,
    /// Hand over every shard as soon as what it resolved is committed.
    Stop,
    /// Another worker let a shard go, or such news may have been missed: a worker that lacks shards looks at once.
    ShardIsFree,
    /// Answers [`Command::Heartbeat`]: which workers live, and why the journal takes no steps, if it takes none.
    Alive { living: Vec<WorkerRecord>, failure: Option<Failure> },
    /// Answers [`Command::ReadOwners`].
    Owners(Vec<Option<Lease>>),
    /// Answers [`Command::Claim`]; None when its outcome is unknown.
    Claimed(ShardId, Option<Leased<Lease>>),
    /// The shard's bells are subscribed (again).
    Subscribed(ShardId),
    /// A bell rang.
    Bell(Bell),
    /// Answers [`Command::Survey`].
    Surveyed(ShardId, Survey),
    /// Answers [`Command::Load`].
    Stored { shard: ShardId, room: RoomId, token: u64, place: Place, page: StoredPage },
    /// Answers [`Command::Read`].
    Read { shard: ShardId, room: RoomId, token: u64, page: StoredPage },
    /// Answers [`Command::WriteAhead`].
    WrittenAhead { shard: ShardId, room: RoomId, part: AheadPart, answer: Leased<()> },
    /// Answers [`Command::Run`].
    Done(Done),
    /// The rules have had an event of this lane's job for too long, and still have it.
    Overrun(LaneId),
    /// Answers [`Command::Commit`].
    Committed { shard: ShardId, lease: Lease, number: u64, answer: Committed },
    /// Answers [`Command::Publish`]: how many listened.
    Published(Incarnation, u64),
    /// Answers [`Command::Testify`]: how many rooms began a new era.
    Testified(ShardId, u64),
    /// Answers [`Command::Fence`].
    Fenced { shard: ShardId, lease: Lease, answer: Leased<GatewayRecord> },
    /// Answers [`Command::Fence`]: it could not be written.
    FenceFailed { shard: ShardId, gateway: Incarnation, failure: Failure },
    /// Answers [`Command::Forget`]. Nothing comes when that failed: it is asked for again.
    Forgotten { shard: ShardId, lease: Lease, gateways: Vec<Incarnation>, answer: Leased<()> },
    /// Answers [`Command::Death`].
    DeathWritten(ShardId, Leased<()>),
    /// Answers [`Command::Attempt`]: how many attempts there were, this one included.
    Attempted { shard: ShardId, room: RoomId, token: u64, answer: Leased<u32> },
    /// Answers [`Command::EndRoom`].
    RoomEnded { shard: ShardId, room: RoomId, token: u64, answer: Leased<bool> },
    /// Answers any step for one room: what the journal holds of that room is damaged.
    Damaged { shard: ShardId, room: RoomId, token: u64, why: String },
    /// A journal step failed. It is tried again.
    Failed(Failure),
}

/// What the driver is to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Say that this worker lives and owns these shards; answer with [`Input::Alive`].
    Heartbeat(Vec<ShardId>),
    /// Answer with [`Input::Owners`].
    ReadOwners,
    /// Answer with [`Input::Claimed`].
    Claim { shard: ShardId, from: Option<Lease> },
    /// Then tell these workers that a shard is free ([`crate::wire::push::Push::Free`]). No answer needed.
    Release { shard: ShardId, lease: Lease, tell: Vec<Incarnation> },
    /// Subscribe to the shard's bells; every (re)subscription comes in as [`Input::Subscribed`], bells as [`Input::Bell`].
    Follow(ShardId),
    /// End that subscription.
    Unfollow(ShardId),
    /// Answer with [`Input::Surveyed`].
    Survey { shard: ShardId, rooms: bool },
    /// Load a page of a stored room, from this place on; answer with [`Input::Stored`].
    Load { shard: ShardId, room: RoomId, token: u64, place: Place },
    /// Read a page of entries; answer with [`Input::Read`].
    Read { shard: ShardId, room: RoomId, token: u64, after: StreamId },
    /// Answer with [`Input::WrittenAhead`].
    WriteAhead { shard: ShardId, lease: Lease, room: RoomId, part: AheadPart },
    /// Run the job; answer with [`Input::Done`].
    Run(Job),
    /// Repeat it until it is answered; answer with [`Input::Committed`].
    Commit(Arc<Commit>),
    /// Answer with [`Input::Published`] when `answer` says so.
    Publish { gateway: Incarnation, push: Bytes, answer: bool },
    /// Answer with [`Input::Testified`].
    Testify { shard: ShardId, witness: Witness },
    /// Answer with [`Input::Fenced`] or [`Input::FenceFailed`].
    Fence { shard: ShardId, lease: Lease, gateway: Incarnation },
    /// Answer with [`Input::Forgotten`].
    Forget { shard: ShardId, lease: Lease, gateways: Vec<Incarnation> },
    /// Answer with [`Input::DeathWritten`].
    Death { shard: ShardId, lease: Lease, token: u64, gateway: Incarnation, entry: FlushEntry },
    /// Answer with [`Input::Attempted`].
    Attempt { shard: ShardId, lease: Lease, room: RoomId, token: u64 },
    /// Answer with [`Input::RoomEnded`].
    EndRoom { shard: ShardId, lease: Lease, room: RoomId, token: u64, seq: u64 },
    /// Verdicts became final.
    CountVerdicts(Tally),
    /// So many rooms began a new era, because verdicts are missing or may be.
    RolledBack(u64),
    /// Something that the operator should know.
    Warn(String),
}

impl Command {
    /// The shard of a step whose answer an ownership waits for. A shard that was lost is not claimed again before it came: an
    /// answer to an earlier ownership would pass for one to the next.
    pub(super) fn answered_to(&self) -> Option<ShardId> {
        match self {
            Self::Survey { shard, .. }
            | Self::Load { shard, .. }
            | Self::Read { shard, .. }
            | Self::WriteAhead { shard, .. }
            | Self::Death { shard, .. }
            | Self::Attempt { shard, .. }
            | Self::Testify { shard, .. }
            | Self::EndRoom { shard, .. } => Some(*shard),
            _ => None,
        }
    }
}

/// What a failed step was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Nothing but whether the journal takes steps.
    Ping,
    /// A shard, a gateway's record, the workers.
    Shared,
    /// One room.
    Room,
}

/// A journal step that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The step, for log lines.
    pub what: &'static str,
    pub scope: Scope,
    pub error: JournalError,
}

impl Failure {
    /// How long the silence of gateways does not count after it (rule R5): until they have had the time to notice that the
    /// journal can be reached again. None when the journal as such was reached and takes steps. What one room or record does to
    /// its own steps excuses nobody: otherwise it would keep every dead gateway of this worker alive for as long as it lasts.
    pub(crate) fn excuse_ns(&self) -> Option<u64> {
        match (self.scope, &self.error) {
            // A room may be too much for one answer, or its step refused; the ping says what the journal as such does.
            (Scope::Room, JournalError::Silent(_) | JournalError::Refused(_)) => None,
            // The worker waited for an answer in vain. A connection that broke is noticed at once by whoever had one.
            (_, JournalError::Silent(_)) => Some(EXCUSE_NS),
            (Scope::Ping, _) | (_, JournalError::Unreachable(_) | JournalError::Refused(_)) => Some(BROKEN_EXCUSE_NS),
            (_, JournalError::Unexpected(_) | JournalError::Damaged(_)) => None,
        }
    }
}

/// How long after this worker a gateway may find its way back to the journal: what it waits for an answer on a connection
/// that has gone silent, and its pause before it tries again. In nanoseconds.
pub(super) const EXCUSE_NS: u64 = (REDIS_RESPONSE_TIMEOUT.as_millis() + RETRY_MAX.as_millis()) as u64 * 1_000_000;
/// The same after a connection that broke: what a gateway's subscription and its next try may wait.
const BROKEN_EXCUSE_NS: u64 = (RESUBSCRIBE_DELAY_MAX.as_millis() + RETRY_MAX.as_millis()) as u64 * 1_000_000;

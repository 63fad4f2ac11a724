//! The values at the edge of the core: one [`Input`] at a time goes in, [`Command`]s come out.

use std::sync::Arc;

use bytes::Bytes;

use super::job::{Done, Job, LaneId, Loading, Tally};
use crate::journal::{
    AheadPart, Beats, Bell, Commit, Committed, FlushEntry, GatewayRecord, Homing, JournalError, Lease, Leased, Place, RoomsPage,
    RoomsPlace, ShardOwner, StoredPage, Successor, Survey, Witness, WorkerRecord,
};
use crate::limits::{Bounds, REDIS_RESPONSE_TIMEOUT, RESUBSCRIBE_DELAY_MAX, RETRY_MAX};
use crate::rules::{Library, RulesBook};
use crate::types::{HostId, Incarnation, ProgramId, RoomId, ShardId, Stamp, StreamId};

/// What bounds and drives a worker.
#[derive(Clone)]
pub(crate) struct WorkerLimits {
    pub bounds: Bounds,
    pub rules: RulesBook,
    /// The programs that rooms were decided by before.
    pub library: Arc<dyn Library>,
    /// This host's wall clock less its monotonic clock, in nanoseconds.
    pub epoch_ns: u64,
    /// How many rooms are resolved at once.
    pub concurrency: usize,
    /// How long a gateway may owe a watermark before it is fenced.
    pub gateway_timeout_ns: u64,
    /// The same for a gateway that has lost its subscription.
    pub deaf_timeout_ns: u64,
    /// After the journal has moved to another server: how long gateways may take to say whether they have seen a commit whose
    /// outcome is unknown.
    pub rejoin_window_ns: u64,
    /// How often the worker asks a lagging gateway again.
    pub probe_interval_ns: u64,
    /// How long a gateway may owe a watermark before its lock is looked at.
    pub look_after_ns: u64,
    /// How often the other workers' locks are looked at.
    pub look_interval_ns: u64,
    /// Whether the journal may come back without commits that it has confirmed.
    pub commits_may_be_lost: bool,
    /// Where this worker runs.
    pub host: HostId,
    /// How long a home may be without a gateway or a worker before another host takes over.
    pub rehome_after_ns: u64,
    pub heartbeat_interval_ns: u64,
    /// How long a heartbeat is valid.
    pub lease_ms: u64,
    /// How long a room may be empty before it ends.
    pub room_linger_ns: u64,
    /// How long the journal keeps resolved events and verdicts.
    pub retention_ms: u64,
}

impl std::fmt::Debug for WorkerLimits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerLimits").field("concurrency", &self.concurrency).finish_non_exhaustive()
    }
}

/// What happened. Most inputs answer a [`Command`]. `token` identifies the lane that the command came from.
#[derive(Debug)]
pub(crate) enum Input {
    /// Time passes: about every [`crate::limits::PROBE_INTERVAL`].
    Tick,
    /// A timer of a room may be due ([`Core::next_due_ns`](super::core::Core::next_due_ns)).
    Due,
    /// The wall clock was stepped: it less the monotonic clock, in nanoseconds.
    Clock(u64),
    /// Programs were pushed: the rules from here on.
    Rules(RulesBook),
    /// The worker is to stop. It hands over each shard as soon as all resolved events are committed.
    Stop,
    /// Another worker released a shard, or such a push may have been missed. A worker that lacks shards looks at once.
    ShardIsFree,
    /// Answers [`Command::Heartbeat`]: which workers live, and the failure if the journal takes no other steps.
    Alive {
        living: Vec<WorkerRecord>,
        /// Where they and the gateways run.
        beats: Beats,
        failure: Option<Failure>,
    },
    /// Answers [`Command::ReadOwners`].
    Owners(Vec<ShardOwner>),
    /// Somebody wants this shard to move to this host.
    Give(ShardId, HostId),
    /// Answers [`Command::Name`]. There is no answer when the step failed; the core names again.
    Named(ShardId, Lease, Leased<()>),
    /// Answers [`Command::Claim`]. None when the outcome is unknown.
    Claimed(ShardId, Option<Leased<Lease>>),
    /// The worker has subscribed to the shard's bells, for the first time or again.
    Subscribed(ShardId),
    Bell(Bell),
    /// Answers [`Command::Survey`].
    Surveyed(ShardId, Survey),
    /// Answers [`Command::Rooms`].
    Rooms(ShardId, RoomsPage),
    /// Answers [`Command::Load`].
    Stored {
        shard: ShardId,
        room: RoomId,
        token: u64,
        place: Place,
        page: StoredPage,
    },
    /// Answers [`Command::Read`].
    Read {
        shard: ShardId,
        room: RoomId,
        token: u64,
        page: StoredPage,
    },
    /// Answers [`Command::WriteAhead`].
    WrittenAhead {
        shard: ShardId,
        room: RoomId,
        part: AheadPart,
        answer: Leased<()>,
    },
    /// Answers [`Command::Fetch`].
    Fetched(ShardId, Box<Loading>),
    /// Answers [`Command::Run`].
    Done(Done),
    /// The job of this lane is overdue: the rules have not returned from an event.
    Overrun {
        of: LaneId,
        /// The event of a program, which would hang again: it is void at once.
        hopeless: Option<Stamp>,
    },
    /// Answers [`Command::Commit`].
    Committed {
        shard: ShardId,
        lease: Lease,
        number: u64,
        answer: Committed,
    },
    /// Answers [`Command::Publish`]: how many subscribers received the push.
    Published(ShardId, Incarnation, u64),
    /// Answers [`Command::Look`]: the processes of these are gone; perhaps none is.
    Gone(Vec<Incarnation>),
    /// Answers [`Command::Testify`]: how many rooms began a new era.
    Testified(ShardId, u64),
    /// Answers [`Command::Fence`].
    Fenced {
        shard: ShardId,
        lease: Lease,
        answer: Leased<GatewayRecord>,
    },
    /// Answers [`Command::Fence`] when the step failed.
    FenceFailed {
        shard: ShardId,
        gateway: Incarnation,
        failure: Failure,
    },
    /// Answers [`Command::Forget`]. There is no answer when the step failed; the core asks again.
    Forgotten {
        shard: ShardId,
        lease: Lease,
        gateways: Vec<Incarnation>,
        answer: Leased<()>,
    },
    /// Answers [`Command::Death`].
    DeathWritten(ShardId, Leased<()>),
    /// Answers [`Command::Attempt`]: the count of attempts, including this one.
    Attempted {
        shard: ShardId,
        room: RoomId,
        token: u64,
        answer: Leased<u32>,
    },
    /// Answers [`Command::EndRoom`].
    RoomEnded {
        shard: ShardId,
        room: RoomId,
        token: u64,
        answer: Leased<bool>,
    },
    /// Answers any step on one room: the stored room is damaged.
    Damaged {
        shard: ShardId,
        room: RoomId,
        token: u64,
        why: String,
    },
    /// A journal step failed. The driver tries it again.
    Failed(Failure),
    /// Which nodes of a cluster do not take steps, by their shards.
    Away(Vec<(Vec<ShardId>, JournalError)>),
}

/// What the core wants its driver to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Announce that this worker lives and owns these shards; answer with [`Input::Alive`].
    Heartbeat(Vec<ShardId>),
    /// Answer with [`Input::Owners`].
    ReadOwners,
    /// Answer with [`Input::Claimed`].
    Claim { shard: ShardId, from: Option<Lease>, homing: Homing },
    /// Name the shard's next home, or take the name away; answer with [`Input::Named`].
    Name { shard: ShardId, lease: Lease, to: Option<Successor> },
    /// Tell this process something that is not of a shard of its own. No answer is needed.
    Tell(Incarnation, Bytes),
    /// Release the shard, then push [`crate::wire::push::Push::Free`] to these workers. No answer is needed.
    Release { shard: ShardId, lease: Lease, tell: Vec<Incarnation> },
    /// Subscribe to the shard's bells. Apply [`Input::Subscribed`] after each subscription and [`Input::Bell`] for each bell.
    Follow(ShardId),
    /// Unsubscribe from the shard's bells.
    Unfollow(ShardId),
    /// Answer with [`Input::Surveyed`].
    Survey { shard: ShardId, rooms: bool },
    /// Read the page of about `count` of the shard's rooms that begins at this place; answer with [`Input::Rooms`].
    Rooms { shard: ShardId, place: RoomsPlace, count: usize },
    /// Load the page of a stored room that begins at this place; answer with [`Input::Stored`].
    Load { shard: ShardId, room: RoomId, token: u64, place: Place },
    /// Read a page of the room's entries after this position; answer with [`Input::Read`].
    Read { shard: ShardId, room: RoomId, token: u64, after: StreamId },
    /// Answer with [`Input::WrittenAhead`].
    WriteAhead { shard: ShardId, lease: Lease, room: RoomId, part: AheadPart },
    /// Run the job; answer with [`Input::Done`].
    Run(Job),
    /// Read a program into the library; answer with [`Input::Fetched`].
    Fetch { shard: ShardId, program: ProgramId, loading: Box<Loading> },
    /// Commit, and repeat that until there is an answer: [`Input::Committed`].
    Commit(Arc<Commit>),
    /// Answer with [`Input::Published`] if `answer` is set.
    Publish { shard: ShardId, gateway: Incarnation, push: Bytes, answer: bool },
    /// Look at the locks of these gateways and workers; answer with [`Input::Gone`].
    Look(Vec<Incarnation>),
    /// Answer with [`Input::Testified`].
    Testify { shard: ShardId, witness: Witness },
    /// Answer with [`Input::Fenced`] or [`Input::FenceFailed`].
    Fence { shard: ShardId, lease: Lease, gateway: Incarnation },
    /// Answer with [`Input::Forgotten`].
    Forget { shard: ShardId, lease: Lease, gateways: Vec<Incarnation> },
    /// Answer with [`Input::DeathWritten`].
    Death { shard: ShardId, lease: Lease, token: u64, gateway: Incarnation, entry: FlushEntry },
    /// Answer with [`Input::Attempted`]. No other attempt has the same `name`: a step that is repeated counts once.
    Attempt { shard: ShardId, lease: Lease, room: RoomId, token: u64, name: u64 },
    /// Answer with [`Input::RoomEnded`].
    EndRoom { shard: ShardId, lease: Lease, room: RoomId, token: u64, seq: u64 },
    /// Count these verdicts in the metrics: they are final.
    CountVerdicts(Tally),
    /// Tell the operator that this many rooms began a new era, because verdicts are or may be missing.
    RolledBack(u64),
    /// Log a warning.
    Warn(String),
}

impl Command {
    /// The shard of a step whose answer does not say which ownership it belongs to. A lost shard is not claimed again before
    /// all such answers are in: the next ownership would take them for its own.
    pub(super) fn answered_to(&self) -> Option<ShardId> {
        match self {
            Self::Survey { shard, .. }
            | Self::Rooms { shard, .. }
            | Self::Load { shard, .. }
            | Self::Fetch { shard, .. }
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

/// What a failed step concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The journal itself: whether it takes steps at all.
    Ping,
    /// A shard, a gateway's record, or the workers.
    Shared,
    /// A shard that this worker does not own yet.
    Claim,
    Room,
}

/// A journal step that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The step's name in log lines.
    pub what: &'static str,
    pub scope: Scope,
    pub error: JournalError,
    /// The shards that are out of reach together with what the step was about. None: all.
    pub shards: Option<Vec<ShardId>>,
}

impl Failure {
    /// A failure that concerns all shards.
    pub(crate) fn new(what: &'static str, scope: Scope, error: JournalError) -> Self {
        Self { what, scope, error, shards: None }
    }

    /// A failure that concerns these shards, unless it concerns all.
    pub(crate) fn at(self, shards: Option<Vec<ShardId>>) -> Self {
        Self { shards, ..self }
    }

    /// Whether one node of a cluster does not work: all together are told of by the pings.
    pub(crate) fn is_of_a_node(&self) -> bool {
        self.shards.is_some()
            && self.excuse_ns().is_some()
            && self.scope != Scope::Ping
            && !matches!(self.what, "heartbeat" | "read owners")
    }

    /// Whether the catalog of a cluster is away, in which the workers say that they live.
    pub(crate) fn is_of_the_catalog(&self) -> bool {
        self.shards.is_some() && self.what == "heartbeat" && self.excuse_ns().is_some()
    }

    /// Whether the journal works and does not let this worker have a shard.
    pub(crate) fn is_refused_claim(&self) -> bool {
        self.scope == Scope::Claim && matches!(self.error, JournalError::Refused(_))
    }

    /// How long the silence of gateways does not count after this failure (rule R5): they need time to notice that the journal
    /// can be reached again. None when the journal itself works. A room or record whose own steps fail excuses no gateway:
    /// otherwise it would keep every dead gateway of this worker alive for as long as it fails.
    pub(crate) fn excuse_ns(&self) -> Option<u64> {
        match (self.scope, &self.error) {
            // The room may be too large for one answer, or the journal refuses its step. The ping tells about the journal itself.
            (Scope::Room, JournalError::Silent(_) | JournalError::Refused(_)) => None,
            // This host's clock is wrong, or it is for the ping to tell.
            (Scope::Claim, JournalError::Refused(_)) => None,
            // The worker waited for an answer in vain, and so may a gateway. A broken connection is noticed at once.
            (_, JournalError::Silent(_)) => Some(EXCUSE_NS),
            (Scope::Ping, _) | (_, JournalError::Unreachable(_) | JournalError::Refused(_) | JournalError::Unfit(_)) => {
                Some(BROKEN_EXCUSE_NS)
            }
            (_, JournalError::Unexpected(_) | JournalError::Damaged(_)) => None,
        }
    }
}

/// How much later than this worker a gateway may reach the journal again, in nanoseconds: it waits for an answer on a silent
/// connection, then pauses before it tries again.
pub(super) const EXCUSE_NS: u64 = (REDIS_RESPONSE_TIMEOUT.as_millis() + RETRY_MAX.as_millis()) as u64 * 1_000_000;
/// The same after a broken connection: the pauses before a gateway subscribes and tries again.
const BROKEN_EXCUSE_NS: u64 = (RESUBSCRIBE_DELAY_MAX.as_millis() + RETRY_MAX.as_millis()) as u64 * 1_000_000;

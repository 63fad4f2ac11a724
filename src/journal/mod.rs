//! The durable record between gateways and workers. It has two traits: [`GatewayJournal`] is what gateways may do, and
//! [`WorkerJournal`] is what workers may do. Two implementations (memory and Redis) pass one conformance suite.
//!
//! A program makes a journal and hands it to gateways and workers:
//!
//! ```
//! use std::sync::Arc;
//! use lasthit::journal::memory::MemoryJournal;
//! use lasthit::journal::{GatewayJournal, WorkerJournal};
//!
//! let journal = Arc::new(MemoryJournal::new(4));
//! let of_gateways: Arc<dyn GatewayJournal> = journal.clone();
//! let of_workers: Arc<dyn WorkerJournal> = journal;
//! ```
//!
//! Programs only pass a journal on. They call no steps, so the arguments and answers of steps are not shown here.
//!
//! Every method is one atomic step. Expected refusals (fenced, duplicate, gap) are values; a [`JournalError`] means
//! that the outcome is unknown or that the journal refused to work, and the caller sends the same step again.

mod catalog;
mod check;
mod enter;
mod failed;
mod gateways;
mod homing;
mod insist;
mod lockfile;
pub mod memory;
#[doc(hidden)]
pub mod pages;
#[doc(hidden)]
pub mod programs;
pub mod redis;
mod signals;
mod steps;
mod workers;

use async_trait::async_trait;
use bytes::Bytes;

#[doc(hidden)]
pub use catalog::{Beats, Part, ProcessRecord};
#[doc(hidden)]
pub use enter::enter;
#[doc(hidden)]
pub use failed::FailedJournal;
pub use gateways::GatewayJournal;
#[doc(hidden)]
pub use gateways::{ShardHome, known_rooms};
#[doc(hidden)]
pub use homing::{Homing, ShardOwner, Successor};
pub(crate) use insist::{Backoff, insist};
#[doc(hidden)]
pub use lockfile::LockFile;
pub use lockfile::default_runtime_dir;
#[doc(hidden)]
pub use pages::{Gathering, PageSize, Place, StoredHead, StoredPage};
#[doc(hidden)]
pub use programs::{ProgramJournal, ProgramPush, PushAnswer, Pushed, PushedBy};
#[doc(hidden)]
pub use signals::{Signal, Signals};
#[doc(hidden)]
pub use steps::*;
pub use workers::WorkerJournal;
#[doc(hidden)]
pub use workers::keep_known;

use crate::clock::timeline_name;
use crate::types::{HostId, Incarnation, ShardId};

/// Why a step of the journal failed. Its outcome may be unknown: send the same step again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// There is no connection, or it broke: try again.
    #[error("journal is not reachable: {0}")]
    Unreachable(String),
    /// There was no answer in time: try again. Other connections may not have noticed yet.
    #[error("journal is not reachable: {0}")]
    Silent(String),
    /// The journal answers, but refuses to work (password, version, eviction policy, read-only, memory limit).
    #[error("journal refuses: {0}")]
    Refused(String),
    /// What the caller wants is not what the deployment has (URL, prefix, number of shards, durability, format): as long as neither
    /// is changed, it is of no use to try again.
    #[error("journal refuses: {0}")]
    Unfit(String),
    /// The journal's answer is not one that this version understands.
    #[error("journal answered with something unexpected: {0}")]
    Unexpected(String),
    /// The keys of one room are damaged: repair or delete them.
    #[error("damaged in the journal: {0}: restore its keys, or delete them to end it")]
    Damaged(String),
}

impl JournalError {
    /// One word for metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unreachable(_) | Self::Silent(_) => "unreachable",
            Self::Refused(_) | Self::Unfit(_) => "refused",
            Self::Unexpected(_) => "unexpected",
            Self::Damaged(_) => "damaged",
        }
    }
}

/// Tells which shards are out of reach. It is logged when it begins and when it is over.
pub(crate) fn tell_away(told: &tokio::sync::watch::Sender<Option<String>>, failures: &[(Vec<ShardId>, JournalError)]) {
    let one = |(shards, error): &(Vec<ShardId>, JournalError)| {
        let shards = shards.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        format!("shards {shards}: {error}")
    };
    let now = (!failures.is_empty()).then(|| failures.iter().map(one).collect::<Vec<_>>().join("; "));
    told.send_if_modified(|before| {
        match (&now, &before) {
            (Some(away), None) => tracing::warn!(away, "a part of the journal is out of reach: its rooms wait, the others go on"),
            (None, Some(_)) => tracing::info!("all parts of the journal can be reached again"),
            _ => {}
        }
        let news = *before != now;
        *before = now.clone();
        news
    });
}

/// The host of this process.
fn this_host() -> HostId {
    HostId::new(&timeline_name()).expect("a boot id with a namespace is a name")
}

/// The size of the jump of a shard's eras when its rooms begin new ones because commits were lost. It is random, as `server`
/// is, so no era of the lost time comes twice. Many thousand jumps stay below 2^53.
fn era_stride(server: Incarnation) -> u64 {
    u64::try_from(server.0 & ((1 << ERA_STRIDE_BITS) - 1)).unwrap_or_default() + 1
}

/// Bits of [`era_stride`].
const ERA_STRIDE_BITS: u32 = 36;

/// What gateways and workers both do.
#[async_trait]
pub trait CommonJournal: Send + Sync + 'static {
    /// The number of shards of this deployment.
    fn shards(&self) -> u16;

    /// The host whose processes use this journal.
    fn host(&self) -> &HostId;

    /// The random id that this host keeps beside its lock files; 0 where it keeps none. Machines that were cloned have one name and two
    /// ids.
    fn host_id(&self) -> u128 {
        0
    }

    /// The number of a host's timeline: the same for the same name, higher than all before for a new one. The first home of a shard has
    /// it; later ones count on.
    ///
    /// # Errors
    /// When the journal does not work.
    async fn timeline(&self, host: &str) -> Result<u32, JournalError>;

    /// Announces for `good_for_ms` that processes on this timeline are alive, as versions do that know one host only. Returns all
    /// timelines for which that holds.
    ///
    /// # Errors
    /// When the journal does not work.
    async fn live_timelines(&self, timeline: u32, good_for_ms: u64) -> Result<Vec<u32>, JournalError>;

    /// Announces for `good_for_ms` that a process is alive, and what it says of itself. With 0 it withdraws. Returns all that beat.
    /// What another process wrote and nobody can read is left out and named.
    ///
    /// # Errors
    /// When the journal does not work.
    async fn beat(&self, me: &ProcessRecord, good_for_ms: u64) -> Result<Beats, JournalError>;

    /// Marks a host as one that is to have no shard, or takes the mark away. Idempotent.
    ///
    /// # Errors
    /// When the outcome is unknown: send it again.
    async fn drain(&self, host: &HostId, drained: bool) -> Result<(), JournalError>;

    /// Checks, in one cheap round trip, whether the journal takes steps. One that is full or read-only does not. For `/readyz`.
    ///
    /// # Errors
    /// When it does not.
    async fn ping(&self) -> Result<(), JournalError>;

    /// As [`Self::ping`], of those shards that others have than whoever has what is of no shard: who of them does not take steps, and
    /// which shards it has.
    async fn ping_shards(&self) -> Vec<(Vec<ShardId>, JournalError)> {
        Vec::new()
    }

    /// The shards that are out of reach together with this one, or with what is of no shard. None: all.
    fn beside(&self, _of: Option<ShardId>) -> Option<Vec<ShardId>> {
        None
    }

    /// Subscribes to the pushes for one gateway or worker. The subscription exists when it returns, and reconnects by itself.
    /// What is of a shard comes from the gateway's registration there on.
    ///
    /// # Errors
    /// When the journal does not work.
    async fn pushes(&self, to: Incarnation) -> Result<Signals<Bytes>, JournalError>;

    /// Locks the file that shows this host's workers whether a gateway or worker of this process lives. None where there is no
    /// such file: then time-outs alone tell.
    fn lock(&self, _who: Incarnation) -> Option<LockFile> {
        None
    }
}

/// A journal for a process that runs gateways as well as workers. An `Arc<dyn Journal>` converts to either trait.
pub trait Journal: GatewayJournal + WorkerJournal + FailedJournal {}

impl<T: GatewayJournal + WorkerJournal + FailedJournal> Journal for T {}

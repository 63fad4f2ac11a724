//! The durable record between gateways and workers. It has two faces: [`GatewayJournal`] is what gateways may do, and
//! [`WorkerJournal`] what workers may do. Two implementations (memory and Redis) pass one conformance suite.
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
//! Programs pass a journal on and take no step themselves: what the steps take and answer is not shown here.
//!
//! Every method is one atomic step. Expected refusals (fenced, duplicate, gap) are values; a [`JournalError`] means
//! that the outcome is unknown or that the journal refused to work, and the caller sends the same step again.

mod check;
mod gateways;
mod insist;
pub mod memory;
#[doc(hidden)]
pub mod pages;
pub mod redis;
mod signals;
mod steps;
mod workers;

use async_trait::async_trait;
use bytes::Bytes;

pub use gateways::GatewayJournal;
#[doc(hidden)]
pub use gateways::known_rooms;
pub(crate) use insist::{Backoff, insist};
#[doc(hidden)]
pub use pages::{Gathering, PageSize, Place, StoredHead, StoredPage};
#[doc(hidden)]
pub use steps::*;
pub use workers::WorkerJournal;
#[doc(hidden)]
pub use workers::keep_known;

use crate::limits::HOST_TIMEOUT;
use crate::types::Incarnation;

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
#[doc(hidden)]
pub async fn enter(journal: &dyn CommonJournal, host: &str) -> Result<u32, JournalError> {
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
#[doc(hidden)]
pub async fn keep_entered(journal: &dyn CommonJournal, timeline: u32) -> Result<Vec<u32>, JournalError> {
    journal.live_timelines(timeline, u64::try_from(HOST_TIMEOUT.as_millis()).unwrap_or(u64::MAX)).await
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

/// What gateways and workers both do.
#[async_trait]
pub trait CommonJournal: Send + Sync + 'static {
    /// The number of shards of this deployment.
    fn shards(&self) -> u16;

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

    /// What is pushed to one gateway or worker. Subscribes before it returns; reconnects by itself.
    ///
    /// # Errors
    /// When the journal does not work.
    async fn pushes(&self, to: Incarnation) -> Result<Signals<Bytes>, JournalError>;
}

/// The durable record, for whoever starts gateways as well as workers: an `Arc<dyn Journal>` passes for either face.
pub trait Journal: GatewayJournal + WorkerJournal {}

impl<T: GatewayJournal + WorkerJournal> Journal for T {}

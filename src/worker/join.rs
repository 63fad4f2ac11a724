//! How a worker joins a deployment.

use std::sync::Arc;

use bytes::Bytes;

use crate::clock;
use crate::journal::{self, JournalError, LockFile, Signals, WorkerJournal};
use crate::types::Incarnation;

/// A worker that is registered with its host, receives pushes, and owns no shard yet.
pub(crate) struct Joined {
    pub(super) journal: Arc<dyn WorkerJournal>,
    pub(super) timeline: u32,
    pub(super) me: Incarnation,
    pub(super) pushes: Signals<Bytes>,
    pub(super) lock: Option<LockFile>,
}

impl std::fmt::Debug for Joined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Joined").field("timeline", &self.timeline).field("me", &self.me).finish_non_exhaustive()
    }
}

/// Joins under a new identity.
///
/// # Errors
/// When the journal does not work. A failed attempt leaves nothing behind; the caller may try again.
pub(crate) async fn join(journal: Arc<dyn WorkerJournal>) -> Result<Joined, JournalError> {
    let timeline = journal::enter(&*journal, &clock::timeline_name()).await?;
    let me = Incarnation::random();
    let pushes = journal.pushes(me).await?;
    let lock = journal.lock(me);
    Ok(Joined { journal, timeline, me, pushes, lock })
}

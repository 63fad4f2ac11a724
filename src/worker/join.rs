//! How a worker joins a deployment.

use std::sync::Arc;

use bytes::Bytes;

use super::programs::ProgramsError;
use crate::clock;
use crate::journal::{self, JournalError, LockFile, Part, ProcessRecord, Signals, WorkerJournal};
use crate::types::Incarnation;

/// A worker that is registered with its host, receives pushes, and owns no shard yet.
pub(crate) struct Joined {
    pub(super) journal: Arc<dyn WorkerJournal>,
    pub(super) record: ProcessRecord,
    pub(super) pushes: Signals<Bytes>,
    pub(super) lock: Option<LockFile>,
}

impl std::fmt::Debug for Joined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Joined").field("record", &self.record).finish_non_exhaustive()
    }
}

/// Joins under a new identity.
///
/// # Errors
/// When the journal does not work. A failed attempt leaves nothing behind; the caller may try again.
pub(crate) async fn join(journal: Arc<dyn WorkerJournal>) -> Result<Joined, JournalError> {
    let me = Incarnation::random();
    let record = journal::enter(&*journal, me, Part::Worker, None, clock::epoch_us).await?;
    let pushes = journal.pushes(me).await?;
    let lock = journal.lock(me);
    Ok(Joined { journal, record, pushes, lock })
}

/// Why a worker ended without being asked to.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The journal did not work at the start.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// This many jobs of the rules never returned, each of which holds a thread.
    #[error("{0} jobs of the rules never returned: start the worker again, and fix the rules that its log names")]
    Rules(usize),
    /// The rules' programs cannot be started.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
}

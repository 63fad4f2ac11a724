//! How shards go to other workers: released, told of, and at last the worker's goodbye.

use std::sync::Arc;

use tokio_util::task::TaskTracker;

use crate::journal::{JournalError, Lease, ProcessRecord, WorkerJournal};
use crate::limits::RETRY_MAX;
use crate::types::{Incarnation, ShardId};
use crate::wire::push::{self, Push};

/// The shards that a worker releases, each in a task of its own.
pub(super) struct Releases {
    journal: Arc<dyn WorkerJournal>,
    tasks: TaskTracker,
    /// The last of them.
    last: Option<ShardId>,
}

impl Releases {
    pub(super) fn new(journal: Arc<dyn WorkerJournal>) -> Self {
        Self { journal, tasks: TaskTracker::new(), last: None }
    }

    /// Releases a shard, then tells these workers of it.
    pub(super) fn start(&mut self, shard: ShardId, lease: Lease, tell: Vec<Incarnation>) {
        self.last = Some(shard);
        let journal = self.journal.clone();
        self.tasks.spawn(async move {
            if let Err(error) = journal.release(shard, lease).await {
                tracing::warn!(%error, %shard, "shard could not be released; its lease runs out");
                return;
            }
            // A worker that misses this push finds the shard free at its next heartbeat.
            let _ = publish_free(&*journal, shard, &tell).await;
        });
    }

    /// Waits until all are released, then withdraws the worker, and tells all others. Until then it counts, and their shares are too
    /// small for all that it has released; and it does not know yet who has come since its last heartbeat: in a reload, its successor.
    pub(super) async fn say_goodbye(self, record: &ProcessRecord) {
        let me = record.incarnation;
        self.tasks.close();
        let _ = tokio::time::timeout(RETRY_MAX, self.tasks.wait()).await;
        let goodbye = async {
            self.journal.beat(record, 0).await?;
            let living = self.journal.heartbeat(me, &[], 0).await?;
            let others: Vec<Incarnation> =
                living.iter().map(|worker| worker.incarnation).filter(|worker| *worker != me).collect();
            match self.last {
                Some(shard) => publish_free(&*self.journal, shard, &others).await,
                None => Ok(()),
            }
        };
        if let Ok(Err(error)) = tokio::time::timeout(RETRY_MAX, goodbye).await {
            tracing::warn!(%error, "the other workers could not be told that this one stops");
        }
    }
}

async fn publish_free(journal: &dyn WorkerJournal, shard: ShardId, tell: &[Incarnation]) -> Result<(), JournalError> {
    for worker in tell {
        journal.publish(None, *worker, push::encode(&Push::Free { shard })).await?;
    }
    Ok(())
}

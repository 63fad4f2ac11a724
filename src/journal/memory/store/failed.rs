//! Failed events, which are kept apart from their rooms.

use std::collections::VecDeque;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Shard, Store};
use crate::journal::memory::MemoryJournal;
use crate::journal::{FailedEvents, FailedJournal, JournalError};
use crate::limits::FAILED_PAGE;
use crate::types::{ShardId, StreamId};

/// Those of one pattern, oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Failed {
    keep: u32,
    last: StreamId,
    records: VecDeque<(StreamId, Bytes)>,
}

impl Failed {
    pub(super) fn add(&mut self, failed: &FailedEvents) {
        self.keep = failed.keep;
        for record in &failed.records {
            self.last.seq += 1;
            self.records.push_back((self.last, record.clone()));
        }
        let over = self.records.len().saturating_sub(usize::try_from(self.keep).unwrap_or(usize::MAX));
        self.records.drain(..over);
    }
}

impl Shard {
    fn drop_failed(&mut self, pattern: &str, only: &[StreamId]) -> u64 {
        let Some(failed) = self.failed.get_mut(pattern) else { return 0 };
        let before = failed.records.len();
        failed.records.retain(|(at, _)| !only.is_empty() && !only.contains(at));
        let dropped = before - failed.records.len();
        if failed.records.is_empty() {
            self.failed.remove(pattern);
        }
        dropped as u64
    }
}

impl Store {
    fn failed(
        &mut self,
        shard: ShardId,
        pattern: &str,
        before: Option<StreamId>,
    ) -> Result<Vec<(StreamId, Bytes)>, JournalError> {
        let records = self.shard(shard)?.failed.get(pattern).into_iter().flat_map(|failed| failed.records.iter().rev());
        Ok(records.filter(|(at, _)| before.is_none_or(|before| *at < before)).take(FAILED_PAGE).cloned().collect())
    }
}

#[async_trait]
impl FailedJournal for MemoryJournal {
    async fn failed_patterns(&self, shard: ShardId) -> Result<Vec<(String, u32)>, JournalError> {
        let mut inner = self.inner.lock();
        Ok(inner.store.shard(shard)?.failed.iter().map(|(pattern, failed)| (pattern.clone(), failed.keep)).collect())
    }

    async fn failed(
        &self,
        shard: ShardId,
        pattern: &str,
        before: Option<StreamId>,
    ) -> Result<Vec<(StreamId, Bytes)>, JournalError> {
        self.inner.lock().store.failed(shard, pattern, before)
    }

    async fn drop_failed(&self, shard: ShardId, pattern: &str, only: &[StreamId]) -> Result<u64, JournalError> {
        Ok(self.inner.lock().store.shard(shard)?.drop_failed(pattern, only))
    }
}

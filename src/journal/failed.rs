//! The journal's trait for those who look after failed events: the verdicts that are void because rules failed.
//!
//! A commit keeps them ([`RoomCommit::failed`](super::RoomCommit::failed)), by shard and room pattern. They are apart from their rooms. A
//! damaged list of them stops no commit; whoever reads it is told.

use async_trait::async_trait;
use bytes::Bytes;

use super::{CommonJournal, JournalError};
use crate::types::{ShardId, StreamId};

/// What may be done with failed events.
#[async_trait]
pub trait FailedJournal: CommonJournal {
    /// The patterns of which a shard keeps failed events, each with how many it keeps at most.
    ///
    /// # Errors
    /// [`JournalError::Unexpected`] if the list is damaged; otherwise when the journal does not work.
    async fn failed_patterns(&self, shard: ShardId) -> Result<Vec<(String, u32)>, JournalError>;

    /// The failed events of a pattern in a shard, newest first: at most `FAILED_PAGE`, all below `before` if one is given.
    ///
    /// # Errors
    /// [`JournalError::Unexpected`] if they are damaged; otherwise when the journal does not work.
    async fn failed(
        &self,
        shard: ShardId,
        pattern: &str,
        before: Option<StreamId>,
    ) -> Result<Vec<(StreamId, Bytes)>, JournalError>;

    /// Drops these failed events of a pattern in a shard, at most `FAILED_PAGE`. Without any it drops all of them, even
    /// damaged ones. Returns how many it has dropped.
    ///
    /// # Errors
    /// [`JournalError::Unexpected`] if some are named and they are damaged; otherwise when the journal does not work.
    async fn drop_failed(&self, shard: ShardId, pattern: &str, only: &[StreamId]) -> Result<u64, JournalError>;
}

//! The steps of those who look after failed events.

use ::redis::streams::StreamRangeReply;
use ::redis::{FromRedisValue, RedisResult};
use async_trait::async_trait;
use bytes::Bytes;

use super::super::{FailedJournal, JournalError};
use super::RedisJournal;
use super::reply::Reply;
use super::scripts::{Call, DROP_FAILED, ROOM_BYTES};
use crate::limits::{FAILED_PAGE, KEEP_FAILED};
use crate::types::{ShardId, StreamId};

impl RedisJournal {
    /// Reads a key. One of another type is told by its name.
    async fn read_key<T: FromRedisValue>(&self, shard: ShardId, key: &str, command: &::redis::Cmd) -> Result<T, JournalError> {
        let mut place = self.at(Some(shard)).await?;
        let answer: RedisResult<T> = command.query_async(&mut place.live.connection).await;
        place.judge(answer).map_err(|error| match error {
            JournalError::Damaged(_) => JournalError::Unexpected(format!("{key} is damaged: it is of another type: delete it")),
            other => other,
        })
    }
}

#[async_trait]
impl FailedJournal for RedisJournal {
    async fn failed_patterns(&self, shard: ShardId) -> Result<Vec<(String, u32)>, JournalError> {
        let key = &self.shard(shard)?.failed;
        let mut command = ::redis::cmd("HGETALL");
        let all: Vec<(String, String)> = self.read_key(shard, key, command.arg(key)).await?;
        // The number is a hint, renewed with the next failed event.
        Ok(all.into_iter().map(|(pattern, keep)| (pattern, keep.parse().unwrap_or(KEEP_FAILED))).collect())
    }

    async fn failed(
        &self,
        shard: ShardId,
        pattern: &str,
        before: Option<StreamId>,
    ) -> Result<Vec<(StreamId, Bytes)>, JournalError> {
        let key = self.shard(shard)?.failed_of(pattern).to_string();
        let end = before.map_or_else(|| "+".to_owned(), |before| format!("({before}"));
        let mut command = ::redis::cmd("XREVRANGE");
        let page: StreamRangeReply =
            self.read_key(shard, &key, command.arg(&key).arg(end).arg("-").arg("COUNT").arg(FAILED_PAGE)).await?;
        let read = page.ids.iter().map(|entry| {
            let at = entry.id.parse().map_err(|_| JournalError::Unexpected(format!("{key} has an entry {:?}", entry.id)))?;
            // An entry that is none of ours is read as an empty record, which is damaged.
            Ok((at, entry.get::<Vec<u8>>("f").unwrap_or_default().into()))
        });
        read.collect()
    }

    async fn drop_failed(&self, shard: ShardId, pattern: &str, only: &[StreamId]) -> Result<u64, JournalError> {
        let keys = self.shard(shard)?;
        let mut call = Call::new(&DROP_FAILED, 2, 1 + only.len(), ROOM_BYTES + 48 * only.len());
        call.text(&keys.failed).text(keys.failed_of(pattern)).text(pattern);
        only.iter().for_each(|at| _ = call.text(at));
        Reply::new("drop failed", ::redis::Value::Array(vec![self.send(Some(shard), &call).await?]))?.parse()
    }
}

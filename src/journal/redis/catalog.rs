//! Which processes there are: two keys beside those of the shards.

use ::redis::{RedisResult, Value, cmd};

use super::super::{Beats, JournalError, ProcessRecord};
use super::RedisJournal;
use super::keys::Hex;
use super::reply::Reply;
use crate::types::HostId;

impl RedisJournal {
    pub(super) async fn beat_of(&self, me: &ProcessRecord, good_for_ms: u64) -> Result<Beats, JournalError> {
        let (keys, mut beats) = (&self.0.keys, Beats::default());
        let mut reply = self.enter_in("beat", &keys.procs, Hex(me.incarnation), good_for_ms, &me.record()).await?;
        while !reply.is_empty() {
            let incarnation = reply.incarnation()?;
            beats.add(incarnation, &String::from_utf8_lossy(&reply.bytes()?));
        }
        beats.processes.sort_unstable_by_key(|process| process.incarnation);
        let mut place = self.reach(None).await?;
        let drained: RedisResult<Value> = cmd("SMEMBERS").arg(&keys.drained).query_async(&mut place.live.connection).await;
        match drained {
            // Whoever drains a host is told so, too.
            Err(error) if error.code() == Some("WRONGTYPE") => beats.damaged.push(format!("{} is no set", keys.drained)),
            drained => {
                let mut hosts = Reply::new("drained", place.judge(drained)?)?;
                while !hosts.is_empty() {
                    beats.add_drained(&String::from_utf8_lossy(&hosts.bytes()?));
                }
            }
        }
        Ok(beats)
    }

    pub(super) async fn mark_drained(&self, host: &HostId, drained: bool) -> Result<(), JournalError> {
        let mut place = self.reach(None).await?;
        let step = if drained { "SADD" } else { "SREM" };
        let answer: RedisResult<Value> =
            cmd(step).arg(&self.0.keys.drained).arg(host.as_str()).query_async(&mut place.live.connection).await;
        place.judge(answer).map(drop)
    }
}

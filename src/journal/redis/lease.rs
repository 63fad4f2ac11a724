//! Who lives and who owns what: heartbeats, claims, releases; and the hosts' timelines.

use std::fmt::Write;

use ::redis::{RedisResult, Value};

use super::super::{JournalError, Lease, Leased, Witness, WorkerRecord, era_stride};
use super::RedisJournal;
use super::append::{Hex, ROOM_BYTES};
use super::reply::{Reply, code};
use super::scripts::{CLAIM, Call, HEARTBEAT, RELEASE, TESTIFY, TIMELINE};
use crate::types::{Incarnation, ShardId};

impl RedisJournal {
    pub(super) async fn timeline_step(&self, host: &str) -> Result<u32, JournalError> {
        let mut call = Call::new(&TIMELINE, 1, 1, ROOM_BYTES);
        call.text(&self.keys().timelines).text(host);
        Reply::new("timeline", Value::Array(vec![self.send(&call).await?]))?.parse()
    }

    pub(super) async fn live_timelines_step(&self, timeline: u32, good_for_ms: u64) -> Result<Vec<u32>, JournalError> {
        // Hosts live as workers do: by this server's clock, until their word runs out.
        let mut call = Call::new(&HEARTBEAT, 1, 3, ROOM_BYTES);
        call.text(&self.keys().hosts).text(timeline).text(good_for_ms).text("");
        let mut reply = Reply::new("live timelines", self.send(&call).await?)?;
        let mut live = Vec::new();
        while !reply.is_empty() {
            let name: String = reply.parse()?;
            live.extend(name.parse::<u32>());
            reply.bytes()?;
        }
        Ok(live)
    }

    pub(super) async fn heartbeat_step(
        &self,
        worker: Incarnation,
        owned: &[ShardId],
        good_for_ms: u64,
    ) -> Result<Vec<WorkerRecord>, JournalError> {
        let mut shards = String::with_capacity(owned.len() * 5);
        for shard in owned {
            let comma = if shards.is_empty() { "" } else { "," };
            let _ = write!(shards, "{comma}{shard}");
        }
        let mut call = Call::new(&HEARTBEAT, 1, 3, ROOM_BYTES + shards.len());
        call.text(&self.keys().workers).text(Hex(worker)).text(good_for_ms).text(&shards);
        let mut reply = Reply::new("heartbeat", self.send(&call).await?)?;
        let mut living = Vec::new();
        while !reply.is_empty() {
            let incarnation = reply.incarnation()?;
            let owned: String = reply.parse()?;
            // What is no shard is nobody's: its owner writes it anew.
            let shards = owned.split(',').filter_map(|shard| shard.parse().ok()).map(ShardId).collect();
            living.push(WorkerRecord { incarnation, shards });
        }
        living.sort_unstable_by_key(|record| record.incarnation);
        Ok(living)
    }

    pub(super) async fn patterns_step(
        &self,
        worker: Incarnation,
        patterns: &[String],
        good_for_ms: u64,
    ) -> Result<Vec<(Incarnation, Vec<String>)>, JournalError> {
        let text = patterns.join("\n");
        let mut call = Call::new(&HEARTBEAT, 1, 3, ROOM_BYTES + text.len());
        call.text(&self.keys().patterns).text(Hex(worker)).text(good_for_ms).text(&text);
        let mut reply = Reply::new("patterns", self.send(&call).await?)?;
        let mut said = Vec::new();
        while !reply.is_empty() {
            let (worker, patterns): (_, String) = (reply.incarnation()?, reply.parse()?);
            said.push((worker, patterns.lines().map(str::to_owned).collect()));
        }
        said.sort_unstable();
        Ok(said)
    }

    /// The truth is each shard's own hash: one pipeline reads them all.
    pub(super) async fn owners_step(&self) -> Result<Vec<Option<Lease>>, JournalError> {
        let mut pipeline = ::redis::pipe();
        for shard in self.keys().shards() {
            pipeline.cmd("HMGET").arg(&shard.shard).arg("epoch").arg("owner");
        }
        let mut live = self.live().await?;
        let replies: RedisResult<Vec<Value>> = pipeline.query_async(&mut live.connection).await;
        let replies = self.0.link.judge(&live, replies)?;
        replies.into_iter().map(|reply| owner(Reply::new("owners", reply)?, live.found.server)).collect()
    }

    pub(super) async fn claim_step(
        &self,
        shard: ShardId,
        from: Option<Lease>,
        worker: Incarnation,
    ) -> Result<Leased<Lease>, JournalError> {
        let keys = self.shard(shard)?;
        let mut call = Call::new(&CLAIM, 2, 5, 2 * ROOM_BYTES);
        call.text(&keys.shard).text(&keys.active);
        let live = self.met().await?;
        let server = live.found.server;
        if from.is_some_and(|lease| lease.server != server) {
            return Ok(Leased::Lost);
        }
        match from {
            Some(lease) => call.text(lease.epoch).text(Hex(lease.owner)),
            None => call.bytes(&[]).bytes(&[]),
        };
        call.text(Hex(worker)).text(keys.states()).text(Hex(server));
        let mut reply = Reply::new("claim", self.send_on(live, &call).await?)?;
        let claimed = match reply.parse::<u8>()? {
            0 => Leased::Done(Lease { epoch: reply.parse()?, owner: worker, server }),
            1 => Leased::Lost,
            other => return Err(reply.error(&format!("code {other}"))),
        };
        reply.end()?;
        Ok(claimed)
    }

    pub(super) async fn release_step(&self, shard: ShardId, lease: Lease) -> Result<(), JournalError> {
        let mut call = Call::new(&RELEASE, 1, 2, ROOM_BYTES);
        call.text(&self.shard(shard)?.shard).text(lease.epoch).text(Hex(lease.owner));
        self.send_to(lease.server, &call).await?.map_or(Ok(()), |reply| code("release", &reply).map(|_| ()))
    }

    pub(super) async fn testify_step(&self, shard: ShardId, witness: Witness) -> Result<u64, JournalError> {
        let keys = self.shard(shard)?;
        let live = self.met().await?;
        let server = live.found.server;
        let mut call = Call::new(&TESTIFY, 2, 7, 3 * ROOM_BYTES);
        call.text(&keys.shard).text(&keys.rooms).text(Hex(server)).text(era_stride(server)).text(Hex(witness.server));
        match witness.epoch {
            Some(epoch) => call.text(epoch),
            None => call.bytes(&[]),
        };
        call.text(witness.confirmed).text(witness.sent).text(keys.states());
        Reply::new("testify", Value::Array(vec![self.send_on(live, &call).await?]))?.parse()
    }
}

fn owner(mut reply: Reply, server: Incarnation) -> Result<Option<Lease>, JournalError> {
    let epoch = reply.parse_or_nil::<u64>()?;
    let owner = reply.parse_or_nil::<String>()?;
    match (epoch, owner) {
        (_, None) => Ok(None),
        (Some(epoch), Some(hex)) => match Incarnation::from_hex(&hex) {
            Some(owner) => Ok(Some(Lease { epoch, owner, server })),
            None => Err(reply.error(&format!("{hex:?} is not an incarnation"))),
        },
        (None, Some(_)) => Err(reply.error("an owner without an epoch")),
    }
}

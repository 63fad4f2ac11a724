//! The steps of gateways: registration, flushes, and what they read.

use std::time::Duration;

use async_trait::async_trait;

use super::super::{
    Appended, CommonJournal, Flush, GatewayJournal, Homed, JournalError, Registered, RoomHead, Seen, ShardHome, VerdictPage,
    WorkerRecord, check, era_stride,
};
use super::RedisJournal;
use super::keys::Hex;
use super::reply::{Reply, code};
use super::scripts::{APPEND, Call, HEADS, HOME, LEAVE, REGISTER, ROOM_BYTES, VERDICTS};
use crate::limits::{HEADS_INTERVAL, PAGE_BYTES, ROOMS_PER_SHARD_MAX};
use crate::types::{Incarnation, RoomId, Seed, ShardId};

#[async_trait]
impl GatewayJournal for RedisJournal {
    async fn register(
        &self,
        shard: ShardId,
        gateway: Incarnation,
        seen: Seen,
        rooms: &[RoomId],
    ) -> Result<Homed<Registered>, JournalError> {
        let keys = self.shard(shard)?;
        rooms.iter().try_for_each(|room| check::room(room, shard, self.shards()))?;
        // From the registration on, the shard may push to it.
        let (everywhere, here) = (self.0.keys.push(gateway).to_string(), keys.push(gateway).to_string());
        self.0.subscriptions.put_beside(&everywhere, &here).await?;
        let server = self.met(Some(shard)).await?.server;
        let mut call = Call::new(REGISTER.by(self.0.keys.tags), 3 + rooms.len(), 9, (4 + rooms.len()) * ROOM_BYTES);
        call.text(&keys.shard).text(&keys.gateways).text(&keys.rooms);
        for room in rooms {
            call.text(keys.state(room));
        }
        call.text(Hex(gateway)).text(Hex(server)).text(era_stride(server)).text(seen.flush).text(seen.commit);
        call.text(&keys.bell).text(Hex(seen.server)).text(seen.home).text(&self.1);
        let Some(reply) = self.send_confirmed_to(server, shard, &call).await? else {
            return Err(JournalError::Unreachable("redis lost its data meanwhile: asked again".into()));
        };
        let mut reply = Reply::new("register", reply)?;
        if reply.skip_empty() {
            return Ok(Homed::Elsewhere(reply.home()?));
        }
        let record = reply.gateway(gateway)?;
        let (renewed, commit) = (reply.parse()?, reply.parse()?);
        let mut heads = reply.array()?;
        let home = reply.parse()?;
        reply.end()?;
        let rooms = rooms.iter().map(|room| heads.head(room)).collect::<Result<_, _>>()?;
        heads.end()?;
        Ok(Homed::Here(Registered { server, record, rooms, renewed, commit, home }))
    }

    async fn leave(&self, shard: ShardId, gateway: Incarnation) -> Result<(), JournalError> {
        self.0.subscriptions.forget_beside(&self.0.keys.push(gateway).to_string());
        let mut call = Call::new(&LEAVE, 1, 1, ROOM_BYTES);
        call.text(&self.shard(shard)?.gateways).text(Hex(gateway));
        code("leave", &self.send(Some(shard), &call).await?).map(|_| ())
    }

    async fn append(&self, flush: &Flush) -> Result<Appended, JournalError> {
        check::flush(flush, self.shards())?;
        let keys = self.0.keys.shard(flush.shard);
        let rooms = flush.entries.len();
        let bytes = flush.entries.iter().map(|e| e.bytes.len() + ROOM_BYTES).sum::<usize>() + 4 * ROOM_BYTES;
        let mut call = Call::new(APPEND.by(self.0.keys.tags), 4 + 2 * rooms, 11 + 3 * rooms, bytes);
        call.text(&keys.shard).text(&keys.gateways).text(&keys.active).text(&keys.rooms);
        for entry in &flush.entries {
            call.text(keys.room(&entry.room)).text(keys.state(&entry.room));
        }
        call.text(Hex(flush.incarnation)).text(flush.number).text(flush.previous).text(flush.watermark).text(&keys.bell);
        call.text(&keys.pushes).bytes(&flush.poke()).text(flush.idle_below());
        call.text(format_args!("{:032x}", Seed::random().0));
        call.text(format_args!("{}|{}", flush.watermark.timeline, self.1)).text(ROOMS_PER_SHARD_MAX);
        for entry in &flush.entries {
            call.text(&entry.room).text(entry.top).bytes(&entry.bytes);
        }

        // A flush without events, long after the one before, is a heartbeat: nobody waits for its bell.
        let silent = Duration::from_nanos(flush.watermark.ns.saturating_sub(flush.previous.ns));
        let reply = if rooms == 0 && silent >= HEADS_INTERVAL {
            self.send_confirmed_to(flush.server, flush.shard, &call).await?
        } else {
            self.announce_to(flush.server, flush.shard, call).await?
        };
        let Some(reply) = reply else { return Ok(Appended::Moved) };
        let mut reply = Reply::new("append", reply)?;
        let appended = match reply.parse::<u8>()? {
            0 => Appended::Stored(flush.entries.iter().map(|e| reply.head(&e.room)).collect::<Result<_, _>>()?),
            1 => Appended::Gap { number: reply.parse()?, watermark: reply.parse()? },
            2 => Appended::Fenced,
            3 => Appended::Refused(reply.indexed(flush.entries.iter().map(|e| &e.room))?),
            4 => return Ok(Appended::Elsewhere(reply.home()?)),
            5 => Appended::Full(reply.indexed(flush.entries.iter().map(|e| &e.room))?),
            other => return Err(reply.error(&format!("code {other}"))),
        };
        reply.end()?;
        Ok(appended)
    }

    async fn heads(&self, shard: ShardId, rooms: &[RoomId]) -> Result<(Incarnation, Vec<RoomHead>), JournalError> {
        let keys = self.shard(shard)?;
        rooms.iter().try_for_each(|room| check::room(room, shard, self.shards()))?;
        if rooms.is_empty() {
            return Ok((self.at(Some(shard)).await?.server, Vec::new()));
        }
        let mut call = Call::new(&HEADS, 1 + rooms.len(), 0, (1 + rooms.len()) * ROOM_BYTES);
        call.text(&keys.shard);
        for room in rooms {
            call.text(keys.state(room));
        }
        let (server, reply) = self.send_confirmed(shard, &call).await?;
        let mut reply = Reply::new("heads", reply)?;
        let heads = rooms.iter().map(|room| reply.head(room)).collect::<Result<_, _>>()?;
        reply.end()?;
        Ok((server, heads))
    }

    async fn home(&self, shard: ShardId) -> Result<ShardHome, JournalError> {
        let mut call = Call::new(&HOME, 1, 0, ROOM_BYTES);
        call.text(&self.shard(shard)?.shard);
        Reply::new("home", self.send(Some(shard), &call).await?)?.shard_home()
    }

    async fn verdicts(&self, room: &RoomId, seq: u64, entries_max: usize) -> Result<VerdictPage, JournalError> {
        let keys = self.room(room);
        let mut call = Call::new(&VERDICTS, 3, 3, 2 * ROOM_BYTES);
        call.text(keys.out(room)).text(keys.state(room)).text(&keys.shard);
        call.text(seq).text(entries_max.max(1)).text(PAGE_BYTES);
        let shard = ShardId::of(room, self.shards());
        let (server, reply) = self.send_confirmed(shard, &call).await?;
        let mut reply = Reply::new("verdicts", reply)?;
        let (commit, era, seq) = (reply.parse()?, reply.parse()?, reply.parse()?);
        let mut page = VerdictPage { server, commit, era, seq, batches: reply.payloads()? };
        reply.end()?;
        page.batches.truncate(entries_max);
        Ok(page)
    }

    async fn living_workers(&self) -> Result<Vec<WorkerRecord>, JournalError> {
        self.enter_in("living workers", &self.0.keys.workers, Hex(Incarnation::NONE), 0, "").await?.workers()
    }

    async fn announced_patterns(&self) -> Result<Vec<(Incarnation, Vec<String>)>, JournalError> {
        let mut reply = self.enter_in("patterns", &self.0.keys.patterns, Hex(Incarnation::NONE), 0, "").await?;
        let mut said = Vec::new();
        while !reply.is_empty() {
            let (worker, patterns): (_, String) = (reply.incarnation()?, reply.parse()?);
            said.push((worker, patterns.lines().map(str::to_owned).collect()));
        }
        said.sort_unstable();
        Ok(said)
    }
}

//! What gateways write: registration and flushes; and the entry that is written for a dead one.

use std::time::Duration;

use super::super::{
    Appended, Flush, FlushEntry, GatewayRecord, JournalError, Lease, Leased, Registered, Seen, check, era_stride,
};
use super::RedisJournal;
use super::reply::{Reply, code};
use super::scripts::{APPEND, Call, DEATH, FENCE, FORGET, LEAVE, REGISTER};
use crate::journal::Journal;
use crate::limits::HEADS_INTERVAL;
use crate::types::{Incarnation, RoomId, ShardId};

/// Bytes that a flush or commit needs beside its payloads, per room: keys, name, stamps.
pub(super) const ROOM_BYTES: usize = 256;

impl RedisJournal {
    pub(super) async fn register_step(
        &self,
        shard: ShardId,
        gateway: Incarnation,
        seen: Seen,
        rooms: &[RoomId],
    ) -> Result<Registered, JournalError> {
        let keys = self.shard(shard)?;
        rooms.iter().try_for_each(|room| check::room(room, shard, self.shards()))?;
        let live = self.met().await?;
        let server = live.found.server;
        let mut call = Call::new(&REGISTER, 3 + rooms.len(), 8, (4 + rooms.len()) * ROOM_BYTES);
        call.text(&keys.shard).text(&keys.gateways).text(&keys.rooms);
        for room in rooms {
            call.text(keys.state(room));
        }
        call.text(Hex(gateway)).text(Hex(server)).text(era_stride(server)).text(seen.flush).text(seen.commit);
        call.text(keys.states()).text(&keys.bell).text(Hex(seen.server));
        let mut reply = Reply::new("register", self.send_on(live, &call).await?)?;
        let (record, renewed, commit) = (reply.gateway(gateway)?, reply.parse()?, reply.parse()?);
        let mut heads = reply.array()?;
        reply.end()?;
        let rooms = rooms.iter().map(|room| heads.head(room)).collect::<Result<_, _>>()?;
        heads.end()?;
        Ok(Registered { server, record, rooms, renewed, commit })
    }

    pub(super) async fn leave_step(&self, shard: ShardId, gateway: Incarnation) -> Result<(), JournalError> {
        let mut call = Call::new(&LEAVE, 1, 1, ROOM_BYTES);
        call.text(&self.shard(shard)?.gateways).text(Hex(gateway));
        code("leave", &self.send(&call).await?).map(|_| ())
    }

    pub(super) async fn append_step(&self, flush: &Flush) -> Result<Appended, JournalError> {
        check::flush(flush, self.shards())?;
        let keys = self.keys().shard(flush.shard);
        let rooms = flush.entries.len();
        let bytes = flush.entries.iter().map(|e| e.bytes.len() + ROOM_BYTES).sum::<usize>() + 4 * ROOM_BYTES;
        let mut call = Call::new(&APPEND, 4 + 2 * rooms, 8 + 3 * rooms, bytes);
        call.text(&keys.shard).text(&keys.gateways).text(&keys.active).text(&keys.rooms);
        for entry in &flush.entries {
            call.text(keys.room(&entry.room)).text(keys.state(&entry.room));
        }
        call.text(Hex(flush.incarnation)).text(flush.number).text(flush.previous).text(flush.watermark).text(&keys.bell);
        call.text(self.keys().pushes()).bytes(&flush.poke()).text(flush.idle_below());
        for entry in &flush.entries {
            call.text(&entry.room).text(entry.top).bytes(&entry.bytes);
        }

        // A bare flush long after the one before is a heartbeat: nobody waits for it.
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
            other => return Err(reply.error(&format!("code {other}"))),
        };
        reply.end()?;
        Ok(appended)
    }

    pub(super) async fn fence_step(
        &self,
        shard: ShardId,
        lease: Lease,
        gateway: Incarnation,
    ) -> Result<Leased<GatewayRecord>, JournalError> {
        let keys = self.shard(shard)?;
        let mut call = Call::new(&FENCE, 2, 4, ROOM_BYTES);
        call.text(&keys.shard).text(&keys.gateways).text(lease.epoch).text(Hex(lease.owner)).text(Hex(gateway));
        call.text(Hex(lease.server));
        let Some(reply) = self.send_to(lease.server, &call).await? else { return Ok(Leased::Lost) };
        let mut reply = Reply::new("fence", reply)?;
        let fenced = match reply.parse::<u8>()? {
            0 => Leased::Done(reply.gateway(gateway)?),
            1 => Leased::Lost,
            other => return Err(reply.error(&format!("code {other}"))),
        };
        reply.end()?;
        Ok(fenced)
    }

    pub(super) async fn forget_step(
        &self,
        shard: ShardId,
        lease: Lease,
        gateways: &[Incarnation],
    ) -> Result<Leased<()>, JournalError> {
        let keys = self.shard(shard)?;
        let mut call = Call::new(&FORGET, 2, 2 + gateways.len(), ROOM_BYTES + 64 * gateways.len());
        call.text(&keys.shard).text(&keys.gateways).text(lease.epoch).text(Hex(lease.owner));
        for gateway in gateways {
            call.text(Hex(*gateway));
        }
        let Some(reply) = self.send_to(lease.server, &call).await? else { return Ok(Leased::Lost) };
        match code("forget", &reply)? {
            0 => Ok(Leased::Done(())),
            1 => Ok(Leased::Lost),
            other => Err(JournalError::Unexpected(format!("reply to forget: code {other}"))),
        }
    }

    pub(super) async fn death_step(
        &self,
        shard: ShardId,
        lease: Lease,
        gateway: Incarnation,
        entry: &FlushEntry,
    ) -> Result<Leased<()>, JournalError> {
        let keys = self.shard(shard)?;
        check::room(&entry.room, shard, self.shards())?;
        let mut call = Call::new(&DEATH, 5, 7, 2 * ROOM_BYTES + entry.bytes.len());
        call.text(&keys.shard).text(&keys.gateways).text(&keys.active);
        call.text(keys.room(&entry.room)).text(keys.state(&entry.room));
        call.text(lease.epoch).text(Hex(lease.owner)).text(Hex(gateway)).text(&keys.bell);
        call.text(&entry.room).text(entry.top).bytes(&entry.bytes);
        let Some(reply) = self.send_to(lease.server, &call).await? else { return Ok(Leased::Lost) };
        match code("death", &reply)? {
            0 => Ok(Leased::Done(())),
            1 => Ok(Leased::Lost),
            2 => Err(check::not_fenced(gateway, shard)),
            other => Err(JournalError::Unexpected(format!("reply to death: code {other}"))),
        }
    }
}

/// [`Incarnation::to_hex`] without a `String`.
pub(super) struct Hex(pub(super) Incarnation);

impl std::fmt::Display for Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0.0)
    }
}

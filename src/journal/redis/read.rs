//! What is read: heads, verdicts, shards, rooms.

use ::redis::Value;
use bytes::Bytes;

use super::super::{JournalError, RoomHead, StoredRoom, StoredSnapshot, Survey, VerdictPage, check};
use super::RedisJournal;
use super::append::{Hex, ROOM_BYTES};
use super::reply::{Reply, gateway};
use super::scripts::{Call, HEADS, LOAD, SURVEY, VERDICTS};
use crate::journal::Journal;
use crate::types::{Incarnation, RoomId, ShardId, StreamId};

impl RedisJournal {
    pub(super) async fn heads_step(
        &self,
        shard: ShardId,
        rooms: &[RoomId],
    ) -> Result<(Incarnation, Vec<RoomHead>), JournalError> {
        let keys = self.shard(shard)?;
        rooms.iter().try_for_each(|room| check::room(room, shard, self.shards()))?;
        if rooms.is_empty() {
            return Ok((self.live().await?.found.server, Vec::new()));
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

    pub(super) async fn verdicts_step(&self, room: &RoomId, seq: u64, entries_max: usize) -> Result<VerdictPage, JournalError> {
        let keys = self.room(room);
        let mut call = Call::new(&VERDICTS, 3, 2, 2 * ROOM_BYTES);
        call.text(keys.out(room)).text(keys.state(room)).text(&keys.shard).text(seq).text(entries_max.max(1));
        let shard = ShardId::of(room, self.shards());
        let (server, reply) = self.send_confirmed(shard, &call).await?;
        let mut reply = Reply::new("verdicts", reply)?;
        let (commit, era, seq) = (reply.parse()?, reply.parse()?, reply.parse()?);
        let mut page = VerdictPage { server, commit, era, seq, batches: payloads(reply.stream()?) };
        reply.end()?;
        page.batches.truncate(entries_max);
        Ok(page)
    }

    pub(super) async fn survey_step(&self, shard: ShardId, rooms: bool) -> Result<Survey, JournalError> {
        let keys = self.shard(shard)?;
        let mut call = Call::new(&SURVEY, 4, 2, ROOM_BYTES);
        call.text(&keys.shard).text(&keys.gateways).text(&keys.active).text(&keys.rooms);
        let live = self.live().await?;
        let server = live.found.server;
        match rooms {
            true => call.text(keys.states()),
            false => call.bytes(&[]),
        };
        call.text(Hex(server));
        let mut reply = Reply::new("survey", self.send_on(live, &call).await?)?;
        let (append, commit, doubt) = (reply.parse()?, reply.parse()?, reply.parse_or_nil()?);
        let (mut records, mut names, mut states) = (reply.array()?, reply.array()?, reply.array()?);
        reply.end()?;
        let mut survey = Survey {
            server,
            append,
            commit,
            doubt,
            gateways: Vec::new(),
            damaged_gateways: Vec::new(),
            active: Vec::new(),
            rooms: Vec::new(),
            damaged_rooms: Vec::new(),
        };
        // What cannot be read is one gateway's or one room's trouble. A name that is none is nobody's.
        let nobody = |error: JournalError| tracing::warn!(%shard, %error, "survey: passed over");
        while !records.is_empty() {
            match (records.incarnation(), records.next()?) {
                (Ok(incarnation), record) => match gateway(incarnation, &record) {
                    Some(record) => survey.gateways.push(record),
                    None => survey.damaged_gateways.push(incarnation),
                },
                (Err(error), _) => nobody(error),
            }
        }
        while !names.is_empty() {
            names.parse().map_or_else(nobody, |room| survey.active.push(room));
        }
        while !states.is_empty() {
            match (states.parse::<RoomId>(), states.take(3)?) {
                (Ok(room), mut state) => match state.head(&room) {
                    Ok(head) => survey.rooms.push(head),
                    Err(_) => survey.damaged_rooms.push(room),
                },
                (Err(error), _) => nobody(error),
            }
        }
        survey.gateways.sort_unstable_by_key(|record| record.incarnation);
        survey.active.sort_unstable();
        survey.rooms.sort_unstable_by(|a, b| a.room.cmp(&b.room));
        Ok(survey)
    }

    /// What cannot be read is the room's own damage.
    pub(super) async fn load_step(&self, room: &RoomId) -> Result<StoredRoom, JournalError> {
        let keys = self.room(room);
        let mut call = Call::new(&LOAD, 5, 0, 5 * ROOM_BYTES);
        call.text(keys.room(room)).text(keys.out(room)).text(keys.state(room)).text(keys.snapshot(room)).text(&keys.shard);
        stored(self.send(&call).await?).map_err(|error| JournalError::Damaged(error.to_string()))
    }

    pub(super) async fn read_step(&self, room: &RoomId, after: StreamId) -> Result<Vec<(StreamId, Bytes)>, JournalError> {
        let mut command = ::redis::cmd("XRANGE");
        command.arg(self.room(room).room(room).to_string()).arg(format!("({after}")).arg("+");
        let reply: Value = self.ask(&command).await?;
        Reply::new("read", Value::Array(vec![reply]))?.stream().map_err(|error| JournalError::Damaged(error.to_string()))
    }
}

/// A room as `load.lua` tells it.
fn stored(reply: Value) -> Result<StoredRoom, JournalError> {
    let mut reply = Reply::new("load", reply)?;
    if reply.is_empty() {
        return Ok(StoredRoom::default());
    }
    let (era, seq, cursor) = (reply.parse()?, reply.parse()?, reply.parse()?);
    let (deaths, attempts) = (reply.parse()?, reply.parse()?);
    let snapshot = match (reply.parse_or_nil()?, reply.parse_or_nil()?, reply.bytes_or_nil()?) {
        (None, None, None) => None,
        (Some(seq), Some(cursor), Some(bytes)) => Some(StoredSnapshot { seq, cursor, bytes }),
        _ => return Err(reply.error("a part of the snapshot is missing")),
    };
    let trims: String = reply.parse()?;
    let trims = trims.split(',').filter(|point| !point.is_empty()).map(|point| {
        let (at, seq) = point.rsplit_once('.')?;
        Some((at.parse().ok()?, seq.parse().ok()?))
    });
    let trims = trims.collect::<Option<_>>().ok_or_else(|| reply.error("trim points"))?;
    let (verdicts, entries) = (payloads(reply.stream()?), reply.stream()?);
    reply.end()?;
    Ok(StoredRoom { era, seq, cursor, snapshot, verdicts, entries, deaths, attempts, trims })
}

fn payloads(entries: Vec<(StreamId, Bytes)>) -> Vec<Bytes> {
    entries.into_iter().map(|(_, bytes)| bytes).collect()
}

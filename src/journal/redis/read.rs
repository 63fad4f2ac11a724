//! What is read: heads, verdicts, shards, rooms.

use ::redis::Value;

use super::super::{JournalError, PageSize, Place, RoomHead, StoredHead, StoredPage, Survey, VerdictPage, check};
use super::RedisJournal;
use super::append::{Hex, ROOM_BYTES};
use super::reply::{Reply, gateway};
use super::scripts::{Call, HEADS, LOAD, SURVEY, VERDICTS};
use crate::journal::Journal;
use crate::limits::PAGE_BYTES;
use crate::types::{Incarnation, RoomId, ShardId};

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
    pub(super) async fn load_step(&self, room: &RoomId, place: Place, size: PageSize) -> Result<StoredPage, JournalError> {
        let keys = self.room(room);
        let mut call = Call::new(&LOAD, 6, 4, 6 * ROOM_BYTES);
        call.text(keys.room(room)).text(keys.out(room)).text(keys.state(room)).text(keys.snapshot(room)).text(keys.parts(room));
        call.text(&keys.shard);
        match place {
            Place::Snapshot(pieces) => call.text(0).text(pieces),
            Place::Verdicts(seq) => call.text(1).text(seq),
            Place::Entries(position) => call.text(2).text(position),
        };
        call.text(size.bytes.max(1)).text(size.entries.max(1));
        stored(place, self.send(&call).await?).map_err(|error| JournalError::Damaged(error.to_string()))
    }
}

/// A page as `load.lua` tells it.
fn stored(place: Place, reply: Value) -> Result<StoredPage, JournalError> {
    let mut reply = Reply::new("load", reply)?;
    if reply.is_empty() {
        return Ok(StoredPage::default());
    }
    let (era, seq, cursor) = (reply.parse()?, reply.parse()?, reply.parse()?);
    let (deaths, attempts) = (reply.parse()?, reply.parse()?);
    let snapshot = match (reply.parse_or_nil()?, reply.parse_or_nil()?) {
        (None, None) => None,
        (Some(seq), Some(cursor)) => Some((seq, cursor)),
        _ => return Err(reply.error("a part of the snapshot is missing")),
    };
    let trims: String = reply.parse()?;
    let trims = trims.split(',').filter(|point| !point.is_empty()).map(|point| {
        let (at, seq) = point.rsplit_once('.')?;
        Some((at.parse().ok()?, seq.parse().ok()?))
    });
    let trims = trims.collect::<Option<_>>().ok_or_else(|| reply.error("trim points"))?;
    let head = StoredHead { era, seq, cursor, snapshot, deaths, attempts, trims };
    let pieces = reply.payloads_or_nil()?.ok_or_else(|| reply.error("a part of the snapshot is missing"))?;
    let (verdicts, entries) = (reply.payloads()?, reply.stream()?);
    let next = match reply.parse::<u8>()? {
        0 => Some(Place::Snapshot(reply.parse()?)),
        1 => Some(Place::Verdicts(reply.parse()?)),
        2 => Some(Place::Entries(reply.parse()?)),
        3 => reply.bytes().map(|_| None)?,
        other => return Err(reply.error(&format!("a page that begins in {other}"))),
    };
    if next.is_some_and(|next| next <= place) {
        return Err(reply.error("a page that leads back to where it began: an ID that is not a seq"));
    }
    reply.end()?;
    Ok(StoredPage { head, snapshot: pieces, verdicts, entries, next })
}

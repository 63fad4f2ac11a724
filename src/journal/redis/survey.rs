//! What a shard's owner reads of it: its survey, and its rooms page by page.

use super::super::{JournalError, RoomsPage, RoomsPlace, Survey};
use super::RedisJournal;
use super::keys::Hex;
use super::reply::{Reply, gateway};
use super::scripts::{Call, ROOM_BYTES, ROOMS, SURVEY};
use crate::types::{RoomId, ShardId};

impl RedisJournal {
    /// The counters, the gateways and the active rooms.
    pub(super) async fn read_survey(&self, shard: ShardId) -> Result<Survey, JournalError> {
        let keys = self.shard(shard)?;
        let mut call = Call::new(&SURVEY, 3, 1, ROOM_BYTES);
        call.text(&keys.shard).text(&keys.gateways).text(&keys.active);
        let place = self.at(Some(shard)).await?;
        let server = place.server;
        call.text(Hex(server));
        let mut reply = Reply::new("survey", self.send_on(&place, &call).await?)?;
        let (append, commit, doubt) = (reply.parse()?, reply.parse()?, reply.parse_or_nil()?);
        let (mut records, mut names) = (reply.array()?, reply.array()?);
        reply.end()?;
        let mut survey = Survey { server, append, commit, doubt, ..Survey::default() };
        while !records.is_empty() {
            match (records.incarnation(), records.next()?) {
                (Ok(incarnation), record) => match gateway(incarnation, &record) {
                    Some(record) => survey.gateways.push(record),
                    None => survey.damaged_gateways.push(incarnation),
                },
                (Err(error), _) => nobody(shard, &error),
            }
        }
        while !names.is_empty() {
            names.parse().map_or_else(|error| nobody(shard, &error), |room| survey.active.push(room));
        }
        survey.gateways.sort_unstable_by_key(|record| record.incarnation);
        survey.active.sort_unstable();
        Ok(survey)
    }

    /// A page of the shard's rooms.
    pub(super) async fn read_rooms(&self, shard: ShardId, place: &RoomsPlace, count: usize) -> Result<RoomsPage, JournalError> {
        let keys = self.shard(shard)?;
        let mut call = Call::new(&ROOMS, 3, 4, ROOM_BYTES);
        call.text(&keys.shard).text(&keys.rooms).text(&keys.due);
        match place {
            RoomsPlace::Due(cursor) => call.text("due").text(from(cursor)),
            RoomsPlace::Heads(cursor) => call.text("heads").text(from(cursor)),
        };
        call.text(count.max(1)).text(keys.states());
        let place = self.at(Some(shard)).await?;
        let server = place.server;
        let mut reply = Reply::new("rooms", self.send_on(&place, &call).await?)?;
        let (begins, cursor) = (reply.parse_or_nil::<String>()?, reply.parse()?);
        let next = match begins.as_deref() {
            None => None,
            Some("due") => Some(RoomsPlace::Due(cursor)),
            Some("heads") => Some(RoomsPlace::Heads(cursor)),
            Some(other) => return Err(reply.error(&format!("a page that begins at {other:?}"))),
        };
        let (due, mut states) = (reply.array_or_nil()?, reply.array()?);
        reply.end()?;
        let mut page = RoomsPage { server, next, ..RoomsPage::default() };
        while !states.is_empty() {
            match (states.parse::<RoomId>(), states.take(3)?) {
                (Ok(room), mut state) => match state.head(&room) {
                    Ok(head) => page.rooms.push(head),
                    Err(_) => page.damaged_rooms.push(room),
                },
                (Err(error), _) => nobody(shard, &error),
            }
        }
        match due {
            None => tracing::warn!(
                "{} is no sorted set: delete it. Until a room's timers change, a takeover does not know when it is due",
                keys.due
            ),
            Some(mut due) => {
                while !due.is_empty() {
                    let (room, ms) = (due.parse(), due.parse()?);
                    room.map_or_else(|error| nobody(shard, &error), |room| page.due.push((room, ms)));
                }
            }
        }
        page.due.sort_unstable_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
        page.rooms.sort_unstable_by(|a, b| a.room.cmp(&b.room));
        Ok(page)
    }
}

/// A scan begins at 0.
fn from(cursor: &str) -> &str {
    if cursor.is_empty() { "0" } else { cursor }
}

/// An unreadable record affects one gateway or one room. An entry with an unreadable name is ignored.
fn nobody(shard: ShardId, error: &JournalError) {
    tracing::warn!(%shard, %error, "the survey ignores an entry with an unreadable name");
}

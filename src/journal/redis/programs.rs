//! The steps on programs in files.

use ::redis::{Value, cmd};
use async_trait::async_trait;
use bytes::Bytes;

use super::super::JournalError;
use super::super::programs::{ProgramJournal, ProgramPush, PushAnswer, Pushed, PushedBy};
use super::RedisJournal;
use super::reply::{Reply, code, unexpected};
use super::scripts::{Call, DROP, PUSH, ROOM_BYTES};
use crate::limits::PROGRAMS_KEPT_MAX;
use crate::types::{ProgramId, RoomId, ShardId};

/// Rooms that one step of a scan looks at.
const ROOMS_PER_SCAN: usize = 1_000;

/// Reads `push|program|version|ms|name`.
fn record(pattern: &str, text: &str) -> Option<Pushed> {
    let mut fields = text.splitn(5, '|');
    Some(Pushed {
        pattern: pattern.to_owned(),
        push: fields.next()?.parse().ok()?,
        program: fields.next()?.parse().ok()?,
        version: fields.next()?.parse().ok()?,
        at_ms: fields.next()?.parse().ok()?,
        name: fields.next()?.to_owned(),
    })
}

impl RedisJournal {
    async fn ask(&self, of: Option<ShardId>, cmd: ::redis::Cmd) -> Result<Value, JournalError> {
        let mut place = self.at(of).await?;
        let answer = cmd.query_async(&mut place.live.connection).await;
        place.judge(answer)
    }
}

#[async_trait]
impl ProgramJournal for RedisJournal {
    async fn push_program(&self, push: &ProgramPush) -> Result<PushAnswer, JournalError> {
        let keys = &self.0.keys;
        let mut call = Call::new(PUSH.by(keys.tags), 3, 9, ROOM_BYTES + push.text.len());
        call.text(&keys.programs).text(&keys.rules).text(&keys.workers);
        call.text(&push.pattern).text(ProgramId::of(&push.text)).text(push.version).text(&push.name).bytes(&push.text);
        call.text(match push.by {
            PushedBy::Start => "start",
            PushedBy::Hand => "hand",
            PushedBy::HandAgain => "again",
        });
        call.text(PROGRAMS_KEPT_MAX).text(keys.pushes()).bytes(&ProgramPush::told());
        let mut reply = Reply::new("push program", self.send(None, &call).await?)?;
        let (code, text) = (reply.parse::<u8>()?, if reply.is_empty() { String::new() } else { reply.parse()? });
        reply.end()?;
        let found = || record(&push.pattern, &text).ok_or_else(|| unexpected("push program", &format!("record {text:?}")));
        Ok(match code {
            0 => PushAnswer::Decides(found()?),
            1 => PushAnswer::Stays(found()?),
            2 => PushAnswer::Full,
            3 => PushAnswer::Unknown,
            other => return Err(unexpected("push program", &format!("code {other}"))),
        })
    }

    async fn pushed_programs(&self) -> Result<Vec<Pushed>, JournalError> {
        let mut all = cmd("HGETALL");
        all.arg(&self.0.keys.rules);
        let mut reply = Reply::new("pushed programs", self.ask(None, all).await?)?;
        let mut pushed = Vec::new();
        while !reply.is_empty() {
            let (pattern, text) = (reply.bytes()?, reply.bytes()?);
            // The count of pushes is under no pattern.
            if let (false, Ok(pattern), Ok(text)) =
                (pattern.is_empty(), std::str::from_utf8(&pattern), std::str::from_utf8(&text))
            {
                pushed.extend(record(pattern, text));
            }
        }
        pushed.sort_by(|one: &Pushed, other| one.pattern.cmp(&other.pattern));
        Ok(pushed)
    }

    async fn program(&self, program: ProgramId) -> Result<Option<Bytes>, JournalError> {
        let mut get = cmd("HGET");
        get.arg(&self.0.keys.programs).arg(program.to_string());
        let text = Reply::new("program", Value::Array(vec![self.ask(None, get).await?]))?.bytes_or_nil()?;
        Ok(text.filter(|text| ProgramId::of(text) == program))
    }

    async fn kept_programs(&self) -> Result<Vec<(ProgramId, usize)>, JournalError> {
        let mut names = cmd("HKEYS");
        names.arg(&self.0.keys.programs);
        let mut reply = Reply::new("kept programs", self.ask(None, names).await?)?;
        let mut kept = Vec::new();
        while !reply.is_empty() {
            let name: String = reply.parse()?;
            let Ok(program) = name.parse::<ProgramId>() else { continue };
            let mut length = cmd("HSTRLEN");
            length.arg(&self.0.keys.programs).arg(name);
            let bytes = Reply::new("kept programs", Value::Array(vec![self.ask(None, length).await?]))?.parse()?;
            kept.push((program, bytes));
        }
        kept.sort_unstable();
        Ok(kept)
    }

    async fn stored_rooms(&self, shard: ShardId) -> Result<Vec<RoomId>, JournalError> {
        let (key, mut rooms, mut cursor) = (&self.shard(shard)?.rooms, Vec::new(), "0".to_owned());
        loop {
            let mut scan = cmd("SSCAN");
            scan.arg(key).arg(&cursor).arg("COUNT").arg(ROOMS_PER_SCAN);
            let mut reply = Reply::new("stored rooms", self.ask(Some(shard), scan).await?)?;
            cursor = reply.parse()?;
            let mut page = reply.array()?;
            reply.end()?;
            while !page.is_empty() {
                rooms.push(page.parse()?);
            }
            if cursor == "0" {
                break;
            }
        }
        // A scan may tell a room twice.
        rooms.sort_unstable();
        rooms.dedup();
        Ok(rooms)
    }

    async fn drop_program(&self, program: ProgramId) -> Result<bool, JournalError> {
        let mut call = Call::new(&DROP, 2, 1, ROOM_BYTES);
        call.text(&self.0.keys.programs).text(&self.0.keys.rules).text(program);
        Ok(code("drop program", &self.send(None, &call).await?)? == 0)
    }
}

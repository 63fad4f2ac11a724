//! Reads replies strictly: whatever differs from the script's header is [`JournalError::Unexpected`].

use std::str::FromStr;

use bytes::Bytes;
use redis::Value;

use super::super::{
    GatewayRecord, JournalError, Lease, Place, RoomHead, ShardHome, ShardOwner, StoredHead, StoredPage, Successor, WorkerRecord,
};
use crate::types::{Home, HostId, Incarnation, RoomId, Seed, ShardId, StreamId};

/// A named successor, as `name.lua` writes it. A damaged name counts as none, as one that has run out.
fn successor(text: &str, now_ms: u64) -> Option<Successor> {
    let mut fields = text.splitn(3, '|');
    let until: u64 = fields.next()?.parse().ok()?;
    let next = Successor { host: HostId::new(fields.next()?).ok()?, url: fields.next()?.to_owned() };
    (until > now_ms).then_some(next)
}

/// The reply of a step, read from the front.
pub(super) struct Reply {
    step: &'static str,
    values: std::vec::IntoIter<Value>,
}

pub(super) fn unexpected(step: &'static str, why: &str) -> JournalError {
    let why: String = why.chars().take(200).collect();
    JournalError::Unexpected(format!("reply to {step}: {why}: is another version of lasthit using this prefix?"))
}

impl Reply {
    pub(super) fn new(step: &'static str, value: Value) -> Result<Self, JournalError> {
        match value {
            Value::Array(values) => Ok(Self { step, values: values.into_iter() }),
            other => Err(unexpected(step, &format!("{other:?} instead of an array"))),
        }
    }

    pub(super) fn error(&self, why: &str) -> JournalError {
        unexpected(self.step, why)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.values.len() == 0
    }

    pub(super) fn next(&mut self) -> Result<Value, JournalError> {
        self.values.next().ok_or_else(|| unexpected(self.step, "it ends early"))
    }

    pub(super) fn array(&mut self) -> Result<Self, JournalError> {
        Self::new(self.step, self.next()?)
    }

    pub(super) fn array_or_nil(&mut self) -> Result<Option<Self>, JournalError> {
        match self.next()? {
            Value::Nil => Ok(None),
            value => Self::new(self.step, value).map(Some),
        }
    }

    /// The next `count` values, of any kind.
    pub(super) fn take(&mut self, count: usize) -> Result<Self, JournalError> {
        let values = (0..count).map(|_| self.next()).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { step: self.step, values: values.into_iter() })
    }

    pub(super) fn bytes_or_nil(&mut self) -> Result<Option<Bytes>, JournalError> {
        match self.next()? {
            Value::BulkString(bytes) => Ok(Some(bytes.into())),
            Value::Nil => Ok(None),
            other => Err(self.error(&format!("{other:?} instead of bytes"))),
        }
    }

    pub(super) fn bytes(&mut self) -> Result<Bytes, JournalError> {
        self.bytes_or_nil()?.ok_or_else(|| self.error("nothing instead of bytes"))
    }

    /// A value that is parsed from text. An integer counts as its text.
    pub(super) fn parse<T: FromStr>(&mut self) -> Result<T, JournalError> {
        let value = self.next()?;
        let parsed = match &value {
            Value::BulkString(bytes) => std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()),
            Value::Int(number) => number.to_string().parse().ok(),
            _ => None,
        };
        parsed.ok_or_else(|| self.error(&format!("{value:?} is not a {}", std::any::type_name::<T>())))
    }

    pub(super) fn parse_or_nil<T: FromStr>(&mut self) -> Result<Option<T>, JournalError> {
        if let Some(Value::Nil) = self.values.as_slice().first() {
            return self.next().map(|_| None);
        }
        self.parse().map(Some)
    }

    pub(super) fn incarnation(&mut self) -> Result<Incarnation, JournalError> {
        let hex: String = self.parse()?;
        Incarnation::from_hex(&hex).ok_or_else(|| self.error(&format!("{hex:?} is not an incarnation")))
    }

    /// [`Incarnation::NONE`] for an empty text.
    pub(super) fn incarnation_or_empty(&mut self) -> Result<Incarnation, JournalError> {
        let hex: String = self.parse()?;
        let read = if hex.is_empty() { Some(Incarnation::NONE) } else { Incarnation::from_hex(&hex) };
        read.ok_or_else(|| self.error(&format!("{hex:?} is not an incarnation")))
    }

    fn seed_or_nil(&mut self) -> Result<Option<Seed>, JournalError> {
        let Some(hex) = self.parse_or_nil::<String>()? else { return Ok(None) };
        let seed = Incarnation::from_hex(&hex).map(|read| Seed(read.0));
        seed.map(Some).ok_or_else(|| self.error("a seed that is not 32 hexadecimal digits"))
    }

    pub(super) fn head(&mut self, room: &RoomId) -> Result<RoomHead, JournalError> {
        Ok(RoomHead { room: room.clone(), era: self.parse()?, seq: self.parse()?, top: self.parse()? })
    }

    pub(super) fn gateway(&mut self, incarnation: Incarnation) -> Result<GatewayRecord, JournalError> {
        let record = self.next()?;
        gateway(incarnation, &record).ok_or_else(|| self.error(&format!("gateway record {record:?}")))
    }

    /// Positions, each with an entry.
    pub(super) fn stream(&mut self) -> Result<Vec<(StreamId, Bytes)>, JournalError> {
        let mut entries = self.array()?;
        let mut all = Vec::with_capacity(entries.values.len() / 2);
        while !entries.is_empty() {
            all.push((entries.parse()?, entries.bytes()?));
        }
        Ok(all)
    }

    pub(super) fn payloads(&mut self) -> Result<Vec<Bytes>, JournalError> {
        self.payloads_or_nil()?.ok_or_else(|| self.error("nothing instead of bytes"))
    }

    /// None if one of them is missing.
    pub(super) fn payloads_or_nil(&mut self) -> Result<Option<Vec<Bytes>>, JournalError> {
        let mut payloads = self.array()?;
        let mut all = Vec::with_capacity(payloads.values.len());
        while !payloads.is_empty() {
            all.push(payloads.bytes_or_nil()?);
        }
        Ok(all.into_iter().collect())
    }

    /// The rest: indexes (from 1) of the rooms that were sent; at least one.
    pub(super) fn indexed<'a>(&mut self, sent: impl Iterator<Item = &'a RoomId> + Clone) -> Result<Vec<RoomId>, JournalError> {
        let mut named = vec![self.one_of(sent.clone())?];
        while !self.is_empty() {
            named.push(self.one_of(sent.clone())?);
        }
        Ok(named)
    }

    fn one_of<'a>(&mut self, mut sent: impl Iterator<Item = &'a RoomId>) -> Result<RoomId, JournalError> {
        let index = self.parse::<usize>()?;
        let room = index.checked_sub(1).and_then(|index| sent.nth(index));
        room.cloned().ok_or_else(|| self.error(&format!("room {index} was not sent")))
    }

    /// The home and the address of a shard; None if it has none.
    fn home_or_empty(&mut self) -> Result<Option<Home>, JournalError> {
        let (home, address): (String, String) = (self.parse()?, self.parse()?);
        let read = if home.is_empty() { Ok(None) } else { Home::parse_record(&home, &address).map(Some) };
        read.map_err(|error| self.error(&error.to_string()))
    }

    /// The rest: the home and the address of a shard that is elsewhere; None if it has none.
    pub(super) fn home(mut self) -> Result<Option<Home>, JournalError> {
        let home = self.home_or_empty()?;
        self.end().map(|()| home)
    }

    /// The rest: where a shard is at home, as `home.lua` returns it.
    pub(super) fn shard_home(mut self) -> Result<ShardHome, JournalError> {
        let home = self.home_or_empty()?;
        let (next, next_left_ms) = if self.is_empty() {
            (None, 0)
        } else {
            let (left_ms, host): (_, String) = (self.parse()?, self.parse()?);
            let host = HostId::new(&host).map_err(|error| self.error(&format!("next: {error}")))?;
            (Some(Successor { host, url: self.parse()? }), left_ms)
        };
        self.end().map(|()| ShardHome { home, next, next_left_ms })
    }

    /// Whether the next value is an empty text, which is then read.
    pub(super) fn skip_empty(&mut self) -> bool {
        let empty = matches!(self.values.as_slice().first(), Some(Value::BulkString(bytes)) if bytes.is_empty());
        empty && self.next().is_ok()
    }

    /// A shard's epoch, owner and home. What cannot be read is nobody's lease.
    pub(super) fn owner(mut self, server: Incarnation, now_ms: u64) -> Result<ShardOwner, JournalError> {
        let mut text = || self.bytes_or_nil().map(|bytes| bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()));
        let (epoch, owner, home, address, next) = (text()?, text()?, text()?, text()?, text()?);
        self.end()?;
        // Whoever claims a shard with a damaged home is told so; its owner is known all the same.
        let home = home.and_then(|home| Home::parse_record(&home, &address.unwrap_or_default()).ok());
        let lease = || {
            let (epoch, owner) = (epoch?.parse().ok()?, Incarnation::from_hex(&owner?)?);
            Some(Lease { epoch, owner, server, home: home.as_ref().map_or(0, |home| home.number) })
        };
        Ok(ShardOwner { lease: lease(), next: next.and_then(|next| successor(&next, now_ms)), home })
    }

    /// The answer to `TIME`, in milliseconds.
    pub(super) fn time_ms(mut self) -> Result<u64, JournalError> {
        let (seconds, micros): (u64, u64) = (self.parse()?, self.parse()?);
        self.end()?;
        Ok(seconds.saturating_mul(1_000).saturating_add(micros / 1_000))
    }

    /// The rest: living workers.
    pub(super) fn workers(mut self) -> Result<Vec<WorkerRecord>, JournalError> {
        let mut living = Vec::new();
        while !self.is_empty() {
            let incarnation = self.incarnation()?;
            let owned: String = self.parse()?;
            // An unreadable number of a shard is ignored: the owner writes its entry again.
            let shards = owned.split(',').filter_map(|shard| shard.parse().ok()).map(ShardId).collect();
            living.push(WorkerRecord { incarnation, shards });
        }
        living.sort_unstable_by_key(|record| record.incarnation);
        Ok(living)
    }

    /// The rest: a page of a room, as `load.lua` returns it.
    pub(super) fn page(mut self, place: Place) -> Result<StoredPage, JournalError> {
        if self.is_empty() {
            return Ok(StoredPage::default());
        }
        let (era, seq, cursor) = (self.parse()?, self.parse()?, self.parse()?);
        let (deaths, attempts) = (self.parse()?, self.parse()?);
        let snapshot = match (self.parse_or_nil()?, self.parse_or_nil()?) {
            (None, None) => None,
            (Some(seq), Some(cursor)) => Some((seq, cursor)),
            _ => return Err(self.error("a part of the snapshot is missing")),
        };
        let trims: String = self.parse()?;
        let trims = trims.split(',').filter(|point| !point.is_empty()).map(|point| {
            let (at, seq) = point.rsplit_once('.')?;
            Some((at.parse().ok()?, seq.parse().ok()?))
        });
        let trims = trims.collect::<Option<_>>().ok_or_else(|| self.error("trim points"))?;
        let seed = self.seed_or_nil()?;
        let head = StoredHead { era, seq, cursor, snapshot, deaths, attempts, trims, seed };
        let pieces = self.payloads_or_nil()?.ok_or_else(|| self.error("a part of the snapshot is missing"))?;
        let (verdicts, entries) = (self.payloads()?, self.stream()?);
        let next = match self.parse::<u8>()? {
            0 => Some(Place::Snapshot(self.parse()?)),
            1 => Some(Place::Verdicts(self.parse()?)),
            2 => Some(Place::Entries(self.parse()?)),
            3 => self.bytes().map(|_| None)?,
            other => return Err(self.error(&format!("a page that begins in {other}"))),
        };
        if next.is_some_and(|next| next <= place) {
            return Err(self.error("a page that leads back to where it began: an ID that is not a seq"));
        }
        let program = self.bytes_or_nil()?;
        self.end()?;
        Ok(StoredPage { head, snapshot: pieces, program, verdicts, entries, next })
    }

    pub(super) fn end(self) -> Result<(), JournalError> {
        if self.is_empty() { Ok(()) } else { Err(self.error(&format!("{} values too many", self.values.len()))) }
    }
}

/// A gateway's packed record: `number|watermark|fenced|server`; None for a damaged one.
pub(super) fn gateway(incarnation: Incarnation, record: &Value) -> Option<GatewayRecord> {
    let Value::BulkString(record) = record else { return None };
    let mut parts = std::str::from_utf8(record).ok()?.split('|');
    let (number, watermark, fenced) = (parts.next()?, parts.next()?, parts.next()?);
    let server = Incarnation::from_hex(parts.next()?)?;
    let fenced = match (fenced, parts.next()) {
        ("0", None) => false,
        ("1", None) => true,
        _ => return None,
    };
    Some(GatewayRecord { incarnation, number: number.parse().ok()?, watermark: watermark.parse().ok()?, fenced, server })
}

/// A reply of one small number.
pub(super) fn code(step: &'static str, value: &Value) -> Result<i64, JournalError> {
    match value {
        Value::Int(code) => Ok(*code),
        other => Err(unexpected(step, &format!("{other:?} instead of a number"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Moment;

    #[test]
    fn gateway_records_are_read_strictly() {
        let watermark = Moment { timeline: 1, ns: u64::MAX };
        let (incarnation, server) = (Incarnation(1), Incarnation(1 << 100));
        let hex = server.to_hex();
        let gateway = |incarnation, record: &str| gateway(incarnation, &Value::BulkString(record.into()));
        let read = gateway(incarnation, &format!("7|{watermark}|1|{hex}"));
        assert_eq!(read, Some(GatewayRecord { incarnation, number: 7, watermark, fenced: true, server }));
        let [w, h] = [&watermark.to_string(), &hex];
        let bad = [
            String::new(),
            "7".into(),
            format!("7|00|0|{h}"),
            format!("7|{w}|0"),
            format!("7|{w}|2|{h}"),
            format!("7|{w}|0|"),
            format!("7|{w}|0|x"),
            format!("7|{w}|0|{h}|"),
            format!("x|{w}|0|{h}"),
        ];
        for bad in bad {
            assert_eq!(gateway(incarnation, &bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_not_as_announced_is_an_error() {
        assert!(Reply::new("test", Value::Nil).is_err());
        let mut reply = Reply::new("test", Value::Array(vec![Value::Int(-1), Value::Nil])).expect("array");
        assert!(reply.parse::<u64>().is_err());
        assert!(reply.bytes().is_err());
        assert!(reply.parse::<u64>().expect_err("end").to_string().contains("ends early"));
    }
}

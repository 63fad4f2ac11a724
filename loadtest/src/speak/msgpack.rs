//! One pass over a message in MessagePack: the fields of [`Frame`] are borrowed from it, everything else is stepped over. The
//! generator reads every verdict there is, on the cores of what it measures.

use anyhow::{Context, Result, bail, ensure};

use super::frame::{Frame, Nanos, Text};

impl<'a> Frame<'a> {
    /// Reads a map of fields, each at most once; those that a frame does not have are skipped.
    pub(super) fn from_msgpack(message: &'a [u8]) -> Result<Self> {
        let mut pass = Pass(message);
        let Value::Map(fields) = pass.value()? else { bail!("it is no map") };
        let (mut frame, mut seen) = (Self::default(), 0_u32);
        for _ in 0..fields {
            let Value::Text(name) = pass.value()? else { bail!("a field's name is no text") };
            let bit = match name {
                b"t" => frame.t.put(pass.value()?, 0),
                b"era" => frame.era.put(pass.value()?, 1),
                b"seq" => frame.seq.put(pass.value()?, 2),
                b"from" => frame.from.put(pass.value()?, 3),
                b"session" => frame.session.put(pass.value()?, 4),
                b"id" => frame.id.put(pass.value()?, 5),
                b"contest" => frame.contest.put(pass.value()?, 6),
                b"round" => frame.round.put(pass.value()?, 7),
                b"outcome" => frame.outcome.put(pass.value()?, 8),
                b"reason" => frame.reason.put(pass.value()?, 9),
                b"code" => frame.code.put(pass.value()?, 10),
                b"message" => frame.message.put(pass.value()?, 11),
                b"clamped" => frame.clamped.put(pass.value()?, 12),
                b"unproven" => frame.unproven.put(pass.value()?, 13),
                b"photo_finish" => frame.photo_finish.put(pass.value()?, 14),
                b"uncertainty_ns" => frame.uncertainty_ns.put(pass.value()?, 15),
                b"behind_ns" => frame.behind_ns.put(pass.value()?, 16),
                b"repeat_of" => frame.repeat_of.put(pass.value()?, 17),
                b"resumed" => frame.resumed.put(pass.value()?, 18),
                b"within_ms" => frame.within_ms.put(pass.value()?, 19),
                b"url" => frame.url.put(pass.value()?, 20),
                _ => pass.skip().map(|()| 0),
            };
            let bit = bit.with_context(|| format!("field {:?}", String::from_utf8_lossy(name)))?;
            ensure!(seen & bit == 0, "field {:?} is there twice", String::from_utf8_lossy(name));
            seen |= bit;
        }
        ensure!(pass.0.is_empty(), "{} bytes behind it", pass.0.len());
        Ok(frame)
    }
}

/// A field that takes a value.
trait Put<'a> {
    /// The field's own bit.
    fn put(&mut self, value: Value<'a>, number: u32) -> Result<u32>;
}

impl<'a> Put<'a> for Text<'a> {
    fn put(&mut self, value: Value<'a>, number: u32) -> Result<u32> {
        match value {
            Value::Text(text) => *self = std::str::from_utf8(text)?.into(),
            Value::Nil => {}
            other => bail!("{other:?} is no text"),
        }
        Ok(1 << number)
    }
}

impl<'a> Put<'a> for u64 {
    fn put(&mut self, value: Value<'a>, number: u32) -> Result<u32> {
        let Value::Uint(read) = value else { bail!("{value:?} is no number") };
        *self = read;
        Ok(1 << number)
    }
}

impl<'a> Put<'a> for bool {
    fn put(&mut self, value: Value<'a>, number: u32) -> Result<u32> {
        let Value::Bool(read) = value else { bail!("{value:?} is neither true nor false") };
        *self = read;
        Ok(1 << number)
    }
}

impl<'a> Put<'a> for Option<u64> {
    fn put(&mut self, value: Value<'a>, number: u32) -> Result<u32> {
        match value {
            Value::Nil => Ok(1 << number),
            value => self.insert(0).put(value, number),
        }
    }
}

impl<'a> Put<'a> for Option<Nanos> {
    fn put(&mut self, value: Value<'a>, number: u32) -> Result<u32> {
        let mut read = None;
        let bit = read.put(value, number)?;
        *self = read.map(Nanos);
        Ok(bit)
    }
}

/// One value, or the head of one that has others in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value<'a> {
    Nil,
    Bool(bool),
    Uint(u64),
    Text(&'a [u8]),
    /// So many pairs follow.
    Map(u64),
    /// So many values follow.
    Array(u64),
    /// What no field has: binary, a fraction, a number below 0, an extension.
    Other,
}

/// What is left of a message.
struct Pass<'a>(&'a [u8]);

impl<'a> Pass<'a> {
    fn take(&mut self, len: u64) -> Result<&'a [u8]> {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let (taken, rest) =
            self.0.split_at_checked(len).with_context(|| format!("{len} bytes announced, {} there", self.0.len()))?;
        self.0 = rest;
        Ok(taken)
    }

    fn uint(&mut self, bytes: u64) -> Result<u64> {
        Ok(self.take(bytes)?.iter().fold(0, |all, byte| all << 8 | u64::from(*byte)))
    }

    fn other(&mut self, len: u64) -> Result<Value<'a>> {
        self.take(len).map(|_| Value::Other)
    }

    fn value(&mut self) -> Result<Value<'a>> {
        let marker = self.take(1)?[0];
        let low = u64::from(marker);
        Ok(match marker {
            0x00..=0x7f => Value::Uint(low),
            0x80..=0x8f => Value::Map(low & 0x0f),
            0x90..=0x9f => Value::Array(low & 0x0f),
            0xa0..=0xbf => Value::Text(self.take(low & 0x1f)?),
            0xc0 => Value::Nil,
            0xc2 | 0xc3 => Value::Bool(marker == 0xc3),
            0xcc..=0xcf => Value::Uint(self.uint(1 << (low - 0xcc))?),
            0xd9..=0xdb => {
                let len = self.uint(1 << (low - 0xd9))?;
                Value::Text(self.take(len)?)
            }
            0xdc | 0xdd => Value::Array(self.uint(2 << (low - 0xdc))?),
            0xde | 0xdf => Value::Map(self.uint(2 << (low - 0xde))?),
            0xc4..=0xc6 => {
                let len = self.uint(1 << (low - 0xc4))?;
                self.other(len)?
            }
            0xc7..=0xc9 => {
                let len = self.uint(1 << (low - 0xc7))?;
                self.other(len + 1)?
            }
            0xca | 0xcb => self.other(4 << (low - 0xca))?,
            0xd0..=0xd3 => self.other(1 << (low - 0xd0))?,
            0xd4..=0xd8 => self.other((1 << (low - 0xd4)) + 1)?,
            0xe0..=0xff => Value::Other,
            0xc1 => bail!("byte 0xc1 means nothing"),
        })
    }

    /// Steps over a value and all that is in it; each takes a byte at least, so that this ends.
    fn skip(&mut self) -> Result<()> {
        let mut left = 1_u64;
        while left > 0 {
            left = left - 1
                + match self.value()? {
                    Value::Map(pairs) => pairs * 2,
                    Value::Array(values) => values,
                    _ => 0,
                };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::speak::frame::Encoding;

    fn packed(value: &serde_json::Value) -> Vec<u8> {
        rmp_serde::to_vec_named(value).expect("memory")
    }

    #[test]
    fn it_reads_what_serde_reads() {
        let nested = json!({"a": [1, -1, 1.5, "x".repeat(300), null, true, vec![0; 20]], "b": {"c": {}}});
        for number in [0, 127, 128, 255, 256, 65_535, 65_536, u64::from(u32::MAX), u64::MAX] {
            let text = "ä".repeat(usize::try_from(number % 200).expect("small"));
            let message = packed(&json!({
                "t": "verdict", "body": nested, "era": number, "seq": number, "from": number, "session": text, "id": text,
                "contest": null, "round": number, "outcome": "denied", "reason": text, "code": "busy", "message": text,
                "clamped": true, "unproven": false, "photo_finish": true, "uncertainty_ns": number, "behind_ns": null,
            }));
            let (one, other) = (Frame::from_msgpack(&message), rmp_serde::from_slice::<Frame<'_>>(&message));
            assert_eq!(format!("{:?}", one.expect("frame")), format!("{:?}", other.expect("frame")));
        }
    }

    #[test]
    fn what_is_no_frame_is_named() {
        for (message, named) in [
            (packed(&json!([1])), "it is no map"),
            (packed(&json!({"seq": "1"})), "field \"seq\""),
            (packed(&json!({"seq": -1})), "field \"seq\""),
            (packed(&json!({"id": 1})), "field \"id\""),
            (packed(&json!({"clamped": 1})), "field \"clamped\""),
            (b"\x82\xa3seq\x01\xa3seq\x02".to_vec(), "\"seq\" is there twice"),
            (b"\x81\x01\x01".to_vec(), "name is no text"),
            (b"\x80\x00".to_vec(), "1 bytes behind it"),
            (b"\x81\xa1x\xdd\xff\xff\xff\xff".to_vec(), "announced"),
            (b"\x81\xa2id\xa1\xff".to_vec(), "field \"id\""),
            (b"\xc1".to_vec(), "0xc1"),
        ] {
            let error = Encoding::Msgpack.frame(&message).map_err(|e| format!("{e:#}")).expect_err(named);
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn a_frame_that_was_cut_is_none() {
        let message = packed(
            &json!({"t": "verdict", "seq": 300, "id": "ab-1", "body": {"x": [1, "long".repeat(20)]}, "behind_ns": 70_000}),
        );
        for at in 0..message.len() {
            assert!(Frame::from_msgpack(&message[..at]).is_err(), "cut at {at}");
        }
    }
}

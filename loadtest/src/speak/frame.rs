//! The messages of the public protocol for a client. Of what it receives it reads only what the audit needs.

use std::borrow::Cow;
use std::fmt;

use anyhow::{Context, Result};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// How a session speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Text messages.
    Json,
    /// Binary messages: cheaper on both sides.
    Msgpack,
}

impl Encoding {
    /// The WebSocket subprotocol.
    pub(crate) fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "lasthit.v1.json",
            Self::Msgpack => "lasthit.v1.msgpack",
        }
    }

    /// Writes one message.
    pub(crate) fn write(self, mut out: &mut Vec<u8>, value: &impl Serialize) -> Result<()> {
        match self {
            Self::Json => serde_json::to_writer(out, value)?,
            Self::Msgpack => rmp_serde::encode::write_named(&mut out, value)?,
        }
        Ok(())
    }

    /// Reads a message; fields that [`Frame`] does not name are skipped.
    pub(crate) fn frame(self, message: &[u8]) -> Result<Frame<'_>> {
        match self {
            Self::Json => from_json(message),
            Self::Msgpack => {
                Frame::from_msgpack(message).with_context(|| format!("message of {} bytes is not understood", message.len()))
            }
        }
    }
}

/// Reads a message of text.
pub(crate) fn from_json<'a, T: Deserialize<'a>>(message: &'a [u8]) -> Result<T> {
    serde_json::from_slice(message)
        .with_context(|| format!("message is not understood: {:?}", shown(&String::from_utf8_lossy(message))))
}

fn shown(text: &str) -> &str {
    text.char_indices().nth(200).map_or(text, |(end, _)| &text[..end])
}

/// An action.
#[derive(Debug, Serialize)]
pub(crate) struct Action<'a> {
    /// What to do.
    pub(crate) op: &'a str,
    /// The client's name for it.
    pub(crate) id: &'a str,
    /// What is contested.
    pub(crate) contest: &'a str,
    /// For the rules.
    pub(crate) args: &'a str,
    /// Only when it is sent again: `{era}.{seq}` of the first sending.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seen: Option<&'a str>,
}

/// What a client is sent: `welcome`, `verdict`, `error` and `move` have their fields out of these.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Frame<'a> {
    /// Which of them.
    #[serde(borrow)]
    pub(crate) t: Text<'a>,
    pub(crate) era: u64,
    pub(crate) seq: u64,
    pub(crate) from: Option<u64>,
    #[serde(borrow)]
    pub(crate) session: Text<'a>,
    #[serde(borrow)]
    pub(crate) id: Text<'a>,
    #[serde(borrow)]
    pub(crate) contest: Text<'a>,
    pub(crate) round: u64,
    #[serde(borrow)]
    pub(crate) outcome: Text<'a>,
    #[serde(borrow)]
    pub(crate) reason: Text<'a>,
    #[serde(borrow)]
    pub(crate) code: Text<'a>,
    #[serde(borrow)]
    pub(crate) message: Text<'a>,
    pub(crate) clamped: bool,
    pub(crate) unproven: bool,
    pub(crate) photo_finish: bool,
    pub(crate) uncertainty_ns: Option<Nanos>,
    pub(crate) behind_ns: Option<Nanos>,
    pub(crate) repeat_of: Option<u64>,
    pub(crate) resumed: bool,
    pub(crate) home: Option<u64>,
    pub(crate) within_ms: u64,
    #[serde(borrow)]
    pub(crate) url: Text<'a>,
}

/// A number, which JSON writes as a string.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Nanos(pub(crate) u64);

impl<'de> Deserialize<'de> for Nanos {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Nanos;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("nanoseconds")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Nanos, E> {
                Ok(Nanos(number))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Nanos, E> {
                text.parse().map(Nanos).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Number)
    }
}

/// Text that is borrowed from the message unless JSON escapes are in it. Absent and nil are the empty text, which no
/// field of the protocol has.
#[derive(Default)]
pub(crate) struct Text<'a>(Cow<'a, str>);

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyText;
        impl<'de> Visitor<'de> for AnyText {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }

            fn visit_unit<E: Error>(self) -> Result<Text<'de>, E> {
                Ok(Text::default())
            }
        }
        deserializer.deserialize_any(AnyText)
    }
}

/// The number behind the run's tag, of an id or a contest that this run made (`3fa94c01-17`).
pub(crate) fn number(tag: &str, text: &str) -> Option<u64> {
    text.strip_prefix(tag)?.strip_prefix('-')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_encodings_give_the_same_verdict() {
        let verdict = |ns: serde_json::Value| {
            serde_json::json!({
                "t": "verdict", "seq": 17, "from": 12, "event": "data", "session": "1a-2", "player": "p1", "id": "ab-3",
                "contest": "k\"1", "round": 1, "outcome": "denied", "reason": "late", "arrival_ns": ns, "behind_ns": ns,
                "photo_finish": true, "body": {"deep": [1, {"x": null}]},
            })
        };
        for (encoding, ns) in [(Encoding::Json, "123".into()), (Encoding::Msgpack, 123.into())] {
            let mut message = Vec::new();
            encoding.write(&mut message, &verdict(ns)).expect("message");
            let frame = encoding.frame(&message).expect("frame");
            assert_eq!((&*frame.t, frame.seq, frame.from, frame.round), ("verdict", 17, Some(12), 1));
            assert_eq!((&*frame.session, &*frame.id, &*frame.contest), ("1a-2", "ab-3", "k\"1"));
            assert_eq!((&*frame.outcome, &*frame.reason, &*frame.code), ("denied", "late", ""));
            assert_eq!((frame.behind_ns, frame.photo_finish, frame.clamped), (Some(Nanos(123)), true, false));
        }
        assert!(Encoding::Msgpack.frame(&[0x91]).is_err());
        assert!(Encoding::Json.frame(b"{").is_err());
    }

    #[test]
    fn numbers_of_other_runs_are_none_of_ours() {
        assert_eq!(number("ab", "ab-17"), Some(17));
        assert_eq!(number("ab", "ac-17"), None);
        assert_eq!(number("ab", "ab17"), None);
        assert_eq!(number("ab", "ab-x"), None);
    }
}

//! Clients' values. One visitor reads both encodings; they are written in one canonical form.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::fields::INFALLIBLE;
use crate::limits::ARGS_DEPTH_MAX;

/// A value as a client wrote it. A value that actions cannot carry is read as [`Value::Other`], so that the refusal can name
/// the action's id.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'a> {
    Nil,
    Bool(bool),
    Unsigned(u64),
    /// Below zero.
    Negative(i64),
    Float(f64),
    Text(Cow<'a, str>),
    Array(Vec<Self>),
    Map(Vec<(Cow<'a, str>, Self)>),
    /// A value that actions cannot carry.
    Other(&'static str),
}

impl Value<'_> {
    /// Its type, for a message.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Nil => "null",
            Self::Bool(_) => "a boolean",
            Self::Unsigned(_) | Self::Negative(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Text(_) => "a string",
            Self::Array(_) => "an array",
            Self::Map(_) => "a map",
            Self::Other(what) => what,
        }
    }
}

/// The beginning of a client's text, for a message.
pub(super) fn shown(text: &str) -> &str {
    text.char_indices().nth(40).map_or(text, |(end, _)| &text[..end])
}

const TOO_DEEP: &str = "nested too deeply";
const BINARY: &str = "binary or text that is not UTF-8";
const EXTENSION: &str = "an extension";
const ODD_KEY: &str = "a map whose keys are not all strings";

/// Reads a [`Value`]. Skips what is more than `levels` levels deep.
#[derive(Debug, Clone, Copy)]
pub(super) struct ValueSeed {
    levels: usize,
}

impl ValueSeed {
    /// Reads a whole action: its own map and its arguments.
    pub(super) const ROOT: Self = Self { levels: ARGS_DEPTH_MAX + 1 };
}

impl<'de> DeserializeSeed<'de> for ValueSeed {
    type Value = Value<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value<'de>, E> {
        Ok(Value::Nil)
    }

    fn visit_none<E: Error>(self) -> Result<Value<'de>, E> {
        Ok(Value::Nil)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value<'de>, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value<'de>, E> {
        Ok(Value::Unsigned(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value<'de>, E> {
        Ok(u64::try_from(value).map_or(Value::Negative(value), Value::Unsigned))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value<'de>, E> {
        Ok(Value::Float(value))
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_bytes<E: Error>(self, _: &[u8]) -> Result<Value<'de>, E> {
        Ok(Value::Other(BINARY))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, extension: D) -> Result<Value<'de>, D::Error> {
        extension.deserialize_any(IgnoredAny)?;
        Ok(Value::Other(EXTENSION))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value<'de>, A::Error> {
        let Some(levels) = self.levels.checked_sub(1) else {
            while items.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(Value::Other(TOO_DEEP));
        };
        // The announced length is the client's word: it sizes nothing.
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(Self { levels })? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value<'de>, A::Error> {
        let Some(levels) = self.levels.checked_sub(1) else {
            while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(Value::Other(TOO_DEEP));
        };
        let (mut map, mut odd) = (Vec::new(), false);
        while let Some(key) = entries.next_key_seed(Self { levels: 0 })? {
            let value = entries.next_value_seed(Self { levels })?;
            match key {
                Value::Text(key) => map.push((key, value)),
                _ => odd = true,
            }
        }
        Ok(if odd { Value::Other(ODD_KEY) } else { Value::Map(map) })
    }
}

/// Writes arguments as canonical MessagePack: integers and lengths in their shortest form, floats of 64 bits, keys in
/// the order of their bytes.
pub(super) fn canonical(args: Value<'_>) -> Result<Bytes, String> {
    let mut out = Vec::with_capacity(64);
    write(args, &mut out)?;
    Ok(Bytes::from(out))
}

fn write(value: Value<'_>, out: &mut Vec<u8>) -> Result<(), String> {
    match value {
        Value::Nil => rmp::encode::write_nil(out).expect(INFALLIBLE),
        Value::Bool(value) => rmp::encode::write_bool(out, value).expect(INFALLIBLE),
        Value::Unsigned(value) => drop(rmp::encode::write_uint(out, value).expect(INFALLIBLE)),
        Value::Negative(value) => drop(rmp::encode::write_sint(out, value).expect(INFALLIBLE)),
        Value::Float(value) if value.is_finite() => rmp::encode::write_f64(out, value).expect(INFALLIBLE),
        Value::Float(value) => return Err(format!("args hold the float {value}: only finite numbers are allowed")),
        Value::Text(text) => rmp::encode::write_str(out, &text).expect(INFALLIBLE),
        Value::Array(items) => {
            let _ = rmp::encode::write_array_len(out, length(items.len())?).expect(INFALLIBLE);
            items.into_iter().try_for_each(|item| write(item, out))?;
        }
        Value::Map(mut entries) => {
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            if let Some([(key, _), ..]) = entries.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                return Err(format!("args hold the key {:?} twice", shown(key)));
            }
            let _ = rmp::encode::write_map_len(out, length(entries.len())?).expect(INFALLIBLE);
            for (key, value) in entries {
                rmp::encode::write_str(out, &key).expect(INFALLIBLE);
                write(value, out)?;
            }
        }
        Value::Other(TOO_DEEP) => return Err(format!("args are nested deeper than {ARGS_DEPTH_MAX} levels")),
        Value::Other(what) => {
            return Err(format!("args hold {what}: use null, booleans, numbers, strings, arrays and maps with string keys"));
        }
    }
    Ok(())
}

fn length(len: usize) -> Result<u32, String> {
    u32::try_from(len).map_err(|_| format!("args hold {len} elements"))
}

//! Frames on a program's socket: a length of four bytes, big-endian, then one message in JSON or MessagePack. Here a message is a JSON
//! text; MessagePack is translated on its way in and out.

use serde_json::Value;

use crate::limits::{PROGRAM_FRAME_BYTES_MAX, PROGRAM_SHOWN_BYTES};

/// The bytes of a frame's length.
pub(crate) const HEAD_BYTES: usize = 4;

/// How a program speaks: as it wrote its `hello`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    MessagePack,
}

/// What is wrong with a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame of {0} bytes, at most {max} are allowed", max = PROGRAM_FRAME_BYTES_MAX)]
    TooLarge(u64),
    #[error("an empty frame")]
    Empty,
    #[error("no JSON text: {0}")]
    Json(String),
    #[error("no MessagePack value: {0}")]
    MessagePack(String),
}

/// How many bytes follow this head.
pub(crate) fn length(head: [u8; HEAD_BYTES]) -> Result<usize, FrameError> {
    match u32::from_be_bytes(head) {
        0 => Err(FrameError::Empty),
        bytes if bytes as usize > PROGRAM_FRAME_BYTES_MAX => Err(FrameError::TooLarge(bytes.into())),
        bytes => Ok(bytes as usize),
    }
}

/// How the first frame is written: a JSON map begins with a brace, which no MessagePack map does.
pub(crate) fn encoding(first: &[u8]) -> Encoding {
    if first.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{') { Encoding::Json } else { Encoding::MessagePack }
}

/// A whole frame with this JSON text.
pub(crate) fn write(encoding: Encoding, text: &str) -> Result<Vec<u8>, FrameError> {
    let packed;
    let body = match encoding {
        Encoding::Json => text.as_bytes(),
        Encoding::MessagePack => {
            let value: Value = serde_json::from_str(text).map_err(|e| FrameError::Json(e.to_string()))?;
            packed = rmp_serde::to_vec_named(&value).map_err(|e| FrameError::MessagePack(e.to_string()))?;
            &packed
        }
    };
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= PROGRAM_FRAME_BYTES_MAX);
    let length = length.ok_or(FrameError::TooLarge(body.len() as u64))?;
    let mut frame = Vec::with_capacity(HEAD_BYTES + body.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(body);
    Ok(frame)
}

/// The JSON text of a frame's body.
pub(crate) fn read(encoding: Encoding, body: Vec<u8>) -> Result<String, FrameError> {
    match encoding {
        Encoding::Json => String::from_utf8(body).map_err(|e| FrameError::Json(e.to_string())),
        Encoding::MessagePack => {
            let mut rest = body.as_slice();
            let mut reader = rmp_serde::Deserializer::new(&mut rest);
            let value: rmpv::Value =
                serde::Deserialize::deserialize(&mut reader).map_err(|e| FrameError::MessagePack(e.to_string()))?;
            match rest.len() {
                0 => Ok(plain(value).map_err(FrameError::MessagePack)?.to_string()),
                bytes => Err(FrameError::MessagePack(format!("{bytes} bytes after it"))),
            }
        }
    }
}

/// A value that JSON can say. Anything else is an error: it would become null without a word.
fn plain(value: rmpv::Value) -> Result<Value, String> {
    let float = |number: f64| {
        let number = serde_json::Number::from_f64(number).ok_or_else(|| format!("{number}: use a finite number"))?;
        Ok(Value::Number(number))
    };
    let text = |text: rmpv::Utf8String| text.into_str().ok_or_else(|| "text that is not UTF-8".to_owned());
    match value {
        rmpv::Value::Nil => Ok(Value::Null),
        rmpv::Value::Boolean(is) => Ok(Value::Bool(is)),
        rmpv::Value::Integer(number) => Ok(number.as_u64().map_or_else(|| Value::from(number.as_i64()), Value::from)),
        rmpv::Value::F32(number) => float(number.into()),
        rmpv::Value::F64(number) => float(number),
        rmpv::Value::String(string) => text(string).map(Value::String),
        rmpv::Value::Array(items) => items.into_iter().map(plain).collect::<Result<_, _>>().map(Value::Array),
        rmpv::Value::Map(entries) => {
            let entries = entries.into_iter().map(|(key, value)| match key {
                rmpv::Value::String(key) => Ok((text(key)?, plain(value)?)),
                other => Err(format!("the key {other} of a map: use text")),
            });
            entries.collect::<Result<_, _>>().map(Value::Object)
        }
        rmpv::Value::Binary(_) => Err("binary data: use text".to_owned()),
        rmpv::Value::Ext(..) => Err("an extension: use plain data".to_owned()),
    }
}

/// The beginning of a frame's body, for a log line: nothing in it disturbs a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    begin: Vec<u8>,
    more: usize,
}

impl Shown {
    pub(crate) fn of(body: &[u8]) -> Self {
        let begin = body[..body.len().min(PROGRAM_SHOWN_BYTES)].to_vec();
        Self { more: body.len() - begin.len(), begin }
    }
}

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.begin.escape_ascii())?;
        if self.more > 0 { write!(f, "... and {} bytes more", self.more) } else { Ok(()) }
    }
}

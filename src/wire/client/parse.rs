//! Reads what clients send into the canonical form.

use std::borrow::Cow;
use std::io::ErrorKind;

use rmp_serde::decode;
use serde::Deserialize;
use serde::de::DeserializeSeed;

use super::args::{Value, ValueSeed, canonical, shown};
use super::{Encoding, ErrorCode, Refusal};
use crate::limits::{ARGS_DEPTH_MAX, FIELD_BYTES_MAX};
use crate::types::{Action, PlayerId, Since};

/// The levels after which the MessagePack reader gives up, as many as the JSON reader's. Anything deeper than
/// [`ARGS_DEPTH_MAX`] is skipped, so that the refusal can name the action's id.
const READ_DEPTH_MAX: usize = 128;
const _: () = assert!(ARGS_DEPTH_MAX + 2 < READ_DEPTH_MAX);

/// Reads an action. Both encodings of one action give the same [`Action`], byte for byte.
///
/// # Errors
/// A [`Refusal`] that names what is wrong, and carries the action's id when it could be read.
pub fn parse_action(encoding: Encoding, bytes: &[u8]) -> Result<Action, Refusal> {
    let read = match encoding {
        Encoding::Json => read_json(bytes),
        Encoding::Msgpack => read_msgpack(bytes),
    };
    let value = read.map_err(|message| {
        let (code, what) = match encoding {
            Encoding::Json => (ErrorCode::BadJson, "JSON"),
            Encoding::Msgpack => (ErrorCode::BadMsgpack, "MessagePack"),
        };
        Refusal { code, id: None, message: format!("message is not valid {what}: {}", one_line(&message)) }
    })?;
    let Value::Map(fields) = value else {
        return Err(bad(None, format!("action is {} instead of a map with op and id", value.kind())));
    };
    // The id is read first, so that every other refusal can carry it.
    let id = fields.iter().find(|(key, _)| key == "id").and_then(|(_, value)| match value {
        Value::Text(id) if (1..=FIELD_BYTES_MAX).contains(&id.len()) => Some(id.to_string()),
        _ => None,
    });
    action(fields).map_err(|(code, message)| Refusal { code, id, message })
}

fn bad(id: Option<String>, message: String) -> Refusal {
    Refusal { code: ErrorCode::BadAction, id, message }
}

fn read_json(bytes: &[u8]) -> Result<Value<'_>, String> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = ValueSeed::ROOT.deserialize(&mut reader).map_err(|e| e.to_string())?;
    reader.end().map_err(|e| e.to_string())?;
    Ok(value)
}

fn read_msgpack(bytes: &[u8]) -> Result<Value<'_>, String> {
    // Borrows text from the message instead of copying it.
    let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
    reader.set_max_depth(READ_DEPTH_MAX);
    let value = ValueSeed::ROOT.deserialize(&mut reader).map_err(|e| e.to_string())?;
    // Reads one marker and no more: whatever comes is too much.
    match bool::deserialize(&mut reader) {
        Err(decode::Error::InvalidMarkerRead(error)) if error.kind() == ErrorKind::UnexpectedEof => Ok(value),
        _ => Err("trailing bytes".to_owned()),
    }
}

type Fault = (ErrorCode, String);

fn action(fields: Vec<(Cow<'_, str>, Value<'_>)>) -> Result<Action, Fault> {
    let fault = |message: String| (ErrorCode::BadAction, message);
    let (mut op, mut id, mut contest, mut player, mut seen, mut args) = (None, None, None, None, None, None);
    for (key, value) in fields {
        let slot = match &*key {
            "op" => &mut op,
            "id" => &mut id,
            "contest" => &mut contest,
            "as" => &mut player,
            "seen" => &mut seen,
            "args" => &mut args,
            other => {
                let message = format!("field {:?} is unknown: an action has op, id, contest, as, seen and args", shown(other));
                return Err((ErrorCode::UnknownField, message));
            }
        };
        if slot.replace(value).is_some() {
            return Err(fault(format!("field {key:?} is given twice")));
        }
    }
    let op = text("op", op)?.ok_or_else(|| fault(r#"field "op" is missing"#.to_owned()))?;
    let id = text("id", id)?.ok_or_else(|| fault(r#"field "id" is missing"#.to_owned()))?;
    let contest = text("contest", contest)?;
    let player = match text("as", player)? {
        Some(name) => Some(PlayerId::new(&name).map_err(|e| fault(format!("field \"as\": {e}")))?),
        None => None,
    };
    let seen = match text("seen", seen)? {
        Some(text) => Some(text.parse::<Since>().map_err(|e| fault(format!("field \"seen\": {e}")))?),
        None => None,
    };
    let args = canonical(args.unwrap_or(Value::Nil)).map_err(fault)?;
    Ok(Action { op, id, contest, player, seen, args })
}

/// A field of 1 to 64 bytes of text; None when it is absent or nil.
fn text(field: &str, value: Option<Value<'_>>) -> Result<Option<String>, Fault> {
    let fault = |message: String| Err((ErrorCode::BadAction, message));
    match value {
        None | Some(Value::Nil) => Ok(None),
        Some(Value::Text(text)) if (1..=FIELD_BYTES_MAX).contains(&text.len()) => Ok(Some(text.into_owned())),
        Some(Value::Text(text)) => {
            fault(format!("field {field:?} has {} bytes, 1 to {FIELD_BYTES_MAX} are allowed: {:?}", text.len(), shown(&text)))
        }
        Some(other) => fault(format!("field {field:?} is {} instead of a string", other.kind())),
    }
}

fn one_line(message: &str) -> String {
    message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}

//! The canonical form of an action: what the gateway puts into the journal and the rules read.

use bytes::Bytes;

use super::codec::{DecodeError, Reader, Writer};
use crate::types::Action;

/// `[op, id, contest | nil, player | nil, args as bytes]`
#[must_use]
pub fn encode(action: &Action) -> Bytes {
    let mut w = Writer::with_capacity(action.args.len() + action.op.len() + action.id.len() + 40);
    w.array(5).text(&action.op).text(&action.id).text_or_nil(action.contest.as_deref());
    w.text_or_nil(action.player.as_ref().map(|p| p.as_str())).bytes(&action.args);
    w.finish()
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// When the bytes are no such action.
pub fn decode(bytes: &[u8]) -> Result<Action, DecodeError> {
    let mut r = Reader::bare("action", bytes);
    r.array_of(5)?;
    let action = Action {
        op: r.text()?.to_owned(),
        id: r.text()?.to_owned(),
        contest: r.or_nil(|r| r.text().map(str::to_owned))?,
        player: r.or_nil(Reader::player)?,
        args: Bytes::copy_from_slice(r.raw()?),
    };
    r.end()?;
    Ok(action)
}

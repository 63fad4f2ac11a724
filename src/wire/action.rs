//! The canonical form of an action. The gateway writes it to the journal, and the rules read it.

use bytes::Bytes;

use super::codec::{DecodeError, Reader, Writer};
use crate::types::{Action, Since};

/// Bits of the first byte: the fields that are there beside op, id and arguments.
const CONTEST: u8 = 1;
const PLAYER: u8 = 2;
const SEEN: u8 = 4;

/// Packed: the bits, op and id; then contest, player and `seen` (era, seq) if they are there; then the arguments up to the end.
#[must_use]
pub fn encode(action: &Action) -> Bytes {
    let contest = action.contest.as_deref().unwrap_or_default();
    let player = action.player.as_ref().map_or("", |p| p.as_str());
    let texts = action.op.len() + action.id.len() + contest.len() + player.len();
    let mut w = Writer::with_capacity(action.args.len() + texts + 5);
    let there = [(CONTEST, action.contest.is_some()), (PLAYER, action.player.is_some()), (SEEN, action.seen.is_some())];
    w.byte(there.into_iter().filter(|(_, is)| *is).fold(0, |all, (bit, _)| all | bit));
    w.sized(action.op.as_bytes()).sized(action.id.as_bytes());
    if action.contest.is_some() {
        w.sized(contest.as_bytes());
    }
    if action.player.is_some() {
        w.sized(player.as_bytes());
    }
    if let Some(Since { era, seq }) = action.seen {
        w.varint(era).varint(seq);
    }
    w.tail(&action.args);
    w.finish()
}

/// Reads what [`encode`] wrote.
pub fn decode(bytes: &[u8]) -> Result<Action, DecodeError> {
    let mut r = Reader::bare("action", bytes);
    let there = r.byte()?;
    if there & !(CONTEST | PLAYER | SEEN) != 0 {
        return Err(r.damaged(format!("unknown parts {there}")));
    }
    Ok(Action {
        op: r.sized_text()?.to_owned(),
        id: r.sized_text()?.to_owned(),
        contest: if there & CONTEST == 0 { None } else { Some(r.sized_text()?.to_owned()) },
        player: if there & PLAYER == 0 { None } else { Some(r.sized_player()?) },
        seen: if there & SEEN == 0 { None } else { Some(Since { era: r.varint()?, seq: r.varint()? }) },
        args: Bytes::copy_from_slice(r.tail()),
    })
}

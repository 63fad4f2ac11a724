//! What the journal keeps of an event that a program failed on.

use bytes::Bytes;

use super::codec::{DecodeError, Reader, Writer};
use super::verdicts::{kind_code, kind_of};
use crate::types::{Failed, RoomId, RoomTime};

const VERSION: u8 = 1;

/// Bits of the parts: what is there.
const TIMER: u8 = 1;
const PLAYER: u8 = 2;
const ACTION: u8 = 4;

/// Version 1, packed: `1, room, wall ms, era, seq, room time, kind, parts, [timer], [player], [action], program, its version, reason,
/// error, count of lines, line...`. `wall_ms` is the worker's wall clock, in milliseconds since 1970; 0 if it knows none.
#[must_use]
pub(crate) fn encode(room: &RoomId, wall_ms: u64, failed: &Failed) -> Bytes {
    let mut w = Writer::with_capacity(bytes_of(failed));
    w.byte(VERSION).sized(room.as_str().as_bytes()).varint(wall_ms).varint(failed.era).varint(failed.seq).varint(failed.now.0);
    let there = [(TIMER, failed.timer.is_some()), (PLAYER, failed.player.is_some()), (ACTION, failed.action.is_some())];
    w.varint(kind_code(failed.kind)).byte(there.into_iter().filter(|(_, is)| *is).fold(0, |all, (bit, _)| all | bit));
    let (timer, player) = (failed.timer.as_ref().map(String::as_bytes), failed.player.as_ref().map(|p| p.as_str().as_bytes()));
    for part in [timer, player, failed.action.as_deref()].into_iter().flatten() {
        w.sized(part);
    }
    w.sized(failed.program.as_bytes()).varint(failed.version.into());
    w.sized(failed.reason.as_bytes()).sized(failed.error.as_bytes()).varint(failed.stack.len() as u64);
    failed.stack.iter().for_each(|line| _ = w.sized(line.as_bytes()));
    w.finish()
}

/// Bytes of the form, roughly.
pub(crate) fn bytes_of(failed: &Failed) -> usize {
    let stack: usize = failed.stack.iter().map(|line| line.len() + 2).sum();
    256 + failed.action.as_ref().map_or(0, Bytes::len) + failed.program.len() + failed.error.len() + stack
}

/// Reads what [`encode`] wrote: the room, the wall clock, and what failed.
///
/// # Errors
/// When the bytes are not such a form, or of another version.
pub(crate) fn decode(bytes: &[u8]) -> Result<(RoomId, u64, Failed), DecodeError> {
    let (mut r, _) = Reader::packed_of("failed event", bytes, VERSION..=VERSION)?;
    let room = r.sized_text()?;
    let room = RoomId::new(room).map_err(|e| r.damaged(e))?;
    let (wall_ms, era, seq, now) = (r.varint()?, r.varint()?, r.varint()?, RoomTime(r.varint()?));
    let code = r.varint()?;
    let kind = kind_of(code).ok_or_else(|| r.damaged(format!("an event of kind {code}")))?;
    let there = r.byte()?;
    if there & !(TIMER | PLAYER | ACTION) != 0 {
        return Err(r.damaged(format!("unknown parts {there}")));
    }
    let failed = Failed {
        era,
        seq,
        now,
        kind,
        timer: if there & TIMER == 0 { None } else { Some(r.sized_text()?.to_owned()) },
        player: if there & PLAYER == 0 { None } else { Some(r.sized_player()?) },
        action: if there & ACTION == 0 { None } else { Some(Bytes::copy_from_slice(r.sized()?)) },
        program: r.sized_text()?.to_owned(),
        version: r.narrow()?,
        reason: r.sized_text()?.to_owned(),
        error: r.sized_text()?.to_owned(),
        stack: (0..r.count(1)?).map(|_| r.sized_text().map(str::to_owned)).collect::<Result<_, _>>()?,
    };
    r.end()?;
    Ok((room, wall_ms, failed))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::{PlayerId, VerdictKind};

    fn failed() -> impl Strategy<Value = (u64, Failed)> {
        let kind = prop::sample::select(vec![VerdictKind::Open, VerdictKind::Data, VerdictKind::Close, VerdictKind::Timer]);
        let action = prop::option::of(prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from));
        let player = prop::option::of("[a-z]{1,9}".prop_map(|name| PlayerId::new(&name).expect("name")));
        let texts = ("\\PC{0,9}", "\\PC{0,9}", "\\PC{0,40}", prop::collection::vec("\\PC{0,20}", 0..4));
        (any::<[u64; 4]>(), kind, prop::option::of("\\PC{0,9}"), player, action, texts, any::<u32>()).prop_map(
            |([wall_ms, era, seq, now], kind, timer, player, action, (program, reason, error, stack), version)| {
                let now = RoomTime(now);
                (wall_ms, Failed { era, seq, now, kind, timer, player, action, program, version, reason, error, stack })
            },
        )
    }

    fn room() -> RoomId {
        RoomId::new("pit").expect("name")
    }

    proptest! {
        #[test]
        fn what_was_written_is_read((wall_ms, failed) in failed()) {
            prop_assert_eq!(decode(&encode(&room(), wall_ms, &failed)), Ok((room(), wall_ms, failed)));
        }

        #[test]
        fn damaged_bytes_are_an_error_or_a_record(
            (wall_ms, failed) in failed(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index,
        ) {
            let mut bytes = encode(&room(), wall_ms, &failed).to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes.truncate(cut.index(bytes.len() + 1));
            if let Ok((room, wall_ms, failed)) = decode(&bytes) {
                prop_assert_eq!(&encode(&room, wall_ms, &failed)[..], &bytes[..]);
            }
        }
    }

    #[test]
    fn another_version_is_refused() {
        assert!(matches!(decode(&[2, 0]), Err(DecodeError::Version { found: 2, known: 1, .. })));
    }
}

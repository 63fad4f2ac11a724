//! Snapshots of version 3: `[3, era, seq, sessions, marks, stretches of dead gateways, players' ids, contests, rules' name,
//! rules' version, rules' state]`, as MessagePack. Each id has the number of bytes that it shares with the beginning of the one
//! before, its other bytes, and the difference of its `seq` to the one before.

use super::{Contest, Contests, Read, SnapshotError, Winner};
use crate::engine::recent::{self, Recent};
use crate::engine::resequence::Unproven;
use crate::engine::room::Member;
use crate::limits::{FIELD_BYTES_MAX, RECENT_IDS_PER_PLAYER_MAX};
use crate::types::{Moment, Role, SessionId, Stamp};
use crate::wire::codec::Reader;

/// The version that [`read`] reads.
const VERSION: u64 = 3;

/// The number of players whose ids that version remembered.
const PLAYERS_MAX: usize = 4096;

/// The first byte of a snapshot of this version: an array of eleven.
pub(super) const FIRST_BYTE: u8 = 0x9b;

pub(super) fn read(bytes: &[u8]) -> Result<Read<'_>, SnapshotError> {
    let mut r = Reader::versioned("snapshot", bytes, VERSION, 10)?;
    let mut read = Read { era: r.uint()?, seq: r.uint()?, ..Read::default() };
    for _ in 0..r.array()? {
        r.array_of(4)?;
        let session = SessionId { gateway: r.incarnation()?, number: r.uint()? };
        let player = r.player()?;
        read.sessions.insert(session, Member { player, role: if r.uint()? == 1 { Role::Server } else { Role::Player } });
    }
    for _ in 0..r.array()? {
        r.array_of(4)?;
        read.marks.insert(r.incarnation()?, (r.uint()?, Moment { timeline: r.small()?, ns: r.uint()? }));
    }
    for _ in 0..r.array()? {
        r.array_of(5)?;
        let dead = r.incarnation()?;
        let above = Moment { timeline: r.small()?, ns: r.uint()? };
        read.unproven.push(Unproven { dead, above, until: Moment { timeline: r.small()?, ns: r.uint()? } });
    }
    read.recent = ids(&mut r)?;
    read.contests = contests(&mut r)?;
    read.rules = (r.text()?.to_owned(), r.small()?, r.raw()?);
    r.end()?;
    Ok(read)
}

fn ids(r: &mut Reader<'_>) -> Result<Recent, SnapshotError> {
    let mut players = Vec::new();
    for _ in 0..r.array()? {
        r.array_of(2)?;
        let player = r.player()?;
        let (mut id, mut seq, mut ids) = (String::new(), 0_u64, Vec::new());
        for _ in 0..r.array()? / 3 {
            let shared = r.small()?;
            if shared > FIELD_BYTES_MAX || !id.is_char_boundary(shared) {
                return Err(r.damaged(format!("an id that begins with {shared} bytes of {id:?}")).into());
            }
            id.truncate(shared);
            id.push_str(r.text()?);
            seq = seq.wrapping_add(r.uint()?);
            ids.push((seq, recent::hash(&id)));
        }
        // That version forgot a player's ids without a note of it. From the first kept one on, all are there.
        let pushed_out =
            ids.first().filter(|_| ids.len() >= RECENT_IDS_PER_PLAYER_MAX).map_or(0, |(seq, _)| seq.saturating_sub(1));
        players.push((player, pushed_out, ids));
    }
    // It did not note which players it forgot either: those whose last action was before that of every kept one.
    let forgotten = players.iter().filter_map(|(.., ids)| ids.last()).map(|(seq, _)| seq.saturating_sub(1)).min();
    Ok(Recent::restore(forgotten.filter(|_| players.len() >= PLAYERS_MAX).unwrap_or(0), players))
}

/// That version did not note when a contest changed.
fn contests(r: &mut Reader<'_>) -> Result<Contests, SnapshotError> {
    let mut contests = Contests::default();
    for _ in 0..r.array()? {
        let fields = r.array()?;
        let (name, round) = (r.text()?, r.uint()?);
        let winner = match fields {
            2 => None,
            7 => {
                let moment = Moment { timeline: r.small()?, ns: r.uint()? };
                let stamp = Stamp { moment, incarnation: r.incarnation()?, ordinal: r.uint()? };
                Some(Winner { stamp, uncertainty_ns: r.uint()? })
            }
            other => return Err(r.damaged(format!("contest with {other} fields")).into()),
        };
        contests.put(name, Contest { round, winner, changed: 0 });
    }
    Ok(contests)
}

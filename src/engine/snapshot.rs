//! A room's state as bytes: written with a commit when enough has happened since the last one.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::contests::{Contest, Contests, Winner};
use super::recent::Recent;
use super::resequence::Unproven;
use super::room::{Member, Room};
use crate::limits::{FIELD_BYTES_MAX, MARKS_PER_ROOM_MAX};
use crate::rules::Rules;
use crate::types::{Incarnation, Moment, Role, SessionId, Stamp};
use crate::wire::DecodeError;
use crate::wire::codec::{Reader, Writer};

/// Version 3: `[3, era, seq, sessions, marks, stretches of dead gateways, players' ids, contests, rules' name, rules' version,
/// rules' state]`.
///
/// Ids are most of it. A player's mostly begin alike and follow each other closely: of each there is how many bytes it
/// begins with like the one before, the rest of it, and by how much its `seq` is higher.
const VERSION: u64 = 3;

/// Why a room cannot be continued from its snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The bytes are no snapshot of this version.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The room was played by other rules.
    #[error(
        "room was played by the rules {found:?}, the configuration says {configured:?}: give the room its rules back, or end it"
    )]
    OtherRules {
        /// The rules that wrote it.
        found: String,
        /// The rules that were to read it.
        configured: &'static str,
    },
    /// The rules refuse their own state.
    #[error("rules {rules} cannot read their state: {why}")]
    Rules {
        /// The rules.
        rules: &'static str,
        /// What they said.
        why: String,
    },
}

impl Room {
    /// The whole state. Marks of gateways that left long ago are dropped beyond [`MARKS_PER_ROOM_MAX`]: their entries
    /// lie below every cursor.
    #[must_use]
    pub fn snapshot(&self) -> Bytes {
        let mut w = Writer::with_capacity(512);
        w.array(11).uint(VERSION).uint(self.era).uint(self.seq);
        w.array(self.sessions.len());
        for (session, member) in &self.sessions {
            w.array(4).incarnation(session.gateway).uint(session.number).text(member.player.as_str());
            w.uint(u64::from(member.role == Role::Server));
        }
        let marks = self.kept_marks();
        w.array(marks.len());
        for (incarnation, (ordinal, moment)) in marks {
            w.array(4).incarnation(incarnation).uint(ordinal).uint(moment.timeline.into()).uint(moment.ns);
        }
        w.array(self.unproven.len());
        for Unproven { dead, above, until } in &self.unproven {
            w.array(5).incarnation(*dead);
            w.uint(above.timeline.into()).uint(above.ns).uint(until.timeline.into()).uint(until.ns);
        }
        w.array(self.recent.players.len());
        for (player, ids) in &self.recent.players {
            w.array(2).text(player.as_str()).array(ids.order.len() * 3);
            let mut before = ("", 0);
            for (id, seq) in &ids.order {
                let shared = shared_bytes(before.0, id);
                w.uint(shared as u64).text(&id[shared..]).uint(seq.wrapping_sub(before.1));
                before = (id, *seq);
            }
        }
        w.array(self.contests.by_name.len());
        for (name, contest) in &self.contests.by_name {
            let fields = if contest.winner.is_some() { 7 } else { 2 };
            w.array(fields).text(name).uint(contest.round);
            if let Some(Winner { stamp, uncertainty_ns }) = contest.winner {
                w.uint(stamp.moment.timeline.into()).uint(stamp.moment.ns).incarnation(stamp.incarnation).uint(stamp.ordinal);
                w.uint(uncertainty_ns);
            }
        }
        w.text(self.rules.name()).uint(self.rules.version().into()).bytes(&self.rules.snapshot());
        w.finish()
    }

    fn kept_marks(&self) -> Vec<(Incarnation, (u64, Moment))> {
        let mut marks: Vec<_> = self.marks.iter().map(|(incarnation, mark)| (*incarnation, *mark)).collect();
        if marks.len() > MARKS_PER_ROOM_MAX {
            let inside = |incarnation| self.sessions.keys().any(|session| session.gateway == incarnation);
            marks.sort_by_key(|(incarnation, (_, moment))| std::cmp::Reverse((inside(*incarnation), *moment)));
            marks.truncate(MARKS_PER_ROOM_MAX);
            marks.sort_by_key(|(incarnation, _)| *incarnation);
        }
        marks
    }

    /// The room as [`Room::snapshot`] saw it, continued by fresh `rules` of the same name.
    ///
    /// # Errors
    /// [`SnapshotError`]: damaged bytes, another version, other rules.
    pub fn restore(bytes: &[u8], mut rules: Box<dyn Rules>) -> Result<Self, SnapshotError> {
        let mut r = Reader::versioned("snapshot", bytes, VERSION, 10)?;
        let (era, seq) = (r.uint()?, r.uint()?);
        let mut sessions = BTreeMap::new();
        for _ in 0..r.array()? {
            r.array_of(4)?;
            let session = SessionId { gateway: r.incarnation()?, number: r.uint()? };
            let player = r.player()?;
            sessions.insert(session, Member { player, role: if r.uint()? == 1 { Role::Server } else { Role::Player } });
        }
        let mut marks = BTreeMap::new();
        for _ in 0..r.array()? {
            r.array_of(4)?;
            marks.insert(r.incarnation()?, (r.uint()?, Moment { timeline: r.small()?, ns: r.uint()? }));
        }
        let mut unproven = Vec::new();
        for _ in 0..r.array()? {
            r.array_of(5)?;
            let dead = r.incarnation()?;
            let above = Moment { timeline: r.small()?, ns: r.uint()? };
            unproven.push(Unproven { dead, above, until: Moment { timeline: r.small()?, ns: r.uint()? } });
        }
        let mut recent = Recent::default();
        for _ in 0..r.array()? {
            r.array_of(2)?;
            let player = r.player()?;
            let (mut id, mut seq) = (String::new(), 0_u64);
            for _ in 0..r.array()? / 3 {
                let shared = r.small()?;
                if shared > FIELD_BYTES_MAX || !id.is_char_boundary(shared) {
                    return Err(r.damaged(format!("an id that begins with {shared} bytes of {id:?}")).into());
                }
                id.truncate(shared);
                id.push_str(r.text()?);
                seq = seq.wrapping_add(r.uint()?);
                recent.first_or_remember(&player, &id, seq);
            }
        }
        let mut contests = Contests::default();
        for _ in 0..r.array()? {
            let fields = r.array()?;
            let (name, round) = (Arc::from(r.text()?), r.uint()?);
            let winner = match fields {
                2 => None,
                7 => {
                    let moment = Moment { timeline: r.small()?, ns: r.uint()? };
                    let stamp = Stamp { moment, incarnation: r.incarnation()?, ordinal: r.uint()? };
                    Some(Winner { stamp, uncertainty_ns: r.uint()? })
                }
                other => return Err(r.damaged(format!("contest with {other} fields")).into()),
            };
            contests.by_name.insert(name, Contest { round, winner });
        }
        let (found, version) = (r.text()?.to_owned(), r.small()?);
        let state = r.raw()?;
        r.end()?;
        let configured = rules.name();
        if found != configured {
            return Err(SnapshotError::OtherRules { found, configured });
        }
        rules.restore(version, state).map_err(|why| SnapshotError::Rules { rules: configured, why })?;
        Ok(Self { era, seq, sessions, marks, unproven, recent, contests, rules })
    }
}

/// How many bytes both begin with, in whole characters; at most [`FIELD_BYTES_MAX`], so that no stored byte stands for many.
fn shared_bytes(one: &str, other: &str) -> usize {
    let same = one.bytes().zip(other.bytes()).take(FIELD_BYTES_MAX).take_while(|(a, b)| a == b).count();
    (0..=same).rev().find(|at| other.is_char_boundary(*at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_ids_begin_with_ends_between_characters() {
        for (one, other, shared) in
            [("", "a", 0), ("ab-1", "ab-27", 3), ("ab", "ab", 2), ("\u{e4}", "\u{e5}", 0), ("a\u{e4}", "a\u{e4}b", 3)]
        {
            assert_eq!(shared_bytes(one, other), shared, "{one} {other}");
        }
        let long = "\u{e4}".repeat(40);
        assert_eq!(shared_bytes(&long, &long), FIELD_BYTES_MAX);
    }
}

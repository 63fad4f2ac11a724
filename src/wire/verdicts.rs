//! An entry of a room's verdict stream: the verdicts of one commit. Pushes carry the same form.

use std::sync::Arc;

use bytes::Bytes;

use super::codec::{DecodeError, Reader, Writer};
use crate::limits::AUDIENCE_PLAYERS_MAX;
use crate::types::{
    Audience, Change, Epoch, Fire, Flags, Incarnation, Moment, Outcome, ProgramId, RoomTime, Stamp, Verdict, VerdictBatch,
    VerdictKind,
};

/// Version 4, packed: `4, era, timeline, parts, [epoch], [decided], count of incarnations, incarnation..., count, verdict...`. The
/// parts are bits that say what is there. The epoch is its source and itself, as a batch begins to count by it. What a program decided
/// follows its length. A verdict is `head, seq, ns (zigzag), ordinal, session, round, uncertainty`, then what the head says is there:
/// `incarnation's index, player, id, contest, reason or first seq, behind, flags, raw, body, players of the audience, fire (name, due,
/// late, missed), change (program, push, name, version, version before)`. Seq and ns are differences from the verdict before. A body
/// follows its length. In an Open the length is one more, and 0 means the body of the Open before it: many sessions join at once and
/// find the room in one state.
///
/// Versions 2 and 3 are read too. They have no parts, a head of two bytes, and version 2 has no such 0.
pub(crate) const VERSION: u8 = 4;
/// The oldest version that is read.
const VERSION_MIN: u8 = 2;

/// Bits of a batch's parts.
const EPOCH: u64 = 1;
const DECIDED: u64 = 2;

/// Bits of a verdict's head, a packed number: kind, outcome, audience, and the fields that are there. The usual ones come first, so
/// that most heads have two bytes. Further bits are free for versions to come.
const KIND: u64 = 15;
const OUTCOME_SHIFT: u32 = 4;
const AUDIENCE_SHIFT: u32 = 7;
const INCARNATION: u64 = 1 << 9;
const PLAYER: u64 = 1 << 10;
const ID: u64 = 1 << 11;
const CONTEST: u64 = 1 << 12;
const BODY: u64 = 1 << 13;
const BEHIND: u64 = 1 << 14;
const FLAGS: u64 = 1 << 15;
const RAW: u64 = 1 << 16;
const FIRE: u64 = 1 << 17;
const CHANGE: u64 = 1 << 18;
const HEAD_BITS: u32 = 19;

/// The head of versions 2 and 3 in the bits of this one: they had three bits for the kind, then three, two, and the fields.
fn head_of_earlier(head: u16) -> u64 {
    let head = u64::from(head);
    let fields = [INCARNATION, PLAYER, ID, CONTEST, BEHIND, FLAGS, RAW, BODY];
    let there = fields.into_iter().enumerate().filter(|(at, _)| head >> (8 + at) & 1 == 1);
    there.fold(head & 7 | (head >> 3 & 31) << OUTCOME_SHIFT, |all, (_, bit)| all | bit)
}
/// The fewest bytes of a verdict.
const VERDICT_BYTES_MIN: usize = 8;
/// The bytes of an incarnation.
const INCARNATION_BYTES: usize = 16;
/// The engine's own reason to deny. Most denials have it.
const LATE: &str = "late";

/// Encodes a batch. Its verdicts share a timeline: a room moves to the next timeline only between batches.
#[must_use]
pub fn encode(batch: &VerdictBatch) -> Bytes {
    write(VERSION, batch, |w, head| _ = w.varint(head))
}

fn write(version: u8, batch: &VerdictBatch, write_head: impl Fn(&mut Writer, u64)) -> Bytes {
    let mut incarnations: Vec<Incarnation> = Vec::with_capacity(2);
    for verdict in &batch.verdicts {
        if !incarnations.contains(&verdict.stamp.incarnation) {
            incarnations.push(verdict.stamp.incarnation);
        }
    }
    let timeline = batch.verdicts.first().map_or(0, |v| v.stamp.moment.timeline);
    let body: usize = batch.verdicts.iter().map(|v| v.body.as_ref().map_or(0, Bytes::len)).sum();
    let mut w = Writer::with_capacity(16 + incarnations.len() * INCARNATION_BYTES + batch.verdicts.len() * 72 + body);
    w.byte(version).varint(batch.era).varint(timeline.into());
    if version == VERSION {
        w.varint(if batch.epoch.is_some() { EPOCH } else { 0 } | if batch.decided.is_some() { DECIDED } else { 0 });
    }
    if let Some(Epoch { source_ns, ns }) = batch.epoch {
        w.varint(source_ns).varint(ns);
    }
    if let Some(decided) = &batch.decided {
        w.sized(decided);
    }
    w.varint(incarnations.len() as u64);
    for incarnation in &incarnations {
        w.tail(&incarnation.0.to_be_bytes());
    }
    w.varint(batch.verdicts.len() as u64);
    let (mut seq, mut ns, mut state) = (0, 0, None);
    for v in &batch.verdicts {
        let index = incarnations.iter().position(|i| *i == v.stamp.incarnation).unwrap_or_default();
        write_head(&mut w, head(v, index));
        w.varint(v.seq - seq).varint(zigzag(v.stamp.moment.ns.wrapping_sub(ns).cast_signed()));
        (seq, ns) = (v.seq, v.stamp.moment.ns);
        w.varint(v.stamp.ordinal).varint(v.session).varint(v.round).varint(v.uncertainty_ns);
        if index > 0 {
            w.varint(index as u64);
        }
        for text in [v.player.as_ref().map(|p| p.as_str()), v.id.as_deref(), v.contest.as_deref()].into_iter().flatten() {
            w.sized(text.as_bytes());
        }
        match &v.outcome {
            Outcome::Denied(reason) if reason == LATE => {}
            Outcome::Denied(reason) | Outcome::Void(reason) => drop(w.sized(reason.as_bytes())),
            Outcome::Repeat { of } => drop(w.varint(*of)),
            Outcome::Granted => {}
        }
        if let Some(behind) = v.behind_ns {
            w.varint(behind);
        }
        if v.flags.0 != 0 {
            w.byte(v.flags.0);
        }
        if let Some(raw) = v.raw_ns {
            w.varint(raw);
        }
        match &v.body {
            Some(body) if v.kind != VerdictKind::Open => drop(w.sized(body)),
            Some(body) if state == Some(body) => drop(w.varint(0)),
            Some(body) => {
                w.varint(body.len() as u64 + 1).tail(body);
                state = Some(body);
            }
            None => {}
        }
        if let Audience::Players(players) = &v.audience {
            w.varint(players.len() as u64);
            for player in players.iter() {
                w.sized(player.as_str().as_bytes());
            }
        }
        if let Some(fire) = &v.fire {
            w.sized(fire.name.as_bytes()).varint(fire.due.0).varint(fire.late_ns).varint(fire.missed);
        }
        if let Some(Change { program, push, name, version, from }) = v.change.as_deref() {
            w.tail(&program.0.to_be_bytes())
                .varint(*push)
                .sized(name.as_bytes())
                .varint((*version).into())
                .varint((*from).into());
        }
    }
    w.finish()
}

fn head(v: &Verdict, index: usize) -> u64 {
    let outcome = match &v.outcome {
        Outcome::Granted => 0,
        Outcome::Denied(reason) if reason == LATE => 4,
        Outcome::Denied(_) => 1,
        Outcome::Void(_) => 2,
        Outcome::Repeat { .. } => 3,
    };
    let audience = match &v.audience {
        Audience::Room => 0,
        Audience::Session => 1,
        Audience::Server => 2,
        Audience::Players(_) => 3,
    };
    let there = [
        (INCARNATION, index > 0),
        (PLAYER, v.player.is_some()),
        (ID, v.id.is_some()),
        (CONTEST, v.contest.is_some()),
        (BEHIND, v.behind_ns.is_some()),
        (FLAGS, v.flags.0 != 0),
        (RAW, v.raw_ns.is_some()),
        (BODY, v.body.is_some()),
        (FIRE, v.fire.is_some()),
        (CHANGE, v.change.is_some()),
    ];
    let there = there.into_iter().filter(|(_, is)| *is).fold(0, |all, (bit, _)| all | bit);
    there | kind_code(v.kind) | outcome << OUTCOME_SHIFT | audience << AUDIENCE_SHIFT
}

/// Whether version 2 wrote the batch. Its rooms remembered other ids and contests.
pub(crate) fn remembers_otherwise(bytes: &[u8]) -> bool {
    bytes.first() == Some(&2)
}

/// Reads what [`encode`] and its earlier version wrote.
pub fn decode(bytes: &Bytes) -> Result<VerdictBatch, DecodeError> {
    decode_to(bytes, None)
}

/// The verdict `seq` of a batch, if it is there. Nothing after it is read.
pub(crate) fn find(bytes: &Bytes, seq: u64) -> Result<Option<Verdict>, DecodeError> {
    Ok(decode_to(bytes, Some(seq))?.verdicts.pop().filter(|verdict| verdict.seq == seq))
}

/// Reads a whole batch, or up to the verdict `last`.
fn decode_to(bytes: &Bytes, last: Option<u64>) -> Result<VerdictBatch, DecodeError> {
    let (mut r, version) = Reader::packed_of("verdict batch", bytes, VERSION_MIN..=VERSION)?;
    let (era, timeline) = (r.varint()?, r.narrow()?);
    let parts = if version < VERSION { 0 } else { r.varint()? };
    if parts & !(EPOCH | DECIDED) != 0 {
        return Err(r.damaged(format!("unknown parts {parts}")));
    }
    let epoch = if parts & EPOCH == 0 { None } else { Some(Epoch { source_ns: r.varint()?, ns: r.varint()? }) };
    let decided = if parts & DECIDED == 0 { None } else { Some(bytes.slice_ref(r.sized()?)) };
    let len = r.count(INCARNATION_BYTES)?;
    let mut incarnations = Vec::with_capacity(len);
    for _ in 0..len {
        incarnations.push(r.identity()?);
    }
    let len = r.count(VERDICT_BYTES_MIN)?;
    let mut verdicts: Vec<Verdict> = Vec::with_capacity(len);
    let mut state = None;
    for _ in 0..len {
        let (seq, ns) = verdicts.last().map_or((0, 0), |last| (last.seq, last.stamp.moment.ns));
        let head = if version < VERSION { head_of_earlier(u16::from_le_bytes([r.byte()?, r.byte()?])) } else { r.varint()? };
        if head >> HEAD_BITS != 0 {
            return Err(r.damaged(format!("unknown fields in the head {head:#x}")));
        }
        let seq = match (seq.checked_add(r.varint()?), verdicts.is_empty()) {
            (None, _) => return Err(r.damaged("seq overflows")),
            (Some(next), false) if next == seq => return Err(r.damaged("two verdicts have one seq")),
            (Some(next), _) => next,
        };
        let ns = ns.wrapping_add(unzigzag(r.varint()?).cast_unsigned());
        let (ordinal, session, round, uncertainty_ns) = (r.varint()?, r.varint()?, r.varint()?, r.varint()?);
        let has = |bit: u64| head & bit != 0;
        let index: usize = if has(INCARNATION) { r.narrow()? } else { 0 };
        let incarnation = *incarnations.get(index).ok_or_else(|| r.damaged(format!("incarnation {index} is not listed")))?;
        let mut verdict = Verdict {
            seq,
            stamp: Stamp { moment: Moment { timeline, ns }, incarnation, ordinal },
            kind: kind_of(head & KIND).ok_or_else(|| r.damaged("unknown event kind"))?,
            session,
            player: if has(PLAYER) { Some(r.sized_player()?) } else { None },
            id: if has(ID) { Some(r.sized_text()?.to_owned()) } else { None },
            contest: if has(CONTEST) { Some(r.sized_text()?.to_owned()) } else { None },
            round,
            outcome: match head >> OUTCOME_SHIFT & 7 {
                0 => Outcome::Granted,
                1 => Outcome::Denied(r.sized_text()?.to_owned()),
                2 => Outcome::Void(r.sized_text()?.to_owned()),
                3 => Outcome::Repeat { of: r.varint()? },
                4 => Outcome::Denied(LATE.to_owned()),
                other => return Err(r.damaged(format!("unknown outcome {other}"))),
            },
            uncertainty_ns,
            behind_ns: if has(BEHIND) { Some(r.varint()?) } else { None },
            flags: Flags(if has(FLAGS) { r.byte()? } else { 0 }),
            raw_ns: if has(RAW) { Some(r.varint()?) } else { None },
            audience: match head >> AUDIENCE_SHIFT & 3 {
                0 => Audience::Room,
                1 => Audience::Session,
                2 => Audience::Server,
                _ if version < VERSION => return Err(r.damaged("unknown audience 3")),
                _ => Audience::Players(Arc::default()),
            },
            body: match has(BODY) {
                true if version > VERSION_MIN && head & KIND == kind_code(VerdictKind::Open) => {
                    if let Some(body) = r.sized_or_before()? {
                        state = Some(bytes.slice_ref(body));
                    }
                    Some(state.clone().ok_or_else(|| r.damaged("the body of an Open before the first"))?)
                }
                true => Some(bytes.slice_ref(r.sized()?)),
                false => None,
            },
            fire: None,
            change: None,
        };
        if let Audience::Players(players) = &mut verdict.audience {
            let len = r.count(2)?;
            if len > AUDIENCE_PLAYERS_MAX {
                return Err(r.damaged(format!("an audience of {len} players")));
            }
            *players = (0..len).map(|_| r.sized_player()).collect::<Result<_, _>>()?;
        }
        if has(FIRE) {
            let (name, due) = (r.sized_text()?.to_owned(), RoomTime(r.varint()?));
            verdict.fire = Some(Box::new(Fire { name, due, late_ns: r.varint()?, missed: r.varint()? }));
        }
        if verdict.fire.is_some() != (verdict.kind == VerdictKind::Timer) {
            return Err(r.damaged("a timer without its fire, or the fire of no timer"));
        }
        if has(CHANGE) {
            let (program, push, name) = (ProgramId(r.identity()?.0), r.varint()?, r.sized_text()?.to_owned());
            verdict.change = Some(Box::new(Change { program, push, name, version: r.narrow()?, from: r.narrow()? }));
        }
        if verdict.change.is_some() != (verdict.kind == VerdictKind::Rules) {
            return Err(r.damaged("a change of program without the program, or a program without its change"));
        }
        verdicts.push(verdict);
        if last.is_some_and(|last| last <= seq) {
            return Ok(VerdictBatch { era, epoch, decided, verdicts });
        }
    }
    r.end()?;
    Ok(VerdictBatch { era, epoch, decided, verdicts })
}

/// Writes as version 2 or 3 did, what it could write.
#[cfg(test)]
pub(crate) fn encode_earlier(version: u8, batch: &VerdictBatch) -> Bytes {
    let there = |head: u64| {
        let fields = [INCARNATION, PLAYER, ID, CONTEST, BEHIND, FLAGS, RAW, BODY].into_iter().enumerate();
        fields.fold(0, |all, (at, bit)| all | u16::from(head & bit != 0) << (8 + at))
    };
    let bits = |head: u64| u16::try_from(head & 7 | (head >> OUTCOME_SHIFT & 31) << 3).expect("eight bits") | there(head);
    write(version, batch, |w, head| _ = w.tail(&bits(head).to_le_bytes()))
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

pub(super) fn kind_code(kind: VerdictKind) -> u64 {
    match kind {
        VerdictKind::Open => 0,
        VerdictKind::Data => 1,
        VerdictKind::End => 2,
        VerdictKind::Error => 3,
        VerdictKind::Close => 4,
        VerdictKind::Unreadable => 5,
        VerdictKind::Timer => 6,
        VerdictKind::Rules => 7,
    }
}

pub(super) fn kind_of(code: u64) -> Option<VerdictKind> {
    Some(match code {
        0 => VerdictKind::Open,
        1 => VerdictKind::Data,
        2 => VerdictKind::End,
        3 => VerdictKind::Error,
        4 => VerdictKind::Close,
        5 => VerdictKind::Unreadable,
        6 => VerdictKind::Timer,
        7 => VerdictKind::Rules,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::PlayerId;

    fn outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            Just(Outcome::Granted),
            "[a-z_]{1,20}".prop_map(Outcome::Denied),
            Just(Outcome::Denied(LATE.to_owned())),
            "[a-z_]{1,20}".prop_map(Outcome::Void),
            any::<u64>().prop_map(|of| Outcome::Repeat { of }),
        ]
    }

    fn audience() -> impl Strategy<Value = Audience> {
        let players = proptest::collection::vec("[a-z]{1,9}".prop_map(|name| PlayerId::new(&name).expect("name")), 0..4);
        prop_oneof![
            Just(Audience::Room),
            Just(Audience::Session),
            Just(Audience::Server),
            players.prop_map(|players| Audience::Players(players.into())),
        ]
    }

    prop_compose! {
        fn verdict(timeline: u32)(
            incarnation in prop::sample::select(vec![1u128, 2, 3]), ordinal: u64, ns: u64, kind in 0u64..8, session: u64,
            player in proptest::option::of("[a-z]{1,9}"), id in proptest::option::of("[ -~]{1,9}"), contest in proptest::option::of("[ -~]{1,9}"),
            numbers: (u64, u64, Option<u64>, u8, Option<u64>), outcome in outcome(), audience in audience(), fire: (u64, u64, u64), body in proptest::option::of(any::<Vec<u8>>()),
        ) -> Verdict {
            Verdict {
                seq: 0,
                stamp: Stamp { moment: Moment { timeline, ns }, incarnation: Incarnation(incarnation), ordinal },
                kind: kind_of(kind).expect("kind"), session, player: player.map(|p| PlayerId::new(&p).expect("name")), id, contest,
                round: numbers.0, outcome, uncertainty_ns: numbers.1, behind_ns: numbers.2, flags: Flags(numbers.3), raw_ns: numbers.4,
                audience, body: body.map(Bytes::from),
                fire: (kind == 6).then(|| Box::new(Fire { name: "respawn".to_owned(), due: RoomTime(fire.0), late_ns: fire.1, missed: fire.2 })),
                change: (kind == 7).then(|| Box::new(Change { program: ProgramId(7), push: fire.0, name: "arena".to_owned(), version: 3, from: u32::MAX })),
            }
        }
    }

    fn batch() -> impl Strategy<Value = VerdictBatch> {
        (any::<u32>(), any::<u64>(), 0..u64::MAX / 2, any::<Option<(u64, u64)>>(), any::<Option<Vec<u8>>>()).prop_flat_map(
            |(timeline, era, seq, epoch, decided)| {
                let epoch = epoch.map(|(source_ns, ns)| Epoch { source_ns, ns });
                proptest::collection::vec((verdict(timeline), 1..5u64), 0..8).prop_map(move |parts| {
                    let (mut seq, decided) = (seq, decided.clone().map(Bytes::from));
                    let verdicts = parts.into_iter().map(|(mut v, step)| {
                        seq += step;
                        v.seq = seq;
                        v
                    });
                    VerdictBatch { era, epoch, decided, verdicts: verdicts.collect() }
                })
            },
        )
    }

    /// Each of `bodies` said to one who joins.
    fn joining(bodies: impl Iterator<Item = Bytes>) -> VerdictBatch {
        let stamp = |ns| Stamp { moment: Moment { timeline: 1, ns }, incarnation: Incarnation(1), ordinal: ns };
        let verdict = |(seq, body)| Verdict {
            session: seq,
            player: Some(PlayerId::new("ann").expect("name")),
            body: Some(body),
            ..Verdict::granted(seq, stamp(seq), VerdictKind::Open)
        };
        VerdictBatch { era: 1, epoch: None, decided: None, verdicts: (1..).zip(bodies).map(verdict).collect() }
    }

    #[test]
    fn unknown_fields_and_parts_are_named() {
        let batch = joining(std::iter::once(Bytes::new()));
        for bit in HEAD_BITS..64 {
            let error = decode(&write(VERSION, &batch, |w, head| _ = w.varint(head | 1 << bit))).expect_err("a field to come");
            assert!(error.to_string().contains("unknown fields in the head 0x"), "{error}");
        }
        for bit in 2..7 {
            let mut bytes = encode(&batch).to_vec();
            assert_eq!(std::mem::replace(&mut bytes[3], 1 << bit), 0, "its parts");
            let error = decode(&bytes.into()).expect_err("a part to come");
            assert!(error.to_string().contains("unknown parts"), "{error}");
        }
    }

    #[test]
    fn a_state_that_many_find_who_join_at_once_is_written_once() {
        let state = Bytes::from(vec![7; crate::limits::BODY_BYTES_MAX]);
        let batch = joining(std::iter::repeat_n(state.clone(), 500));
        let bytes = encode(&batch);
        assert!(bytes.len() < state.len() + 500 * 32, "{} bytes", bytes.len());
        assert_eq!(decode(&bytes), Ok(batch));
        let bodies = [&b"a"[..], b"a", b"", b"", b"b", b"a"];
        let batch = joining(bodies.into_iter().map(Bytes::from_static));
        assert_eq!(decode(&encode(&batch)), Ok(batch));
    }

    #[test]
    fn an_open_without_one_before_it_cannot_have_its_state() {
        let batch = joining([Bytes::from_static(b"x")].into_iter());
        let mut bytes = encode(&batch).to_vec();
        bytes.truncate(bytes.len() - 2);
        bytes.push(0);
        assert!(matches!(decode(&bytes.into()), Err(DecodeError::Damaged { .. })));
    }

    proptest! {
        #[test]
        fn batches_survive_the_wire(batch in batch()) {
            prop_assert_eq!(decode(&encode(&batch)), Ok(batch));
        }

        #[test]
        fn batches_of_the_version_before_are_read(batch in batch()) {
            let mut batch = VerdictBatch { epoch: None, decided: None, ..batch };
            batch.verdicts.retain(|v| v.fire.is_none() && v.change.is_none() && !matches!(v.audience, Audience::Players(_)));
            prop_assert_eq!(decode(&encode_earlier(3, &batch)), Ok(batch));
        }

        #[test]
        fn each_verdict_is_found_in_its_batch(batch in batch()) {
            let bytes = encode(&batch);
            for verdict in &batch.verdicts {
                prop_assert_eq!(find(&bytes, verdict.seq), Ok(Some(verdict.clone())));
            }
            let other = batch.verdicts.last().map_or(0, |last| last.seq + 1);
            prop_assert_eq!(find(&bytes, other), Ok(None));
        }

        #[test]
        fn damaged_bytes_are_an_error_or_a_batch(batch in batch(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
            let good = encode(&batch);
            prop_assert!(decode(&good.slice(..cut.index(good.len()))).is_err(), "what was cut off is noticed");
            let mut bytes = good.to_vec();
            let index = at.index(bytes.len());
            bytes[index] = byte;
            let _ = decode(&bytes.into());
        }
    }
}

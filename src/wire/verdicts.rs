//! A verdict stream's entry: the verdicts of one commit in one room. Pushes carry the same form.

use bytes::Bytes;

use super::codec::{DecodeError, Reader, Writer};
use crate::types::{Audience, Flags, Incarnation, Moment, Outcome, Stamp, Verdict, VerdictBatch, VerdictKind};

/// Version 1: `[1, era, seq, timeline, ns, incarnations, [verdict...]]`, where a verdict is
/// `[seq - base, incarnation's index, ordinal, ns - base (zigzag), kind, session, player | nil, id | nil, contest | nil,
/// round, outcome, reason or first seq | nil, uncertainty, behind | nil, flags, raw | nil, audience, body | nil]`.
pub const VERSION: u64 = 1;

/// Encodes a batch. Verdicts of one batch share a timeline; the journal's rooms move from one to the next between batches.
#[must_use]
pub fn encode(batch: &VerdictBatch) -> Bytes {
    let mut incarnations: Vec<Incarnation> = Vec::with_capacity(2);
    for verdict in &batch.verdicts {
        if !incarnations.contains(&verdict.stamp.incarnation) {
            incarnations.push(verdict.stamp.incarnation);
        }
    }
    let (seq, moment) = batch.verdicts.first().map_or((0, Moment::default()), |v| (v.seq, v.stamp.moment));
    let mut w = Writer::with_capacity(48 + incarnations.len() * 18 + batch.verdicts.len() * 72);
    w.array(7).uint(VERSION).uint(batch.era).uint(seq).uint(moment.timeline.into()).uint(moment.ns);
    w.array(incarnations.len());
    for incarnation in &incarnations {
        w.incarnation(*incarnation);
    }
    w.array(batch.verdicts.len());
    for v in &batch.verdicts {
        let index = incarnations.iter().position(|i| *i == v.stamp.incarnation).unwrap_or_default();
        w.array(18).uint(v.seq - seq).uint(index as u64).uint(v.stamp.ordinal);
        w.uint(zigzag(v.stamp.moment.ns.wrapping_sub(moment.ns).cast_signed()));
        w.uint(kind_code(v.kind)).uint(v.session).text_or_nil(v.player.as_ref().map(|p| p.as_str()));
        w.text_or_nil(v.id.as_deref()).text_or_nil(v.contest.as_deref()).uint(v.round);
        match &v.outcome {
            Outcome::Granted => w.uint(0).nil(),
            Outcome::Denied(reason) => w.uint(1).text(reason),
            Outcome::Void(reason) => w.uint(2).text(reason),
            Outcome::Repeat { of } => w.uint(3).uint(*of),
        };
        w.uint(v.uncertainty_ns).uint_or_nil(v.behind_ns).uint(v.flags.0.into()).uint_or_nil(v.raw_ns);
        w.uint(match v.audience {
            Audience::Room => 0,
            Audience::Session => 1,
            Audience::Server => 2,
        });
        w.bytes_or_nil(v.body.as_deref());
    }
    w.finish()
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// [`DecodeError::Version`] for another version's batch, [`DecodeError::Damaged`] for anything else.
pub fn decode(bytes: &Bytes) -> Result<VerdictBatch, DecodeError> {
    let mut r = Reader::versioned("verdict batch", bytes, VERSION, 6)?;
    let (era, base_seq, timeline, base_ns) = (r.uint()?, r.uint()?, r.small()?, r.uint()?);
    let mut incarnations = Vec::new();
    for _ in 0..r.array()? {
        incarnations.push(r.incarnation()?);
    }
    let len = r.array()?;
    let mut verdicts: Vec<Verdict> = Vec::with_capacity(len.min(1024));
    for _ in 0..len {
        r.array_of(18)?;
        let delta = r.uint()?;
        let seq = base_seq.checked_add(delta).ok_or_else(|| r.damaged("seq overflows"))?;
        if verdicts.last().is_some_and(|last| last.seq >= seq) {
            return Err(r.damaged("verdicts are out of order"));
        }
        let index: usize = r.small()?;
        let incarnation = *incarnations.get(index).ok_or_else(|| r.damaged(format!("incarnation {index} is not listed")))?;
        let ordinal = r.uint()?;
        let ns = base_ns.wrapping_add(unzigzag(r.uint()?).cast_unsigned());
        verdicts.push(Verdict {
            seq,
            stamp: Stamp { moment: Moment { timeline, ns }, incarnation, ordinal },
            kind: kind_of(r.uint()?).ok_or_else(|| r.damaged("unknown event kind"))?,
            session: r.uint()?,
            player: r.or_nil(Reader::player)?,
            id: r.or_nil(|r| r.text().map(str::to_owned))?,
            contest: r.or_nil(|r| r.text().map(str::to_owned))?,
            round: r.uint()?,
            outcome: match r.uint()? {
                0 => r.or_nil(Reader::uint).map(|_| Outcome::Granted)?,
                1 => Outcome::Denied(r.text()?.to_owned()),
                2 => Outcome::Void(r.text()?.to_owned()),
                3 => Outcome::Repeat { of: r.uint()? },
                other => return Err(r.damaged(format!("unknown outcome {other}"))),
            },
            uncertainty_ns: r.uint()?,
            behind_ns: r.or_nil(Reader::uint)?,
            flags: Flags(r.small()?),
            raw_ns: r.or_nil(Reader::uint)?,
            audience: match r.uint()? {
                0 => Audience::Room,
                1 => Audience::Session,
                2 => Audience::Server,
                other => return Err(r.damaged(format!("unknown audience {other}"))),
            },
            body: r.or_nil(|r| r.raw().map(|raw| bytes.slice_ref(raw)))?,
        });
    }
    r.end()?;
    Ok(VerdictBatch { era, verdicts })
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

fn kind_code(kind: VerdictKind) -> u64 {
    match kind {
        VerdictKind::Open => 0,
        VerdictKind::Data => 1,
        VerdictKind::End => 2,
        VerdictKind::Error => 3,
        VerdictKind::Close => 4,
        VerdictKind::Unreadable => 5,
    }
}

fn kind_of(code: u64) -> Option<VerdictKind> {
    Some(match code {
        0 => VerdictKind::Open,
        1 => VerdictKind::Data,
        2 => VerdictKind::End,
        3 => VerdictKind::Error,
        4 => VerdictKind::Close,
        5 => VerdictKind::Unreadable,
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
            "[a-z_]{1,20}".prop_map(Outcome::Void),
            any::<u64>().prop_map(|of| Outcome::Repeat { of }),
        ]
    }

    prop_compose! {
        fn verdict(timeline: u32)(
            incarnation in prop::sample::select(vec![1u128, 2, 3]), ordinal: u64, ns: u64, kind in 0u64..6, session: u64,
            player in proptest::option::of("[a-z]{1,9}"), id in proptest::option::of("[ -~]{1,9}"), contest in proptest::option::of("[ -~]{1,9}"),
            numbers: (u64, u64, Option<u64>, u8, Option<u64>), outcome in outcome(), audience in 0u8..3, body in proptest::option::of(any::<Vec<u8>>()),
        ) -> Verdict {
            Verdict {
                seq: 0,
                stamp: Stamp { moment: Moment { timeline, ns }, incarnation: Incarnation(incarnation), ordinal },
                kind: kind_of(kind).expect("kind"), session, player: player.map(|p| PlayerId::new(&p).expect("name")), id, contest,
                round: numbers.0, outcome, uncertainty_ns: numbers.1, behind_ns: numbers.2, flags: Flags(numbers.3), raw_ns: numbers.4,
                audience: [Audience::Room, Audience::Session, Audience::Server][usize::from(audience)], body: body.map(Bytes::from),
            }
        }
    }

    fn batch() -> impl Strategy<Value = VerdictBatch> {
        (any::<u32>(), any::<u64>(), 0..u64::MAX / 2).prop_flat_map(|(timeline, era, seq)| {
            proptest::collection::vec((verdict(timeline), 1..5u64), 0..8).prop_map(move |parts| {
                let mut seq = seq;
                let verdicts = parts.into_iter().map(|(mut v, step)| {
                    seq += step;
                    v.seq = seq;
                    v
                });
                VerdictBatch { era, verdicts: verdicts.collect() }
            })
        })
    }

    proptest! {
        #[test]
        fn batches_survive_the_wire(batch in batch()) {
            prop_assert_eq!(decode(&encode(&batch)), Ok(batch));
        }

        #[test]
        fn damaged_bytes_are_an_error_or_a_batch(batch in batch(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
            let mut bytes = encode(&batch).to_vec();
            let index = at.index(bytes.len());
            bytes[index] = byte;
            let _ = decode(&bytes.clone().into());
            bytes.truncate(cut.index(bytes.len()));
            prop_assert!(decode(&bytes.into()).is_err());
        }
    }
}

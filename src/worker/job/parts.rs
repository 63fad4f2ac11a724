//! How a job's result is cut into parts that commits carry, and which gateways it concerns.

use std::collections::VecDeque;

use bytes::Bytes;

use super::VERDICT_BYTES;
use crate::engine::{Held, Room};
use crate::types::{Audience, Incarnation, Verdict, VerdictBatch, VerdictKind};
use crate::wire::verdicts;

/// Splits a batch into parts of at most `bytes_max`, or of one verdict; each with the `seq` before and after it. `beside` tells how
/// many bytes go with a verdict. The events of a death stay together: if a part of it were committed, the next owner would take the
/// rest for stale.
pub(super) fn split(
    batch: VerdictBatch,
    bytes_max: usize,
    from: u64,
    beside: impl Fn(u64) -> usize,
) -> impl Iterator<Item = (u64, u64, VerdictBatch)> {
    let (era, mut epoch) = (batch.era, batch.epoch);
    let (mut rest, mut seq) = (VecDeque::from(batch.verdicts), from);
    std::iter::from_fn(move || {
        let (mut bytes, mut state) = (0, None);
        let fits = |verdict: &&Verdict| {
            // An Open with the same state as the one before is written without it.
            let again = verdict.kind == VerdictKind::Open && std::mem::replace(&mut state, verdict.body.clone()) == verdict.body;
            bytes += VERDICT_BYTES + verdict.body.as_ref().filter(|_| !again).map_or(0, Bytes::len) + beside(verdict.seq);
            bytes <= bytes_max
        };
        let mut count = rest.iter().take_while(fits).count().max(1).min(rest.len());
        while let (Some(last), Some(next)) = (rest.get(count.wrapping_sub(1)), rest.get(count))
            && belong_together(last, next)
        {
            count += 1;
        }
        let verdicts: Vec<Verdict> = rest.drain(..count).collect();
        let before = std::mem::replace(&mut seq, verdicts.last()?.seq);
        Some((before, seq, VerdictBatch { era, epoch: epoch.take(), decided: None, verdicts }))
    })
}

/// Whether an event may be of the death that a verdict is of.
pub(super) fn is_of_death(one: &Verdict, held: &Held) -> bool {
    let leaves = matches!(one.kind, VerdictKind::End | VerdictKind::Error | VerdictKind::Close);
    leaves && !held.acts() && (one.stamp.moment, one.stamp.incarnation) == (held.stamp.moment, held.stamp.incarnation)
}

/// Whether two verdicts may be of one death, whose events have one stamp, and none of them acts. [`Resequencer::release`] keeps
/// them together by the same rule.
pub(super) fn belong_together(one: &Verdict, other: &Verdict) -> bool {
    let leaves = |v: &Verdict| matches!(v.kind, VerdictKind::End | VerdictKind::Error | VerdictKind::Close);
    let stamp = |v: &Verdict| (v.stamp.moment, v.stamp.incarnation);
    leaves(one) && leaves(other) && stamp(one) == stamp(other)
}

pub(super) fn gateways(room: &Room) -> Vec<Incarnation> {
    let mut gateways: Vec<Incarnation> = room.sessions().map(|(session, _)| session.gateway).collect();
    gateways.dedup();
    gateways
}

/// The verdicts of a batch that concern a gateway's process; `whole` if that is all of them. The body of an Open goes only to the gateway
/// whose session joins.
pub(super) fn push_for(gateway: Incarnation, watches: bool, batch: &VerdictBatch, whole: &Bytes) -> Bytes {
    // The gateway knows which of its sessions are of the players that are named.
    let concerns = |v: &Verdict| {
        watches || matches!(v.audience, Audience::Room | Audience::Players(_)) || v.stamp.incarnation.process() == gateway
    };
    let tells_others = |v: &Verdict| v.kind == VerdictKind::Open && v.body.is_some() && v.stamp.incarnation.process() != gateway;
    if batch.verdicts.iter().all(|v| concerns(v) && !tells_others(v)) {
        return whole.clone();
    }
    let verdicts = batch.verdicts.iter().filter(|v| concerns(v)).map(|v| {
        let body = v.body.clone().filter(|_| !tells_others(v));
        Verdict { body, ..v.clone() }
    });
    verdicts::encode(&VerdictBatch { era: batch.era, epoch: batch.epoch, decided: None, verdicts: verdicts.collect() })
}

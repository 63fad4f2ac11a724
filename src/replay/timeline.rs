//! One contest: who arrived when, on which gateway, who won and by how much, and which verdicts are flagged.

use std::collections::BTreeMap;

use serde::Serialize;

pub(crate) use super::picture::draw;
use super::{Recording, ReplayError, Replayed};
use crate::rules::RulesBook;
use crate::types::{Flags, Outcome, Verdict, VerdictKind};

/// One round of a contest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Timeline {
    pub room: String,
    pub contest: String,
    pub round: u64,
    /// All rounds that were recorded.
    pub rounds: Vec<u64>,
    /// The index of the winner in `contenders`; None if nobody won, or that verdict is not stored any more.
    pub winner: Option<usize>,
    /// All actions on the contest, in the order of their verdicts.
    pub contenders: Vec<Contender>,
    /// The result of resolving the record again.
    pub replay: Replayed,
}

/// One action on a contest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Contender {
    pub seq: u64,
    pub player: String,
    /// The action's id.
    pub id: Option<String>,
    /// The number of its gateway, from 1, in the order of the gateways' first contenders.
    pub gateway: usize,
    /// The session, whose name begins with the gateway's.
    pub session: String,
    /// What was decided: `won`, `granted`, `denied`, `void` or `repeat`.
    pub outcome: &'static str,
    /// Why it was not granted.
    pub reason: Option<String>,
    /// When it arrived, in nanoseconds of the host's monotonic clock.
    #[serde(serialize_with = "digits")]
    pub arrival_ns: u64,
    /// The raw stamp, if the stamp was moved.
    #[serde(serialize_with = "digits_or_null")]
    pub raw_ns: Option<u64>,
    /// It arrived at most this long before `arrival_ns`.
    #[serde(serialize_with = "digits")]
    pub uncertainty_ns: u64,
    /// How long after the winner it arrived.
    #[serde(serialize_with = "digits_or_null")]
    pub behind_ns: Option<u64>,
    /// `photo_finish`, `clamped`, `unproven`, `read_time`.
    pub flags: Vec<&'static str>,
}

/// As text, like the client protocol: JSON numbers do not hold 64 bits everywhere.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn digits<S: serde::Serializer>(ns: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(ns)
}

#[expect(clippy::ref_option, reason = "serde's form")]
fn digits_or_null<S: serde::Serializer>(ns: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    match ns {
        Some(ns) => serializer.collect_str(ns),
        None => serializer.serialize_none(),
    }
}

impl Timeline {
    /// The timeline of a round of a contest; without `round`, of the last one.
    ///
    /// # Errors
    /// As [`Recording::resolve`]; [`ReplayError::NoContest`] if the record does not have it.
    pub(crate) fn of(recording: &Recording, rules: &RulesBook, contest: &str, round: Option<u64>) -> Result<Self, ReplayError> {
        let replay = recording.resolve(rules)?;
        let all = recording.decode_verdicts()?;
        let on_contest = |v: &&Verdict| v.kind == VerdictKind::Data && v.contest.as_deref() == Some(contest);
        let mut rounds: Vec<u64> = all.iter().filter(on_contest).map(|v| v.round).collect();
        rounds.sort_unstable();
        rounds.dedup();
        let chosen = round.or(rounds.last().copied()).filter(|round| rounds.contains(round));
        let Some(round) = chosen else {
            let (room, contest, verdicts) = (recording.room.clone(), contest.to_owned(), all.len());
            return Err(ReplayError::NoContest { room, contest, round, verdicts });
        };
        let verdicts: Vec<&Verdict> = all.iter().filter(on_contest).filter(|v| v.round == round).collect();
        let mut gateways = BTreeMap::new();
        let contenders: Vec<Contender> = verdicts
            .iter()
            .map(|v| {
                let count = gateways.len();
                let gateway = *gateways.entry(v.stamp.incarnation).or_insert(count + 1);
                contender(v, gateway, is_winner(v, &verdicts, &replay))
            })
            .collect();
        let winner = contenders.iter().position(|c| c.outcome == "won");
        Ok(Self { room: recording.room.to_string(), contest: contest.to_owned(), round, rounds, winner, contenders, replay })
    }
}

/// The winner according to the room that was resolved again. If that begins later, according to the verdicts of those who lost.
fn is_winner(verdict: &Verdict, all: &[&Verdict], replay: &Replayed) -> bool {
    let beaten = |v: &&Verdict| v.behind_ns.is_some_and(|ns| v.stamp.moment.ns.checked_sub(ns) == Some(verdict.stamp.moment.ns));
    verdict.outcome == Outcome::Granted
        && (replay.winners.contains(&verdict.stamp) || verdict.seq < replay.from && all.iter().any(beaten))
}

fn contender(v: &Verdict, gateway: usize, won: bool) -> Contender {
    let (outcome, reason) = match &v.outcome {
        Outcome::Granted if won => ("won", None),
        Outcome::Granted => ("granted", None),
        Outcome::Denied(reason) => ("denied", Some(reason.clone())),
        Outcome::Void(reason) => ("void", Some(reason.clone())),
        Outcome::Repeat { of } => ("repeat", Some(format!("of verdict {of}"))),
    };
    let words = [
        (Flags::PHOTO_FINISH, "photo_finish"),
        (Flags::CLAMPED, "clamped"),
        (Flags::UNPROVEN, "unproven"),
        (Flags::READ_TIME, "read_time"),
    ];
    Contender {
        seq: v.seq,
        player: v.player.as_ref().map(ToString::to_string).unwrap_or_default(),
        id: v.id.clone(),
        gateway,
        session: v.session_id().to_string(),
        outcome,
        reason,
        arrival_ns: v.stamp.moment.ns,
        raw_ns: v.raw_ns,
        uncertainty_ns: v.uncertainty_ns,
        behind_ns: v.behind_ns,
        flags: words.into_iter().filter(|(flag, _)| v.flags.has(*flag)).map(|(_, word)| word).collect(),
    }
}

/// A time for people, with no digits finer than `uncertainty_ns`.
#[must_use]
pub(crate) fn shown(ns: u64, uncertainty_ns: u64) -> String {
    let mut step = 10u64.pow(uncertainty_ns.max(1).ilog10());
    loop {
        let rounded = ns.saturating_add(step / 2) / step * step;
        if rounded == 0 && ns > 0 {
            return format!("under {}", shown(step, step));
        }
        let (unit, per) = match rounded {
            0..1_000 => ("ns", 1),
            1_000..1_000_000 => ("µs", 1_000),
            1_000_000..1_000_000_000 => ("ms", 1_000_000),
            _ => ("s", 1_000_000_000),
        };
        // At most three digits after the point, and no more than the clock can tell.
        if step < per / 1_000 {
            step = per / 1_000;
            continue;
        }
        let (whole, digits) = (rounded / per, (per / step.min(per)).ilog10());
        return match digits {
            0 => format!("{whole} {unit}"),
            _ => format!("{whole}.{fraction:0width$} {unit}", fraction = rounded % per / step, width = digits as usize),
        };
    }
}

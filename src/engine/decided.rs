//! Which program decided, and what the verdicts do not tell of it: that goes with the commit (rule P4). Of a program outside it is what
//! it decided, and the state that it left: the next owner of the room takes both from there, and asks no program to load it. Of a program
//! in a file it is the program's name, and the fingerprint of the state: the next owner resolves the events again, and compares.

use bytes::Bytes;

use super::room::{Known, Room};
use crate::rules::{Decision, Fingerprint, Ruling, TimerCommand, When};
use crate::types::{Outcome, ProgramId, RoomTime, Verdict};
use crate::wire::DecodeError;
use crate::wire::codec::{Reader, Writer};

/// The version of both forms of a program outside.
const VERSION: u8 = 1;
/// The version of the record of a program in a file.
const FILE: u8 = 2;
/// The version of the record of a program outside that has migrated the state.
const MIGRATED: u8 = 3;

/// A ruling with its contest, and what else the verdict does not show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decided {
    seq: u64,
    ruling: u8,
    next_round: bool,
    timers: Vec<TimerCommand>,
}

impl Decided {
    /// What is to be kept of a decision; None if the verdict tells all.
    pub(super) fn of(seq: u64, decision: &Decision) -> Option<Self> {
        let ruling = match decision.ruling {
            Ruling::Granted => 0,
            Ruling::Denied(_) => 1,
            Ruling::Won => 2,
            Ruling::Late => 3,
            Ruling::Failed(_) => return None,
        };
        let tells_all = decision.contest.is_none() && decision.timers.is_empty();
        (!tells_all).then(|| Self { seq, ruling, next_round: decision.next_round, timers: decision.timers.clone() })
    }
}

/// What a batch of verdicts says beside them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    /// `1, program's name, its version, count, (seq, ruling and next round, count of timers, timer...)...`. `3` is the same with the state
    /// behind the version: the one that this version has made of another's.
    Outside { name: String, version: u32, state: Option<Bytes>, decided: Vec<Decided> },
    /// `2, program, push, whether a fingerprint follows, [engine, state]`. The fingerprint is of the state after the batch.
    File { program: ProgramId, push: u64, fingerprint: Option<Fingerprint> },
}

impl Record {
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (mut r, version) = Reader::packed_of("program's decisions", bytes, VERSION..=MIGRATED)?;
        let form = version;
        if form == FILE {
            let (program, push) = (ProgramId(r.identity()?.0), r.varint()?);
            let fingerprint = match r.byte()? {
                0 => None,
                _ => Some(Fingerprint { engine: r.narrow()?, state: u64::from_be_bytes(r.chunk()?) }),
            };
            r.end()?;
            return Ok(Self::File { program, push, fingerprint });
        }
        let (name, version, mut all) = (r.sized_text()?.to_owned(), r.narrow()?, Vec::new());
        let state = if form == MIGRATED { Some(Bytes::copy_from_slice(r.sized()?)) } else { None };
        for _ in 0..r.count(3)? {
            let (seq, bits) = (r.varint()?, r.byte()?);
            let mut decided = Decided { seq, ruling: bits & 3, next_round: bits & 4 != 0, timers: Vec::new() };
            for _ in 0..r.count(2)? {
                decided.timers.push(read_timer(&mut r)?);
            }
            all.push(decided);
        }
        r.end()?;
        Ok(Self::Outside { name, version, state, decided: all })
    }

    /// The program in a file that decided.
    pub(crate) fn program(&self) -> Option<ProgramId> {
        if let Self::File { program, .. } = self { Some(*program) } else { None }
    }

    /// Says so if another program than the recorded one decides now.
    pub(crate) fn other_program(&self, room: &mut Room) -> Option<String> {
        let Self::Outside { name, version, .. } = self else { return None };
        let running = room.rules.as_process()?.running()?;
        let same = name.is_empty() || *name == running.name && *version == running.version;
        (!same).then(|| format!("decided by {name} version {version}, asked was {running}"))
    }

    fn write(&self) -> Bytes {
        let mut w = Writer::with_capacity(40);
        match self {
            Self::File { program, push, fingerprint } => {
                w.byte(FILE).tail(&program.0.to_be_bytes()).varint(*push).byte(fingerprint.is_some().into());
                if let Some(Fingerprint { engine, state }) = fingerprint {
                    w.varint((*engine).into()).tail(&state.to_be_bytes());
                }
            }
            Self::Outside { name, version, state, decided } => {
                w.byte(if state.is_some() { MIGRATED } else { VERSION }).sized(name.as_bytes()).varint((*version).into());
                state.iter().for_each(|state| _ = w.sized(state));
                w.varint(decided.len() as u64);
                for Decided { seq, ruling, next_round, timers } in decided {
                    w.varint(*seq).byte(ruling | u8::from(*next_round) << 2).varint(timers.len() as u64);
                    timers.iter().for_each(|timer| write_timer(&mut w, timer));
                }
            }
        }
        w.finish()
    }

    /// The decision that led to a recorded verdict; None if its event never reached the rules, or changed nothing.
    pub(crate) fn decision(&self, verdict: &Verdict) -> Option<Decision> {
        let Self::Outside { decided, .. } = self else { return None };
        let found = decided.binary_search_by_key(&verdict.seq, |decided| decided.seq).ok().map(|at| &decided[at]);
        let (ruling, next_round, timers) = match (&verdict.outcome, found) {
            (Outcome::Granted, None) => (Ruling::Granted, false, Vec::new()),
            (Outcome::Denied(reason), None) => (Ruling::Denied(reason.clone()), false, Vec::new()),
            (Outcome::Repeat { .. } | Outcome::Void(_), None) => return None,
            (outcome, Some(Decided { ruling, next_round, timers, .. })) => {
                let ruling = match (ruling, outcome) {
                    (0, _) => Ruling::Granted,
                    (1, Outcome::Denied(reason)) => Ruling::Denied(reason.clone()),
                    (2, _) => Ruling::Won,
                    (3, _) => Ruling::Late,
                    // Over a bound: it changed nothing.
                    _ => return None,
                };
                // A verdict without its contest went over a bound, too.
                if matches!(outcome, Outcome::Void(_)) && verdict.contest.is_none() {
                    return None;
                }
                (ruling, *next_round, timers.clone())
            }
        };
        let (contest, audience, body) = (verdict.contest.clone(), verdict.audience.clone(), verdict.body.clone());
        Some(Decision { ruling, contest, next_round, audience, body, timers })
    }
}

/// What is known of a recorded verdict that a program outside decided.
pub(crate) fn known<'a>(recorded: &'a Verdict, decision: Option<&'a Decision>) -> Option<Known<'a>> {
    match (&recorded.outcome, decision) {
        (_, Some(decision)) => Some(Known::Decided(decision)),
        (Outcome::Void(reason), None) => Some(Known::Void(reason)),
        _ => None,
    }
}

impl Room {
    /// What is to be recorded of the program that decided, since the last call and up to the verdict `to`; None if none did.
    pub(crate) fn take_decided(&mut self, to: u64) -> Option<Bytes> {
        let program = self.rules.program();
        if program != ProgramId::NONE {
            let fingerprint = self.rules.fingerprint().filter(|_| to == self.seq);
            return Some(Record::File { program, push: self.push, fingerprint }.write());
        }
        self.rules.as_process()?;
        let rest = self.decided.partition_point(|decided| decided.seq <= to);
        let later = self.decided.split_off(rest);
        let decided = std::mem::replace(&mut self.decided, later);
        let state = std::mem::take(&mut self.migrated).then(|| Bytes::from(self.rules.snapshot()));
        Some(Record::Outside { name: self.rules.name().to_owned(), version: self.rules.version(), state, decided }.write())
    }

    /// The program's state, if it has changed since the last call: `1, name, version, state`.
    pub(crate) fn take_program_state(&mut self) -> Option<Bytes> {
        let (name, version, state) = self.rules.as_process()?.take_changed()?;
        let mut w = Writer::with_capacity(16 + name.len() + state.len());
        w.byte(VERSION).sized(name.as_bytes()).varint(version.into()).sized(state);
        Some(w.finish())
    }

    /// Takes up the state that came with the last commit.
    ///
    /// # Errors
    /// One line: when the bytes are no such state, or the room's rules are no program outside.
    pub(crate) fn take_up_program_state(&mut self, bytes: &[u8]) -> Result<(), String> {
        let (mut r, _) = Reader::packed_of("program's state", bytes, VERSION..=VERSION).map_err(|e| e.to_string())?;
        let mut read = || Ok((r.sized_text()?, r.narrow()?, r.sized()?));
        let (name, version, state) = read().map_err(|e: DecodeError| e.to_string())?;
        let configured = self.rules.name().to_owned();
        let Some(process) = self.rules.as_process() else {
            return Err(format!(
                "the room was resolved by the program {name:?}, the configuration says {configured:?}: give the room its rules back, or end it"
            ));
        };
        process.take_up(name, version, state)
    }
}

fn write_timer(w: &mut Writer, timer: &TimerCommand) {
    let (name, data, kind) = match timer {
        TimerCommand::Cancel(name) => (name, None, 0),
        TimerCommand::Set { name, when, data } => {
            let kind = match when {
                When::After(_) => 1,
                When::At(_) => 2,
                When::Every(_) => 3,
                When::Cron { .. } => 4,
            };
            (name, Some((when, data)), kind)
        }
    };
    w.byte(kind).sized(name.as_bytes());
    let Some((when, data)) = data else { return };
    match when {
        When::After(span) | When::Every(span) => _ = w.varint(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)),
        When::At(at) => _ = w.varint(at.0),
        When::Cron { expression, offset_s } => _ = w.sized(expression.as_bytes()).tail(&offset_s.to_be_bytes()),
    }
    w.sized(data);
}

fn read_timer(r: &mut Reader<'_>) -> Result<TimerCommand, DecodeError> {
    let (kind, name) = (r.byte()?, r.sized_text()?.to_owned());
    let span = std::time::Duration::from_nanos;
    let when = match kind {
        0 => return Ok(TimerCommand::Cancel(name)),
        1 => When::After(span(r.varint()?)),
        2 => When::At(RoomTime(r.varint()?)),
        3 => When::Every(span(r.varint()?)),
        4 => When::Cron { expression: r.sized_text()?.to_owned(), offset_s: i32::from_be_bytes(r.chunk()?) },
        other => return Err(r.damaged(format!("a timer of kind {other}"))),
    };
    Ok(TimerCommand::Set { name, when, data: Bytes::copy_from_slice(r.sized()?) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> impl Strategy<Value = Record> {
        let fingerprint =
            proptest::option::of((any::<u32>(), any::<u64>()).prop_map(|(engine, state)| Fingerprint { engine, state }));
        let file = (any::<u128>(), any::<u64>(), fingerprint).prop_map(|(program, push, fingerprint)| Record::File {
            program: ProgramId(program),
            push,
            fingerprint,
        });
        let one = (any::<u64>(), 0..4u8, any::<bool>(), any::<u64>()).prop_map(|(seq, ruling, next_round, at)| Decided {
            seq,
            ruling,
            next_round,
            timers: vec![
                TimerCommand::Cancel("free".to_owned()),
                TimerCommand::Set { name: "free".to_owned(), when: When::At(RoomTime(at)), data: Bytes::from_static(&[0xc0]) },
            ],
        });
        let (state, decided) = (proptest::option::of("[a-z]{0,9}".prop_map(Bytes::from)), proptest::collection::vec(one, 0..4));
        let outside = ("[a-z]{0,9}", any::<u32>(), state, decided).prop_map(|(name, version, state, decided)| Record::Outside {
            name,
            version,
            state,
            decided,
        });
        prop_oneof![file, outside]
    }

    proptest! {
        #[test]
        fn records_of_programs_survive(record in record()) {
            prop_assert_eq!(Record::read(&record.write()), Ok(record));
        }

        #[test]
        fn damaged_records_are_an_error_or_a_record(record in record(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
            let good = record.write();
            prop_assert!(Record::read(&good[..cut.index(good.len())]).is_err(), "what was cut off is noticed");
            let mut bytes = good.to_vec();
            let index = at.index(bytes.len());
            bytes[index] = byte;
            let _ = Record::read(&bytes);
        }
    }
}

//! What rules do wrong: the event is void, and what they did is kept apart.

use bytes::Bytes;

use super::room::{Known, RULES_FAILED, Room};
use crate::limits::STACK_LINES_MAX;
use crate::rules::Failure;
use crate::types::{Failed, Outcome, Verdict, failure_line};
use crate::wire::failed;

/// What a program had trouble with.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    /// What it failed on, by `seq`.
    pub(crate) failures: Vec<Failed>,
    /// What came out otherwise the second time, in words.
    pub(crate) impure: Vec<String>,
}

impl Trouble {
    /// What it failed on in the verdict with this `seq`.
    pub(crate) fn failures_of(&self, seq: u64) -> impl Iterator<Item = &Failed> {
        let at = self.failures.partition_point(|failed| failed.seq < seq);
        self.failures[at..].iter().take_while(move |failed| failed.seq == seq)
    }
}

impl Room {
    /// What the program had trouble with since the last call.
    pub(crate) fn take_trouble(&mut self) -> Trouble {
        Trouble { failures: std::mem::take(&mut self.failures), impure: self.rules.take_impure() }
    }

    /// Bytes of what is kept of the verdict with this `seq`, if it is the last that the rules failed on.
    pub(crate) fn failed_bytes(&self, seq: u64) -> usize {
        self.failures.last().filter(|failed| failed.seq == seq).map_or(0, failed::bytes_of)
    }

    /// A decision that goes over a bound, or breaks the contract.
    pub(super) fn broken(&mut self, reason: &str, error: String) -> Outcome {
        self.failing = Some(Failure { error, stack: Vec::new() });
        Outcome::Void(reason.to_owned())
    }

    /// The outcome of an event that is known to be void.
    pub(super) fn void_if_known(&mut self, known: Option<Known<'_>>) -> Option<Outcome> {
        if let Some(Known::Failed(error)) = known {
            return Some(self.broken(RULES_FAILED, error.to_owned()));
        }
        known.and_then(Known::void).map(|reason| Outcome::Void(reason.to_owned()))
    }

    /// Keeps what the rules did wrong in this verdict's event, if they did.
    pub(super) fn keep_failed(&mut self, verdict: &Verdict, action: Option<&Bytes>, timer: Option<&str>) {
        let (Some(failure), Outcome::Void(reason)) = (self.failing.take(), &verdict.outcome) else { return };
        self.failures.push(Failed {
            era: self.era,
            seq: verdict.seq,
            now: self.now,
            kind: verdict.kind,
            timer: timer.map(str::to_owned),
            player: verdict.player.clone(),
            action: action.cloned(),
            program: self.rules.name().to_owned(),
            version: self.rules.version(),
            reason: reason.clone(),
            error: failure_line(&failure.error),
            stack: failure.stack.iter().take(STACK_LINES_MAX as usize).map(|line| failure_line(line)).collect(),
        });
    }
}

//! Rules in JavaScript: one file, inside the worker, in QuickJS-NG.
//!
//! A [`Program`] is loaded and checked once. [`JsRules`] are its rules in one room: they hold the state as bytes, and nothing else.
//! Each thread that decides has one context for each program (`vm.rs`); a room may be decided by another thread each time. Every event
//! starts from the bytes, and what is not in `ctx.state` afterwards is not kept.

mod budget;
mod data;
mod event;
mod program;
mod scan;
mod state;
mod thrown;
mod vm;

use std::sync::Arc;

use bytes::Bytes;

pub use budget::Budget;
use budget::Measure;
pub use program::{Program, ProgramError};

use self::state::Undo;
use self::thrown::Thrown;
use self::vm::{Args, Call, Copy, Outcome, Socket, Which};
use super::{Decision, Due, Facts, Failure, Fingerprint, Happening, Rules, TimerCommand, What};
use crate::limits::CHECKED_EVENTS_MAX;
use crate::types::ProgramId;

/// The rules of one room, by a program.
#[derive(Debug)]
pub struct JsRules {
    program: Arc<Program>,
    state: Bytes,
    /// Takes back what the last event changed.
    undo: Option<Undo>,
    checking: Checking,
    measure: Measure,
    /// What the check has found since the last look.
    impure: Vec<String>,
}

/// Whether each event is decided a second time, in another context, to find what a program keeps outside its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checking {
    /// No.
    #[default]
    Off,
    /// Yes. A difference is told; the first decision stands.
    EachEvent,
    /// Yes, and each time in a context that has seen no event before: it takes milliseconds, and finds a difference at the first event.
    Anew,
}

impl JsRules {
    /// The rules of a new room.
    #[must_use]
    pub fn new(program: Arc<Program>, checking: Checking) -> Self {
        let state = program.initial.clone();
        Self { program, state, undo: None, checking, measure: Measure::Budget, impure: Vec::new() }
    }

    fn decide(&mut self, call: &Call<'_>) -> Decision {
        self.undo = None;
        let outcome = vm::decide(&self.program, self.measure, Copy::Deciding, &self.state, call);
        let checked = match self.checking {
            Checking::Off => None,
            Checking::EachEvent => Some(CHECKED_EVENTS_MAX),
            Checking::Anew => Some(1),
        };
        if let Some(most) = checked {
            let again = vm::decide(&self.program, self.measure, Copy::Checking(most), &self.state, call);
            let (first, second) = (self.shown(&outcome), self.shown(&again));
            if first != second {
                let seq = call.facts.seq;
                self.impure.push(format!("verdict {seq}: first {first}; again {second}"));
            }
        }
        match outcome {
            Ok((decision, changed)) => {
                if let Some(after) = changed {
                    self.undo = Some(Undo::new(&self.state, &after));
                    // Not a byte more than it has: there are many rooms.
                    self.state = after.into_boxed_slice().into();
                }
                decision
            }
            Err(thrown) => Decision::failed(self.program.told(&thrown), thrown.stack),
        }
    }

    /// A decision, and the state after it, in words.
    fn shown(&self, outcome: &Result<Outcome, Thrown>) -> String {
        match outcome {
            Ok((decision, changed)) => {
                let state = changed.as_deref().map_or_else(|| "unchanged".to_owned(), state::shown);
                format!("{}, state {state}", in_words(decision))
            }
            Err(thrown) => self.program.told(thrown),
        }
    }
}

/// A decision in words.
fn in_words(decision: &Decision) -> String {
    let Decision { ruling, contest, next_round, audience, body, timers } = decision;
    let body = body.as_ref().map_or_else(|| "none".to_owned(), |body| data::shown(body));
    let mut words = format!("{ruling:?} to {audience:?}, body {body}");
    if let Some(contest) = contest {
        words += &format!(", contest {contest}{}", if *next_round { " in its next round" } else { "" });
    }
    for timer in timers {
        words += &match timer {
            TimerCommand::Set { name, when, data } => format!(", timer {name} {when:?} with {}", data::shown(data)),
            TimerCommand::Cancel(name) => format!(", timer {name} cancelled"),
        };
    }
    words
}

impl Rules for JsRules {
    fn name(&self) -> &str {
        self.program.name()
    }

    fn version(&self) -> u32 {
        self.program.version()
    }

    fn is_program(&self) -> bool {
        true
    }

    fn program(&self) -> ProgramId {
        self.program.id()
    }

    fn follow(&mut self, recorded: bool) {
        self.measure = if recorded { Measure::Most } else { Measure::Budget };
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        Some(Fingerprint { engine: vm::engine(), state: xxhash_rust::xxh3::xxh3_64(&self.state) })
    }

    fn take_over(&mut self, version: u32, state: &[u8], facts: Facts) -> Result<(), Failure> {
        let made = if self.program.migrates() {
            vm::migrate(&self.program, self.measure, (state, version), facts)
        } else {
            Ok(state.to_vec())
        };
        let told = |thrown: Thrown| Failure { error: self.program.told(&thrown), stack: thrown.stack };
        self.state = made.map_err(told)?.into_boxed_slice().into();
        self.undo = None;
        Ok(())
    }

    fn take_impure(&mut self) -> Vec<String> {
        std::mem::take(&mut self.impure)
    }

    fn resolve(&mut self, event: &Happening<'_>) -> Decision {
        let (which, args, contest) = match event.what {
            What::Open => (Which::Socket(Socket::Open), Args::None, None),
            What::Data(act) => (Which::On(act.op), Args::Encoded(act.encoded_args()), act.contest),
            What::End { code } => (Which::Socket(Socket::End), Args::Code(code), None),
            What::Error { reason } => (Which::Socket(Socket::Error), Args::Reason(reason), None),
            What::Close => (Which::Socket(Socket::Close), Args::None, None),
        };
        let sessions = || event.sessions_of(event.player);
        self.decide(&Call {
            which,
            args,
            player: Some(event.player.as_str()),
            role: Some(event.role),
            session: Some(event.session),
            contest,
            facts: event.facts,
            sessions: &sessions,
        })
    }

    fn fire(&mut self, timer: &Due<'_>) -> Decision {
        let Due { name, data, due, late_ns, missed, facts } = *timer;
        let args = Args::Due { data, due_ms: due.fractional_ms(), late_ns, missed };
        self.decide(&Call {
            which: Which::Timer(name),
            args,
            player: None,
            role: None,
            session: None,
            contest: None,
            facts,
            sessions: &|| 0,
        })
    }

    fn undo(&mut self) {
        if let Some(undo) = self.undo.take() {
            self.state = undo.apply(&self.state).into();
        }
    }

    fn snapshot(&self) -> Vec<u8> {
        self.state.to_vec()
    }

    fn restore(&mut self, version: u32, bytes: &[u8]) -> Result<(), String> {
        if version != self.version() {
            return Err(format!("state of version {version}: {} is of version {}", self.program.file(), self.version()));
        }
        state::check(bytes)?;
        self.state = Bytes::copy_from_slice(bytes);
        self.undo = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests;

//! Rules that a program outside of the worker decides: `docs/rules-protocol.md` is what the program's author reads.
//!
//! A program is a pure function `(state, events) -> (decisions, state)` that holds no room between two requests. [`Process`] keeps
//! the state, as one JSON text, and asks.
//!
//! **A batch is asked for once.** Before a job resolves events, the room tells [`Process::ask`] what will presumably reach the rules.
//! The program answers with a decision on each, and the state after each that changed it. `resolve` takes the next decision if the
//! event is, byte for byte, the one that it was asked for. If it is not (a timer came in between, an id was forgotten), or if the
//! verdict on the one before was void, what is left of the answer is thrown away, and the program is asked again from the state that
//! there is. So the usual batch costs one round trip, and the core, which resolves event by event, knows nothing of batches.
//!
//! The state comes after *each* event, because any of them may be the last of its batch or turn void. A program may answer fewer events
//! than it was asked for, so that large states do not pile up in one answer.
//!
//! Nothing here does I/O: the [`Program`] is given, and belongs to the worker.

pub(crate) mod frames;
pub(crate) mod messages;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use self::messages::{Decided, event_text};
use super::{Decision, Due, Happening, Rules};
use crate::limits::{PROGRAM_EVENTS_BYTES, PROGRAM_EVENTS_MAX, PROGRAM_STATE_BYTES_MAX};

/// The state of a room that no program has seen yet.
const NO_STATE: &str = "null";

/// Which program decides, and how it is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramSpec {
    /// Where it comes from.
    pub source: ProgramSource,
    /// Where a program runs that the worker starts. None: where the worker runs.
    pub folder: Option<PathBuf>,
    /// How many run at once, at most; each resolves one batch at a time.
    pub instances: usize,
    /// How long it may take over one request.
    pub budget: Duration,
}

/// Where a program comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProgramSource {
    /// The worker starts it: the command and its arguments.
    Command(Vec<String>),
    /// Somebody else starts it. It connects to this socket, on which the worker listens.
    Socket(PathBuf),
}

/// What a program calls itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) version: u32,
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} version {}", self.name, self.version)
    }
}

/// Why a program gave no decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It died, took too long, or answered what is no answer: it may do better next time, or another instance may.
    Failed(String),
    /// It is another program than the one that the room has.
    Other(String),
}

impl Fault {
    /// In words.
    pub(crate) fn why(&self) -> &str {
        let (Self::Failed(why) | Self::Other(why)) = self;
        why
    }
}

/// A program that can be asked; it blocks until there is an answer.
pub(crate) trait Program: Send + Sync + std::fmt::Debug {
    /// Waits until an instance has said what it is called.
    fn identity(&self) -> Result<Identity, Fault>;

    /// Asks for decisions on events, each one JSON text, that meet a room in this state. At least one decision comes back, and at most
    /// one for each event. `who` is whom it asks: nobody else answers.
    fn resolve(&self, who: &Identity, state: &str, events: &[String]) -> Result<Vec<Decided>, Fault>;

    /// Asks for this version's state, made of the one that version `from` left; or for the reason why there is none.
    fn migrate(&self, who: &Identity, state: &str, from: u32) -> Result<Result<Arc<str>, String>, Fault>;
}

/// The rules of a room that a program decides.
#[derive(Debug)]
pub struct Process {
    program: Arc<dyn Program>,
    /// The program whose state this is.
    identity: Option<Identity>,
    /// One JSON value.
    state: Arc<str>,
    /// The state before the last decision, if that changed it.
    before: Option<Arc<str>>,
    /// What was asked ahead: each event, and its decision.
    ahead: VecDeque<(String, Decided)>,
    /// Whether the state was changed since [`Process::take_changed`].
    changed: bool,
}

impl Process {
    pub(crate) fn new(program: Arc<dyn Program>) -> Self {
        let (state, ahead) = (Arc::from(NO_STATE), VecDeque::new());
        Self { program, identity: None, state, before: None, ahead, changed: false }
    }

    /// Whether the decision on this event is there.
    pub(crate) fn is_ready(&self, event: &str) -> bool {
        self.ahead.front().is_some_and(|(asked, _)| asked == event)
    }

    /// Asks for the decisions on events that will presumably come next, in this order: on `least` of them at least. What was asked
    /// before is thrown away.
    pub(crate) fn ask(&mut self, mut events: Vec<String>, least: usize) -> Result<(), Fault> {
        self.ahead.clear();
        let running = self.recognize()?;
        let (mut ahead, mut state) = (VecDeque::new(), self.state.clone());
        while ahead.is_empty() || ahead.len() < least && !events.is_empty() {
            let later = events.split_off(events_max(state.len(), &events));
            let decided = self.program.resolve(&running, &state, &events)?;
            let later = events.split_off(decided.len().min(events.len())).into_iter().chain(later).collect();
            for (event, decided) in std::mem::replace(&mut events, later).into_iter().zip(decided) {
                state = decided.state.clone().unwrap_or(state);
                ahead.push_back((event, decided));
            }
        }
        self.identity = Some(running);
        self.ahead = ahead;
        Ok(())
    }

    /// What the program calls itself that runs.
    pub(crate) fn running(&self) -> Option<Identity> {
        self.program.identity().ok()
    }

    /// If the program that runs is a later version of the one whose state this is, it takes the state over. Returns the version before.
    ///
    /// # Errors
    /// When the program does not, for now or at all: no other gets to see the state.
    pub(crate) fn catch_up(&mut self) -> Result<Option<u32>, Fault> {
        let Some(mine) = &self.identity else { return Ok(None) };
        let running = self.program.identity()?;
        if running.name != mine.name || running.version <= mine.version {
            return Ok(None);
        }
        let (from, other) =
            (mine.version, |why: String| Fault::Other(format!("{running} does not take over the state of {mine}: {why}")));
        if &*self.state != NO_STATE {
            let made = self.program.migrate(&running, &self.state, from)?.map_err(other)?;
            if made.len() > PROGRAM_STATE_BYTES_MAX {
                return Err(other(format!("state_too_large: {} bytes, at most {PROGRAM_STATE_BYTES_MAX}", made.len())));
            }
            self.state = made;
        }
        (self.identity, self.before, self.changed) = (Some(running), None, true);
        self.ahead.clear();
        Ok(Some(from))
    }

    /// The program that runs must be the one whose state this is: no other gets to see it.
    fn recognize(&self) -> Result<Identity, Fault> {
        let running = self.program.identity()?;
        match &self.identity {
            // The next job catches up.
            Some(mine) if mine.name == running.name && mine.version < running.version => {
                Err(Fault::Failed(format!("{running} has taken the place of {mine}")))
            }
            Some(mine) if *mine != running => Err(Fault::Other(format!("its program is {mine}, the one that runs is {running}"))),
            _ => Ok(running),
        }
    }

    /// The name, version and state, if an event since the last call has changed the state.
    pub(crate) fn take_changed(&mut self) -> Option<(&str, u32, &[u8])> {
        std::mem::take(&mut self.changed).then(|| (self.name(), self.version(), self.state.as_bytes()))
    }

    /// Takes up a stored state.
    pub(crate) fn take_up(&mut self, name: &str, version: u32, state: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(state).map_err(|e| format!("state: {e}"))?;
        serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|e| format!("state: {e}"))?;
        self.identity = (!name.is_empty()).then(|| Identity { name: name.to_owned(), version });
        self.state = Arc::from(text);
        (self.before, self.changed) = (None, false);
        self.ahead.clear();
        Ok(())
    }

    fn decide(&mut self, event: String) -> Decision {
        if !self.is_ready(&event)
            && let Err(Fault::Failed(why) | Fault::Other(why)) = self.ask(vec![event], 1)
        {
            return Decision::failed(why, Vec::new());
        }
        self.before = None;
        let Some((_, Decided { decision, state })) = self.ahead.pop_front() else {
            return Decision::failed("the program gave no decision".to_owned(), Vec::new());
        };
        if let Some(state) = state {
            if state.len() > PROGRAM_STATE_BYTES_MAX {
                // What it decided after this event rests on that state.
                self.ahead.clear();
                let why = format!("state_too_large: {} bytes, at most {PROGRAM_STATE_BYTES_MAX}", state.len());
                return Decision::failed(why, Vec::new());
            }
            self.before = Some(std::mem::replace(&mut self.state, state));
            self.changed = true;
        }
        decision
    }
}

/// How many events to ask for at once: as many as fit into a request, and whose states may fit into an answer.
fn events_max(state: usize, events: &[String]) -> usize {
    let mut bytes = 0;
    let fitting = events.iter().take_while(|event| {
        bytes += event.len() + state;
        bytes <= PROGRAM_EVENTS_BYTES
    });
    fitting.count().clamp(1, PROGRAM_EVENTS_MAX)
}

impl Rules for Process {
    fn name(&self) -> &str {
        self.identity.as_ref().map_or("", |identity| &identity.name)
    }

    fn version(&self) -> u32 {
        self.identity.as_ref().map_or(0, |identity| identity.version)
    }

    fn resolve(&mut self, event: &Happening<'_>) -> Decision {
        self.decide(event_text(event))
    }

    fn fire(&mut self, timer: &Due<'_>) -> Decision {
        self.decide(messages::timer_text(timer))
    }

    /// The program does not know that its decision is void: what it decided after it is thrown away. A decision that changed no state
    /// leaves the rest as it is.
    fn undo(&mut self) {
        if let Some(before) = self.before.take() {
            self.state = before;
            self.ahead.clear();
        }
    }

    fn snapshot(&self) -> Vec<u8> {
        self.state.as_bytes().to_vec()
    }

    fn restore(&mut self, version: u32, bytes: &[u8]) -> Result<(), String> {
        let name = self.name().to_owned();
        self.take_up(&name, version, bytes)
    }

    fn as_process(&mut self) -> Option<&mut Process> {
        Some(self)
    }
}

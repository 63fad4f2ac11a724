//! The game's deterministic decision code: the [`Rules`] trait, and two built-in ones.
//!
//! A worker chooses a room's rules by its name: the first pattern that matches counts.
//!
//! ```
//! use lasthit::rules::{Claim, LastHit, RulesBook};
//! use lasthit::types::Audience;
//!
//! let book = RulesBook::new().room("quiz-*", || Claim::new(Audience::Room)).room("*", LastHit::new);
//! ```
//!
//! Rules of your own implement [`Rules`], which has a complete example.

mod book;
pub mod claim;
mod decision;
pub mod js;
pub mod last_hit;
pub(crate) mod process;
#[cfg(test)]
mod referee;
mod saved;
mod when;

#[cfg(test)]
pub(crate) use book::NoLibrary;
pub(crate) use book::{Crew, FileRules, Keep, Library, Pattern, Unopened};
pub use book::{RulesBook, RulesFactory};
pub use claim::Claim;
pub use decision::Decision;
#[doc(hidden)]
pub use decision::Failure;
pub(crate) use decision::{Ruling, TimerCommand};
pub use last_hit::LastHit;
#[doc(hidden)]
pub use process::Process;
pub(crate) use process::{Fault, Identity as ProgramIdentity, Program, frames, messages};
pub use process::{ProgramSource, ProgramSpec};
pub use when::When;
pub(crate) use when::{Repeat, TimerFault, offset_s};

use crate::types::{PlayerId, ProgramId, Role, RoomTime, SessionId};

/// What rules see of an event.
#[derive(Debug, Clone, Copy)]
pub struct Happening<'a> {
    /// The session.
    pub session: SessionId,
    /// The player who acts: the session's player, or the one that a server session named.
    pub player: &'a PlayerId,
    /// The session's role.
    pub role: Role,
    /// What happened.
    pub what: What<'a>,
    /// What every decision may use.
    pub facts: Facts,
    pub(crate) inside: Inside<'a>,
}

impl Happening<'_> {
    /// How many sessions a player has inside. The session of an Open counts, that of a Close too.
    #[must_use]
    pub fn sessions_of(&self, player: &PlayerId) -> usize {
        (self.inside.0)(player)
    }
}

/// Counts a player's sessions in the room.
#[derive(Clone, Copy)]
pub(crate) struct Inside<'a>(pub(crate) &'a (dyn Fn(&PlayerId) -> usize + 'a));

impl std::fmt::Debug for Inside<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inside")
    }
}

/// What a decision may use beside the event: all that stands for a clock and for randomness. Replay gives the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts {
    /// The room's time.
    pub now: RoomTime,
    /// The number that the verdict gets.
    pub seq: u64,
    /// The room's seed.
    seed: u128,
}

impl Facts {
    pub(crate) fn new(now: RoomTime, seq: u64, seed: u128) -> Self {
        Self { now, seq, seed }
    }

    /// A random number: another one for each room, verdict and `call`. Whoever knows no verdict of the room that used one cannot
    /// tell it in advance.
    #[must_use]
    pub fn random(&self, call: u32) -> u64 {
        let mut bytes = [0; 28];
        bytes[..16].copy_from_slice(&self.seed.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.seq.to_be_bytes());
        bytes[24..].copy_from_slice(&call.to_be_bytes());
        xxhash_rust::xxh3::xxh3_64(&bytes)
    }
}

/// Tells whether a state that was made again is the same.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    /// Names what decides beside the program's text.
    pub engine: u32,
    /// A hash of the state.
    pub state: u64,
}

/// A timer that is due, as rules see it.
#[derive(Debug, Clone, Copy)]
pub struct Due<'a> {
    /// The name that it was set by.
    pub name: &'a str,
    /// What it was set with: one MessagePack value.
    pub data: &'a [u8],
    /// When it was due. The room's time is this too, unless the room was ahead.
    pub due: RoomTime,
    /// How much later the worker noticed it, in nanoseconds.
    pub late_ns: u64,
    /// Of a repeating timer: how many moments were noticed too late to fire.
    pub missed: u64,
    /// What every decision may use.
    pub facts: Facts,
}

/// The five socket events, as rules see them.
#[derive(Debug, Clone, Copy)]
pub enum What<'a> {
    /// The session joined. The decision's body becomes the `state` in its `welcome`; no other session gets it.
    Open,
    /// An action.
    Data(Act<'a>),
    /// The session is ending.
    End {
        /// WebSocket close code.
        code: u16,
    },
    /// The session broke.
    Error {
        /// One line.
        reason: &'a str,
    },
    /// The session is over.
    Close,
}

/// An action, as rules see it.
#[derive(Debug, Clone, Copy)]
pub struct Act<'a> {
    /// What to do.
    pub op: &'a str,
    /// What is contested, if the client named something.
    pub contest: Option<&'a str>,
    args: &'a [u8],
}

impl<'a> Act<'a> {
    /// `args` is one canonical MessagePack value.
    #[must_use]
    pub fn new(op: &'a str, contest: Option<&'a str>, args: &'a [u8]) -> Self {
        Self { op, contest, args }
    }

    /// The arguments as a type of the rules' own: a struct with the map's keys as fields.
    ///
    /// # Errors
    /// One line that says what is wrong. It can serve as a verdict's reason.
    pub fn args<T: serde::de::DeserializeOwned>(&self) -> Result<T, String> {
        rmp_serde::from_slice(self.args).map_err(|e| format!("args: {e}"))
    }

    /// The arguments as one canonical MessagePack value.
    pub(crate) fn encoded_args(&self) -> &'a [u8] {
        self.args
    }
}

/// A room's rules: a deterministic state machine. No clock, no randomness, no I/O; the same events in the same order
/// always give the same decisions, on any machine (replay and recovery depend on it).
///
/// A complete example: a quiz buzzer that only the first press of a round wins.
///
/// ```
/// use lasthit::rules::{Act, Decision, Happening, Rules, What};
///
/// #[derive(Default)]
/// struct Buzzer { pressed: bool }
///
/// impl Rules for Buzzer {
///     fn name(&self) -> &'static str { "buzzer" }
///     fn version(&self) -> u32 { 1 }
///
///     fn resolve(&mut self, event: &Happening<'_>) -> Decision {
///         match event.what {
///             What::Data(Act { op: "press", .. }) if self.pressed => Decision::late("buzzer"),
///             What::Data(Act { op: "press", .. }) => {
///                 self.pressed = true;
///                 Decision::won("buzzer")
///             }
///             What::Data(_) => Decision::denied("unknown_op"),
///             _ => Decision::granted(),
///         }
///     }
///
///     fn snapshot(&self) -> Vec<u8> { vec![u8::from(self.pressed)] }
///
///     fn restore(&mut self, _version: u32, bytes: &[u8]) -> Result<(), String> {
///         let [pressed] = bytes else { return Err(format!("{} bytes instead of 1", bytes.len())) };
///         self.pressed = *pressed == 1;
///         Ok(())
///     }
/// }
/// ```
pub trait Rules: Send + 'static {
    /// Recorded with every snapshot: a room is never continued with other rules.
    fn name(&self) -> &str;

    /// Rises when decisions or the snapshot's form change.
    fn version(&self) -> u32;

    /// Whether every decision takes only microseconds. Such rooms are resolved on the worker's own thread, which saves two
    /// changes of thread for each event. Other rooms get threads of their own, where a slow room delays no other.
    fn is_quick(&self) -> bool {
        false
    }

    /// Whether they are a program that runs inside the worker, on threads of its own.
    #[doc(hidden)]
    fn is_program(&self) -> bool {
        false
    }

    /// The text that decides, if they are a program's in one file.
    #[doc(hidden)]
    fn program(&self) -> ProgramId {
        ProgramId::NONE
    }

    /// Whether what is resolved from here on is recorded already: what came to a decision then may take longer now (rule P1).
    #[doc(hidden)]
    fn follow(&mut self, _recorded: bool) {}

    /// What to compare when the state is made again.
    #[doc(hidden)]
    fn fingerprint(&self) -> Option<Fingerprint> {
        None
    }

    /// Goes on with the state that another version of these rules has left.
    #[doc(hidden)]
    fn take_over(&mut self, _version: u32, _state: &[u8], _facts: Facts) -> Result<(), Failure> {
        Err(Failure { error: "these rules take over no other version's state".to_owned(), stack: Vec::new() })
    }

    /// What a check of the program has found since the last call: decisions that came out otherwise a second time.
    #[doc(hidden)]
    fn take_impure(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// Decides one event.
    fn resolve(&mut self, event: &Happening<'_>) -> Decision;

    /// Decides what a timer does that an earlier decision has set ([`Decision::timer`]). By default it is denied as
    /// `unknown_timer`.
    fn fire(&mut self, _timer: &Due<'_>) -> Decision {
        Decision::denied("unknown_timer")
    }

    /// The last decision went over a bound, or named a second winner: its verdict is void. Rules that can, take back what it
    /// changed. By default the change stays.
    fn undo(&mut self) {}

    /// The whole state.
    fn snapshot(&self) -> Vec<u8>;

    /// Restores the state; `version` is that of the rules that wrote it.
    ///
    /// # Errors
    /// One line when the bytes are not such a state.
    fn restore(&mut self, version: u32, bytes: &[u8]) -> Result<(), String>;

    /// The rules as those of a program outside, which is asked ahead.
    #[doc(hidden)]
    fn as_process(&mut self) -> Option<&mut Process> {
        None
    }
}

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
pub mod last_hit;
#[cfg(test)]
mod referee;
mod saved;

pub(crate) use book::Pattern;
pub use book::{RulesBook, RulesFactory};
pub use claim::Claim;
pub use last_hit::LastHit;

use bytes::Bytes;

use crate::types::{Audience, PlayerId, Role, SessionId};

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
}

/// What rules decide about an event. The core makes a verdict of it: it enforces one winner a round and computes margins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub(crate) ruling: Ruling,
    pub(crate) contest: Option<String>,
    pub(crate) next_round: bool,
    pub(crate) audience: Audience,
    pub(crate) body: Option<Bytes>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ruling {
    Granted,
    Denied(String),
    /// Wins the contest's current round, which must have no winner yet.
    Won,
    /// Came after the winner of the contest's current round: the core says by how much.
    Late,
}

impl Decision {
    fn of(ruling: Ruling, contest: Option<&str>) -> Self {
        Self { ruling, contest: contest.map(str::to_owned), next_round: false, audience: Audience::Room, body: None }
    }

    /// The event takes effect.
    #[must_use]
    pub fn granted() -> Self {
        Self::of(Ruling::Granted, None)
    }

    /// The event has no effect. `reason` is a short word such as `unknown_target`.
    #[must_use]
    pub fn denied(reason: impl Into<String>) -> Self {
        Self::of(Ruling::Denied(reason.into()), None)
    }

    /// The event wins the current round of `contest`. If the round has a winner already, the verdict is void
    /// (`second_winner`): a fault of the rules, counted.
    #[must_use]
    pub fn won(contest: &str) -> Self {
        Self::of(Ruling::Won, Some(contest))
    }

    /// The event comes after the current round of `contest` was won: it is denied as `late`, with the margin. If the round has no
    /// winner, the verdict is void (`no_winner`).
    #[must_use]
    pub fn late(contest: &str) -> Self {
        Self::of(Ruling::Late, Some(contest))
    }

    /// Names the contest that a granted or denied event concerns.
    #[must_use]
    pub fn about(mut self, contest: &str) -> Self {
        self.contest = Some(contest.to_owned());
        self
    }

    /// Starts a new round of the named contest with this event (a respawn, a release). Until the round is won the contest counts
    /// as closed: past 100,000 contests the core forgets closed ones first, and won ones only when all
    /// are won. A forgotten contest continues with a later round.
    #[must_use]
    pub fn next_round(mut self) -> Self {
        self.next_round = true;
        self
    }

    /// Who may see the verdict. By default the whole room.
    #[must_use]
    pub fn to(mut self, audience: Audience) -> Self {
        self.audience = audience;
        self
    }

    /// The verdict's body: any value that serializes to MessagePack with string keys, at most 16 KiB. A larger one makes the
    /// verdict void (`body_too_large`).
    #[must_use]
    pub fn body(mut self, body: &impl serde::Serialize) -> Self {
        // Serialization into memory fails only for types that MessagePack cannot carry. That is a fault of the rules: the lane
        // catches the panic and makes the verdict void.
        let bytes = rmp_serde::to_vec_named(body).unwrap_or_else(|e| panic!("rules: body does not serialize: {e}"));
        self.body = Some(Bytes::from(bytes));
        self
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
    fn name(&self) -> &'static str;

    /// Rises when decisions or the snapshot's form change.
    fn version(&self) -> u32;

    /// Whether every decision takes only microseconds. Such rooms are resolved on the worker's own thread, which saves two
    /// changes of thread for each event. Other rooms get threads of their own, where a slow room delays no other.
    fn is_quick(&self) -> bool {
        false
    }

    /// Decides one event.
    fn resolve(&mut self, event: &Happening<'_>) -> Decision;

    /// The whole state.
    fn snapshot(&self) -> Vec<u8>;

    /// Restores the state; `version` is that of the rules that wrote it.
    ///
    /// # Errors
    /// One line when the bytes are not such a state.
    fn restore(&mut self, version: u32, bytes: &[u8]) -> Result<(), String>;
}

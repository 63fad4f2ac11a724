//! What rules decide.

use bytes::Bytes;

use super::When;
use crate::types::Audience;

/// What rules decide about an event. The core makes a verdict of it: it enforces one winner a round and computes margins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub(crate) ruling: Ruling,
    pub(crate) contest: Option<String>,
    pub(crate) next_round: bool,
    pub(crate) audience: Audience,
    pub(crate) body: Option<Bytes>,
    /// In the order in which they take effect.
    pub(crate) timers: Vec<TimerCommand>,
}

/// What a decision does to a timer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TimerCommand {
    Set {
        name: String,
        when: When,
        /// One MessagePack value.
        data: Bytes,
    },
    Cancel(String),
}

/// Why a program came to no decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// One line.
    pub error: String,
    /// Where, innermost first.
    pub stack: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ruling {
    Granted,
    Denied(String),
    /// Wins the contest's current round, which must have no winner yet.
    Won,
    /// Came after the winner of the contest's current round: the core says by how much.
    Late,
    /// The program failed and has changed nothing.
    Failed(Box<Failure>),
}

impl Decision {
    fn of(ruling: Ruling, contest: Option<&str>) -> Self {
        let contest = contest.map(str::to_owned);
        Self { ruling, contest, next_round: false, audience: Audience::Room, body: None, timers: Vec::new() }
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

    /// Sets a timer, or sets it anew if the room has one of this name. [`Rules::fire`](super::Rules::fire) decides what it does. The
    /// name has 1 to 64 bytes. `data` is any value that serializes to MessagePack, at most 1 KiB. A room has at most 256 timers. Over
    /// a bound the verdict is void, with the bound's name ([`When`] has them).
    #[must_use]
    pub fn timer(mut self, name: &str, when: When, data: &impl serde::Serialize) -> Self {
        // As for a body: a type that MessagePack cannot carry is a fault of the rules.
        let data = rmp_serde::to_vec_named(data).unwrap_or_else(|e| panic!("rules: a timer's data does not serialize: {e}"));
        self.timers.push(TimerCommand::Set { name: name.to_owned(), when, data: data.into() });
        self
    }

    /// Cancels a timer. If there is none of this name, nothing happens.
    #[must_use]
    pub fn cancel(mut self, name: &str) -> Self {
        self.timers.push(TimerCommand::Cancel(name.to_owned()));
        self
    }

    /// The program failed and has changed nothing.
    pub(crate) fn failed(error: String, stack: Vec<String>) -> Self {
        Self::of(Ruling::Failed(Box::new(Failure { error, stack })), None)
    }
}

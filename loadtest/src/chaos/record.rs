//! What the players of a run saw, each by itself, and what the journal has of their rooms.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use lasthit::types::{Outcome, Stamp, Verdict, VerdictKind};

/// One action of a player.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acted {
    /// The client's name for it.
    pub(crate) id: String,
    /// When it was first sent, from the start of the run.
    pub(crate) sent: Duration,
    /// How often it was sent.
    pub(crate) sends: u32,
    /// The verdict on it, when it came.
    pub(crate) answer: Option<Answer>,
}

/// The first verdict on an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    /// When it came, from the start of the run.
    pub(crate) at: Duration,
    /// Its number.
    pub(crate) seq: u64,
}

/// What a player was told, in the order in which it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    /// A session began.
    Welcome {
        /// When, from the start of the run.
        at: Duration,
        /// The room's life.
        era: u64,
        /// The `seq` up to which verdicts count as seen.
        seq: u64,
        /// It goes on where the last one ended.
        resumed: bool,
        /// The gateway's name of the session.
        session: String,
    },
    /// A verdict.
    Verdict(Seen),
    /// The gateway says that the room has not come as far as the player has seen (close code 4400).
    Ahead,
}

/// A verdict as a player saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The first number that it covers.
    pub(crate) from: u64,
    /// Its number.
    pub(crate) seq: u64,
    /// It is the verdict of that number again; 0 when it is not.
    pub(crate) repeat_of: u64,
    /// Its content as a number, see [`digest`].
    pub(crate) digest: u64,
}

/// One player's whole run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Record {
    /// Its name.
    pub(crate) player: String,
    /// Its room, as an index.
    pub(crate) room: usize,
    /// The actions that it sent.
    pub(crate) acted: Vec<Acted>,
    /// The messages that it received.
    pub(crate) told: Vec<Told>,
}

/// A room as the journal has it in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoomRecord {
    /// Its name.
    pub(crate) name: String,
    /// Its life.
    pub(crate) era: u64,
    /// The number of its last verdict.
    pub(crate) seq: u64,
    /// From which verdict on its time is its stamps' nanoseconds and how much more.
    pub(crate) epochs: Vec<(u64, u64)>,
    /// All of its verdicts, in order.
    pub(crate) verdicts: Vec<Verdict>,
    /// The stamps of all actions in its stream.
    pub(crate) accepted: Vec<Stamp>,
    /// Verdicts that differ when the room is resolved again, or why it could not be resolved.
    pub(crate) deviations: Vec<String>,
}

/// The content of a verdict as a number, equal for verdicts with the same content.
#[derive(Debug, Hash)]
pub(crate) struct Says<'a> {
    pub(crate) event: &'a str,
    pub(crate) timer: &'a str,
    pub(crate) player: &'a str,
    pub(crate) id: &'a str,
    pub(crate) contest: &'a str,
    pub(crate) round: u64,
    pub(crate) outcome: &'a str,
    pub(crate) reason: &'a str,
    pub(crate) arrival_ns: u64,
}

/// See [`Says`].
pub(crate) fn digest(says: &Says<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    says.hash(&mut hasher);
    hasher.finish()
}

/// What a recorded verdict says.
pub(crate) fn digest_of(verdict: &Verdict) -> u64 {
    let (outcome, reason) = match &verdict.outcome {
        Outcome::Granted => ("granted", ""),
        Outcome::Denied(why) => ("denied", why.as_str()),
        Outcome::Void(why) => ("void", why.as_str()),
        // As the protocol shows a repeat whose first verdict is no longer kept.
        Outcome::Repeat { .. } => ("void", "repeat"),
    };
    digest(&Says {
        event: verdict.kind.as_str(),
        timer: verdict.fire.as_ref().map_or("", |fire| &fire.name),
        player: verdict.player.as_ref().map_or("", |player| player.as_str()),
        id: verdict.id.as_deref().unwrap_or_default(),
        contest: verdict.contest.as_deref().unwrap_or_default(),
        round: verdict.round,
        outcome,
        reason,
        arrival_ns: verdict.stamp.moment.ns,
    })
}

/// Whether it is on an action.
pub(crate) fn is_data(verdict: &Verdict) -> bool {
    verdict.kind == VerdictKind::Data
}

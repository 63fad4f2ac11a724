//! The decision on an event.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use super::{Flags, PlayerId, SessionId, Stamp};

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect.
    Granted,
    /// It did not, and why (a word of the rules' or the core's, such as `late`).
    Denied(String),
    /// It could not be resolved at all (unreadable entry, rules that failed): decided as nothing, once and for all.
    Void(String),
    /// The player used this id before: the first verdict, with this `seq`, stands.
    Repeat {
        /// The first verdict's `seq`.
        of: u64,
    },
}

/// Why an Open is void: as many sessions are inside as may be. The session does not join, and its gateway closes it. Rules only
/// deny, by whatever word: that session joins.
pub(crate) const ROOM_FULL: &str = "room_full";

/// Who may see a verdict. Sessions with the server role see all of their room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Audience {
    /// Every session in the room.
    Room,
    /// The session whose event it decides.
    Session,
    /// Server sessions only.
    Server,
}

/// Which of the socket events a verdict decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VerdictKind {
    /// onOpen.
    Open,
    /// onData.
    Data,
    /// onEnd.
    End,
    /// onError.
    Error,
    /// onClose.
    Close,
    /// An entry that nobody can read.
    Unreadable,
}

impl VerdictKind {
    /// The word on the public wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Data => "data",
            Self::End => "end",
            Self::Error => "error",
            Self::Close => "close",
            Self::Unreadable => "unreadable",
        }
    }
}

/// The decision on one event: final once it is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The room's count of verdicts, contiguous from 1.
    pub seq: u64,
    /// The event's stamp, which also names the event.
    pub stamp: Stamp,
    /// Which socket event.
    pub kind: VerdictKind,
    /// The session's number in its gateway's incarnation.
    pub session: u64,
    /// Who acted. None for an unreadable entry.
    pub player: Option<PlayerId>,
    /// The client's id of the action.
    pub id: Option<String>,
    /// What was contested.
    pub contest: Option<String>,
    /// The contest's round, from 1; 0 without a contest.
    pub round: u64,
    /// What was decided.
    pub outcome: Outcome,
    /// How well the arrival is known, in nanoseconds.
    pub uncertainty_ns: u64,
    /// How many nanoseconds after the winner a denied contender arrived.
    pub behind_ns: Option<u64>,
    /// How the stamp and the decision came to be.
    pub flags: Flags,
    /// What the clock said before the stamp was moved, when it was.
    pub raw_ns: Option<u64>,
    /// Who may see it.
    pub audience: Audience,
    /// What the rules have to say: one MessagePack value.
    pub body: Option<Bytes>,
}

impl Verdict {
    /// The session whose event it decides.
    #[must_use]
    pub fn session_id(&self) -> SessionId {
        SessionId { gateway: self.stamp.incarnation, number: self.session }
    }
}

/// Verdicts of one room, in `seq` order: what a commit appends, and what a push carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerdictBatch {
    /// The room's life that they belong to.
    pub era: u64,
    /// The verdicts; `seq` rises, with gaps where a push leaves out what its gateway has no audience for.
    pub verdicts: Vec<Verdict>,
}

/// How far a client has seen a room: era and `seq`, written `era.seq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since {
    /// One life of a room, from creation to its end.
    pub era: u64,
    /// The last `seq` seen.
    pub seq: u64,
}

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.era, self.seq)
    }
}

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split_once('.')
            .and_then(|(era, seq)| Some(Self { era: era.parse().ok()?, seq: seq.parse().ok()? }))
            .ok_or_else(|| format!("{:?} is not of the form era.seq, as in 3.120", text.chars().take(80).collect::<String>()))
    }
}

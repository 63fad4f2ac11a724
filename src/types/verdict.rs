//! The decision on an event.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;

use super::{Epoch, Flags, PlayerId, ProgramId, RoomTime, SessionId, Stamp};

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect.
    Granted,
    /// It took no effect. The reason is a word of the rules or of lasthit, such as `late`.
    Denied(String),
    /// It could not be resolved, because the entry is unreadable or the rules failed. It never takes effect.
    Void(String),
    /// The player used this id before. The first verdict stands.
    Repeat {
        /// The first verdict's `seq`.
        of: u64,
    },
}

/// The reason of an Open that is void because the room is full. Its session does not join, and the gateway closes it. A session
/// whose Open the rules deny joins, even if they use this word.
pub(crate) const ROOM_FULL: &str = "room_full";

/// Who may see a verdict. Sessions with the server role see all of their room.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Audience {
    /// Every session in the room.
    Room,
    /// The session whose event it decides. Nobody's, if a timer fired.
    Session,
    /// Server sessions only.
    Server,
    /// Every session of these players, and the session whose event it decides.
    Players(Arc<[PlayerId]>),
}

/// What a verdict decides: one of the socket events, a timer, or which program decides from there on.
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
    /// An entry that cannot be read.
    Unreadable,
    /// A timer of the room has fired.
    Timer,
    /// Another program decides the room from here on, or was to.
    Rules,
}

/// A timer that has fired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fire {
    /// The timer's name.
    pub name: String,
    /// When it was due.
    pub due: RoomTime,
    /// How much later the worker noticed it, in nanoseconds.
    pub late_ns: u64,
    /// How many of its earlier moments did not fire, because they were noticed too late. 0 for a timer that does not repeat.
    pub missed: u64,
}

/// The program that decides a room from a verdict on; if that is void, it was to, and the one before goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The program; [`ProgramId::NONE`] for one outside of the worker.
    pub program: ProgramId,
    /// The number of its push; 0 for a program outside.
    pub push: u64,
    /// What it calls itself.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// The version of the program before it.
    pub from: u32,
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
            Self::Timer => "timer",
            Self::Rules => "rules",
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
    /// The uncertainty of the arrival, in nanoseconds.
    pub uncertainty_ns: u64,
    /// How many nanoseconds after the winner a denied contender arrived.
    pub behind_ns: Option<u64>,
    /// How the stamp and the decision came to be.
    pub flags: Flags,
    /// The stamp before it was moved up; None if it was not moved.
    pub raw_ns: Option<u64>,
    /// Who may see it.
    pub audience: Audience,
    /// The rules' answer: one MessagePack value.
    pub body: Option<Bytes>,
    /// The timer, if this is the verdict of one.
    pub fire: Option<Box<Fire>>,
    /// The program, if this is the verdict of a change.
    pub change: Option<Box<Change>>,
}

impl Verdict {
    /// Granted to nobody in particular, and seen by the whole room: what a verdict is before more is known.
    #[must_use]
    pub fn granted(seq: u64, stamp: Stamp, kind: VerdictKind) -> Self {
        Self {
            seq,
            stamp,
            kind,
            session: 0,
            player: None,
            id: None,
            contest: None,
            round: 0,
            outcome: Outcome::Granted,
            uncertainty_ns: 0,
            behind_ns: None,
            flags: Flags::default(),
            raw_ns: None,
            audience: Audience::Room,
            body: None,
            fire: None,
            change: None,
        }
    }

    /// The session whose event it decides.
    #[must_use]
    pub fn session_id(&self) -> SessionId {
        SessionId { gateway: self.stamp.incarnation, number: self.session }
    }
}

/// Verdicts of one room, in `seq` order: what a commit appends, and what a push carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerdictBatch {
    /// The era of the room.
    pub era: u64,
    /// The epoch that the room counts by from its first verdict on, if that is another than before.
    pub epoch: Option<Epoch>,
    /// Which program decided, and what the verdicts do not tell of that; None for rooms without a program, and in pushes.
    pub decided: Option<Bytes>,
    /// The verdicts. Their `seq` rises. A push leaves out those that none of its gateway's sessions may see.
    pub verdicts: Vec<Verdict>,
}

impl VerdictBatch {
    /// A batch of one verdict.
    pub(crate) fn of(era: u64, verdict: Verdict) -> Self {
        Self { era, epoch: None, decided: None, verdicts: vec![verdict] }
    }

    /// Whether it is of a change of program, which has a batch of its own.
    pub(crate) fn is_change(&self) -> bool {
        self.verdicts.first().is_some_and(|verdict| verdict.kind == VerdictKind::Rules)
    }
}

/// The last verdict of a room that a client has seen, written `era.seq`.
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

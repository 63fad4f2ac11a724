//! Values only: what the stages of the road hand to each other. Nothing here does I/O or reads a clock.

mod action;
mod event;
mod id;
mod stamp;
mod verdict;

pub use action::Action;
pub use event::{Entry, Event, EventKind, Role};
pub use id::{IdError, Incarnation, PlayerId, RoomId, SessionId, ShardId};
pub use stamp::{Arrival, Flags, Moment, ParseMomentError, Stamp, StreamId};
pub(crate) use verdict::ROOM_FULL;
pub use verdict::{Audience, Outcome, Since, Verdict, VerdictBatch, VerdictKind};

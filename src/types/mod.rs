//! The values that the stages exchange. Nothing here does I/O or reads a clock.
//!
//! ```
//! use lasthit::types::{Moment, RoomId, Since, Stamp};
//!
//! let room: RoomId = "baron-pit".parse()?;
//! assert_eq!("3.120".parse(), Ok(Since { era: 3, seq: 120 }));
//!
//! // What arrived earlier comes first, whichever gateway received it.
//! let stamp = |ns, gateway| Stamp { moment: Moment { timeline: 1, ns }, incarnation: gateway, ordinal: 1 };
//! let (one, other) = (lasthit::types::Incarnation(7), lasthit::types::Incarnation(2));
//! assert!(stamp(5_000, one) < stamp(5_001, other));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod action;
mod event;
mod failed;
mod home;
mod id;
mod stamp;
mod time;
mod verdict;

pub use action::Action;
pub use event::{Entry, Event, EventKind, Role};
pub use failed::Failed;
pub(crate) use failed::failure_line;
pub(crate) use home::advertised;
pub use home::{Home, HomeError, HostId};
#[doc(hidden)]
pub use id::Seed;
pub(crate) use id::check_program_name;
pub use id::{IdError, Incarnation, PlayerId, ProgramId, RoomId, SessionId, ShardId};
pub use stamp::{Arrival, Flags, Moment, ParseMomentError, Stamp, StreamId};
pub(crate) use time::ns_of_ms;
pub use time::{Epoch, RoomTime};
pub(crate) use verdict::ROOM_FULL;
pub use verdict::{Audience, Change, Fire, Outcome, Since, Verdict, VerdictBatch, VerdictKind};

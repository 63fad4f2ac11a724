//! What time it is in a room.

/// A room's time: nanoseconds since 1970 (UTC). It is the arrival's time on the monotonic clock plus the room's *epoch*, the
/// difference of the host's two clocks that the room knows (rule T1). It never goes back. [`RoomTime::UNKNOWN`] in rooms that a version
/// without room time has recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct RoomTime(pub u64);

impl RoomTime {
    /// No time is known.
    pub const UNKNOWN: Self = Self(0);

    /// The time in whole milliseconds since 1970, as JavaScript counts it.
    #[must_use]
    pub fn ms(self) -> u64 {
        self.0 / 1_000_000
    }

    /// The time `ns` nanoseconds later.
    #[must_use]
    pub fn plus(self, ns: u64) -> Self {
        Self(self.0.saturating_add(ns))
    }

    /// Nanoseconds from `earlier` to `self`; 0 when it is not later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// What a room adds to the nanoseconds of its stamps to get its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Epoch {
    /// The wall clock less the monotonic clock, as the worker measured it, in nanoseconds. It tells whether the wall clock was stepped since.
    pub source_ns: u64,
    /// What the room adds. It differs from `source_ns` by what kept its time from going back.
    pub ns: u64,
}

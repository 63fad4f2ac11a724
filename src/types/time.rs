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

    /// The same with what is behind the point: parts of a millisecond.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "milliseconds until the year 287,000 are exact; their fraction is not needed so"
    )]
    pub fn fractional_ms(self) -> f64 {
        self.ms() as f64 + (self.0 % 1_000_000) as f64 / 1e6
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
    /// The wall clock less the monotonic clock, as the worker measured it, in nanoseconds. It tells whether the wall clock was
    /// stepped since.
    pub source_ns: u64,
    /// What the room adds. It differs from `source_ns` by what kept its time from going back.
    pub ns: u64,
}

/// Nanoseconds of so many milliseconds. None if that is negative or no number.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "what is out of range becomes the largest number")]
pub(crate) fn ns_of_ms(ms: f64) -> Option<u64> {
    // In two parts: a moment in nanoseconds is more than a float holds.
    (ms >= 0.0).then(|| (ms.trunc() as u64).saturating_mul(1_000_000).saturating_add((ms.fract() * 1e6).round() as u64))
}

//! Bounds of timers and of room time.

use std::time::Duration;

use super::{RESOLVE_EVENTS_MAX, RULES_TIMEOUT};

/// Timers of a room that are set at one time.
pub(crate) const TIMERS_PER_ROOM_MAX: usize = 256;
/// Bytes of the data that a timer is set with, encoded.
pub(crate) const TIMER_DATA_BYTES_MAX: usize = 1024;
/// Bytes of a cron expression.
pub(crate) const CRON_BYTES_MAX: usize = 128;
/// The nearest moment that a timer may be set to, and the shortest interval of one that repeats.
pub(crate) const TIMER_AHEAD_MIN: Duration = Duration::from_millis(16);
/// The farthest moment that a timer may be set to.
pub(crate) const TIMER_AHEAD_MAX: Duration = Duration::from_secs(30 * 86_400);
/// How late a moment of a repeating timer may be noticed and still fire by itself. Those that are noticed later fire once together.
pub(crate) const TIMER_LATE_MAX: Duration = Duration::from_millis(200);
/// Fires without an event in between, beyond which timers keep an empty room no longer.
pub(crate) const FIRES_ALONE_MAX: u32 = 16;
/// By how much the wall clock must be stepped before rooms count by it anew. Measurements of its offset differ by far less.
pub(crate) const EPOCH_STEP_MIN: Duration = Duration::from_millis(1);

const _: () = assert!(
    TIMER_AHEAD_MIN.as_millis() * 10 < TIMER_LATE_MAX.as_millis() && TIMER_LATE_MAX.as_millis() < RULES_TIMEOUT.as_millis()
);
const _: () = assert!(TIMERS_PER_ROOM_MAX <= RESOLVE_EVENTS_MAX && FIRES_ALONE_MAX as usize <= RESOLVE_EVENTS_MAX);

//! Bounds of moves from one gateway to another.

use std::time::Duration;

/// How many times as many sessions an address or a player may have while it resumes: the second session of a move begins before
/// the first one ends, and one whose network was lost is noticed late.
pub(crate) const RESUMED_SESSIONS_FACTOR: usize = 2;
/// How long a client has for a move that evens sessions out.
pub(crate) const MOVE_WITHIN: Duration = Duration::from_secs(5);
/// How long a session must not have acted before such a move is offered to it.
pub(crate) const MOVE_QUIET: Duration = Duration::from_secs(1);
/// How long a session is not offered another such move, so that whoever does not know moves is left alone.
pub(crate) const MOVE_AGAIN: Duration = Duration::from_secs(60);
/// Between the time that a leaving gateway gives its clients and the close of those that are still there: a client that is late
/// stops sending for 250 ms before it changes over.
pub(crate) const MOVE_GRACE: Duration = Duration::from_millis(500);
/// How often a leaving gateway offers moves to some more of its sessions.
pub(crate) const MOVE_STEP: Duration = Duration::from_millis(50);
/// The longest time over which a gateway moves its sessions.
pub(crate) const MOVE_WINDOW_MAX: Duration = Duration::from_secs(600);
/// Bytes of the address in a move.
pub(crate) const MOVE_URL_BYTES_MAX: usize = 256;

const _: () = assert!(RESUMED_SESSIONS_FACTOR >= 2);
const _: () = assert!(MOVE_WITHIN.as_secs() < MOVE_AGAIN.as_secs());
const _: () = assert!(MOVE_STEP.as_millis() < MOVE_GRACE.as_millis() && MOVE_GRACE.as_millis() >= 500);

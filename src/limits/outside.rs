//! The bounds of programs that decide from outside.

use std::time::Duration;

use super::{ARGS_DEPTH_MAX, COMMIT_BYTES_MAX, RESOLVE_EVENTS_MAX};

/// Bytes of a room's state that a program may keep, as JSON.
pub const PROGRAM_STATE_BYTES_MAX: usize = 1024 * 1024;
/// Nesting of a value that a program says: a state, a body, the data of a timer.
pub const PROGRAM_DEPTH_MAX: usize = 100;
/// Events that a program is asked for at once.
pub const PROGRAM_EVENTS_MAX: usize = RESOLVE_EVENTS_MAX;
/// Bytes of the events in one request, each counted with the state that may come back with it.
pub const PROGRAM_EVENTS_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of a frame on a program's socket.
pub const PROGRAM_FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of a bad frame that a log line shows.
pub(crate) const PROGRAM_SHOWN_BYTES: usize = 200;
/// Bytes of a line that a program writes for the log.
pub const PROGRAM_LINE_BYTES_MAX: usize = 1024;
/// Lines of a program that one instance may log in a second; further ones are counted.
pub const PROGRAM_LINES_PER_SECOND: u32 = 100;
/// Lines of a stack that are kept of an event that failed.
pub(crate) const PROGRAM_STACK_LINES_MAX: usize = 10;
/// Instances of one program.
pub const PROGRAM_INSTANCES_MAX: usize = 64;
/// Jobs that may wait for one instance, so that it is not idle between two of them.
pub(crate) const PROGRAM_JOBS_PER_INSTANCE: usize = 2;
/// How long a program that is a process may take over one request unless configured otherwise.
pub const PROGRAM_BUDGET: Duration = Duration::from_secs(1);
/// Shortest such time that may be configured, in milliseconds.
pub const PROGRAM_BUDGET_MS_MIN: u64 = 10;
/// Longest such time that may be configured, in milliseconds.
pub const PROGRAM_BUDGET_MS_MAX: u64 = 60_000;
/// How long a program that was started may take until it says `hello`.
pub const PROGRAM_HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an event waits for a program of which no instance runs, counted from when the last one ended.
pub(crate) const PROGRAM_WAIT_MAX: Duration = Duration::from_secs(10);
/// How often a program that has nothing to do is asked whether it is there.
pub(crate) const PROGRAM_PING_INTERVAL: Duration = Duration::from_secs(1);
/// First pause before a program is started again. It doubles each time, until the program has decided
/// something.
pub(crate) const PROGRAM_RESTART_MIN: Duration = Duration::from_millis(100);
/// Longest pause before a program is started again.
pub(crate) const PROGRAM_RESTART_MAX: Duration = Duration::from_secs(10);

// A state that is due to be asked for with one event, and a few that come back in one answer.
const _: () = assert!(PROGRAM_STATE_BYTES_MAX * 2 <= PROGRAM_EVENTS_BYTES && PROGRAM_EVENTS_BYTES * 4 <= PROGRAM_FRAME_BYTES_MAX);
const _: () = assert!(PROGRAM_STATE_BYTES_MAX * 2 <= COMMIT_BYTES_MAX && PROGRAM_EVENTS_MAX <= RESOLVE_EVENTS_MAX);
// The arguments of an action are said back to a program, and all of it is read as one value of at most 128 levels.
const _: () = assert!(ARGS_DEPTH_MAX <= PROGRAM_DEPTH_MAX && PROGRAM_DEPTH_MAX + 3 < 128);
const _: () = assert!(PROGRAM_RESTART_MIN.as_millis() < PROGRAM_RESTART_MAX.as_millis());
const _: () = assert!(
    PROGRAM_BUDGET_MS_MIN < PROGRAM_BUDGET.as_millis() as u64 && PROGRAM_BUDGET.as_millis() as u64 <= PROGRAM_BUDGET_MS_MAX
);

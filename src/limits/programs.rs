//! The bounds of programs: rules in a file.

use std::time::Duration;

use super::{
    COMMIT_BYTES_MAX, MESSAGE_BYTES_MAX, NAME_BYTES_MAX, REASON_BYTES_MAX, RESOLVE_EVENTS_MAX, RULES_ATTEMPTS,
    RULES_ATTEMPTS_MAX, TIMERS_PER_ROOM_MAX,
};

/// Bytes of a program.
pub(crate) const PROGRAM_BYTES_MAX: usize = 1024 * 1024;
/// Programs that a deployment keeps.
pub const PROGRAMS_KEPT_MAX: usize = 1_024;
/// Programs that a worker has loaded for rooms that they decided before.
pub(crate) const PROGRAMS_OPEN_MAX: usize = 64;
/// How often a worker asks for pushed programs, beside being told of them.
pub(crate) const PROGRAMS_INTERVAL: Duration = Duration::from_secs(5);
/// How long a program that decided before is kept at least, as workers and rooms may not have changed yet.
pub(crate) const PROGRAM_UNUSED_MIN: Duration = Duration::from_secs(3600);
/// Timers that may fire while a program is tried on a recorded room, beside those of the record.
pub(crate) const TRIED_FIRES_MAX: usize = 100_000;
/// How often a watched file is looked at.
pub(crate) const WATCH_INTERVAL: Duration = Duration::from_millis(200);
/// Bytes of the state of a room that a program decides, and of a value that it returns.
pub(crate) const DATA_BYTES_MAX: usize = 1024 * 1024;
/// Nesting of such a value.
pub(crate) const DATA_DEPTH_MAX: usize = 64;
/// Processor time of a program for one event, in milliseconds, unless configured otherwise.
pub(crate) const BUDGET_MS: u32 = 50;
/// The most that may be configured.
pub(crate) const BUDGET_MS_MAX: u32 = 1_000;
/// Memory of a context in MiB unless configured otherwise: all that a program holds on one thread.
pub(crate) const MEMORY_MIB: u32 = 32;
/// The least that may be configured: the language itself takes some.
pub(crate) const MEMORY_MIB_MIN: u32 = 8;
/// The most that may be configured.
pub(crate) const MEMORY_MIB_MAX: u32 = 1_024;
/// Stack of a program in KiB unless configured otherwise.
pub(crate) const STACK_KIB: u32 = 256;
/// The least that may be configured.
pub(crate) const STACK_KIB_MIN: u32 = 64;
/// The most that may be configured: the stack of a thread holds it, and what surrounds it.
pub(crate) const STACK_KIB_MAX: u32 = 1_024;
/// Lines of stack that are kept of a failure unless configured otherwise.
pub(crate) const STACK_LINES: u32 = 10;
/// The most that may be configured.
pub(crate) const STACK_LINES_MAX: u32 = 100;
/// Bytes of the error of a failure, and of a line of its stack.
pub(crate) const FAILURE_BYTES_MAX: usize = 512;
/// Contexts that one thread keeps. A further program takes the place of the one that was used longest ago.
pub(crate) const CONTEXTS_PER_THREAD_MAX: usize = 16;
/// Events that a context checks before it is made anew, so that it does not remember what the context that decides does.
pub(crate) const CHECKED_EVENTS_MAX: u32 = 16;
/// Timers that one event may set and cancel.
pub(crate) const TIMER_COMMANDS_MAX: usize = 2 * TIMERS_PER_ROOM_MAX;
/// Timers that may fire within one step of a test.
pub(crate) const STEP_FIRES_MAX: usize = 1_000;
/// The most room time that one step of a test lets pass.
pub(crate) const STEP_AFTER_MAX: Duration = Duration::from_secs(400 * 86_400);
/// How long a program is measured.
pub(crate) const BENCH_TIME: Duration = Duration::from_secs(1);
/// Events that are measured at most.
pub(crate) const BENCH_EVENTS_MAX: usize = 1_000_000;
/// Bytes of the stack of a thread that decides programs: their own, and what surrounds it.
pub(crate) const PROGRAM_THREAD_STACK_BYTES: usize = 4 * 1024 * 1024;
/// How often the failures of a room are logged.
pub(crate) const FAILURE_LOG_INTERVAL: Duration = Duration::from_secs(1);
/// Rooms whose last log line is remembered.
pub(crate) const FAILURE_LOG_ROOMS_MAX: usize = 1_024;
/// Failed events of a pattern's rooms that are kept unless configured otherwise.
pub(crate) const KEEP_FAILED: u32 = 1_000;
/// The most that may be configured.
pub(crate) const KEEP_FAILED_MAX: u32 = 10_000;
/// Bytes of what is kept of one failed event, at most.
pub(crate) const FAILED_BYTES_MAX: usize = 64 * 1024;
/// Failed events that one step reads.
pub(crate) const FAILED_PAGE: usize = 64;
/// The fewest resolved verdicts of a room that may be configured to be kept: gateways that have missed a push read them.
pub(crate) const KEEP_DONE_MIN: u64 = 1_000;
/// The most that may be configured.
pub(crate) const KEEP_DONE_MAX: u64 = 1_000_000_000;

const _: () = assert!(RULES_ATTEMPTS <= RULES_ATTEMPTS_MAX && KEEP_FAILED <= KEEP_FAILED_MAX);
const _: () = assert!(
    (STACK_LINES_MAX as usize + 1) * (FAILURE_BYTES_MAX + 2) + MESSAGE_BYTES_MAX + 4 * NAME_BYTES_MAX + REASON_BYTES_MAX
        < FAILED_BYTES_MAX
);
const _: () = assert!(FAILED_PAGE * FAILED_BYTES_MAX <= COMMIT_BYTES_MAX && KEEP_DONE_MIN >= RESOLVE_EVENTS_MAX as u64);
const _: () = assert!(PROGRAM_THREAD_STACK_BYTES >= 2 * 1024 * STACK_KIB_MAX as usize);

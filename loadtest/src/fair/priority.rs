//! Real-time priority for the thread that sends, so that the processes that its sends wake do not interrupt it.

use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
};

/// Lets the calling thread run before all usual ones; threads that it starts afterwards inherit that.
///
/// # Errors
/// A note for people, when the system does not permit it.
pub(crate) fn raise() -> Result<(), String> {
    let realtime = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, realtime).map_err(|error| {
        format!(
            "the sending thread may not run before others, and more races are dropped because it is interrupted: run as root or \
             raise `ulimit -r` ({error})"
        )
    })
}

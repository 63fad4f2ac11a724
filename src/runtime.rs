//! The tokio runtimes that the roles run on.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// Sources of I/O beside the sessions: listeners, the journal's connections, signals, admin.
const OTHER_SOURCES: usize = 256;

/// A gateway's: one thread, so that `yield_now` comes back after exactly one sweep, and one poll of the driver that
/// takes in every ready session at once. (A smaller batch would leave ready sockets unread under a sweep that
/// promises to have read them.)
///
/// # Errors
/// When the operating system refuses it.
pub fn gateway(sessions_max: usize) -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().max_io_events_per_tick(sessions_max + OTHER_SOURCES).build()
}

/// A worker's: one thread for its loop, the journal and quick rules; slow rules have threads of their own.
///
/// # Errors
/// When the operating system refuses it.
pub fn worker() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

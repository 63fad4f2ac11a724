//! What the scenarios stand on.

mod http;
mod process;
mod session;
mod witness;

use std::time::{Duration, Instant};

pub(crate) use http::{get, http, problem, status};
pub(crate) use process::{GatewayProcess, Process, WorkerProcess, end_by_signal, program, redis};
pub(crate) use servers::raw::{frame, raw_session, upgrade};
pub(crate) use session::{Heard, Session, Ticket};
pub(crate) use witness::WitnessWorker;

/// Longer than anything takes on a busy machine; nothing waits for it when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);

/// Waits until `done` gives something.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let start = now();
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(POLL);
    }
}

#[expect(clippy::disallowed_methods, reason = "measures how long a scenario takes, orders nothing")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Reads a session to its end: the code of the close frame, which must be the last.
pub(crate) async fn close_code(tcp: &mut tokio::net::TcpStream) -> u16 {
    servers::raw::rest(tcp).await.1
}

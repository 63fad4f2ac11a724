//! Settles a gateway that reads sockets: its watermarks never cover what it has not read.
//!
//! The gateway runs on one thread. `yield_now` returns after the ready tasks have run and the driver was polled once. That is
//! one sweep: it has read everything that had reached a socket before it began (rule S2). The watermark may rise to the start
//! of the last sweep, less a guard for bytes that are stamped and still on their way through the kernel.

use tokio_util::sync::CancellationToken;

use super::arrival::Drains;
use crate::clock::monotonic_ns;
use crate::gateway::hub::Hub;

/// Sweeps whenever the hub has something to settle. Must run on the runtime and the thread that read the sockets.
pub(crate) async fn sweep(hub: Hub, drains: Drains, stop: CancellationToken) {
    let sweeping = async {
        loop {
            hub.sweep_wanted().await;
            while hub.wants_sweep() {
                let began = monotonic_ns();
                tokio::task::yield_now().await;
                // A session with unread bytes is not covered by the sweep (rule S5).
                if drains.undrained() == 0 {
                    let until_ns = drains.floor_of(began);
                    drains.swept(until_ns);
                    hub.settled(until_ns);
                }
            }
        }
    };
    stop.run_until_cancelled(sweeping).await;
}

//! Settles a gateway that reads sockets: watches its own reading, and promises nothing that it has not read.
//!
//! The gateway runs on one thread. `yield_now` comes back after the ready tasks have run and the driver was polled once:
//! one sweep, in which everything that had reached a socket before the sweep began was read (rule S2). What a gateway may
//! promise is the start of its last sweep, less a guard for bytes that were stamped and still on their way through the kernel.

use tokio_util::sync::CancellationToken;

use super::arrival::Drains;
use super::hub::Hub;
use crate::clock::monotonic_ns;

/// Sweeps whenever the hub has something to settle. Must run on the runtime, and the thread, that reads the sockets.
pub(crate) async fn sweep(hub: Hub, drains: Drains, stop: CancellationToken) {
    let sweeping = async {
        loop {
            hub.sweep_wanted().await;
            while hub.wants_sweep() {
                let began = monotonic_ns();
                tokio::task::yield_now().await;
                // A session that was not read to its end is not covered by the sweep (rule S5).
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

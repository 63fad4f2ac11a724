//! Accepts connections. Each is one task, which holds the permits that bound it.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::arrival::StampedStream;
use super::places::Knock;
use super::{Front, http, session};
use crate::limits;
use crate::metrics::REFUSALS_TOTAL;

impl Front {
    /// Accepts connections until `stop` is cancelled. Then waits for the last one to end, at most [`limits::DRAIN_TIMEOUT`] from when
    /// all sessions must be closed.
    /// Connections are tasks of the calling runtime.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        let connections = TaskTracker::new();
        let handshakes = Arc::new(Semaphore::new(limits::HANDSHAKES_MAX));
        let turned_away = Arc::new(Semaphore::new(limits::TURNED_AWAY_MAX));
        loop {
            let next = async {
                // The semaphore is never closed, so there is always a permit in the end.
                let permit = Arc::clone(&handshakes).acquire_owned().await.ok()?;
                Some((listener.accept().await, permit))
            };
            let (accepted, permit) = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(next) = next => next,
            };
            match accepted {
                Ok((tcp, peer)) => match self.places.knock(&self.settings, peer.ip()) {
                    Ok(knock) => drop(connections.spawn(Arc::clone(&self).connection(tcp, peer.ip(), (permit, knock)))),
                    Err(problem) => {
                        metrics::counter!(REFUSALS_TOTAL, "code" => http::TOO_MANY_CONNECTIONS).increment(1);
                        if let Ok(told) = turned_away.clone().try_acquire_owned() {
                            let timeout = self.settings.close_timeout;
                            connections.spawn(tokio::time::timeout(timeout, http::turn_away(tcp, problem, told)));
                        }
                    }
                },
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    // Most likely there are no free file descriptors: other connections must end first.
                    tracing::warn!(%error, "cannot accept a connection: raise the limit of open files");
                    tokio::time::sleep(limits::ACCEPT_RETRY_INTERVAL).await;
                }
            }
        }
        drop(listener);
        connections.close();
        tokio::select! {
            () = self.leaving.cancelled() => {}
            () = connections.wait() => {}
        }
        if tokio::time::timeout(limits::DRAIN_TIMEOUT, connections.wait()).await.is_err() {
            tracing::warn!(connections = connections.len(), "connections did not end in time: they are dropped");
        }
    }

    pub(super) async fn connection(self: Arc<Self>, tcp: TcpStream, peer: IpAddr, handshake: (OwnedSemaphorePermit, Knock)) {
        let Ok(stream) = StampedStream::new(tcp, self.clock.clone(), self.drains.clone()) else { return };
        // Boxed, so that an open session does not keep its handshake's memory.
        let upgraded = Box::pin(http::exchange(&self, peer, stream)).await;
        drop(handshake);
        if let Some(upgraded) = upgraded {
            session::run(&self, upgraded).await;
        }
    }
}

/// Whether the error concerns one connection only, which failed before it was accepted.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

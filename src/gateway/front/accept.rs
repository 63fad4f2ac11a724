//! Accepts connections. Each is one task, which holds the permits that bound it.

use std::io;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::arrival::StampedStream;
use super::places::{Knock, Peer};
use super::tally::{Taken, Tally};
use super::{Front, http, session};
use crate::limits;
use crate::metrics::REFUSALS_TOTAL;

/// Where connections come from.
#[derive(Debug)]
pub(crate) enum Intake {
    /// A listener of its own.
    Listener(TcpListener),
    /// Another process accepts them.
    Passed(mpsc::Receiver<Passing>),
}

/// A connection that another process has accepted.
#[derive(Debug)]
pub(crate) struct Passing {
    pub(crate) stream: TcpStream,
    pub(crate) peer: Peer,
    pub(crate) taken: Taken,
}

impl From<TcpListener> for Intake {
    fn from(listener: TcpListener) -> Self {
        Self::Listener(listener)
    }
}

impl Intake {
    async fn next(&mut self, tally: &Arc<Tally>) -> io::Result<Passing> {
        match self {
            Self::Listener(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok(Passing { stream, peer: peer.ip().into(), taken: tally.connection(None) })
            }
            Self::Passed(passed) => match passed.recv().await {
                Some(passing) => Ok(passing),
                // Whoever passed them is gone: the process is asked to stop by this too.
                None => std::future::pending().await,
            },
        }
    }
}

impl Front {
    /// Takes connections in until `stop` is cancelled. Then waits for the last one to end, at most [`limits::DRAIN_TIMEOUT`] from when
    /// all sessions must be closed.
    /// Connections are tasks of the calling runtime.
    pub(crate) async fn serve(self: Arc<Self>, intake: impl Into<Intake>, stop: CancellationToken) {
        let mut intake = intake.into();
        let connections = TaskTracker::new();
        let handshakes = Arc::new(Semaphore::new(limits::HANDSHAKES_MAX));
        let turned_away = Arc::new(Semaphore::new(limits::TURNED_AWAY_MAX));
        loop {
            let next = async {
                // The semaphore is never closed, so there is always a permit in the end.
                let permit = Arc::clone(&handshakes).acquire_owned().await.ok()?;
                Some((intake.next(&self.tally).await, permit))
            };
            let (accepted, permit) = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(next) = next => next,
            };
            match accepted {
                Ok(Passing { stream: tcp, peer, taken }) => match self.places.knock(&self.settings, peer) {
                    Ok(knock) => {
                        drop(connections.spawn(Arc::clone(&self).connection(tcp, (permit, knock), Box::new((peer, taken)))))
                    }
                    Err(problem) => {
                        metrics::counter!(REFUSALS_TOTAL, "code" => http::TOO_MANY_CONNECTIONS).increment(1);
                        if let Ok(told) = turned_away.clone().try_acquire_owned() {
                            let timeout = self.settings.close_timeout;
                            connections.spawn(async move {
                                let _taken = taken;
                                let _ = tokio::time::timeout(timeout, http::turn_away(tcp, problem, told)).await;
                            });
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
        // What was passed before is answered, though nobody comes in any more.
        if let Intake::Passed(passed) = &mut intake {
            passed.close();
            while let Ok(Passing { stream, peer, taken }) = passed.try_recv() {
                if let (Ok(permit), Ok(knock)) =
                    (Arc::clone(&handshakes).try_acquire_owned(), self.places.knock(&self.settings, peer))
                {
                    connections.spawn(Arc::clone(&self).connection(stream, (permit, knock), Box::new((peer, taken))));
                }
            }
        }
        drop(intake);
        connections.close();
        tokio::select! {
            () = self.leaving.cancelled() => {}
            () = connections.wait() => {}
        }
        if tokio::time::timeout(limits::DRAIN_TIMEOUT, connections.wait()).await.is_err() {
            tracing::warn!(connections = connections.len(), "connections did not end in time: they are dropped");
        }
    }

    pub(super) async fn connection(
        self: Arc<Self>,
        tcp: TcpStream,
        handshake: (OwnedSemaphorePermit, Knock),
        // Boxed, so that the task of a session is small.
        who: Box<(Peer, Taken)>,
    ) {
        let Ok(stream) = StampedStream::new(tcp, self.clock.clone(), self.drains.clone()) else { return };
        let counting = self.tally.handshake();
        // Boxed, so that an open session does not keep its handshake's memory.
        let upgraded = Box::pin(http::exchange(&self, who.0, stream)).await;
        drop((handshake, counting));
        if let Some(upgraded) = upgraded {
            let _session = self.tally.session();
            session::run(&self, upgraded).await;
        }
    }
}

/// Whether the error concerns one connection only, which failed before it was accepted.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

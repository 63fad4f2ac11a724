//! What a child hears while it runs, and what it says.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::channel::{Load, Lower, ToChild, ToSupervisor, VERSION, file_of};
use crate::gateway::front::arrival::adopt;
use crate::gateway::front::tally::Tally;
use crate::limits::{CHILD_BEAT, CHILD_LOAD_INTERVAL, PASSED_MAX, WISHES_MAX};
use crate::shutdown::Shutdown;

/// The connection to the supervisor. Clones share it.
#[derive(Clone)]
pub(crate) struct Link(Arc<Lower>);

/// What comes through the channel.
pub(crate) struct Passed {
    /// Players' connections.
    pub(crate) connections: mpsc::Receiver<(TcpStream, SocketAddr)>,
    /// What else the supervisor wants.
    pub(crate) wishes: mpsc::Receiver<Wish>,
}

/// What a supervisor wants of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// So many quiet sessions are to be offered to move.
    Offer(usize),
    /// Others go on: all sessions are to be moved within this time, then the process ends.
    Leave(Duration),
}

impl Link {
    /// Listens to the supervisor from here on. Requests the shutdown when it closes the channel, or says what nobody understands.
    ///
    /// # Errors
    /// When the channel cannot be used.
    pub(crate) fn start(channel: OwnedFd, metrics: PrometheusHandle, shutdown: Shutdown) -> io::Result<(Self, Passed)> {
        let link = Self(Arc::new(Lower::of(channel)?));
        let (sender, connections) = mpsc::channel(PASSED_MAX);
        let (wishing, wishes) = mpsc::channel(WISHES_MAX);
        let hearing = link.clone();
        tokio::spawn(async move {
            match hearing.hear(&sender, &wishing, &metrics).await {
                Ok(()) => tracing::info!("the supervisor closed the channel: draining"),
                Err(error) => tracing::error!(%error, "the supervisor cannot be understood: draining"),
            }
            shutdown.request();
        });
        Ok((link, Passed { connections, wishes }))
    }

    async fn hear(
        &self,
        connections: &mpsc::Sender<(TcpStream, SocketAddr)>,
        wishes: &mpsc::Sender<Wish>,
        metrics: &PrometheusHandle,
    ) -> io::Result<()> {
        let about_metrics = Arc::new(Mutex::new(()));
        while let Some((message, beside)) = self.0.hear().await? {
            match (message, beside) {
                (ToChild::Connection, Some(connection)) => {
                    let connection = std::net::TcpStream::from(connection);
                    // One that has gone away meanwhile has no peer any more.
                    let taken = connection.peer_addr().and_then(|peer| Ok((adopt(connection)?, peer)));
                    match taken {
                        Ok(taken) => drop(connections.send(taken).await),
                        Err(error) => tracing::debug!(%error, "a connection ended on its way here"),
                    }
                }
                (ToChild::Offer { sessions }, _) => drop(wishes.send(Wish::Offer(sessions)).await),
                (ToChild::Leave { window_ms }, _) => {
                    let _ = wishes.send(Wish::Leave(Duration::from_millis(window_ms))).await;
                }
                (ToChild::Metrics { number }, _) => {
                    let (link, metrics, turn) = (self.0.clone(), metrics.clone(), about_metrics.clone());
                    tokio::spawn(async move {
                        let _one_at_a_time = turn.lock().await;
                        let said = match file_of("metrics", metrics.render().as_bytes()) {
                            Ok(file) => link.say(&ToSupervisor::Metrics { number }, Some(file.as_fd())).await,
                            Err(error) => Err(error),
                        };
                        if let Err(error) = said {
                            tracing::warn!(%error, "the supervisor gets no metrics");
                        }
                    });
                }
                (other, _) => tracing::warn!(?other, "the supervisor says what this process cannot do"),
            }
        }
        Ok(())
    }

    /// Tells that the process can do its work, and from then on what it has to do.
    pub(crate) fn ready(&self, tally: Option<Arc<Tally>>, sessions_max: usize) {
        let link = self.clone();
        tokio::spawn(async move {
            let mut said = link.0.say(&ToSupervisor::Ready { v: VERSION }, None).await;
            while said.is_ok() {
                let began = Instant::now();
                let load = tally.as_ref().map_or_else(Load::default, |tally| {
                    let counted = tally.read();
                    Load {
                        sessions: counted.sessions,
                        taken: counted.taken,
                        gone: counted.gone,
                        handshakes: counted.handshakes,
                        sessions_max: sessions_max as u64,
                        events: counted.events,
                    }
                });
                said = link.0.say(&ToSupervisor::Load(load), None).await;
                match &tally {
                    Some(tally) => {
                        let _ = timeout_at(began + CHILD_BEAT, tally.changed()).await;
                        sleep_until(began + CHILD_LOAD_INTERVAL).await;
                    }
                    None => sleep_until(began + CHILD_BEAT).await,
                }
            }
        });
    }
}

//! What a child hears while it runs, and what it says.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, sleep_until};

use super::channel::{Load, Lower, ToChild, ToSupervisor, VERSION, file_of};
use crate::gateway::front::arrival::adopt;
use crate::gateway::front::tally::Tally;
use crate::gateway::front::{Everywhere, Passing, Peer};
use crate::limits::{CHILD_BEAT, CHILD_LOAD_INTERVAL, GONE_PER_MESSAGE_MAX, PASSED_MAX, WISHES_MAX};
use crate::shutdown::Shutdown;

/// The connection to the supervisor. Clones share it.
#[derive(Clone)]
pub(crate) struct Link {
    channel: Arc<Lower>,
    tally: Arc<Tally>,
    shutdown: Shutdown,
}

/// What comes through the channel.
pub(crate) struct Passed {
    /// Players' connections.
    pub(crate) connections: mpsc::Receiver<Passing>,
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
        let link = Self { channel: Arc::new(Lower::of(channel)?), tally: Arc::default(), shutdown: shutdown.clone() };
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
        connections: &mpsc::Sender<Passing>,
        wishes: &mpsc::Sender<Wish>,
        metrics: &PrometheusHandle,
    ) -> io::Result<()> {
        let about_metrics = Arc::new(Mutex::new(()));
        while let Some((message, beside)) = self.channel.hear().await? {
            match (message, beside) {
                (ToChild::Connection { number, held, recent }, connection) => {
                    // It counts from here on, whatever becomes of it: the door counts on that.
                    let taken = self.tally.connection(Some(number));
                    let Some(connection) = connection.map(std::net::TcpStream::from) else {
                        tracing::warn!("a connection was lost on its way here: raise the limit of open files");
                        continue;
                    };
                    // One that has gone away meanwhile has no peer any more.
                    match connection.peer_addr().and_then(|peer| Ok((adopt(connection)?, peer))) {
                        Ok((stream, peer)) => {
                            let peer = Peer { ip: peer.ip(), everywhere: Some(Everywhere { held, recent }) };
                            drop(connections.send(Passing { stream, peer, taken }).await);
                        }
                        Err(error) => tracing::debug!(%error, "a connection ended on its way here"),
                    }
                }
                (ToChild::Offer { sessions }, _) => drop(wishes.send(Wish::Offer(sessions)).await),
                (ToChild::Leave { window_ms }, _) => {
                    let _ = wishes.send(Wish::Leave(Duration::from_millis(window_ms))).await;
                }
                (ToChild::Metrics { number }, _) => {
                    let (link, metrics, turn) = (self.channel.clone(), metrics.clone(), about_metrics.clone());
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
                (other @ ToChild::Start { .. }, _) => tracing::warn!(?other, "the supervisor says again what was said"),
            }
        }
        Ok(())
    }

    /// What the supervisor is told of.
    pub(crate) fn tally(&self) -> Arc<Tally> {
        self.tally.clone()
    }

    /// Tells that the process can do its work, and from then on what it has to do. One that ends takes no session more.
    pub(crate) fn ready(&self, sessions_max: usize) {
        let link = self.clone();
        tokio::spawn(async move {
            let mut said = link.channel.say(&ToSupervisor::Ready { v: VERSION }, None).await;
            while said.is_ok() {
                let began = Instant::now();
                let (counted, is_ending) = (link.tally.read(), link.shutdown.is_requested());
                // What is counted as gone was named before.
                loop {
                    let numbers = link.tally.take_ended(GONE_PER_MESSAGE_MAX);
                    if numbers.is_empty() || said.is_err() {
                        break;
                    }
                    said = link.channel.say(&ToSupervisor::Gone { numbers }, None).await;
                }
                let load = Load {
                    sessions: counted.sessions,
                    taken: counted.taken,
                    gone: counted.gone,
                    handshakes: counted.handshakes,
                    sessions_max: if is_ending { 0 } else { sessions_max as u64 },
                    events: counted.events,
                };
                said = link.channel.say(&ToSupervisor::Load(load), None).await;
                let ending = async {
                    if is_ending {
                        std::future::pending::<()>().await;
                    }
                    link.shutdown.requested().await;
                };
                tokio::select! {
                    () = ending => {}
                    () = link.tally.changed() => sleep_until(began + CHILD_LOAD_INTERVAL).await,
                    () = sleep_until(began + CHILD_BEAT) => {}
                }
            }
        });
    }
}

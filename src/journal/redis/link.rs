//! A connection that is made again when it breaks. The server is checked each time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redis::aio::MultiplexedConnection;
use redis::{Client, RedisResult};
use tokio::sync::{Mutex, watch};

use super::super::JournalError;
use super::connect::{self, Found, Wanted};
use super::error::breaks;
use super::scripts::{self, Call};
use super::socket::Driver;
use super::target::{Server, Target};
use crate::limits::REPLICAS_TIMEOUT;
use crate::metrics::{NODE_ERRORS_TOTAL, NODE_REACHED};
use crate::types::{Incarnation, ShardId};

/// One connection that many callers share.
pub(super) struct Link {
    target: Arc<Target>,
    /// What the server must have. Once a value was found, it must stay.
    wanted: parking_lot::Mutex<Wanted>,
    live: Mutex<Option<Live>>,
    /// Attempts to connect that have ended.
    attempts: AtomicU64,
    failure: parking_lot::Mutex<Option<JournalError>>,
    /// Where the connection that was made last leads, so that subscriptions follow there. None before the first.
    made: watch::Sender<Option<Client>>,
}

/// A connection, and what its server and deployment have.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) connection: MultiplexedConnection,
    pub(super) at: Arc<Server>,
    pub(super) found: Found,
    /// In a cluster: the names of the server by shard, and for what is of no shard. Each is asked for when it is first needed.
    names: Arc<parking_lot::Mutex<HashMap<Option<ShardId>, Incarnation>>>,
    number: u64,
    waits: Arc<Waits>,
    _driver: Arc<Driver>,
}

/// The waits for replicas on one connection. There is one at a time, because a wait blocks the connection. Each is for all steps
/// that were answered before it began.
struct Waits {
    begun: AtomicU64,
    /// The number of the last wait that ended, and its result.
    ended: Mutex<(u64, Result<(), JournalError>)>,
}

impl Live {
    /// The name under which the server has a shard, or what is of none, if that was asked for on this connection.
    pub(super) fn name(&self, of: Option<ShardId>) -> Option<Incarnation> {
        self.names.lock().get(&of).copied()
    }

    pub(super) fn is_named(&self, of: Option<ShardId>, name: Incarnation) {
        self.names.lock().insert(of, name);
    }

    pub(super) fn forget(&self) {
        self.names.lock().clear();
    }
}

impl Link {
    /// A link that connects when it is first used.
    pub(super) fn new(target: Arc<Target>, wanted: Wanted) -> Self {
        let (live, failure, wanted) = (Mutex::new(None), parking_lot::Mutex::new(None), parking_lot::Mutex::new(wanted));
        Self { target, wanted, live, attempts: AtomicU64::new(0), failure, made: watch::Sender::new(None) }
    }

    /// The connection. If there is none, it is made now. Of many callers at the same time one connects, and all share the result.
    /// It does not retry: the callers do.
    pub(super) async fn live(&self) -> Result<Live, JournalError> {
        let before = self.attempts.load(Ordering::Acquire);
        let mut live = self.live.lock().await;
        if let Some(live) = &*live {
            return Ok(live.clone());
        }
        if self.attempts.load(Ordering::Acquire) != before
            && let Some(error) = self.failure.lock().clone()
        {
            return Err(error);
        }
        let connected = self.connect().await;
        let number = self.attempts.fetch_add(1, Ordering::Release);
        *self.failure.lock() = connected.as_ref().err().cloned();
        if connected.is_err() {
            self.count_error();
        }
        let (connection, driver, found, at) = connected?;
        self.made.send_replace(Some(at.client.clone()));
        let waits = Arc::new(Waits { begun: AtomicU64::new(0), ended: Mutex::new((0, Ok(()))) });
        let (names, driver) = (Arc::default(), Arc::new(driver));
        Ok(live.insert(Live { connection, at, found, names, number, waits, _driver: driver }).clone())
    }

    async fn connect(&self) -> Result<(MultiplexedConnection, Driver, Found, Arc<Server>), JournalError> {
        let server = self.target.find().await?;
        let (mut connection, driver) = connect::reach(&server).await?;
        let wanted = self.wanted.lock().clone();
        let found = match &server.cluster {
            None => connect::look(&mut connection, &wanted, &server).await?,
            Some(_) => connect::look_at_node(&mut connection, &wanted, &server).await?,
        };
        *self.wanted.lock() = wanted.fixed(&found);
        Ok((connection, driver, found, server))
    }

    /// Converts an error. If it shows that the connection or its server is no longer the same, later callers get a new connection.
    /// A timeout counts, too: the path may be dead.
    pub(super) fn judge<T>(&self, live: &Live, answer: RedisResult<T>) -> Result<T, JournalError> {
        answer.map_err(|error| {
            self.count_error();
            if breaks(&error) {
                tracing::debug!(%error, "connection to redis is given up");
                self.give_up(live);
            }
            // What this node had is with another: should it come back, it is met again.
            if error.code() == Some("MOVED") {
                live.forget();
            }
            live.at.error(&error)
        })
    }

    /// The URL of a node of a cluster, for metrics.
    fn node(&self) -> Option<String> {
        match &*self.target {
            Target::Address(server) if server.cluster.is_some() => Some(server.shown.clone()),
            Target::Address(_) | Target::Sentinels(_) => None,
        }
    }

    fn count_error(&self) {
        if let Some(node) = self.node() {
            metrics::counter!(NODE_ERRORS_TOTAL, "node" => node).increment(1);
        }
    }

    /// Shows whether the node takes steps.
    pub(super) fn is_reached(&self, is_reached: bool) {
        if let Some(node) = self.node() {
            metrics::gauge!(NODE_REACHED, "node" => node).set(f64::from(u8::from(is_reached)));
        }
    }

    /// Returns when the replicas have everything that was answered on this connection before. Another connection may lead to a
    /// server that has never seen it. `mark` is a call of [`CONFIRM`](super::scripts::CONFIRM).
    pub(super) async fn confirm(&self, live: &mut Live, mark: &Call) -> Result<(), JournalError> {
        let waits = live.waits.clone();
        let before = waits.begun.load(Ordering::Acquire);
        let mut ended = waits.ended.lock().await;
        if ended.0 <= before {
            let number = waits.begun.fetch_add(1, Ordering::AcqRel) + 1;
            *ended = (number, self.wait(live, mark).await);
        }
        ended.1.clone()
    }

    async fn wait(&self, live: &mut Live, mark: &Call) -> Result<(), JournalError> {
        let wanted = live.found.replicas;
        let answer = scripts::wait(mark, wanted, REPLICAS_TIMEOUT, &mut live.connection).await;
        match self.judge(live, answer)? {
            confirmed if confirmed >= wanted => Ok(()),
            confirmed => Err(JournalError::Silent(format!(
                "{confirmed} of {wanted} replicas confirmed a step within {REPLICAS_TIMEOUT:?}: trying again until they do"
            ))),
        }
    }

    /// What the server must have.
    pub(super) fn wanted(&self) -> Wanted {
        self.wanted.lock().clone()
    }

    /// Makes the next caller connect again.
    pub(super) fn give_up(&self, given_up: &Live) {
        // If somebody holds the lock, it is connecting, or handing out this connection to a caller that fails as well.
        if let Ok(mut live) = self.live.try_lock()
            && live.as_ref().is_some_and(|live| live.number == given_up.number)
        {
            *live = None;
        }
    }

    /// The connection, if there is one at this moment.
    pub(super) fn met(&self) -> Option<Live> {
        self.live.try_lock().ok()?.clone()
    }

    /// Where the connection that was made last leads. It changes with every connection, even to the same server.
    pub(super) fn made(&self) -> watch::Receiver<Option<Client>> {
        self.made.subscribe()
    }
}

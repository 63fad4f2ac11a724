//! A connection to a server that is looked at whenever the connection is made, and made again when it broke.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisResult};
use tokio::sync::{Mutex, watch};

use super::super::JournalError;
use super::connect::{self, Found, Wanted};
use super::error::{breaks, journal_error};
use super::scripts::{self, Call};
use crate::limits::{REDIS_CONNECT_TIMEOUT, REDIS_RESPONSE_TIMEOUT, REPLICAS_TIMEOUT};

/// One connection for all who share the link, sent to in turn and answered in turn.
pub(super) struct Link {
    client: Client,
    /// The URL without secrets.
    shown: String,
    /// What was found once is wanted from then on.
    wanted: parking_lot::Mutex<Wanted>,
    live: Mutex<Option<Live>>,
    /// Attempts to connect that have ended.
    attempts: AtomicU64,
    failure: parking_lot::Mutex<Option<JournalError>>,
    /// Counts the connections made, so that subscriptions follow to another server.
    made: watch::Sender<u64>,
}

/// A connection, and what was found behind it.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) connection: MultiplexedConnection,
    pub(super) found: Found,
    number: u64,
    waits: Arc<Waits>,
}

/// Waits for replicas on one connection: one at a time, since it holds up what is behind it, and each for all steps that
/// were answered before it began.
struct Waits {
    begun: AtomicU64,
    /// The number of the last that ended, and how.
    ended: Mutex<(u64, Result<(), JournalError>)>,
}

impl Link {
    /// One that connects when it is first used.
    pub(super) fn new(client: Client, shown: String, wanted: Wanted) -> Self {
        let (live, failure, wanted) = (Mutex::new(None), parking_lot::Mutex::new(None), parking_lot::Mutex::new(wanted));
        Self { client, shown, wanted, live, attempts: AtomicU64::new(0), failure, made: watch::Sender::new(0) }
    }

    /// The connection, made now if there is none. Of many that ask at once one connects, and all share what comes of it:
    /// the callers set the pace of further attempts.
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
        self.attempts.fetch_add(1, Ordering::Release);
        *self.failure.lock() = connected.as_ref().err().cloned();
        let (connection, found) = connected?;
        let mut number = 0;
        self.made.send_modify(|made| {
            *made += 1;
            number = *made;
        });
        let waits = Arc::new(Waits { begun: AtomicU64::new(0), ended: Mutex::new((0, Ok(()))) });
        Ok(live.insert(Live { connection, found, number, waits }).clone())
    }

    async fn connect(&self) -> Result<(MultiplexedConnection, Found), JournalError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(REDIS_CONNECT_TIMEOUT))
            .set_response_timeout(Some(REDIS_RESPONSE_TIMEOUT));
        let connected = self.client.get_multiplexed_async_connection_with_config(&config).await;
        let missing = |why| format!("no redis at {}: {why}: start one there, or correct the url", self.shown);
        let mut connection = connected.map_err(|error| match journal_error(&error) {
            JournalError::Unreachable(why) => JournalError::Unreachable(missing(why)),
            JournalError::Silent(why) => JournalError::Silent(missing(why)),
            other => other,
        })?;
        let wanted = self.wanted.lock().clone();
        let found = connect::look(&mut connection, &wanted).await?;
        *self.wanted.lock() = wanted.fixed(&found);
        Ok((connection, found))
    }

    /// Makes a journal's error of an answer. One that says that the connection, or the server behind it, is not what it
    /// was (a timeout too: it may be a black hole) ends the connection for those who come after.
    pub(super) fn judge<T>(&self, live: &Live, answer: RedisResult<T>) -> Result<T, JournalError> {
        answer.map_err(|error| {
            if breaks(&error) {
                tracing::debug!(%error, "connection to redis is given up");
                self.give_up(live);
            }
            journal_error(&error)
        })
    }

    /// Comes back when the replicas have everything that was answered on this connection before. (On this one: another may
    /// lead to a server that has never seen it.) `mark` is a call of [`CONFIRM`](super::scripts::CONFIRM).
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
                "{confirmed} of {wanted} replicas confirmed a step within {REPLICAS_TIMEOUT:?}: sent again until they do"
            ))),
        }
    }

    /// Whoever asks next makes a new connection.
    pub(super) fn give_up(&self, given_up: &Live) {
        // Whoever holds the lock is connecting, or about to give this very connection to a caller that will fail as well.
        if let Ok(mut live) = self.live.try_lock()
            && live.as_ref().is_some_and(|live| live.number == given_up.number)
        {
            *live = None;
        }
    }

    /// Counts the connections that were made.
    pub(super) fn made(&self) -> watch::Receiver<u64> {
        self.made.subscribe()
    }
}

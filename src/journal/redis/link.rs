//! A connection to a server that is looked at whenever the connection is made, and made again when it broke.

use std::sync::atomic::{AtomicU64, Ordering};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, RedisResult};
use tokio::sync::{Mutex, watch};

use super::super::JournalError;
use super::connect::{self, Found, Wanted};
use super::error::{breaks, journal_error};
use crate::limits::{REDIS_CONNECT_TIMEOUT, REDIS_RESPONSE_TIMEOUT};

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
        Ok(live.insert(Live { connection, found, number }).clone())
    }

    async fn connect(&self) -> Result<(MultiplexedConnection, Found), JournalError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(REDIS_CONNECT_TIMEOUT))
            .set_response_timeout(Some(REDIS_RESPONSE_TIMEOUT));
        let connected = self.client.get_multiplexed_async_connection_with_config(&config).await;
        let mut connection = connected.map_err(|error| match journal_error(&error) {
            JournalError::Unreachable(why) => {
                JournalError::Unreachable(format!("no redis at {}: {why}: start one there, or correct the url", self.shown))
            }
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
                self.drop_broken(live, &error);
            }
            journal_error(&error)
        })
    }

    fn drop_broken(&self, broken: &Live, error: &RedisError) {
        // Whoever holds the lock is connecting, or about to give this very connection to a caller that will fail as well.
        if let Ok(mut live) = self.live.try_lock()
            && live.as_ref().is_some_and(|live| live.number == broken.number)
        {
            tracing::debug!(%error, "connection to redis is given up");
            *live = None;
        }
    }

    /// Counts the connections that were made.
    pub(super) fn made(&self) -> watch::Receiver<u64> {
        self.made.subscribe()
    }
}

//! The connection, and which server is at its other end. A server that starts again, or another one that takes its place,
//! breaks the connection; the next one knows the new server before it is used. So a step that is bound to a server needs no
//! argument for it: it is sent on a connection to that server, or not at all.

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{Client, ErrorKind, RedisError};

use super::super::JournalError;
use super::connect;
use crate::types::Incarnation;

/// A connection to one server. Never reconnects.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) connection: MultiplexedConnection,
    pub(super) server: Incarnation,
    number: u64,
}

type Attempt = Shared<BoxFuture<'static, Result<Link, JournalError>>>;

/// The link of the moment, or the attempt to make one: all callers wait for the same, and the callers set the pace.
pub(super) struct Links {
    client: Client,
    url: String,
    current: Mutex<(u64, Attempt)>,
}

impl Links {
    /// Connects.
    ///
    /// # Errors
    /// As [`connect::open`].
    pub(super) async fn open(client: Client, url: &str) -> Result<Self, JournalError> {
        let attempt = attempt(client.clone(), url.to_owned(), 0);
        attempt.clone().await?;
        Ok(Self { client, url: url.to_owned(), current: Mutex::new((0, attempt)) })
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// # Errors
    /// When there is none and none could be made.
    pub(super) async fn get(&self) -> Result<Link, JournalError> {
        let (number, attempt) = self.current.lock().clone();
        let link = attempt.await;
        if link.is_err() {
            self.replace(number);
        }
        link
    }

    /// Judges a failure: the link is given up when it broke, and when its server may not be what it was.
    pub(super) fn failed(&self, link: &Link, error: &RedisError) {
        let other = error.code() == Some("READONLY") || error.kind() == ErrorKind::AuthenticationFailed;
        if error.is_unrecoverable_error() || other {
            self.replace(link.number);
        }
    }

    fn replace(&self, number: u64) {
        let mut current = self.current.lock();
        if current.0 == number {
            *current = (number + 1, attempt(self.client.clone(), self.url.clone(), number + 1));
        }
    }
}

fn attempt(client: Client, url: String, number: u64) -> Attempt {
    let attempt = async move {
        let (connection, server) = connect::open(&client, &url).await?;
        Ok(Link { connection, server, number })
    };
    attempt.boxed().shared()
}

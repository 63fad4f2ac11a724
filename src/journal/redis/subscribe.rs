//! The one connection by which a process hears of everything: bells and pushes. It reconnects by itself.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Pipeline, ProtocolVersion, PushInfo, PushKind, Value, cmd};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use super::super::{Backoff, Bell, JournalError, Signal, Signals, signals};
use super::channels::{Channels, Hear, Then, Wait};
use super::error::journal_error;
use super::keys::Tags;
use super::link::Link;
use super::socket::{self, Driver};
use crate::limits::{
    ECHOES_MISSING_MAX, REDIS_CONNECT_TIMEOUT, REDIS_RESPONSE_TIMEOUT, RESUBSCRIBE_DELAY_MAX, RESUBSCRIBE_DELAY_MIN,
    SUBSCRIPTION_ECHO_INTERVAL,
};
use crate::types::{Incarnation, ShardId};
use crate::wire::DecodeError;
use crate::wire::codec::Reader;

/// The subscriptions of a process. The connection exists while somebody hears.
pub(super) struct Subscriptions(Arc<Shared>);

struct Shared {
    /// For commands. An echo goes out there, and where it leads to, there the subscriptions follow.
    link: Arc<Link>,
    tags: Tags,
    echo: String,
    channels: Mutex<Channels>,
    /// There is something for the keeper to do.
    look: Notify,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

/// Why a connection is not kept.
enum Ended {
    /// Nobody hears any more.
    Unheard,
    /// The commands have another connection, perhaps to another server.
    Moved,
    Broken(&'static str),
}

impl Subscriptions {
    /// `echo` is a channel of this process alone.
    pub(super) fn new(link: Arc<Link>, tags: Tags, echo: String) -> Self {
        let channels = Mutex::new(Channels::new(echo.clone()));
        Self(Arc::new(Shared { link, tags, echo, channels, look: Notify::new(), keeper: Mutex::new(None) }))
    }

    /// Subscribes channels, and keeps them subscribed until their reader is gone. `read` decodes a message of one of them.
    pub(super) async fn subscribe<T, C, F>(&self, channels: Vec<(String, C)>, read: F) -> Result<Signals<T>, JournalError>
    where
        T: Send + 'static,
        C: Send + Sync + 'static,
        F: Fn(&C, Bytes) -> Result<T, DecodeError> + Copy + Send + Sync + 'static,
    {
        let (to, from) = signals::channel();
        let of_all = to.clone();
        let begins: Hear = Arc::new(move |_| _ = signals::subscribed(&of_all));
        let channels = channels.into_iter().map(|(channel, of)| {
            let (to, name) = (to.clone(), channel.clone());
            let hear: Hear = Arc::new(move |message| heard(&to, &name, message.map(|message| read(&of, message))));
            (channel, hear)
        });
        let (id, waits) = self.0.channels.lock().enter(begins, channels);
        let shared = self.0.clone();
        tokio::spawn(async move {
            to.closed().await;
            shared.channels.lock().leave(id);
            shared.look.notify_one();
        });
        self.wait(waits).await.map(|()| from)
    }

    /// Whoever hears the one channel hears the other, too, as soon as this returns.
    pub(super) async fn put_beside(&self, channel: &str, other: &str) -> Result<(), JournalError> {
        let waits = self.0.channels.lock().put_beside(channel, other);
        if waits.is_empty() { Ok(()) } else { self.wait(waits).await }
    }

    /// Forgets what is beside a channel that nobody hears.
    pub(super) fn forget_beside(&self, channel: &str) {
        self.0.channels.lock().forget_beside(channel);
    }

    async fn wait(&self, waits: Vec<Wait>) -> Result<(), JournalError> {
        self.0.look.notify_one();
        {
            let mut keeper = self.0.keeper.lock();
            if keeper.as_ref().is_none_or(JoinHandle::is_finished) {
                *keeper = Some(tokio::spawn(self.0.clone().keep()));
            }
        }
        let silent = || JournalError::Silent(format!("no subscription within {REDIS_CONNECT_TIMEOUT:?}"));
        let waits = timeout(REDIS_CONNECT_TIMEOUT, join_all(waits)).await.map_err(|_| silent())?;
        waits.into_iter().try_for_each(|wait| wait.unwrap_or_else(|_| Err(silent())))
    }
}

/// Tells a reader of a message, or that it may have missed one.
fn heard<T>(to: &mpsc::Sender<Signal<T>>, channel: &str, message: Option<Result<T, DecodeError>>) {
    match message {
        Some(Ok(message)) => _ = signals::offer(to, message),
        Some(Err(error)) => {
            tracing::warn!(channel, %error, "unreadable message: its reader reads the journal instead");
            signals::subscribed(to);
        }
        None => _ = signals::subscribed(to),
    }
}

impl Shared {
    /// Keeps the connection while somebody hears.
    async fn keep(self: Arc<Self>) {
        let mut made = self.link.made();
        let mut backoff = Backoff::new(RESUBSCRIBE_DELAY_MIN, RESUBSCRIBE_DELAY_MAX);
        loop {
            {
                let mut keeper = self.keeper.lock();
                if self.channels.lock().nobody_hears() {
                    *keeper = None;
                    return;
                }
            }
            match self.connect(&mut made).await {
                Ok((connection, _driver, over)) => {
                    let ended = tokio::select! {
                        ended = self.follow(connection) => ended,
                        ended = self.echoes() => ended,
                        () = over.notified() => Ended::Broken("it broke"),
                        _ = made.changed() => Ended::Moved,
                    };
                    backoff = Backoff::new(RESUBSCRIBE_DELAY_MIN, RESUBSCRIBE_DELAY_MAX);
                    match ended {
                        Ended::Unheard => continue,
                        Ended::Moved => tracing::debug!("following to where the commands go now"),
                        Ended::Broken(why) => tracing::warn!(why, "the subscribing connection is made again"),
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, ?backoff, "no subscription yet");
                    self.channels.lock().failed(&error);
                }
            }
            backoff.rest().await;
        }
    }

    /// Connects to where the commands go now.
    async fn connect(
        self: &Arc<Self>,
        made: &mut watch::Receiver<Option<Client>>,
    ) -> Result<(MultiplexedConnection, Driver, Arc<Notify>), JournalError> {
        // If they go nowhere, this finds where to: perhaps nobody else has a command to send.
        self.link.live().await?;
        let to = made.borrow_and_update().clone().ok_or_else(|| JournalError::Unreachable("no connection yet".into()))?;
        let client = hearing(&to)?;
        let (shared, number, over) = (self.clone(), self.channels.lock().connect(), Arc::new(Notify::new()));
        let ends = over.clone();
        // Called where the connection is read: nothing waits there, and what does not fit is told to its reader as missed.
        let came = move |push: PushInfo| {
            match shared.channels.lock().came(number, push) {
                Then::Nothing => {}
                Then::Look => shared.look.notify_one(),
                Then::Over => ends.notify_one(),
            }
            Ok::<(), Infallible>(())
        };
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(REDIS_RESPONSE_TIMEOUT)).set_push_sender(came);
        let (connection, driver) = socket::connect(&client, config).await.map_err(|error| journal_error(&error))?;
        Ok((connection, driver, over))
    }

    /// Subscribes what has readers, and gives up what has none, until the connection is over.
    async fn follow(&self, mut connection: MultiplexedConnection) -> Ended {
        loop {
            let todo = {
                let mut channels = self.channels.lock();
                if channels.nobody_hears() {
                    return Ended::Unheard;
                }
                channels.todo()
            };
            let refused = match self.carry_out(&mut connection, &todo).await {
                Ok(refused) => refused,
                Err(ended) => return ended,
            };
            tokio::select! {
                () = self.look.notified() => {}
                () = sleep(RESUBSCRIBE_DELAY_MAX), if refused => {}
            }
        }
    }

    /// One command for each channel: in a cluster each has its own slot. True if one was refused, and is to be tried again.
    async fn carry_out(&self, connection: &mut MultiplexedConnection, todo: &[(bool, String)]) -> Result<bool, Ended> {
        if todo.is_empty() {
            return Ok(false);
        }
        let mut pipeline = Pipeline::with_capacity(todo.len());
        for (subscribe, channel) in todo {
            let verb = if *subscribe { self.tags.subscribe() } else { self.tags.unsubscribe() };
            pipeline.add_command(cmd(verb)).arg(channel);
        }
        let failed = |error: &JournalError| {
            tracing::debug!(%error, "the subscribing connection does not answer");
            self.channels.lock().failed(error);
            Ended::Broken("it does not answer as it should")
        };
        let answers = connection.send_packed_commands(&pipeline, 0, todo.len()).await;
        let answers = answers.map_err(|error| failed(&journal_error(&error)))?;
        let mut refused = false;
        for ((subscribe, channel), answer) in todo.iter().zip(answers) {
            match answer {
                Value::ServerError(error) if *subscribe => {
                    let error = journal_error(&error.into());
                    if *channel == self.echo {
                        return Err(failed(&error));
                    }
                    tracing::debug!(channel, %error, "a channel cannot be subscribed");
                    self.channels.lock().refused(channel, &error);
                    refused = true;
                }
                answer if answers_to(*subscribe, channel, &answer) => {}
                // What comes unasked may take the place of an answer: from then on none is the right one.
                answer => return Err(failed(&JournalError::Unexpected(format!("reply to a subscription: {answer:?}")))),
            }
        }
        Ok(refused)
    }

    /// Calls, and hears itself. Returns when it does not.
    async fn echoes(&self) -> Ended {
        let mut ticks = interval_at(Instant::now() + SUBSCRIPTION_ECHO_INTERVAL, SUBSCRIPTION_ECHO_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // Before it is sent: it may be back before the answer.
            if !self.channels.lock().call(ECHOES_MISSING_MAX) {
                return Ended::Broken("it has gone silent");
            }
            if self.call().await.is_err() {
                self.channels.lock().not_called();
            }
        }
    }

    async fn call(&self) -> Result<(), JournalError> {
        let mut live = self.link.live().await?;
        let mut publish = cmd(self.tags.publish());
        publish.arg(&self.echo).arg("");
        let answer = publish.query_async::<u64>(&mut live.connection).await;
        self.link.judge(&live, answer).map(drop)
    }
}

/// A client that speaks RESP3, in which messages and answers share a connection.
fn hearing(client: &Client) -> Result<Client, JournalError> {
    let info = client.get_connection_info();
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    Client::open(info.clone().set_redis_settings(settings)).map_err(|error| journal_error(&error))
}

fn answers_to(subscribe: bool, channel: &str, answer: &Value) -> bool {
    let Value::Push { kind, data } = answer else { return false };
    let kinds = match subscribe {
        true => [PushKind::Subscribe, PushKind::SSubscribe],
        false => [PushKind::Unsubscribe, PushKind::SUnsubscribe],
    };
    kinds.contains(kind) && matches!(data.first(), Some(Value::BulkString(name)) if name == channel.as_bytes())
}

/// Decodes a bell, as the scripts append, death and register pack it:
/// `[append, incarnation hex, number, watermark, poked hex, room, id, entry, ...]`.
pub(super) fn bell(shard: ShardId, bytes: &Bytes) -> Result<Bell, DecodeError> {
    const FIELDS: usize = 5;
    /// Digits of an incarnation.
    const HEX: usize = 32;
    let mut r = Reader::bare("bell", bytes);
    let len = r.array()?;
    if len < FIELDS || !(len - FIELDS).is_multiple_of(3) {
        return Err(r.damaged(format!("{len} fields")));
    }
    let append = r.uint()?;
    let hex = r.text()?;
    let incarnation = Incarnation::from_hex(hex).ok_or_else(|| r.damaged(format!("incarnation {hex:?}")))?;
    let number = r.uint()?;
    let watermark = r.text()?.parse().map_err(|error| r.damaged(error))?;
    let hex = r.text()?;
    let poked = (0..hex.len()).step_by(HEX).map(|at| hex.get(at..at + HEX).and_then(Incarnation::from_hex));
    let poked = poked.collect::<Option<_>>().ok_or_else(|| r.damaged(format!("poked {hex:?}")))?;
    let mut entries = Vec::with_capacity((len - FIELDS) / 3);
    for _ in 0..(len - FIELDS) / 3 {
        let room = r.room()?;
        let id = r.text()?.parse().map_err(|error: String| r.damaged(error))?;
        entries.push((room, id, bytes.slice_ref(r.raw()?)));
    }
    r.end()?;
    Ok(Bell { shard, append, incarnation, number, watermark, entries, poked })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn arbitrary_and_cut_bytes_are_no_bell_and_no_panic() {
        let mut whole = vec![0x98, 0x05, 0xd9, 32];
        whole.extend([b'0'; 32]);
        whole.extend([0x07, 0xb8]);
        whole.extend([b'f'; 24]);
        whole.extend([0xd9, 64]);
        whole.extend([b'1'; 64]);
        whole.extend(b"\xa1r\xa35-1\xa2ab");
        let read = bell(ShardId(3), &whole.clone().into()).expect("whole");
        assert_eq!((read.append, read.number, read.watermark.ns, read.entries.len()), (5, 7, u64::MAX, 1));
        assert_eq!(&read.entries[0].2[..], b"ab");
        assert_eq!(read.poked, [Incarnation(u128::MAX / 15); 2]);
        for cut in 0..whole.len() {
            assert!(bell(ShardId(3), &whole[..cut].to_vec().into()).is_err(), "{cut}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes: Vec<u8>) {
            let _ = bell(ShardId(0), &bytes.into());
        }
    }
}

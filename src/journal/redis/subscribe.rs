//! The connections by which a process hears of everything, bells and pushes: one to each node. They reconnect by themselves.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Pipeline, ProtocolVersion, PushInfo, PushKind, Value, cmd};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use super::super::{Backoff, Bell, JournalError, Signal, Signals, signals};
use super::channels::{At, Channels, Hear, Then, Wait};
use super::error::journal_error;
use super::keys::Keys;
use super::link::Link;
use super::nodes::Nodes;
use super::socket::{self, Driver};
use crate::limits::{
    ECHOES_MISSING_MAX, REDIS_CONNECT_TIMEOUT, REDIS_RESPONSE_TIMEOUT, RESUBSCRIBE_DELAY_MAX, RESUBSCRIBE_DELAY_MIN,
    SUBSCRIPTION_ECHO_INTERVAL,
};
use crate::types::{Incarnation, ShardId};
use crate::wire::DecodeError;
use crate::wire::codec::Reader;

/// The subscriptions of a process. A connection exists while somebody hears by it.
pub(super) struct Subscriptions(Arc<Shared>);

struct Shared {
    /// For commands. An echo goes out there, and where it leads to, there the subscriptions follow.
    nodes: Arc<Nodes>,
    keys: Arc<Keys>,
    /// Of its echoes.
    process: Incarnation,
    channels: Mutex<Channels>,
    keepers: Mutex<HashMap<At, Keeper>>,
}

/// Keeps the connection to a node.
struct Keeper {
    task: JoinHandle<()>,
    /// There is something for it to do.
    look: Arc<Notify>,
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
    pub(super) fn new(nodes: Arc<Nodes>, keys: Arc<Keys>) -> Self {
        let places = nodes.clone();
        let channels = Mutex::new(Channels::new(move |channel| places.place(channel)));
        Self(Arc::new(Shared { nodes, keys, process: Incarnation::random(), channels, keepers: Mutex::default() }))
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
            shared.look();
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

    /// Other nodes may have the channels now: they are subscribed there.
    pub(super) fn follow(&self) {
        self.0.channels.lock().moved();
        self.0.clone().keep_all();
    }

    async fn wait(&self, waits: Vec<Wait>) -> Result<(), JournalError> {
        self.0.clone().keep_all();
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
    fn look(&self) {
        self.keepers.lock().values().for_each(|keeper| keeper.look.notify_one());
    }

    /// Somebody keeps each connection by which somebody hears, and looks what there is to do.
    fn keep_all(self: Arc<Self>) {
        let mut keepers = self.keepers.lock();
        keepers.retain(|_, keeper| !keeper.task.is_finished());
        let heard = self.channels.lock().heard_at();
        for at in heard {
            keepers.entry(at.clone()).or_insert_with(|| {
                let look = Arc::new(Notify::new());
                Keeper { task: tokio::spawn(self.clone().keep(at, look.clone())), look }
            });
        }
        keepers.values().for_each(|keeper| keeper.look.notify_one());
    }

    /// Keeps the connection to a node while somebody hears there.
    async fn keep(self: Arc<Self>, at: At, look: Arc<Notify>) {
        let mut backoff = Backoff::new(RESUBSCRIBE_DELAY_MIN, RESUBSCRIBE_DELAY_MAX);
        loop {
            {
                // Who comes later finds this keeper, or that there is none.
                let mut keepers = self.keepers.lock();
                if self.channels.lock().nobody_hears(&at) {
                    keepers.remove(&at);
                    return;
                }
            }
            match self.clone().hear(&at, &look).await {
                Ok(ended) => {
                    backoff = Backoff::new(RESUBSCRIBE_DELAY_MIN, RESUBSCRIBE_DELAY_MAX);
                    match ended {
                        Ended::Unheard => continue,
                        Ended::Moved => tracing::debug!("following to where the commands go now"),
                        Ended::Broken(why) => tracing::warn!(why, "the subscribing connection is made again"),
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, ?backoff, "no subscription yet");
                    self.channels.lock().failed(&at, &error);
                }
            }
            backoff.rest().await;
        }
    }

    /// Connects to where the commands for a node go now, and hears until that is over.
    async fn hear(self: Arc<Self>, at: &At, look: &Arc<Notify>) -> Result<Ended, JournalError> {
        let (link, echo) = self.nodes.hear_at(at)?;
        let mut made = link.made();
        // If they go nowhere, this finds where to: perhaps nobody else has a command to send.
        link.live().await?;
        let to = made.borrow_and_update().clone().ok_or_else(|| JournalError::Unreachable("no connection yet".into()))?;
        let client = hearing(&to)?;
        let number = self.channels.lock().connect(at, self.keys.echo(echo, self.process));
        let (shared, of, looks, over) = (self.clone(), at.clone(), look.clone(), Arc::new(Notify::new()));
        let ends = over.clone();
        // Called where the connection is read: nothing waits there, and what does not fit is told to its reader as missed.
        let came = move |push: PushInfo| {
            match shared.channels.lock().came(&of, number, push) {
                Then::Nothing => {}
                Then::Look => looks.notify_one(),
                Then::Over => ends.notify_one(),
            }
            Ok::<(), Infallible>(())
        };
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(REDIS_RESPONSE_TIMEOUT)).set_push_sender(came);
        let (connection, _driver): (_, Driver) = socket::connect(&client, config).await.map_err(|error| journal_error(&error))?;
        Ok(tokio::select! {
            ended = self.follow(at, look, connection) => ended,
            ended = self.echoes(at, &link) => ended,
            () = over.notified() => Ended::Broken("it broke"),
            _ = made.changed() => Ended::Moved,
        })
    }

    /// Subscribes what has readers, and gives up what has none, until the connection is over.
    async fn follow(&self, at: &At, look: &Notify, mut connection: MultiplexedConnection) -> Ended {
        loop {
            let todo = {
                let mut channels = self.channels.lock();
                if channels.nobody_hears(at) {
                    return Ended::Unheard;
                }
                channels.todo(at)
            };
            let refused = match self.carry_out(at, &mut connection, &todo).await {
                Ok(refused) => refused,
                Err(ended) => return ended,
            };
            tokio::select! {
                () = look.notified() => {}
                () = sleep(RESUBSCRIBE_DELAY_MAX), if refused => {}
            }
        }
    }

    /// One command for each channel: in a cluster each has its own slot. True if one was refused, and is to be tried again.
    async fn carry_out(&self, at: &At, connection: &mut MultiplexedConnection, todo: &[(bool, String)]) -> Result<bool, Ended> {
        if todo.is_empty() {
            return Ok(false);
        }
        let (tags, mut pipeline) = (self.keys.tags, Pipeline::with_capacity(todo.len()));
        for (subscribe, channel) in todo {
            let verb = if *subscribe { tags.subscribe() } else { tags.unsubscribe() };
            pipeline.add_command(cmd(verb)).arg(channel);
        }
        let failed = |error: &JournalError| {
            tracing::debug!(%error, "the subscribing connection does not answer");
            self.channels.lock().failed(at, error);
            Ended::Broken("it does not answer as it should")
        };
        let answers = connection.send_packed_commands(&pipeline, 0, todo.len()).await;
        let answers = answers.map_err(|error| failed(&journal_error(&error)))?;
        let mut refused = false;
        for ((subscribe, channel), answer) in todo.iter().zip(answers) {
            match answer {
                Value::ServerError(error) if *subscribe => {
                    let error = journal_error(&error.into());
                    // Perhaps another node has it by now.
                    self.nodes.look();
                    if self.channels.lock().is_echo(at, channel) {
                        return Err(failed(&error));
                    }
                    tracing::debug!(channel, %error, "a channel cannot be subscribed");
                    self.channels.lock().refused(channel, &error);
                    refused = true;
                }
                // What another node has by now is given up there.
                Value::ServerError(_) => {}
                answer if answers_to(*subscribe, channel, &answer) => {}
                // What comes unasked may take the place of an answer: from then on none is the right one.
                answer => return Err(failed(&JournalError::Unexpected(format!("reply to a subscription: {answer:?}")))),
            }
        }
        Ok(refused)
    }

    /// Calls, and hears itself. Returns when it does not.
    async fn echoes(&self, at: &At, link: &Link) -> Ended {
        let mut ticks = interval_at(Instant::now() + SUBSCRIPTION_ECHO_INTERVAL, SUBSCRIPTION_ECHO_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // Before it is sent: it may be back before the answer.
            let Some(echo) = self.channels.lock().call(at, ECHOES_MISSING_MAX) else {
                return Ended::Broken("it has gone silent");
            };
            if self.call(link, echo).await.is_err() {
                self.channels.lock().not_called(at);
            }
        }
    }

    async fn call(&self, link: &Link, echo: String) -> Result<(), JournalError> {
        let mut live = link.live().await?;
        let mut publish = cmd(self.keys.tags.publish());
        publish.arg(echo).arg("");
        let answer = publish.query_async::<u64>(&mut live.connection).await;
        link.judge(&live, answer).map(drop)
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

//! Who hears which channel, and what came in by the connection that hears for all. It knows no connection, and never waits.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::oneshot;

use super::super::JournalError;

/// How a reader is told. None: the subscription begins, or begins again.
pub(super) type Hear = Arc<dyn Fn(Option<Bytes>) + Send + Sync>;

/// Ends when a channel is subscribed, or cannot be.
pub(super) type Wait = oneshot::Receiver<Result<(), JournalError>>;

/// What follows from something that came in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Then {
    Nothing,
    /// A channel is to be subscribed again.
    Look,
    /// The connection is over.
    Over,
}

/// The channels of a process, and their readers.
#[derive(Default)]
pub(super) struct Channels {
    /// The channel on which the process hears itself.
    echo: String,
    /// Echoes that were sent and have not come back.
    missing: u32,
    channels: HashMap<String, Channel>,
    readers: HashMap<u64, Reader>,
    /// The number of the last reader.
    last: u64,
    /// Channels that readers of another one hear, too.
    beside: HashMap<String, Vec<String>>,
    /// Channels that perhaps are to be subscribed, or given up.
    todo: Vec<String>,
    /// Counts the connections. What comes in by an earlier one counts no more.
    connection: u64,
}

#[derive(Default)]
struct Channel {
    /// By the present connection.
    subscribed: bool,
    readers: Vec<(u64, Hear)>,
    waits: Vec<oneshot::Sender<Result<(), JournalError>>>,
}

struct Reader {
    hear: Hear,
    /// How many of its channels are not subscribed.
    pending: usize,
    /// It was told once that it hears, and has missed something since.
    missed: bool,
    /// All its channels were subscribed once.
    began: bool,
}

impl Channels {
    pub(super) fn new(echo: String) -> Self {
        Self { echo, ..Self::default() }
    }

    /// A new reader of some channels. It is told that it hears as soon as it is there: whoever made it waits for all channels
    /// before it reads.
    pub(super) fn enter(&mut self, hear: Hear, channels: impl IntoIterator<Item = (String, Hear)>) -> (u64, Vec<Wait>) {
        self.last += 1;
        let id = self.last;
        hear(None);
        self.readers.insert(id, Reader { hear, pending: 0, missed: false, began: false });
        let mut waits = Vec::new();
        for (channel, hear) in channels {
            for beside in self.beside.get(&channel).cloned().unwrap_or_default() {
                waits.extend(self.join(&beside, id, &hear));
            }
            waits.extend(self.join(&channel, id, &hear));
        }
        if let Some(reader) = self.readers.get_mut(&id) {
            reader.began = reader.pending == 0;
        }
        (id, waits)
    }

    /// From now on whoever hears the one channel hears the other, too. The readers that are there have missed nothing of it.
    pub(super) fn put_beside(&mut self, channel: &str, other: &str) -> Vec<Wait> {
        if channel == other {
            return Vec::new();
        }
        let beside = self.beside.entry(channel.to_owned()).or_default();
        if !beside.iter().any(|known| known == other) {
            beside.push(other.to_owned());
        }
        let readers = self.channels.get(channel).map(|channel| channel.readers.clone()).unwrap_or_default();
        readers.iter().filter_map(|(id, hear)| self.join(other, *id, hear)).collect()
    }

    /// Forgets what is beside a channel that nobody hears.
    pub(super) fn forget_beside(&mut self, channel: &str) {
        if self.channels.get(channel).is_none_or(|channel| channel.readers.is_empty()) {
            self.beside.remove(channel);
        }
    }

    fn join(&mut self, name: &str, id: u64, hear: &Hear) -> Option<Wait> {
        let channel = self.channels.entry(name.to_owned()).or_default();
        if !channel.readers.iter().any(|(reader, _)| *reader == id) {
            channel.readers.push((id, hear.clone()));
            if let Some(reader) = self.readers.get_mut(&id).filter(|_| !channel.subscribed) {
                reader.pending += 1;
            }
        }
        if channel.subscribed {
            return None;
        }
        let (wait, waits) = oneshot::channel();
        channel.waits.push(wait);
        self.todo.push(name.to_owned());
        Some(waits)
    }

    /// A reader hears no more.
    pub(super) fn leave(&mut self, id: u64) {
        self.readers.remove(&id);
        for (name, channel) in &mut self.channels {
            let before = channel.readers.len();
            channel.readers.retain(|(reader, _)| *reader != id);
            if channel.readers.is_empty() && before > 0 {
                self.beside.remove(name);
                self.todo.push(name.clone());
            }
        }
    }

    pub(super) fn nobody_hears(&self) -> bool {
        self.readers.is_empty()
    }

    /// A connection is made: nothing is subscribed there. Returns its number.
    pub(super) fn connect(&mut self) -> u64 {
        self.connection += 1;
        self.missing = 0;
        self.channels.retain(|_, channel| !channel.readers.is_empty());
        self.readers.values_mut().for_each(|reader| (reader.pending, reader.missed) = (0, reader.began));
        for channel in self.channels.values_mut() {
            channel.subscribed = false;
            for (id, _) in &channel.readers {
                self.readers.entry(*id).and_modify(|reader| reader.pending += 1);
            }
        }
        self.todo = self.channels.keys().cloned().collect();
        self.todo.push(self.echo.clone());
        self.connection
    }

    /// The channels to subscribe now (true), and those to give up.
    pub(super) fn todo(&mut self) -> Vec<(bool, String)> {
        let mut todo = std::mem::take(&mut self.todo);
        todo.sort_unstable();
        todo.dedup();
        let needed = |name: String| {
            if name == self.echo {
                return Some((true, name));
            }
            let channel = self.channels.get(&name)?;
            if channel.readers.is_empty() {
                return self.channels.remove(&name).map(|_| (false, name));
            }
            (!channel.subscribed).then_some((true, name))
        };
        todo.into_iter().filter_map(needed).collect()
    }

    /// A channel could not be subscribed: nobody waits for it any more. It is to be tried again.
    pub(super) fn refused(&mut self, name: &str, error: &JournalError) {
        if let Some(channel) = self.channels.get_mut(name) {
            channel.waits.drain(..).for_each(|wait| _ = wait.send(Err(error.clone())));
            self.todo.push(name.to_owned());
        }
    }

    /// No channel can be subscribed now: nobody waits any more.
    pub(super) fn failed(&mut self, error: &JournalError) {
        for channel in self.channels.values_mut() {
            channel.waits.drain(..).for_each(|wait| _ = wait.send(Err(error.clone())));
        }
    }

    /// An echo is about to be sent. False if so many are missing that the connection must be taken for silent.
    pub(super) fn call(&mut self, missing_max: u32) -> bool {
        let hears = self.missing < missing_max;
        self.missing += 1;
        hears
    }

    /// The last echo was not sent, as far as is known.
    pub(super) fn not_called(&mut self) {
        self.missing = self.missing.saturating_sub(1);
    }

    /// Something came in by a connection.
    pub(super) fn came(&mut self, connection: u64, push: PushInfo) -> Then {
        if connection != self.connection {
            return Then::Nothing;
        }
        let PushInfo { kind, data } = push;
        if kind == PushKind::Disconnection {
            return Then::Over;
        }
        let mut data = data.into_iter();
        let Some(Value::BulkString(name)) = data.next() else { return Then::Nothing };
        let Ok(name) = std::str::from_utf8(&name) else { return Then::Nothing };
        match kind {
            PushKind::Message | PushKind::SMessage => {
                if name == self.echo {
                    self.missing = 0;
                } else if let (Some(channel), Some(Value::BulkString(message))) = (self.channels.get(name), data.next()) {
                    let message = Bytes::from(message);
                    channel.readers.iter().for_each(|(_, hear)| hear(Some(message.clone())));
                }
            }
            PushKind::Subscribe | PushKind::SSubscribe => self.subscribed(name),
            PushKind::Unsubscribe | PushKind::SUnsubscribe => return self.unsubscribed(name),
            _ => {}
        }
        Then::Nothing
    }

    fn subscribed(&mut self, name: &str) {
        let Some(channel) = self.channels.get_mut(name) else { return };
        channel.waits.drain(..).for_each(|wait| _ = wait.send(Ok(())));
        if std::mem::replace(&mut channel.subscribed, true) {
            return;
        }
        for (id, _) in &channel.readers {
            let Some(reader) = self.readers.get_mut(id) else { continue };
            reader.pending = reader.pending.saturating_sub(1);
            if reader.pending > 0 {
                continue;
            }
            reader.began = true;
            if std::mem::take(&mut reader.missed) {
                (reader.hear)(None);
            }
        }
    }

    /// Where nobody hears any more, this is the answer to what was asked for. Elsewhere it is the server that ended it: the slot
    /// went to another one.
    fn unsubscribed(&mut self, name: &str) -> Then {
        let Some(channel) = self.channels.get_mut(name).filter(|channel| channel.subscribed && !channel.readers.is_empty())
        else {
            return Then::Nothing;
        };
        channel.subscribed = false;
        for (id, _) in &channel.readers {
            if let Some(reader) = self.readers.get_mut(id) {
                reader.pending += 1;
                reader.missed = reader.began;
            }
        }
        self.todo.push(name.to_owned());
        Then::Look
    }
}

#[cfg(test)]
mod tests;

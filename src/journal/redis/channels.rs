//! Who hears which channel, and what came in by the connections that hear for all. It knows no connection, and never waits.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::oneshot;

use super::super::JournalError;

/// How a reader is told. None: the subscription begins, or begins again.
pub(super) type Hear = Arc<dyn Fn(Option<Bytes>) + Send + Sync>;

/// Ends when a channel is subscribed, or cannot be.
pub(super) type Wait = oneshot::Receiver<Result<(), JournalError>>;

/// A node, by its address. Empty: the only server, or, in a cluster, nobody.
pub(super) type At = Arc<str>;

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
pub(super) struct Channels {
    /// Which node has a channel.
    place: Box<dyn Fn(&str) -> At + Send>,
    connections: HashMap<At, Connection>,
    channels: HashMap<String, Channel>,
    readers: HashMap<u64, Reader>,
    /// The number of the last reader.
    last: u64,
    /// Channels that readers of another one hear, too.
    beside: HashMap<String, Vec<String>>,
}

/// The connection to one node.
#[derive(Default)]
struct Connection {
    /// Counts them. What comes in by an earlier one counts no more.
    number: u64,
    /// The channel on which the process hears itself.
    echo: String,
    /// Echoes that were sent and have not come back.
    missing: u32,
    /// Channels that perhaps are to be subscribed, or given up.
    todo: Vec<String>,
}

struct Channel {
    at: At,
    /// By the present connection.
    subscribed: bool,
    /// It was subscribed once.
    began: bool,
    readers: Vec<(u64, Hear)>,
    waits: Vec<oneshot::Sender<Result<(), JournalError>>>,
}

struct Reader {
    hear: Hear,
    parts: HashMap<At, Part>,
}

/// Those channels of a reader that one node has.
#[derive(Default)]
struct Part {
    channels: usize,
    /// How many of them are not subscribed.
    pending: usize,
    /// The reader was told that it hears, and has missed something since.
    missed: bool,
    /// All were subscribed once.
    began: bool,
}

impl Reader {
    fn part(&mut self, at: &At) -> &mut Part {
        self.parts.entry(at.clone()).or_default()
    }

    /// One channel less is awaited.
    fn came(&mut self, at: &At) {
        let part = self.part(at);
        part.pending = part.pending.saturating_sub(1);
        if part.pending == 0 {
            part.began = true;
            if std::mem::take(&mut part.missed) {
                (self.hear)(None);
            }
        }
    }
}

impl Channels {
    /// `place` tells which node has a channel.
    pub(super) fn new(place: impl Fn(&str) -> At + Send + 'static) -> Self {
        Self {
            place: Box::new(place),
            connections: HashMap::new(),
            channels: HashMap::new(),
            readers: HashMap::new(),
            last: 0,
            beside: HashMap::new(),
        }
    }

    /// A new reader of some channels. It is told that it hears as soon as it is there: whoever made it waits for all channels
    /// before it reads.
    pub(super) fn enter(&mut self, hear: Hear, channels: impl IntoIterator<Item = (String, Hear)>) -> (u64, Vec<Wait>) {
        self.last += 1;
        let id = self.last;
        hear(None);
        self.readers.insert(id, Reader { hear, parts: HashMap::new() });
        let mut waits = Vec::new();
        for (channel, hear) in channels {
            for beside in self.beside.get(&channel).cloned().unwrap_or_default() {
                waits.extend(self.join(&beside, id, &hear));
            }
            waits.extend(self.join(&channel, id, &hear));
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
        if !self.channels.contains_key(name) {
            let (at, readers, waits) = ((self.place)(name), Vec::new(), Vec::new());
            self.channels.insert(name.to_owned(), Channel { at, subscribed: false, began: false, readers, waits });
        }
        let channel = self.channels.get_mut(name)?;
        if !channel.readers.iter().any(|(reader, _)| *reader == id) {
            channel.readers.push((id, hear.clone()));
            if let Some(reader) = self.readers.get_mut(&id) {
                let part = reader.part(&channel.at);
                part.channels += 1;
                part.pending += usize::from(!channel.subscribed);
                part.began |= part.pending == 0;
            }
        }
        if channel.subscribed {
            return None;
        }
        let (wait, waits) = oneshot::channel();
        channel.waits.push(wait);
        self.connections.entry(channel.at.clone()).or_default().todo.push(name.to_owned());
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
                self.connections.entry(channel.at.clone()).or_default().todo.push(name.clone());
            }
        }
    }

    /// The nodes on which somebody hears.
    pub(super) fn heard_at(&self) -> BTreeSet<At> {
        self.channels.values().filter(|channel| !channel.readers.is_empty()).map(|channel| channel.at.clone()).collect()
    }

    pub(super) fn nobody_hears(&self, at: &At) -> bool {
        !self.channels.values().any(|channel| channel.at == *at && !channel.readers.is_empty())
    }

    /// Other nodes may have the channels now. Their readers are told when they hear again.
    pub(super) fn moved(&mut self) {
        for (name, channel) in &mut self.channels {
            let to = (self.place)(name);
            if to == channel.at {
                continue;
            }
            for (id, _) in &channel.readers {
                let Some(reader) = self.readers.get_mut(id) else { continue };
                let part = reader.part(&to);
                part.channels += 1;
                (part.pending, part.missed) = (part.pending + 1, part.missed || channel.began);
                let part = reader.part(&channel.at);
                part.channels = part.channels.saturating_sub(1);
                if part.channels == 0 {
                    reader.parts.remove(&channel.at);
                } else if !channel.subscribed {
                    reader.came(&channel.at);
                }
            }
            (channel.at, channel.subscribed) = (to, false);
            self.connections.entry(channel.at.clone()).or_default().todo.push(name.clone());
        }
    }

    /// A connection is made to a node: nothing is subscribed there. `echo` is a channel of this process that the node has. Returns
    /// the connection's number.
    pub(super) fn connect(&mut self, at: &At, echo: String) -> u64 {
        self.channels.retain(|_, channel| channel.at != *at || !channel.readers.is_empty());
        for reader in self.readers.values_mut() {
            if let Some(part) = reader.parts.get_mut(at) {
                (part.pending, part.missed) = (0, part.missed || part.began);
            }
        }
        let connection = self.connections.entry(at.clone()).or_default();
        (connection.number, connection.missing) = (connection.number + 1, 0);
        connection.todo = vec![echo.clone()];
        connection.echo = echo;
        for (name, channel) in self.channels.iter_mut().filter(|(_, channel)| channel.at == *at) {
            channel.subscribed = false;
            connection.todo.push(name.clone());
            for (id, _) in &channel.readers {
                if let Some(reader) = self.readers.get_mut(id) {
                    reader.part(at).pending += 1;
                }
            }
        }
        connection.number
    }

    /// The channels to subscribe at a node now (true), and those to give up there.
    pub(super) fn todo(&mut self, at: &At) -> Vec<(bool, String)> {
        let Some(connection) = self.connections.get_mut(at) else { return Vec::new() };
        let (mut todo, echo) = (std::mem::take(&mut connection.todo), &connection.echo);
        todo.sort_unstable();
        todo.dedup();
        let needed = |name: String| {
            if name == *echo {
                return Some((true, name));
            }
            let channel = self.channels.get(&name).filter(|channel| channel.at == *at)?;
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
            self.connections.entry(channel.at.clone()).or_default().todo.push(name.to_owned());
        }
    }

    /// No channel of a node can be subscribed now: nobody waits any more.
    pub(super) fn failed(&mut self, at: &At, error: &JournalError) {
        for channel in self.channels.values_mut().filter(|channel| channel.at == *at) {
            channel.waits.drain(..).for_each(|wait| _ = wait.send(Err(error.clone())));
        }
    }

    /// An echo is about to be sent, by which channel it says. None if so many are missing that the connection must be taken for silent.
    pub(super) fn call(&mut self, at: &At, missing_max: u32) -> Option<String> {
        let connection = self.connections.get_mut(at)?;
        connection.missing += 1;
        (connection.missing <= missing_max).then(|| connection.echo.clone())
    }

    /// Whether this is the channel by which the process hears itself at a node.
    pub(super) fn is_echo(&self, at: &At, channel: &str) -> bool {
        self.connections.get(at).is_some_and(|connection| connection.echo == channel)
    }

    /// The last echo was not sent, as far as is known.
    pub(super) fn not_called(&mut self, at: &At) {
        if let Some(connection) = self.connections.get_mut(at) {
            connection.missing = connection.missing.saturating_sub(1);
        }
    }

    /// Something came in by a connection.
    pub(super) fn came(&mut self, at: &At, number: u64, push: PushInfo) -> Then {
        let Some(connection) = self.connections.get_mut(at).filter(|connection| connection.number == number) else {
            return Then::Nothing;
        };
        let PushInfo { kind, data } = push;
        if kind == PushKind::Disconnection {
            return Then::Over;
        }
        let mut data = data.into_iter();
        let Some(Value::BulkString(name)) = data.next() else { return Then::Nothing };
        let Ok(name) = std::str::from_utf8(&name) else { return Then::Nothing };
        if name == connection.echo {
            connection.missing = 0;
            // The slot by which the process hears itself went elsewhere.
            return if matches!(kind, PushKind::SUnsubscribe | PushKind::Unsubscribe) { Then::Over } else { Then::Nothing };
        }
        match kind {
            PushKind::Message | PushKind::SMessage => {
                if let (Some(channel), Some(Value::BulkString(message))) = (self.channels.get(name), data.next()) {
                    let message = Bytes::from(message);
                    channel.readers.iter().for_each(|(_, hear)| hear(Some(message.clone())));
                }
            }
            PushKind::Subscribe | PushKind::SSubscribe => self.subscribed(at, name),
            PushKind::Unsubscribe | PushKind::SUnsubscribe => return self.unsubscribed(at, name),
            _ => {}
        }
        Then::Nothing
    }

    fn subscribed(&mut self, at: &At, name: &str) {
        let Some(channel) = self.channels.get_mut(name).filter(|channel| channel.at == *at) else { return };
        channel.waits.drain(..).for_each(|wait| _ = wait.send(Ok(())));
        channel.began = true;
        if std::mem::replace(&mut channel.subscribed, true) {
            return;
        }
        for (id, _) in &channel.readers {
            if let Some(reader) = self.readers.get_mut(id) {
                reader.came(at);
            }
        }
    }

    /// Where nobody hears any more, this is the answer to what was asked for. Elsewhere it is the server that ended it: the slot
    /// went to another one.
    fn unsubscribed(&mut self, at: &At, name: &str) -> Then {
        let heard = |channel: &&mut Channel| channel.at == *at && channel.subscribed && !channel.readers.is_empty();
        let Some(channel) = self.channels.get_mut(name).filter(heard) else { return Then::Nothing };
        channel.subscribed = false;
        for (id, _) in &channel.readers {
            if let Some(reader) = self.readers.get_mut(id) {
                let part = reader.part(at);
                (part.pending, part.missed) = (part.pending + 1, part.missed || part.began);
            }
        }
        self.connections.entry(at.clone()).or_default().todo.push(name.to_owned());
        Then::Look
    }
}

#[cfg(test)]
mod tests;

//! Subscriptions. Each has its own connection, which sends only pings and reconnects by itself.

use bytes::Bytes;
use futures_util::StreamExt;
use redis::Client;
use redis::aio::{PubSubSink, PubSubStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::super::{Backoff, Bell, JournalError, Signal, Signals, signals};
use super::error::journal_error;
use crate::limits::{
    REDIS_CONNECT_TIMEOUT, REDIS_RESPONSE_TIMEOUT, RESUBSCRIBE_DELAY_MAX, RESUBSCRIBE_DELAY_MIN, SUBSCRIPTION_PING_INTERVAL,
};
use crate::types::{Incarnation, ShardId};
use crate::wire::DecodeError;
use crate::wire::codec::Reader;

/// The connection of a subscription.
struct Connection {
    sink: PubSubSink,
    messages: PubSubStream,
}

/// Connects to where the journal's own connection leads.
async fn connect(made: &mut watch::Receiver<Option<Client>>, channels: &[String]) -> Result<Connection, JournalError> {
    let client = made.borrow_and_update().clone().ok_or_else(|| JournalError::Unreachable("no connection yet".into()))?;
    let open = async {
        let (mut sink, messages) = client.get_async_pubsub().await?.split();
        if !channels.is_empty() {
            sink.subscribe(channels).await?;
        }
        Ok(Connection { sink, messages })
    };
    match timeout(REDIS_CONNECT_TIMEOUT, open).await {
        Ok(opened) => opened.map_err(|error| journal_error(&error)),
        Err(_) => Err(JournalError::Silent(format!("no subscription within {REDIS_CONNECT_TIMEOUT:?}"))),
    }
}

/// Subscribes, and keeps the subscription until its reader is gone. `read` decodes a message of a channel. `made` is where
/// the journal's own connection leads, and changes when that was made again, perhaps to another server: then this one is made again.
pub(super) async fn subscribe<T, F>(
    channels: Vec<String>,
    mut made: watch::Receiver<Option<Client>>,
    read: F,
) -> Result<Signals<T>, JournalError>
where
    T: Send + 'static,
    F: Fn(&str, Bytes) -> Result<T, DecodeError> + Send + Sync + 'static,
{
    let mut connection = connect(&mut made, &channels).await?;
    let (to, from) = signals::channel();
    tokio::spawn(async move {
        while signals::subscribed(&to) {
            tokio::select! {
                () = deliver(&mut connection, &to, &read) => tracing::warn!(?channels, "subscription broke: subscribing again"),
                () = changed(&mut made) => tracing::debug!(?channels, "following to where the journal is now"),
                () = to.closed() => return,
            }
            tokio::select! {
                again = reconnect(&mut made, &channels) => connection = again,
                () = to.closed() => return,
            }
        }
    });
    Ok(from)
}

/// Hands messages on until the connection breaks or its reader is gone.
async fn deliver<T>(
    connection: &mut Connection,
    to: &mpsc::Sender<Signal<T>>,
    read: impl Fn(&str, Bytes) -> Result<T, DecodeError>,
) {
    let mut pings = interval(SUBSCRIPTION_PING_INTERVAL);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            message = connection.messages.next() => message,
            _ = pings.tick() => match timeout(REDIS_RESPONSE_TIMEOUT, connection.sink.ping::<redis::Value>()).await {
                Ok(Ok(_)) => continue,
                _ => return,
            },
        };
        let Some(message) = message else { return };
        let payload = Bytes::copy_from_slice(message.get_payload_bytes());
        let heard = match read(message.get_channel_name(), payload) {
            Ok(message) => signals::offer(to, message),
            Err(error) => {
                tracing::warn!(channel = message.get_channel_name(), %error, "unreadable message: its reader reads the journal instead");
                signals::subscribed(to)
            }
        };
        if !heard {
            return;
        }
    }
}

async fn changed(made: &mut watch::Receiver<Option<Client>>) {
    if made.changed().await.is_err() {
        // The journal was dropped. Its subscriptions live as long as they are read.
        std::future::pending::<()>().await;
    }
}

async fn reconnect(made: &mut watch::Receiver<Option<Client>>, channels: &[String]) -> Connection {
    let mut backoff = Backoff::new(RESUBSCRIBE_DELAY_MIN, RESUBSCRIBE_DELAY_MAX);
    loop {
        backoff.rest().await;
        match connect(made, channels).await {
            Ok(connection) => return connection,
            Err(error) => tracing::debug!(%error, ?backoff, "no subscription yet"),
        }
    }
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

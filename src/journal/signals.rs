//! Subscriptions, and their sending side. It never waits, and never loses a message without telling the reader.

use tokio::sync::mpsc;

/// The most messages that wait in a subscription.
const SIGNALS_MAX: usize = 16 * 1024;

/// What a subscription yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal<T> {
    /// The subscription begins, or begins again: earlier messages may have been missed.
    Subscribed,
    /// A message.
    Message(T),
}

/// Messages of a subscription, in the order in which the journal published them. If a slow reader misses some, it gets another
/// [`Signal::Subscribed`].
pub type Signals<T> = mpsc::Receiver<Signal<T>>;

/// The two ends of a subscription. The channel's last place is reserved for [`Signal::Subscribed`].
pub(super) fn channel<T>() -> (mpsc::Sender<Signal<T>>, Signals<T>) {
    mpsc::channel(SIGNALS_MAX)
}

/// Offers a message. Returns false if nobody listens any more. The message that would fill the channel is replaced by
/// [`Signal::Subscribed`], so a full channel ends with it. Messages that are dropped meanwhile were published before the reader
/// gets there, and the reader then reads the journal.
pub(super) fn offer<T>(to: &mpsc::Sender<Signal<T>>, message: T) -> bool {
    let signal = match to.capacity() {
        0 => return !to.is_closed(),
        1 => Signal::Subscribed,
        _ => Signal::Message(message),
    };
    !matches!(to.try_send(signal), Err(mpsc::error::TrySendError::Closed(_)))
}

/// Tells the reader that earlier messages may have been missed. Returns false if nobody listens any more.
pub(super) fn subscribed<T>(to: &mpsc::Sender<Signal<T>>) -> bool {
    !matches!(to.try_send(Signal::Subscribed), Err(mpsc::error::TrySendError::Closed(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_reader_is_told_that_it_missed_something() {
        let (to, mut from) = channel();
        assert!(subscribed(&to));
        for n in 0..2 * SIGNALS_MAX {
            assert!(offer(&to, n));
        }
        assert_eq!(from.try_recv(), Ok(Signal::Subscribed));
        for n in 0..SIGNALS_MAX - 2 {
            assert_eq!(from.try_recv(), Ok(Signal::Message(n)));
        }
        assert!(offer(&to, usize::MAX));
        assert_eq!(from.try_recv(), Ok(Signal::Subscribed), "the missed ones are announced at their place");
        assert_eq!(from.try_recv(), Ok(Signal::Message(usize::MAX)));
        drop(from);
        assert!(!offer(&to, 0) && !subscribed(&to));
    }
}

//! The sending side of a subscription: never waits, and never loses a message without saying so.

use tokio::sync::mpsc;

use super::{SIGNALS_MAX, Signal, Signals};

/// A subscription's two ends. Its last place is kept for the word that something was missed.
pub(super) fn channel<T>() -> (mpsc::Sender<Signal<T>>, Signals<T>) {
    mpsc::channel(SIGNALS_MAX)
}

/// Offers a message; false when nobody listens any more. The one that would fill the channel is replaced by
/// [`Signal::Subscribed`]. So a full channel ends in `Subscribed`, and whatever is dropped while it is full was
/// published before the reader gets to that word and looks for itself.
pub(super) fn offer<T>(to: &mpsc::Sender<Signal<T>>, message: T) -> bool {
    let signal = match to.capacity() {
        0 => return !to.is_closed(),
        1 => Signal::Subscribed,
        _ => Signal::Message(message),
    };
    !matches!(to.try_send(signal), Err(mpsc::error::TrySendError::Closed(_)))
}

/// Says that everything before may have been missed; false when nobody listens any more.
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

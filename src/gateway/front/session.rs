//! One session, from Open to Close.
//!
//! ```text
//! open ──► (received → act | delivered → send | deadline | going away)* ──► end or error ──► close ──► goodbye
//! ```
//! The hub learns End or Error, then Close, before the goodbye. How long the client takes for its own goodbye is no event.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::num::NonZeroU32;
use std::pin::pin;

use bytes::Bytes;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::Front;
use super::http::{Grant, Upgraded};
use super::settings::Settings;
use super::socket::{Socket, Step, is_lost};
use crate::clock::monotonic_ns;
use crate::gateway::{Delivery, Hub, Outbox};
use crate::limits::DELIVERIES_PER_TURN_MAX;
use crate::metrics::{REFUSALS_TOTAL, SESSIONS_OPEN, SESSIONS_TOTAL};
use crate::types::{Arrival, SessionId};
use crate::wire::client::{Encoding, ErrorCode, Refusal, close, encode_move, encode_refusal, encode_welcome, parse_action};

/// Stands for the close code of a close frame that has none.
const NO_STATUS: u16 = 1005;

/// Why a session ends.
#[derive(Debug)]
enum Ending {
    /// The client closed it.
    Theirs { code: u16, arrival: Arrival },
    /// The gateway closes it.
    Ours { code: u16, reason: String },
    /// The connection went away.
    Lost,
    /// The client broke the protocol, or the socket failed.
    Broken(Error),
}

impl Ending {
    fn ours(code: u16) -> Self {
        let word = close::ALL.iter().find(|known| known.0 == code).map_or("", |known| known.1);
        Self::Ours { code, reason: word.to_owned() }
    }

    /// Whether the gateway reads what had reached the socket before it closes (rule X5).
    fn reads_first(&self) -> bool {
        matches!(self, Self::Ours { code: close::MOVED | close::ELSEWHERE, .. })
    }

    /// Its name in the metrics.
    fn how(&self) -> &'static str {
        match self {
            Self::Theirs { .. } | Self::Lost => "client",
            Self::Broken(_) => "error",
            Self::Ours { code: close::SLOW, .. } => "slow",
            Self::Ours { code: close::IDLE, .. } => "idle",
            Self::Ours { code: close::TOKEN_EXPIRED, .. } => "expired",
            Self::Ours { code: close::GOING_AWAY, .. } => "draining",
            Self::Ours { code: close::MOVED, .. } => "moved",
            Self::Ours { code: close::ELSEWHERE, .. } => "elsewhere",
            Self::Ours { .. } => "server",
        }
    }
}

impl From<Error> for Ending {
    fn from(error: Error) -> Self {
        match error {
            Error::WriteBufferFull(_) => Self::ours(close::SLOW),
            error if is_lost(&error) => Self::Lost,
            error => Self::Broken(error),
        }
    }
}

/// Tells the hub, when it is dropped, that the session has ended. So a panic or a dropped task ends the session too.
struct Opened<'a> {
    hub: &'a Hub,
    id: SessionId,
}

impl<'a> Opened<'a> {
    fn new(hub: &'a Hub, id: SessionId) -> Self {
        metrics::gauge!(SESSIONS_OPEN).increment(1.0);
        Self { hub, id }
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        metrics::gauge!(SESSIONS_OPEN).decrement(1.0);
        self.hub.close(self.id, Arrival::at(monotonic_ns(), 0));
    }
}

/// Runs a session to its end.
pub(super) async fn run(front: &Front, upgraded: Box<Upgraded>) {
    let Upgraded { mut stream, rest, grant } = *upgraded;
    let Grant { joining, encoding, valid_for, place } = grant;
    let arrival = stream.begin_session(&rest);
    let now = Instant::now();
    let expires = valid_for.and_then(|valid| now.checked_add(valid));
    let opened = front.hub.open(joining, arrival).map(|(id, outbox)| (Opened::new(&front.hub, id), outbox));
    // Boxed like the goodbye below, so that the long-lived task does not keep memory that it needs only for a moment.
    let mut socket = Box::pin(Socket::new(stream, rest, encoding, expires, &front.settings)).await;
    let goodbye = match opened {
        Ok((opened, outbox)) => {
            let session = Session::new(front, opened.id, encoding);
            let ending = session.converse(&mut socket, outbox).await;
            metrics::counter!(SESSIONS_TOTAL, "how" => ending.how()).increment(1);
            let goodbye = session.finish(&mut socket, ending);
            drop(opened);
            goodbye
        }
        Err(refusal) => {
            let _ = socket.send(refusal_frame(encoding, &refusal));
            Some((close::TRY_AGAIN, refusal.code.as_str().to_owned()))
        }
    };
    socket.stream().end_session();
    Box::pin(socket.close(goodbye, &front.settings)).await;
    drop(place);
}

struct Session<'a> {
    hub: &'a Hub,
    settings: &'a Settings,
    front: &'a Front,
    id: SessionId,
    encoding: Encoding,
    actions: DefaultDirectRateLimiter,
    /// How many messages may be refused as too fast before the session is closed.
    excess: DefaultDirectRateLimiter,
}

impl<'a> Session<'a> {
    fn new(front: &'a Front, id: SessionId, encoding: Encoding) -> Self {
        let rate = NonZeroU32::new(front.settings.actions_per_second).unwrap_or(NonZeroU32::MIN);
        // A burst of one second's messages, then a quarter of the rate: more than that is not a burst.
        let quarter = NonZeroU32::new(rate.get() / 4).unwrap_or(NonZeroU32::MIN);
        Self {
            hub: &front.hub,
            settings: &front.settings,
            front,
            id,
            encoding,
            actions: RateLimiter::direct(Quota::per_second(rate)),
            excess: RateLimiter::direct(Quota::per_second(quarter).allow_burst(rate)),
        }
    }

    /// Serves the session until something ends it.
    async fn converse(&self, socket: &mut Socket, mut outbox: Outbox) -> Ending {
        let mut timer = pin!(sleep_until(socket.next_deadline(self.settings)));
        let mut leaving = pin!(self.front.leaving.cancelled());
        // Set when the gateway closes the session as soon as it has read what had reached the socket.
        let (mut farewell, mut said) = (None::<Box<Ending>>, false);
        loop {
            let writable = socket.is_writable();
            // Received messages come first: they are older than anything else.
            let applied = tokio::select! {
                biased;
                step = poll_fn(|cx| socket.poll_step(timer.as_mut(), self.settings, cx)) => self.step(socket, step),
                () = &mut leaving, if farewell.is_none() => {
                    farewell = Some(Box::new(Ending::ours(close::GOING_AWAY)));
                    Ok(())
                }
                // After one yield everything that had reached the socket has been read.
                () = tokio::task::yield_now(), if farewell.is_some() => Err(farewell.take().map_or(Ending::Lost, |ending| *ending)),
                delivery = outbox.recv(), if writable && !farewell.as_deref().is_some_and(Ending::reads_first) => match delivery {
                    Some(delivery) => self.deliver_all(socket, delivery, &mut outbox),
                    // The gateway has dropped its end without a last message; the client gets the rest with `since`.
                    None => Err(Ending::ours(close::SLOW)),
                },
            };
            match applied {
                Ok(()) => {}
                Err(ending) if ending.reads_first() && !said => (farewell, said) = (Some(Box::new(ending)), true),
                Err(ending) => return ending,
            }
        }
    }

    fn step(&self, socket: &mut Socket, step: Step) -> Result<(), Ending> {
        match step {
            Step::Received(message) => {
                let arrival = socket.stream().arrival();
                self.receive(socket, message, arrival)
            }
            Step::Failed(error) => Err(error.into()),
            Step::Writable => Ok(()),
            Step::Overdue(close::TOKEN_EXPIRED) => {
                let message = "the token has expired: connect with a new one".to_owned();
                self.refuse(socket, Refusal { code: ErrorCode::Expired, id: None, message })?;
                Err(Ending::ours(close::TOKEN_EXPIRED))
            }
            Step::Overdue(code) => Err(Ending::ours(code)),
        }
    }

    fn receive(&self, socket: &mut Socket, message: Message, arrival: Arrival) -> Result<(), Ending> {
        let payload = match &message {
            Message::Text(text) if self.encoding.is_text() => text.as_bytes(),
            Message::Binary(bytes) if !self.encoding.is_text() => bytes,
            Message::Text(_) | Message::Binary(_) | Message::Frame(_) => return Err(Ending::ours(close::UNSUPPORTED)),
            Message::Close(frame) => {
                let code = frame.as_ref().map_or(NO_STATUS, |frame| frame.code.into());
                return Err(Ending::Theirs { code, arrival });
            }
            Message::Ping(_) | Message::Pong(_) => return self.within_rate().map(drop),
        };
        let within_rate = self.within_rate()?;
        let acted = parse_action(self.encoding, payload).and_then(|action| {
            if within_rate {
                self.front.tally.event();
                return self.hub.act(self.id, action, arrival);
            }
            let rate = self.settings.actions_per_second;
            let message = format!("more than {rate} actions a second: send it again later");
            Err(Refusal { code: ErrorCode::RateLimited, id: Some(action.id), message })
        });
        acted.or_else(|refusal| self.refuse(socket, refusal))
    }

    /// Whether another message is within the session's rate. An error when the client keeps exceeding it.
    fn within_rate(&self) -> Result<bool, Ending> {
        if self.actions.check().is_ok() {
            return Ok(true);
        }
        self.excess.check().map(|()| false).map_err(|_| Ending::ours(close::TOO_FAST))
    }

    fn refuse(&self, socket: &mut Socket, refusal: Refusal) -> Result<(), Ending> {
        Ok(socket.send(refusal_frame(self.encoding, &refusal))?)
    }

    /// Writes the deliveries that are there, so that one flush sends them all.
    fn deliver_all(&self, socket: &mut Socket, first: Delivery, outbox: &mut Outbox) -> Result<(), Ending> {
        self.deliver(socket, first)?;
        for _ in 1..DELIVERIES_PER_TURN_MAX {
            if !socket.has_room() {
                break;
            }
            match outbox.try_recv() {
                Some(delivery) => self.deliver(socket, delivery)?,
                None => break,
            }
        }
        Ok(())
    }

    fn deliver(&self, socket: &mut Socket, delivery: Delivery) -> Result<(), Ending> {
        if let Some(arrived_ns) = delivery.decides_since(self.id) {
            socket.decides_since(arrived_ns);
        }
        let encoded = match delivery {
            Delivery::Welcome(mut welcome) => {
                socket.welcomed();
                welcome.uncertainty_ns = welcome.uncertainty_ns.saturating_add(socket.stream().path_ns());
                encode_welcome(self.encoding, &welcome)
            }
            Delivery::Verdict { from, frames } => frames.encode(self.encoding, from),
            Delivery::Refused(refusal) => refusal_frame(self.encoding, &refusal),
            Delivery::Move { within_ms, url } => encode_move(self.encoding, within_ms, url.as_deref()),
            Delivery::Close { code, reason } => return Err(Ending::Ours { code, reason }),
        };
        Ok(socket.send(encoded)?)
    }

    /// Tells the hub how the session ended. Returns the close frame that is still to be sent.
    fn finish(&self, socket: &mut Socket, ending: Ending) -> Option<(u16, String)> {
        let stream = socket.stream();
        match ending {
            Ending::Theirs { code, arrival } => {
                self.hub.end(self.id, code, arrival);
                None
            }
            Ending::Ours { code, reason } => {
                self.hub.end(self.id, code, stream.now());
                Some((code, reason))
            }
            Ending::Lost => {
                self.hub.end(self.id, close::ABNORMAL, stream.lost());
                None
            }
            Ending::Broken(error) => {
                let code = code_of(&error);
                let reason = error.to_string().to_lowercase();
                self.hub.error(self.id, &reason, stream.lost());
                Some((code, reason))
            }
        }
    }
}

/// Encodes a refusal for the client, and counts it.
fn refusal_frame(encoding: Encoding, refusal: &Refusal) -> Bytes {
    metrics::counter!(REFUSALS_TOTAL, "code" => refusal.code.as_str()).increment(1);
    encode_refusal(encoding, refusal)
}

fn code_of(error: &Error) -> u16 {
    match error {
        Error::Capacity(_) => close::TOO_BIG,
        // The stream's error for a message in too many fragments.
        Error::Io(error) if error.kind() == ErrorKind::InvalidData => close::TOO_BIG,
        Error::Utf8(_) => close::BAD_DATA,
        _ => close::PROTOCOL,
    }
}

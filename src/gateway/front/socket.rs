//! A session's WebSocket as one source of steps: a message was received, the socket is writable again, a deadline has passed.
//!
//! Reading never waits for writing. Even a session that reads nothing is read to "would block", because the sweep relies on
//! that.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use metrics::Histogram;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, Sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role as Side, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::arrival::StampedStream;
use super::settings::Settings;
use crate::clock::monotonic_ns;
use crate::limits::{LINGER_BYTES_MAX, MESSAGE_BYTES_MAX, SESSION_READ_BYTES, SESSION_WRITE_BYTES, SESSION_WRITE_BYTES_MAX};
use crate::metrics::{WRITTEN_SECONDS, Waits};
use crate::wire::client::{Encoding, close};

/// The most bytes in a close frame's reason (RFC 6455, section 5.5: 125 with the code).
const CLOSE_REASON_BYTES_MAX: usize = 123;

/// What happened on the socket.
#[derive(Debug)]
pub(super) enum Step {
    /// A message or a control frame was received.
    Received(Message),
    /// The connection broke or ended.
    Failed(Error),
    /// Everything is written; more may follow.
    Writable,
    /// A deadline has passed: close with this code.
    Overdue(u16),
}

/// A session's socket and its deadlines.
pub(super) struct Socket {
    ws: WebSocketStream<StampedStream>,
    encoding: Encoding,
    /// Whether frames wait to be written.
    dirty: bool,
    /// Why nothing more can be written. Messages that were received before still count, because they arrived.
    broken: Option<Error>,
    /// Since when the client has not read what was written.
    blocked: Option<Instant>,
    /// When the last message was received.
    heard: Instant,
    /// When the last ping was sent.
    pinged: Instant,
    /// The deadline of the welcome; None once it was sent.
    welcome_by: Option<Instant>,
    /// When the token expires.
    expires: Option<Instant>,
    /// When the actions arrived whose verdicts are not written yet.
    waits: Waits,
    written: Histogram,
}

impl Socket {
    /// Takes over a connection after its upgrade. `rest` was read after the request.
    pub(super) async fn new(
        stream: StampedStream,
        rest: Bytes,
        encoding: Encoding,
        expires: Option<Instant>,
        settings: &Settings,
    ) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(SESSION_READ_BYTES)
            .write_buffer_size(SESSION_WRITE_BYTES)
            .max_write_buffer_size(SESSION_WRITE_BYTES_MAX)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        // Copied, so that an idle session does not keep the handshake's whole buffer.
        let ws = WebSocketStream::from_partially_read(stream, rest.to_vec(), Side::Server, Some(config)).await;
        let now = Instant::now();
        let welcome_by = Some(now + settings.welcome_timeout);
        let (waits, written) = (Waits::default(), metrics::histogram!(WRITTEN_SECONDS));
        Self {
            ws,
            encoding,
            dirty: false,
            broken: None,
            blocked: None,
            heard: now,
            pinged: now,
            welcome_by,
            expires,
            waits,
            written,
        }
    }

    /// The stream below, which knows when messages arrived.
    pub(super) fn stream(&mut self) -> &mut StampedStream {
        self.ws.get_mut()
    }

    /// Whether messages can leave.
    pub(super) fn is_writable(&self) -> bool {
        self.blocked.is_none()
    }

    /// Notes that the welcome was sent.
    pub(super) fn welcomed(&mut self) {
        self.welcome_by = None;
    }

    /// Notes that the next message is the verdict on an action that arrived at `arrived_ns`.
    pub(super) fn decides_since(&mut self, arrived_ns: u64) {
        self.waits.add(arrived_ns);
    }

    /// Queues a message. It leaves with the next step.
    /// An error when the socket holds [`SESSION_WRITE_BYTES_MAX`] unwritten bytes. A broken socket shows in a later step.
    pub(super) fn send(&mut self, encoded: Bytes) -> Result<(), Error> {
        let data = if self.encoding.is_text() { Data::Text } else { Data::Binary };
        // As a frame, so that its text is not checked for UTF-8 again in every session.
        self.queue(Message::Frame(Frame::message(encoded, OpCode::Data(data), true)))
    }

    /// Whether all messages fitted into the kernel's buffer, so that more may follow.
    pub(super) fn has_room(&mut self) -> bool {
        // Without a waker: the next step flushes and registers one.
        Pin::new(&mut self.ws).poll_ready(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    fn queue(&mut self, message: Message) -> Result<(), Error> {
        match Pin::new(&mut self.ws).start_send(message) {
            Ok(()) => self.dirty = self.broken.is_none(),
            Err(error @ Error::WriteBufferFull(_)) => return Err(error),
            Err(error) => self.fail(error),
        }
        Ok(())
    }

    fn fail(&mut self, error: Error) {
        self.dirty = false;
        self.blocked = None;
        self.broken.get_or_insert(error);
    }

    /// The next step. Sets `timer` to the session's next deadline when it fires and when writing begins to wait.
    pub(super) fn poll_step(&mut self, mut timer: Pin<&mut Sleep>, settings: &Settings, cx: &mut Context<'_>) -> Poll<Step> {
        if self.dirty {
            match Pin::new(&mut self.ws).poll_flush(cx) {
                Poll::Ready(Ok(())) => {
                    self.dirty = false;
                    if !self.waits.is_empty() {
                        self.waits.end(monotonic_ns(), &self.written);
                    }
                    if self.blocked.take().is_some() {
                        return Poll::Ready(Step::Writable);
                    }
                }
                Poll::Ready(Err(error)) => self.fail(error),
                Poll::Pending if self.blocked.is_none() => {
                    self.blocked = Some(Instant::now());
                    timer.as_mut().reset(self.next_deadline(settings));
                }
                Poll::Pending => {}
            }
        }
        match Pin::new(&mut self.ws).poll_next(cx) {
            Poll::Ready(Some(Ok(message))) => {
                self.heard = Instant::now();
                return Poll::Ready(Step::Received(message));
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Step::Failed(error)),
            Poll::Ready(None) => return Poll::Ready(Step::Failed(Error::ConnectionClosed)),
            Poll::Pending => {}
        }
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Step::Failed(error));
        }
        while timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if let Some(code) = self.overdue(settings, now) {
                return Poll::Ready(Step::Overdue(code));
            }
            if self.next_ping(settings) <= now {
                self.pinged = now;
                // A client that does not read is found out without a ping.
                if self.blocked.is_none() {
                    if let Err(error) = self.queue(Message::Ping(Bytes::new())) {
                        return Poll::Ready(Step::Failed(error));
                    }
                    cx.waker().wake_by_ref();
                }
            }
            timer.as_mut().reset(self.next_deadline(settings));
        }
        Poll::Pending
    }

    fn overdue(&self, settings: &Settings, now: Instant) -> Option<u16> {
        let past = |deadline: Option<Instant>| deadline.is_some_and(|at| at <= now);
        [
            (self.expires, close::TOKEN_EXPIRED),
            (self.blocked.map(|since| since + settings.stall_timeout), close::SLOW),
            (self.welcome_by, close::TRY_AGAIN),
            (Some(self.heard + settings.idle_timeout), close::IDLE),
        ]
        .into_iter()
        .find_map(|(deadline, code)| past(deadline).then_some(code))
    }

    fn next_ping(&self, settings: &Settings) -> Instant {
        self.heard.max(self.pinged) + settings.ping_interval
    }

    /// When the timer must fire next. Messages that come before then move it only when it fires.
    pub(super) fn next_deadline(&self, settings: &Settings) -> Instant {
        let stalled = self.blocked.map(|since| since + settings.stall_timeout);
        let always = self.next_ping(settings).min(self.heard + settings.idle_timeout);
        [self.expires, stalled, self.welcome_by].into_iter().flatten().fold(always, Instant::min)
    }

    /// Sends a close frame with `code`, or answers the one that was received. Then waits for the client, at most
    /// `close_timeout`.
    pub(super) async fn close(mut self, code: Option<(u16, String)>, settings: &Settings) {
        let goodbye = async {
            if let Some((code, reason)) = code {
                // A pong that is due must go first: the close frame is the last one.
                let _ = self.ws.flush().await;
                let frame = CloseFrame { code: CloseCode::from(code), reason: cut(&reason, CLOSE_REASON_BYTES_MAX).into() };
                let _ = self.ws.send(Message::Close(Some(frame))).await;
            }
            let _ = self.ws.flush().await;
            while let Some(Ok(_)) = self.ws.next().await {}
            linger(self.ws.get_mut()).await;
        };
        let _ = timeout(settings.close_timeout, pin!(goodbye)).await;
    }
}

/// Ends a connection when everything is written: shuts writing down, and reads until the other side closes. Closing a socket
/// with unread bytes would reset the connection, and the reset overtakes what was written.
pub(super) async fn linger(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let (mut scratch, mut left) = ([0; 512], LINGER_BYTES_MAX);
    while let Ok(1..) = stream.read(&mut scratch).await {
        left = left.saturating_sub(scratch.len());
        if left == 0 {
            return;
        }
    }
}

/// Whether the connection just went away, without a close frame and without a fault in its bytes.
pub(super) fn is_lost(error: &Error) -> bool {
    use tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake;
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed | Error::Protocol(ResetWithoutClosingHandshake) => true,
        Error::Io(error) => matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof
        ),
        _ => false,
    }
}

/// The beginning of a text, at most `most` bytes.
fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

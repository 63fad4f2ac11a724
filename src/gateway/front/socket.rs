//! A session's WebSocket as one source of steps: what it received, that it is writable again, that a deadline is due.
//!
//! Reading never waits for writing: a session that does not read what it is sent is still read to "would block", because
//! the sweep vouches for it.

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

use super::Settings;
use crate::clock::monotonic_ns;
use crate::gateway::arrival::StampedStream;
use crate::limits::{LINGER_BYTES_MAX, MESSAGE_BYTES_MAX, SESSION_READ_BYTES, SESSION_WRITE_BYTES, SESSION_WRITE_BYTES_MAX};
use crate::metrics::{WRITTEN_SECONDS, Waits};
use crate::wire::client::{Encoding, close};

/// Bytes of a close frame's reason (RFC 6455, section 5.5: 125 with the code).
const CLOSE_REASON_BYTES_MAX: usize = 123;

/// What happened on the socket.
#[derive(Debug)]
pub(super) enum Step {
    /// A message, or a control frame.
    Received(Message),
    /// It broke, or ended.
    Failed(Error),
    /// What it was sent is written; more may follow.
    Writable,
    /// A deadline is due that lasted too long: close with this code.
    Overdue(u16),
}

/// A session's socket and its deadlines.
pub(super) struct Socket {
    ws: WebSocketStream<StampedStream>,
    encoding: Encoding,
    /// Whether frames wait to be written.
    dirty: bool,
    /// Why nothing can be written any more. What was received before is still taken in: it arrived.
    broken: Option<Error>,
    /// Since when the peer has not read what was written.
    blocked: Option<Instant>,
    /// When anything was received last.
    heard: Instant,
    /// When it was pinged last.
    pinged: Instant,
    /// When the welcome must be there; none once it is.
    welcome_by: Option<Instant>,
    /// When its token ends.
    expires: Option<Instant>,
    /// Since when the session waits for the verdicts that are not written yet.
    waits: Waits,
    written: Histogram,
}

impl Socket {
    /// Takes the connection over behind its upgrade; `rest` was read with it.
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
        // Copied: as a whole it is the handshake's buffer, which an idle session would keep.
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

    /// The stream below, which knows when things arrived.
    pub(super) fn stream(&mut self) -> &mut StampedStream {
        self.ws.get_mut()
    }

    /// Whether what is sent can leave.
    pub(super) fn is_writable(&self) -> bool {
        self.blocked.is_none()
    }

    /// Takes note that the welcome is there.
    pub(super) fn welcomed(&mut self) {
        self.welcome_by = None;
    }

    /// Takes note that what is sent next is the verdict on an action that arrived then.
    pub(super) fn decides_since(&mut self, arrived_ns: u64) {
        self.waits.add(arrived_ns);
    }

    /// Queues a message; it leaves with the next step.
    ///
    /// # Errors
    /// When the socket holds [`SESSION_WRITE_BYTES_MAX`] unwritten bytes. A broken socket is a later step.
    pub(super) fn send(&mut self, encoded: Bytes) -> Result<(), Error> {
        let data = if self.encoding.is_text() { Data::Text } else { Data::Binary };
        // As a frame: what was encoded as text is not checked to be UTF-8 for every session again.
        self.queue(Message::Frame(Frame::message(encoded, OpCode::Data(data), true)))
    }

    /// Whether the last of what was sent fitted into the kernel, so that more may follow.
    pub(super) fn has_room(&mut self) -> bool {
        // Without a waker: the next step flushes, and leaves one.
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

    /// The next step. `timer` is set to the session's next deadline whenever it fires or writing begins to wait.
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
                // One that does not read needs no ping to be found out.
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

    /// When the timer is needed next. What is heard meanwhile puts it off when it fires, not before.
    pub(super) fn next_deadline(&self, settings: &Settings) -> Instant {
        let stalled = self.blocked.map(|since| since + settings.stall_timeout);
        let always = self.next_ping(settings).min(self.heard + settings.idle_timeout);
        [self.expires, stalled, self.welcome_by].into_iter().flatten().fold(always, Instant::min)
    }

    /// Says goodbye with `code`, or answers the goodbye that was received, and waits for the other side, at most
    /// `close_timeout`.
    pub(super) async fn close(mut self, code: Option<(u16, String)>, settings: &Settings) {
        let goodbye = async {
            if let Some((code, reason)) = code {
                // A pong that is due would follow the close frame, which must be the last.
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

/// Ends a connection for which everything is written: says so, and reads on until the other side has seen it. Closing a
/// socket that has unread bytes resets the connection, and the reset overtakes what was written.
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

/// Whether the connection just went away, without a word and without a fault of the bytes.
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

/// The text, as far as it fits into `most` bytes.
pub(super) fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

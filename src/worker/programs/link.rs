//! A connection to one instance of a program: one request at a time, each with a deadline.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use quanta::Instant;

use crate::rules::ProgramIdentity;
use crate::rules::frames::{self, Encoding, HEAD_BYTES};
use crate::rules::frames::{FrameError, Shown};
use crate::rules::messages::{self, Decided, FromProgram};

/// A connection, and how the program at its other end speaks.
#[derive(Debug)]
pub(super) struct Link {
    stream: UnixStream,
    encoding: Encoding,
    requests: u64,
    /// The name of the instance in log lines.
    pub(super) label: String,
    lines: Lines,
    /// What was received and not read.
    inbox: Vec<u8>,
}

/// Bytes that are received at once.
const READ_BYTES: usize = 64 * 1024;

/// Why an instance is given up.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("it closed its socket, or died")]
    Closed,
    #[error("no answer within {} ms", .0.as_millis())]
    TooLate(Duration),
    #[error("its socket: {0}")]
    Io(io::Error),
    #[error("{why}, in the frame {shown}")]
    Bad { why: String, shown: Shown },
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// A moment by which something must be done.
#[derive(Debug, Clone, Copy)]
struct Deadline {
    began: Instant,
    within: Duration,
}

impl Deadline {
    fn new(within: Duration) -> Self {
        Self { began: Instant::now(), within }
    }

    fn left(&self) -> Result<Duration, LinkError> {
        self.within.checked_sub(self.began.elapsed()).filter(|left| !left.is_zero()).ok_or(LinkError::TooLate(self.within))
    }

    fn failed(&self, error: io::Error) -> LinkError {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => LinkError::TooLate(self.within),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => LinkError::Closed,
            _ => LinkError::Io(error),
        }
    }
}

/// Bounds the lines that an instance may log in a second.
#[derive(Debug)]
pub(super) struct Lines {
    since: Instant,
    told: u32,
    dropped: u32,
}

impl Lines {
    pub(super) fn new() -> Self {
        Self { since: Instant::now(), told: 0, dropped: 0 }
    }

    pub(super) fn tell(&mut self, label: &str, line: &str) {
        if self.since.elapsed() >= Duration::from_secs(1) {
            if self.dropped > 0 {
                tracing::warn!(program = label, "{} more lines were dropped", self.dropped);
            }
            *self = Self::new();
        }
        if self.told < crate::limits::PROGRAM_LINES_PER_SECOND {
            self.told += 1;
            tracing::info!(program = label, "{}", messages::line(line));
        } else {
            self.dropped += 1;
        }
    }
}

impl Link {
    /// Waits for the `hello` on a new connection.
    pub(super) fn greet(stream: UnixStream, label: String, within: Duration) -> Result<(Self, ProgramIdentity), LinkError> {
        stream.set_nonblocking(false).map_err(LinkError::Io)?;
        let mut link = Self { stream, encoding: Encoding::Json, requests: 0, label, lines: Lines::new(), inbox: Vec::new() };
        let body = link.read(Deadline::new(within))?;
        link.encoding = frames::encoding(&body);
        let shown = Shown::of(&body);
        let bad = |why: String| LinkError::Bad { why, shown };
        let said = frames::read(link.encoding, body).map_err(|e| e.to_string());
        match said.and_then(|text| messages::read(&text, 0)) {
            Ok(FromProgram::Hello(identity)) => Ok((link, identity)),
            Ok(_) => Err(bad("the first message is no hello".to_owned())),
            Err(why) => {
                link.refuse(&why);
                Err(bad(why))
            }
        }
    }

    /// Tells the program why its connection ends, if it still listens.
    pub(super) fn refuse(&mut self, why: &str) {
        let _ = self.write(&messages::refused(why), Deadline::new(Duration::from_millis(100)));
    }

    /// Asks for decisions.
    pub(super) fn resolve(&mut self, state: &str, events: &[String], within: Duration) -> Result<Vec<Decided>, LinkError> {
        self.requests += 1;
        let (id, deadline) = (self.requests, Deadline::new(within));
        self.write(&messages::resolve(id, state, events), deadline)?;
        self.answer(events.len(), deadline, |said| match said {
            FromProgram::Resolved(of, decided) if of == id => Ok(decided),
            FromProgram::Resolved(of, _) => Err(format!("an answer to request {of} instead of {id}")),
            _ => Err(format!("no answer to request {id}")),
        })
    }

    /// Asks for this version's state, made of the one that version `from` left.
    pub(super) fn migrate(&mut self, state: &str, from: u32, within: Duration) -> Result<Result<Arc<str>, String>, LinkError> {
        self.requests += 1;
        let (id, deadline) = (self.requests, Deadline::new(within));
        self.write(&messages::migrate(id, state, from), deadline)?;
        self.answer(0, deadline, |said| match said {
            FromProgram::Migrated(of, made) if of == id => Ok(made),
            _ => Err(format!("no answer to request {id}")),
        })
    }

    /// Asks whether the program is there.
    pub(super) fn ping(&mut self, within: Duration) -> Result<(), LinkError> {
        self.requests += 1;
        let (id, deadline) = (self.requests, Deadline::new(within));
        self.write(&messages::ping(id), deadline)?;
        self.answer(0, deadline, |said| match said {
            FromProgram::Pong(of) if of == id => Ok(()),
            _ => Err(format!("no answer to ping {id}")),
        })
    }

    /// The next message that is not for the log.
    fn answer<T>(
        &mut self,
        most: usize,
        deadline: Deadline,
        take: impl FnOnce(FromProgram) -> Result<T, String>,
    ) -> Result<T, LinkError> {
        loop {
            let body = self.read(deadline)?;
            let shown = Shown::of(&body);
            let text = frames::read(self.encoding, body);
            match text.map_err(|e| e.to_string()).and_then(|text| messages::read(&text, most)) {
                Ok(FromProgram::Log(line)) => self.lines.tell(&self.label, &line),
                Ok(said) => return take(said).map_err(|why| LinkError::Bad { why, shown }),
                Err(why) => return Err(LinkError::Bad { why, shown }),
            }
        }
    }

    fn write(&mut self, text: &str, deadline: Deadline) -> Result<(), LinkError> {
        let frame = frames::write(self.encoding, text)?;
        let mut rest = frame.as_slice();
        while !rest.is_empty() {
            self.stream.set_write_timeout(Some(deadline.left()?)).map_err(LinkError::Io)?;
            match self.stream.write(rest) {
                Ok(0) => return Err(LinkError::Closed),
                Ok(bytes) => rest = &rest[bytes..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(deadline.failed(error)),
            }
        }
        Ok(())
    }

    /// The body of the next frame.
    fn read(&mut self, deadline: Deadline) -> Result<Vec<u8>, LinkError> {
        while self.inbox.len() < HEAD_BYTES {
            self.receive(deadline)?;
        }
        let head = [self.inbox[0], self.inbox[1], self.inbox[2], self.inbox[3]];
        let bad = |e: FrameError| LinkError::Bad { why: e.to_string(), shown: Shown::of(&self.inbox) };
        let end = HEAD_BYTES + frames::length(head).map_err(bad)?;
        while self.inbox.len() < end {
            self.receive(deadline)?;
        }
        let rest = self.inbox.split_off(end);
        let mut frame = std::mem::replace(&mut self.inbox, rest);
        frame.drain(..HEAD_BYTES);
        Ok(frame)
    }

    fn receive(&mut self, deadline: Deadline) -> Result<(), LinkError> {
        let mut piece = [0; READ_BYTES];
        loop {
            self.stream.set_read_timeout(Some(deadline.left()?)).map_err(LinkError::Io)?;
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(LinkError::Closed),
                Ok(bytes) => {
                    self.inbox.extend_from_slice(&piece[..bytes]);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(deadline.failed(error)),
            }
        }
    }
}

//! A cheap WebSocket client, because the generator shares the machine with what it measures. All sessions read into one shared
//! buffer, and everything that is due is sent with one system call. Every frame is a whole message, both ways: all measured
//! servers do that. tungstenite does the handshake and the headers of frames.

use std::fmt;
use std::io::{self, Cursor, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::client::{Request, generate_request};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::limits::{HANDSHAKE_BYTES_MAX, MESSAGE_BYTES_MAX, WRITE_BYTES_MAX};

/// What masks every payload. The mask is there for proxies that mistake payload for requests; a fixed one serves on the way
/// to a gateway.
const MASK: [u8; 4] = [0x5a, 0xc3, 0x96, 0x0f];

/// A message of the server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    /// Text, or binary.
    pub(crate) is_text: bool,
    /// What it says.
    pub(crate) payload: &'a [u8],
}

/// The server has closed a connection.
#[derive(Debug)]
pub(crate) struct Closed {
    /// None when its close frame has none.
    pub(crate) code: Option<u16>,
    pub(crate) reason: String,
}

impl std::error::Error for Closed {}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "closed by the gateway: {code} {}", self.reason),
            None => f.write_str("closed by the gateway: no code"),
        }
    }
}

/// The server has refused a handshake.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    /// The status with its words.
    pub(crate) line: String,
    pub(crate) body: String,
}

impl std::error::Error for Refused {}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.body.chars().take(300).collect::<String>())
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    /// The beginning of a message whose end is still on its way.
    carry: Vec<u8>,
    /// Bytes that the kernel has not accepted yet.
    out: Vec<u8>,
}

impl Socket {
    /// Connects, and upgrades by `request`.
    pub(crate) async fn connect(request: Request) -> Result<Self> {
        let host = request.uri().authority().context("a url without a host")?.as_str().to_owned();
        let mut stream = TcpStream::connect(&host).await?;
        stream.set_nodelay(true)?;
        let (request, key) = generate_request(request)?;
        stream.write_all(&request).await?;
        let mut answer = Vec::new();
        let head = loop {
            ensure!(answer.len() < HANDSHAKE_BYTES_MAX, "the answer to the handshake is longer than {HANDSHAKE_BYTES_MAX} bytes");
            if stream.read_buf(&mut answer).await? == 0 {
                bail!(ended("the connection ended within the handshake"));
            }
            if let Some(at) = answer.windows(4).position(|end| end == b"\r\n\r\n") {
                break at + 4;
            }
        };
        let mut carry = answer.split_off(head);
        let head = String::from_utf8_lossy(&answer).into_owned();
        let (status, headers) = head.split_once("\r\n").unwrap_or((&head, ""));
        let number = status.split(' ').nth(1).and_then(|number| number.parse().ok()).unwrap_or(0);
        if number != 101 {
            let length = header(headers, "content-length").and_then(|len| len.parse().ok()).unwrap_or(0);
            while carry.len() < length && carry.len() < HANDSHAKE_BYTES_MAX && stream.read_buf(&mut carry).await? > 0 {}
            let (line, body) = (status.trim_start_matches("HTTP/1.1 ").to_owned(), String::from_utf8_lossy(&carry).into_owned());
            bail!(Refused { status: number, line, body });
        }
        let accepted = header(headers, "sec-websocket-accept") == Some(&derive_accept_key(key.as_bytes()));
        ensure!(accepted, "the server did not accept the handshake's key");
        Ok(Self { stream, carry, out: Vec::new() })
    }

    /// Puts one message behind what is to be written; false when the server reads too little and this one is left out.
    pub(crate) fn queue(&mut self, is_text: bool, payload: &[u8]) -> bool {
        let fits = self.out.len() < WRITE_BYTES_MAX;
        if fits {
            frame(&mut self.out, OpCode::Data(if is_text { Data::Text } else { Data::Binary }), payload);
        }
        fits
    }

    /// Writes what the kernel takes now.
    pub(crate) fn write(&mut self) -> io::Result<()> {
        let mut written = 0;
        let result = loop {
            if written == self.out.len() {
                break Ok(());
            }
            match self.stream.try_write(&self.out[written..]) {
                Ok(0) => break Err(ErrorKind::WriteZero.into()),
                Ok(n) => written += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break Ok(()),
                Err(e) => break Err(e),
            }
        };
        if written == self.out.len() {
            self.out.clear();
        } else {
            self.out.drain(..written);
        }
        result
    }

    /// Whether the kernel has not taken everything.
    pub(crate) fn owes(&self) -> bool {
        !self.out.is_empty()
    }

    /// Writes the rest as soon as the kernel takes more; Ready when it has everything.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.owes() {
            std::task::ready!(self.stream.poll_write_ready(cx))?;
            self.write()?;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads what is there and tells every message of it; Pending when there is no more, which it always says at last.
    ///
    /// # Errors
    /// When the connection ends, breaks or is closed by the server.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        mut told: impl FnMut(Message<'_>) -> Result<()>,
    ) -> Poll<Result<()>> {
        loop {
            let mut buffer = ReadBuf::new(scratch);
            std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            let read = buffer.filled();
            if read.is_empty() {
                return Poll::Ready(Err(ended("the connection ended").into()));
            }
            if self.carry.is_empty() {
                let used = messages(read, &mut self.out, &mut told)?;
                self.carry.extend_from_slice(&read[used..]);
            } else {
                let mut all = std::mem::take(&mut self.carry);
                all.extend_from_slice(read);
                let used = messages(&all, &mut self.out, &mut told)?;
                all.drain(..used);
                self.carry = all;
            }
        }
    }

    /// Tells what came along with the handshake.
    pub(crate) fn carried(&mut self, mut told: impl FnMut(Message<'_>) -> Result<()>) -> Result<()> {
        let used = messages(&self.carry, &mut self.out, &mut told)?;
        self.carry.drain(..used);
        Ok(())
    }

    /// Says goodbye, and waits until the server has closed.
    pub(crate) async fn close(&mut self) -> io::Result<()> {
        frame(&mut self.out, OpCode::Control(Control::Close), &1000u16.to_be_bytes());
        self.stream.write_all(&self.out).await?;
        let mut rest = [0; 1024];
        while self.stream.read(&mut rest).await? > 0 {}
        Ok(())
    }
}

/// The other side has gone without a word.
fn ended(what: &'static str) -> io::Error {
    io::Error::new(ErrorKind::UnexpectedEof, what)
}

/// A header's value; names are compared without case.
fn header<'a>(headers: &'a str, name: &str) -> Option<&'a str> {
    headers.lines().filter_map(|line| line.split_once(':')).find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim())
}

/// Tells the whole messages of `bytes` and answers pings into `out`; how much of it that was.
fn messages(bytes: &[u8], out: &mut Vec<u8>, told: &mut impl FnMut(Message<'_>) -> Result<()>) -> Result<usize> {
    let mut used = 0;
    loop {
        let mut cursor = Cursor::new(&bytes[used..]);
        let Some((header, length)) = FrameHeader::parse(&mut cursor)? else { return Ok(used) };
        ensure!(length <= MESSAGE_BYTES_MAX as u64, "a message has {length} bytes: the limit is {MESSAGE_BYTES_MAX}");
        ensure!(header.is_final && header.mask.is_none(), "a message is fragmented or masked: the measured servers send neither");
        let begin = used + usize::try_from(cursor.position())?;
        let Some(payload) = bytes.get(begin..begin + usize::try_from(length)?) else { return Ok(used) };
        used = begin + payload.len();
        match header.opcode {
            OpCode::Data(kind @ (Data::Text | Data::Binary)) => told(Message { is_text: kind == Data::Text, payload })?,
            OpCode::Control(Control::Ping) => frame(out, OpCode::Control(Control::Pong), payload),
            OpCode::Control(Control::Pong) => {}
            OpCode::Control(Control::Close) => bail!(closed(payload)),
            other => bail!("a message of the kind {other:?}: the measured servers do not send it"),
        }
    }
}

/// Appends one frame, whole and masked.
pub(crate) fn frame(out: &mut Vec<u8>, opcode: OpCode, payload: &[u8]) {
    let header = FrameHeader { is_final: true, opcode, mask: Some(MASK), ..FrameHeader::default() };
    // Writing into a Vec cannot fail.
    let _ = header.format(payload.len() as u64, out);
    let begin = out.len();
    out.extend_from_slice(payload);
    for (at, byte) in out[begin..].iter_mut().enumerate() {
        *byte ^= MASK[at % 4];
    }
}

/// What a close frame says.
fn closed(payload: &[u8]) -> Closed {
    match payload.split_first_chunk() {
        Some((code, why)) => Closed { code: Some(u16::from_be_bytes(*code)), reason: String::from_utf8_lossy(why).into_owned() },
        None => Closed { code: None, reason: String::new() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Told = Vec<(bool, Vec<u8>)>;

    fn all(bytes: &[u8]) -> (Result<usize>, Told, Vec<u8>) {
        let (mut got, mut out) = (Vec::new(), Vec::new());
        let used = messages(bytes, &mut out, &mut |m| {
            got.push((m.is_text, m.payload.to_vec()));
            Ok(())
        });
        (used, got, out)
    }

    #[test]
    fn messages_are_found_wherever_the_bytes_are_cut() {
        let long = vec![7; 300];
        let bytes = [&[0x82, 2, 1, 2, 0x81, 1, b'x', 0x89, 1, 9, 0x82, 126, 1, 44][..], &long].concat();
        for cut in 0..=bytes.len() {
            let (used, mut got, mut pong) = all(&bytes[..cut]);
            let used = used.expect("no fault");
            let (rest, more, later) = all(&bytes[used..]);
            assert_eq!(rest.expect("no fault"), bytes.len() - used);
            got.extend(more);
            pong.extend(later);
            assert_eq!(got, [(false, vec![1, 2]), (true, vec![b'x']), (false, long.clone())], "cut at {cut}");
            assert_eq!(pong, [0x8a, 0x81, MASK[0], MASK[1], MASK[2], MASK[3], 9 ^ MASK[0]], "a ping is answered once");
        }
    }

    #[test]
    fn what_servers_do_not_send_is_an_error() {
        for (bytes, named) in [
            (&[0x02, 1, 1][..], "fragmented"),
            (&[0x82, 0x81, 0, 0, 0, 0, 1], "masked"),
            (&[0x80, 1, 1], "Continue"),
            (&[0x88, 4, 0x11, 0x38, b'n', b'o'], "closed by the gateway: 4408 no"),
            (&[0x88, 0], "no code"),
            (&[0x82, 127, 0, 0, 0, 1, 0, 0, 0, 0], "4294967296 bytes"),
        ] {
            let error = all(bytes).0.expect_err(named).to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn headers_are_found_without_case() {
        let headers = "Upgrade: websocket\r\nSec-WebSocket-Accept:  a:b=\r\n";
        assert_eq!(header(headers, "sec-websocket-accept"), Some("a:b="));
        assert_eq!(header(headers, "accept"), None);
    }
}

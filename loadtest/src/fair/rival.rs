//! The two rivals. The calling thread writes and reads their sockets itself, without a runtime between it and the kernel.

use std::io::{self, ErrorKind, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use lasthit::internals::clock::monotonic_ns;
use tokio_tungstenite::tungstenite::{self, HandshakeError, Message, WebSocket};

use super::score::Answer;
use crate::limits::{BURST_SEND, CONNECT_TIMEOUT, GAP_SPIN, VERDICT_TIMEOUT};
use crate::speak::dialect::Dialect;

/// One of them.
pub(crate) struct Rival {
    socket: WebSocket<TcpStream>,
    dialect: Dialect,
    /// The identity of its gateway, where it says one.
    gateway: Option<String>,
}

impl Rival {
    /// Connects and, where there is one, waits for the welcome.
    pub(crate) fn join(dialect: Dialect, url: &str, room: &str, player: &str) -> Result<Self> {
        let join = || {
            let host = url.trim_start_matches("ws://").trim_end_matches('/');
            let stream = TcpStream::connect(host)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(CONNECT_TIMEOUT))?;
            let request = dialect.request(url, room, player)?;
            let (mut socket, _) = tungstenite::client::client(request, stream).map_err(|e| match e {
                HandshakeError::Failure(e) => anyhow!("{e}"),
                HandshakeError::Interrupted(_) => anyhow!("no answer within {CONNECT_TIMEOUT:?}"),
            })?;
            let mut gateway = None;
            while dialect.is_lasthit() && gateway.is_none() {
                let message = socket.read()?;
                match &message {
                    Message::Close(_) => bail!("closed before the welcome"),
                    Message::Text(_) | Message::Binary(_) => gateway = Some(gateway_of(dialect, &message)?),
                    _ => {}
                }
            }
            socket.get_mut().set_read_timeout(Some(VERDICT_TIMEOUT))?;
            Ok(Self { socket, dialect, gateway })
        };
        join().with_context(|| format!("{url} cannot be joined as {player}"))
    }

    /// Whether both play through one gateway, as far as it is known.
    pub(super) fn is_beside(&self, other: &Self) -> bool {
        self.gateway.is_some() && self.gateway == other.gateway
    }

    /// One frame, with one system call.
    pub(crate) fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.socket.get_mut().write_all(frame)
    }

    /// The next message; None when none came within [`VERDICT_TIMEOUT`].
    pub(crate) fn next(&mut self) -> Result<Option<Message>> {
        let message = match self.socket.read() {
            Ok(message) => message,
            Err(tungstenite::Error::Io(e)) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
            Err(e) => return Err(anyhow!("a rival's connection broke: {e}")),
        };
        if let Message::Close(frame) = &message {
            bail!("a rival was closed by its gateway: {frame:?}");
        }
        Ok(Some(message))
    }

    /// Reads until every one of `ids` was answered, and returns the answer to the first, with the moment at which it had
    /// been read; None when it does not come.
    pub(super) fn answer(&mut self, ids: &[String]) -> Result<Option<(Answer, u64)>> {
        let deadline = monotonic_ns() + nanos(VERDICT_TIMEOUT);
        let (mut first, mut left) = (None, ids.len());
        while left > 0 && monotonic_ns() < deadline {
            let Some(message) = self.next()? else { break };
            let Some(answer) = Answer::of(self.dialect, &message)? else { continue };
            if let Some(at) = ids.iter().position(|id| *id == answer.id) {
                left -= 1;
                if at == 0 {
                    first = Some((answer, monotonic_ns()));
                }
            }
        }
        Ok(first)
    }
}

/// When two sends really happened: before and after each, in nanoseconds of the monotonic clock. The kernel stamps a
/// message inside its send, so that the first's stamp lies between its two, and so does the second's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) first: (u64, u64),
    pub(super) second: (u64, u64),
}

/// A rival's hit, in one piece or two: `lead_ns` lie between them, or a little more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hit<'a> {
    head: &'a [u8],
    tail: &'a [u8],
    lead_ns: u64,
}

impl<'a> Hit<'a> {
    /// In one piece.
    pub(super) fn whole(frame: &'a [u8]) -> Self {
        Self { head: &[], tail: frame, lead_ns: 0 }
    }

    /// In two.
    pub(super) fn split(frame: &'a [u8], lead_ns: u64) -> Self {
        let (head, tail) = frame.split_at(frame.len() / 2);
        Self { head, tail, lead_ns }
    }
}

/// Sends what comes before the hits' ends, the longer lead first: none of it lies between the two ends, so that the gap is
/// that of two sends in any case.
fn send_heads(first: &mut Rival, second: &mut Rival, hits: &[Hit<'_>; 2], gap: Gap) -> io::Result<()> {
    if hits.iter().all(|hit| hit.head.is_empty()) {
        return Ok(());
    }
    let leads = [hits[0].lead_ns, hits[1].lead_ns.saturating_sub(gap.ns)];
    let mut heads = [(leads[0], first, hits[0].head), (leads[1], second, hits[1].head)];
    heads.sort_by_key(|(lead_ns, ..)| std::cmp::Reverse(*lead_ns));
    let tails_at = monotonic_ns() + heads[0].0;
    for (lead_ns, rival, head) in heads {
        gap.wait_until(tails_at - lead_ns);
        rival.send(head)?;
    }
    gap.wait_until(tails_at);
    Ok(())
}

/// What lies between two sends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gap {
    /// How much.
    pub(crate) ns: u64,
    /// Whether the thread may sleep through most of it, so that whoever the first send woke has the core: only one that runs
    /// before all others is back in time.
    pub(crate) sleeps: bool,
}

impl Gap {
    /// Returns at that moment.
    pub(crate) fn wait_until(self, at_ns: u64) {
        loop {
            let left = at_ns.saturating_sub(monotonic_ns());
            if left == 0 {
                return;
            }
            if self.sleeps && left >= 2 * nanos(GAP_SPIN) {
                std::thread::sleep(Duration::from_nanos(left) - GAP_SPIN);
            }
            std::hint::spin_loop();
        }
    }
}

/// Sends both hits, `gap` from the end of the first send to the beginning of the second, and behind each hit its burst
/// as soon as that is possible without moving the other's hit. `hits` and `bursts`: the first's, the second's.
pub(super) fn race(rivals: [&mut Rival; 2], hits: [Hit<'_>; 2], bursts: [&[Vec<u8>]; 2], gap: Gap) -> io::Result<Sent> {
    let [first, second] = rivals;
    let mut behind = bursts[0].iter();
    send_heads(first, second, &hits, gap)?;
    let before = monotonic_ns();
    first.send(hits[0].tail)?;
    let after = monotonic_ns();
    let due = after + gap.ns;
    while monotonic_ns() + nanos(BURST_SEND) < due
        && let Some(frame) = behind.next()
    {
        first.send(frame)?;
    }
    gap.wait_until(due);
    let now = monotonic_ns();
    second.send(hits[1].tail)?;
    let sent = Sent { first: (before, after), second: (now, monotonic_ns()) };
    for frame in behind {
        first.send(frame)?;
    }
    for frame in bursts[1] {
        second.send(frame)?;
    }
    Ok(sent)
}

impl Sent {
    /// Nanoseconds between the sends: the least that can lie between the two stamps.
    pub(super) fn gap_ns(&self) -> u64 {
        self.second.0.saturating_sub(self.first.1)
    }

    /// Whether the gap is the wanted one: nothing interrupted the thread between the sends, nor inside either of them for
    /// longer than that.
    pub(super) fn is_vouched_for(&self, wanted_ns: u64) -> bool {
        let far = nanos(crate::limits::GAP_ERROR_MAX).max(wanted_ns / 2);
        let long = nanos(crate::limits::RIVAL_SEND_MAX).max(wanted_ns / 2);
        self.gap_ns().abs_diff(wanted_ns) <= far && self.first.1 - self.first.0 <= long && self.second.1 - self.second.0 <= long
    }
}

/// The gateway of a welcome: its session is named after it.
fn gateway_of(dialect: Dialect, welcome: &Message) -> Result<String> {
    let frame = match welcome {
        Message::Text(text) => dialect.hear(true, text.as_bytes())?,
        other => dialect.hear(
            false,
            match other {
                Message::Binary(bytes) => bytes,
                _ => &[],
            },
        )?,
    };
    Ok(frame.session.rsplit_once('-').map_or_else(String::new, |(gateway, _)| gateway.to_owned()))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_hit_is_the_whole_frame() {
        for frame in [&b"abcde"[..], b"ab", b"a", b""] {
            let hit = Hit::split(frame, 7);
            assert_eq!([hit.head, hit.tail].concat(), frame);
        }
        assert!(Hit::whole(b"ab").head.is_empty());
        assert!(!Hit::split(b"ab", 7).head.is_empty() && !Hit::split(b"ab", 7).tail.is_empty());
    }

    #[test]
    fn a_gap_that_was_not_kept_is_not_vouched_for() {
        let sent = |first: u64, gap: u64, second: u64| Sent { first: (0, first), second: (first + gap, first + gap + second) };
        assert!(sent(8_000, 0, 8_000).is_vouched_for(0));
        assert!(sent(8_000, 19_000, 8_000).is_vouched_for(0));
        assert!(!sent(8_000, 21_000, 8_000).is_vouched_for(0));
        assert!(sent(8_000, 2_900_000, 8_000).is_vouched_for(2_000_000));
        assert!(!sent(8_000, 3_100_000, 8_000).is_vouched_for(2_000_000));
        assert!(!sent(900_000, 0, 8_000).is_vouched_for(0), "interrupted in the first send");
        assert!(!sent(8_000, 0, 900_000).is_vouched_for(0), "interrupted in the second send");
    }
}

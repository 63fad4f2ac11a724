//! When bytes reached the machine: a socket that remembers the kernel's stamp of its last read.
//!
//! A message is stamped by the read that delivered its last byte. The kernel keeps one stamp for bytes that it has merged, so
//! the stamp is exact only if the message ended where the socket's readable bytes ended; otherwise its uncertainty reaches
//! back to when the socket was last seen empty. A read whose stamp cannot be used (none came, not to be believed, the wall
//! clock was stepped since the socket was last drained) is stamped with the time of reading, and flagged.
//!
//! A segment that overtook an earlier one is stamped when it came, and readable only when the earlier one is there: no stamp
//! lies below the gateway's last sweep ([`Drains::swept`]) or the session's previous arrival.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use metrics::Histogram;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::frames::Frames;
use crate::clock::{Clock, Reading, monotonic_ns};
use crate::limits::ACCEPT_BACKLOG;
use crate::metrics::STAMP_AGE_SECONDS;
use crate::types::{Arrival, Flags};

/// Whether this system stamps what its sockets receive; where it does not, the time of reading serves.
pub const KERNEL_STAMPS: bool = cfg!(target_os = "linux");

/// What a gateway's sessions and its sweep know of each other. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Drains(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    undrained: AtomicUsize,
    floor_ns: AtomicU64,
}

impl Drains {
    /// Sessions that were read, but not to "would block". While it is not 0, a sweep does not cover all sessions.
    #[must_use]
    pub fn undrained(&self) -> usize {
        self.0.undrained.load(Ordering::Acquire)
    }

    /// Declares that everything that had arrived by `floor_ns` has been read: the start of a complete sweep, less the guard
    /// for what was still on its way through the kernel. Whatever is read from now on is stamped no earlier, and its
    /// uncertainty reaches back no further.
    pub fn swept(&self, floor_ns: u64) {
        self.0.floor_ns.fetch_max(floor_ns, Ordering::AcqRel);
    }

    /// What was declared last.
    #[must_use]
    pub fn floor_ns(&self) -> u64 {
        self.0.floor_ns.load(Ordering::Acquire)
    }

    fn add(&self) {
        self.0.undrained.fetch_add(1, Ordering::AcqRel);
    }

    fn remove(&self) {
        self.0.undrained.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Opens the gateway's listener: its accepted sockets bear kernel stamps where there are any.
///
/// # Errors
/// When the address cannot be bound or listened on.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    #[cfg(target_os = "linux")]
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::ReceiveTimestampns, &true)?;
    socket.bind(address)?;
    socket.listen(ACCEPT_BACKLOG)
}

/// What is known about the last read.
#[derive(Debug, Clone, Copy)]
struct Last {
    ns: u64,
    uncertainty_ns: u64,
    flags: Flags,
    /// When the socket was last known to be empty before this read.
    empty_ns: u64,
    /// The gateway's floor at this read: an earlier stamp is that of a segment that waited for one before it.
    floor_ns: u64,
    /// Whether this read took all that there was.
    emptied: bool,
}

/// A session's socket.
#[derive(Debug)]
pub struct StampedStream {
    tcp: TcpStream,
    clock: Clock,
    drains: Drains,
    frames: Frames,
    last: Last,
    /// The session's previous arrival: stamps of one session never go back.
    previous_ns: u64,
    /// A moment at which everything received before it had been read.
    empty_ns: u64,
    /// Steps of the wall clock that were known when the socket was last drained.
    steps: u32,
    /// When the last read began and the steps known then, if it took all that there was. Whoever reads again has seen what
    /// it brought: only then is the socket drained.
    exhausted: Option<(u64, u32)>,
    drained: bool,
    /// Whether this is a session, whose unread bytes hold up the sweep.
    counted: bool,
    age: Histogram,
}

impl StampedStream {
    /// Takes an accepted socket over. What came before it was accepted is as uncertain as it can be told: that concerns
    /// only the upgrade and what was sent along with it, all of which is stamped no earlier than the session's Open.
    ///
    /// # Errors
    /// When the socket is already broken.
    pub fn new(tcp: TcpStream, clock: Clock, drains: Drains) -> io::Result<Self> {
        tcp.set_nodelay(true)?;
        let now = monotonic_ns();
        let last = Last { ns: now, uncertainty_ns: 0, flags: Flags::READ_TIME, empty_ns: now, floor_ns: 0, emptied: true };
        let steps = clock.steps();
        let frames = Frames::default();
        let age = metrics::histogram!(STAMP_AGE_SECONDS);
        let (drained, counted, exhausted) = (true, false, None);
        Ok(Self { tcp, clock, drains, frames, last, previous_ns: 0, empty_ns: now, steps, exhausted, drained, counted, age })
    }

    /// Makes a session of the connection, once its upgrade was read. `rest` is what was read behind the request. From here
    /// on the bytes are frames, and unread ones count in [`Drains`].
    ///
    /// Returns when the request arrived.
    pub fn begin_session(&mut self, rest: &[u8]) -> Arrival {
        self.counted = true;
        if !self.drained {
            self.drains.add();
        }
        self.frames.follow(rest);
        self.stamp(rest.is_empty())
    }

    /// When the message arrived that was just taken from this stream's bytes: to be called once for each, in their order.
    pub fn arrival(&mut self) -> Arrival {
        let last = self.frames.take_message();
        self.stamp(last)
    }

    fn stamp(&mut self, ended_the_read: bool) -> Arrival {
        let last = self.last;
        let mut arrival = Arrival { flags: last.flags, ..Arrival::at(last.ns, last.uncertainty_ns) };
        let exact = ended_the_read && last.emptied;
        // The read time is as uncertain already.
        if !(exact || last.flags.has(Flags::READ_TIME)) {
            arrival.uncertainty_ns = arrival.uncertainty_ns.saturating_add(last.ns.saturating_sub(last.empty_ns));
        }
        self.after_previous(arrival.clamped_to(last.floor_ns))
    }

    /// When the connection's end was noticed: the kernel does not stamp it, so it is only known to have come after the
    /// socket was last read empty.
    pub fn lost(&mut self) -> Arrival {
        let now = monotonic_ns();
        let empty_ns = self.empty_ns.max(self.drains.floor_ns());
        let arrival = Arrival::at(now, now.saturating_sub(empty_ns));
        self.after_previous(Arrival { flags: Flags::READ_TIME, ..arrival })
    }

    /// The moment of something that the gateway itself does to this session.
    pub fn now(&mut self) -> Arrival {
        self.after_previous(Arrival::at(monotonic_ns(), 0))
    }

    fn after_previous(&mut self, mut arrival: Arrival) -> Arrival {
        let back = self.previous_ns.saturating_sub(arrival.ns);
        if back > 0 && back <= arrival.uncertainty_ns {
            // Only the clock's conversion got better since: no more than it owned to.
            arrival.ns = self.previous_ns;
            arrival.uncertainty_ns += back;
        }
        let arrival = arrival.clamped_to(self.previous_ns);
        self.previous_ns = arrival.ns;
        arrival
    }

    /// Stops the session's unread bytes from holding up the sweep: its last event is behind it.
    pub fn end_session(&mut self) {
        self.set_drained(true);
        self.counted = false;
    }

    fn set_drained(&mut self, drained: bool) {
        if self.counted && drained != self.drained {
            if drained {
                self.drains.remove();
            } else {
                self.drains.add();
            }
        }
        self.drained = drained;
    }

    /// Remembers a read that began at `before_ns` and got `bytes`.
    fn note(&mut self, bytes: &[u8], before_ns: u64, emptied: bool, reading: Reading) {
        let floor_ns = self.drains.floor_ns();
        let empty_ns = self.empty_ns.max(floor_ns);
        // A stamp from before a step cannot be told from one behind it until the socket was drained in between.
        let (ns, uncertainty_ns, flags) = match reading.kernel_ns.filter(|_| reading.steps == self.steps) {
            Some(ns) => (ns, reading.uncertainty_ns, Flags::default()),
            None => (reading.read_ns, reading.read_ns.saturating_sub(empty_ns), Flags::READ_TIME),
        };
        self.last = Last { ns, uncertainty_ns, flags, empty_ns, floor_ns, emptied };
        if emptied {
            self.empty_ns = before_ns;
        }
        if self.counted {
            self.frames.follow(bytes);
            self.age.record(Duration::from_nanos(reading.read_ns.saturating_sub(self.last.ns)));
        }
        self.set_drained(false);
    }
}

impl Drop for StampedStream {
    fn drop(&mut self) {
        self.end_session();
    }
}

impl AsyncRead for StampedStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if let Some((empty_ns, steps)) = this.exhausted.take() {
            (this.empty_ns, this.steps) = (empty_ns, steps);
            this.set_drained(true);
        }
        loop {
            ready!(this.tcp.poll_read_ready(cx))?;
            let (before_ns, steps) = (monotonic_ns(), this.clock.steps());
            let space = buf.initialize_unfilled();
            let mut short = None;
            let read = this.tcp.try_io(Interest::READABLE, || {
                let (count, stamp) = kernel::receive(&this.tcp, space)?;
                if count == 0 || count == space.len() {
                    return Ok((count, stamp));
                }
                // It took all that there was, and what comes next makes the socket ready again (epoll(7), question 9): said
                // here, that spares the read that would find nothing.
                short = Some((count, stamp));
                Err(io::ErrorKind::WouldBlock.into())
            });
            match short.map_or(read, Ok) {
                Ok((0, _)) => {
                    this.set_drained(true);
                    return Poll::Ready(Ok(()));
                }
                Ok((count, stamp)) => {
                    let reading = this.clock.read(stamp);
                    // A read that filled its buffer may have taken all there was, too.
                    let emptied = count < space.len() || kernel::is_empty(&this.tcp);
                    this.exhausted = short.map(|_| (before_ns, steps));
                    this.note(&space[..count], before_ns, emptied, reading);
                    buf.advance(count);
                    if this.frames.too_fragmented() {
                        return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "message in too many fragments")));
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    (this.empty_ns, this.steps) = (before_ns, steps);
                    this.set_drained(true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for StampedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

mod kernel {
    use std::io;
    use std::os::fd::AsRawFd;

    use nix::errno::Errno;
    use nix::sys::socket::{MsgFlags, recv};
    use tokio::net::TcpStream;

    /// Reads, and says what the wall clock was when the last of it was received.
    #[cfg(target_os = "linux")]
    pub(super) fn receive(tcp: &TcpStream, space: &mut [u8]) -> io::Result<(usize, Option<i128>)> {
        use nix::sys::socket::{ControlMessageOwned, cmsg_space, recvmsg};
        use nix::sys::time::TimeSpec;

        let mut control = [0u8; const { cmsg_space::<TimeSpec>() }];
        let mut slices = [io::IoSliceMut::new(space)];
        let message = recvmsg::<()>(tcp.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
        // A cut control message is an error of nix's, and then there is no stamp.
        let stamp = message.cmsgs().ok().and_then(|mut all| {
            all.find_map(|one| match one {
                ControlMessageOwned::ScmTimestampns(at) => {
                    Some(i128::from(at.tv_sec()) * 1_000_000_000 + i128::from(at.tv_nsec()))
                }
                _ => None,
            })
        });
        Ok((message.bytes, stamp))
    }

    /// Reads; there are no stamps here.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn receive(tcp: &TcpStream, space: &mut [u8]) -> io::Result<(usize, Option<i128>)> {
        Ok((recv(tcp.as_raw_fd(), space, MsgFlags::MSG_DONTWAIT)?, None))
    }

    /// Whether there is nothing to read right now.
    pub(super) fn is_empty(tcp: &TcpStream) -> bool {
        let peeked = recv(tcp.as_raw_fd(), &mut [0u8; 1], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_PEEK);
        matches!(peeked, Err(Errno::EAGAIN) | Ok(0))
    }
}

#[cfg(test)]
#[path = "arrival_tests.rs"]
mod tests;

//! When bytes reached the machine: a socket that keeps the kernel's stamp of its last read.
//!
//! The read that delivered a message's last byte stamps the message. The kernel keeps one stamp for bytes that it has merged.
//! So the stamp is exact only if the message ended where the socket's readable bytes ended. Otherwise its uncertainty reaches
//! back to when the socket was last seen empty (rule S3). A read may have no usable stamp: none came, it is implausible, or the
//! wall clock was stepped since the socket was last drained. Then the time of reading is the stamp, and it is flagged.
//!
//! A segment that overtook an earlier one is stamped when it came, but is readable only once the earlier one is there. No stamp
//! is below the gateway's last sweep ([`Drains::swept`]), below the socket's last empty moment, or below the session's previous
//! arrival. A stamp that is more than [`OVERTAKING_MAX`] old is used only if, by the kernel's count, no segment has overtaken
//! another since the socket last held nothing. Urgent data can hide the bytes after it, so it ends the session.

mod kernel;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use metrics::Histogram;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use self::kernel::Received;
use super::frames::Frames;
use crate::clock::{Clock, Reading, monotonic_ns};
use crate::limits::{ACCEPT_BACKLOG, DOOR_BACKLOG, OVERTAKING_MAX, SWEEP_GUARD};
use crate::metrics::STAMP_AGE_SECONDS;
use crate::types::{Arrival, Flags};

/// Whether this system stamps what its sockets receive. Elsewhere the time of reading is the stamp.
pub const KERNEL_STAMPS: bool = cfg!(target_os = "linux");

/// Why a session that sends urgent data is closed.
const URGENT: &str = "tcp urgent data hides what follows it: send none";

/// What a gateway's sessions and its sweep share. Clones refer to the same state.
#[derive(Debug, Clone)]
pub struct Drains(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    undrained: AtomicUsize,
    floor_ns: AtomicU64,
    guard_ns: u64,
}

impl Default for Drains {
    fn default() -> Self {
        Self::new(SWEEP_GUARD)
    }
}

impl Drains {
    /// The state of a gateway without sessions. `guard` is the longest time for which bytes are stamped and not yet readable.
    #[must_use]
    pub fn new(guard: Duration) -> Self {
        let guard_ns = u64::try_from(guard.as_nanos()).unwrap_or(u64::MAX);
        Self(Arc::new(Shared { undrained: AtomicUsize::new(0), floor_ns: AtomicU64::new(0), guard_ns }))
    }

    /// The lowest stamp that is still possible when everything that was readable at `ns` has been read.
    #[must_use]
    pub fn floor_of(&self, ns: u64) -> u64 {
        ns.saturating_sub(self.0.guard_ns)
    }

    /// How many sessions were not read to "would block". Unless it is 0, a sweep does not cover all sessions.
    #[must_use]
    pub fn undrained(&self) -> usize {
        self.0.undrained.load(Ordering::Acquire)
    }

    /// Declares that everything that had arrived by `floor_ns` has been read. That is the start of a complete sweep, less the
    /// guard. From now on no stamp is lower, and no uncertainty reaches further back.
    pub fn swept(&self, floor_ns: u64) {
        self.0.floor_ns.fetch_max(floor_ns, Ordering::AcqRel);
    }

    /// The highest floor that was declared.
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

/// Opens the gateway's listener. The sockets that it accepts have kernel stamps, if the system has them.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    kernel::prepare(&socket)?;
    socket.bind(address)?;
    socket.listen(ACCEPT_BACKLOG)
}

/// Opens a listener whose connections other processes serve. No runtime watches it.
pub(crate) fn listen_for_others(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    kernel::prepare(&socket)?;
    bind(&socket, &address)?;
    listen(&socket, DOOR_BACKLOG)?;
    Ok(socket.into())
}

/// Has the connections of a listener that another process opened stamped. No runtime watches it, and it waits for none.
pub(crate) fn stamp_others(listener: &std::net::TcpListener) -> io::Result<()> {
    kernel::prepare(listener)?;
    listener.set_nonblocking(true)
}

/// Takes over a connection that another process accepted. It is stamped from here on, if its listener did not care for that.
pub(crate) fn adopt(tcp: std::net::TcpStream) -> io::Result<TcpStream> {
    kernel::prepare(&tcp)?;
    tcp.set_nonblocking(true)?;
    TcpStream::from_std(tcp)
}

/// Whether a connection stays on this host, so that it passes no network card.
fn is_local(peer: IpAddr, own: IpAddr) -> bool {
    peer.to_canonical().is_loopback() || peer == own
}

/// The last read of a socket.
#[derive(Debug, Clone, Copy)]
struct Last {
    ns: u64,
    uncertainty_ns: u64,
    flags: Flags,
    /// When the socket was last known to be empty before this read.
    empty_ns: u64,
    /// The lowest stamp that it may have. A lower one is that of a segment that waited for an earlier one.
    floor_ns: u64,
    /// Whether it took all bytes that were there.
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
    /// The session's previous arrival. Stamps of one session never go back.
    previous_ns: u64,
    /// The last moment at which everything received so far had been read; at first, the moment of acceptance.
    empty_ns: u64,
    /// The lowest stamp that the next read may have; at first 0.
    floor_ns: u64,
    /// The kernel's count of segments that overtook others, when the socket was last known to hold nothing.
    overtaking: u32,
    /// The steps of the wall clock that were known when the socket was last drained.
    steps: u32,
    /// If the last read took all bytes: when it began, and the steps known then. The socket counts as drained when it is read
    /// again, because only then has the reader seen what that read brought.
    exhausted: Option<(u64, u32)>,
    drained: bool,
    /// How long before its stamp a message may have reached this host, in nanoseconds.
    path_ns: u64,
    /// Whether this is a session. Its unread bytes hold up the sweep.
    counted: bool,
    age: Histogram,
}

impl StampedStream {
    /// Takes over an accepted socket. Nothing is known about bytes that came before it was accepted. These can only be the
    /// upgrade and what was sent with it, none of which is stamped below the session's Open.
    pub fn new(tcp: TcpStream, clock: Clock, drains: Drains) -> io::Result<Self> {
        tcp.set_nodelay(true)?;
        let path_ns = if is_local(tcp.peer_addr()?.ip(), tcp.local_addr()?.ip()) { 0 } else { clock.network_ns() };
        let now = monotonic_ns();
        let last = Last { ns: now, uncertainty_ns: 0, flags: Flags::READ_TIME, empty_ns: now, floor_ns: 0, emptied: true };
        let steps = clock.steps();
        let frames = Frames::default();
        let age = metrics::histogram!(STAMP_AGE_SECONDS);
        Ok(Self {
            tcp,
            clock,
            drains,
            frames,
            last,
            previous_ns: 0,
            empty_ns: now,
            floor_ns: 0,
            overtaking: 0,
            steps,
            exhausted: None,
            drained: true,
            path_ns,
            counted: false,
            age,
        })
    }

    /// Makes the connection a session once its upgrade was read. `rest` was read after the request. From now on the bytes are
    /// frames, and [`Drains`] counts unread ones.
    ///
    /// Returns the arrival of the request.
    pub fn begin_session(&mut self, rest: &[u8]) -> Arrival {
        self.counted = true;
        if !self.drained {
            self.drains.add();
        }
        self.frames.follow(rest);
        self.stamp(rest.is_empty())
    }

    /// The arrival of the message that was just taken from this stream's bytes. Call it once for each message, in their order.
    pub fn arrival(&mut self) -> Arrival {
        let last = self.frames.take_message();
        self.stamp(last)
    }

    fn stamp(&mut self, ended_the_read: bool) -> Arrival {
        let last = self.last;
        let mut arrival = Arrival { flags: last.flags, ..Arrival::at(last.ns, last.uncertainty_ns) };
        let exact = ended_the_read && last.emptied;
        // A time of reading has that uncertainty already.
        if !(exact || last.flags.has(Flags::READ_TIME)) {
            arrival.uncertainty_ns = arrival.uncertainty_ns.saturating_add(last.ns.saturating_sub(last.empty_ns));
        }
        let arrival = arrival.clamped_to(last.floor_ns);
        self.after_its_path(arrival)
    }

    /// The arrival of the connection's end, noticed now. The kernel does not stamp it, so it may have come at any time since
    /// the socket was last empty.
    pub fn lost(&mut self) -> Arrival {
        let now = monotonic_ns();
        let empty_ns = self.empty_ns.max(self.drains.floor_ns());
        let arrival = Arrival::at(now, now.saturating_sub(empty_ns));
        self.after_its_path(Arrival { flags: Flags::READ_TIME, ..arrival })
    }

    /// How long before its stamp a message may have reached this host, in nanoseconds. It is 0 on local connections.
    #[must_use]
    pub fn path_ns(&self) -> u64 {
        self.path_ns
    }

    fn after_its_path(&mut self, arrival: Arrival) -> Arrival {
        let arrival = self.after_previous(arrival);
        Arrival { uncertainty_ns: arrival.uncertainty_ns.saturating_add(self.path_ns), ..arrival }
    }

    /// The present moment, as the arrival of what the gateway itself does to this session.
    pub fn now(&mut self) -> Arrival {
        self.after_previous(Arrival::at(monotonic_ns(), 0))
    }

    fn after_previous(&mut self, mut arrival: Arrival) -> Arrival {
        let back = self.previous_ns.saturating_sub(arrival.ns);
        if back > 0 && back <= arrival.uncertainty_ns {
            // Within its uncertainty: only the clock's conversion got better since.
            arrival.ns = self.previous_ns;
            arrival.uncertainty_ns += back;
        }
        let arrival = arrival.clamped_to(self.previous_ns);
        self.previous_ns = arrival.ns;
        arrival
    }

    /// Ends the session. Its unread bytes no longer hold up the sweep.
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

    /// Whether bytes with the stamp `ns`, read at `read_ns`, may have waited for an earlier segment. Asks the kernel only where
    /// that matters. `emptied` says that the read left nothing.
    fn may_have_waited(&mut self, ns: u64, read_ns: u64, emptied: bool) -> bool {
        if u128::from(read_ns.saturating_sub(ns)) <= OVERTAKING_MAX.as_nanos() {
            return false;
        }
        let Some(count) = kernel::overtaking(&self.tcp).filter(|count| *count != self.overtaking) else { return false };
        // The segment that overtook may still wait. (The count was taken first, so that none is missed in between.)
        if emptied && kernel::holds_nothing(&self.tcp) {
            self.overtaking = count;
        }
        true
    }

    /// Notes a read that began at `before_ns` and got `bytes`. `took_all` says that it took all bytes that were there.
    fn note(&mut self, bytes: &[u8], before_ns: u64, received: &Received, took_all: bool, reading: Reading) {
        let emptied = received.unread == Some(0);
        let floor_ns = self.floor_ns.max(self.drains.floor_ns());
        let empty_ns = self.empty_ns.max(self.drains.floor_ns());
        // Until the socket is drained after a step, a stamp may be from before or after the step (rule S6).
        let kernel_ns = reading.kernel_ns.filter(|_| reading.steps == self.steps);
        let believed = kernel_ns.filter(|ns| !self.may_have_waited(floor_ns.max(*ns), reading.read_ns, emptied));
        let (ns, uncertainty_ns, flags) = match believed {
            Some(ns) => (ns, reading.uncertainty_ns, Flags::default()),
            None => (reading.read_ns, reading.read_ns.saturating_sub(empty_ns), Flags::READ_TIME),
        };
        self.last = Last { ns, uncertainty_ns, flags, empty_ns, floor_ns, emptied: took_all };
        if emptied {
            self.emptied_at(before_ns);
        }
        if self.counted {
            self.frames.follow(bytes);
            self.age.record(Duration::from_nanos(reading.read_ns.saturating_sub(self.last.ns)));
        }
        self.set_drained(false);
    }

    fn emptied_at(&mut self, ns: u64) {
        (self.empty_ns, self.floor_ns) = (ns, self.drains.floor_of(ns));
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
            this.emptied_at(empty_ns);
            this.steps = steps;
            this.set_drained(true);
        }
        loop {
            ready!(this.tcp.poll_read_ready(cx))?;
            let (before_ns, steps) = (monotonic_ns(), this.clock.steps());
            let space = buf.initialize_unfilled();
            let mut emptying = None;
            let read = this.tcp.try_io(Interest::READABLE, || {
                let received = kernel::receive(&this.tcp, space)?;
                if received.bytes == 0 || received.unread != Some(0) {
                    return Ok(received);
                }
                // Nothing is left, and the next bytes make the socket ready again (epoll(7), question 9). Saying "would block"
                // here saves a read that would find nothing.
                emptying = Some(received);
                Err(io::ErrorKind::WouldBlock.into())
            });
            match emptying.map_or(read, Ok) {
                Ok(Received { bytes: 0, .. }) => {
                    this.set_drained(true);
                    return Poll::Ready(Ok(()));
                }
                Ok(received) => {
                    let reading = this.clock.read(received.stamp);
                    let short = received.bytes < space.len();
                    // A read ends early at urgent data, even if bytes follow; otherwise only when nothing more is there.
                    if short && received.unread.is_some_and(|unread| unread > 0) && kernel::take_urgent(&this.tcp) {
                        return Poll::Ready(Err(io::Error::new(io::ErrorKind::Unsupported, URGENT)));
                    }
                    this.exhausted = emptying.map(|_| (before_ns, steps));
                    this.note(&space[..received.bytes], before_ns, &received, short || emptying.is_some(), reading);
                    buf.advance(received.bytes);
                    if this.frames.too_fragmented() {
                        return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "message in too many fragments")));
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    this.emptied_at(before_ns);
                    this.steps = steps;
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

#[cfg(test)]
mod tests;

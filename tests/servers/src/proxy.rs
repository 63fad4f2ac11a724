//! A proxy whose path can be slow, silent, cut, closed or led elsewhere, while what is behind it knows nothing of it.
//!
//! It runs on a thread of its own, so that a test may block.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Connections at once; further ones wait in the kernel.
const CONNECTIONS_MAX: usize = 1024;
/// Bytes that are read at once.
const CHUNK_BYTES: usize = 16 * 1024;
/// Chunks that wait for their time in one direction of a connection; past it nothing more is read there.
const CHUNKS_MAX: usize = 256;

/// What is behind a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstream {
    /// A TCP address.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// What the path is like now.
#[derive(Debug, Clone)]
struct Path {
    upstream: Upstream,
    to_upstream: Duration,
    to_client: Duration,
    swallows: bool,
    refuses: bool,
    /// Whoever connects from here is refused.
    shut_out: Option<IpAddr>,
    /// Every connection ends when this rises.
    cuts: u64,
    /// Which chunks to the upstream end their connections instead.
    lost: std::ops::Range<u64>,
    /// Chunks to the upstream so far.
    sent: Arc<AtomicU64>,
    swallowed: Arc<AtomicU64>,
}

impl Path {
    fn to(upstream: Upstream) -> Self {
        let (to_upstream, to_client) = (Duration::ZERO, Duration::ZERO);
        let (swallows, refuses, shut_out, cuts, lost) = (false, false, None, 0, 0..0);
        let (sent, swallowed) = (Arc::default(), Arc::default());
        Self { upstream, to_upstream, to_client, swallows, refuses, shut_out, cuts, lost, sent, swallowed }
    }
}

/// A proxy on a port. Ends, with all its connections, on drop.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    path: Option<watch::Sender<Path>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts one that forwards to `upstream`, at once and faithfully.
    ///
    /// # Errors
    /// When there is no port or no thread for it.
    pub fn start(upstream: Upstream) -> io::Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST, upstream)
    }

    /// As [`Proxy::start`], on a port of another address of this machine.
    ///
    /// # Errors
    /// As [`Proxy::start`], and when this machine does not have the address.
    pub fn start_at(address: Ipv4Addr, upstream: Upstream) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((address, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (path, seen) = watch::channel(Path::to(upstream));
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("proxy".to_owned()).spawn(move || {
            let served = runtime.block_on(async { serve(TcpListener::from_std(listener)?, seen).await });
            if let Err(error) = served {
                tracing::error!(%error, "proxy ended");
            }
        })?;
        Ok(Self { address, path: Some(path), thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens, as a Redis URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Leads new connections to another upstream; those that are there stay where they are until they are [cut](Self::cut).
    pub fn lead_to(&self, upstream: Upstream) {
        self.change(|path| path.upstream = upstream);
    }

    /// What is read from now on arrives this much later, in its order; the throughput stays what it was. Exact to a
    /// millisecond.
    pub fn delay(&self, to_upstream: Duration, to_client: Duration) {
        self.change(|path| (path.to_upstream, path.to_client) = (to_upstream, to_client));
    }

    /// While it swallows, everything is accepted and read and nothing arrives, no end and no reset either. A connection
    /// that lost something so stays silent for ever; new ones work when it has stopped.
    pub fn swallow(&self, swallows: bool) {
        self.change(|path| path.swallows = swallows);
    }

    /// Bytes that were swallowed since it started: a test that waits for them knows that something got lost.
    #[must_use]
    pub fn swallowed(&self) -> u64 {
        self.path.as_ref().map_or(0, |path| path.borrow().swallowed.load(Ordering::Relaxed))
    }

    /// While it refuses, new connections are reset at once.
    pub fn refuse(&self, refuses: bool) {
        self.change(|path| path.refuses = refuses);
    }

    /// New connections from this address are reset at once; none with `None`.
    pub fn shut_out(&self, from: Option<IpAddr>) {
        self.change(|path| path.shut_out = from);
    }

    /// Ends all connections that are there, on both sides.
    pub fn cut(&self) {
        self.change(|path| path.cuts += 1);
    }

    /// Chunks that came for the upstream since it started. One is what a client wrote at once, mostly.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.path.as_ref().map_or(0, |path| path.borrow().sent.load(Ordering::Relaxed))
    }

    /// The chunks of these numbers (the first is 0) do not arrive at the upstream: they end their connection.
    pub fn lose(&self, chunks: std::ops::Range<u64>) {
        self.change(|path| path.lost = chunks);
    }

    fn change(&self, change: impl FnOnce(&mut Path)) {
        if let Some(path) = &self.path {
            path.send_modify(change);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The thread ends when it can hear nothing more.
        self.path = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, mut path: watch::Receiver<Path>) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => {
                let Ok((client, from)) = accepted else { continue };
                let is_refused = { let path = path.borrow(); path.refuses || path.shut_out == Some(from.ip()) };
                if is_refused {
                    // Dropped with this set, it is reset.
                    client.set_zero_linger()?;
                } else {
                    connections.spawn(connection(client, path.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
            changed = path.changed() => if changed.is_err() { return Ok(()) },
        }
    }
}

async fn connection(client: TcpStream, mut path: watch::Receiver<Path>) {
    let now = path.borrow_and_update().clone();
    let forwarding = async {
        let hole = Hole { path: path.clone(), silent: AtomicBool::new(now.swallows) };
        match &now.upstream {
            Upstream::Tcp(address) => {
                let upstream = TcpStream::connect(address).await?;
                upstream.set_nodelay(true)?;
                forward(client, upstream, &hole).await
            }
            Upstream::Unix(socket) => forward(client, UnixStream::connect(socket).await?, &hole).await,
        }
    };
    let mut cut = path.clone();
    tokio::select! {
        ended = forwarding => if let Err(error) = ended {
            tracing::debug!(%error, "proxied connection ended");
        },
        _ = cut.wait_for(|path| path.cuts != now.cuts) => {}
    }
}

/// What a connection may lose things in.
struct Hole {
    path: watch::Receiver<Path>,
    silent: AtomicBool,
}

impl Hole {
    /// Whether so many bytes, under way now, are lost: from the first loss on everything is.
    fn takes(&self, bytes: usize) -> bool {
        let path = self.path.borrow();
        if path.swallows {
            self.silent.store(true, Ordering::Relaxed);
        }
        let taken = self.silent.load(Ordering::Relaxed);
        if taken {
            path.swallowed.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        taken
    }

    /// Counts a chunk to the upstream.
    fn loses_next(&self) -> bool {
        let path = self.path.borrow();
        path.lost.contains(&path.sent.fetch_add(1, Ordering::Relaxed))
    }
}

async fn forward(client: TcpStream, upstream: impl AsyncRead + AsyncWrite, hole: &Hole) -> io::Result<()> {
    client.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_upstream, to_upstream) = tokio::io::split(upstream);
    let up = one_way(from_client, to_upstream, hole, |path| path.to_upstream, || hole.loses_next());
    let down = one_way(from_upstream, to_client, hole, |path| path.to_client, || false);
    tokio::try_join!(up, down).map(drop)
}

async fn one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    hole: &Hole,
    delay: impl Fn(&Path) -> Duration,
    loses_next: impl Fn() -> bool,
) -> io::Result<()> {
    let (queue, mut waiting) = mpsc::channel::<(Instant, Bytes)>(CHUNKS_MAX);
    let read = async move {
        loop {
            let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
            if from.read_buf(&mut chunk).await? == 0 {
                return Ok(());
            }
            if loses_next() {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            let due = Instant::now() + delay(&hole.path.borrow());
            if !hole.takes(chunk.len()) && queue.send((due, chunk.freeze())).await.is_err() {
                return Ok(());
            }
        }
    };
    let write = async move {
        while let Some((due, chunk)) = waiting.recv().await {
            sleep_until(due).await;
            if !hole.takes(chunk.len()) {
                to.write_all(&chunk).await?;
            }
        }
        if hole.takes(0) {
            // Nobody is told of the end either.
            std::future::pending::<()>().await;
        }
        to.shutdown().await
    };
    tokio::try_join!(read, write).map(drop)
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _, Write as _};
    use std::net::{TcpListener as Listener, TcpStream as Stream};

    use super::*;

    /// Far longer than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// Sends back what it gets, with a byte of its own before each connection's first.
    fn echo(name: u8) -> Upstream {
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || {
                    let mut back = stream.try_clone()?;
                    back.write_all(&[name])?;
                    io::copy(&mut stream, &mut back)?;
                    back.shutdown(std::net::Shutdown::Write)
                });
            }
        });
        Upstream::Tcp(address)
    }

    fn connect(proxy: &Proxy) -> Stream {
        let stream = Stream::connect(proxy.address()).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }

    fn next(stream: &mut Stream) -> io::Result<u8> {
        let mut byte = [0];
        stream.read_exact(&mut byte).map(|()| byte[0])
    }

    #[test]
    fn it_forwards_both_ways_and_ends_with_its_peers() {
        let proxy = Proxy::start(echo(b'a')).expect("a proxy");
        let mut stream = connect(&proxy);
        let much = vec![7_u8; 3 * CHUNKS_MAX * CHUNK_BYTES];
        let mut writer = stream.try_clone().expect("cloned");
        let sent = much.clone();
        let writing = std::thread::spawn(move || {
            writer.write_all(&sent).expect("written");
            writer.shutdown(std::net::Shutdown::Write).expect("shut down");
        });
        let mut back = Vec::new();
        stream.read_to_end(&mut back).expect("read to the end");
        writing.join().expect("written");
        assert!(back[0] == b'a' && back[1..] == much, "{} bytes", back.len());
    }

    #[test]
    fn it_leads_elsewhere_after_a_cut() {
        let proxy = Proxy::start(echo(b'a')).expect("a proxy");
        let mut stream = connect(&proxy);
        assert_eq!(next(&mut stream).expect("a byte"), b'a');
        proxy.lead_to(echo(b'b'));
        stream.write_all(b"x").expect("written");
        assert_eq!(next(&mut stream).expect("still there"), b'x');
        proxy.cut();
        assert!(next(&mut stream).is_err(), "cut");
        assert_eq!(next(&mut connect(&proxy)).expect("a byte"), b'b');
    }

    #[test]
    fn what_is_lost_ends_its_connection_only() {
        let proxy = Proxy::start(echo(b'a')).expect("a proxy");
        let (mut stays, mut ends) = (connect(&proxy), connect(&proxy));
        for stream in [&mut stays, &mut ends] {
            assert_eq!(next(stream).expect("a byte"), b'a');
        }
        proxy.lose(1..2);
        stays.write_all(b"x").expect("written");
        assert_eq!(next(&mut stays).expect("the first arrives"), b'x');
        ends.write_all(b"y").expect("written");
        assert!(next(&mut ends).is_err(), "the second ends its connection");
        stays.write_all(b"z").expect("written");
        assert_eq!(next(&mut stays).expect("the third arrives"), b'z');
        assert_eq!(proxy.sent(), 3);
    }

    #[test]
    fn a_refused_connection_is_reset_and_others_stay() {
        let proxy = Proxy::start(echo(b'a')).expect("a proxy");
        let mut stream = connect(&proxy);
        assert_eq!(next(&mut stream).expect("a byte"), b'a');
        proxy.refuse(true);
        assert_eq!(next(&mut connect(&proxy)).expect_err("reset").kind(), ErrorKind::ConnectionReset);
        stream.write_all(b"x").expect("written");
        assert_eq!(next(&mut stream).expect("still there"), b'x');
        proxy.refuse(false);
        assert_eq!(next(&mut connect(&proxy)).expect("a byte"), b'a');
        proxy.shut_out(Some(Ipv4Addr::new(127, 0, 1, 1).into()));
        assert_eq!(next(&mut connect(&proxy)).expect("it comes from elsewhere"), b'a');
        proxy.shut_out(Some(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(next(&mut connect(&proxy)).expect_err("reset").kind(), ErrorKind::ConnectionReset);
    }

    #[test]
    fn what_is_swallowed_is_not_even_ended() {
        let proxy = Proxy::start(echo(b'a')).expect("a proxy");
        let mut stream = connect(&proxy);
        assert_eq!(next(&mut stream).expect("a byte"), b'a');
        proxy.swallow(true);
        stream.write_all(b"x").expect("taken");
        let mut born_silent = connect(&proxy);
        born_silent.write_all(b"x").expect("taken");
        while proxy.swallowed() < 2 {
            std::thread::yield_now();
        }
        proxy.swallow(false);
        assert_eq!(next(&mut connect(&proxy)).expect("new ones work"), b'a');
        for silent in [&mut stream, &mut born_silent] {
            silent.set_nonblocking(true).expect("nonblocking");
            assert_eq!(next(silent).expect_err("silence").kind(), ErrorKind::WouldBlock);
            silent.set_nonblocking(false).expect("blocking");
        }
        proxy.cut();
        assert!(next(&mut stream).is_err() && next(&mut born_silent).is_err(), "a cut ends it");
    }

    #[tokio::test]
    async fn what_is_delayed_is_under_way_all_at_once() {
        const HOUR: Duration = Duration::from_secs(3600);
        let (_sender, path) = watch::channel(Path { to_upstream: HOUR, ..Path::to(Upstream::Unix(PathBuf::new())) });
        let hole = Hole { path, silent: AtomicBool::new(false) };
        let (mut near, from) = tokio::io::duplex(CHUNK_BYTES);
        let (to, mut far) = tokio::io::duplex(CHUNK_BYTES);
        let sent = async {
            for _ in 0..CHUNKS_MAX {
                near.write_all(&[7; CHUNK_BYTES]).await.expect("written");
            }
        };
        let mut first = [0];
        tokio::select! {
            _ = one_way(tokio::io::split(from).0, tokio::io::split(to).1, &hole, |path| path.to_upstream, || false) => panic!("ended"),
            _ = far.read(&mut first) => panic!("an hour early"),
            // Were each chunk delayed by itself, the second would wait for the first.
            () = sent => {}
        }
    }

    #[test]
    fn a_delay_changes_nothing_else() {
        let proxy = Proxy::start(echo(b'a')).expect("a proxy");
        proxy.delay(Duration::from_millis(5), Duration::from_millis(3));
        let mut stream = connect(&proxy);
        assert_eq!(next(&mut stream).expect("a byte"), b'a');
        for n in 0..=u8::MAX {
            stream.write_all(&[n]).expect("written");
            if n == 100 {
                // What is under way keeps its place before what has a shorter way.
                proxy.delay(Duration::ZERO, Duration::ZERO);
            }
        }
        for n in 0..=u8::MAX {
            assert_eq!(next(&mut stream).expect("a byte"), n);
        }
    }
}

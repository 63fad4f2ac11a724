//! A Unix socket to Redis that wakes its process for what Redis says, and for nothing else.
//!
//! Whoever watches a Unix socket for room to write is woken each time that the other end has read, so once more for each command.
//! (A TCP socket wakes nobody for this unless it was full.) This one is watched for what comes in. It is watched for room only
//! while a write waits for it.

use std::io::{self, ErrorKind, IoSlice, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, RedisResult};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::limits::REDIS_CONNECT_TIMEOUT;

/// Ends what drives a connection when it is dropped: a server that never answers would keep it for ever.
pub(super) type Driver = Option<AbortOnDropHandle<()>>;

/// Connects to the client's server.
pub(super) async fn connect(client: &Client, config: AsyncConnectionConfig) -> RedisResult<(MultiplexedConnection, Driver)> {
    let info = client.get_connection_info();
    let ConnectionAddr::Unix(path) = info.addr() else {
        let config = config.set_connection_timeout(Some(REDIS_CONNECT_TIMEOUT));
        return Ok((client.get_multiplexed_async_connection_with_config(&config).await?, None));
    };
    let connect = async {
        let socket = Socket::connect(path).await?;
        let (connection, driver) = MultiplexedConnection::new_with_config(info.redis_settings(), socket, config).await?;
        Ok((connection, Some(AbortOnDropHandle::new(tokio::spawn(driver)))))
    };
    timeout(REDIS_CONNECT_TIMEOUT, connect).await.unwrap_or_else(|_| Err(io::Error::from(ErrorKind::TimedOut).into()))
}

struct Socket {
    socket: UnixStream,
    /// The same socket, watched for what comes in.
    incoming: pipe::Receiver,
    /// The same socket, watched for room while a write waits for it.
    room: Option<pipe::Sender>,
}

impl Socket {
    async fn connect(path: &Path) -> io::Result<Self> {
        Self::new(tokio::net::UnixStream::connect(path).await?.into_std()?)
    }

    fn new(socket: UnixStream) -> io::Result<Self> {
        // The ends of a pipe are watched one way each, and read and written as sockets are.
        let incoming = pipe::Receiver::from_owned_fd_unchecked(socket.try_clone()?.into())?;
        Ok(Self { socket, incoming, room: None })
    }

    fn poll_write_with(
        &mut self,
        cx: &mut Context<'_>,
        write: impl Fn(&mut &UnixStream) -> io::Result<usize>,
        poll: impl Fn(Pin<&mut pipe::Sender>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match write(&mut &self.socket) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let room = match &mut self.room {
                    Some(room) => room,
                    none => none.insert(pipe::Sender::from_owned_fd_unchecked(self.socket.try_clone()?.into())?),
                };
                let written = ready!(poll(Pin::new(room), cx));
                self.room = None;
                Poll::Ready(written)
            }
            written => {
                self.room = None;
                Poll::Ready(written)
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.incoming).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_with(cx, |socket| socket.write(buf), |room, cx| room.poll_write(cx, buf))
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let poll = |room: Pin<&mut pipe::Sender>, cx: &mut Context<'_>| room.poll_write_vectored(cx, bufs);
        self.get_mut().poll_write_with(cx, |socket| socket.write_vectored(bufs), poll)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket.shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn pair() -> (Socket, tokio::net::UnixStream) {
        let (socket, other) = UnixStream::pair().expect("a pair");
        socket.set_nonblocking(true).expect("set");
        other.set_nonblocking(true).expect("set");
        let socket = Socket::new(socket).expect("watched");
        (socket, tokio::net::UnixStream::from_std(other).expect("watched"))
    }

    #[tokio::test]
    async fn what_does_not_fit_waits_until_the_other_end_has_read() {
        let (mut socket, mut other) = pair();
        let sent: Vec<u8> = (0..8_000_000u32).map(|n| (n % 251) as u8).collect();
        let (mut received, expected) = (Vec::new(), sent.clone());
        let write = async {
            socket.write_all(&sent).await.expect("written");
            assert!(socket.room.is_none(), "nothing waits for room any more");
            socket.shutdown().await.expect("shut down");
        };
        let read = async { other.read_to_end(&mut received).await.expect("read") };
        tokio::join!(write, read);
        assert!(received == expected);
    }

    #[tokio::test]
    async fn what_comes_in_pieces_is_read_to_the_end() {
        let (mut socket, mut other) = pair();
        let write = async move {
            for piece in 0..100u8 {
                other.write_all(&[piece; 100]).await.expect("written");
                tokio::task::yield_now().await;
            }
        };
        let mut received = Vec::new();
        let ((), read) = tokio::join!(write, socket.read_to_end(&mut received));
        assert_eq!(read.expect("read"), 10_000);
        assert!(received.chunks(100).zip(0u8..).all(|(piece, n)| piece == [n; 100]));
    }
}

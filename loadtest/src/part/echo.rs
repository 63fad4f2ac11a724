//! The bare echo: what a WebSocket round trip costs with nothing behind it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::accept_async_with_config;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// Bytes that a session reads at a time, and gathers before it writes.
const BUFFER_BYTES: usize = 4 * 1024;
/// Pause after a connection could not be accepted, for want of descriptors.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Where to listen.
#[derive(Debug, Args)]
pub(crate) struct EchoArgs {
    #[arg(long)]
    listen: SocketAddr,
}

/// Serves until the process is ended.
pub(super) async fn serve(args: &EchoArgs) -> Result<()> {
    let listener = TcpListener::bind(args.listen).await?;
    println!("ready");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(echo(stream))),
            Err(_) => tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await,
        }
    }
}

/// All that is there is read, then sent back with one system call. A connection that breaks ends.
async fn echo(stream: TcpStream) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let config = WebSocketConfig::default().read_buffer_size(BUFFER_BYTES).write_buffer_size(BUFFER_BYTES);
    let mut socket = accept_async_with_config(stream, Some(config)).await.ok()?;
    while let Some(first) = socket.next().await {
        let mut next = Some(Some(first));
        while let Some(Some(message)) = next {
            let message = message.ok()?;
            if message.is_text() || message.is_binary() {
                socket.feed(message).await.ok()?;
            }
            next = socket.next().now_or_never();
        }
        socket.flush().await.ok()?;
    }
    None
}

//! The part of the public protocol that players of long runs need: a connection, actions, and messages as text.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::game::Args;
use crate::speak::frame::Encoding;

/// Bytes that a session reads at a time.
const READ_BYTES: usize = 8 * 1024;
/// Bytes that a session's socket may owe.
const WRITE_BYTES_MAX: usize = 256 * 1024;

/// A WebSocket to a gateway.
pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Opens a WebSocket, however long that takes.
pub(crate) async fn connect(address: &str, encoding: Encoding) -> Result<Socket> {
    let mut request = address.into_client_request()?;
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(encoding.subprotocol()));
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(READ_BYTES)
        .max_write_buffer_size(WRITE_BYTES_MAX);
    let connected = tokio_tungstenite::connect_async_with_config(request, Some(config), true).await;
    connected.map(|(socket, _)| socket).with_context(|| format!("{address} cannot be joined"))
}

impl Encoding {
    /// One message.
    pub(crate) fn message(self, value: &impl Serialize) -> Result<Message> {
        Ok(match self {
            Self::Json => Message::text(serde_json::to_string(value)?),
            Self::Msgpack => Message::binary(rmp_serde::to_vec_named(value)?),
        })
    }

    /// Reads a message; fields that `T` does not name are skipped.
    pub(crate) fn read<'a, T: Deserialize<'a>>(self, message: &'a Message) -> Result<T> {
        let read = match (self, message) {
            (Self::Json, Message::Text(text)) => serde_json::from_str(text).map_err(anyhow::Error::from),
            (Self::Msgpack, Message::Binary(bytes)) => rmp_serde::from_slice(bytes).map_err(anyhow::Error::from),
            _ => bail!("a message of {} bytes does not fit the subprotocol {}", message.len(), self.subprotocol()),
        };
        read.with_context(|| format!("a message of {} bytes is not understood", message.len()))
    }
}

/// An action.
#[derive(Debug, Serialize)]
pub(crate) struct Action<'a> {
    pub(crate) op: &'a str,
    pub(crate) id: &'a str,
    pub(crate) contest: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) args: Option<Args>,
}

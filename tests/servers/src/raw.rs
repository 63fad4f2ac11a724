//! WebSockets by hand, for what no client library would send.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than any answer takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A handshake.
pub fn upgrade(target: &str, subprotocol: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: {subprotocol}\r\n\r\n"
    )
}

/// Upgrades, and reads no further than the answer's head.
pub async fn raw_session(address: SocketAddr, target: &str, subprotocol: &str) -> TcpStream {
    let mut tcp = TcpStream::connect(address).await.expect("connected");
    tcp.set_nodelay(true).expect("set");
    tcp.write_all(upgrade(target, subprotocol).as_bytes()).await.expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(PATIENCE, tcp.read_u8()).await.expect("an answer").expect("a byte"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    tcp
}

/// A client's frame, masked with zeros.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match u8::try_from(payload.len()) {
        Ok(length) if length < 126 => bytes.push(0x80 | length),
        _ => {
            bytes.push(0x80 | 126);
            bytes.extend(u16::try_from(payload.len()).expect("short").to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// Reads a session to its end: all of it, and the code of the close frame, which must be the last.
pub async fn rest(tcp: &mut TcpStream) -> (Vec<u8>, u16) {
    let mut received = Vec::new();
    timeout(PATIENCE, tcp.read_to_end(&mut received)).await.expect("an end").expect("no reset before the close frame");
    let mut rest = &received[..];
    loop {
        let (head, length) = (rest[0], usize::from(rest[1]));
        let (at, length) = match length {
            126 => (4, usize::from(u16::from_be_bytes([rest[2], rest[3]]))),
            length => (2, length),
        };
        let payload = &rest[at..at + length];
        rest = &rest[at + length..];
        if head == 0x88 {
            assert!(rest.is_empty(), "{rest:?} behind the close frame");
            let code = u16::from_be_bytes([payload[0], payload[1]]);
            return (received, code);
        }
    }
}

//! A front with real sockets, before a hub that records what it is told.

mod hostile;
mod http;
mod life;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{WebSocketStream, client_async};
use tokio_util::sync::CancellationToken;

use super::{Front, Settings};
use crate::clock::Clock;
use crate::gateway::arrival::{Drains, listen};
use crate::gateway::auth::Gatekeeper;
use crate::gateway::hub::{Call, Hub};
use crate::types::SessionId;

/// Longer than anything here takes on a busy machine; nothing waits for it when all is well.
const PATIENCE: Duration = Duration::from_secs(10);

struct Gateway {
    address: SocketAddr,
    hub: Hub,
    drains: Drains,
    stop: CancellationToken,
    leaving: CancellationToken,
    serving: JoinHandle<()>,
}

/// Starts a front whose settings are the defaults as `change` leaves them.
fn gateway_with(gatekeeper: Gatekeeper, change: impl FnOnce(&mut Settings)) -> Gateway {
    let mut settings = Settings::default();
    change(&mut settings);
    let (hub, drains, stop, leaving) = (Hub::default(), Drains::default(), CancellationToken::new(), CancellationToken::new());
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let assets = |path: &str| (path == "/").then_some(("text/html; charset=utf-8", "<title>arena</title>"));
    let front = Front::new(hub.clone(), gatekeeper, assets, Clock::new(), drains.clone(), settings, leaving.clone());
    let serving = tokio::spawn(Arc::new(front).serve(listener, stop.clone()));
    Gateway { address, hub, drains, stop, leaving, serving }
}

fn gateway(change: impl FnOnce(&mut Settings)) -> Gateway {
    gateway_with(Gatekeeper::new(None, Vec::new(), false), change)
}

impl Gateway {
    async fn tcp(&self) -> TcpStream {
        let tcp = TcpStream::connect(self.address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        tcp
    }

    /// Joins as `player` and reads the welcome.
    async fn join(&self, player: &str) -> Player {
        let mut player = self.connect(&format!("/v1/room/pit?player={player}"), "lasthit.v1.json").await;
        assert_eq!(player.json().await["t"], "welcome");
        player
    }

    /// Upgrades, and reads nothing.
    async fn connect(&self, target: &str, subprotocol: &'static str) -> Player {
        let mut request = format!("ws://{}{target}", self.address).into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(subprotocol));
        let tcp = self.tcp().await;
        let (ws, response) = client_async(request, tcp).await.unwrap();
        assert_eq!(response.headers()["sec-websocket-protocol"], subprotocol);
        Player { ws, name: target.split("player=").nth(1).unwrap_or("?").to_owned() }
    }

    /// Sends `request` as it is, and returns the whole answer.
    async fn raw(&self, request: &str) -> String {
        let mut tcp = self.tcp().await;
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        timeout(PATIENCE, tcp.read_to_end(&mut answer)).await.expect("an answer").unwrap();
        String::from_utf8(answer).unwrap()
    }

    /// Upgrades by hand, for what no client library would send.
    async fn raw_session(&self, player: &str, subprotocol: &str) -> TcpStream {
        let mut tcp = self.tcp().await;
        tcp.write_all(upgrade(&format!("/v1/room/pit?player={player}"), subprotocol).as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tcp.read_u8().await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        tcp
    }

    /// The id of a player's session.
    fn session(&self, name: &str) -> SessionId {
        self.joined(name).unwrap()
    }

    fn joined(&self, name: &str) -> Option<SessionId> {
        let joined = |call: &Call| match call {
            Call::Open(id, player) if player.as_str() == name => Some(*id),
            _ => None,
        };
        self.hub.calls().iter().find_map(joined)
    }

    /// What the hub was told of a player's session.
    fn calls(&self, name: &str) -> Vec<Call> {
        let id = self.joined(name);
        let of = |call: &Call| match call {
            Call::Open(of, _) | Call::Act(of, ..) | Call::End(of, _) | Call::Error(of, _) | Call::Close(of) => *of,
        };
        self.hub.calls().into_iter().filter(|call| Some(of(call)) == id).collect()
    }

    /// What the hub was told of a player's session from open to close, once it is closed.
    async fn life(&self, name: &str) -> Vec<String> {
        let closed = async {
            while !matches!(self.calls(name).last(), Some(Call::Close(_))) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, closed).await.unwrap_or_else(|_| panic!("{name} was not closed: {:?}", self.calls(name)));
        let word = |call: Call| match call {
            Call::Open(..) => "open".to_owned(),
            Call::Act(_, id, _) => format!("act {id}"),
            Call::End(_, code) => format!("end {code}"),
            Call::Error(_, reason) => format!("error {reason}"),
            Call::Close(_) => "close".to_owned(),
        };
        self.calls(name).into_iter().map(word).collect()
    }
}

/// A session of a client that keeps to the protocol.
struct Player {
    ws: WebSocketStream<TcpStream>,
    name: String,
}

impl Player {
    async fn send(&mut self, text: &str) {
        self.ws.send(Message::text(text)).await.unwrap();
    }

    async fn act(&mut self, id: &str) {
        self.send(&format!(r#"{{"op":"hit","id":"{id}"}}"#)).await;
    }

    async fn json(&mut self) -> Value {
        loop {
            match self.next().await {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn next(&mut self) -> Message {
        timeout(PATIENCE, self.ws.next()).await.expect("a message").expect("an open socket").unwrap()
    }

    /// Reads on until the gateway's close frame.
    async fn close_code(&mut self) -> (u16, String) {
        loop {
            if let Message::Close(Some(frame)) = self.next().await {
                return (frame.code.into(), frame.reason.to_string());
            }
        }
    }

    /// Shows that this session is served as if nothing had happened.
    async fn is_undisturbed(&mut self, gateway: &Gateway) {
        self.act("still-here").await;
        self.send(r#"{"op":"refuse","id":"answer-me"}"#).await;
        assert_eq!(self.json().await["id"], "answer-me");
        let calls = gateway.calls(&self.name);
        assert!(matches!(&calls[..], [Call::Open(..), Call::Act(_, id, _)] if id == "still-here"), "{calls:?}");
    }
}

fn upgrade(target: &str, subprotocol: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: {subprotocol}\r\n\r\n"
    )
}

/// A client's frame, masked with zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match u8::try_from(payload.len()) {
        Ok(length) if length < 126 => bytes.push(0x80 | length),
        _ => {
            bytes.push(0x80 | 126);
            bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// Reads a raw session to its end and returns the code of the close frame, which must be the last.
async fn raw_close_code(tcp: &mut TcpStream) -> u16 {
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
            assert!(rest.is_empty());
            return u16::from_be_bytes([payload[0], payload[1]]);
        }
    }
}

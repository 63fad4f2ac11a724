//! A client that keeps to the protocol, and checks that the gateway does.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Map, Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::PATIENCE;

/// How a session is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Ticket {
    address: SocketAddr,
    room: String,
    query: String,
    msgpack: bool,
}

impl Ticket {
    pub(crate) fn new(address: SocketAddr, room: &str, player: &str) -> Self {
        Self { address, room: room.to_owned(), query: format!("player={player}"), msgpack: false }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.query.push_str(&format!("&{name}={value}"));
        self
    }

    pub(crate) fn server(self) -> Self {
        self.with("role", "server")
    }

    pub(crate) fn since(self, era: u64, seq: u64) -> Self {
        self.with("since", &format!("{era}.{seq}"))
    }

    pub(crate) fn msgpack(mut self) -> Self {
        self.msgpack = true;
        self
    }

    /// Upgrades, and reads nothing.
    pub(crate) async fn open(&self) -> Session {
        self.try_open().await.expect("upgraded")
    }

    async fn try_open(&self) -> Result<Session, Error> {
        let subprotocol = if self.msgpack { "lasthit.v1.msgpack" } else { "lasthit.v1.json" };
        let target = format!("ws://{}/v1/room/{}?{}", self.address, self.room, self.query);
        let mut request = target.into_client_request().expect("a request");
        request.headers_mut().insert("sec-websocket-protocol", subprotocol.parse().expect("a header"));
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let (ws, response) = client_async(request, tcp).await?;
        assert_eq!(response.headers()["sec-websocket-protocol"], subprotocol);
        Ok(Session { ws, msgpack: self.msgpack, id: String::new(), welcome: Value::Null, seq: 0, seen: Vec::new() })
    }

    /// Upgrades, and reads the welcome. None when the gateway ends, refuses or leaves meanwhile.
    pub(crate) async fn try_join(&self) -> Option<Session> {
        let mut session = timeout(PATIENCE, self.try_open()).await.expect("an answer").ok()?;
        let Heard::Message(welcome) = session.next().await else { return None };
        session.welcomed(welcome);
        Some(session)
    }

    /// Upgrades, and reads the welcome.
    pub(crate) async fn join(&self) -> Session {
        let mut session = self.open().await;
        let welcome = session.next().await.message();
        session.welcomed(welcome);
        session
    }
}

/// What a session heard next.
#[derive(Debug)]
pub(crate) enum Heard {
    Message(Value),
    Close(u16, String),
    Lost(Error),
}

impl Heard {
    #[track_caller]
    pub(crate) fn message(self) -> Value {
        match self {
            Self::Message(value) => value,
            other => panic!("{other:?} instead of a message"),
        }
    }
}

/// A session of either subprotocol.
pub(crate) struct Session {
    pub(crate) ws: WebSocketStream<TcpStream>,
    msgpack: bool,
    pub(crate) id: String,
    pub(crate) welcome: Value,
    pub(crate) seq: u64,
    /// Every verdict so far.
    pub(crate) seen: Vec<Value>,
}

impl Session {
    fn welcomed(&mut self, welcome: Value) {
        assert_eq!(welcome["t"], "welcome", "{welcome}");
        self.seq = welcome["seq"].as_u64().expect("seq");
        welcome["session"].as_str().expect("session").clone_into(&mut self.id);
        self.welcome = welcome;
    }

    pub(crate) fn era(&self) -> u64 {
        self.welcome["era"].as_u64().expect("era")
    }

    pub(crate) async fn send(&mut self, action: &Value) {
        let message = if self.msgpack {
            Message::binary(rmp_serde::to_vec_named(action).expect("encoded"))
        } else {
            Message::text(action.to_string())
        };
        self.ws.send(message).await.expect("sent");
    }

    pub(crate) async fn act(&mut self, op: &str, id: &str, contest: &str, args: Value) {
        self.send(&json!({"op": op, "id": id, "contest": contest, "args": args})).await;
    }

    /// Acts, and gives the answer.
    pub(crate) async fn ask(&mut self, op: &str, id: &str, contest: &str, args: Value) -> Value {
        self.act(op, id, contest, args).await;
        self.answer(id).await
    }

    /// A hit, and its answer.
    pub(crate) async fn hit(&mut self, id: &str, contest: &str, damage: u64) -> Value {
        self.ask("hit", id, contest, json!({ "damage": damage })).await
    }

    pub(crate) async fn next(&mut self) -> Heard {
        loop {
            let next = timeout(PATIENCE, self.ws.next()).await.expect("something to hear");
            match next.unwrap_or(Err(Error::ConnectionClosed)) {
                Ok(Message::Text(text)) if !self.msgpack => {
                    return Heard::Message(serde_json::from_str(&text).expect("JSON"));
                }
                Ok(Message::Binary(bytes)) if self.msgpack => {
                    return Heard::Message(nanoseconds_as_text(rmp_serde::from_slice(&bytes).expect("MessagePack")));
                }
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Ok(Message::Close(frame)) => {
                    let frame = frame.unwrap_or(CloseFrame { code: 1005.into(), reason: "".into() });
                    return Heard::Close(frame.code.into(), frame.reason.to_string());
                }
                Ok(other) => panic!("{other:?} on the wrong subprotocol"),
                Err(error) => return Heard::Lost(error),
            }
        }
    }

    /// The next verdict or error. A verdict must continue the count.
    pub(crate) async fn recv(&mut self) -> Value {
        let message = self.next().await.message();
        if message["t"] == "verdict" {
            let seq = message["seq"].as_u64().expect("seq");
            let first = message["from"].as_u64().unwrap_or(seq);
            assert_eq!(first, self.seq + 1, "contiguous: {message}");
            assert!(seq >= first, "{message}");
            self.seq = seq;
            self.seen.push(message.clone());
        }
        message
    }

    /// The verdict or error on this session's action.
    pub(crate) async fn answer(&mut self, id: &str) -> Value {
        loop {
            let message = self.recv().await;
            if message["id"] == id && (message["t"] == "error" || message["session"] == self.id.as_str()) {
                return message;
            }
        }
    }

    /// The first verdict, seen already or to come, that is looked for.
    pub(crate) async fn find(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(found) = self.seen.iter().find(|verdict| wanted(verdict)) {
            return found.clone();
        }
        loop {
            let message = self.recv().await;
            if message["t"] == "verdict" && wanted(&message) {
                return message;
            }
        }
    }

    /// Everything about a session in this room, once it is closed: the events, with what [`super::Witness`] saw.
    pub(crate) async fn life(&mut self, session: &str) -> Vec<String> {
        self.find(|v| v["session"] == session && v["event"] == "close").await;
        let of = self.seen.iter().filter(|v| v["session"] == session);
        let word = |v: &Value| v["body"]["saw"].as_str().or(v["event"].as_str()).unwrap_or_default().to_owned();
        of.map(word).collect()
    }

    /// The session of a player that joined while this one watched.
    pub(crate) async fn session_of(&mut self, player: &str) -> String {
        let open = self.find(|v| v["event"] == "open" && v["player"] == player).await;
        open["session"].as_str().expect("session").to_owned()
    }

    /// Reads on to the gateway's close frame.
    pub(crate) async fn close_code(&mut self) -> (u16, String) {
        loop {
            match self.next().await {
                Heard::Message(_) => {}
                Heard::Close(code, reason) => return (code, reason),
                Heard::Lost(error) => panic!("lost instead of closed: {error}"),
            }
        }
    }

    /// Says goodbye, and waits for the answer.
    pub(crate) async fn leave(mut self, code: u16) {
        let goodbye = CloseFrame { code: code.into(), reason: "".into() };
        self.ws.close(Some(goodbye)).await.expect("sent");
        assert_eq!(self.close_code().await.0, code);
    }
}

/// MessagePack has integers of 64 bits where JSON has text: made the same, to be compared.
fn nanoseconds_as_text(value: Value) -> Value {
    let Value::Object(map) = value else { return value };
    let field = |(key, value): (String, Value)| match value {
        Value::Number(ns) if key.ends_with("_ns") => (key, Value::String(ns.to_string())),
        Value::Object(_) => (key, nanoseconds_as_text(value)),
        other => (key, other),
    };
    Value::Object(map.into_iter().map(field).collect::<Map<_, _>>())
}

//! A gateway that keeps its rooms in memory and decides by the order in which it reads.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::speak::frame::Encoding;

/// One message of a server's.
pub(super) fn message(encoding: Encoding, value: &impl serde::Serialize) -> Message {
    let mut out = Vec::new();
    encoding.write(&mut out, value).expect("message");
    match encoding {
        Encoding::Json => Message::text(String::from_utf8(out).expect("json")),
        Encoding::Msgpack => Message::binary(out),
    }
}

/// What a client said; None for what is no message of this encoding.
pub(super) fn payload(encoding: Encoding, message: &Message) -> Option<&[u8]> {
    match (encoding, message) {
        (Encoding::Json, Message::Text(text)) => Some(text.as_bytes()),
        (Encoding::Msgpack, Message::Binary(bytes)) => Some(bytes),
        _ => None,
    }
}

/// What goes wrong, once, at the 50th action of 300.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    Lose,
    Double,
    Gap,
    SecondWinner,
    Refuse,
    Close,
    /// Not a fault: the session is sent to another host, which is this one again.
    Rehome,
    /// Not a fault: the room's verdicts are for all, and this session is shown another's.
    Overhear,
    /// Nothing is answered for 100 ms.
    Stall,
    /// Nothing is answered for 400 ms, from the 290th action on.
    StallAtEnd,
    /// Nothing is answered for 400 ms, from the 50th action on.
    StallLong,
    /// A run's actions beyond so many are refused.
    Capacity(u64),
    /// From the beginning: whoever claims first is denied, and the others are granted.
    Unfair,
}

pub(crate) struct Mock {
    address: SocketAddr,
}

#[derive(Default)]
struct State {
    /// The gateway's own.
    url: String,
    actions: u64,
    sessions: u64,
    stalled_until: Option<Instant>,
    rooms: HashMap<String, Room>,
    /// By the tag of the run, which its rooms' names have.
    runs: HashMap<String, u64>,
}

#[derive(Default)]
struct Room {
    seq: u64,
    winners: HashMap<String, String>,
}

struct Session {
    encoding: Encoding,
    room: String,
    name: String,
    /// The last `seq` that it was told of.
    told: u64,
    fault: Fault,
    state: Arc<Mutex<State>>,
}

impl Mock {
    pub(crate) async fn start(fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
        let address = listener.local_addr().expect("address");
        tokio::spawn(async move {
            let state = Arc::new(Mutex::new(State { url: format!("ws://{address}"), ..State::default() }));
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(session(stream, fault, Arc::clone(&state)));
            }
        });
        Self { address }
    }

    /// The same gateway under as many URLs.
    pub(crate) fn urls(&self, count: usize) -> Vec<String> {
        vec![format!("ws://{}", self.address); count]
    }
}

#[expect(clippy::result_large_err, reason = "the handshake's callback has this type")]
async fn session(stream: TcpStream, fault: Fault, state: Arc<Mutex<State>>) {
    let (mut path, mut protocol) = (String::new(), String::new());
    let mut socket = accept_hdr_async(stream, |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        path = request.uri().to_string();
        let asked = request.headers()["sec-websocket-protocol"].clone();
        protocol = asked.to_str().expect("text").to_owned();
        response.headers_mut().insert("sec-websocket-protocol", asked);
        Ok(response)
    })
    .await
    .expect("handshake");
    let (room, player) = path.strip_prefix("/v1/room/").and_then(|p| p.split_once("?player=")).expect("the protocol's path");
    let (player, since) =
        player.split_once("&since=1.").map_or((player, None), |(player, seq)| (player, seq.parse::<u64>().ok()));
    assert!(room.starts_with("load-") && player.starts_with('p'), "{path}");
    let encoding = if protocol == "lasthit.v1.json" { Encoding::Json } else { Encoding::Msgpack };
    assert_eq!(encoding.subprotocol(), protocol);
    let (name, told) = {
        let mut state = state.lock().expect("lock");
        state.sessions += 1;
        (format!("mock-{}", state.sessions), state.rooms.entry(room.to_owned()).or_default().seq)
    };
    let told = since.unwrap_or(told);
    let mut session = Session { encoding, room: room.to_owned(), name, told, fault, state };
    let resumed = since.is_some();
    let welcome = json!({"t": "welcome", "session": session.name, "era": 1, "seq": told, "resumed": resumed, "state": {"held": 0, "claims": {}}});
    socket.send(message(encoding, &welcome)).await.expect("send");
    while let Some(Ok(message)) = socket.next().await {
        let read = |bytes: &[u8]| match encoding {
            Encoding::Json => serde_json::from_slice::<Value>(bytes).ok(),
            Encoding::Msgpack => rmp_serde::from_slice(bytes).ok(),
        };
        let Some(action) = payload(encoding, &message).and_then(read) else { continue };
        let stalled_until = session.state.lock().expect("lock").stalled_until;
        if let Some(until) = stalled_until {
            sleep_until(until).await;
        }
        for answer in session.answers(&action) {
            let closes = answer.is_close();
            if socket.send(answer).await.is_err() {
                return;
            }
            if closes {
                // What comes now was not taken in.
                while let Some(Ok(_)) = socket.next().await {}
                return;
            }
        }
    }
}

impl Session {
    fn answers(&mut self, action: &Value) -> Vec<Message> {
        let state = Arc::clone(&self.state);
        let mut state = state.lock().expect("lock");
        state.actions += 1;
        let faulty = state.actions == 50;
        let stall = match self.fault {
            Fault::Stall if faulty => Some(100),
            Fault::StallLong if faulty => Some(400),
            Fault::StallAtEnd if state.actions == 290 => Some(400),
            _ => None,
        };
        if let Some(ms) = stall {
            state.stalled_until = Some(Instant::now() + Duration::from_millis(ms));
        }
        let tag = self.room.split('-').nth(1).expect("a run's tag").to_owned();
        let of_run = state.runs.entry(tag).or_default();
        *of_run += 1;
        let is_over = matches!(self.fault, Fault::Capacity(most) if *of_run > most);
        let room = state.rooms.get_mut(&self.room).expect("joined");
        let text = |field: &str| action[field].as_str().expect("text").to_owned();
        assert_eq!((text("op").as_str(), text("args").len()), ("claim", 64));
        let (id, contest) = (text("id"), text("contest"));
        if is_over || faulty && self.fault == Fault::Refuse {
            let error = json!({"t": "error", "code": "busy", "id": id, "message": "room \"load-0\" is \u{e9}"});
            return vec![message(self.encoding, &error)];
        }
        if faulty && self.fault == Fault::Close {
            return vec![Message::Close(Some(CloseFrame { code: 4408.into(), reason: "slow".into() }))];
        }
        if faulty && self.fault == Fault::Rehome {
            let reason = format!("{}#7", state.url);
            return vec![Message::Close(Some(CloseFrame { code: 4421.into(), reason: reason.into() }))];
        }
        // What a gap hides is the verdict on somebody else's action.
        room.seq += if faulty && self.fault == Fault::Gap { 2 } else { 1 };
        let won = !room.winners.contains_key(&contest);
        let granted = won || faulty && self.fault == Fault::SecondWinner;
        let granted = granted != (self.fault == Fault::Unfair);
        room.winners.entry(contest.clone()).or_insert(id.clone());
        if faulty && self.fault == Fault::Lose {
            return vec![];
        }
        let mut verdict = json!({
            "t": "verdict", "seq": room.seq, "event": "data", "session": self.name, "id": id, "contest": contest, "round": 1,
            "outcome": if granted { "granted" } else { "denied" },
        });
        if !granted {
            verdict["reason"] = json!("late");
        }
        // What others were told lies between.
        if self.told + 1 < room.seq && !(faulty && self.fault == Fault::Gap) {
            verdict["from"] = json!(self.told + 1);
        }
        self.told = room.seq;
        let mut answers = vec![message(self.encoding, &verdict)];
        if faulty && matches!(self.fault, Fault::Double | Fault::Overhear) {
            room.seq += 1;
            self.told = room.seq;
            verdict["seq"] = json!(room.seq);
            verdict.as_object_mut().expect("map").remove("from");
            if self.fault == Fault::Overhear {
                verdict["session"] = json!("mock-0");
            }
            answers.push(message(self.encoding, &verdict));
        }
        answers
    }
}

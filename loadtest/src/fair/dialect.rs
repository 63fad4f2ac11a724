//! The two protocols that rivals speak: lasthit's, and that of the usual stack it is compared with.

use anyhow::{Context, Result};
use serde::Deserialize;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Bytes, Message};

use crate::frame::{Action, Encoding, Text};

/// What a claim carries, as in a load run.
const ARGS: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

/// What a gateway is spoken to in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Dialect {
    /// lasthit's protocol, as MessagePack.
    Lasthit,
    /// The usual stack's: `{"id", "contest"}` and `{"id", "won"}`.
    Peer,
}

/// What came back for one claim.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// Of which claim.
    pub(super) id: String,
    /// Whether the claimer won; None when the claim was refused.
    pub(super) won: Option<bool>,
    pub(super) clamped: bool,
    pub(super) unproven: bool,
    pub(super) photo_finish: bool,
    /// How well the arrival is known; the peer does not say.
    pub(super) uncertainty_ns: Option<u64>,
    /// By how much a loser was late; the peer does not say.
    pub(super) behind_ns: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Verdict<'a> {
    #[serde(borrow)]
    t: Text<'a>,
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    outcome: Text<'a>,
    clamped: bool,
    unproven: bool,
    photo_finish: bool,
    uncertainty_ns: Option<u64>,
    behind_ns: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct PeerVerdict {
    id: String,
    won: bool,
}

impl Dialect {
    /// The name in pictures and reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lasthit => "lasthit",
            Self::Peer => "peer",
        }
    }

    /// The handshake that joins a room.
    pub(super) fn request(self, url: &str, room: &str, player: &str) -> Result<Request> {
        let url = url.trim_end_matches('/');
        Ok(match self {
            Self::Lasthit => {
                let mut request = format!("{url}/v1/room/{room}?player={player}").into_client_request()?;
                let subprotocol = HeaderValue::from_static(Encoding::Msgpack.subprotocol());
                request.headers_mut().insert("sec-websocket-protocol", subprotocol);
                request
            }
            Self::Peer => format!("{url}/?room={room}").into_client_request()?,
        })
    }

    /// The name of a room: one whose rules are claims, or one of those that the peer has workers for.
    pub(super) fn room(self, tag: &str, number: u32) -> String {
        match self {
            Self::Lasthit => format!("load-{tag}-{number}"),
            Self::Peer => format!("r{number}"),
        }
    }

    /// Whether the gateway says when a session may begin.
    pub(super) fn welcomes(self) -> bool {
        self == Self::Lasthit
    }

    /// A claim.
    pub(super) fn claim(self, id: &str, contest: &str) -> Result<Message> {
        match self {
            Self::Lasthit => Encoding::Msgpack.write(&Action { op: "claim", id, contest, args: ARGS }),
            Self::Peer => Encoding::Json.write(&serde_json::json!({"id": id, "contest": contest})),
        }
    }

    /// What a message answers; None when it is something else.
    pub(super) fn answer(self, message: &Message) -> Result<Option<Answer>> {
        if !matches!(message, Message::Text(_) | Message::Binary(_)) {
            return Ok(None);
        }
        if self == Self::Peer {
            let verdict: PeerVerdict = Encoding::Json.read(message)?;
            return Ok(Some(Answer { id: verdict.id, won: Some(verdict.won), ..Answer::default() }));
        }
        let verdict: Verdict<'_> = Encoding::Msgpack.read(message)?;
        let won = match &*verdict.t {
            "verdict" => Some(&*verdict.outcome == "granted"),
            "error" => None,
            _ => return Ok(None),
        };
        Ok(Some(Answer {
            id: verdict.id.to_string(),
            won,
            clamped: verdict.clamped,
            unproven: verdict.unproven,
            photo_finish: verdict.photo_finish,
            uncertainty_ns: verdict.uncertainty_ns,
            behind_ns: verdict.behind_ns,
        }))
    }
}

/// A message as the bytes of one WebSocket frame, ready to be sent: encoding it takes no part in what is timed.
pub(super) fn frame(message: &Message) -> Result<Vec<u8>> {
    let (opcode, payload) = match message {
        Message::Text(text) => (0x81, Bytes::from(text.clone())),
        Message::Binary(bytes) => (0x82, bytes.clone()),
        other => anyhow::bail!("{} bytes of another kind are no claim", other.len()),
    };
    let mut frame = vec![opcode];
    match u8::try_from(payload.len()) {
        Ok(len @ ..126) => frame.push(0x80 | len),
        _ => {
            frame.push(0x80 | 126);
            frame
                .extend(u16::try_from(payload.len()).context("a claim is longer than a frame can say in 16 bits")?.to_be_bytes());
        }
    }
    // The mask is there for proxies that mistake payload for requests; a fixed one serves on the way to a gateway.
    let mask = [0x5a, 0xc3, 0x96, 0x0f];
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    Ok(frame)
}

//! The protocol of a server under test: lasthit's, that of the usual stack, or an echo.

use anyhow::{Result, ensure};
use serde::Deserialize;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::HeaderValue;

use super::frame::{Action, Encoding, Frame, Text, from_json};

/// A protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Dialect {
    /// lasthit's protocol, as MessagePack
    Lasthit,
    /// lasthit's protocol, as JSON
    LasthitJson,
    /// A small JSON protocol: sends {"id", "contest"}, receives {"id", "won"}
    Peer,
    /// A server that sends back what it receives
    Echo,
}

/// Sessions that receive a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Audience {
    /// Only the session that sent the action
    Sender,
    /// All sessions in the room
    Room,
}

#[derive(Debug, Deserialize)]
struct PeerVerdict<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    won: bool,
}

impl Dialect {
    /// The name in pictures and reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lasthit => "lasthit",
            Self::LasthitJson => "lasthit-json",
            Self::Peer => "peer",
            Self::Echo => "echo",
        }
    }

    /// Whether it is lasthit's own protocol: there is a welcome, and verdicts have a count without gaps.
    pub(crate) fn is_lasthit(self) -> bool {
        matches!(self, Self::Lasthit | Self::LasthitJson)
    }

    fn encoding(self) -> Encoding {
        match self {
            Self::Lasthit | Self::Echo => Encoding::Msgpack,
            Self::LasthitJson | Self::Peer => Encoding::Json,
        }
    }

    /// Whether its messages are text; the others are binary.
    pub(crate) fn is_text(self) -> bool {
        self.encoding() == Encoding::Json
    }

    /// The handshake that joins a room.
    pub(crate) fn request(self, url: &str, room: &str, player: &str) -> Result<Request> {
        let url = url.trim_end_matches('/');
        Ok(match self {
            Self::Lasthit | Self::LasthitJson => {
                let mut request = format!("{url}/v1/room/{room}?player={player}").into_client_request()?;
                let subprotocol = HeaderValue::from_static(self.encoding().subprotocol());
                request.headers_mut().insert("sec-websocket-protocol", subprotocol);
                // It can be told of the room's home in the answer.
                request.headers_mut().insert("lasthit-route", HeaderValue::from_static("1"));
                request
            }
            Self::Peer | Self::Echo => format!("{url}/?room={room}").into_client_request()?,
        })
    }

    /// The name of a room: one whose rules are claims, which are told to whom they should be, or one of those that the peer
    /// has workers for. `tag` is the run's.
    ///
    /// # Errors
    /// When the dialect has no such audience.
    pub(crate) fn room(self, audience: Audience, tag: &str, number: u32) -> Result<String> {
        Ok(match (self, audience) {
            (Self::Lasthit | Self::LasthitJson, Audience::Sender) => format!("load-{tag}-{number}"),
            (Self::Lasthit | Self::LasthitJson, Audience::Room) => format!("claim-{tag}-{number}"),
            (Self::Peer | Self::Echo, audience) => {
                ensure!(
                    audience == Audience::Sender,
                    "audience room: {} answers senders only: use --audience sender",
                    self.name()
                );
                format!("r{number}")
            }
        })
    }

    /// Writes a claim. The peer's has no arguments.
    pub(crate) fn claim(self, out: &mut Vec<u8>, id: &str, contest: &str, args: &str) -> Result<()> {
        #[derive(serde::Serialize)]
        struct PeerClaim<'a> {
            id: &'a str,
            contest: &'a str,
        }
        match self {
            Self::Peer => Ok(serde_json::to_writer(out, &PeerClaim { id, contest })?),
            _ => self.encoding().write(out, &Action { op: "claim", id, contest, args, seen: None }),
        }
    }

    /// Writes a claim that was sent before. `seen` is what its sender had seen then.
    pub(crate) fn claim_again(self, out: &mut Vec<u8>, id: &str, contest: &str, args: &str, seen: &str) -> Result<()> {
        self.encoding().write(out, &Action { op: "claim", id, contest, args, seen: Some(seen) })
    }

    /// What a message says, in lasthit's terms: a claim's answer is a verdict.
    pub(crate) fn hear(self, is_text: bool, payload: &[u8]) -> Result<Frame<'_>> {
        let encoding = self.encoding();
        ensure!(
            is_text == self.is_text(),
            "message of {} bytes is of the wrong kind: {} is expected",
            payload.len(),
            if self.is_text() { "text" } else { "binary" }
        );
        Ok(match self {
            Self::Lasthit | Self::LasthitJson => encoding.frame(payload)?,
            Self::Peer => {
                let PeerVerdict { id, won } = from_json(payload)?;
                Frame { t: "verdict".into(), id, outcome: if won { "granted" } else { "denied" }.into(), ..Frame::default() }
            }
            Self::Echo => Frame { t: "verdict".into(), outcome: "echoed".into(), ..encoding.frame(payload)? },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dialect_reads_the_answer_to_its_own_claim() {
        let written = |dialect: Dialect| {
            let mut out = Vec::new();
            dialect.claim(&mut out, "ab-3", "ab-0", "xx").expect("claim");
            out
        };
        assert_eq!(written(Dialect::Peer), br#"{"id":"ab-3","contest":"ab-0"}"#);
        assert_eq!(written(Dialect::LasthitJson), br#"{"op":"claim","id":"ab-3","contest":"ab-0","args":"xx"}"#);
        let echoed = written(Dialect::Echo);
        assert_eq!(echoed, written(Dialect::Lasthit));
        for (dialect, text, answer, outcome) in [
            (Dialect::Peer, true, &br#"{"id":"ab-3","won":false}"#[..], "denied"),
            (Dialect::Peer, true, &br#"{"won":true,"id":"ab-3"}"#[..], "granted"),
            (Dialect::Echo, false, &echoed, "echoed"),
            (Dialect::LasthitJson, true, br#"{"t":"verdict","id":"ab-3","outcome":"void","uncertainty_ns":"7"}"#, "void"),
        ] {
            let frame = dialect.hear(text, answer).expect("frame");
            assert_eq!((&*frame.t, &*frame.id, &*frame.outcome), ("verdict", "ab-3", outcome), "{dialect:?}");
            assert!(dialect.hear(!text, answer).is_err() && dialect.hear(text, &answer[1..]).is_err(), "{dialect:?}");
        }
    }

    #[test]
    fn rooms_are_those_whose_rules_fit() {
        assert_eq!(Dialect::Lasthit.room(Audience::Sender, "ab", 3).expect("room"), "load-ab-3");
        assert_eq!(Dialect::LasthitJson.room(Audience::Room, "ab", 3).expect("room"), "claim-ab-3");
        assert_eq!(Dialect::Peer.room(Audience::Sender, "ab", 3).expect("room"), "r3");
        let error = Dialect::Echo.room(Audience::Room, "ab", 3).expect_err("refused").to_string();
        assert!(error.starts_with("audience room: echo"), "{error}");
    }
}

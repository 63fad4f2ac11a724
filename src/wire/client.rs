//! The public protocol: the messages from and to clients, in JSON or in MessagePack with named maps.
//!
//! ```
//! use lasthit::wire::client::{Encoding, ErrorCode, parse_action};
//!
//! let action = parse_action(Encoding::Json, br#"{"op": "claim", "id": "k3v9-1", "contest": "sword"}"#).expect("an action");
//! assert_eq!(action.contest.as_deref(), Some("sword"));
//! let refusal = parse_action(Encoding::Json, b"{}").expect_err("no action");
//! assert_eq!(refusal.code, ErrorCode::BadAction);
//! ```
//!
//! `docs/protocol.md` describes it for authors of clients. A test runs its examples against this module. Clients send one kind
//! of message, an action ([`parse_action`]). They get four: `welcome` ([`encode_welcome`]), `verdict` ([`VerdictFrames`]),
//! `error` ([`encode_refusal`]) and `move` ([`encode_move`]).

mod args;
mod fields;
mod frames;
mod parse;
#[cfg(test)]
mod tests;

pub use frames::{VerdictFrames, encode_move, encode_refusal, encode_welcome};
pub use parse::parse_action;

use bytes::Bytes;

use crate::types::{PlayerId, Role, SessionId};

/// How a session's messages are written. Its WebSocket subprotocol chooses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// `lasthit.v1.json`: text messages.
    Json,
    /// `lasthit.v1.msgpack`: binary messages, maps with string keys.
    Msgpack,
}

impl Encoding {
    /// The encoding of a subprotocol; None for an unknown one.
    #[must_use]
    pub fn of_subprotocol(name: &str) -> Option<Self> {
        [Self::Json, Self::Msgpack].into_iter().find(|encoding| encoding.subprotocol() == name)
    }

    /// The name of the subprotocol.
    #[must_use]
    pub fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "lasthit.v1.json",
            Self::Msgpack => "lasthit.v1.msgpack",
        }
    }

    /// Whether its messages are text. Otherwise they are binary.
    #[must_use]
    pub fn is_text(self) -> bool {
        self == Self::Json
    }
}

/// Why an action was refused without a verdict. It never reached the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// Not JSON.
    BadJson,
    /// Not MessagePack.
    BadMsgpack,
    /// Not an action: a field is missing, too long or of the wrong type.
    BadAction,
    /// A field that actions do not have.
    UnknownField,
    /// The session's role does not allow it.
    Forbidden,
    /// The room is overloaded: send it again in a moment, under the same id.
    Busy,
    /// The session sends faster than it may.
    RateLimited,
    /// The gateway is stopping: reconnect, and send it again under the same id.
    ShuttingDown,
    /// The session's token has expired.
    Expired,
    /// No worker has rules for the room.
    UnknownRoom,
}

impl ErrorCode {
    /// All of them, in the order of the protocol's description.
    pub const ALL: [Self; 10] = [
        Self::BadJson,
        Self::BadMsgpack,
        Self::BadAction,
        Self::UnknownField,
        Self::Forbidden,
        Self::Busy,
        Self::RateLimited,
        Self::ShuttingDown,
        Self::Expired,
        Self::UnknownRoom,
    ];

    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadJson => "bad_json",
            Self::BadMsgpack => "bad_msgpack",
            Self::BadAction => "bad_action",
            Self::UnknownField => "unknown_field",
            Self::Forbidden => "forbidden",
            Self::Busy => "busy",
            Self::RateLimited => "rate_limited",
            Self::ShuttingDown => "shutting_down",
            Self::Expired => "expired",
            Self::UnknownRoom => "unknown_room",
        }
    }
}

/// An action that was refused without a verdict.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The reason, for programs.
    pub code: ErrorCode,
    /// The action's id, if it could be read.
    pub id: Option<String>,
    /// The reason, for people: one line that names the value.
    pub message: String,
}

/// WebSocket close codes: those of RFC 6455 that lasthit uses, and its own from 4400.
pub mod close {
    /// The client said goodbye.
    pub const NORMAL: u16 = 1000;
    /// The gateway is stopping: reconnect.
    pub const GOING_AWAY: u16 = 1001;
    /// The bytes are not the WebSocket protocol.
    pub const PROTOCOL: u16 = 1002;
    /// Text on the MessagePack subprotocol, or binary on the JSON one.
    pub const UNSUPPORTED: u16 = 1003;
    /// The connection ended without a close frame. Only the rules see this code (`onEnd`); it is never sent.
    pub const ABNORMAL: u16 = 1006;
    /// A text message that is not UTF-8.
    pub const BAD_DATA: u16 = 1007;
    /// A message longer than [`crate::limits::MESSAGE_BYTES_MAX`].
    pub const TOO_BIG: u16 = 1009;
    /// The gateway has a fault of its own: reconnect.
    pub const INTERNAL: u16 = 1011;
    /// The room could not be joined in time: reconnect later.
    pub const TRY_AGAIN: u16 = 1013;
    /// `since` lies ahead of the room: connect without it.
    pub const SINCE_AHEAD: u16 = 4400;
    /// The token has expired: reconnect with a new one.
    pub const TOKEN_EXPIRED: u16 = 4401;
    /// The client reads too slowly: reconnect with `since`.
    pub const SLOW: u16 = 4408;
    /// The client sent nothing for `crate::limits::IDLE_TIMEOUT`, not even a pong.
    pub const IDLE: u16 = 4409;
    /// Verdicts that this session saw were lost, or the room began a new era without it: reconnect with `since`; the welcome
    /// will say `gone`.
    pub const ROLLED_BACK: u16 = 4410;
    /// The room is at home elsewhere: the reason is the URL, and behind `#` the home's number. Connect there, at once.
    pub const ELSEWHERE: u16 = 4421;
    /// The client keeps sending faster than it may.
    pub const TOO_FAST: u16 = 4429;
    /// The gateway had to restart its sessions: reconnect with `since`.
    pub const RESTARTED: u16 = 4503;
    /// The gateway is leaving, and the session had not moved: reconnect with `since`, at once.
    pub const MOVED: u16 = 4504;

    /// All of them, with the word that is sent as the closing reason.
    pub const ALL: [(u16, &str); 17] = [
        (NORMAL, "normal"),
        (GOING_AWAY, "going_away"),
        (PROTOCOL, "protocol"),
        (UNSUPPORTED, "unsupported"),
        (BAD_DATA, "bad_data"),
        (TOO_BIG, "too_big"),
        (INTERNAL, "internal"),
        (TRY_AGAIN, "try_again"),
        (SINCE_AHEAD, "since_ahead"),
        (TOKEN_EXPIRED, "token_expired"),
        (SLOW, "slow"),
        (IDLE, "idle"),
        (ROLLED_BACK, "rolled_back"),
        (ELSEWHERE, "elsewhere"),
        (TOO_FAST, "too_fast"),
        (RESTARTED, "restarted"),
        (MOVED, "moved"),
    ];
}

/// The first message of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The session. Verdicts on its actions carry it.
    pub session: SessionId,
    /// The player whose session it is.
    pub player: PlayerId,
    /// What the session may do.
    pub role: Role,
    /// The room's era.
    pub era: u64,
    /// The number of the room's home, which this host is.
    pub home: u32,
    /// The last verdict that the session has seen. The next one covers `seq + 1`.
    pub seq: u64,
    /// Whether the session continues at the `since` that it asked for.
    pub resumed: bool,
    /// Whether the verdicts that it missed are no longer kept. Then it starts anew.
    pub gone: bool,
    /// The rules' answer to its Open, as one MessagePack value. None when resumed.
    pub state: Option<Bytes>,
    /// The source of stamps: `kernel` or `read`.
    pub clock: &'static str,
    /// The usual uncertainty of an arrival, in nanoseconds.
    pub uncertainty_ns: u64,
}

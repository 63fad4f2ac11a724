//! What a client asks for, in the one form that rules see whatever encoding the client spoke.

use bytes::Bytes;

use super::{PlayerId, Since};

/// A client's action. `args` is canonical MessagePack: maps have string keys in sorted order, no binary, no extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// What to do; the rules give it its meaning. 1 to 64 bytes.
    pub op: String,
    /// The client's name for this action, unique per player for the last 1,024. 1 to 64 bytes.
    pub id: String,
    /// What is contested, if anything. 1 to 64 bytes.
    pub contest: Option<String>,
    /// The player that a server session acts for.
    pub player: Option<PlayerId>,
    /// Of an action that is sent again: how far the client had seen the room when it sent it first.
    pub seen: Option<Since>,
    /// Arguments for the rules; one MessagePack value (nil when there are none).
    pub args: Bytes,
}

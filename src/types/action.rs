//! What a client asks for, in one form for both encodings.

use bytes::Bytes;

use super::{PlayerId, Since};

/// A client's action. `args` is canonical MessagePack: maps have string keys in sorted order, no binary, no extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// What to do. The rules define its meaning. 1 to 64 bytes.
    pub op: String,
    /// The client's id for this action, different from the player's last 1,024 ids. 1 to 64 bytes.
    pub id: String,
    /// The contest that the action takes part in, if any. 1 to 64 bytes.
    pub contest: Option<String>,
    /// The player that a server session acts for.
    pub player: Option<PlayerId>,
    /// For an action that is sent again: the last verdict that the client had seen when it sent the action first.
    pub seen: Option<Since>,
    /// The arguments: one MessagePack value, nil when there are none.
    pub args: Bytes,
}

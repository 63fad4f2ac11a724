//! Bytes: the journal's compact forms, each with its version first, and the clients' public protocol.
//!
//! Journal forms have no field names. Those that are stored for every event are packed, the others are MessagePack arrays. A
//! reader refuses an unknown version with `DecodeError::Version` and never guesses. Public forms are maps with field names: see
//! [`client`].

pub(crate) mod action;
pub mod client;
pub(crate) mod codec;
pub(crate) mod entry;
pub(crate) mod failed;
pub(crate) mod push;
pub(crate) mod verdicts;

pub(crate) use codec::DecodeError;

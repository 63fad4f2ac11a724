//! Bytes: the journal's compact forms, each with its version first, and the public protocol of the clients.
//!
//! Journal forms have no names: what is kept of every event is packed, the others are arrays. A reader meets a version that
//! it does not know with [`DecodeError::Version`] and never guesses. Public forms are maps with names: see [`client`].

pub mod action;
pub mod client;
pub(crate) mod codec;
pub mod entry;
pub mod push;
pub mod verdicts;

pub use codec::DecodeError;

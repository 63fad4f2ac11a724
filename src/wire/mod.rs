//! Bytes: the journal's compact forms, each with its version first, and the public protocol of the clients.
//!
//! What is public is the clients' protocol:
//!
//! ```
//! use lasthit::wire::client::Encoding;
//!
//! assert_eq!(Encoding::of_subprotocol("lasthit.v1.json"), Some(Encoding::Json));
//! ```
//!
//! Journal forms have no names: what is kept of every event is packed, the others are arrays. A reader meets a version that
//! it does not know with `DecodeError::Version` and never guesses. Public forms are maps with names: see [`client`].

pub(crate) mod action;
pub mod client;
pub(crate) mod codec;
pub(crate) mod entry;
pub(crate) mod push;
pub(crate) mod verdicts;

pub(crate) use codec::DecodeError;

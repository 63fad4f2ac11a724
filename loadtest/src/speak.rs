//! What the generator says to a system under test, and how it reads the answers.

pub(crate) mod dialect;
pub(crate) mod frame;
mod msgpack;
pub(crate) mod socket;

//! Runs gateways and workers as processes of its own: the part that decides. It does no I/O, reads no clock and awaits nothing.
//!
//! [`plan`] is a step function over slots and children; [`policy`] has what is decided by numbers alone.
#![expect(dead_code, reason = "what carries the plan out comes with the command")]

pub(crate) mod plan;
pub(crate) mod policy;

//! Deterministic decisions: no tokio, no Redis, no clock, no randomness. Time comes in as an argument.

mod contests;
mod recent;
mod resequence;
mod room;
mod snapshot;
#[cfg(test)]
mod tests;

pub use resequence::{Held, Resequencer};
pub use room::Room;
pub(crate) use room::{Known, RULES_FAILED};

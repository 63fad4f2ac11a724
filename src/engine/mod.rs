//! Deterministic decisions: no tokio, no Redis, no clock, no randomness. Time comes in as an argument.

mod contests;
mod decided;
mod failing;
mod firing;
mod foresee;
mod recent;
mod resequence;
mod room;
mod snapshot;
mod switch;
#[cfg(test)]
mod tests;
mod timers;
mod trying;

pub(crate) use decided::{Record, known};
pub(crate) use failing::Trouble;
pub(crate) use firing::HostClock;
pub(crate) use resequence::Unproven;
pub use resequence::{Held, Resequencer};
pub use room::Room;
pub(crate) use room::{Known, RULES_FAILED};
pub(crate) use snapshot::{SnapshotError, program_of};

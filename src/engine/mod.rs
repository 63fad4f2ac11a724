//! Deterministic decisions: no tokio, no Redis, no clock, no randomness. Time comes in as an argument.

mod contests;
mod recent;
mod resequence;
mod room;
mod snapshot;
#[cfg(test)]
mod tests;

pub use resequence::{Held, Resequencer, Unproven};
pub(crate) use room::RULES_FAILED;
pub use room::{Known, Member, Room};
pub use snapshot::SnapshotError;

//! Workers: from the journal to verdicts and back. They own shards by lease, put each room back into stamp order,
//! resolve with bounded concurrency and commit. Commit is the only way out of a worker.

pub(crate) mod core;
mod elsewhere;
pub(crate) mod job;
mod join;
mod lane;
mod listen;
mod ownership;
mod permits;
mod run;
mod shard;
mod stages;
mod state;
pub(crate) mod step;

pub(crate) use job::replay;
pub use join::{Joined, join};
pub use run::{WorkerError, WorkerOptions, run, run_joined};

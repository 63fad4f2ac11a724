//! Workers: from the journal to verdicts and back. They own shards by lease, put each room back into stamp order,
//! resolve with bounded concurrency and commit. Commit is the only way out of a worker.
//!
//! ```
//! use std::sync::Arc;
//! use lasthit::journal::memory::MemoryJournal;
//! use lasthit::rules::{LastHit, RulesBook};
//! use lasthit::shutdown::Shutdown;
//! use lasthit::worker::{self, WorkerOptions};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let journal = Arc::new(MemoryJournal::new(4));
//! let (rules, shutdown) = (RulesBook::new().room("*", LastHit::new), Shutdown::new());
//! let worker = worker::run(journal, rules, WorkerOptions::default(), shutdown.token().clone(), Default::default());
//! # shutdown.request();
//! worker.await?; // until somebody asks for the shutdown
//! # Ok(())
//! # }
//! ```

pub(crate) mod core;
pub(crate) mod job;
mod join;
mod lane;
mod listen;
mod ownership;
mod permits;
mod restore;
mod run;
mod shard;
mod state;
pub(crate) mod step;
mod timings;
mod watchdog;

pub(crate) use join::join;
pub(crate) use restore::replay;
pub(crate) use run::run_joined;
pub use run::{WorkerError, WorkerOptions, run};

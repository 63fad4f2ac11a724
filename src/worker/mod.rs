//! Workers turn events into verdicts. They own shards by lease, put each room's events back into stamp order, resolve them with
//! bounded concurrency, and commit the verdicts. Nothing leaves a worker except by a commit.
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
//! worker.await?; // until the shutdown is requested
//! # Ok(())
//! # }
//! ```

pub(crate) mod core;
mod homes;
pub(crate) mod job;
mod join;
mod lane;
mod library;
mod listen;
mod meters;
mod ownership;
mod permits;
pub(crate) mod programs;
mod release;
mod restore;
mod run;
mod shard;
mod state;
pub(crate) mod step;

mod threads;
mod wake;
mod watchdog;

pub(crate) use homes::eligible;
pub use join::WorkerError;
pub(crate) use join::join;
pub(crate) use library::{as_push, refusal};
pub use programs::ProgramsError;
pub(crate) use restore::{Events, Open, Programs, Unresolved, created, replay};
pub(crate) use run::run_joined;
pub use run::{WorkerOptions, run};

//! The small programs that `compare` starts: those that it compares lasthit with, and lasthit without sockets. Each is this
//! binary in a process of its own. It prints `ready` when it is, and its figures as one line of JSON.

mod echo;
mod floor;
mod queue;

use anyhow::Result;
use clap::Subcommand;

pub(crate) use floor::FloorFigures;

/// Which program.
#[derive(Debug, Subcommand)]
pub(crate) enum Part {
    /// Sends every WebSocket message back
    Echo(echo::EchoArgs),
    /// Measures append to subscriber through Redis alone
    Floor(floor::FloorArgs),
    /// The floor's other half: from the appended entry to the publication
    FloorWorker(floor::WorkerArgs),
    /// Appends events through the embedding API and waits for their verdicts
    QueueProducer(queue::ProducerArgs),
    /// Resolves them
    QueueWorker(queue::WorkerArgs),
}

/// Runs until its work is done, or until it is told to end.
pub(crate) async fn run(part: Part) -> Result<()> {
    match part {
        Part::Echo(args) => echo::serve(&args).await,
        Part::Floor(args) => floor::measure(&args).await,
        Part::FloorWorker(args) => floor::work(&args),
        Part::QueueProducer(args) => queue::produce(&args).await,
        Part::QueueWorker(args) => queue::work(&args).await,
    }
}

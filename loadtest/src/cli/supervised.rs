//! Options of what is measured of a supervisor.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::values::duration;
use crate::auto::Step;
use crate::limits::{DOOR_SAMPLES_MAX, DOOR_TASKS_MAX, EVEN_RATE_MAX, EVEN_SESSIONS_MAX};
use crate::load::knee::Ramp;
use crate::spawn::Spawn;

/// Options of `even`.
#[derive(Debug, Args)]
pub(crate) struct EvenArgs {
    /// Start a private redis-server, and these processes under a supervisor
    #[arg(long, default_value = "up:gateways=8,workers=1", value_name = "WHAT")]
    pub(crate) spawn: Spawn,
    /// Number of sessions
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=EVEN_SESSIONS_MAX))]
    pub(crate) sessions: u32,
    /// Sessions that are opened in a second
    #[arg(long, default_value_t = 500, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=EVEN_RATE_MAX))]
    pub(crate) rate: u32,
    /// Then kill one gateway with -9, and wait until the gateways are even again
    #[arg(long)]
    pub(crate) kill: bool,
    /// Also measure a Node cluster of as many processes, with round-robin and with shared accept. It needs Node 20 or newer
    #[arg(long, value_enum, value_name = "PEER")]
    pub(crate) peer: Option<EvenPeer>,
    /// Also write the figures into this JSON file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Also draw sessions per process over time into this SVG file
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

/// What else is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum EvenPeer {
    /// Node's own cluster module: loadtest/peers/cluster
    Cluster,
}

/// Options of `door`.
#[derive(Debug, Args)]
pub(crate) struct DoorArgs {
    /// Start a private redis-server, these processes under a supervisor, and one gateway more that listens itself
    #[arg(long, default_value = "up:gateways=1,workers=1", value_name = "WHAT")]
    pub(crate) spawn: Spawn,
    /// Handshakes that are timed on each way, one at a time
    #[arg(long, default_value_t = 2000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=DOOR_SAMPLES_MAX))]
    pub(crate) samples: u32,
    /// Connections a second to try. Rates double from FROM to TO; STEP is another factor (:1.5x) or a difference (:500). Then the
    /// interval between the last two rates is halved
    #[arg(long, default_value = "500..16000", value_name = "FROM..TO[:STEP]")]
    pub(crate) ramp: Ramp,
    /// Time that each rate is held
    #[arg(long, default_value = "3s", value_parser = duration, value_name = "TIME")]
    pub(crate) duration: Duration,
    /// Threads of the generator that connect, so that it is not its own bottleneck
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=DOOR_TASKS_MAX))]
    pub(crate) tasks: u32,
    /// Also write the figures into this JSON file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// Options of `auto`.
#[derive(Debug, Args)]
pub(crate) struct AutoArgs {
    /// Start a private redis-server, and these processes under a supervisor
    #[arg(long, default_value = "up:gateways=auto:1..4,workers=1", value_name = "WHAT")]
    pub(crate) spawn: Spawn,
    /// Actions a second, and for how long: one after the other
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "RATE:TIME",
        default_value = "1000:20s,20000:60s,40000:60s,1000:150s,100:150s"
    )]
    pub(crate) steps: Vec<Step>,
    /// Number of sessions
    #[arg(long, default_value_t = 100)]
    pub(crate) sessions: u32,
    /// Rooms that the sessions are spread over
    #[arg(long, default_value_t = 20)]
    pub(crate) rooms: u32,
    /// Also write the figures into this JSON file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

//! Options of `scale`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::values::duration;
use crate::limits::{SCALE_HOSTS_MAX, SCALE_NODES_MAX, SCALE_ROUNDS_MAX, SCALE_SHARDS_MAX};

/// Options of `scale`.
#[derive(Debug, Args)]
pub(crate) struct ScaleArgs {
    /// Numbers of primaries. One is a cluster of one node
    #[arg(long, value_delimiter = ',', value_name = "COUNTS", default_value = "1,2,3",
        value_parser = clap::value_parser!(u32).range(1..=SCALE_NODES_MAX))]
    pub(crate) nodes: Vec<u32>,
    /// Numbers of hosts, with one gateway and one worker each. More than one needs root, for a time namespace each
    #[arg(long, value_delimiter = ',', value_name = "COUNTS", default_value = "1",
        value_parser = clap::value_parser!(u32).range(1..=SCALE_HOSTS_MAX))]
    pub(crate) hosts: Vec<u32>,
    /// Number of shards
    #[arg(long, default_value_t = 60, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=SCALE_SHARDS_MAX))]
    pub(crate) shards: u32,
    /// Number of rooms, with two sessions each
    #[arg(long, default_value_t = 1_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rooms: u32,
    /// Events a second over all rooms
    #[arg(long, default_value_t = 10_000, value_name = "RATE", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: u32,
    /// Number of turns that each setting has
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=SCALE_ROUNDS_MAX))]
    pub(crate) rounds: u32,
    /// Time that each run is measured
    #[arg(long, default_value = "4s", value_parser = duration, value_name = "TIME")]
    pub(crate) duration: Duration,
    /// Also write the figures into this JSON file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Also draw the figures into this SVG file
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

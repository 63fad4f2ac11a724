//! Options of what breaks, and of what lasts.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::values::{counts, duration};
use crate::chaos::layout::{Layout, Nodes};
use crate::chaos::{Durability, Kind};
use crate::hosts;
use crate::limits::HOSTS_MAX;

/// Options of `soak`.
#[derive(Debug, Args)]
pub(crate) struct SoakArgs {
    /// Number of rooms that come and go, evenly over the run, with two players each
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) rooms: u32,
    /// Length of the run: 90s, 10m
    #[arg(long, default_value = "10m", value_parser = duration)]
    pub(crate) duration: Duration,
    /// Time that workers keep events and verdicts of the rooms that stay
    #[arg(long, default_value = "60s", value_name = "TIME")]
    pub(crate) retention: String,
    /// Time that a room may be empty before it ends
    #[arg(long, default_value = "1s", value_name = "TIME")]
    pub(crate) room_linger: String,
    /// Verdicts that each room keeps at most. Those who stay then act five times as often; give a retention that is longer than the run
    #[arg(long, value_name = "N")]
    pub(crate) keep_done: Option<u64>,
    /// Failed events that are kept at most. Some of those who stay then play a program in JavaScript that throws
    #[arg(long, value_name = "N")]
    pub(crate) keep_failed: Option<u32>,
    /// Number of gateways
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=64))]
    pub(crate) gateways: u16,
    /// Number of workers
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=64))]
    pub(crate) workers: u16,
    /// Also run these under `lasthit up`, in the same deployment: with --gateways 0 --workers 0, nothing else
    #[arg(long, value_name = "COUNTS", num_args = 0..=1, default_missing_value = "gateways=2,workers=2", value_parser = counts)]
    pub(crate) supervised: Option<(u16, u16)>,
    /// Also write the report, with all samples, into this JSON file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// Options of `chaos`.
#[derive(Debug, Args)]
pub(crate) struct ChaosArgs {
    /// Length of the run: 20s, 5m
    #[arg(long, default_value = "60s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// Seed of the plan and the players [default: random; it is printed]
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Durability of lasthit and configuration of Redis
    #[arg(long, value_enum, default_value_t = Durability::Redis)]
    pub(crate) durability: Durability,
    /// Run on a Redis Cluster of so many primaries, each of them so many nodes: 3x2 is three primaries with a replica each. Its nodes are
    /// killed, paused, demoted and cut off, and slots move
    #[arg(long, value_name = "PxN", conflicts_with = "sentinel")]
    pub(crate) cluster: Option<Nodes>,
    /// Run on a primary with a replica under three sentinels, which are killed, paused, demoted and cut off
    #[arg(long)]
    pub(crate) sentinel: bool,
    /// The servers of --cluster or --sentinel are Valkey 9, as scripts/other-servers.sh brings it or VALKEY_SERVER names it
    #[arg(long)]
    pub(crate) valkey: bool,
    /// Faults in a minute. About four in ten are kills. A short run has more, so that every kind occurs once
    #[arg(long, default_value_t = 60, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=600))]
    pub(crate) faults_per_minute: u32,
    /// Kinds of faults to use [default: all]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KINDS")]
    pub(crate) only: Vec<Kind>,
    /// Run on so many hosts, as `loadtest hosts` makes them, which are killed, paused, cut off and drained while the nodes of --cluster
    /// are broken
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(HOSTS_MAX)))]
    pub(crate) hosts: Option<u16>,
    /// Number of gateways [default: 3; with --hosts 2 on each host]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=64))]
    pub(crate) gateways: Option<u16>,
    /// Number of workers [default: 3; with --hosts 1 on each host]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=64))]
    pub(crate) workers: Option<u16>,
    /// Also run these under `lasthit up`, in the same deployment, and do to it what only a supervisor can have: reload, exec, scale,
    /// recycle, gateway-hang, worker-hang, supervisor-kill, supervisor-pause
    #[arg(long, value_name = "COUNTS", num_args = 0..=1, default_missing_value = "gateways=2,workers=2", value_parser = counts)]
    pub(crate) supervised: Option<(u16, u16)>,
    /// Number of players over all gateways
    #[arg(long, default_value_t = 48, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=5000))]
    pub(crate) players: u16,
    /// Number of rooms in which they compete
    #[arg(long, default_value_t = 12, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) rooms: u16,
    /// Actions a second of all players together
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(crate) rate: u32,
    /// Add one hostile session that floods, repeats, does not read and reconnects all the time, and measure its effect on the others
    #[arg(long, action = clap::ArgAction::Set, default_value_t = true, value_name = "BOOL")]
    pub(crate) rude: bool,
    /// Program in JavaScript that decides, instead of the built-in claims: one with the actions of examples/rules/arena.js. The audit then
    /// covers its timers, too
    #[arg(long, value_name = "FILE")]
    pub(crate) rules: Option<PathBuf>,
    /// Also write the report into this JSON file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

impl ChaosArgs {
    /// On what kind of Redis it is to run.
    pub(crate) fn layout(&self) -> Layout {
        match self.cluster {
            Some(nodes) => Layout::Cluster(nodes),
            None if self.sentinel => Layout::Sentinel,
            None => Layout::Single,
        }
    }
}

/// Options of `hosts`.
#[derive(Debug, Args)]
pub(crate) struct HostsArgs {
    /// Number of hosts
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(HOSTS_MAX)))]
    pub(crate) hosts: u16,
    /// Length of the run. Each kind of fault has an equal part of it
    #[arg(long, default_value = "60s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// Seed of the players [default: random; it is printed]
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Keep the rooms on a Redis Cluster, instead of one Redis: 3x2 is three primaries with a replica each
    #[arg(long, value_name = "PxN")]
    pub(crate) cluster: Option<Nodes>,
    /// Kinds of faults, in this order [default: all]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KINDS")]
    pub(crate) only: Vec<hosts::Kind>,
    /// Number of gateways of each host
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=16))]
    pub(crate) gateways: u16,
    /// Number of workers of each host
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=16))]
    pub(crate) workers: u16,
    /// Number of players, besides the rivals
    #[arg(long, default_value_t = 48, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) players: u16,
    /// Number of rooms in which they compete
    #[arg(long, default_value_t = 24, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) rooms: u16,
    /// Actions a second of all players together
    #[arg(long, default_value_t = 240, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) rate: u32,
    /// Number of rooms with two rivals
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) races: u16,
    /// Also write the report into this JSON file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

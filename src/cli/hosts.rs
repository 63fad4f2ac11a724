//! The command line of `lasthit hosts`, `drain`, `undrain`, `home` and `route`.

use clap::{Args, Subcommand};

use super::RedisArgs;
use crate::hosts::{Placing, Proxy, Task};

#[derive(Debug, Subcommand)]
pub(super) enum Tool {
    /// Lists the hosts of a deployment: their URLs, what runs there, and which shards are at home there
    #[command(after_help = HOSTS)]
    Hosts {
        #[command(flatten)]
        common: Common,
    },
    /// Moves all shards away from a host, one by one, and keeps them away
    #[command(after_help = DRAIN)]
    Drain {
        /// The host's name, the beginning of it, or its URL, as `lasthit hosts` shows them
        #[arg(value_name = "HOST")]
        host: String,
        #[command(flatten)]
        common: Common,
    },
    /// Lets a host have shards again
    #[command(after_help = UNDRAIN)]
    Undrain {
        /// The host's name, the beginning of it, or its URL, as `lasthit hosts` shows them
        #[arg(value_name = "HOST")]
        host: String,
        #[command(flatten)]
        common: Common,
    },
    /// Moves a shard to a host, and waits until it is there
    #[command(after_help = HOME)]
    Home {
        /// The number of the shard, from 0
        #[arg(value_name = "SHARD")]
        shard: String,
        /// The host's name, the beginning of it, or its URL, as `lasthit hosts` shows them
        #[arg(value_name = "HOST")]
        host: String,
        #[command(flatten)]
        common: Common,
    },
    /// Says where rooms are at home, or prints that as a map for a proxy in front
    #[command(after_help = ROUTE)]
    Route {
        /// Rooms. Without any, all shards are told
        #[arg(value_name = "ROOM")]
        rooms: Vec<String>,
        /// Print a map for this proxy, from shards or rooms to the hosts in their URLs
        #[arg(long, value_name = "PROXY", conflicts_with = "json")]
        map: Option<Proxy>,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Args)]
pub(super) struct Common {
    #[command(flatten)]
    pub(super) redis: RedisArgs,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

const HOSTS: &str = "\
A host is eligible if a ready gateway with --advertise and a worker of it run, and nobody drains it.

Examples:
  lasthit hosts --redis redis://127.0.0.1:6379
  lasthit hosts --redis redis://127.0.0.1:6379 --json";

const DRAIN: &str = "\
It returns at once. `lasthit hosts` shows when the host has no shard any more; then end its processes. Players are sent to where their
rooms are. If no other host is eligible, the shards stay.

Examples:
  lasthit drain wss://a.example --redis redis://127.0.0.1:6379";

const UNDRAIN: &str = "\
Examples:
  lasthit undrain wss://a.example --redis redis://127.0.0.1:6379";

const HOME: &str = "\
Where hosts have uneven shares, one shard after another moves back by itself.

Examples:
  lasthit home 3 wss://b.example --redis redis://127.0.0.1:6379";

const ROUTE: &str = "\
The shard of a room is the CRC-32 of its name, modulo the number of shards. HAProxy can tell it; for nginx, name the rooms.

Examples:
  lasthit route quiz --redis redis://127.0.0.1:6379
  lasthit route --map haproxy --redis redis://127.0.0.1:6379
  lasthit route --map nginx quiz lobby --redis redis://127.0.0.1:6379";

impl Tool {
    /// What to do, and where.
    pub(super) fn read(self) -> Result<(Placing, Common), (String, Common)> {
        let (task, common) = match self {
            Self::Hosts { common } => (Task::List, common),
            Self::Drain { host, common } => (Task::Drain(host), common),
            Self::Undrain { host, common } => (Task::Undrain(host), common),
            Self::Route { rooms, map, common } => (Task::Route(rooms, map), common),
            Self::Home { shard, host, common } => match shard.parse() {
                Ok(shard) => (Task::Home(shard, host), common),
                Err(_) => return Err((format!("shard {shard:?} is no number of a shard: use one from 0"), common)),
            },
        };
        Ok((Placing { task, json: common.json }, common))
    }
}

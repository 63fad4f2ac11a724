//! Options of `run`, and what they mean.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::values::{Moves, duration, url};
use crate::during::{Deed, During};
use crate::limits::CONNECTS_MAX;
use crate::load::knee::Ramp;
use crate::load::plan::CONTENDERS;
use crate::load::{Load, Pace};
use crate::spawn::Spawn;
use crate::speak::dialect::{Audience, Dialect};

/// Options of `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Protocol of the gateways at --url
    #[arg(long, value_enum, default_value_t = Dialect::Lasthit)]
    pub(crate) dialect: Dialect,
    /// Number of sessions over all gateways
    #[arg(long, default_value_t = 50)]
    pub(crate) sessions: u32,
    /// Number of rooms that the sessions are spread over. Every run uses new rooms
    #[arg(long, default_value_t = 10)]
    pub(crate) rooms: u32,
    /// Actions a second of all sessions together. They do not wait for answers (open loop)
    #[arg(long, default_value_t = 1000, conflicts_with_all = ["closed", "ramp"])]
    pub(crate) rate: u32,
    /// Send the next action when the last one is answered (closed loop). This shows the highest throughput, and hides stalls
    #[arg(long, conflicts_with = "ramp")]
    pub(crate) closed: bool,
    /// Most actions of a session that wait for answers at a time [default: 1 with --closed, otherwise no limit]. Further actions are
    /// sent when answers come, and measured from when they were due
    #[arg(long, value_name = "N")]
    pub(crate) outstanding: Option<u32>,
    /// Find the highest rate that keeps --p99 (the knee). Rates double from FROM to TO; STEP is another factor (:1.5x) or a
    /// difference (:5000). Then the interval between the last two rates is halved until the knee is found
    #[arg(long, value_name = "FROM..TO[:STEP]")]
    pub(crate) ramp: Option<Ramp>,
    /// Highest p99 for --ramp, measured from when an action was due
    #[arg(long, default_value = "50ms", value_parser = duration, value_name = "TIME", requires = "ramp")]
    pub(crate) p99: Duration,
    /// Time to send before the measurement [default: 2s, or 1s for each step of a ramp]
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub(crate) warm_up: Option<Duration>,
    /// Time to send and measure: 500ms, 10s, 2m [default: 10s, or 3s for each step of a ramp]
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub(crate) duration: Option<Duration>,
    /// Time to wait for the last answers before they count as lost
    #[arg(long, default_value = "10s", value_parser = duration, value_name = "TIME")]
    pub(crate) drain: Duration,
    /// Number of claims to each key
    #[arg(long, default_value_t = CONTENDERS, value_name = "N")]
    pub(crate) contenders: u32,
    /// Size of each claim's arguments, in bytes
    #[arg(long, default_value_t = 64, value_name = "BYTES")]
    pub(crate) payload_bytes: usize,
    /// Sessions that receive a verdict
    #[arg(long, value_enum, default_value_t = Audience::Sender)]
    pub(crate) audience: Audience,
    /// What sessions do when a gateway asks them to move: they follow it, or ignore it, are closed, and reconnect
    #[arg(long, value_enum, default_value_t = Moves::Follow)]
    pub(crate) moves: Moves,
    /// Further connections a second. Each joins a room apart from the others, waits for its welcome and closes. Those that are refused,
    /// reset or late are counted
    #[arg(long, value_name = "N", conflicts_with_all = ["ramp", "rejoin"], value_parser = clap::value_parser!(u32).range(1..=CONNECTS_MAX))]
    pub(crate) connects: Option<u32>,
    /// Time from which on such a connection is late, from when it was due to its welcome
    #[arg(long, default_value = "1s", value_parser = duration, value_name = "TIME", requires = "connects")]
    pub(crate) late_after: Duration,
    /// After the warm-up, do these to the supervisor of --spawn up:, one after the other. The run then goes on until all are done, and
    /// reports each by itself
    #[arg(long, value_enum, value_delimiter = ',', value_name = "DEEDS", conflicts_with_all = ["ramp", "rejoin", "closed", "html"])]
    pub(crate) during: Vec<Deed>,
    /// Saturation of the generator: if the p99 of its own delay is above this, there is no report
    #[arg(long, default_value = "5ms", value_parser = duration, value_name = "TIME")]
    pub(crate) lateness_max: Duration,
    /// Measure twice. The second time, N sessions reconnect to the rooms at once with an old `since`. Reports what the other
    /// sessions notice
    #[arg(long, value_name = "N", conflicts_with_all = ["closed", "ramp", "html"], value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(crate) rejoin: Option<u32>,
    /// Show no progress
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Also write the report into this JSON file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Also write the report into this HTML file, which needs no other files
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

/// The gateways to measure.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Target {
    /// Gateways to measure: ws://127.0.0.1:7777,ws://127.0.0.1:7779
    #[arg(long, value_delimiter = ',', value_parser = url, value_name = "URL")]
    pub(crate) url: Vec<String>,
    /// Start a private redis-server and these processes (gateways=2,workers=2), or a private Redis Cluster of so many primaries and these
    /// (cluster=3,gateways=2,workers=2), or one process without Redis (serve), and end them after the run
    #[arg(long, value_name = "WHAT")]
    pub(crate) spawn: Option<Spawn>,
}

impl RunArgs {
    /// The load that these options describe.
    pub(crate) fn load(&self, urls: Vec<String>) -> Load {
        let seconds = |time: Option<Duration>, whole, step| {
            time.unwrap_or(Duration::from_secs(if self.ramp.is_some() { step } else { whole }))
        };
        let pace = if self.closed {
            Pace::Closed { outstanding: self.outstanding.unwrap_or(1) }
        } else {
            Pace::Open { rate: self.rate }
        };
        Load {
            sessions: self.sessions,
            rooms: self.rooms,
            waiting_max: self.outstanding.filter(|_| !self.closed),
            contenders: self.contenders,
            payload_bytes: self.payload_bytes,
            follows: self.moves == Moves::Follow,
            audience: self.audience,
            warm_up: seconds(self.warm_up, 2, 1),
            duration: seconds(self.duration, 10, 3),
            extra: During::extra(&self.during),
            connects: self.connects.unwrap_or(0),
            late_after: self.late_after,
            drain: self.drain,
            lateness_max: self.lateness_max,
            ..Load::new(self.dialect, urls, pace)
        }
    }
}

//! The command line.

mod run;
mod values;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::chaos::{Durability, Kind};
use crate::compare::Only;
use crate::limits::{CLOSE_APART_MAX_US, EVEN_SESSIONS_MAX};
use crate::load::knee::Ramp;
use crate::load::plan::CONTENDERS;
use crate::part::Part;
use crate::rules::Bar;
use crate::spawn::Spawn;
use crate::speak::dialect::{Audience, Dialect};
use crate::stages::Vary;
use values::{Moves, duration, setting, url};

/// Sends load to lasthit, measures it, and audits every answer.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Sends claims at a given rate, measures how long the verdicts take, and audits every answer.
    ///
    /// The schedule does not wait for answers (open loop). Latency is measured from when a claim was due, and from when it was sent.
    ///
    /// Exit code 0 if the audit passed, 1 if it failed, 2 if there was no run or the generator was saturated, 130 if it was
    /// interrupted.
    ///
    /// Start lasthit, without Redis or with it, and measure it:
    ///
    ///     loadtest run --spawn serve --rate 1000
    ///     loadtest run --spawn gateways=2,workers=1 --sessions 100 --rooms 20 --rate 10000 --html report.html
    ///
    /// Find the highest rate with a p99 of at most 20 ms (the knee), between 2,000 and 100,000 a second:
    ///
    ///     loadtest run --spawn gateways=2,workers=1 --ramp 2000..100000 --p99 20ms
    ///
    /// Measure what other sessions notice when 1,000 sessions that missed everything reconnect:
    ///
    ///     loadtest run --spawn gateways=1,workers=1 --audience room --rejoin 1000
    ///
    /// Keep every session busy (closed loop), or measure the gateways of another system:
    ///
    ///     loadtest run --url ws://127.0.0.1:7777 --closed --outstanding 4
    ///     loadtest run --url ws://127.0.0.1:8101,ws://127.0.0.1:8102 --dialect peer --rate 1000
    #[command(verbatim_doc_comment)]
    Run(RunArgs),
    /// Lets two players claim the same key a known time apart, and counts how often the first sender does not get it.
    ///
    /// Exit code 0 if the first sender always won or the verdict was flagged as too close, 1 if not, 2 if there was no measurement,
    /// 130 if it was interrupted. The results of --peer do not change the exit code.
    ///
    /// Compare lasthit with the usual stack:
    ///
    ///     loadtest fair --spawn gateways=2,workers=1 --background 1000 --peer --svg fair.svg
    #[command(verbatim_doc_comment)]
    Fair(FairArgs),
    /// Looks how evenly a supervisor spreads sessions over its gateways
    ///
    ///     loadtest even --spawn up:gateways=8,workers=1 --sessions 1000
    ///     loadtest even --spawn up:gateways=4,workers=1 --sessions 1000 --kill
    #[command(verbatim_doc_comment)]
    Even(EvenArgs),
    /// Measures the setting --sweep-guard-us of gateways: for each value, how many verdicts are wrong or clamped, and how long they
    /// take.
    ///
    /// Starts a private redis-server, two gateways and a worker for each value. Pairs of players race on one gateway and on two:
    /// idle, with others in the background, with hits in two pieces, and with several messages in one read. Exit code 0 if there
    /// is a curve, 2 if there is none, 130 if it was interrupted.
    Curve(CurveArgs),
    /// Measures lasthit and other systems in turns, and compares the ratios with the targets that lasthit sets for itself.
    ///
    /// Starts everything that it needs: lasthit with and without Redis, a bare echo, and the rivals in loadtest/peers, each with a
    /// private redis-server. The rivals need Node 20 or newer; npm installs their packages into copies. Exit code 0 if there are
    /// figures, 2 if there are none, 130 if it was interrupted.
    ///
    ///     loadtest compare --json compare.json --svg compare.svg
    #[command(verbatim_doc_comment)]
    Compare(CompareArgs),
    /// Measures where the time of one event goes, stage by stage from the socket to the delivered verdict, and what an event
    /// costs: CPU time, system calls, commands and bytes of Redis.
    ///
    /// Starts a private redis-server and all processes for each rate, and ends them. With --vary it runs the same work under
    /// several values of a setting in turns, and lists CPU time and latency for each. Exit code 0 if there are figures, 2 if there
    /// are none, 130 if it was interrupted.
    ///
    ///     loadtest stages --spawn gateways=1,workers=1 --rates 1000,20000 --svg stages.svg
    ///     loadtest stages --vary shards=1,8,64 --rooms 1000 --sessions 1000 --rates 10000
    #[command(verbatim_doc_comment)]
    Stages(StagesArgs),
    /// Measures what programs and timers cost, and compares each figure with its bar and its aim.
    ///
    /// Starts a private redis-server, two gateways and a worker for each group of figures. JavaScript and a Python process (Python 3.9
    /// or newer) take turns with the built-in rules that they are a copy of: 100 sessions in 20 rooms, ten contenders a contest.
    /// With --close, it counts the bids that an auction decides wrongly instead, and checks that each lot closes once, at its moment.
    /// Exit code 0 if there are figures, 1 if lasthit broke a promise meanwhile, 2 if there are none, 130 if it was interrupted.
    ///
    ///     loadtest rules --json rules.json
    ///     loadtest rules --only timer_us,timers_per_s
    ///     loadtest rules --only builtin_cost --before target/before/lasthit
    ///     loadtest rules --close
    ///     loadtest rules --close --kill-worker --trials 20
    #[command(verbatim_doc_comment)]
    Rules(RulesArgs),
    /// The programs that `compare` starts
    #[command(subcommand, hide = true)]
    Part(Part),
    /// Kills, stops, pauses and cuts off gateways, workers and Redis by a seeded plan while players compete. Then compares what
    /// every player saw with the journal.
    ///
    /// Starts a private redis-server and all processes, and ends them. With --durability redis, Redis is stopped gracefully and
    /// never killed; with disk it is killed, too. Exit code 0 if the audit passed, 1 if it failed, 2 if there was no run, 130 if it
    /// was interrupted.
    ///
    ///     loadtest chaos --duration 5m --durability disk
    ///     loadtest chaos --duration 5m --rules examples/rules/arena.js
    #[command(verbatim_doc_comment)]
    Chaos(ChaosArgs),
    /// Checks that memory stays flat while rooms come and go. Compares the memory of Redis and of every process at the end of the
    /// run with that after one third of it.
    ///
    /// Starts a private redis-server and all processes, and ends them. Exit code 0 if nothing grew by more than a tenth and every
    /// visit to a room succeeded, 1 if not, 2 if there was no run, 130 if it was interrupted.
    Soak(SoakArgs),
}

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
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) gateways: u16,
    /// Number of workers
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) workers: u16,
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
    /// Faults in a minute. About four in ten are kills. A short run has more, so that every kind occurs once
    #[arg(long, default_value_t = 60, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=600))]
    pub(crate) faults_per_minute: u32,
    /// Kinds of faults to use [default: all]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KINDS")]
    pub(crate) only: Vec<Kind>,
    /// Number of gateways
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) gateways: u16,
    /// Number of workers
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) workers: u16,
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

/// Options of `curve`.
#[derive(Debug, Args)]
pub(crate) struct CurveArgs {
    /// Values of --sweep-guard-us to compare, in microseconds
    #[arg(long, value_delimiter = ',', value_name = "US", default_value = "0,5,10,20,50,100,200")]
    pub(crate) guards_us: Vec<u64>,
    /// Most races for each value and scenario
    #[arg(long, default_value_t = 800)]
    pub(crate) trials: u32,
    /// Time for the whole run. If it is too short for all races, there are fewer
    #[arg(long, default_value = "4m", value_parser = duration)]
    pub(crate) time: Duration,
    /// Seed of everything random [default: random; it is printed]
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Also write the figures into this JSON file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Also draw the figures into this SVG file
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

/// Options of `compare`.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// Folder with your own rivals, one per subfolder (bullmq, ws-room, groupmq, bullmq-queue). It is only read. Missing rivals
    /// come from loadtest/peers
    #[arg(long, value_name = "DIR")]
    pub(crate) peer: Option<PathBuf>,
    /// Also write ratios and figures into this JSON file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Also draw the figures into this SVG file
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Do only one round of short measurements, in under three minutes
    #[arg(long)]
    pub(crate) quick: bool,
    /// Measure only this part
    #[arg(long, value_enum, value_name = "PART")]
    pub(crate) only: Option<Only>,
}

/// Options of `stages`.
#[derive(Debug, Args)]
pub(crate) struct StagesArgs {
    /// Processes to start: gateways=2,workers=1
    #[arg(long, value_name = "WHAT", default_value = "gateways=2,workers=1")]
    pub(crate) spawn: Spawn,
    /// Rates to measure, in events a second
    #[arg(long, value_delimiter = ',', value_name = "RATES", default_value = "1000,40000")]
    pub(crate) rates: Vec<u32>,
    /// Number of sessions over all gateways
    #[arg(long, default_value_t = 100)]
    pub(crate) sessions: u32,
    /// Rooms that the sessions are spread over
    #[arg(long, default_value_t = 20)]
    pub(crate) rooms: u32,
    /// Time that each rate is measured
    #[arg(long, default_value = "5s", value_parser = duration, value_name = "TIME")]
    pub(crate) duration: Duration,
    /// Setting of lasthit, by the name of its flag: shards=16
    #[arg(long, value_parser = setting, value_name = "NAME=VALUE")]
    pub(crate) set: Vec<(String, String)>,
    /// Connect to Redis over TCP instead of its Unix socket
    #[arg(long)]
    pub(crate) tcp: bool,
    /// Compare values of one setting instead: shards=1,8,64, or redis=unix,tcp, or binary=FILE,FILE
    #[arg(long, value_name = "NAME=VALUES", conflicts_with = "svg")]
    pub(crate) vary: Option<Vary>,
    /// Number of turns that each value of --vary has
    #[arg(long, default_value_t = 3, value_name = "N", requires = "vary", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// Also write the figures into this JSON file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Also draw the figures into this SVG file
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

/// Options of `rules`.
#[derive(Debug, Args)]
pub(crate) struct RulesArgs {
    /// Measure only these [default: all; builtin_cost with --before]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAMES")]
    pub(crate) only: Vec<Bar>,
    /// Program of another build, with which the cost of built-in rules is compared
    #[arg(long, value_name = "FILE")]
    pub(crate) before: Option<PathBuf>,
    /// Number of turns of programs and built-in rules
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// Time that each median is measured. Other measurements are longer or shorter with it
    #[arg(long, default_value = "4s", value_parser = duration, value_name = "TIME")]
    pub(crate) duration: Duration,
    /// Do only one round of short measurements in few rooms: to see that it works
    #[arg(long)]
    pub(crate) quick: bool,
    /// Instead, let an auction close: bids just before and after it, through two gateways
    #[arg(long, conflicts_with_all = ["only", "before", "rounds", "duration", "quick"])]
    pub(crate) close: bool,
    /// How many microseconds before and after the close they are sent
    #[arg(long, default_value_t = 20, value_name = "US", requires = "close", value_parser = clap::value_parser!(u32).range(1..=CLOSE_APART_MAX_US))]
    pub(crate) apart_us: u32,
    /// Kill the only worker at each close, and start it again
    #[arg(long, requires = "close")]
    pub(crate) kill_worker: bool,
    /// Number of lots that are bid for at their moments [default: 1000, or 50 with --kill-worker]
    #[arg(long, requires = "close", value_name = "N")]
    pub(crate) trials: Option<u32>,
    /// Also write the figures into this JSON file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// Options of `even`.
#[derive(Debug, Args)]
pub(crate) struct EvenArgs {
    /// Start a private redis-server, and these processes under a supervisor
    #[arg(long, default_value = "up:gateways=8,workers=1", value_name = "WHAT")]
    pub(crate) spawn: Spawn,
    /// Number of sessions
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=EVEN_SESSIONS_MAX))]
    pub(crate) sessions: u32,
    /// Then kill one gateway with -9, and wait until the gateways are even again
    #[arg(long)]
    pub(crate) kill: bool,
    /// Also write the figures into this JSON file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// Options of `fair`.
#[derive(Debug, Args)]
pub(crate) struct FairArgs {
    /// Gateways to measure: ws://127.0.0.1:7777,ws://127.0.0.1:7779
    #[arg(long, value_delimiter = ',', value_parser = url, value_name = "URL", conflicts_with = "spawn")]
    pub(crate) url: Vec<String>,
    /// Start a private redis-server and these processes (gateways=2,workers=1), or one process without Redis (serve, with --same),
    /// and end them after the run. delay=20ms delays everything between the first gateway and Redis, each way
    #[arg(long, value_name = "WHAT")]
    pub(crate) spawn: Option<Spawn>,
    /// Admin addresses of the workers behind --url, to read how long they held events: 127.0.0.1:7779
    #[arg(long, value_delimiter = ',', value_name = "ADDRESS", conflicts_with = "spawn")]
    pub(crate) metrics: Vec<String>,
    /// Protocol of the gateways at --url
    #[arg(long, value_enum, default_value_t = Dialect::Lasthit)]
    pub(crate) dialect: Dialect,
    /// Also measure the usual stack: a Redis, two Node gateways, BullMQ and one worker. Without DIR, a copy of loadtest/peers/bullmq is
    /// used, and npm installs its packages. With DIR, the program in that folder is used, with its packages
    #[arg(long, value_name = "DIR")]
    pub(crate) peer: Option<Option<PathBuf>>,
    /// Times between the two players' sends, in microseconds
    #[arg(long, value_delimiter = ',', value_name = "US", default_value = "0,2,5,10,20,50,100,500,2000")]
    pub(crate) gaps_us: Vec<u64>,
    /// Races for each gap
    #[arg(long, default_value_t = 1000)]
    pub(crate) trials: u32,
    /// Claims a second that other sessions send at the same time
    #[arg(long, default_value_t = 1000, value_name = "RATE")]
    pub(crate) background: u32,
    /// Messages that each player sends right after its hit
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) burst: u32,
    /// Send each hit in two pieces, a random time of 0 to US microseconds apart
    #[arg(long, default_value_t = 0, value_name = "US")]
    pub(crate) split_us: u64,
    /// Connect both players to the same gateway
    #[arg(long)]
    pub(crate) same: bool,
    /// Seed of everything random [default: random; it is printed]
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Also write the figures into this JSON file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Also draw the figures into this SVG file
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

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
    /// Start a private redis-server and these processes (gateways=2,workers=2), or one process without Redis (serve), and end them
    /// after the run
    #[arg(long, value_name = "WHAT")]
    pub(crate) spawn: Option<Spawn>,
}

#[cfg(test)]
mod tests;

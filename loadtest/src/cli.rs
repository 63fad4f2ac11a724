//! The command line.

mod faults;
mod run;
mod scale;
mod supervised;
mod values;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::compare::Only;
use crate::limits::CLOSE_APART_MAX_US;
use crate::part::Part;
use crate::rules::Bar;
use crate::spawn::Spawn;
use crate::speak::dialect::Dialect;
use crate::stages::Vary;
pub(crate) use faults::{ChaosArgs, HostsArgs, SoakArgs};
pub(crate) use run::RunArgs;
pub(crate) use scale::ScaleArgs;
pub(crate) use supervised::{AutoArgs, DoorArgs, EvenArgs};
pub(crate) use values::duration;
use values::{setting, url};

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
    /// On a Redis Cluster of three primaries:
    ///
    ///     loadtest run --spawn cluster=3,gateways=2,workers=2 --rate 1000
    ///
    /// Find the highest rate with a p99 of at most 20 ms (the knee), between 2,000 and 100,000 a second:
    ///
    ///     loadtest run --spawn gateways=2,workers=1 --ramp 2000..100000 --p99 20ms
    ///
    /// Measure what other sessions notice when 1,000 sessions that missed everything reconnect:
    ///
    ///     loadtest run --spawn gateways=1,workers=1 --audience room --rejoin 1000
    ///
    /// Measure what players and further connections notice while processes are replaced and killed, one after the other:
    ///
    ///     loadtest run --spawn up:gateways=2,workers=2 --sessions 200 --connects 200 --during reload,exec,scale,crash,supervisor-stop
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
    /// Looks how evenly a supervisor spreads sessions over its gateways, also beside a Node cluster.
    ///
    /// Exit code 0 if there are figures, 2 if there are none, or if gateways do not become even again, 130 if it was interrupted.
    ///
    ///     loadtest even --spawn up:gateways=8,workers=1 --sessions 1000 --peer cluster --svg even.svg
    ///     loadtest even --spawn up:gateways=4,workers=1 --sessions 1000 --kill
    #[command(verbatim_doc_comment)]
    Even(EvenArgs),
    /// Measures what it costs to connect through a supervisor's door, beside connecting to a gateway that listens itself.
    ///
    /// Both are of one deployment and take turns. Exit code 0 if there are figures, 2 if there are none, 130 if it was interrupted.
    ///
    ///     loadtest door --json door.json
    #[command(verbatim_doc_comment)]
    Door(DoorArgs),
    /// Sends loads that rise and fall to a supervisor whose counts follow them, and prints these counts over time.
    ///
    /// Exit code 0 if the audit of every step passed, 1 if one failed, 2 if there was no run, 130 if it was interrupted.
    ///
    ///     loadtest auto --spawn up:gateways=auto:1..4,workers=1 --steps 1000:20s,40000:60s,1000:150s
    #[command(verbatim_doc_comment)]
    Auto(AutoArgs),
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
    /// Measures what a deployment costs as it grows: the same work on Redis Clusters of several sizes and on several hosts, in turns.
    ///
    /// Starts the clusters and all processes, and ends them. Every answer is audited. A model of the cost is fitted to the runs: what a call
    /// to Redis costs and each room in it, an event on a gateway and a worker, and what each process and node takes without load. It
    /// predicts each run from the others, and deployments of 10, 100 and 1,000 gateways with a million rooms. Further runs at lower rates
    /// and with fewer shards are for the model. Hosts on one machine differ by a time namespace, which needs root; without it, use
    /// --hosts 1. Exit code 0 if there are figures, 1 if lasthit broke a promise meanwhile, 2 if there are none, 130 if it was interrupted.
    ///
    ///     loadtest scale --nodes 1,3 --rate 5000
    ///     loadtest scale --nodes 1,2,3 --hosts 1,2,3 --shards 60 --rooms 1000 --rate 10000 --json scale.json --svg scale.svg
    #[command(verbatim_doc_comment)]
    Scale(ScaleArgs),
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
    ///     loadtest chaos --duration 5m --durability disk --supervised
    ///     loadtest chaos --duration 5m --rules examples/rules/arena.js
    ///
    /// On a Redis Cluster of three primaries with a replica each, or on a primary under three sentinels:
    ///
    ///     loadtest chaos --duration 5m --cluster 3x2 --durability replicated --faults-per-minute 20
    ///     loadtest chaos --duration 60s --cluster 3x2 --valkey --only node-kill,node-failover,slot-move-atomic --faults-per-minute 20
    ///     loadtest chaos --duration 2m --sentinel --only node-kill,minority --faults-per-minute 6
    #[command(verbatim_doc_comment)]
    Chaos(ChaosArgs),
    /// Plays over several hosts on this machine while they are killed, paused, cut off and drained. Each host is a network namespace and
    /// a time namespace, so that its clock is another; rooms move between them. Then compares what every player saw with the journal.
    ///
    /// Two rivals in each of some rooms claim a key 30 to 300 us apart: the first has to win, or a verdict has to be flagged. Needs root,
    /// `ip` and `nsenter`; starts a private redis-server and all processes, and ends them. Exit code 0 if the audit passed, 1 if it failed,
    /// 2 if there was no run, 130 if it was interrupted.
    ///
    ///     loadtest hosts --hosts 3 --duration 60s --json hosts.json
    ///     loadtest hosts --only drain,kill
    ///     loadtest hosts --cluster 3x2
    #[command(verbatim_doc_comment)]
    Hosts(HostsArgs),
    /// Is a host, for `hosts`
    #[command(hide = true)]
    Hold {
        /// How far its clock is ahead of the machine's, in nanoseconds
        ahead_ns: u64,
    },
    /// Checks that memory stays flat while rooms come and go. Compares the memory of Redis and of every process at the end of the
    /// run with that after one third of it.
    ///
    /// Starts a private redis-server and all processes, and ends them. Exit code 0 if nothing grew by more than a tenth and every
    /// visit to a room succeeded, 1 if not, 2 if there was no run, 130 if it was interrupted.
    Soak(SoakArgs),
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

#[cfg(test)]
mod tests;

//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::chaos::{Durability, Kind};
use crate::compare::Only;
use crate::load::knee::Ramp;
use crate::load::plan::CONTENDERS;
use crate::load::{Load, Pace};
use crate::part::Part;
use crate::spawn::Spawn;
use crate::speak::dialect::{Audience, Dialect};
use crate::stages::Vary;

/// Load, latency and audit runs against lasthit.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Sends claims by a schedule that waits for nobody (open loop), measures from the intended send and from the actual one,
    /// audits every answer.
    ///
    /// Exit code 0 when the audit passed, 1 when it failed, 2 when there was no run or the generator was saturated, 130 when it
    /// was interrupted.
    ///
    /// Latency and audit of what it starts itself, without Redis and with it:
    ///
    ///     loadtest run --spawn serve --rate 1000
    ///     loadtest run --spawn gateways=2,workers=1 --sessions 100 --rooms 20 --rate 10000 --html report.html
    ///
    /// The knee: the highest rate with a p99 of at most 20 ms, between 2,000 and 100,000 a second:
    ///
    ///     loadtest run --spawn gateways=2,workers=1 --ramp 2000..100000 --p99 20ms
    ///
    /// What others notice of a thousand sessions that come again and have missed everything:
    ///
    ///     loadtest run --spawn gateways=1,workers=1 --audience room --rejoin 1000
    ///
    /// What a system carries when every session waits for its answers, and what another system's gateways do:
    ///
    ///     loadtest run --url ws://127.0.0.1:7777 --closed --outstanding 4
    ///     loadtest run --url ws://127.0.0.1:8101,ws://127.0.0.1:8102 --dialect peer --rate 1000
    #[command(verbatim_doc_comment)]
    Run(RunArgs),
    /// Lets two rivals claim the same thing a known gap apart, and counts how often the first sender does not get it.
    ///
    /// Exit code 0 when everybody got what was theirs or was told that it was too close, 1 when not, 2 when there was no
    /// measurement, 130 when it was interrupted. With a peer only lasthit is judged.
    ///
    /// One run that compares both:
    ///
    ///     loadtest fair --spawn gateways=2,workers=1 --background 1000 --peer --svg fair.svg
    #[command(verbatim_doc_comment)]
    Fair(FairArgs),
    /// Measures what the guard of a gateway's sweep costs and buys: for each guard the decisions that were wrong or clamped,
    /// and how long verdicts took.
    ///
    /// Starts a private redis-server, two gateways and a worker per guard, and lets rivals race on one gateway and on two:
    /// idle, with others in the background, with hits in two pieces, and with several messages in one read. Exit code 0 when
    /// there is a curve, 2 when there is none, 130 when it was interrupted.
    Curve(CurveArgs),
    /// Measures lasthit beside what it stands in for, in turns, and holds the ratios against what they should be.
    ///
    /// Starts all it needs: a private redis-server for each, lasthit with and without Redis, a bare echo, and, with Node 20 or
    /// newer, the rivals in loadtest/peers, out of copies whose packages npm installs. Exit code 0 when there are figures, 2 when
    /// there are none, 130 when it was interrupted.
    ///
    ///     loadtest compare --json compare.json --svg compare.svg
    #[command(verbatim_doc_comment)]
    Compare(CompareArgs),
    /// Measures where the time of one event goes, stage by stage from the socket to the delivered verdict, and what an event
    /// costs: CPU time, system calls, commands and bytes of Redis.
    ///
    /// Starts a private redis-server and all processes for each rate, and ends them. With --vary, the same work runs under
    /// several settings in turns instead, and CPU time and latency are listed for each. Exit code 0 when there are figures, 2
    /// when there are none, 130 when it was interrupted.
    ///
    ///     loadtest stages --spawn gateways=1,workers=1 --rates 1000,20000 --svg stages.svg
    ///     loadtest stages --vary shards=1,8,64 --rooms 1000 --sessions 1000 --rates 10000
    #[command(verbatim_doc_comment)]
    Stages(StagesArgs),
    /// The programs that `compare` starts
    #[command(subcommand, hide = true)]
    Part(Part),
    /// Kills, stops, pauses and cuts off gateways, workers and Redis by a seeded plan while contests are played, then holds
    /// what every player saw against the journal.
    ///
    /// Starts a private redis-server and all processes, and ends them. At the level redis, Redis is ended in order and never
    /// killed; at disk it is killed too. Exit code 0 when the audit passed, 1 when it failed, 2 when there was no run, 130
    /// when it was interrupted.
    Chaos(ChaosArgs),
    /// Lets rooms come and go beside some that stay, and compares what Redis and every process take in the end with what
    /// they took at one third.
    ///
    /// Starts a private redis-server and all processes, and ends them. Exit code 0 when nothing grew by more than a tenth
    /// and every visit was answered, 1 when not, 2 when there was no run, 130 when it was interrupted.
    Soak(SoakArgs),
}

/// How many rooms, and how long.
#[derive(Debug, Args)]
pub(crate) struct SoakArgs {
    /// Rooms that come and go, evenly over the run, with two players each
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) rooms: u32,
    /// In which time
    #[arg(long, default_value = "10m", value_parser = duration)]
    pub(crate) duration: Duration,
    /// How long the workers keep what was resolved in rooms that stay
    #[arg(long, default_value = "60s", value_name = "TIME")]
    pub(crate) retention: String,
    /// How long an empty room stays
    #[arg(long, default_value = "1s", value_name = "TIME")]
    pub(crate) room_linger: String,
    /// Gateways
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) gateways: u16,
    /// Workers
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) workers: u16,
    /// Writes the report here as JSON, with all samples
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// What is broken, and who plays meanwhile.
#[derive(Debug, Args)]
pub(crate) struct ChaosArgs {
    /// How long things are broken: 20s, 5m
    #[arg(long, default_value = "60s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// Of the plan and the players; random when it is not given, and printed
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// How Redis is set up, and whether it is killed
    #[arg(long, value_enum, default_value_t = Durability::Redis)]
    pub(crate) durability: Durability,
    /// Faults in a minute, about four in ten of them kills; a short run has more, so that every kind is there once
    #[arg(long, default_value_t = 60, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=600))]
    pub(crate) faults_per_minute: u32,
    /// Only these kinds of faults
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KINDS")]
    pub(crate) only: Vec<Kind>,
    /// Gateways
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) gateways: u16,
    /// Workers
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) workers: u16,
    /// Players over all gateways
    #[arg(long, default_value_t = 48, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=5000))]
    pub(crate) players: u16,
    /// Rooms that they contend in
    #[arg(long, default_value_t = 12, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) rooms: u16,
    /// Actions a second over all players
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(crate) rate: u32,
    /// One more session floods, repeats, does not read and rejoins all the time; what it does to the others is measured
    #[arg(long, action = clap::ArgAction::Set, default_value_t = true, value_name = "BOOL")]
    pub(crate) rude: bool,
    /// Writes the report here as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// What is varied, and for how long.
#[derive(Debug, Args)]
pub(crate) struct CurveArgs {
    /// Guards to compare, in microseconds
    #[arg(long, value_delimiter = ',', value_name = "US", default_value = "0,5,10,20,50,100,200")]
    pub(crate) guards_us: Vec<u64>,
    /// Races for each guard and scenario, at most
    #[arg(long, default_value_t = 800)]
    pub(crate) trials: u32,
    /// How long all of it may take: when that is too short for the races, there are fewer
    #[arg(long, default_value = "4m", value_parser = duration)]
    pub(crate) time: Duration,
    /// Of all that is drawn; random when it is not given, and printed
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Writes the figures here as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Draws them here
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

/// What is compared.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// A folder with other programs for rivals, by their folders' names (bullmq, ws-room, groupmq, bullmq-queue); it is not
    /// written to. Those that it lacks come from loadtest/peers
    #[arg(long, value_name = "DIR")]
    pub(crate) peer: Option<PathBuf>,
    /// Writes ratios and figures here as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Draws them here
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// One round of short measurements, in under three minutes
    #[arg(long)]
    pub(crate) quick: bool,
    /// Measures only this part
    #[arg(long, value_enum, value_name = "PART")]
    pub(crate) only: Option<Only>,
}

/// What is taken apart.
#[derive(Debug, Args)]
pub(crate) struct StagesArgs {
    /// What to start: gateways=2,workers=1
    #[arg(long, value_name = "WHAT", default_value = "gateways=2,workers=1")]
    pub(crate) spawn: Spawn,
    /// Events a second; each rate is measured by itself
    #[arg(long, value_delimiter = ',', value_name = "RATES", default_value = "1000,40000")]
    pub(crate) rates: Vec<u32>,
    /// Sessions over all gateways
    #[arg(long, default_value_t = 100)]
    pub(crate) sessions: u32,
    /// Rooms that the sessions are spread over
    #[arg(long, default_value_t = 20)]
    pub(crate) rooms: u32,
    /// How long each is measured
    #[arg(long, default_value = "5s", value_parser = duration, value_name = "TIME")]
    pub(crate) duration: Duration,
    /// A setting of lasthit's, by the name of its flag: shards=16
    #[arg(long, value_parser = setting, value_name = "NAME=VALUE")]
    pub(crate) set: Vec<(String, String)>,
    /// Processes reach Redis over TCP instead of its Unix socket
    #[arg(long)]
    pub(crate) tcp: bool,
    /// Compares values of one setting instead: shards=1,8,64, or redis=unix,tcp, or binary=FILE,FILE
    #[arg(long, value_name = "NAME=VALUES", conflicts_with = "svg")]
    pub(crate) vary: Option<Vary>,
    /// With --vary: how often each value has its turn
    #[arg(long, default_value_t = 3, value_name = "N", requires = "vary", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// Writes the figures here as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Draws them here
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

/// How the rivals race.
#[derive(Debug, Args)]
pub(crate) struct FairArgs {
    /// The gateways: ws://127.0.0.1:7777,ws://127.0.0.1:7779
    #[arg(long, value_delimiter = ',', value_parser = url, value_name = "URL", conflicts_with = "spawn")]
    pub(crate) url: Vec<String>,
    /// Starts a private redis-server and processes (gateways=2,workers=1), or one process without Redis (serve, with
    /// --same), and ends them; delay=20ms makes everything between the first gateway and Redis that much later, each way
    #[arg(long, value_name = "WHAT")]
    pub(crate) spawn: Option<Spawn>,
    /// The admin addresses of the workers behind --url, for what they say about hold: 127.0.0.1:7778
    #[arg(long, value_delimiter = ',', value_name = "ADDRESS", conflicts_with = "spawn")]
    pub(crate) metrics: Vec<String>,
    /// What the gateways at --url speak
    #[arg(long, value_enum, default_value_t = Dialect::Lasthit)]
    pub(crate) dialect: Dialect,
    /// Measures the usual stack, too: starts a Redis, two gateways and a worker, and ends them. Without DIR it is a copy of
    /// loadtest/peers/bullmq whose packages npm installs; with DIR it is what lies there, packages and all
    #[arg(long, value_name = "DIR")]
    pub(crate) peer: Option<Option<PathBuf>>,
    /// Gaps between the rivals' sends, in microseconds
    #[arg(long, value_delimiter = ',', value_name = "US", default_value = "0,2,5,10,20,50,100,500,2000")]
    pub(crate) gaps_us: Vec<u64>,
    /// Races for each gap
    #[arg(long, default_value_t = 1000)]
    pub(crate) trials: u32,
    /// Claims a second that other sessions send meanwhile
    #[arg(long, default_value_t = 1000, value_name = "RATE")]
    pub(crate) background: u32,
    /// Messages that each rival sends right behind its hit
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) burst: u32,
    /// Sends each hit in two pieces, a random 0 to US microseconds apart
    #[arg(long, default_value_t = 0, value_name = "US")]
    pub(crate) split_us: u64,
    /// Both rivals on one gateway
    #[arg(long)]
    pub(crate) same: bool,
    /// Of all that is drawn; random when it is not given, and printed
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Writes the figures here as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Draws them here
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// What the gateways at --url speak
    #[arg(long, value_enum, default_value_t = Dialect::Lasthit)]
    pub(crate) dialect: Dialect,
    /// Sessions over all gateways
    #[arg(long, default_value_t = 50)]
    pub(crate) sessions: u32,
    /// Rooms that the sessions are spread over: new ones each time
    #[arg(long, default_value_t = 10)]
    pub(crate) rooms: u32,
    /// Actions a second over all sessions, whatever the answers do (open loop)
    #[arg(long, default_value_t = 1000, conflicts_with_all = ["closed", "ramp"])]
    pub(crate) rate: u32,
    /// Sends when the answer is there, instead of by a schedule: shows what a system carries, and hides how long it stalls
    #[arg(long, conflicts_with = "ramp")]
    pub(crate) closed: bool,
    /// Actions of a session that may wait for their answers at a time: 1 with --closed, as many as there are without. What is
    /// due beyond that is sent when answers come, and measured from when it was due
    #[arg(long, value_name = "N")]
    pub(crate) outstanding: Option<u32>,
    /// Finds the knee: the highest rate that holds --p99. FROM..TO, each rate twice the one before, or :1.5x, or :5000 more,
    /// then halves what lies between the last two
    #[arg(long, value_name = "FROM..TO[:STEP]")]
    pub(crate) ramp: Option<Ramp>,
    /// With --ramp: within what the slowest hundredth must be answered, from the intended send
    #[arg(long, default_value = "50ms", value_parser = duration, value_name = "TIME", requires = "ramp")]
    pub(crate) p99: Duration,
    /// How long is sent before anything is measured; 2s, or 1s for each step of a ramp
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub(crate) warm_up: Option<Duration>,
    /// How long is sent and measured (500ms, 10s, 2m); 10s, or 3s for each step of a ramp
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub(crate) duration: Option<Duration>,
    /// How long the last answers may take before they are lost
    #[arg(long, default_value = "10s", value_parser = duration, value_name = "TIME")]
    pub(crate) drain: Duration,
    /// Claims to one key
    #[arg(long, default_value_t = CONTENDERS, value_name = "N")]
    pub(crate) contenders: u32,
    /// Bytes of a claim's arguments
    #[arg(long, default_value_t = 64, value_name = "BYTES")]
    pub(crate) payload_bytes: usize,
    /// Who is told of a verdict
    #[arg(long, value_enum, default_value_t = Audience::Sender)]
    pub(crate) audience: Audience,
    /// How late one of a hundred sends may leave: beyond that the generator was saturated, and there is no report
    #[arg(long, default_value = "5ms", value_parser = duration, value_name = "TIME")]
    pub(crate) lateness_max: Duration,
    /// Measures twice; the second time so many sessions join the rooms of the first again, all at once, with an old since. Tells
    /// what the others notice
    #[arg(long, value_name = "N", conflicts_with_all = ["closed", "ramp", "html"], value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(crate) rejoin: Option<u32>,
    /// Shows no progress
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Writes the report here as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Writes the report here as a page that needs nothing else
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

impl RunArgs {
    /// What to measure.
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
            audience: self.audience,
            warm_up: seconds(self.warm_up, 2, 1),
            duration: seconds(self.duration, 10, 3),
            drain: self.drain,
            lateness_max: self.lateness_max,
            ..Load::new(self.dialect, urls, pace)
        }
    }
}

/// Against what.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Target {
    /// The gateways: ws://127.0.0.1:7777[,ws://127.0.0.1:7779]
    #[arg(long, value_delimiter = ',', value_parser = url, value_name = "URL")]
    pub(crate) url: Vec<String>,
    /// Starts a private redis-server and processes (gateways=2,workers=2), or one process without Redis (serve), and
    /// ends them
    #[arg(long, value_name = "WHAT")]
    pub(crate) spawn: Option<Spawn>,
}

fn url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("ws://").ok_or_else(|| format!("url {text:?} does not begin with ws://"))?;
    let host = rest.strip_suffix('/').unwrap_or(rest);
    if host.is_empty() || host.contains(['/', '?', '#', ' ']) {
        return Err(format!("url {text:?} is not of the form ws://host:port"));
    }
    Ok(format!("ws://{host}"))
}

fn setting(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(name, value)| !name.is_empty() && !value.is_empty());
    let (name, value) = parts.ok_or_else(|| format!("setting {text:?} is not of the form shards=16"))?;
    Ok((name.to_owned(), value.to_owned()))
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("duration {text:?} is not of the form 500ms, 10s or 2m");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let millis = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        _ => None,
    };
    // A day: longer is a slip of the finger, and no deadline overflows.
    millis.filter(|ms| *ms <= 86_400_000).map(Duration::from_millis).ok_or_else(wrong)
}

#[cfg(test)]
mod tests;

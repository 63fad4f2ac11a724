//! The command line. It only collects texts: [`Config::load`] judges them together with environment and file, so that
//! all mistakes are reported at once.

use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Parser, Subcommand};
use serde::Serialize;

use crate::config::{Config, ConfigError, Flags, ProcessRole};
use crate::replay::command::{Reading, Source, Task};

const ABOUT: &str = "Decides who was first: a game event sequencer with arrival order and exactly-once verdicts";

const SETTINGS: &str = "\
Every setting may also stand in the environment (--lease-ms is LASTHIT_LEASE_MS) and in the file that --config or
LASTHIT_CONFIG names (lease_ms = 1000). Flags win over the environment, the environment over the file.";

#[derive(Debug, Parser)]
#[command(name = "lasthit", version, about = ABOUT, after_help = SETTINGS, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Gateway and worker in one process, rooms in memory: nothing to install, nothing kept
    #[command(after_help = SERVE)]
    Serve {
        #[command(flatten)]
        durability: DurabilityArgs,
        #[command(flatten)]
        gateway: GatewayArgs,
        #[command(flatten)]
        worker: WorkerArgs,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Takes in players' WebSockets and stamps what arrives; start as many as wanted
    #[command(after_help = GATEWAY)]
    Gateway {
        #[command(flatten)]
        redis: RedisArgs,
        #[command(flatten)]
        durability: DurabilityArgs,
        #[command(flatten)]
        gateway: GatewayArgs,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Puts events in order, resolves rooms, commits verdicts; start as many as wanted
    #[command(after_help = WORKER)]
    Worker {
        #[command(flatten)]
        redis: RedisArgs,
        #[command(flatten)]
        durability: DurabilityArgs,
        #[command(flatten)]
        worker: WorkerArgs,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Resolves a recorded room again and compares verdict by verdict; exit code 1 when one deviates
    #[command(after_help = REPLAY)]
    Replay {
        #[command(flatten)]
        recording: RecordingArgs,
        /// A dump to read instead of Redis
        #[arg(long, value_name = "DUMP")]
        file: Option<PathBuf>,
        /// Writes JSON instead of prose
        #[arg(long)]
        json: bool,
    },
    /// Writes what Redis keeps of a room into a file, for replay and timeline
    #[command(after_help = DUMP)]
    Dump {
        #[command(flatten)]
        recording: RecordingArgs,
        /// Where to
        #[arg(long, value_name = "DUMP")]
        file: PathBuf,
    },
    /// Shows who arrived when in a contest, through which gateway, who won by how much, and what was flagged
    #[command(after_help = TIMELINE)]
    Timeline {
        #[command(flatten)]
        recording: RecordingArgs,
        /// A dump to read instead of Redis
        #[arg(long, value_name = "DUMP")]
        file: Option<PathBuf>,
        /// Which contest
        #[arg(long, value_name = "NAME")]
        contest: String,
        /// Which of its rounds [default: the last]
        #[arg(long, value_name = "N")]
        round: Option<u64>,
        /// Draws it here
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
        /// Writes JSON instead of prose
        #[arg(long)]
        json: bool,
    },
}

const REPLAY: &str = "\
Rooms are kept in Redis for the retention while they last; `lasthit dump` keeps one for longer. The rules come from the
file of --config, as a worker's do. Exit codes: 0 all the same, 1 something deviates, 2 it could not be resolved again.

Examples:
  lasthit replay --redis redis://127.0.0.1:6379 --room raid-7
  lasthit replay --file raid-7.dump --json";

const DUMP: &str = "\
Examples:
  lasthit dump --redis redis://127.0.0.1:6379 --room raid-7 --file raid-7.dump";

const TIMELINE: &str = "\
Examples:
  lasthit timeline --redis redis://127.0.0.1:6379 --room raid-7 --contest baron --svg baron.svg
  lasthit timeline --file raid-7.dump --contest baron --round 2 --json";

const SERVE: &str = "\
Examples:
  lasthit serve                                   then open http://127.0.0.1:7777/ in two tabs
  lasthit serve --listen 127.0.0.1:8000 --admin none
  LASTHIT_JWT_KEY=\"$(openssl rand -hex 32)\" lasthit serve --listen 0.0.0.0:7777
  lasthit serve --config lasthit.toml             with rules by room name:
      [[rooms]]
      pattern = \"quiz-*\"
      rules = \"claim\"          # or last_hit
      audience = \"room\"        # or sender; for claim only";

const GATEWAY: &str = "\
Examples:
  lasthit gateway --redis redis://127.0.0.1:6379
  lasthit gateway --redis unix:///run/redis.sock --listen 127.0.0.1:7787 --admin 127.0.0.1:7788
  LASTHIT_REDIS=rediss://user:password@redis.example:6380 \\
    lasthit gateway --listen 0.0.0.0:7777 --jwt-key-file /etc/lasthit/jwt.key --allowed-origins https://game.example";

const WORKER: &str = "\
A worker serves no health and metrics unless --admin gives it an address, so that several start side by side.

Examples:
  lasthit worker --redis redis://127.0.0.1:6379
  lasthit worker --redis redis://127.0.0.1:6379 --admin 127.0.0.1:7779 --concurrency 4 --lease-ms 2000";

#[derive(Debug, Args, Serialize)]
struct RedisArgs {
    /// redis://, rediss:// or unix://; with a password better in LASTHIT_REDIS, as process lists show flags
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// What every key begins with [default: lasthit]
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
    /// Groups of rooms that workers share; fixed for a deployment [default: 8]
    #[arg(long, value_name = "N")]
    shards: Option<String>,
}

/// Where a recorded room is, and by which rules it was played.
#[derive(Debug, Args)]
struct RecordingArgs {
    /// Which room; a dump holds one
    #[arg(long, value_name = "NAME")]
    room: Option<String>,
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    rules: RulesArgs,
}

#[derive(Debug, Args, Serialize)]
struct RulesArgs {
    /// A TOML file with the rules by room name
    #[arg(long, value_name = "FILE")]
    config: Option<String>,
}

#[derive(Debug, Args, Serialize)]
struct GatewayArgs {
    /// Where players connect [default: 127.0.0.1:7777]
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// Holds the key of the players' tokens (HS256); the key itself may stand in LASTHIT_JWT_KEY
    #[arg(long, value_name = "FILE")]
    jwt_key_file: Option<String>,
    /// Web pages that may connect, as https://a,https://b or * [default: loopback pages and the gateway's own]
    #[arg(long, value_name = "LIST")]
    allowed_origins: Option<String>,
    /// Let other hosts reach --listen without a key: anyone there may act as anyone
    #[arg(long)]
    allow_keyless: bool,
    /// Without a key, take any page for the gateway's own whose origin is the name it connects to: only where a name that
    /// somebody points at this host does no harm
    #[arg(long)]
    allow_host_names: bool,
    /// Sessions at once [default: 20000, or fewer where the limit of open files holds no more]
    #[arg(long, value_name = "N")]
    sessions_max: Option<String>,
    /// Sessions of one address; loopback, where proxies are, has no such bounds [default: 1000]
    #[arg(long, value_name = "N")]
    sessions_per_address: Option<String>,
    /// Connections that one address opens in a second [default: 200]
    #[arg(long, value_name = "N")]
    connections_per_second: Option<String>,
    /// Sessions of one player, servers excepted [default: 32]
    #[arg(long, value_name = "N")]
    sessions_per_player: Option<String>,
    /// Actions of one session in a second [default: 1000]
    #[arg(long, value_name = "N")]
    actions_per_second: Option<String>,
    /// How far a watermark stays behind the sweep that proves it [default: 20]; docs/arrival.md has the curve
    #[arg(long, value_name = "US")]
    sweep_guard_us: Option<String>,
    /// How much earlier than its stamp a message from another host may have reached this one [default: 0]; the network card's
    /// interrupt coalescing, docs/arrival.md
    #[arg(long, value_name = "US")]
    uncertainty_us: Option<String>,
}

#[derive(Debug, Args, Serialize)]
struct WorkerArgs {
    /// Rooms that are resolved at once [default: the cores]
    #[arg(long, value_name = "N")]
    concurrency: Option<String>,
    /// How long a gateway may owe its watermark before it is fenced [default: 1000]
    #[arg(long, value_name = "MS")]
    gateway_timeout_ms: Option<String>,
    /// How long rules may take over one event before they are given up [default: 2000]
    #[arg(long, value_name = "MS")]
    rules_timeout_ms: Option<String>,
    /// How long a silent worker keeps its shards [default: 1000]
    #[arg(long, value_name = "MS")]
    lease_ms: Option<String>,
    /// How long events and verdicts are kept for `since` and replay [default: 10m]
    #[arg(long, value_name = "TIME")]
    retention: Option<String>,
    /// How long a room may be empty before it ends [default: 30s]
    #[arg(long, value_name = "TIME")]
    room_linger: Option<String>,
}

#[derive(Debug, Args, Serialize)]
struct DurabilityArgs {
    /// What a verdict has survived before anyone sees it: redis, disk or replicated [default: redis; serve: nothing]
    #[arg(long, value_name = "LEVEL")]
    durability: Option<String>,
}

#[derive(Debug, Args, Serialize)]
struct CommonArgs {
    /// A TOML file with settings and rules by room name
    #[arg(long, value_name = "FILE")]
    config: Option<String>,
    /// Where health and metrics are served, or none [default: 127.0.0.1:7778; worker: none]
    #[arg(long, value_name = "IP:PORT")]
    admin: Option<String>,
    /// Let other hosts reach --admin, which has no password
    #[arg(long)]
    allow_remote_admin: bool,
    /// text or json, on stderr [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// error, warn, info, debug, trace, or target=level,... [default: info]
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

/// What became of a command line.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// To be run.
    Run(Box<Config>),
    /// A recorded room is to be read.
    Read(Reading, Box<Config>),
    /// Help or version was asked for: goes to stdout.
    Shown(String),
    /// Nothing to run: the lines go to stderr.
    Mistakes(Vec<String>),
}

/// Parses arguments (the program's name first) and loads the configuration from them and the environment.
#[must_use]
pub(crate) fn parse(args: impl IntoIterator<Item = std::ffi::OsString>, env: &dyn Fn(&str) -> Option<String>) -> Parsed {
    let command = match Cli::try_parse_from(args) {
        Ok(cli) => cli.command,
        Err(error) => {
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Parsed::Shown(error.render().to_string()),
                _ => Parsed::Mistakes(vec![one_line(&error)]),
            };
        }
    };
    let (role, flags) = match command {
        Command::Serve { durability, gateway, worker, common } => {
            (ProcessRole::Serve, Flags::of(&durability).and(&gateway).and(&worker).and(&common))
        }
        Command::Gateway { redis, durability, gateway, common } => {
            (ProcessRole::Gateway, Flags::of(&redis).and(&durability).and(&gateway).and(&common))
        }
        Command::Worker { redis, durability, worker, common } => {
            (ProcessRole::Worker, Flags::of(&redis).and(&durability).and(&worker).and(&common))
        }
        Command::Replay { recording, file, json } => return read(recording, file, json, Task::Replay, env),
        Command::Dump { recording, file } => return read(recording, None, false, Task::Dump(file), env),
        Command::Timeline { recording, file, contest, round, svg, json } => {
            return read(recording, file, json, Task::Timeline { contest, round, svg }, env);
        }
    };
    match Config::load(role, flags, env) {
        Ok(config) => Parsed::Run(Box::new(config)),
        Err(ConfigError { mistakes }) => Parsed::Mistakes(mistakes),
    }
}

fn read(args: RecordingArgs, file: Option<PathBuf>, json: bool, task: Task, env: &dyn Fn(&str) -> Option<String>) -> Parsed {
    let mut mistakes = Vec::new();
    let from_redis = file.is_none();
    let room = args.room.map(|room| room.parse().map_err(|e| mistakes.push(format!("--room: {e}"))));
    let source = match (room, file) {
        (Some(Err(())), _) => None,
        (Some(Ok(room)), None) => Some(Source::Redis(room)),
        (room, Some(file)) => Some(Source::File(file, room.and_then(Result::ok))),
        (None, None) => {
            mistakes.push("room is missing: give --room".to_owned());
            None
        }
    };
    let loaded = Config::load_for_replay(Flags::of(&args.redis).and(&args.rules), env, from_redis);
    match (source, loaded) {
        (Some(source), Ok(config)) => Parsed::Read(Reading { source, json, task }, Box::new(config)),
        (_, loaded) => {
            mistakes.extend(loaded.err().into_iter().flat_map(|e| e.mistakes));
            Parsed::Mistakes(mistakes)
        }
    }
}

/// Clap's message spans lines (what, tips, usage): the first says what, the tips how to fix it.
fn one_line(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "a command is missing: use serve, gateway, worker, replay, dump or timeline; see lasthit --help".to_owned();
    }
    if let (ErrorKind::MissingRequiredArgument, Some(ContextValue::Strings(missing))) =
        (error.kind(), error.get(ContextKind::InvalidArg))
    {
        return format!("{} is missing; see --help", missing.join(" and "));
    }
    let text = error.render().to_string();
    let lines = text.lines().map(str::trim);
    let told: Vec<&str> = lines
        .filter(|line| line.starts_with("error: ") || line.starts_with("tip: "))
        .map(|line| line.trim_start_matches("error: ").trim_start_matches("tip: "))
        .collect();
    format!("{}; see --help", told.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_is_a_setting_of_the_same_name() {
        use clap::CommandFactory as _;
        for command in Cli::command().get_subcommands().filter(|c| !["replay", "dump", "timeline"].contains(&c.get_name())) {
            for flag in command.get_arguments().filter_map(clap::Arg::get_long).filter(|long| *long != "help") {
                let key = flag.replace('-', "_");
                assert!(crate::config::is_setting(&key), "--{flag} of {}", command.get_name());
            }
        }
    }

    #[test]
    fn flags_reach_the_configuration() {
        let args =
            ["lasthit", "gateway", "--redis", "redis://h", "--listen", "0.0.0.0:1", "--allow-keyless", "--sessions-max", "7"];
        let Parsed::Run(config) = parse(args.map(Into::into), &|_| None) else { panic!("runs") };
        assert_eq!((config.role, config.sessions_max, config.allow_keyless), (ProcessRole::Gateway, Some(7), true));
        assert_eq!(config.listen.to_string(), "0.0.0.0:1");
    }

    #[test]
    fn recordings_are_read_from_redis_or_a_file() {
        let parse = |line: &str| parse(line.split(' ').map(Into::into), &|_| None);
        let Parsed::Read(reading, config) = parse("lasthit replay --room r --redis redis://h --prefix p") else {
            panic!("reads")
        };
        assert_eq!((reading.source, config.prefix.as_str()), (Source::Redis("r".parse().expect("room")), "p"));
        let Parsed::Read(reading, _) = parse("lasthit timeline --file d --contest c --round 2 --json") else { panic!("reads") };
        assert!(reading.json && reading.source == Source::File("d".into(), None), "{reading:?}");
        for (line, expected) in [
            ("lasthit replay --room r", "redis is missing: give --redis redis://127.0.0.1:6379, or --file with a dump"),
            ("lasthit replay --redis redis://h", "room is missing: give --room"),
            ("lasthit replay --room a/b --redis redis://h", "a/b"),
            ("lasthit dump --file d --redis redis://h", "room is missing"),
            ("lasthit timeline --room r --redis redis://h", "--contest <NAME> is missing"),
        ] {
            let Parsed::Mistakes(lines) = parse(line) else { panic!("{line}") };
            assert!(lines.len() == 1 && lines[0].contains(expected), "{line}: {lines:?}");
        }
    }

    #[test]
    fn what_clap_refuses_is_one_line() {
        for (args, expected) in [
            (vec!["lasthit"], "a command is missing"),
            (vec!["lasthit", "fly"], "'fly'"),
            (vec!["lasthit", "serve", "--listne", "x"], "'--listen'"),
            (vec!["lasthit", "serve", "--listen"], "--listen"),
            (vec!["lasthit", "serve", "--redis", "redis://h"], "--redis"),
        ] {
            let Parsed::Mistakes(lines) = parse(args.into_iter().map(Into::into), &|_| None) else { panic!("{expected}") };
            assert!(lines.len() == 1 && lines[0].contains(expected) && !lines[0].contains('\n'), "{lines:?}");
        }
    }
}

//! The command line. It only collects texts. [`Config::load`] checks them together with environment and file, so that
//! all mistakes are reported at once.

mod control;
mod failed;
mod hosts;
mod roles;
mod rules;

use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Parser, Subcommand};
use serde::Serialize;

use self::roles::{CommonArgs, DurabilityArgs, GatewayArgs, RedisArgs, UpArgs, WorkerArgs};
use crate::child::settings as child;
use crate::config::{Config, ConfigError, Flags, ProcessRole};
use crate::failed::Looking;
use crate::hosts::Placing;
use crate::replay::command::{Reading, Source, Task};
use crate::supervisor::asking::Asking;
use crate::versions::Managing;
use crate::workbench::Work;

const ABOUT: &str = "Decides who was first: sequences game events by arrival, and decides each one exactly once";

const SETTINGS: &str = "\
Each setting but --rules is also an environment variable (LASTHIT_LEASE_MS for --lease-ms) and a name in the TOML file that --config or
LASTHIT_CONFIG gives (lease_ms = 1000). A flag overrides the environment, and the environment overrides the file.";

#[derive(Debug, Parser)]
#[command(name = "lasthit", version, about = ABOUT, after_help = SETTINGS, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one of it")]
enum Command {
    /// Runs a gateway and a worker in one process. Rooms are in memory and end with the process
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
    /// Runs a gateway: accepts players' WebSockets and stamps their actions. Run as many as you like
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
    /// Runs a worker: puts events in order, resolves them, commits the verdicts. Run as many as you like
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
    /// Resolves a recorded room again and compares each verdict with the recorded one
    #[command(after_help = REPLAY)]
    Replay {
        #[command(flatten)]
        recording: RecordingArgs,
        /// Dump to read instead of Redis
        #[arg(long, value_name = "DUMP")]
        file: Option<PathBuf>,
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// Writes a room's recording from Redis into a file, for replay and timeline
    #[command(after_help = DUMP)]
    Dump {
        #[command(flatten)]
        recording: RecordingArgs,
        /// File to write
        #[arg(long, value_name = "DUMP")]
        file: PathBuf,
    },
    /// Shows who arrived when in a contest, on which gateway, who won and by how much, and which verdicts are flagged
    #[command(after_help = TIMELINE)]
    Timeline {
        #[command(flatten)]
        recording: RecordingArgs,
        /// Dump to read instead of Redis
        #[arg(long, value_name = "DUMP")]
        file: Option<PathBuf>,
        /// Contest to show
        #[arg(long, value_name = "NAME")]
        contest: String,
        /// Round of the contest [default: the last]
        #[arg(long, value_name = "N")]
        round: Option<u64>,
        /// Also draw the contest into this SVG file
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// Runs gateways and workers on one port, starts them again when they fail, and looks after them
    #[command(after_help = UP)]
    Up {
        #[command(flatten)]
        up: UpArgs,
        #[command(flatten)]
        redis: RedisArgs,
        #[command(flatten)]
        durability: DurabilityArgs,
        #[command(flatten)]
        gateway: GatewayArgs,
        #[command(flatten)]
        worker: WorkerArgs,
        #[command(flatten)]
        common: CommonArgs,
    },
    #[command(flatten)]
    Control(control::Tool),
    /// A process that a supervisor started
    #[command(hide = true)]
    Child {
        /// Its name
        name: String,
    },
    /// Says on stdout whether this program can take the place of the supervisor that asks on stdin
    #[command(hide = true)]
    Takeover,
    #[command(flatten)]
    Hosts(hosts::Tool),
    /// Lists, shows and drops the events that rules failed on
    #[command(after_help = failed::EXAMPLES)]
    Failed {
        #[command(subcommand)]
        tool: failed::Tool,
    },
    /// Helps to write rules in JavaScript, and changes them while rooms are played
    #[command(after_help = rules::EXAMPLES)]
    Rules {
        #[command(subcommand)]
        tool: rules::Tool,
    },
}

const REPLAY: &str = "\
Redis keeps a room's events and verdicts for the workers' --retention, and only until the room ends. To keep them longer, use
`lasthit dump`. If the workers have a --config file with rules, give the same file here.

Exit codes: 0 if all verdicts are the same, 1 if one differs, 2 if the room could not be resolved again.

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
  lasthit serve --rules examples/rules/arena.js --watch
  lasthit serve --listen 127.0.0.1:8000 --admin none
  LASTHIT_JWT_KEY=\"$(openssl rand -hex 32)\" lasthit serve --listen 0.0.0.0:7777
  lasthit serve --config lasthit.toml             with rules by room name:
      [[rooms]]
      pattern = \"quiz-*\"
      rules = \"claim\"          # or last_hit, or { file = \"baron.js\" }
      audience = \"room\"        # or sender; for claim only";

const GATEWAY: &str = "\
Examples:
  lasthit gateway --redis redis://127.0.0.1:6379
  lasthit gateway --redis unix:///run/redis.sock --listen 127.0.0.1:7787 --admin 127.0.0.1:7788
  LASTHIT_REDIS=rediss://user:password@redis.example:6380 \\
    lasthit gateway --listen 0.0.0.0:7777 --jwt-key-file /etc/lasthit/jwt.key --allowed-origins https://game.example";

const UP: &str = "\
Without --redis it runs a Redis of its own (redis-server must be installed), and keeps its data in --data over restarts.

Examples:
  lasthit up
  lasthit up --redis redis://127.0.0.1:6379
  lasthit up --redis unix:///run/redis.sock --gateways 2 --workers auto:1..4 --listen 0.0.0.0:7777 --jwt-key-file /etc/lasthit/jwt.key
  lasthit up --redis redis://10.0.0.5:6379 --gateways 0 --workers 4        workers only: gateways run elsewhere";

const WORKER: &str = "\
A worker serves health and metrics only if --admin gives it an address, so that several workers can run on one machine.

Examples:
  lasthit worker --redis redis://127.0.0.1:6379
  lasthit worker --redis redis://127.0.0.1:6379 --admin 127.0.0.1:7779 --concurrency 4 --lease-ms 2000";

/// A recorded room and its rules.
#[derive(Debug, Args)]
struct RecordingArgs {
    /// Room to read. A dump holds only one
    #[arg(long, value_name = "NAME")]
    room: Option<String>,
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    rules: RulesArgs,
}

#[derive(Debug, Args, Serialize)]
struct RulesArgs {
    /// Rules in JavaScript, as the workers have
    #[arg(long, value_name = "FILE")]
    rules: Option<String>,
    /// TOML file with the rules by room name
    #[arg(long, value_name = "FILE")]
    config: Option<String>,
}

/// What a command line asks for.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// Run a role.
    Run(Box<Config>),
    /// Run gateways and workers, with these settings.
    Up(Box<Config>, child::Settings),
    /// Ask a running supervisor.
    Ask(Asking),
    /// Run what a supervisor wants of the process of this name.
    Child(String),
    /// Say whether this program can take a supervisor's place.
    Takeover,
    /// Read a recorded room.
    Read(Reading, Box<Config>),
    /// Work on a program.
    Work(Work),
    /// Look after the programs of a deployment.
    Manage(Managing, Box<Config>),
    /// Look after failed events.
    Look(Looking, Box<Config>),
    /// Look after hosts and homes.
    Place(Placing, Box<Config>),
    /// Print the help or the version on stdout.
    Shown(String),
    /// Report mistakes on stderr, one line each.
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
        Command::Rules { tool } => return tool.parse(env),
        Command::Failed { tool } => return look(tool, env),
        Command::Hosts(tool) => return place(tool, env),
        Command::Child { name } => return Parsed::Child(name),
        Command::Takeover => return Parsed::Takeover,
        Command::Control(tool) => return Parsed::Ask(tool.asking(env)),
        Command::Up { up, redis, durability, gateway, worker, common } => {
            let flags = Flags::of(&up).and(&redis).and(&durability).and(&gateway).and(&worker).and(&common);
            let gathered = child::Settings::gather(&flags, env).map_err(|mistake| ConfigError { mistakes: vec![mistake] });
            return match gathered.and_then(|settings| Ok((settings.of_supervisor()?, settings))) {
                Ok((config, settings)) => Parsed::Up(Box::new(config), settings),
                Err(ConfigError { mistakes }) => Parsed::Mistakes(mistakes),
            };
        }
    };
    match Config::load(role, flags, env) {
        Ok(config) => Parsed::Run(Box::new(config)),
        Err(ConfigError { mistakes }) => Parsed::Mistakes(mistakes),
    }
}

fn place(tool: hosts::Tool, env: &dyn Fn(&str) -> Option<String>) -> Parsed {
    let (placing, mistake, common) = match tool.read() {
        Ok((placing, common)) => (Some(placing), None, common),
        Err((mistake, common)) => (None, Some(mistake), common),
    };
    let loaded = Config::load_to_read(Flags::of(&common.redis), env, Some(""));
    match (placing, loaded) {
        (Some(placing), Ok(config)) => Parsed::Place(placing, Box::new(config)),
        (_, loaded) => Parsed::Mistakes(mistake.into_iter().chain(loaded.err().into_iter().flat_map(|e| e.mistakes)).collect()),
    }
}

fn look(tool: failed::Tool, env: &dyn Fn(&str) -> Option<String>) -> Parsed {
    let (looking, mistake, common) = match tool.read() {
        Ok((looking, common)) => (Some(looking), None, common),
        Err((mistake, common)) => (None, Some(mistake), common),
    };
    let loaded = Config::load_to_read(Flags::of(&common.redis), env, Some(""));
    match (looking, loaded) {
        (Some(looking), Ok(config)) => Parsed::Look(looking, Box::new(config)),
        (_, loaded) => Parsed::Mistakes(mistake.into_iter().chain(loaded.err().into_iter().flat_map(|e| e.mistakes)).collect()),
    }
}

fn read(args: RecordingArgs, file: Option<PathBuf>, json: bool, task: Task, env: &dyn Fn(&str) -> Option<String>) -> Parsed {
    let mut mistakes = Vec::new();
    let from_redis = file.is_none();
    let source = Source::of(args.room, file).map_err(|mistake| mistakes.push(mistake)).ok();
    let loaded =
        Config::load_to_read(Flags::of(&args.redis).and(&args.rules), env, from_redis.then_some(", or --file with a dump"));
    match (source, loaded) {
        (Some(source), Ok(config)) => Parsed::Read(Reading { source, json, task }, Box::new(config)),
        (_, loaded) => {
            mistakes.extend(loaded.err().into_iter().flat_map(|e| e.mistakes));
            Parsed::Mistakes(mistakes)
        }
    }
}

/// Clap's error as one line: its message and its tips, without the usage.
fn one_line(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        if error.render().to_string().contains("lasthit failed") {
            return "a command is missing: use list, show or drop; see lasthit failed --help".to_owned();
        }
        if error.render().to_string().contains("lasthit rules") {
            return "a command is missing: use new, check, test, bench, push, list, try or drop; see lasthit rules --help"
                .to_owned();
        }
        return "a command is missing: use serve, up, gateway, worker, ps, replay, dump, timeline, failed or rules; see lasthit --help"
            .to_owned();
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

    /// Commands whose flags are settings.
    const WITH_SETTINGS: [&str; 4] = ["serve", "up", "gateway", "worker"];

    #[test]
    fn every_flag_is_a_setting_of_the_same_name() {
        use clap::CommandFactory as _;
        let cli = Cli::command();
        for name in WITH_SETTINGS {
            let command = cli.find_subcommand(name).expect("a command");
            for flag in command.get_arguments().filter_map(clap::Arg::get_long).filter(|long| *long != "help") {
                let key = flag.replace('-', "_");
                assert!(crate::config::is_setting(&key), "--{flag} of {name}");
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

//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::frame::Encoding;
use crate::spawn::Spawn;

/// Load, latency and audit runs against lasthit.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Sends claims by an open-loop schedule, measures from the intended send, audits every answer.
    ///
    /// Exit code 0 when the audit passed, 1 when it failed, 2 when there was no run, 130 when it was interrupted.
    Run(RunArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Sessions over all gateways
    #[arg(long, default_value_t = 50)]
    pub(crate) sessions: u32,
    /// Rooms that the sessions are spread over, named load-0, load-1, ...
    #[arg(long, default_value_t = 10)]
    pub(crate) rooms: u32,
    /// Actions a second over all sessions
    #[arg(long, default_value_t = 1000)]
    pub(crate) rate: u32,
    /// How long actions are sent: 500ms, 10s, 2m
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// How long the last answers may take before they are lost
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub(crate) drain: Duration,
    /// How the sessions speak
    #[arg(long, value_enum, default_value_t = Encoding::Msgpack)]
    pub(crate) encoding: Encoding,
    /// Writes the report here as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
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
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<RunArgs, String> {
        let cli = Cli::try_parse_from(line.split_whitespace()).map_err(|e| e.to_string())?;
        let Command::Run(args) = cli.command;
        Ok(args)
    }

    #[test]
    fn a_whole_line() {
        let args = parse("loadtest run --url ws://a:1,ws://b:2/ --sessions 5 --rooms 2 --rate 9 --duration 500ms").expect("args");
        assert_eq!(args.target.url, ["ws://a:1", "ws://b:2"]);
        assert_eq!((args.sessions, args.rooms, args.rate, args.duration), (5, 2, 9, Duration::from_millis(500)));
        assert_eq!(args.encoding, Encoding::Msgpack);
        assert!(parse("loadtest run --spawn gateways=2,workers=1").is_ok());
    }

    #[test]
    fn a_target_is_one_of_two() {
        assert!(parse("loadtest run").is_err());
        assert!(parse("loadtest run --url ws://a:1 --spawn serve").is_err());
    }

    #[test]
    fn mistakes_name_the_value() {
        for (line, named) in [
            ("--url http://a", "http://a"),
            ("--url wss://a", "wss://a"),
            ("--url ws://a:1/room", "ws://a:1/room"),
            ("--url ws://a --duration 10", "\"10\""),
            ("--url ws://a --duration 9999999999999999999m", "9999999999999999999m"),
            ("--url ws://a --duration 25h", "25h"),
            ("--spawn gateways=0,workers=1", "gateways"),
            ("--spawn redis", "redis"),
        ] {
            let error = parse(&format!("loadtest run {line}")).expect_err(line);
            assert!(error.contains(named), "{error}");
        }
    }
}

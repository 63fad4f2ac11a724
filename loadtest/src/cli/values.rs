//! Values of options, out of their text.

use std::time::Duration;

use crate::limits::SPAWN_MAX;
use crate::spawn::{Count, Spawn};

pub(super) fn url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("ws://").ok_or_else(|| format!("url {text:?} does not begin with ws://"))?;
    let host = rest.strip_suffix('/').unwrap_or(rest);
    if host.is_empty() || host.contains(['/', '?', '#', ' ']) {
        return Err(format!("url {text:?} is not of the form ws://host:port"));
    }
    Ok(format!("ws://{host}"))
}

pub(super) fn setting(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(name, value)| !name.is_empty() && !value.is_empty());
    let (name, value) = parts.ok_or_else(|| format!("setting {text:?} is not of the form shards=16"))?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
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
    // More than a day is a typing error, and a deadline could overflow.
    millis.filter(|ms| *ms <= 86_400_000).map(Duration::from_millis).ok_or_else(wrong)
}

/// Gateways and workers of a supervisor.
pub(super) fn counts(text: &str) -> Result<(u16, u16), String> {
    match format!("up:{text}").parse() {
        Ok(Spawn::Up { gateways: Count::Fixed(gateways), workers: Count::Fixed(workers) }) => Ok((gateways, workers)),
        _ => Err(format!("counts {text:?} are not of the form gateways=2,workers=2, of 1 to {SPAWN_MAX} each")),
    }
}

/// What sessions do when a gateway asks them to move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Moves {
    /// They connect again first, and change over when nothing is unanswered.
    Follow,
    /// They stay until they are closed.
    Ignore,
}

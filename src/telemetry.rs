//! Log lines on stderr: text for people, or JSON.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{fmt, registry};

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is invalid.
    #[error("log filter {0:?} is not valid: use a level such as info, or target=level,...")]
    Filter(String),
    /// Logging was set up before.
    #[error("logging was set up twice in one process")]
    Twice,
}

/// Parses a filter: a level, or `target=level,...`.
pub(crate) fn filter(text: &str) -> Result<Targets, TelemetryError> {
    let refused = || TelemetryError::Filter(text.to_owned());
    if text.is_empty() { Err(refused()) } else { text.parse().map_err(|_| refused()) }
}

/// Starts logging, for the whole process. `text` is a level, or `target=level,...`.
pub fn init(format: LogFormat, text: &str) -> Result<(), TelemetryError> {
    let subscriber = registry().with(filter(text)?);
    // A line that cannot be written is dropped. Reporting the failure to the same stderr would panic.
    let lines = fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    match format {
        LogFormat::Text => subscriber.with(lines.with_ansi(std::io::stderr().is_terminal())).try_init(),
        LogFormat::Json => {
            subscriber.with(lines.json().flatten_event(true).with_current_span(true).with_span_list(false)).try_init()
        }
    }
    .map_err(|_| TelemetryError::Twice)
}

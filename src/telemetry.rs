//! Log lines on stderr: text for people, or JSON.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error("log filter {0:?} is not valid: use a level such as info, or target=level,...")]
    Filter(String),
    /// The process logs already.
    #[error("logging was set up twice in one process")]
    Twice,
}

/// Starts logging, for the whole process. `filter` holds `EnvFilter` directives.
///
/// # Errors
/// When the filter is invalid, or when the process has a subscriber.
pub fn init(format: LogFormat, filter: &str) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(filter).map_err(|_| TelemetryError::Filter(filter.to_owned()))?;
    // A line that cannot be written is lost and nothing else: complaining about it on the same stderr would panic.
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init(),
    }
    .map_err(|_| TelemetryError::Twice)
}

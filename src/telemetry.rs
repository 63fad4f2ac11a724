//! Log lines on stderr: text for people, or JSON.

use std::io::{IsTerminal as _, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

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
    start(format, text, std::io::stderr)
}

/// The same, for processes that must not wait for whoever reads the lines: what cannot be written in time is dropped and counted. Keep
/// what is returned until the end: it writes the last lines.
///
/// # Panics
/// When no thread can start.
pub(crate) fn init_without_waiting(format: LogFormat, text: &str) -> Result<Waiting, TelemetryError> {
    let waiting = Waiting::start();
    let writer = waiting.clone();
    start(format, text, move || writer.clone()).map(|()| waiting)
}

fn start<W>(format: LogFormat, text: &str, writer: W) -> Result<(), TelemetryError>
where
    W: for<'a> fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    let subscriber = registry().with(filter(text)?);
    // A line that cannot be written is dropped. Reporting the failure to the same stderr would panic.
    let lines = fmt::layer().with_writer(writer).log_internal_errors(false);
    match format {
        LogFormat::Text => subscriber.with(lines.with_ansi(std::io::stderr().is_terminal())).try_init(),
        LogFormat::Json => {
            subscriber.with(lines.json().flatten_event(true).with_current_span(true).with_span_list(false)).try_init()
        }
    }
    .map_err(|_| TelemetryError::Twice)
}

/// Lines that wait to be written; further ones are dropped.
const LINES_WAITING: usize = 4_096;
/// How long the end of a process waits for its last lines.
const LAST_LINES_PATIENCE: Duration = Duration::from_millis(200);

/// Lines on their way to stderr. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    lines: SyncSender<Vec<u8>>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    waiting: AtomicU64,
    dropped: AtomicU64,
}

impl Waiting {
    /// A thread writes them: nobody else waits for it.
    fn start() -> Self {
        let (lines, written) = sync_channel::<Vec<u8>>(LINES_WAITING);
        let counts = Arc::new(Counts::default());
        let counted = counts.clone();
        let write = move || {
            while let Ok(line) = written.recv() {
                let dropped = counted.dropped.swap(0, Ordering::Relaxed);
                if dropped > 0 {
                    let _ = writeln!(
                        std::io::stderr(),
                        "lasthit: {dropped} lines were dropped, as they could not be written in time"
                    );
                }
                let _ = std::io::stderr().write_all(&line);
                counted.waiting.fetch_sub(1, Ordering::Release);
            }
        };
        let thread = std::thread::Builder::new().name("log".to_owned()).spawn(write);
        drop(thread.expect("a thread for the log"));
        Self { lines, counts }
    }

    /// Waits a moment for the lines that are not written yet.
    pub(crate) fn finish(&self) {
        let step = Duration::from_millis(2);
        for _ in 0..LAST_LINES_PATIENCE.as_millis() / step.as_millis() {
            if self.counts.waiting.load(Ordering::Acquire) == 0 {
                return;
            }
            std::thread::sleep(step);
        }
    }
}

impl Write for Waiting {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.counts.waiting.fetch_add(1, Ordering::Relaxed);
        if self.lines.try_send(line.to_vec()).is_err() {
            self.counts.waiting.fetch_sub(1, Ordering::Relaxed);
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

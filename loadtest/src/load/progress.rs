//! The progress of a run, on standard error.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _, stderr};

use tokio::time::sleep;

use super::client::Run;
use super::phases::Phases;
use crate::limits::{PROGRESS_INTERVAL, PROGRESS_LINE_INTERVAL};

/// How it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// One line that lives.
    Live,
    /// Now and then a line.
    Lines,
    Quiet,
}

/// The progress of one run.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    form: Form,
    what: String,
}

impl Progress {
    /// A line that lives on a terminal, plain lines elsewhere.
    pub(crate) fn new(quiet: bool) -> Self {
        let form = match (quiet, stderr().is_terminal()) {
            (true, _) => Form::Quiet,
            (false, true) => Form::Live,
            (false, false) => Form::Lines,
        };
        Self { form, what: String::new() }
    }

    /// The same, and each line begins with what is run.
    pub(crate) fn of(&self, what: impl Into<String>) -> Self {
        Self { what: what.into(), ..self.clone() }
    }

    /// Tells until it is dropped.
    pub(crate) async fn show(&self, run: &Run) -> Infallible {
        let _clear = (self.form == Form::Live).then(|| Clear);
        loop {
            match self.form {
                Form::Live => {
                    sleep(PROGRESS_INTERVAL).await;
                    let line: String = self.line(run).chars().take(LINE_CHARS_MAX).collect();
                    eprint!("\r{line}\x1b[K");
                    // A terminal that is gone is no reason to end.
                    let _ = stderr().flush();
                }
                Form::Lines => {
                    sleep(PROGRESS_LINE_INTERVAL).await;
                    eprintln!("{}", self.line(run));
                }
                Form::Quiet => std::future::pending().await,
            }
        }
    }

    fn line(&self, run: &Run) -> String {
        let counts = run.tally.lock();
        let (now, end) = (run.elapsed().min(run.end).as_secs(), run.end.as_secs());
        let (sent, latency) = (counts.audit.sent_count(), &counts.record.latency);
        let mut line = format!(
            "{}{now}/{end} s  {sent} sent",
            if self.what.is_empty() { String::new() } else { format!("{}  ", self.what) }
        );
        // Writing into a String cannot fail.
        let _ = match latency.count() {
            0 => write!(line, "  warming up"),
            n => write!(line, "  {n} measured  p50 {} µs  p99 {} µs", latency.quantile_us(0.5), latency.quantile_us(0.99)),
        };
        if let Some(phase) = counts.phases.as_ref().and_then(Phases::current) {
            let _ = write!(line, "  {phase}");
        }
        if counts.broken > 0 {
            let _ = write!(line, "  {} sessions broke", counts.broken);
        }
        line
    }
}

/// A line that is longer than the terminal would not be drawn over.
const LINE_CHARS_MAX: usize = 79;

/// Takes the line off the terminal.
struct Clear;

impl Drop for Clear {
    fn drop(&mut self) {
        eprint!("\r\x1b[K");
    }
}

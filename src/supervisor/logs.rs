//! What children write: each line, with the name of its process before it, goes to stderr and to whoever follows. Nobody waits for it:
//! what cannot be written in time is dropped and counted.

use std::collections::VecDeque;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::sync::broadcast;

use crate::limits::{LOG_LINE_BYTES_MAX, LOG_LINES_KEPT, LOG_LINES_WAITING};
use crate::telemetry::LogFormat;

/// Where lines go. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Logs(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    format: LogFormat,
    lines: SyncSender<String>,
    dropped: Arc<AtomicU64>,
    kept: Mutex<VecDeque<String>>,
    followers: broadcast::Sender<String>,
}

/// The process that is no child of a plan, and whose lines are text.
pub(super) const REDIS: &str = "redis";

impl Logs {
    /// Starts the thread that writes.
    pub(super) fn start(format: LogFormat) -> std::io::Result<Self> {
        let (lines, written) = sync_channel::<String>(LOG_LINES_WAITING);
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = dropped.clone();
        std::thread::Builder::new().name("logs".to_owned()).spawn(move || {
            while let Ok(line) = written.recv() {
                let mut stderr = std::io::stderr().lock();
                let lost = counted.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    let _ =
                        writeln!(stderr, "lasthit: {lost} lines of the log were dropped, as they could not be written in time");
                }
                let _ = writeln!(stderr, "{line}");
            }
        })?;
        let (kept, followers) = (Mutex::default(), broadcast::Sender::new(LOG_LINES_WAITING));
        Ok(Self(Arc::new(Shared { format, lines, dropped, kept, followers })))
    }

    /// Takes in what a process writes, until it closes.
    pub(super) async fn read(self, process: String, output: impl AsyncRead + Unpin) {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        loop {
            line.clear();
            let most = LOG_LINE_BYTES_MAX as u64;
            match (&mut output).take(most).read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) => return,
                Ok(_) => self.write(&process, String::from_utf8_lossy(&line).trim_end()),
            }
        }
    }

    fn write(&self, process: &str, text: &str) {
        let line = match (self.0.format, text.strip_prefix('{')) {
            (LogFormat::Json, Some(rest)) => format!("{{\"process\":\"{process}\",{rest}"),
            (LogFormat::Json, None) if process == REDIS => serde_json::json!({ "process": process, "message": text }).to_string(),
            _ => format!("{process:<10} | {text}"),
        };
        {
            let mut kept = self.0.kept.lock();
            if kept.len() >= LOG_LINES_KEPT {
                kept.pop_front();
            }
            kept.push_back(line.clone());
            // Under the lock, so that who begins to follow misses nothing and sees nothing twice.
            let _ = self.0.followers.send(line.clone());
        }
        if let Err(TrySendError::Full(_)) = self.0.lines.try_send(line) {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The last line of a process that says something, without its name.
    pub(super) fn last_of(&self, process: &str) -> Option<String> {
        let (kept, name) = (self.0.kept.lock(), format!("{process:<10} | "));
        let said = |line: &String| match serde_json::from_str::<serde_json::Value>(line) {
            Ok(object) if object["process"] == process => object["message"].as_str().map(str::to_owned),
            _ => line.strip_prefix(&name).map(str::to_owned),
        };
        kept.iter().rev().filter_map(said).find(|said| !said.is_empty())
    }

    /// The last lines, and those that follow.
    pub(super) fn follow(&self) -> (Vec<String>, broadcast::Receiver<String>) {
        let kept = self.0.kept.lock();
        (kept.iter().cloned().collect(), self.0.followers.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_named_cut_and_kept() {
        let logs = Logs::start(LogFormat::Text).expect("started");
        let long = "x".repeat(LOG_LINE_BYTES_MAX + 5);
        logs.clone().read("gateway-1".to_owned(), [b"one\n\xff", long.as_bytes(), b"\nlast"].concat().as_slice()).await;
        let (kept, mut follow) = logs.follow();
        assert_eq!((kept.len(), &*kept[0], &*kept[3]), (4, "gateway-1  | one", "gateway-1  | last"));
        assert_eq!(logs.last_of("gateway-1").as_deref(), Some("last"));
        assert!(kept[1].len() <= LOG_LINE_BYTES_MAX + 20);
        for n in 0..LOG_LINES_KEPT {
            logs.write("worker-1", &n.to_string());
        }
        assert_eq!(follow.recv().await.expect("a line"), "worker-1   | 0");
        assert_eq!(logs.follow().0.len(), LOG_LINES_KEPT);
    }

    #[tokio::test]
    async fn json_has_a_field() {
        let logs = Logs::start(LogFormat::Json).expect("started");
        logs.write("eu/worker-1", r#"{"level":"INFO"}"#);
        logs.write("eu/worker-1", "panicked");
        logs.write(REDIS, "7:M * \"Ready\"");
        let lines = [
            r#"{"process":"eu/worker-1","level":"INFO"}"#,
            "eu/worker-1 | panicked",
            r#"{"message":"7:M * \"Ready\"","process":"redis"}"#,
        ];
        assert_eq!(logs.follow().0, lines);
        assert_eq!((logs.last_of(REDIS).as_deref(), logs.last_of("worker-1")), (Some("7:M * \"Ready\""), None));
    }
}

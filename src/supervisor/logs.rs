//! What children write: each line, with the name of its process before it, goes to stderr and to whoever follows. Nobody waits for it:
//! what cannot be written in time is dropped and counted.

use std::collections::VecDeque;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::children::Begun;
use crate::limits::{LOG_FLUSH_TIMEOUT, LOG_LINE_BYTES_MAX, LOG_LINES_KEPT, LOG_LINES_WAITING};
use crate::runtime::start_thread;
use crate::telemetry::LogFormat;

/// Where lines go. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Logs(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    format: LogFormat,
    lines: SyncSender<String>,
    dropped: Arc<AtomicU64>,
    waiting: Arc<AtomicU64>,
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
        let waiting = Arc::new(AtomicU64::new(0));
        let (counted, left) = (dropped.clone(), waiting.clone());
        start_thread("logs", move || {
            while let Ok(line) = written.recv() {
                let mut stderr = std::io::stderr().lock();
                let lost = counted.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    let _ =
                        writeln!(stderr, "lasthit: {lost} lines of the log were dropped, as they could not be written in time");
                }
                let _ = writeln!(stderr, "{line}");
                left.fetch_sub(1, Ordering::Release);
            }
        })?;
        let (kept, followers) = (Mutex::default(), broadcast::Sender::new(LOG_LINES_WAITING));
        Ok(Self(Arc::new(Shared { format, lines, dropped, waiting, kept, followers })))
    }

    /// Takes in what a process writes, after what has come of a line, until it closes. Returns where it is when it is stopped.
    pub(super) async fn read(self, process: &str, output: OwnedFd, begun: Vec<u8>, stop: &CancellationToken) -> Option<Begun> {
        let mut output = Receiver::from_owned_fd(output).ok()?;
        let begun = self.take_in(process, &mut output, begun, stop).await?;
        Some((output.into_nonblocking_fd().ok()?, begun))
    }

    /// None: it is closed.
    pub(super) async fn take_in(
        &self,
        process: &str,
        output: &mut (impl AsyncRead + Unpin),
        begun: Vec<u8>,
        stop: &CancellationToken,
    ) -> Option<Vec<u8>> {
        let mut bytes = begun;
        loop {
            while let Some(end) = end_of_line(&bytes) {
                self.write(process, String::from_utf8_lossy(&bytes[..end]).trim_end());
                bytes.drain(..end);
            }
            let room = LOG_LINE_BYTES_MAX.saturating_sub(bytes.len()) as u64;
            let mut more = (&mut *output).take(room);
            let read = tokio::select! {
                biased;
                () = stop.cancelled() => return Some(bytes),
                read = more.read_buf(&mut bytes) => read,
            };
            if !matches!(read, Ok(1..)) {
                if !bytes.is_empty() {
                    self.write(process, String::from_utf8_lossy(&bytes).trim_end());
                }
                return None;
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
        self.0.waiting.fetch_add(1, Ordering::Relaxed);
        if let Err(TrySendError::Full(_)) = self.0.lines.try_send(line) {
            self.0.waiting.fetch_sub(1, Ordering::Relaxed);
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

    /// The lines that are kept, and how many are lost: those that could not be written, and those that cannot be written soon.
    pub(super) fn park(&self) -> (Vec<String>, u64) {
        for _ in 0..LOG_FLUSH_TIMEOUT.as_millis() {
            if self.0.waiting.load(Ordering::Acquire) == 0 {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let kept = self.0.kept.lock().iter().cloned().collect();
        (kept, self.0.dropped.load(Ordering::Relaxed) + self.0.waiting.load(Ordering::Relaxed))
    }

    /// Goes on where another image was.
    pub(super) fn resume(&self, kept: Vec<String>, lost: u64) {
        self.0.kept.lock().extend(kept);
        self.0.dropped.fetch_add(lost, Ordering::Relaxed);
    }

    /// The last lines, and those that follow.
    pub(super) fn follow(&self) -> (Vec<String>, broadcast::Receiver<String>) {
        let kept = self.0.kept.lock();
        (kept.iter().cloned().collect(), self.0.followers.subscribe())
    }
}

/// Where the first line of some bytes ends. What is too long is cut.
fn end_of_line(bytes: &[u8]) -> Option<usize> {
    let end = bytes.iter().take(LOG_LINE_BYTES_MAX).position(|byte| *byte == b'\n').map(|at| at + 1);
    end.or_else(|| (bytes.len() >= LOG_LINE_BYTES_MAX).then_some(LOG_LINE_BYTES_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_named_cut_and_kept() {
        let logs = Logs::start(LogFormat::Text).expect("started");
        let long = "x".repeat(LOG_LINE_BYTES_MAX + 5);
        let bytes = [b"one\n\xff", long.as_bytes(), b"\nlast"].concat();
        let go_on = CancellationToken::new();
        assert_eq!(logs.take_in("gateway-1", &mut bytes.as_slice(), Vec::new(), &go_on).await, None);
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

    /// The next image gets the pipe, and what of a line has come.
    #[tokio::test]
    async fn a_line_that_has_begun_goes_on_after_a_stop() {
        use std::io::Write as _;
        let logs = Logs::start(LogFormat::Text).expect("started");
        let (read, mut write) = std::io::pipe().expect("a pipe");
        write.write_all(b"one\nt\xc3").expect("written");
        let stop = CancellationToken::new();
        let reading = logs.clone();
        let (stopped, was) =
            (stop.clone(), tokio::spawn(async move { reading.read("worker-1", read.into(), Vec::new(), &stop).await }));
        while logs.follow().0.is_empty() {
            tokio::task::yield_now().await;
        }
        stopped.cancel();
        let (read, begun) = was.await.expect("stopped").expect("it is open");
        assert_eq!(begun, b"t\xc3");
        write.write_all(b"\xb6\n").expect("written");
        drop(write);
        let (kept, lost) = logs.park();
        let next = Logs::start(LogFormat::Text).expect("started");
        next.resume(kept, lost);
        assert!(next.clone().read("worker-1", read, begun, &CancellationToken::new()).await.is_none());
        assert_eq!((next.follow().0, lost), (vec!["worker-1   | one".to_owned(), "worker-1   | t\u{f6}".to_owned()], 0));
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

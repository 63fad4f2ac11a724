//! Which commands a Redis was sent, and which its scripts made.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

/// How often a watch that nothing comes to looks whether it is over.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Bytes of a line that are looked at.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// Calls of each command.
pub(crate) type Calls = BTreeMap<String, u64>;

/// Out of `INFO commandstats`; a subcommand counts for its command.
pub(crate) fn calls(info: &str) -> Calls {
    let mut calls = Calls::new();
    for line in info.lines() {
        let Some((name, rest)) = line.strip_prefix("cmdstat_").and_then(|line| line.split_once(":calls=")) else { continue };
        let count = rest.split(',').next().and_then(|count| count.parse::<u64>().ok()).unwrap_or(0);
        let name = name.split('|').next().unwrap_or(name);
        *calls.entry(name.to_owned()).or_default() += count;
    }
    calls
}

/// Out of `INFO memory`, in bytes.
pub(crate) fn used_memory(info: &str) -> Result<u64> {
    let line = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
    line.and_then(|bytes| bytes.trim().parse().ok()).context("redis does not tell its used_memory")
}

/// What MONITOR told: of each command, all calls and those of scripts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Watched(BTreeMap<String, (u64, u64)>);

impl Watched {
    /// One line: `+1700000000.123456 [0 lua] "HSET" "key" ...`.
    fn line(&mut self, line: &str) {
        let Some((source, command)) = line.split_once(" [").and_then(|(_, rest)| rest.split_once("] \"")) else { return };
        let Some((name, _)) = command.split_once('"') else { return };
        let (all, nested) = self.0.entry(name.to_ascii_lowercase()).or_default();
        *all += 1;
        *nested += u64::from(source.ends_with(" lua"));
    }

    /// Whether scripts were among what was watched.
    pub(crate) fn saw_scripts(&self) -> bool {
        self.0.values().any(|(_, nested)| *nested > 0)
    }

    /// Commands that were sent between two counts. A command that was not watched counts as sent.
    #[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^52")]
    pub(crate) fn sent(&self, before: &Calls, after: &Calls) -> f64 {
        let sent = after.iter().map(|(name, calls)| {
            let calls = calls.saturating_sub(before.get(name).copied().unwrap_or(0)) as f64;
            let share = self.0.get(name).map_or(1.0, |(all, nested)| 1.0 - *nested as f64 / *all as f64);
            calls * share
        });
        sent.sum()
    }
}

/// A Redis that is watched, on a thread of its own.
#[derive(Debug)]
pub(crate) struct Monitor {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<std::io::Result<Watched>>>,
}

impl Monitor {
    pub(crate) fn start(socket: &Path) -> Result<Self> {
        let mut stream = UnixStream::connect(socket).context("redis does not answer")?;
        stream.set_read_timeout(Some(LOOK_INTERVAL))?;
        stream.write_all(b"MONITOR\r\n")?;
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        Ok(Self { over, thread: Some(std::thread::spawn(move || watch(BufReader::new(stream), &told))) })
    }

    pub(crate) fn end(mut self) -> Result<Watched> {
        self.over.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("the watch was ended twice")?;
        let watched = thread.join().map_err(|_| anyhow!("the watch on redis failed"))?;
        watched.context("redis cannot be watched")
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn watch(mut reader: impl BufRead, over: &AtomicBool) -> std::io::Result<Watched> {
    let (mut watched, mut line) = (Watched::default(), Vec::new());
    while !over.load(Ordering::Relaxed) {
        match reader.read_until(b'\n', &mut line) {
            Ok(0) => break,
            Ok(_) if line.last() == Some(&b'\n') => {
                watched.line(&String::from_utf8_lossy(&line));
                line.clear();
            }
            Ok(_) => {}
            // The beginning of a line stays until its end comes.
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) && line.len() < LINE_BYTES_MAX => {}
            Err(e) => return Err(e),
        }
    }
    Ok(watched)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_scripts_call_is_not_sent() {
        let before = calls("# Commandstats\r\ncmdstat_evalsha:calls=10,usec=1\r\ncmdstat_publish:calls=5,usec=1\r\n");
        let after = calls(
            "# Commandstats\r\ncmdstat_evalsha:calls=30,usec=9,usec_per_call=0.3\r\ncmdstat_publish:calls=45,usec=1\r\n\
             cmdstat_hset:calls=60,usec=1\r\ncmdstat_script|load:calls=2,usec=1\r\ncmdstat_script|exists:calls=1,usec=1\r\n",
        );
        let log = "+OK\r\n\
                   +1700000000.1 [0 unix:/tmp/s] \"EVALSHA\" \"ab\" \"] \\\"x\\\"\"\r\n\
                   +1700000000.2 [0 lua] \"HSET\" \"k\"\r\n\
                   +1700000000.3 [0 lua] \"PUBLISH\" \"c\" \"m\"\r\n\
                   +1700000000.4 [0 127.0.0.1:5] \"publish\" \"c\" \"m\"\r\n";
        let watched = watch(log.as_bytes(), &AtomicBool::new(false)).expect("watched");
        assert_eq!(watched.0["publish"], (2, 1));
        // 20 scripts, half of 40 publications, no hset, three that were not watched.
        assert_eq!(watched.sent(&before, &after), 43.0);
    }

    #[test]
    fn memory_is_read() {
        assert_eq!(used_memory("# Memory\r\nused_memory:123456\r\nused_memory_human:1M\r\n").expect("bytes"), 123_456);
        assert!(used_memory("").is_err());
    }
}

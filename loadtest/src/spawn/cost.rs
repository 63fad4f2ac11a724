//! What running processes have cost so far, as the kernel counts it.

use std::time::Duration;

use anyhow::{Context, Result};

use super::Fleet;

/// A tick of the times in `/proc`: 100 a second to every program, whatever the kernel counts in.
const TICK: Duration = Duration::from_millis(10);

impl Fleet {
    /// CPU time of all its processes, user and system, since their start.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let mut ticks = 0;
        for process in &self.processes {
            let pid = process.pid().with_context(|| format!("{} has ended", process.name()))?;
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("/proc tells no CPU times here")?;
            ticks += cpu_ticks(&stat).with_context(|| format!("/proc/{pid}/stat is not understood"))?;
        }
        Ok(TICK * ticks)
    }

    /// Actions that its gateways have taken in.
    pub(crate) async fn data_events(&self) -> Result<u64> {
        let mut events = 0;
        for process in self.processes.iter().filter(|p| p.name().starts_with("gateway")) {
            events += data_events(&process.metrics().await?);
        }
        Ok(events)
    }

    /// Resident size of all gateways, in KiB.
    pub(crate) fn gateways_resident_kib(&self) -> Result<u64> {
        let mut kib = 0;
        for process in self.processes.iter().filter(|p| p.name().starts_with("gateway")) {
            let pid = process.pid().with_context(|| format!("{} has ended", process.name()))?;
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("/proc tells no sizes here")?;
            kib += resident_kib(&status).with_context(|| format!("/proc/{pid}/status is not understood"))?;
        }
        Ok(kib)
    }
}

/// User and system time out of `/proc/PID/stat`; the name in it may hold anything, so it is counted from its end.
fn cpu_ticks(stat: &str) -> Option<u32> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u32>().ok();
    Some(next()? + next()?)
}

/// Out of a gateway's metrics; none before the first.
fn data_events(metrics: &str) -> u64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix("lasthit_events_total{kind=\"data\"} "));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

fn resident_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_counts_are_read() {
        let stat = "71 (a) b (c) S 1 71 71 0 -1 4194560 900 10 0 0 123 45 6 7 20 0 1 0 100 9000 300 18446744073709551615";
        assert_eq!(cpu_ticks(stat), Some(168));
        assert_eq!(cpu_ticks("71 (a) S 1 2"), None);
        assert_eq!(resident_kib("VmPeak:\t 9 kB\nVmRSS:\t    5120 kB\nThreads: 1\n"), Some(5120));
        assert_eq!(resident_kib("VmPeak:\t 9 kB\n"), None);
        let metrics = "lasthit_events_total{kind=\"open\"} 7\nlasthit_events_total{kind=\"data\"} 42\n";
        assert_eq!((data_events(metrics), data_events("")), (42, 0));
    }
}

//! The costs of running processes so far, according to the kernel, their own metrics and Redis.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::unistd::Pid;
use redis::{Client, Cmd, FromRedisValue, cmd};

use super::Fleet;
use super::process::Process;

/// A tick of the times in `/proc`: 100 a second to every program, whatever the kernel counts in.
const TICK: Duration = Duration::from_millis(10);

/// What processes have cost since their start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    /// CPU time, user and system.
    pub(crate) cpu: Duration,
    /// How often they gave their core up because they had nothing to do.
    pub(crate) slept: u64,
    /// How often it was taken from them.
    pub(crate) preempted: u64,
    /// Calls of read and write and their like, as `/proc` counts them: what goes through sockets' own calls is not among them.
    pub(crate) reads_and_writes: u64,
}

impl Cost {
    /// Both together.
    pub(crate) fn add(&mut self, other: Self) {
        self.cpu += other.cpu;
        self.slept += other.slept;
        self.preempted += other.preempted;
        self.reads_and_writes += other.reads_and_writes;
    }

    /// What came since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            slept: self.slept.saturating_sub(before.slept),
            preempted: self.preempted.saturating_sub(before.preempted),
            reads_and_writes: self.reads_and_writes.saturating_sub(before.reads_and_writes),
        }
    }

    fn of(process: &Process) -> Result<Self> {
        let pid = pid(process)?;
        let mut cost =
            Self { cpu: TICK * cpu_ticks(&proc(pid, "stat")?).context("a stat is not understood")?, ..Self::default() };
        // Only for processes of the same user, and not on every kernel.
        if let Ok(io) = proc(pid, "io") {
            cost.reads_and_writes = field(&io, "syscr:").unwrap_or(0) + field(&io, "syscw:").unwrap_or(0);
        }
        // The process' own file is its first thread's.
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).context("/proc lists no threads here")? {
            // A thread that ends meanwhile takes its counts along.
            let Ok(status) = std::fs::read_to_string(task?.path().join("status")) else { continue };
            cost.slept += field(&status, "voluntary_ctxt_switches:").unwrap_or(0);
            cost.preempted += field(&status, "nonvoluntary_ctxt_switches:").unwrap_or(0);
        }
        Ok(cost)
    }
}

/// What the threads of a process have used that are there, to the nanosecond: the ticks of [`Cost`] are coarser than what a process takes
/// without load.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Time {
    pub(crate) cpu: Duration,
    /// How often they gave their core up because they had nothing to do.
    pub(crate) slept: u64,
}

impl Time {
    /// Of any process.
    pub(crate) fn of(pid: Pid) -> Result<Self> {
        let mut time = Self::default();
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).context("/proc lists no threads here")? {
            let path = task?.path();
            // A thread that ends meanwhile takes its counts along.
            let Ok(scheduled) = std::fs::read_to_string(path.join("schedstat")) else { continue };
            let Ok(status) = std::fs::read_to_string(path.join("status")) else { continue };
            let ns = scheduled.split_whitespace().next().and_then(|ns| ns.parse().ok());
            time.cpu += Duration::from_nanos(ns.context("this kernel keeps no times of threads (CONFIG_SCHED_INFO)")?);
            time.slept += field(&status, "voluntary_ctxt_switches:").unwrap_or(0);
        }
        Ok(time)
    }
}

impl Fleet {
    /// What its processes have cost, by kind: `gateway`, `worker`, `serve`, `redis`.
    pub(crate) fn costs(&self) -> Result<BTreeMap<String, Cost>> {
        let mut costs: BTreeMap<String, Cost> = BTreeMap::new();
        for process in &self.processes {
            costs.entry(kind(process).to_owned()).or_default().add(Cost::of(process)?);
        }
        Ok(costs)
    }

    /// The ids of its processes, by kind.
    pub(crate) fn pids(&self) -> Result<BTreeMap<String, Vec<Pid>>> {
        let mut pids: BTreeMap<String, Vec<Pid>> = BTreeMap::new();
        for process in &self.processes {
            pids.entry(kind(process).to_owned()).or_default().push(pid(process)?);
        }
        Ok(pids)
    }

    /// CPU time of all its processes, user and system, since their start.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        Ok(self.costs()?.values().map(|cost| cost.cpu).sum())
    }

    /// What lasthit's processes show as metrics.
    pub(crate) async fn shown(&self) -> Result<Vec<String>> {
        let mut shown = Vec::new();
        for process in self.processes.iter().filter(|process| !process.is_redis()) {
            shown.push(process.metrics().await?);
        }
        Ok(shown)
    }

    /// A counter or gauge, named with its labels, of all its processes together.
    pub(crate) async fn counted(&self, name: &str) -> Result<u64> {
        Ok(self.shown().await?.iter().map(|text| counter(text, name)).sum())
    }

    /// Actions that its gateways have taken in.
    pub(crate) async fn data_events(&self) -> Result<u64> {
        let mut events = 0;
        for process in self.processes.iter().filter(|process| matches!(kind(process), "gateway" | "serve")) {
            events += data_events(&process.metrics().await?);
        }
        Ok(events)
    }

    /// Resident size of all processes of a kind, in KiB.
    pub(crate) fn resident_kib(&self, of: &str) -> Result<u64> {
        let sizes = self.processes.iter().filter(|process| kind(process) == of).map(resident_bytes);
        Ok(sizes.sum::<Result<u64>>()? / 1024)
    }

    /// Asks its Redis.
    pub(crate) fn ask_redis<T: FromRedisValue>(&self, question: &Cmd) -> Result<T> {
        ensure!(self.processes.iter().any(Process::is_redis), "there is no redis");
        let client = Client::open(format!("unix://{}", self.redis_socket().display()))?;
        let mut connection = client.get_connection().context("redis does not answer")?;
        Ok(question.query(&mut connection)?)
    }

    /// A section of what its Redis tells of itself.
    pub(crate) fn redis_info(&self, section: &str) -> Result<String> {
        self.ask_redis(cmd("INFO").arg(section))
    }
}

/// Memory of a process that is in use and in place.
pub(crate) fn resident_bytes(process: &Process) -> Result<u64> {
    Ok(1024 * field(&proc(pid(process)?, "status")?, "VmRSS:").context("a status is not understood")?)
}

/// What it is: its name without a number.
fn kind(process: &Process) -> &str {
    process.name().split('-').next().unwrap_or_default()
}

fn pid(process: &Process) -> Result<Pid> {
    process.pid().with_context(|| format!("{} has ended", process.name()))
}

fn proc(pid: Pid, file: &str) -> Result<String> {
    std::fs::read_to_string(format!("/proc/{pid}/{file}")).with_context(|| format!("/proc/{pid}/{file} cannot be read"))
}

/// User and system time out of `/proc/PID/stat`; the name in it may hold anything, so it is counted from its end.
fn cpu_ticks(stat: &str) -> Option<u32> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u32>().ok();
    Some(next()? + next()?)
}

/// Actions taken in, out of a process's metrics; none before the first.
pub(crate) fn data_events(metrics: &str) -> u64 {
    counter(metrics, "lasthit_events_total{kind=\"data\"}")
}

/// A counter, named with its labels, out of a process's metrics; 0 before it was first counted.
pub(crate) fn counter(metrics: &str, name: &str) -> u64 {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok()).unwrap_or(0)
}

/// The number behind a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
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
        let status = "VmPeak:\t 9 kB\nVmRSS:\t    5120 kB\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t3\n";
        assert_eq!(field(status, "VmRSS:"), Some(5120));
        assert_eq!(field(status, "voluntary_ctxt_switches:"), Some(7));
        assert_eq!(field("VmPeak:\t 9 kB\n", "VmRSS:"), None);
        let metrics = "lasthit_events_total{kind=\"open\"} 7\nlasthit_events_total{kind=\"data\"} 42\nlasthit_flushes_total 5\n";
        assert_eq!((data_events(metrics), data_events("")), (42, 0));
        assert_eq!((counter(metrics, "lasthit_flushes_total"), counter(metrics, "lasthit_flushes")), (5, 0));
    }

    #[test]
    fn costs_are_counted_from_the_start() {
        let cost = |ms, n| Cost { cpu: Duration::from_millis(ms), slept: n, preempted: n, reads_and_writes: n };
        let mut both = cost(10, 1);
        both.add(cost(20, 2));
        assert_eq!(both, cost(30, 3));
        assert_eq!(both.since(cost(10, 1)), cost(20, 2));
    }
}

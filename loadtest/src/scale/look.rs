//! Counters of processes and nodes at one moment, and what came between two.

use std::time::Duration;

use anyhow::{Context, Result};
use lasthit::internals::metrics::{COMMITS_TOTAL, FLUSHES_TOTAL};
use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::Pid;
use tokio::time::Instant;

use super::fleet::Fleet;
use crate::spawn::process::Process;
use crate::spawn::{Time, counter, data_events, resident_bytes};

/// A node, or what came between two looks at it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Node {
    /// CPU time, in seconds.
    pub(super) cpu: f64,
    /// How often it had nothing to do.
    pub(super) sleeps: f64,
    /// Those of scripts among them.
    pub(super) commands: f64,
    /// Scripts that were called.
    pub(super) calls: f64,
    /// Entries that were added to streams: one for each room of a flush or commit.
    added: f64,
    /// Rooms of a commit behind its first: a commit looks at the stream of each.
    further: f64,
    /// At the later look.
    pub(super) connections: f64,
    pub(super) bytes: f64,
}

/// A moment.
#[derive(Debug)]
pub(super) struct Look {
    at: Instant,
    nodes: Vec<Node>,
    gateway: Spent,
    worker: Spent,
    generator: Duration,
    events: u64,
    flushes: u64,
    commits: u64,
}

/// What processes of a kind have used, or do in a second; their memory is that of the later moment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Spent {
    pub(super) cpu: f64,
    pub(super) sleeps: f64,
    /// Resident.
    pub(super) bytes: f64,
}

/// What came between two moments: counts are of a second.
#[derive(Debug, Clone)]
pub(super) struct Between {
    pub(super) nodes: Vec<Node>,
    pub(super) gateway: Spent,
    pub(super) worker: Spent,
    /// CPU seconds.
    pub(super) generator: f64,
    pub(super) events: f64,
    pub(super) flushes: f64,
    pub(super) commits: f64,
    pub(super) flush_rooms: f64,
    pub(super) commit_rooms: f64,
    /// All events since the start, at the later moment.
    pub(super) events_ever: f64,
}

impl Look {
    pub(super) async fn at(fleet: &Fleet) -> Result<Self> {
        let at = Instant::now();
        let (gateway, worker) = (Spent::of(fleet.gateways())?, Spent::of(fleet.workers())?);
        let used = getrusage(UsageWho::RUSAGE_SELF)?;
        let spent = [used.user_time(), used.system_time()].map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 * 1e-6);
        let generator = Duration::from_secs_f64(spent.iter().sum());
        let asked = fleet.cluster().nodes().iter().map(|node| {
            let info: String = node.ask(&["INFO", "clients", "memory", "stats", "commandstats"])?;
            let time = Time::of(Pid::from_raw(i32::try_from(node.pid())?))?;
            Ok(Node { cpu: time.cpu.as_secs_f64(), sleeps: time.slept as f64, ..Node::read(&info)? })
        });
        let nodes = asked.collect::<Result<Vec<_>>>()?;
        let (mut events, mut flushes, mut commits) = (0, 0, 0);
        for process in fleet.gateways() {
            let text = process.metrics().await?;
            events += data_events(&text);
            flushes += counter(&text, FLUSHES_TOTAL);
        }
        for process in fleet.workers() {
            commits += counter(&process.metrics().await?, COMMITS_TOTAL);
        }
        Ok(Self { at, nodes, gateway, worker, generator, events, flushes, commits })
    }

    pub(super) fn since(&self, before: &Self) -> Between {
        let seconds = self.at.saturating_duration_since(before.at).as_secs_f64().max(1e-9);
        let cpu = |now: Duration, then: Duration| now.saturating_sub(then).as_secs_f64() / seconds;
        let count = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        let node = |(now, then): (&Node, &Node)| now.since(then, seconds);
        let nodes: Vec<Node> = self.nodes.iter().zip(&before.nodes).map(node).collect();
        let commits = count(self.commits, before.commits);
        let commit_rooms = commits + nodes.iter().map(|node| node.further).sum::<f64>();
        let added: f64 = nodes.iter().map(|node| node.added).sum();
        Between {
            nodes,
            gateway: self.gateway.since(&before.gateway, seconds),
            worker: self.worker.since(&before.worker, seconds),
            generator: cpu(self.generator, before.generator),
            events: count(self.events, before.events),
            flushes: count(self.flushes, before.flushes),
            commits,
            flush_rooms: (added - commit_rooms).max(0.0),
            commit_rooms,
            events_ever: self.events as f64,
        }
    }

    /// Actions that gateways have taken in so far.
    pub(super) fn events(&self) -> u64 {
        self.events
    }
}

impl Spent {
    fn of<'a>(processes: impl Iterator<Item = &'a Process>) -> Result<Self> {
        let mut spent = Self::default();
        for process in processes {
            let time = Time::of(process.pid().context("a process has ended")?)?;
            spent.cpu += time.cpu.as_secs_f64();
            spent.sleeps += time.slept as f64;
            spent.bytes += resident_bytes(process)? as f64;
        }
        Ok(spent)
    }

    fn since(&self, before: &Self, seconds: f64) -> Self {
        let count = |now: f64, then: f64| (now - then).max(0.0) / seconds;
        Self { cpu: count(self.cpu, before.cpu), sleeps: count(self.sleeps, before.sleeps), bytes: self.bytes }
    }
}

impl Node {
    /// Out of `INFO`, but for its time.
    fn read(info: &str) -> Result<Self> {
        let number = |name: &str| -> Option<f64> {
            info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok())
        };
        let told = |name: &str| number(name).with_context(|| format!("a node does not tell its {name}"));
        let calls = |name: &str| -> f64 {
            let line = info.lines().find_map(|line| line.strip_prefix("cmdstat_")?.strip_prefix(name)?.strip_prefix(":calls="));
            line.and_then(|rest| rest.split(',').next()?.parse().ok()).unwrap_or(0.0)
        };
        Ok(Self {
            commands: told("total_commands_processed")?,
            calls: calls("evalsha"),
            added: calls("xadd"),
            further: calls("xread"),
            // This question comes on one of its own.
            connections: told("connected_clients")? - 1.0,
            bytes: told("used_memory")?,
            ..Self::default()
        })
    }

    fn since(&self, before: &Self, seconds: f64) -> Self {
        let count = |now: f64, then: f64| (now - then).max(0.0) / seconds;
        Self {
            cpu: count(self.cpu, before.cpu),
            sleeps: count(self.sleeps, before.sleeps),
            commands: count(self.commands, before.commands),
            calls: count(self.calls, before.calls),
            added: count(self.added, before.added),
            further: count(self.further, before.further),
            ..*self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "# Clients\r\nconnected_clients:5\r\n# Memory\r\nused_memory:1000000\r\nused_memory_rss:7\r\n\
                        # Stats\r\ntotal_commands_processed:400\r\n# Commandstats\r\ncmdstat_evalsha:calls=30,usec=9\r\n\
                        cmdstat_xadd:calls=70,usec=1\r\ncmdstat_xread:calls=20,usec=1\r\ncmdstat_evalsha_ro:calls=3,usec=1\r\n";

    #[test]
    fn a_node_tells_its_counters() {
        let node = Node::read(INFO).expect("counters");
        let meant =
            Node { commands: 400.0, calls: 30.0, added: 70.0, further: 20.0, connections: 4.0, bytes: 1e6, ..Node::default() };
        assert_eq!(node, meant);
        assert!(Node::read("# Clients\r\n").expect_err("nothing told").to_string().contains("total_commands_processed"));
        let (now, earlier) = (Node { cpu: 3.75, ..meant }, Node { cpu: 2.75, calls: 10.0, connections: 9.0, ..meant });
        let between = now.since(&earlier, 2.0);
        assert_eq!((between.cpu, between.calls, between.commands, between.connections), (0.5, 10.0, 0.0, 4.0));
    }
}

//! Counters of processes and nodes at one moment, and what came between two.

use std::time::Duration;

use anyhow::{Context, Result};
use lasthit::internals::metrics::{COMMITS_TOTAL, FLUSHES_TOTAL};
use nix::sys::resource::{UsageWho, getrusage};
use tokio::time::Instant;

use super::fleet::Fleet;
use crate::spawn::process::Process;
use crate::spawn::{Cost, counter, data_events, resident_bytes};

/// A node, or what came between two looks at it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Node {
    /// CPU time, in seconds.
    pub(super) cpu_s: f64,
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
    gateway: Duration,
    worker: Duration,
    generator: Duration,
    events: u64,
    flushes: u64,
    commits: u64,
    gateway_bytes: u64,
    worker_bytes: u64,
}

/// What came between two moments: counts are of a second.
#[derive(Debug, Clone)]
pub(super) struct Between {
    pub(super) nodes: Vec<Node>,
    /// CPU seconds.
    pub(super) gateway: f64,
    pub(super) worker: f64,
    pub(super) generator: f64,
    pub(super) events: f64,
    pub(super) flushes: f64,
    pub(super) commits: f64,
    pub(super) flush_rooms: f64,
    pub(super) commit_rooms: f64,
    /// All events since the start, at the later moment.
    pub(super) events_ever: f64,
    /// Resident, all processes of the kind, at the later moment.
    pub(super) gateway_bytes: f64,
    pub(super) worker_bytes: f64,
}

impl Look {
    pub(super) async fn at(fleet: &Fleet) -> Result<Self> {
        let cpu = |processes: &mut dyn Iterator<Item = &Process>| -> Result<(Duration, u64)> {
            let (mut cpu, mut bytes) = (Duration::ZERO, 0);
            for process in processes {
                cpu += Cost::of(process)?.cpu;
                bytes += resident_bytes(process)?;
            }
            Ok((cpu, bytes))
        };
        let at = Instant::now();
        let ((gateway, gateway_bytes), (worker, worker_bytes)) = (cpu(&mut fleet.gateways())?, cpu(&mut fleet.workers())?);
        let used = getrusage(UsageWho::RUSAGE_SELF)?;
        let spent = [used.user_time(), used.system_time()].map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 * 1e-6);
        let generator = Duration::from_secs_f64(spent.iter().sum());
        let asked = fleet.cluster().nodes().iter().map(|node| {
            let info: String = node.ask(&["INFO", "cpu", "clients", "memory", "stats", "commandstats"])?;
            Node::read(&info)
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
        Ok(Self { at, nodes, gateway, worker, generator, events, flushes, commits, gateway_bytes, worker_bytes })
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
            gateway: cpu(self.gateway, before.gateway),
            worker: cpu(self.worker, before.worker),
            generator: cpu(self.generator, before.generator),
            events: count(self.events, before.events),
            flushes: count(self.flushes, before.flushes),
            commits,
            flush_rooms: (added - commit_rooms).max(0.0),
            commit_rooms,
            events_ever: self.events as f64,
            gateway_bytes: self.gateway_bytes as f64,
            worker_bytes: self.worker_bytes as f64,
        }
    }

    /// Actions that gateways have taken in so far.
    pub(super) fn events(&self) -> u64 {
        self.events
    }
}

impl Node {
    /// Out of `INFO`.
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
            cpu_s: told("used_cpu_user")? + told("used_cpu_sys")?,
            commands: told("total_commands_processed")?,
            calls: calls("evalsha"),
            added: calls("xadd"),
            further: calls("xread"),
            // This question comes on one of its own.
            connections: told("connected_clients")? - 1.0,
            bytes: told("used_memory")?,
        })
    }

    fn since(&self, before: &Self, seconds: f64) -> Self {
        let count = |now: f64, then: f64| (now - then).max(0.0) / seconds;
        Self {
            cpu_s: count(self.cpu_s, before.cpu_s),
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

    const INFO: &str = "# CPU\r\nused_cpu_sys:1.500000\r\nused_cpu_user:2.250000\r\nused_cpu_sys_children:9.0\r\n\
                        # Clients\r\nconnected_clients:5\r\n# Memory\r\nused_memory:1000000\r\nused_memory_rss:7\r\n\
                        # Stats\r\ntotal_commands_processed:400\r\n# Commandstats\r\ncmdstat_evalsha:calls=30,usec=9\r\n\
                        cmdstat_xadd:calls=70,usec=1\r\ncmdstat_xread:calls=20,usec=1\r\ncmdstat_evalsha_ro:calls=3,usec=1\r\n";

    #[test]
    fn a_node_tells_its_counters() {
        let node = Node::read(INFO).expect("counters");
        let meant = Node { cpu_s: 3.75, commands: 400.0, calls: 30.0, added: 70.0, further: 20.0, connections: 4.0, bytes: 1e6 };
        assert_eq!(node, meant);
        assert!(Node::read("# CPU\r\n").expect_err("nothing told").to_string().contains("used_cpu_user"));
        let earlier = Node { cpu_s: 2.75, calls: 10.0, connections: 9.0, ..meant };
        let between = node.since(&earlier, 2.0);
        assert_eq!((between.cpu_s, between.calls, between.commands, between.connections), (0.5, 10.0, 0.0, 4.0));
    }
}

//! What was measured, the model, and what it predicts, on the terminal: each under its own heading.

use std::fmt;

use super::model::{Check, Model, Prediction, Setting};
use super::{Measured, Point, Predicted, Scale};
use crate::draw::svg::grouped;

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nodes, hosts, shards, rate, .. } = self;
        let counted = |count: u32, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        write!(f, "{}, {}, {}, {rate}/s", counted(*nodes, "node"), counted(*hosts, "host"), counted(*shards, "shard"))
    }
}

impl Setting {
    /// As it stands in a table.
    fn row(&self) -> String {
        format!("{:>5}{:>6}{:>7}{:>9}", self.nodes, self.hosts, self.shards, self.rate)
    }
}

const SETTING: &str = "nodes hosts shards     rate";

/// Of bytes.
pub(super) fn gigabytes(bytes: f64) -> String {
    if bytes < 9.95e9 { format!("{:.1} GB", bytes / 1e9) } else { format!("{:.0} GB", bytes / 1e9) }
}

/// A share as a percentage with its sign.
fn percent(share: f64) -> String {
    format!("{:+.1} %", 100.0 * share)
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = &self.config;
        writeln!(
            f,
            "{} rooms with 2 sessions each; a host has a gateway and a worker; {} rounds of {} s in turns, every answer audited",
            config.rooms, config.rounds, self.duration_s
        )?;
        writeln!(f, "\nMEASURED\n{}", self.measured)?;
        writeln!(f, "THE MODEL, fitted to these runs\n{}", self.model)?;
        writeln!(f, "Each run, predicted from the others and from its setting alone: CPU seconds in a second")?;
        writeln!(f, "{SETTING}{:>10}{:>11}{:>9}{:>9}{:>12}", "measured", "predicted", "error", "Redis", "calls told")?;
        for Check { setting, measured, predicted, error, error_redis, error_of_costs } in &self.check.runs {
            writeln!(
                f,
                "{}{:>10.3}{:>11.3}{:>9}{:>9}{:>12}",
                setting.row(),
                measured.all(),
                predicted.all(),
                percent(*error),
                percent(*error_redis),
                percent(*error_of_costs)
            )?;
        }
        let sizes = |[middle, most]: [f64; 2]| format!("median {:.1} %, largest {:.1} %", 100.0 * middle, 100.0 * most);
        let [all, redis, told] = [self.check.error, self.check.error_redis, self.check.error_of_costs].map(sizes);
        writeln!(f, "errors: {all}; of Redis alone: {redis}; where it is told how many calls there were: {told}")?;
        writeln!(f, "\nPREDICTED, not measured\n{}", self.predicted)?;
        if let Some(doubt) = self.doubt() {
            writeln!(f, "WARNING: {doubt}")?;
        }
        let [before, after] = self.load_average;
        write!(f, "{} cores, which everything shared; load average {before:.1} before, {after:.1} after", self.environment.cores)
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{SETTING}   CPU us an event: gateway worker  Redis    all (least..most) generator   p50 us   p99 us")?;
        for Point { setting, cpu_us, cpu_us_range: [least, most], p50_us, p99_us, .. } in &self.points {
            let range = format!("({least:.1}..{most:.1})");
            writeln!(
                f,
                "{}{:>27.1}{:>7.1}{:>7.1}{:>7.1} {range:<15}{:>8.1}{p50_us:>9.0}{p99_us:>9.0}",
                setting.row(),
                cpu_us.gateway,
                cpu_us.worker,
                cpu_us.redis,
                cpu_us.deployment(),
                cpu_us.generator
            )?;
        }
        writeln!(
            f,
            "\n{SETTING}   events, rooms a flush  a commit      of each node: CPU share / commands, calls an event / connections"
        )?;
        for point in &self.points {
            let nodes = point.each_node.iter().map(|node| {
                format!(
                    "{:.1} % / {:.1}, {:.2} / {:.0}",
                    100.0 * node.cpu_share,
                    node.commands_per_event,
                    node.calls_per_event,
                    node.connections
                )
            });
            let flush = format!("{:.2}, {:.2}", point.events_per_flush, point.rooms_per_flush);
            let commit = format!("{:.2}, {:.2}", point.events_per_commit, point.rooms_per_commit);
            writeln!(f, "{}{flush:>25}{commit:>14}    {}", point.setting.row(), nodes.collect::<Vec<_>>().join("; "))?;
        }
        let commands = || self.points.iter().map(|point| point.idle_commands);
        let (least, most) = (commands().fold(f64::MAX, f64::min), commands().fold(0.0, f64::max));
        writeln!(f, "without load a process sends {least:.0} to {most:.0} commands a second, those of its scripts included")?;
        for ratio in &self.ratios {
            let hosts = if ratio.hosts == 1 { "1 host".to_owned() } else { format!("{} hosts", ratio.hosts) };
            writeln!(
                f,
                "{} nodes against one, {hosts}: CPU an event {:.2}x, the busiest node {:.2} of the one",
                ratio.nodes, ratio.cpu, ratio.busiest
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (redis, gateway, worker) = (&self.redis_waking, &self.gateway_waking, &self.worker_waking);
        writeln!(
            f,
            "Redis    {:.1} us a call + {:.1} us for each room in it + {:.1} us a wake-up; busy for {:.0} us with a call",
            self.redis_call_us, self.redis_room_us, self.redis_wake_us, redis.busy_us
        )?;
        let [of_node, of_process, of_both] = self.redis_idle;
        writeln!(
            f,
            "         without load, wake-ups in a second: {of_node:.1} a node + {of_process:.1} a process + {of_both:.1} a process and node"
        )?;
        writeln!(
            f,
            "gateway  {:.1} us an event + {:.1} us a flush + {:.1} us a wake-up; {:.1} things an event, busy for {:.0} us with one",
            self.gateway_event_us, self.gateway_flush_us, self.gateway_wake_us, gateway.things, gateway.busy_us
        )?;
        writeln!(
            f,
            "worker   {:.1} us an event + {:.1} us a commit + {:.1} us a wake-up; {:.1} things an event, busy for {:.0} us with one",
            self.worker_event_us, self.worker_commit_us, self.worker_wake_us, worker.things, worker.busy_us
        )?;
        writeln!(
            f,
            "         without load, wake-ups in a second: {:.0} of a gateway, {:.0} of a worker",
            self.gateway_idle, self.worker_idle
        )?;
        writeln!(
            f,
            "calls    a shard's flush is under way for {:.0} us, its commit for {:.0} us",
            self.flush_us, self.commit_us
        )?;
        writeln!(
            f,
            "memory   {:.0} bytes a room + {:.0} bytes an event that is kept; {:.1} connections of a process to a node",
            self.room_bytes, self.event_bytes, self.connections
        )
    }
}

impl fmt::Display for Predicted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "a million rooms at one event a second in 1,024 shards; each host has a gateway and a worker. As many nodes as it takes, so that\n\
             the busiest has at most {:.0} % of a core and {}; events are kept for {:.0} minutes. At most: no two events share a call",
            100.0 * self.node_share_max,
            gigabytes(self.node_bytes_max),
            self.kept_s / 60.0
        )?;
        writeln!(
            f,
            "gateways          nodes   cores: gateways  workers    Redis   one gateway  busiest node   calls/s  events a flush, commit   memory  connections a node"
        )?;
        for row in &self.rows {
            for (name, prediction) in [("", &row.expected), ("at most", &row.most)] {
                let head = format!("{:>8} {name:<8}", row.gateways);
                match prediction {
                    None => writeln!(f, "{head} no number of nodes does it")?,
                    Some(prediction) => writeln!(f, "{head}{prediction}")?,
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Prediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setting, cores, busiest_node, calls_per_s, .. } = self;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and far below 2^64")]
        let calls = grouped(calls_per_s.round() as u64);
        let shared = format!("{:.2}, {:.2}", self.events_per_flush, self.events_per_commit);
        write!(
            f,
            "{:>6}{:>18.1}{:>9.1}{:>9.1}{:>14.2}{:>14.2}{calls:>10}{shared:>24}{:>9}{:>20.0}",
            setting.nodes,
            cores.gateway,
            cores.worker,
            cores.redis,
            cores.gateway / f64::from(setting.hosts),
            busiest_node,
            gigabytes(self.redis_bytes),
            self.connections_per_node
        )
    }
}

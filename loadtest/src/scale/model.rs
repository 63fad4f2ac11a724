//! What a deployment costs, out of what runs of it have cost: pure, no clock and no process.
//!
//! - Redis takes a time for each call of a script, and one for each room in it; each node takes some without load, more for each process
//!   that is connected and for each of its connections.
//! - A gateway takes a time for each event and for each flush, a worker for each event and for each commit, and both some without load.
//! - How many events share a call: a shard has one flush and one commit under way at a time, and what comes meanwhile waits for the next. So
//!   it is the round trip that decides, and how many events a shard has in that time.
//!
//! All times are found by least squares over the runs. What counts is the error as a share: a light run counts as much as a heavy one.

use serde::Serialize;

use super::squares::{median, ratio, squares};

/// What is asked for: one gateway and one worker a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Setting {
    pub(crate) nodes: u32,
    pub(crate) hosts: u32,
    pub(crate) shards: u32,
    pub(crate) rooms: u32,
    /// Events a second over all rooms, each of which has as many.
    pub(crate) rate: u32,
}

/// CPU seconds in a second, by kind of process: all processes of a kind together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Cores {
    pub(crate) gateway: f64,
    pub(crate) worker: f64,
    pub(crate) redis: f64,
}

impl Cores {
    pub(crate) fn all(&self) -> f64 {
        self.gateway + self.worker + self.redis
    }
}

/// A second of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Observed {
    pub(crate) setting: Setting,
    pub(crate) events: f64,
    pub(crate) flushes: f64,
    pub(crate) commits: f64,
    /// Rooms in all flushes and commits.
    pub(crate) rooms: f64,
    pub(crate) cores: Cores,
    /// The same processes before the first session came.
    pub(crate) idle: Cores,
    /// What rooms and their events take in Redis, in bytes, and how many events those are.
    pub(crate) memory: f64,
    pub(crate) kept: f64,
    pub(crate) connections_per_node: f64,
}

/// The times of the model. Those without load are CPU microseconds in a second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Model {
    pub(crate) redis_call_us: f64,
    pub(crate) redis_room_us: f64,
    pub(crate) redis_node_idle_us: f64,
    pub(crate) redis_process_idle_us: f64,
    pub(crate) redis_connection_idle_us: f64,
    pub(crate) gateway_event_us: f64,
    pub(crate) gateway_flush_us: f64,
    pub(crate) gateway_idle_us: f64,
    pub(crate) worker_event_us: f64,
    pub(crate) worker_commit_us: f64,
    pub(crate) worker_idle_us: f64,
    /// How long a shard's flush is under way, and its commit, as far as batches show it.
    pub(crate) flush_us: f64,
    pub(crate) commit_us: f64,
    pub(crate) room_bytes: f64,
    pub(crate) event_bytes: f64,
    /// Of a process to a node.
    pub(crate) connections: f64,
}

/// How many events share a call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Batches {
    pub(crate) flushes: f64,
    pub(crate) commits: f64,
    pub(crate) rooms: f64,
}

impl Observed {
    fn processes(&self) -> f64 {
        2.0 * f64::from(self.setting.hosts)
    }

    fn batches(&self) -> Batches {
        Batches { flushes: self.flushes, commits: self.commits, rooms: self.rooms }
    }
}

impl Setting {
    /// Events a second in one shard that has rooms.
    fn per_shard(&self) -> f64 {
        f64::from(self.rate) / self.used_shards()
    }

    /// Shards that have a room: rooms go to shards by their hash.
    fn used_shards(&self) -> f64 {
        let (shards, rooms) = (f64::from(self.shards), f64::from(self.rooms));
        (shards * (1.0 - (1.0 - 1.0 / shards).powf(rooms))).max(1.0)
    }
}

/// Events in a call: a call leaves at once with the first event that nothing is under way for, and takes with it what came during the
/// one before.
fn events_per_call(per_s: f64, under_way_s: f64) -> f64 {
    let meanwhile = per_s * under_way_s;
    meanwhile + (-meanwhile).exp()
}

/// How long calls are under way, out of (events a second of a shard, events in its calls), in microseconds: what fits the logarithms best,
/// within one percent.
fn under_way_us(seen: &[(f64, f64)]) -> f64 {
    const STEPS: i32 = 1_400;
    let error = |us: f64| {
        let one = |(per_s, events): &(f64, f64)| (events_per_call(*per_s, us * 1e-6) / events.max(1.0)).ln().powi(2);
        seen.iter().map(one).sum::<f64>()
    };
    let steps = (0..STEPS).map(|step| 1.01_f64.powi(step));
    steps.min_by(|one, other| error(*one).total_cmp(&error(*other))).unwrap_or(1.0)
}

impl Model {
    /// Out of runs. None when they are too few, or too equal, to tell the times apart.
    pub(crate) fn fit(runs: &[Observed]) -> Option<Self> {
        const US: f64 = 1e6;
        let over = |value: &dyn Fn(&Observed) -> f64| runs.iter().map(value).sum::<f64>() / runs.len() as f64;
        let gateway_idle_us = over(&|run| US * run.idle.gateway / f64::from(run.setting.hosts));
        let worker_idle_us = over(&|run| US * run.idle.worker / f64::from(run.setting.hosts));
        let [redis_node_idle_us, redis_process_idle_us, redis_connection_idle_us] = redis_idle(runs)?;
        let without = Self {
            redis_call_us: 0.0,
            redis_room_us: 0.0,
            redis_node_idle_us,
            redis_process_idle_us,
            redis_connection_idle_us,
            gateway_event_us: 0.0,
            gateway_flush_us: 0.0,
            gateway_idle_us,
            worker_event_us: 0.0,
            worker_commit_us: 0.0,
            worker_idle_us,
            flush_us: under_way_us(&seen(runs, |run| run.flushes)),
            commit_us: under_way_us(&seen(runs, |run| run.commits)),
            room_bytes: 0.0,
            event_bytes: 0.0,
            connections: over(&|run| run.connections_per_node / run.processes()),
        };
        let idle = |run: &Observed| without.idle(&run.setting);
        let redis = |run: &Observed| ([run.flushes + run.commits, run.rooms], US * (run.cores.redis - idle(run).redis));
        let [redis_call_us, redis_room_us] = squares(runs.iter().map(redis))?;
        let gateway = |run: &Observed| ([run.events, run.flushes], US * (run.cores.gateway - idle(run).gateway));
        let [gateway_event_us, gateway_flush_us] = squares(runs.iter().map(gateway))?;
        let worker = |run: &Observed| ([run.events, run.commits], US * (run.cores.worker - idle(run).worker));
        let [worker_event_us, worker_commit_us] = squares(runs.iter().map(worker))?;
        let [room_bytes, event_bytes] = squares(runs.iter().map(|run| ([f64::from(run.setting.rooms), run.kept], run.memory)))?;
        Some(Self {
            redis_call_us,
            redis_room_us,
            gateway_event_us,
            gateway_flush_us,
            worker_event_us,
            worker_commit_us,
            room_bytes,
            event_bytes,
            ..without
        })
    }

    /// What everything takes without load.
    pub(crate) fn idle(&self, setting: &Setting) -> Cores {
        let (hosts, nodes) = (f64::from(setting.hosts), f64::from(setting.nodes));
        let processes = 2.0 * hosts;
        let redis = nodes * self.redis_node_idle_us
            + processes * self.redis_process_idle_us
            + nodes * processes * self.redis_connection_idle_us;
        Cores { gateway: hosts * self.gateway_idle_us * 1e-6, worker: hosts * self.worker_idle_us * 1e-6, redis: redis * 1e-6 }
    }

    /// How its events share calls. A call has one event of each room mostly: rooms take turns.
    pub(crate) fn batches(&self, setting: &Setting) -> Batches {
        let (per_shard, rooms) = (setting.per_shard(), f64::from(setting.rooms) / setting.used_shards());
        let of = |us: f64| {
            let events = events_per_call(per_shard, us * 1e-6);
            (f64::from(setting.rate) / events, events.min(rooms.max(1.0)))
        };
        let ((flushes, in_flush), (commits, in_commit)) = (of(self.flush_us), of(self.commit_us));
        Batches { flushes, commits, rooms: flushes * in_flush + commits * in_commit }
    }

    /// What it costs, where its events share calls like that.
    pub(crate) fn cores(&self, setting: &Setting, batches: &Batches) -> Cores {
        let (idle, events) = (self.idle(setting), f64::from(setting.rate));
        let gateway = events * self.gateway_event_us + batches.flushes * self.gateway_flush_us;
        let worker = events * self.worker_event_us + batches.commits * self.worker_commit_us;
        let redis = (batches.flushes + batches.commits) * self.redis_call_us + batches.rooms * self.redis_room_us;
        Cores { gateway: idle.gateway + gateway * 1e-6, worker: idle.worker + worker * 1e-6, redis: idle.redis + redis * 1e-6 }
    }
}

/// What Redis takes without load, in microseconds in a second: of each node, each process, each process and node. Runs that differ in one
/// number only do not tell all of these apart: then it is laid on what there is most of in large deployments.
fn redis_idle(runs: &[Observed]) -> Option<[f64; 3]> {
    let rows = || {
        let one = |run: &Observed| (f64::from(run.setting.nodes), run.processes(), 1e6 * run.idle.redis);
        runs.iter().map(one)
    };
    let all = squares(rows().map(|(nodes, processes, us)| ([nodes, processes, nodes * processes], us)));
    let two = || squares(rows().map(|(nodes, processes, us)| ([processes, nodes * processes], us)));
    let one = || squares(rows().map(|(nodes, processes, us)| ([nodes * processes], us)));
    all.or_else(|| two().map(|[process, connection]| [0.0, process, connection]))
        .or_else(|| one().map(|[connection]| [0.0, 0.0, connection]))
}

fn seen(runs: &[Observed], calls: impl Fn(&Observed) -> f64) -> Vec<(f64, f64)> {
    runs.iter().map(|run| (run.events / run.setting.used_shards(), ratio(run.events, calls(run)))).collect()
}

/// A run, and what a model says of it that has never seen it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Check {
    pub(crate) setting: Setting,
    pub(crate) measured: Cores,
    /// Out of the setting alone.
    pub(crate) predicted: Cores,
    /// How far that is off, as a share of what was measured: all processes together.
    pub(crate) error: f64,
    pub(crate) error_redis: f64,
    /// The same where it is told how many calls there were.
    pub(crate) error_of_costs: f64,
}

/// Leaves out each run once, and predicts it from the others. None where those are too few.
pub(crate) fn leave_one_out(runs: &[Observed]) -> Option<Vec<Check>> {
    let checked = runs.iter().enumerate().map(|(n, run)| {
        let others: Vec<Observed> = runs.iter().enumerate().filter(|(m, _)| *m != n).map(|(_, other)| *other).collect();
        let model = Model::fit(&others)?;
        let predicted = model.cores(&run.setting, &model.batches(&run.setting));
        let told = model.cores(&run.setting, &run.batches());
        let off = |predicted: f64, measured: f64| ratio(predicted, measured) - 1.0;
        Some(Check {
            setting: run.setting,
            measured: run.cores,
            predicted,
            error: off(predicted.all(), run.cores.all()),
            error_redis: off(predicted.redis, run.cores.redis),
            error_of_costs: off(told.all(), run.cores.all()),
        })
    });
    checked.collect()
}

/// How large such errors are: the median, and the largest.
pub(crate) fn sizes(errors: impl Iterator<Item = f64>) -> [f64; 2] {
    let errors: Vec<f64> = errors.map(f64::abs).collect();
    [median(errors.clone()), errors.into_iter().fold(0.0, f64::max)]
}

/// What a node may have to do, as a share of a core: it has one thread, and waits grow beyond that.
pub(crate) const NODE_SHARE_MAX: f64 = 0.6;
/// What a node may hold, in bytes.
pub(crate) const NODE_BYTES_MAX: f64 = 32e9;

/// A deployment that nobody has run here.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Prediction {
    pub(crate) setting: Setting,
    pub(crate) cores: Cores,
    /// What the busiest node does, as a share of a core: it has a shard more than others.
    pub(crate) busiest_node: f64,
    pub(crate) calls_per_s: f64,
    pub(crate) events_per_flush: f64,
    pub(crate) events_per_commit: f64,
    /// All rooms, and the events of the time that is kept, over all nodes; replicas take as much again.
    pub(crate) redis_bytes: f64,
    pub(crate) connections_per_node: f64,
}

impl Model {
    /// The least nodes that do it, of up to one a shard, where events are kept for so long. None where no number does.
    ///
    /// With `alone`, no two events share a call: the most that it may cost.
    pub(crate) fn predict(&self, asked: &Setting, kept_s: f64, alone: bool) -> Option<Prediction> {
        (1..=asked.shards).find_map(|nodes| {
            let setting = Setting { nodes, ..*asked };
            let events = f64::from(setting.rate);
            let single = Batches { flushes: events, commits: events, rooms: 2.0 * events };
            let batches = if alone { single } else { self.batches(&setting) };
            let cores = self.cores(&setting, &batches);
            let shards = f64::from(setting.shards);
            let fullest = (shards / f64::from(nodes)).ceil() / shards;
            let redis_bytes = f64::from(setting.rooms) * self.room_bytes + events * kept_s * self.event_bytes;
            let busiest_node = cores.redis * fullest;
            (busiest_node <= NODE_SHARE_MAX && redis_bytes * fullest <= NODE_BYTES_MAX).then_some(Prediction {
                setting,
                cores,
                busiest_node,
                calls_per_s: batches.flushes + batches.commits,
                events_per_flush: ratio(events, batches.flushes),
                events_per_commit: ratio(events, batches.commits),
                redis_bytes,
                connections_per_node: 2.0 * f64::from(setting.hosts) * self.connections,
            })
        })
    }
}

#[cfg(test)]
mod tests;

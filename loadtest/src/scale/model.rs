//! What a deployment costs, out of what runs of it have cost: pure, no clock and no process.
//!
//! - Redis takes a time for each call of a script, and one for each room in it. A gateway takes a time for each event and for each flush, a
//!   worker for each event and for each commit.
//! - Each of them takes a time to wake up. A process that has little to do wakes up for each thing; one that is busy finds the next thing when it
//!   has done one. So an event costs more under light load, and on more nodes.
//! - Without load a process wakes up, too, and sends a little to each node.
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

/// A figure of a second by kind of process, all processes of a kind together: CPU seconds, mostly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Each {
    pub(crate) gateway: f64,
    pub(crate) worker: f64,
    pub(crate) redis: f64,
}

impl Each {
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
    pub(crate) cores: Each,
    /// How often they woke up.
    pub(crate) wakes: Each,
    /// The same processes before the first session came.
    pub(crate) idle: Each,
    pub(crate) idle_wakes: Each,
    /// What rooms and their events take in Redis, in bytes, and how many events those are.
    pub(crate) memory: f64,
    pub(crate) kept: f64,
    pub(crate) connections_per_node: f64,
}

/// How often processes of a kind wake up.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Waking {
    /// Things to wake up for, of each event or call.
    pub(crate) things: f64,
    /// How long a process is busy with one, in microseconds: what comes meanwhile wakes nobody.
    pub(crate) busy_us: f64,
}

/// What was found. Times are CPU microseconds where nothing else is said.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Model {
    pub(crate) redis_call_us: f64,
    pub(crate) redis_room_us: f64,
    pub(crate) redis_wake_us: f64,
    pub(crate) redis_waking: Waking,
    pub(crate) gateway_event_us: f64,
    pub(crate) gateway_flush_us: f64,
    pub(crate) gateway_wake_us: f64,
    pub(crate) gateway_waking: Waking,
    pub(crate) worker_event_us: f64,
    pub(crate) worker_commit_us: f64,
    pub(crate) worker_wake_us: f64,
    pub(crate) worker_waking: Waking,
    /// Of a second without load: how often a gateway wakes up, and a worker; how often a node does by itself, for each process, and for
    /// each process again on each node.
    pub(crate) gateway_idle: f64,
    pub(crate) worker_idle: f64,
    pub(crate) redis_idle: [f64; 3],
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

/// Things that are done together: events in a call, things that a process wakes up for once. A call leaves at once with the first event that nothing is under way for, and takes with it what came during the
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

impl Waking {
    /// How often a process wakes up that has so many events or calls in a second, and so many wake-ups without load.
    fn wakes(&self, per_s: f64, idle: f64) -> f64 {
        let things = self.things * per_s + idle;
        things / events_per_call(things, self.busy_us * 1e-6)
    }

    /// Out of (events or calls of a process in a second, its wake-ups without load, its wake-ups): what fits the logarithms best, within five
    /// percent.
    fn fit(seen: &[(f64, f64, f64)]) -> Self {
        const STEP: f64 = 1.05;
        let error = |this: &Self| {
            let one = |(per_s, idle, wakes): &(f64, f64, f64)| {
                if *wakes > 0.0 { (this.wakes(*per_s, *idle) / wakes).ln().powi(2) } else { 0.0 }
            };
            seen.iter().map(one).sum::<f64>()
        };
        let all = (-40..60).flat_map(|n| (0..200).map(move |m| Self { things: STEP.powi(n), busy_us: STEP.powi(m) }));
        all.map(|this| (error(&this), this))
            .min_by(|(one, _), (other, _)| one.total_cmp(other))
            .map_or(Self { things: 1.0, busy_us: 1.0 }, |(_, this)| this)
    }
}

impl Model {
    /// Out of runs. None when they are too few, or too equal, to tell the times apart.
    pub(crate) fn fit(runs: &[Observed]) -> Option<Self> {
        const US: f64 = 1e6;
        let hosts = |run: &Observed| f64::from(run.setting.hosts);
        let nodes = |run: &Observed| f64::from(run.setting.nodes);
        let over = |value: &dyn Fn(&Observed) -> f64| runs.iter().map(value).sum::<f64>() / runs.len() as f64;
        let waking = |one: &dyn Fn(&Observed) -> (f64, f64, f64)| Waking::fit(&runs.iter().map(one).collect::<Vec<_>>());
        // Each run is two rows: with load, and before it.
        let times = |row: &dyn Fn(&Observed) -> [Row; 2]| times(runs.iter().flat_map(row).collect());
        let [redis_call_us, redis_room_us, redis_wake_us] = times(&|run| {
            let calls = run.flushes + run.commits + run.idle_wakes.redis;
            let before = ([run.idle_wakes.redis, 0.0, run.idle_wakes.redis], US * run.idle.redis);
            [([calls, run.rooms, run.wakes.redis], US * run.cores.redis), before]
        })?;
        let [gateway_event_us, gateway_flush_us, gateway_wake_us] = times(&|run| {
            let before = ([0.0, 0.0, run.idle_wakes.gateway], US * run.idle.gateway);
            [([run.events, run.flushes, run.wakes.gateway], US * run.cores.gateway), before]
        })?;
        let [worker_event_us, worker_commit_us, worker_wake_us] = times(&|run| {
            let before = ([0.0, 0.0, run.idle_wakes.worker], US * run.idle.worker);
            [([run.events, run.commits, run.wakes.worker], US * run.cores.worker), before]
        })?;
        let [room_bytes, event_bytes] = squares(runs.iter().map(|run| ([f64::from(run.setting.rooms), run.kept], run.memory)))?;
        Some(Self {
            redis_call_us,
            redis_room_us,
            redis_wake_us,
            redis_waking: waking(&|run| {
                let of = |figure: f64| figure / nodes(run);
                (of(run.flushes + run.commits), of(run.idle_wakes.redis), of(run.wakes.redis))
            }),
            gateway_event_us,
            gateway_flush_us,
            gateway_wake_us,
            gateway_waking: waking(&|run| {
                let of = |figure: f64| figure / hosts(run);
                (of(run.events), of(run.idle_wakes.gateway), of(run.wakes.gateway))
            }),
            worker_event_us,
            worker_commit_us,
            worker_wake_us,
            worker_waking: waking(&|run| {
                let of = |figure: f64| figure / hosts(run);
                (of(run.events), of(run.idle_wakes.worker), of(run.wakes.worker))
            }),
            gateway_idle: over(&|run| run.idle_wakes.gateway / hosts(run)),
            worker_idle: over(&|run| run.idle_wakes.worker / hosts(run)),
            redis_idle: redis_idle(runs)?,
            flush_us: under_way_us(&seen(runs, |run| run.flushes)),
            commit_us: under_way_us(&seen(runs, |run| run.commits)),
            room_bytes,
            event_bytes,
            connections: over(&|run| run.connections_per_node / run.processes()),
        })
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

    /// How often everything wakes up without load.
    fn idle_wakes(&self, setting: &Setting) -> Each {
        let (hosts, nodes) = (f64::from(setting.hosts), f64::from(setting.nodes));
        let [of_node, of_process, of_both] = self.redis_idle;
        let redis = nodes * of_node + 2.0 * hosts * (of_process + nodes * of_both);
        Each { gateway: hosts * self.gateway_idle, worker: hosts * self.worker_idle, redis }
    }

    /// What it costs, where its events share calls like that.
    pub(crate) fn cores(&self, setting: &Setting, batches: &Batches) -> Each {
        let (hosts, nodes, events) = (f64::from(setting.hosts), f64::from(setting.nodes), f64::from(setting.rate));
        let idle = self.idle_wakes(setting);
        let calls = batches.flushes + batches.commits;
        let wakes = |waking: &Waking, per_s: f64, idle: f64, processes: f64| {
            processes * waking.wakes(per_s / processes, idle / processes)
        };
        let gateway = events * self.gateway_event_us
            + batches.flushes * self.gateway_flush_us
            + wakes(&self.gateway_waking, events, idle.gateway, hosts) * self.gateway_wake_us;
        let worker = events * self.worker_event_us
            + batches.commits * self.worker_commit_us
            + wakes(&self.worker_waking, events, idle.worker, hosts) * self.worker_wake_us;
        // What a process sends without load counts as a call.
        let redis = (calls + idle.redis) * self.redis_call_us
            + batches.rooms * self.redis_room_us
            + wakes(&self.redis_waking, calls, idle.redis, nodes) * self.redis_wake_us;
        Each { gateway: gateway * 1e-6, worker: worker * 1e-6, redis: redis * 1e-6 }
    }
}

/// What was counted, and the time that it took together.
type Row = ([f64; 3], f64);

/// Three times out of rows, or as many of them as the rows tell apart: without calls that differ from events, the first is 0.
fn times(rows: Vec<Row>) -> Option<[f64; 3]> {
    let without_first = || rows.iter().map(|([_, second, third], value)| ([*second, *third], *value));
    squares(rows.iter().copied()).or_else(|| squares(without_first()).map(|[second, third]| [0.0, second, third]))
}

/// How often nodes wake up without load: of each node, each process, each process and node. Runs that differ in one number only do not tell all
/// of these apart: then it is laid on what there is most of in large deployments.
fn redis_idle(runs: &[Observed]) -> Option<[f64; 3]> {
    let rows = || {
        let one = |run: &Observed| (f64::from(run.setting.nodes), run.processes(), run.idle_wakes.redis);
        runs.iter().map(one)
    };
    let all = squares(rows().map(|(nodes, processes, wakes)| ([nodes, processes, nodes * processes], wakes)));
    let two = || squares(rows().map(|(nodes, processes, wakes)| ([processes, nodes * processes], wakes)));
    let one = || squares(rows().map(|(nodes, processes, wakes)| ([nodes * processes], wakes)));
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
    pub(crate) measured: Each,
    /// Out of the setting alone.
    pub(crate) predicted: Each,
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
    pub(crate) cores: Each,
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

use super::*;

const MEANT: Model = Model {
    redis_call_us: 11.4,
    redis_room_us: 3.9,
    redis_wake_us: 20.0,
    redis_waking: Waking { things: 1.0, busy_us: 30.0 },
    gateway_event_us: 8.0,
    gateway_flush_us: 15.0,
    gateway_wake_us: 12.0,
    gateway_waking: Waking { things: 3.0, busy_us: 10.0 },
    worker_event_us: 5.0,
    worker_commit_us: 10.0,
    worker_wake_us: 9.0,
    worker_waking: Waking { things: 2.0, busy_us: 15.0 },
    gateway_idle: 100.0,
    worker_idle: 150.0,
    redis_idle: [10.0, 12.0, 1.5],
    flush_us: 500.0,
    commit_us: 700.0,
    room_bytes: 4_000.0,
    event_bytes: 250.0,
    connections: 2.0,
};

fn setting(nodes: u32, hosts: u32, shards: u32, rate: u32) -> Setting {
    Setting { nodes, hosts, shards, rooms: 1_000, rate }
}

fn settings() -> Vec<Setting> {
    let grid = (1..=3).flat_map(|nodes| (1..=3).map(move |hosts| setting(nodes, hosts, 60, 10_000)));
    let others =
        [(60, 2_500), (60, 5_000), (6, 10_000), (1, 10_000), (1, 5_000)].map(|(shards, rate)| setting(1, 1, shards, rate));
    grid.chain(others).collect()
}

/// A run that costs what the model says.
fn run(model: &Model, setting: Setting) -> Observed {
    let batches = model.batches(&setting);
    let kept = 5.0 * f64::from(setting.rate);
    let (hosts, nodes, events) = (f64::from(setting.hosts), f64::from(setting.nodes), f64::from(setting.rate));
    let idle_wakes = model.idle_wakes(&setting);
    let calls = batches.flushes + batches.commits;
    let wakes = Each {
        gateway: hosts * model.gateway_waking.wakes(events / hosts, idle_wakes.gateway / hosts),
        worker: hosts * model.worker_waking.wakes(events / hosts, idle_wakes.worker / hosts),
        redis: nodes * model.redis_waking.wakes(calls / nodes, idle_wakes.redis / nodes),
    };
    let idle = Each {
        gateway: 1e-6 * idle_wakes.gateway * model.gateway_wake_us,
        worker: 1e-6 * idle_wakes.worker * model.worker_wake_us,
        redis: 1e-6 * idle_wakes.redis * (model.redis_call_us + model.redis_wake_us),
    };
    Observed {
        setting,
        events: f64::from(setting.rate),
        flushes: batches.flushes,
        commits: batches.commits,
        rooms: batches.rooms,
        cores: model.cores(&setting, &batches),
        wakes,
        idle,
        idle_wakes,
        memory: model.room_bytes * f64::from(setting.rooms) + model.event_bytes * kept,
        kept,
        connections_per_node: 2.0 * f64::from(setting.hosts) * model.connections,
    }
}

fn near(found: f64, meant: f64, share: f64) {
    assert!((found / meant - 1.0).abs() < share, "{found}, not {meant}");
}

#[test]
fn the_costs_of_runs_are_found_again() {
    let runs: Vec<Observed> = settings().into_iter().map(|setting| run(&MEANT, setting)).collect();
    let found = Model::fit(&runs).expect("a model");
    for (found, meant) in [
        (found.redis_call_us, MEANT.redis_call_us),
        (found.redis_room_us, MEANT.redis_room_us),
        (found.redis_wake_us, MEANT.redis_wake_us),
        (found.redis_idle[0], MEANT.redis_idle[0]),
        (found.redis_idle[1], MEANT.redis_idle[1]),
        (found.redis_idle[2], MEANT.redis_idle[2]),
        (found.gateway_event_us, MEANT.gateway_event_us),
        (found.gateway_flush_us, MEANT.gateway_flush_us),
        (found.gateway_wake_us, MEANT.gateway_wake_us),
        (found.worker_wake_us, MEANT.worker_wake_us),
        (found.worker_event_us, MEANT.worker_event_us),
        (found.worker_commit_us, MEANT.worker_commit_us),
        (found.room_bytes, MEANT.room_bytes),
        (found.event_bytes, MEANT.event_bytes),
        (found.connections, MEANT.connections),
    ] {
        near(found, meant, 1e-3);
    }
    near(found.flush_us, MEANT.flush_us, 0.011);
    near(found.commit_us, MEANT.commit_us, 0.011);
    for (found, meant) in [
        (found.redis_waking, MEANT.redis_waking),
        (found.gateway_waking, MEANT.gateway_waking),
        (found.worker_waking, MEANT.worker_waking),
    ] {
        for per_s in [1_000.0, 4_000.0, 10_000.0] {
            near(found.wakes(per_s, 100.0), meant.wakes(per_s, 100.0), 0.1);
        }
    }
    let checks = leave_one_out(&runs).expect("checks");
    assert_eq!(checks.len(), runs.len());
    let [_, most] = sizes(checks.iter().map(|check| check.error));
    assert!(most < 0.05, "{checks:?}");
}

#[test]
fn a_run_that_is_left_out_does_not_predict_itself() {
    let mut runs: Vec<Observed> = settings().into_iter().map(|setting| run(&MEANT, setting)).collect();
    let odd = runs.last_mut().expect("a run");
    for cores in [&mut odd.cores.gateway, &mut odd.cores.worker, &mut odd.cores.redis] {
        *cores *= 2.0;
    }
    let checks = leave_one_out(&runs).expect("checks");
    let error = checks.last().expect("a check").error;
    assert!((-0.52..-0.45).contains(&error), "half of what was measured: {error}");
}

#[test]
fn equal_runs_tell_nothing_apart() {
    let one = run(&MEANT, setting(1, 1, 60, 10_000));
    assert_eq!(Model::fit(&[one, one, one, one]), None);
    assert!(Model::fit(&[]).is_none() && leave_one_out(&[one]).is_none());
}

#[test]
fn runs_on_one_host_have_a_model_too() {
    let settings = settings().into_iter().filter(|setting| setting.hosts == 1);
    let runs: Vec<Observed> = settings.map(|setting| run(&MEANT, setting)).collect();
    let found = Model::fit(&runs).expect("a model");
    assert_eq!(found.redis_idle[0], 0.0);
    let wakes = |model: &Model| model.idle_wakes(&setting(2, 1, 60, 1)).redis;
    near(wakes(&found), wakes(&MEANT), 1e-6);
    let one: Vec<Observed> = runs.into_iter().filter(|run| run.setting.nodes == 1).collect();
    let found = Model::fit(&one).expect("a model");
    assert_eq!(found.redis_idle[..2], [0.0, 0.0]);
    near(found.redis_call_us, MEANT.redis_call_us, 1e-3);
}

#[test]
fn a_busy_process_wakes_up_less_often() {
    let waking = Waking { things: 2.0, busy_us: 100.0 };
    near(waking.wakes(10.0, 5.0), 25.0, 1e-3);
    assert!(waking.wakes(1_000_000.0, 5.0) <= 10_000.0, "never more often than it could finish something");
}

#[test]
fn events_share_calls_when_a_call_takes_long() {
    assert_eq!(events_per_call(0.0, 1.0), 1.0);
    near(events_per_call(1_000.0, 0.000_01), 1.0, 1e-3);
    near(events_per_call(10_000.0, 0.001), 10.0, 1e-3);
    let seen: Vec<(f64, f64)> = [100.0, 1_000.0, 20_000.0].map(|per_s| (per_s, events_per_call(per_s, 0.000_3))).to_vec();
    near(under_way_us(&seen), 300.0, 0.011);
}

#[test]
fn as_many_nodes_as_it_takes_are_predicted() {
    let asked = |hosts| Setting { nodes: 1, hosts, shards: 1_024, rooms: 1_000_000, rate: 1_000_000 };
    let few = MEANT.predict(&asked(10), 600.0, false).expect("a prediction");
    assert!(few.busiest_node <= NODE_SHARE_MAX && few.setting.nodes > 10, "{few:?}");
    near(few.redis_bytes, 4e9 + 150e9, 1e-6);
    // One fewer would not do.
    let fewer = Setting { nodes: few.setting.nodes - 1, ..asked(10) };
    let cores = MEANT.cores(&fewer, &MEANT.batches(&fewer));
    assert!(cores.redis / f64::from(fewer.nodes) > 0.55, "{cores:?}");
    let many = MEANT.predict(&asked(1_000), 600.0, false).expect("a prediction");
    assert!(many.cores.redis > few.cores.redis && many.setting.nodes >= few.setting.nodes, "{many:?}");
    assert_eq!((few.connections_per_node, many.connections_per_node), (40.0, 4_000.0));
    let alone = MEANT.predict(&asked(10), 600.0, true).expect("a prediction");
    assert!(alone.cores.redis > few.cores.redis && alone.events_per_flush == 1.0, "{alone:?}");
    assert!(MEANT.predict(&Setting { shards: 8, ..asked(10) }, 600.0, true).is_none(), "8 nodes do not do it");
}

#[test]
fn memory_asks_for_nodes_too() {
    let idle = Setting { nodes: 1, hosts: 1, shards: 64, rooms: 20_000_000, rate: 1 };
    let predicted = MEANT.predict(&idle, 600.0, false).expect("a prediction");
    assert_eq!(predicted.setting.nodes, 3, "80 GB on nodes of 32: {predicted:?}");
}

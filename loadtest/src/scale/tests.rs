use super::*;

fn config() -> ScaleConfig {
    let (nodes, hosts) = (vec![1, 2, 3], vec![1, 2, 3]);
    ScaleConfig { nodes, hosts, shards: 60, rooms: 1_000, rate: 10_000, rounds: 3, duration: Duration::from_secs(1) }
}

#[test]
fn every_pair_is_run_and_what_the_model_needs() {
    let settings = config().settings();
    assert_eq!(settings.len(), 13);
    let of = |shards, rate| Setting { nodes: 1, hosts: 1, shards, rooms: 1_000, rate };
    for needed in [of(60, 2_500), of(60, 5_000), of(6, 10_000), of(1, 10_000)] {
        assert!(settings.contains(&needed), "{needed}");
    }
    // What is the same is run once; every node and every host has a shard.
    let small = ScaleConfig { nodes: vec![2, 2], hosts: vec![2], shards: 2, rate: 3, ..config() };
    let settings = small.settings();
    assert!(settings.iter().all(|setting| setting.shards == 2 && setting.rate > 0), "{settings:?}");
    assert_eq!(settings.len(), 2, "{settings:?}");
}

#[test]
fn what_cannot_be_measured_is_named() {
    let wrong = |config: ScaleConfig| {
        let error = config.check(&config.settings()).expect_err("refused").to_string();
        assert!(!error.contains('\n'), "{error}");
        error
    };
    assert!(wrong(ScaleConfig { shards: 2, ..config() }).starts_with("shards 2: use at least 3"));
    assert!(wrong(ScaleConfig { rooms: 10_001, ..config() }).starts_with("rooms 10001: use at most 10000"));
    assert!(wrong(ScaleConfig { duration: Duration::ZERO, ..config() }).starts_with("duration 0"));
    assert!(wrong(ScaleConfig { rounds: 100, ..config() }).starts_with("13 settings in 100 rounds are 1300 runs"));
    assert!(config().check(&config().settings()).is_ok());
}

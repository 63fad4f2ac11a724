//! Whole fairness measurements against the small gateway.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::mock::{Fault, Mock};
use crate::fair::{FairConfig, Fairness, json, measure, progress};
use crate::speak::dialect::Dialect;

async fn fairness(fault: Fault, config: FairConfig) -> anyhow::Result<Option<Fairness>> {
    let mock = Mock::start(fault).await;
    let urls = mock.urls(2);
    let stop = Arc::new(AtomicBool::new(config.seed == 0));
    tokio::task::spawn_blocking(move || measure(Dialect::Lasthit, &urls, &config, &progress(&config, ""), &stop))
        .await
        .expect("no panic")
}

fn config() -> FairConfig {
    // A gap that a gateway in the test's own process, which decides by the order of reading, keeps mostly.
    FairConfig {
        gaps_us: vec![4000],
        trials: 25,
        background: 300,
        burst: 2,
        split_us: 200,
        same: false,
        seed: 1,
        time_max: None,
        shares_address: false,
        metrics: vec![],
    }
}

#[tokio::test]
async fn an_honest_gateway_is_fair_and_an_unfair_one_is_found() {
    let honest = fairness(Fault::None, config()).await.expect("measured").expect("not interrupted");
    let gap = &honest.gaps[0];
    assert_eq!((gap.gap_us, gap.no_verdict), (4000, 0), "{honest}");
    assert!(gap.trials >= 25 && gap.trials <= 25 + gap.dropped, "dropped ones are raced again: {honest}");
    // Races that a busy machine has spoilt are dropped, and count for neither.
    assert!(gap.dropped < gap.trials && gap.wrong * 2 < gap.trials - gap.dropped, "{honest}");
    assert!(honest.background_per_s > 100.0 && honest.latency_us.p50 > 0.0, "{honest}");

    let unfair = fairness(Fault::Unfair, config()).await.expect("measured").expect("not interrupted");
    let gap = &unfair.gaps[0];
    assert!(gap.wrong_unflagged == gap.wrong && gap.wrong * 2 > gap.trials - gap.dropped, "{unfair}");
    assert!(gap.unfair_pct > 50.0 && unfair.failure().is_some(), "{unfair}");

    let report: serde_json::Value = serde_json::from_str(&json(&[honest, unfair]).expect("json")).expect("json");
    assert_eq!(report["gaps"][0]["gap_us"], 4000);
    assert!(
        report["latency_us"]["p999"].is_number()
            && report["hold_us"]["by_workers"] == false
            && report["peer"]["gaps"][0]["ci_high"].is_number()
    );
}

#[tokio::test]
async fn a_measurement_ends_with_its_time() {
    let config = FairConfig { trials: 100_000, time_max: Some(Duration::from_millis(100)), ..config() };
    let fairness = fairness(Fault::None, config).await.expect("measured").expect("not interrupted");
    assert!((1..5_000).contains(&fairness.gaps[0].trials), "{fairness}");
}

#[tokio::test]
async fn what_cannot_be_measured_is_named() {
    for (config, named) in [
        (FairConfig { gaps_us: vec![], ..config() }, "0 gaps"),
        (FairConfig { gaps_us: vec![2_000_000], ..config() }, "gap 2000000"),
        (FairConfig { trials: 0, ..config() }, "trials 0"),
        (FairConfig { burst: 61, ..config() }, "burst 61"),
        (FairConfig { split_us: 100_001, ..config() }, "split 100001"),
    ] {
        let error = fairness(Fault::None, config).await.expect_err(named);
        assert!(error.to_string().contains(named), "{error}");
    }
    let stopped = fairness(Fault::None, FairConfig { seed: 0, ..config() }).await.expect("measured");
    assert!(stopped.is_none(), "stopped before the first race");
}

//! Whole runs that end otherwise than by a report, or are sent otherwise than by the schedule alone.

use std::time::Duration;

use super::mock::{Fault, Mock};
use super::{load, run};
use crate::load::knee::{Knee, Limit, knee};
use crate::load::progress::Progress;
use crate::load::report::{Broken, Report};
use crate::load::{Load, Outcome, Pace};
use crate::speak::dialect::Dialect;

async fn done(load: &Load) -> Report {
    let outcome = run(load).await.expect("run");
    let Outcome::Done(report) = outcome else { panic!("{outcome:?}") };
    *report
}

#[tokio::test]
async fn a_closed_loop_sends_when_it_was_answered() {
    // Answers that all came at once would leave the generator no rest.
    let mock = Mock::start(Fault::Stall).await;
    let load = Load { pace: Pace::Closed { outstanding: 2 }, ..load(mock.urls(2), Dialect::Lasthit) };
    let report = done(&load).await;
    assert_eq!((report.failure(), report.sent), (None, report.verdicts));
    assert!(report.sent > 24 && report.audited >= report.sent, "{report}");
    assert_eq!(report.latency_us, report.service_us);
    assert!(report.to_string().contains("closed loop, 2 outstanding a session"), "{report}");
}

#[tokio::test]
async fn clients_that_wait_for_their_answers_do_not_hide_a_stall() {
    // 300 actions in half a second, 50 of them before a stall of 400 ms; each session waits for its answer.
    let mock = Mock::start(Fault::StallLong).await;
    let load = Load { waiting_max: Some(1), ..load(mock.urls(2), Dialect::Lasthit) };
    let report = done(&load).await;
    assert_eq!((report.failure(), report.verdicts), (None, 300));
    // Twelve actions met the stall, all that were due meanwhile left behind it. None of this is the generator's fault.
    assert!(report.latency_us.p50 > 50_000.0, "{report}");
    assert!(report.service_us.p50 < report.latency_us.p50 / 2.0, "{report}");
    assert!(report.service_us.max > 300_000.0, "{report}");
}

#[tokio::test]
async fn what_was_due_and_never_left_fails_the_run() {
    let mock = Mock::start(Fault::Lose).await;
    let load = Load { waiting_max: Some(1), ..load(mock.urls(2), Dialect::Lasthit) };
    let report = done(&load).await;
    // One session waits for the answer that is lost, with all that it had yet to send.
    assert!(report.unsent > 0 && report.faults.lost == 1 && report.audited + report.unsent == 300, "{report}");
    let failure = report.failure().expect("failed");
    assert!(failure.contains("1 lost") && failure.contains("not sent, because the gateways"), "{failure}");
}

#[tokio::test]
async fn the_warm_up_is_left_out_and_audited() {
    let mock = Mock::start(Fault::Lose).await;
    let quarter = Duration::from_millis(250);
    let report = done(&Load { warm_up: quarter, duration: quarter, ..load(mock.urls(2), Dialect::Lasthit) }).await;
    // What is lost is the 50th of 300.
    assert_eq!((report.sent, report.verdicts, report.audited, report.faults.lost), (150, 150, 300, 1));
}

#[tokio::test]
async fn a_saturated_generator_gives_no_report() {
    let mock = Mock::start(Fault::None).await;
    let usual = load(mock.urls(2), Dialect::Lasthit);
    let told = |outcome: Outcome| match outcome {
        Outcome::Saturated(saturation) => saturation.to_string(),
        other => panic!("{other:?}"),
    };
    // No send leaves at the very nanosecond.
    let late = told(run(&Load { lateness_max: Duration::ZERO, ..usual.clone() }).await.expect("run"));
    assert!(late.starts_with("the generator was saturated, so there is no report: ") && late.contains("(limit: 0ns)"), "{late}");
    // No thread encodes ten million messages a second.
    let rate = crate::limits::RATE_MAX;
    let flood = Load { pace: Pace::Open { rate }, duration: Duration::from_secs(9), contenders: 1000, ..usual };
    let behind = told(run(&flood).await.expect("run"));
    assert!(behind.contains("behind its schedule and gave up, at "), "{behind}");
}

pub(super) async fn ramp(load: &Load, ramp: &str) -> Knee {
    let (ramp, bound) = (ramp.parse().expect("ramp"), Duration::from_secs(60));
    let mut told = Vec::new();
    let found = knee(load, &ramp, bound, &Progress::new(true), std::future::pending(), |tried| told.push(tried.clone())).await;
    let knee = found.expect("knee").expect("not interrupted");
    assert_eq!(told, knee.tried);
    knee
}

#[tokio::test]
async fn the_knee_of_a_known_capacity_is_found() {
    // 120 actions in 200 ms are 600 a second.
    let mock = Mock::start(Fault::Capacity(120)).await;
    let load = Load { duration: Duration::from_millis(200), ..load(mock.urls(2), Dialect::Lasthit) };
    let found = ramp(&load, "200..2000").await;
    let rates: Vec<u32> = found.tried.iter().map(|tried| tried.rate).collect();
    assert_eq!(
        (rates.as_slice(), found.knee_rate, found.limit),
        (&[200, 400, 800, 566, 673, 617, 591][..], Some(591), Limit::System)
    );
    assert_eq!(found.tried[2].why.as_deref(), Some("40 refused"));
    assert_eq!(found.report.as_ref().expect("a report").verdicts, 118);
    assert!(found.to_string().starts_with("knee 591/s: the highest rate with a p99 of at most 60000 ms"), "{found}");
    let json = serde_json::to_value(&found).expect("json");
    assert_eq!((&json["knee_rate"], &json["limit"], &json["tried"][0]["rate"]), (&591.into(), &"system".into(), &200.into()));

    let all = ramp(&load, "100..200").await;
    assert_eq!((all.knee_rate, all.limit), (Some(200), Limit::Ramp));
    assert!(all.to_string().contains("at least 200/s") && all.to_string().contains("ramp further"), "{all}");
}

/// Once, at the first of the tries: the second would have held. However slow the system, and however late the generator.
#[tokio::test]
async fn a_broken_promise_ends_a_ramp() {
    for (fault, says) in
        [(Fault::Lose, "1 lost"), (Fault::Double, "1 doubled"), (Fault::Gap, "1 gaps"), (Fault::SecondWinner, "1 two winners")]
    {
        for (p99_max, lateness_max) in [(60_000_000, 60), (1, 60), (60_000_000, 0)] {
            if fault == Fault::Lose && (p99_max, lateness_max) != (60_000_000, 60) {
                continue;
            }
            let mock = Mock::start(fault).await;
            let lateness_max = Duration::from_secs(lateness_max);
            let load = Load { lateness_max, ..load(mock.urls(2), Dialect::Lasthit) };
            let (ramp, p99_max) = ("200..400".parse().expect("ramp"), Duration::from_micros(p99_max));
            let found = knee(&load, &ramp, p99_max, &Progress::new(true), std::future::pending(), |_| {}).await;
            let error = found.expect_err(says);
            assert!(error.is::<Broken>() && format!("{error:#}").contains(says), "{error:#}");
        }
    }
}

#[tokio::test]
async fn a_knee_of_the_generator_is_none_of_the_system() {
    let mock = Mock::start(Fault::None).await;
    let load =
        Load { duration: Duration::from_millis(100), lateness_max: Duration::ZERO, ..load(mock.urls(2), Dialect::Lasthit) };
    let found = ramp(&load, "200..400").await;
    assert_eq!((found.knee_rate, found.limit, found.tried.len()), (None, Limit::Generator, 1));
    assert!(found.tried[0].generator && found.to_string().contains("the generator could not send"), "{found}");
}

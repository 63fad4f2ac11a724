use std::time::Duration;

use super::*;
use crate::load::audit::Audit;
use crate::load::health::Usage;
use crate::load::knee::{Limit, Tried};
use crate::load::tally::{Tally, Window};
use crate::load::{Load, Pace};
use crate::speak::dialect::Dialect;

fn report(pace: Pace, actions: u64) -> Report {
    let s = Duration::from_secs;
    let tally = Tally::new(Audit::new(actions, actions), Window { from: s(0), to: s(3) });
    let mut counts = tally.lock();
    for n in 0..actions {
        let due = Duration::from_millis(n % 3000);
        counts.late(due, due);
        counts.sent(n, Some(due), due);
        counts.verdict(n, ("granted", ""), Some(due), due + Duration::from_micros(100 + n));
    }
    let usage = Usage { cpu_share: 0.25, waiting_share: Some(0.1) };
    Report::new(&Load { duration: s(3), ..Load::new(Dialect::Lasthit, vec!["a<b".into()], pace) }, &counts, usage)
}

/// Whole in itself, with as many lines as it should have, and no figure that is none.
fn check(html: &str, lines: usize) {
    assert!(html.starts_with("<!doctype html>") && html.ends_with("</html>\n"));
    for nowhere in ["http:", "https:", "<script", "<link", "url(", "@import", "src=", "NaN", "inf"] {
        assert!(!html.contains(nowhere), "{nowhere} in {html}");
    }
    assert!(html.contains("prefers-color-scheme:dark") && html.contains("name=\"viewport\""));
    assert_eq!(html.matches("class=\"line ").count(), lines);
    for tag in ["section", "table", "div", "svg", "tr", "td", "p"] {
        let (opened, closed) = (
            html.matches(&format!("<{tag}>")).count() + html.matches(&format!("<{tag} ")).count(),
            html.matches(&format!("</{tag}>")).count(),
        );
        assert_eq!(opened, closed, "{tag}");
    }
}

#[test]
fn a_run_is_a_page_that_needs_nothing_else() {
    let report = report(Pace::Open { rate: 1000 }, 3000);
    assert!(report.passed);
    let html = of_run(&report);
    check(&html, 2 + 2 + 3);
    for told in ["audit passed", "99.9 %", "3,000", "open loop, 1,000 a second", "25 % of a core", "1 ms", "kernel"] {
        assert!(html.contains(told), "{told}");
    }
}

#[test]
fn a_closed_loop_has_one_latency_and_a_failure_is_told() {
    let closed = report(Pace::Closed { outstanding: 4 }, 30);
    check(&of_run(&closed), 1 + 2 + 2);
    let mut failed = closed;
    failed.first_broken = Some("session 3: <b>".to_owned());
    failed.broken_sessions = 1;
    let html = of_run(&failed);
    assert!(html.contains("audit failed: 1 sessions broke, the first: session 3: &lt;b&gt;"), "{html}");
    check(&of_run(&report(Pace::Open { rate: 1 }, 0)), 2 + 2 + 3);
}

#[test]
fn a_ramp_has_its_steps_and_the_run_at_its_knee() {
    let figures = Figures { verdicts_per_s: 999.0, p50_us: 100.0, p99_us: 70_000.0, service_p99_us: 69_000.0 };
    let held = Tried { rate: 1000, why: None, generator: false, figures: Some(figures) };
    let broke = Tried { rate: 2000, why: Some("p99 70.0 ms".into()), ..held.clone() };
    let saturated = Tried { rate: 1500, why: Some("late".into()), generator: true, figures: None };
    let mut knee = Knee {
        knee_rate: Some(1000),
        limit: Limit::System,
        p99_max_us: 50_000.0,
        tried: vec![held, broke, saturated],
        report: Some(Box::new(report(Pace::Open { rate: 1000 }, 3000))),
    };
    let html = of_knee(&knee);
    check(&html, 2 + 2 + 2 + 3);
    assert!(html.contains("knee 1000/s") && html.contains("sustained") && html.contains("p99 70.0 ms"), "{html}");
    assert!(html.contains("class=\"bound\""));
    (knee.knee_rate, knee.report, knee.tried) = (None, None, vec![]);
    check(&of_knee(&knee), 2);
}

#[test]
fn a_long_run_has_as_many_points_as_a_screen() {
    let series = vec![Second { sent: 1, verdicts: 2, p99_us: 3.0, ..Second::default() }; 86_400];
    let all = points(&series, |s| s.p99_us);
    assert!(all.len() <= POINTS_MAX && all.iter().all(|(_, us)| *us == 3.0), "{}", all.len());
    assert!(seconds_axis(&series).1.len() <= 9);
}

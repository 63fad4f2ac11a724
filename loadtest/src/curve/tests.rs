use clap::{CommandFactory, Parser};

use super::*;
use crate::cli::{Cli, Command};

fn config() -> CurveConfig {
    CurveConfig { guards_us: vec![0, 20], trials: 100, time: Duration::from_secs(60), seed: 7 }
}

/// The scores of real races: a point is filled from what the harness counts.
fn score(trials: u64, wrong: u64, clamped: u64) -> GapScore {
    GapScore { trials, dropped: 2, wrong, wrong_unflagged: 1, clamped, photo_finish: 3, ..GapScore::default() }
}

fn times(us: u64) -> Times {
    let mut times = Times::new();
    times.record(Duration::from_micros(us));
    times
}

#[test]
fn a_point_adds_up_its_gaps_and_rounds() {
    let mut point = Point::new(20, 2, "idle");
    point.add(&[score(52, 1, 2), score(52, 2, 4)], &times(100), 990.0);
    point.add(&[score(102, 1, 0)], &times(300), 950.0);
    assert_eq!((point.races, point.dropped), (200, 6));
    assert_eq!((point.wrong, point.wrong_unflagged, point.clamped, point.photo_finish), (4, 3, 6, 9));
    assert_eq!((point.wrong_pct, point.clamped_pct, point.background_per_s), (2.0, 3.0, 950.0));
    assert!((point.latency_p50_us - 100.0).abs() < 1.0 && (point.latency_p99_us - 300.0).abs() < 1.0, "{point:?}");
}

#[test]
fn nothing_that_was_vouched_for_is_no_share() {
    let mut point = Point::new(20, 2, "idle");
    point.add(&[score(2, 0, 0)], &times(100), 0.0);
    assert_eq!((point.races, point.wrong_pct, point.clamped_pct), (0, 0.0, 0.0));
}

#[test]
fn races_are_spread_over_gaps_and_rounds() {
    assert_eq!(CurveConfig { trials: 800, ..config() }.trials_per_gap(), 80);
    assert_eq!(CurveConfig { trials: 1, ..config() }.trials_per_gap(), 1);
}

#[test]
fn what_cannot_be_measured_is_named() {
    assert!(config().check().is_ok());
    for (config, named) in [
        (CurveConfig { guards_us: vec![], ..config() }, "0 guards"),
        (CurveConfig { guards_us: vec![20, 5], ..config() }, "[20, 5]"),
        (CurveConfig { guards_us: vec![5, 5], ..config() }, "[5, 5]"),
        (CurveConfig { guards_us: vec![10_001], ..config() }, "guard 10001"),
        (CurveConfig { trials: 0, ..config() }, "trials 0"),
        (CurveConfig { time: Duration::from_secs(9), ..config() }, "9s"),
    ] {
        let error = config.check().expect_err(named).to_string();
        assert!(error.contains(named), "{error}");
    }
}

#[test]
fn axes_hold_their_values() {
    use crate::draw::svg::Scale;
    assert_eq!(Scale::linear(0.0).ticks, [0.0, 0.25, 0.5]);
    assert_eq!(Scale::linear(1.7).ticks, [0.0, 1.0, 2.0]);
    assert_eq!(Scale::logarithmic(130.0, 1900.0).ticks, [100.0, 200.0, 500.0, 1000.0, 2000.0]);
    for (low, high) in [(0.0, 0.0), (1.0, 1.0), (333.0, 333.0), (5.0, 9e9)] {
        let scale = Scale::logarithmic(low, high);
        assert!((0.0..=1.0).contains(&scale.at(low)) && (0.0..=1.0).contains(&scale.at(high)), "{scale:?}");
    }
    assert!((Scale::logarithmic(100.0, 900.0).at(1000.0) - 1.0).abs() < 1e-9);
}

fn curve() -> Curve {
    let mut points = Vec::new();
    for gateways in [1, 2] {
        for scenario in &SCENARIOS {
            points.extend([0, 20].map(|guard| {
                let mut point = Point::new(guard, gateways, scenario.name);
                point.add(&[score(102, 0, 1)], &times(100 + guard), 0.0);
                point
            }));
        }
    }
    Curve { setting: config(), load_average: [1.0, 2.0], took_s: 3, points }
}

#[test]
fn the_picture_has_a_line_for_each_scenario_in_each_panel() {
    let svg = draw(&curve());
    assert_eq!(svg.matches("stroke-width=\"2.2\"").count(), 2 * 4 * SCENARIOS.len());
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    assert_eq!(parsed(&picture::command(&curve())).guards_us, [0, 20]);
    let table = curve().to_string();
    assert!(table.contains("two gateways, 10,000/s\n") && table.lines().count() > 30, "{table}");
    let json = serde_json::to_value(curve()).expect("json");
    assert_eq!((&json["points"][1]["guard_us"], &json["points"][1]["clamped"]), (&20.into(), &1.into()));
}

fn parsed(command: &str) -> crate::cli::CurveArgs {
    let cli = Cli::try_parse_from(command.split_whitespace()).unwrap_or_else(|e| panic!("{command}: {e}"));
    let Command::Curve(args) = cli.command else { panic!("{command} is another command") };
    args
}

/// The committed picture says which command drew it, the page beside it shows that command, and the program has its flags.
#[test]
fn the_committed_picture_can_be_drawn_again() {
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let read = |name: &str| std::fs::read_to_string(docs.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let svg = read("arrival-curve.svg");
    let (_, command) = svg.split_once("<desc>").expect("a description");
    let (command, _) = command.split_once("</desc>").expect("its end");
    let args = parsed(command);
    assert!(
        args.guards_us.contains(&(lasthit::internals::limits::SWEEP_GUARD.as_micros() as u64)),
        "the default's guard is measured"
    );

    let page = read("arrival.md");
    assert!(page.contains("](arrival-curve.svg)"), "the page shows the picture");
    let shown = page.replace("\\\n", " ");
    let line = shown.lines().find_map(|line| Some(&line[line.find("loadtest -- curve ")?..])).expect("the command");
    let shown = parsed(&line.replace("loadtest -- curve", "loadtest curve"));
    assert_eq!((shown.guards_us, shown.trials, shown.time, shown.seed), (args.guards_us, args.trials, args.time, args.seed));

    let mut cli = Cli::command();
    let help = cli.find_subcommand_mut("curve").expect("curve").render_long_help().to_string();
    for flag in line.split_whitespace().filter(|word| word.starts_with("--") && word.len() > 2) {
        assert!(help.contains(&format!("{flag} ")), "{flag} is not in --help");
    }
}

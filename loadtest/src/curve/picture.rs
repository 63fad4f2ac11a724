//! The curve as a picture: small multiples, one column for one gateway and one for two, one row for each figure.

use std::fmt::Write;

use super::{Curve, Point, SCENARIOS};
use crate::draw::svg::{self, Scale, grouped, text};

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 84.0;
const PANEL_WIDTH: f64 = 400.0;
const COLUMN: f64 = 468.0;
const TOP: f64 = 158.0;
const PANEL_HEIGHT: f64 = 116.0;
const ROW: f64 = 168.0;
const HEIGHT: f64 = TOP + ROW * 4.0 + 24.0;
/// Of the scenarios, in their order; they differ in lightness, too.
const COLOURS: [&str; SCENARIOS.len()] = ["#8a95a3", "#0f9d76", "#d1495b", "#2f6fde", "#e09f1f"];

/// Of a point's races.
type Count = fn(&Point) -> (u64, Option<u64>);

/// One row: what it shows, of which points' figure.
struct Row {
    title: &'static str,
    value: fn(&Point) -> f64,
    /// What is counted of it, and of that what has no flag.
    count: Option<Count>,
    scale: fn(f64, f64) -> Scale,
    unit: &'static str,
}

const ROWS: [Row; 4] = [
    Row {
        title: "the first sender did not win",
        value: |p| p.wrong_pct,
        count: Some(|p| (p.wrong, Some(p.wrong_unflagged))),
        scale: |_, high| Scale::linear(high),
        unit: " %",
    },
    Row {
        title: "a stamp was clamped",
        value: |p| p.clamped_pct,
        count: Some(|p| (p.clamped, None)),
        scale: |_, high| Scale::linear(high),
        unit: " %",
    },
    Row { title: "send to verdict, median", value: |p| p.latency_p50_us, count: None, scale: Scale::logarithmic, unit: " µs" },
    Row { title: "send to verdict, p99", value: |p| p.latency_p99_us, count: None, scale: Scale::logarithmic, unit: " µs" },
];

/// The command that draws it.
pub(super) fn command(curve: &Curve) -> String {
    let guards: Vec<String> = curve.setting.guards_us.iter().map(u64::to_string).collect();
    let (trials, seed, seconds) = (curve.setting.trials, curve.setting.seed, curve.setting.time.as_secs());
    format!("loadtest curve --guards-us {} --trials {trials} --time {seconds}s --seed {seed} --svg FILE", guards.join(","))
}

/// An SVG, complete in itself.
pub(crate) fn draw(curve: &Curve) -> String {
    let title = "Wrong and clamped decisions, and the time to a verdict, by the guard of the sweep";
    let mut svg = svg::open((WIDTH, HEIGHT), title, Some(&command(curve)));
    let races: u64 = curve.points.iter().map(|point| point.races).sum();
    let line = format!(
        "Two rivals hit 0 to 200 µs apart, alone or with others in the background; {} races, about {} a point",
        grouped(races),
        grouped(per_point(curve, races))
    );
    svg::heading(&mut svg, 36.0, "What the sweep's guard buys, and what it costs", &line);
    legend(&mut svg);
    for (column, name) in ["both rivals on one gateway", "on two gateways"].iter().enumerate() {
        let left = LEFT + COLUMN * column as f64;
        text(&mut svg, (left, TOP - 30.0), "font-size=\"15\" font-weight=\"600\" fill=\"#16202c\"", name);
    }
    for (n, row) in ROWS.iter().enumerate() {
        let top = TOP + ROW * n as f64;
        // Both columns of a row have one scale.
        let values = || curve.points.iter().map(row.value);
        let scale = (row.scale)(values().fold(f64::MAX, f64::min), values().fold(0.0, f64::max));
        for gateways in [1, 2] {
            panel(&mut svg, curve, row, &scale, (LEFT + COLUMN * f64::from(gateways - 1), top), gateways);
        }
    }
    let [low, high] = curve.load_average;
    let foot = format!("Load average of the two-core machine meanwhile: {low:.1} to {high:.1}. No verdict counts as wrong.");
    svg::close(svg, (36.0, HEIGHT - 18.0), &foot)
}

fn per_point(curve: &Curve, races: u64) -> u64 {
    races / curve.points.len().max(1) as u64
}

fn legend(svg: &mut String) {
    let mut at = 36.0;
    for (scenario, colour) in SCENARIOS.iter().zip(COLOURS) {
        svg::legend(svg, (at, 99.5), colour, "font-size=\"13\" fill=\"#2b3643\"", scenario.name);
        at += 38.0 + 6.5 * scenario.name.chars().count() as f64;
    }
}

fn panel(svg: &mut String, curve: &Curve, row: &Row, scale: &Scale, (left, top): (f64, f64), gateways: u8) {
    let bottom = top + PANEL_HEIGHT;
    let y = |value: f64| bottom - PANEL_HEIGHT * scale.at(value);
    let guards = &curve.setting.guards_us;
    let x = |at: usize| left + PANEL_WIDTH * (at as f64 + 0.5) / guards.len() as f64;
    text(svg, (left, top - 10.0), "font-size=\"13\" fill=\"#5b6776\"", row.title);
    if let Some(count) = row.count {
        let here: Vec<&Point> = curve.points.iter().filter(|point| point.gateways == gateways).collect();
        let races = here.iter().map(|point| point.races).sum();
        let counted: u64 = here.iter().map(|point| count(point).0).sum();
        let unflagged: Option<u64> = here.iter().map(|point| count(point).1).sum();
        let mut counted = format!("{} of {}", grouped(counted), grouped(races));
        if let Some(unflagged) = unflagged {
            let _ = write!(counted, ", {} without a flag", grouped(unflagged));
        }
        let style = "font-size=\"12.5\" font-weight=\"600\" fill=\"#2b3643\" text-anchor=\"end\"";
        text(svg, (left + PANEL_WIDTH, top - 10.0), style, &counted);
    }
    for (n, tick) in scale.ticks.iter().enumerate() {
        svg::rule(svg, (left, left + PANEL_WIDTH), y(*tick), n == 0);
        let label = match row.unit {
            " µs" if *tick >= 1000.0 => format!("{} ms", tick / 1000.0),
            unit => format!("{tick}{unit}"),
        };
        text(svg, (left - 8.0, y(*tick) + 4.0), "font-size=\"11.5\" fill=\"#5b6776\" text-anchor=\"end\"", &label);
    }
    for (n, guard) in guards.iter().enumerate() {
        let label = if n + 1 == guards.len() { format!("{guard} µs") } else { guard.to_string() };
        text(svg, (x(n), bottom + 17.0), "font-size=\"12\" fill=\"#2b3643\" text-anchor=\"middle\"", &label);
    }
    for (scenario, colour) in SCENARIOS.iter().zip(COLOURS) {
        let of_it = |point: &&Point| point.gateways == gateways && point.scenario == scenario.name;
        let dots: Vec<(f64, f64)> =
            curve.points.iter().filter(of_it).enumerate().map(|(n, point)| (x(n), y((row.value)(point)))).collect();
        svg::line(svg, &dots, colour, 2.2);
        for at in dots {
            svg::dot(svg, at, colour, 3.2);
        }
    }
}

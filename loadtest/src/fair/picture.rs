//! The comparison as a picture: how often the wrong player won, by the gap between the rivals.

use std::fmt::Write;

use super::Fairness;
use super::score::GapScore;
use crate::draw::svg::{self, grouped, text};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 520.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 916.0;
const TOP: f64 = 118.0;
const BOTTOM: f64 = 420.0;
/// Of lasthit, and of what it is compared with.
const COLOURS: [&str; 2] = ["#0f9d76", "#d1495b"];

/// An SVG, complete in itself.
pub(crate) fn draw(measured: &[Fairness]) -> String {
    let title = "Contests that went to the wrong player, by the gap between the rivals";
    let mut svg = svg::open((WIDTH, HEIGHT), title, None);
    let Some(first) = measured.first() else { return svg + "</svg>\n" };
    let setting = &first.setting;
    let gateways = if setting.same { "one gateway" } else { "two gateways" };
    let burst = if setting.burst > 0 { format!(", {} messages behind each hit", setting.burst) } else { String::new() };
    let line = format!(
        "Two rivals on {gateways}, {} races a gap, {} other claims/s meanwhile{burst}",
        grouped(u64::from(setting.trials)),
        grouped(u64::from(setting.background))
    );
    svg::heading(&mut svg, LEFT - 40.0, "Contests that went to the wrong player", &line);

    let worst = measured.iter().flat_map(|m| &m.gaps).map(|gap| gap.ci_high).fold(0.0, f64::max);
    let (top, step) = [
        (1.0, 0.25),
        (2.0, 0.5),
        (5.0, 1.0),
        (10.0, 2.0),
        (20.0, 5.0),
        (30.0, 10.0),
        (40.0, 10.0),
        (50.0, 10.0),
        (60.0, 10.0),
        (80.0, 20.0),
        (100.0, 25.0),
    ]
    .into_iter()
    .find(|(top, _)| *top >= worst)
    .unwrap_or((100.0, 25.0));
    let y = |pct: f64| BOTTOM - (BOTTOM - TOP) * pct / top;
    let slots = first.gaps.len().max(1) as f64;
    let x = |at: usize| LEFT + (RIGHT - LEFT) * (at as f64 + 0.5) / slots;
    let mut pct = 0.0;
    while pct <= top + 1e-9 {
        svg::rule(&mut svg, (LEFT, RIGHT), y(pct), pct == 0.0);
        text(&mut svg, (LEFT - 10.0, y(pct) + 4.5), "font-size=\"13\" fill=\"#5b6776\" text-anchor=\"end\"", &format!("{pct} %"));
        pct += step;
    }
    for (at, gap) in first.gaps.iter().enumerate() {
        let label = if gap.gap_us >= 1000 && gap.gap_us.is_multiple_of(1000) {
            format!("{} ms", gap.gap_us / 1000)
        } else {
            format!("{} µs", gap.gap_us)
        };
        text(&mut svg, (x(at), BOTTOM + 24.0), "font-size=\"13\" fill=\"#2b3643\" text-anchor=\"middle\"", &label);
    }
    let axis = "from the end of the first rival's send to the beginning of the second's";
    text(&mut svg, (f64::midpoint(LEFT, RIGHT), BOTTOM + 48.0), "font-size=\"13\" fill=\"#5b6776\" text-anchor=\"middle\"", axis);

    // The first is drawn last, on top.
    for (n, fairness) in measured.iter().enumerate().rev() {
        let others: Vec<f64> =
            if n == 0 { measured[1..].iter().flat_map(|m| &m.gaps).map(|g| y(g.unfair_pct)).collect() } else { vec![] };
        series(&mut svg, fairness, COLOURS[n.min(1)], &others, (x, y));
    }
    legend(&mut svg, measured);
    let load = first.load_average[0].max(first.load_average[1]);
    let foot = format!("Bands: 95 % confidence (Wilson). No verdict counts as wrong. Load average of the machine: {load:.1}.");
    svg::close(svg, (LEFT - 40.0, HEIGHT - 20.0), &foot)
}

/// One line with its band and figures. A figure that would lie on one of `others` (heights of the other line) stands beside it.
fn series(
    svg: &mut String,
    fairness: &Fairness,
    colour: &str,
    others: &[f64],
    (x, y): (impl Fn(usize) -> f64, impl Fn(f64) -> f64),
) {
    let points = |value: fn(&GapScore) -> f64| -> Vec<(f64, f64)> {
        fairness.gaps.iter().enumerate().map(|(n, gap)| (x(n), y(value(gap)))).collect()
    };
    let mut band = points(|g| g.ci_high);
    band.extend(points(|g| g.ci_low).into_iter().rev());
    let _ = writeln!(svg, "<path d=\"{}Z\" fill=\"{colour}\" opacity=\"0.14\"/>", svg::path(&band));
    svg::line(svg, &points(|g| g.unfair_pct), colour, 3.0);
    for (n, gap) in fairness.gaps.iter().enumerate() {
        let (cx, cy) = (x(n), y(gap.unfair_pct));
        svg::dot(svg, (cx, cy), colour, 5.5);
        let label = match gap.unfair_pct {
            pct if gap.wrong == 0 => format!("{pct:.0}"),
            pct if pct < 10.0 => format!("{pct:.1}"),
            pct => format!("{pct:.0}"),
        };
        let crowded = others.get(n).is_some_and(|other| (other - cy).abs() < 36.0);
        let (place, anchor) = if crowded { ((cx + 11.0, cy + 4.5), "start") } else { ((cx, cy - 13.0), "middle") };
        let style = format!("font-size=\"14\" font-weight=\"600\" fill=\"{colour}\" text-anchor=\"{anchor}\"");
        text(svg, place, &style, &label);
    }
}

fn legend(svg: &mut String, measured: &[Fairness]) {
    let mut at = LEFT - 40.0;
    for (n, fairness) in measured.iter().enumerate() {
        let (wrong, counted) = fairness.gaps.iter().fold((0, 0), |(w, c), g| (w + g.wrong, c + g.trials - g.dropped));
        let what = match fairness.dialect {
            "peer" => "the usual stack (Node, BullMQ)",
            name => name,
        };
        let label = format!("{what}: {} of {} wrong", grouped(wrong), grouped(counted));
        let colour = COLOURS[n.min(1)];
        svg::legend(svg, (at, 96.0), colour, &format!("font-size=\"14\" font-weight=\"600\" fill=\"{colour}\""), &label);
        at += 48.0 + 7.6 * label.chars().count() as f64;
    }
}

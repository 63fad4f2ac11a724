//! The comparison as a picture: throughput, latency, and the same work without sockets.

use std::fmt::Write;

use super::Comparison;
use super::ratios::{Figures, GROUPMQ_CONCURRENCIES, PEER_CONCURRENCIES};
use super::table::{time, whole};
use crate::draw::svg::{self, text};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 288.0;
const RIGHT: f64 = 800.0;
const ROW: f64 = 34.0;
const TOP: f64 = 92.0;
/// From a panel's title to its first row.
const TITLE: f64 = 30.0;
/// Between panels: an axis' figures fit.
const GAP: f64 = 42.0;

const LASTHIT: &str = "#0f9d76";
const RIVAL: &str = "#d1495b";
const FLOOR: &str = "#8a95a3";

struct Line {
    name: String,
    colour: &'static str,
    /// A rate, or the median.
    value: f64,
    p99: Option<f64>,
}

/// An SVG, complete in itself.
pub(crate) fn draw(comparison: &Comparison) -> String {
    let medians = comparison.medians();
    let panels = [
        ("Verdicts a second, p99 under 50 ms", "100 sessions in 20 rooms, ten contenders a contest", sockets(&medians, rate)),
        ("From send to verdict, at 1,000 a second", "median and p99, logarithmic", sockets(&medians, latency)),
        ("Events a second without sockets", "100 rooms, 64 bytes, producer and worker processes", queues(&medians)),
    ];
    let rows: usize = panels.iter().map(|(_, _, lines)| lines.len()).sum();
    let shown = panels.iter().filter(|(_, _, lines)| !lines.is_empty()).count();
    let height = TOP + ROW * rows as f64 + (TITLE + GAP) * shown as f64 + 34.0;
    let mut svg = svg::open((WIDTH, height), "Throughput and latency of lasthit beside the usual stack", None);
    let line = format!(
        "One machine, one run, one generator: {} cores that everything shares; Redis without persistence on both sides",
        comparison.cores
    );
    svg::heading(&mut svg, 36.0, "lasthit beside what it stands in for", &line);
    let mut top = TOP;
    for (number, (title, subtitle, lines)) in panels.iter().enumerate().filter(|(_, (_, _, lines))| !lines.is_empty()) {
        text(&mut svg, (36.0, top + 14.0), "font-size=\"15\" font-weight=\"600\" fill=\"#16202c\"", title);
        text(&mut svg, (WIDTH - 36.0, top + 14.0), "font-size=\"12.5\" fill=\"#8a95a3\" text-anchor=\"end\"", subtitle);
        top += TITLE;
        if number == 1 {
            spans(&mut svg, lines, top)
        } else {
            bars(&mut svg, lines, top)
        }
        top += ROW * lines.len() as f64 + GAP;
    }
    let [before, after] = comparison.load_average;
    let foot = format!(
        "{}. Load average of the machine: {before:.1} before, {after:.1} after. Ratios carry over to other \
         machines, figures do not.",
        comparison.rounds_told()
    );
    svg::close(svg, (36.0, height - 20.0), &foot)
}

fn rate(medians: &Figures, key: &str) -> Option<Value> {
    Some((*medians.get(&format!("{key}.verdicts_per_s"))?, None))
}

fn latency(medians: &Figures, key: &str) -> Option<Value> {
    Some((*medians.get(&format!("{key}.p50_us"))?, medians.get(&format!("{key}.p99_us")).copied()))
}

/// A rate, or a median and its p99.
type Value = (f64, Option<f64>);

fn sockets(medians: &Figures, of: fn(&Figures, &str) -> Option<Value>) -> Vec<Line> {
    // The usual stack at its best: the highest rate, or the lowest p99.
    let peers = PEER_CONCURRENCIES.iter().filter_map(|c| of(medians, &format!("peer_{c}")));
    let better = |a: &Value, b: &Value| match (a.1, b.1) {
        (Some(a), Some(b)) => b.total_cmp(&a),
        _ => a.0.total_cmp(&b.0),
    };
    let line = |(name, colour, value): (&str, &'static str, Option<Value>)| {
        value.map(|(value, p99)| Line { name: name.to_owned(), colour, value, p99 })
    };
    [
        ("Redis floor: append, read, publish", FLOOR, of(medians, "floor")),
        ("bare echo: decides nothing", FLOOR, of(medians, "echo")),
        ("one ws process, rooms in its memory", RIVAL, of(medians, "ws_room")),
        ("lasthit in memory, one process", LASTHIT, of(medians, "memory")),
        ("lasthit on Redis, one gateway", LASTHIT, of(medians, "one_gateway")),
        ("lasthit on Redis, two gateways", LASTHIT, of(medians, "two_gateways")),
        ("usual stack: ws, BullMQ, Redis", RIVAL, peers.max_by(better)),
    ]
    .into_iter()
    .filter_map(line)
    .collect()
}

fn queues(medians: &Figures) -> Vec<Line> {
    let of = |key: &str| medians.get(&format!("{key}.jobs_per_s")).copied();
    let groupmq = GROUPMQ_CONCURRENCIES.iter().filter_map(|c| of(&format!("queue_groupmq_{c}"))).reduce(f64::max);
    let broken = medians.get("queue_bullmq.inverted").is_some_and(|share| *share > 0.0);
    let one_queue = if broken { "BullMQ, one queue: order broken" } else { "BullMQ, one queue" };
    let rows = [
        ("lasthit, strict order", LASTHIT, of("queue_lasthit")),
        ("groupmq, strict order", RIVAL, groupmq),
        ("BullMQ, a queue per room", RIVAL, of("queue_bullmq_rooms")),
        (one_queue, RIVAL, of("queue_bullmq")),
    ];
    let line = |(name, colour, value): (&str, &'static str, Option<f64>)| {
        value.map(|value| Line { name: name.to_owned(), colour, value, p99: None })
    };
    rows.into_iter().filter_map(line).collect()
}

fn label(svg: &mut String, line: &Line, y: f64) {
    let weight = if line.colour == LASTHIT { 600 } else { 400 };
    let style = format!("font-size=\"13.5\" font-weight=\"{weight}\" fill=\"#2b3643\" text-anchor=\"end\"");
    text(svg, (LEFT - 14.0, y + 4.5), &style, &line.name);
}

/// From nothing to the value, with the value and how many times the lowest it is.
fn bars(svg: &mut String, lines: &[Line], top: f64) {
    let most = lines.iter().map(|line| line.value).fold(1.0, f64::max);
    let least = lines.iter().map(|line| line.value).fold(f64::MAX, f64::min);
    for (n, line) in lines.iter().enumerate() {
        let y = top + ROW * (n as f64 + 0.5);
        label(svg, line, y);
        let width = ((RIGHT - LEFT) * line.value / most).max(2.0);
        let _ = writeln!(
            svg,
            "<rect x=\"{LEFT:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"20\" rx=\"3\" fill=\"{}\"/>",
            y - 10.0,
            line.colour
        );
        let value = if line.value / least < 1.05 {
            whole(line.value)
        } else {
            format!("{}  ({:.1}x)", whole(line.value), line.value / least)
        };
        let style = format!("font-size=\"13\" font-weight=\"600\" fill=\"{}\"", line.colour);
        text(svg, (LEFT + width + 9.0, y + 4.5), &style, &value);
    }
}

/// From the median to the p99, on a logarithmic scale of its own decades.
fn spans(svg: &mut String, lines: &[Line], top: f64) {
    let values = || lines.iter().flat_map(|line| [Some(line.value), line.p99]).flatten();
    let low = values().fold(f64::MAX, f64::min).max(1.0).log10().floor();
    let high = values().fold(1.0, f64::max).log10().ceil().max(low + 1.0);
    let x = |us: f64| LEFT + (RIGHT - LEFT) * (us.max(1.0).log10() - low) / (high - low);
    let bottom = top + ROW * lines.len() as f64;
    let mut decade = low;
    while decade <= high {
        let us = 10_f64.powf(decade);
        let _ = writeln!(svg, "<path d=\"M{0:.1} {top:.1}V{bottom:.1}\" stroke=\"#e6eaef\"/>", x(us));
        text(svg, (x(us), bottom + 15.0), "font-size=\"11.5\" fill=\"#8a95a3\" text-anchor=\"middle\"", &decade_name(us));
        decade += 1.0;
    }
    for (n, line) in lines.iter().enumerate() {
        let y = top + ROW * (n as f64 + 0.5);
        label(svg, line, y);
        let (from, to) = (x(line.value), x(line.p99.unwrap_or(line.value)));
        let colour = line.colour;
        let _ = writeln!(
            svg,
            "<path d=\"M{from:.1} {y:.1}H{to:.1}\" stroke=\"{colour}\" stroke-width=\"9\" stroke-linecap=\"round\" opacity=\"0.28\"/>\n\
             <circle cx=\"{from:.1}\" cy=\"{y:.1}\" r=\"6\" fill=\"{colour}\"/>"
        );
        let value = line.p99.map_or_else(|| time(line.value), |p99| format!("{} · {}", time(line.value), time(p99)));
        text(svg, (to + 13.0, y + 4.5), &format!("font-size=\"13\" font-weight=\"600\" fill=\"{colour}\""), &value);
    }
}

fn decade_name(us: f64) -> String {
    if us < 1000.0 { format!("{us:.0} µs") } else { format!("{:.0} ms", us / 1000.0) }
}

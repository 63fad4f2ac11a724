//! Sessions of each process over time, as a picture: a panel for each way to spread them.

use std::fmt::Write;

use super::{Even, Spread};
use crate::draw::svg::{self, Scale, grouped, text};

const WIDTH: f64 = 1000.0;
const MARGIN: f64 = 36.0;
const TOP: f64 = 176.0;
const PANEL_HEIGHT: f64 = 230.0;
const HEIGHT: f64 = TOP + PANEL_HEIGHT + 92.0;
/// Left of a panel, for the labels of its axis.
const LABELS: f64 = 44.0;
/// Right of a panel.
const GAP: f64 = 26.0;
/// Of processes, in the order of their names; they differ in lightness, too. More than these begin again.
const COLOURS: [&str; 8] = ["#16202c", "#2f6fde", "#0f9d76", "#e09f1f", "#d1495b", "#7d5fb8", "#4aa3b5", "#8a95a3"];
/// Between lines that would lie on each other.
const APART: f64 = 1.5;
const SMALL: &str = "font-size=\"12\" fill=\"#5b6776\"";

/// An SVG, complete in itself.
pub(crate) fn draw(even: &Even) -> String {
    let (sessions, processes) = (grouped(even.sessions.into()), even.processes);
    let mut svg = svg::open((WIDTH, HEIGHT), "Sessions of each process over time", Some(&command(even)));
    let killed = even.own.killed_s.map_or("", |_| "; then one process is killed");
    let below = format!("{sessions} sessions over {processes} processes, {} opened a second{killed}", grouped(even.rate.into()));
    svg::heading(&mut svg, MARGIN, "Who gets the next connection", &below);
    legend(&mut svg, processes);
    let spreads: Vec<&Spread> = [&even.own].into_iter().chain(&even.peers).collect();
    let most = spreads.iter().flat_map(|spread| spread.looks.iter().flat_map(|look| look.sessions.values())).max();
    let scale = Scale::linear(*most.unwrap_or(&1) as f64);
    let end = spreads.iter().filter_map(|spread| spread.looks.last()).map(|look| look.s).fold(0.5, f64::max);
    let width = (WIDTH - 2.0 * MARGIN) / spreads.len() as f64;
    for (n, spread) in spreads.into_iter().enumerate() {
        let left = MARGIN + LABELS + width * n as f64;
        panel(&mut svg, spread, (&scale, end), (left, left + width - LABELS - GAP));
    }
    let foot = "A line is one process. Lines that would lie on each other are drawn side by side.";
    svg::close(svg, (MARGIN, HEIGHT - 18.0), foot)
}

/// The command that draws it.
fn command(even: &Even) -> String {
    let kill = even.own.killed_s.map_or("", |_| " --kill");
    let peer = if even.peers.is_empty() { "" } else { " --peer cluster" };
    let Even { sessions, processes, rate, .. } = even;
    format!("loadtest even --spawn up:gateways={processes},workers=1 --sessions {sessions} --rate {rate}{kill}{peer} --svg FILE")
}

fn colour(process: usize) -> &'static str {
    COLOURS[process % COLOURS.len()]
}

fn legend(svg: &mut String, processes: u16) {
    let shown = usize::from(processes).min(COLOURS.len());
    for n in 0..shown {
        let more = n + 1 == shown && usize::from(processes) > shown;
        let words = if more { format!("process {} and on", n + 1) } else { format!("process {}", n + 1) };
        svg::legend(svg, (MARGIN + 100.0 * n as f64, 104.0), colour(n), "font-size=\"13\" fill=\"#2b3643\"", &words);
    }
}

/// One way to spread sessions, on axes that all panels share: sessions, and seconds up to `end`.
fn panel(svg: &mut String, spread: &Spread, (scale, end): (&Scale, f64), (left, right): (f64, f64)) {
    let bottom = TOP + PANEL_HEIGHT;
    let y = |value: f64| bottom - PANEL_HEIGHT * scale.at(value);
    let x = |s: f64| left + (right - left) * (s / end).clamp(0.0, 1.0);
    text(svg, (left, TOP - 34.0), "font-size=\"15\" font-weight=\"600\" fill=\"#16202c\"", spread.name);
    text(svg, (left, TOP - 15.0), "font-size=\"12.5\" fill=\"#2b3643\"", &figures(spread));
    let middle = f64::midpoint(TOP, bottom);
    let turned = format!("{SMALL} text-anchor=\"middle\" transform=\"rotate(-90 {:.1} {middle:.1})\"", left - 36.0);
    text(svg, (left - 36.0, middle), &turned, "sessions");
    for (n, tick) in scale.ticks.iter().enumerate() {
        svg::rule(svg, (left, right), y(*tick), n == 0);
        text(svg, (left - 8.0, y(*tick) + 4.0), &format!("{SMALL} text-anchor=\"end\""), &tick.to_string());
    }
    for s in seconds(end) {
        let _ = writeln!(svg, "<path d=\"M{0:.1} {bottom:.1}v5\" stroke=\"#8a95a3\"/>", x(s));
        text(svg, (x(s), bottom + 20.0), &format!("{SMALL} text-anchor=\"middle\""), &s.to_string());
    }
    text(svg, (f64::midpoint(left, right), bottom + 40.0), &format!("{SMALL} text-anchor=\"middle\""), "seconds");
    if let Some(at) = spread.killed_s {
        let _ = writeln!(svg, "<path d=\"M{0:.1} {TOP:.1}V{bottom:.1}\" stroke=\"#d1495b\" stroke-dasharray=\"3 3\"/>", x(at));
        // Beside the line, where there is room.
        let (anchor, off) = if x(at) > f64::midpoint(left, right) { ("end", -5.0) } else { ("start", 5.0) };
        let style = format!("font-size=\"12\" fill=\"#d1495b\" text-anchor=\"{anchor}\"");
        text(svg, (x(at) + off, TOP + 10.0), &style, "kill -9");
    }
    let mut names: Vec<&String> = spread.looks.iter().flat_map(|look| look.sessions.keys()).collect();
    // `gateway-10` is behind `gateway-9`.
    names.sort_by_key(|name| (name.len(), name.as_str()));
    names.dedup();
    for (n, name) in names.iter().enumerate() {
        let off = (n as f64 - (names.len() as f64 - 1.0) / 2.0) * APART;
        // A process that is not there has no sessions.
        let points = spread.looks.iter().map(|look| (x(look.s), y(look.sessions.get(*name).copied().unwrap_or(0) as f64) - off));
        let points: Vec<(f64, f64)> = points.map(|(x, y)| (x, y.min(bottom))).collect();
        svg::line(svg, &points, colour(n), 1.4);
    }
}

/// What a panel says in words.
fn figures(spread: &Spread) -> String {
    let (least, most) = spread.ends();
    let each = if least == most { format!("{least} each") } else { format!("{least} to {most} each") };
    match (spread.killed_s, spread.even_after_crash_s) {
        (None, _) => format!("{each}: the fullest has {:.2} times the mean", spread.even_max_over_mean),
        (Some(_), Some(after)) => format!("{each}; even {after:.1} s after the kill"),
        (Some(_), None) => format!("{each}; not even again"),
    }
}

/// Round numbers of seconds, some four of them.
fn seconds(end: f64) -> Vec<f64> {
    let step = [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0].into_iter().find(|step| end / step <= 6.0).unwrap_or(100.0);
    (0..=6).map(|n| f64::from(n) * step).filter(|s| *s <= end).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Look;
    use super::*;
    use crate::environment::Environment;

    fn spread(name: &'static str, counts: &[[u64; 2]], killed_s: Option<f64>) -> Spread {
        let look = |(n, counts): (usize, &[u64; 2])| Look {
            s: n as f64 * 0.5,
            sessions: counts.iter().enumerate().map(|(n, count)| (format!("gateway-{}", n + 1), *count)).collect(),
        };
        Spread {
            name,
            even_max_over_mean: 1.2,
            opened_s: 1.0,
            killed_s,
            even_after_crash_s: None,
            moved: 0,
            reconnected: 0,
            looks: counts.iter().enumerate().map(look).collect(),
        }
    }

    #[test]
    fn every_process_has_a_line_of_its_own() {
        let own = spread("lasthit up", &[[0, 0], [4, 4], [5, 5]], Some(0.7));
        let peers = vec![spread("another <one>", &[[0, 0], [9, 1]], None)];
        let even = Even { sessions: 10, processes: 2, rate: 500, own, peers, environment: Environment::read() };
        let drawn = draw(&even);
        assert_eq!(drawn.matches("stroke-linejoin").count(), 4, "{drawn}");
        assert!(drawn.contains("another &lt;one&gt;") && drawn.contains("5 each; not even again") && drawn.ends_with("</svg>\n"));
        assert!(drawn.contains("--sessions 10 --rate 500 --kill --peer cluster"), "{drawn}");
        // Two processes with as many sessions do not hide each other.
        let lines: Vec<&str> = drawn.lines().filter(|line| line.contains("stroke-linejoin")).collect();
        let way = |line: &str| line.split('"').nth(1).map(str::to_owned);
        assert_ne!(way(lines[0]), way(lines[1]));
    }

    #[test]
    fn an_axis_has_a_few_round_numbers() {
        assert_eq!(seconds(3.2), [0.0, 1.0, 2.0, 3.0]);
        assert_eq!(seconds(30.0), [0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0]);
        assert_eq!(seconds(0.2), [0.0]);
    }
}

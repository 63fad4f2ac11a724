//! The result as a picture: what was measured on the left, how far the model is off beside it, and below, on a ground of its own and hatched, what
//! nobody has measured.

use std::fmt::Write;

use super::model::Prediction;
use super::table::gigabytes;
use super::{Point, Scale};
use crate::draw::svg::{self, grouped, text};

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 36.0;
const RIGHT: f64 = 964.0;
/// Where the bars begin, and where the widest ends.
const BARS: [f64; 2] = [150.0, 520.0];
/// The column of the nodes' shares, and the errors' axis.
const NODES: f64 = 566.0;
const ERRORS: [f64; 2] = [740.0, 950.0];
const TOP: f64 = 150.0;
const ROW: f64 = 25.0;
/// One prediction.
const PREDICTED_ROW: f64 = 56.0;

const KINDS: [(&str, &str); 3] = [("gateways", "#0f9d76"), ("workers", "#2f6fde"), ("Redis", "#d1495b")];
const DARK: &str = "font-size=\"12.5\" fill=\"#2b3643\"";
const SOFT: &str = "font-size=\"12\" fill=\"#5b6776\"";

/// An SVG, complete in itself.
pub(crate) fn draw(scale: &Scale) -> String {
    let rows = scale.measured.points.len() as f64;
    let below = TOP + ROW * rows + 66.0;
    let height = below + 96.0 + PREDICTED_ROW * scale.predicted.rows.len() as f64 + 40.0;
    let mut svg = svg::open((WIDTH, height), "What a deployment costs as it grows: measured, and predicted", None);
    let _ = writeln!(
        svg,
        "<defs>{}</defs>",
        KINDS.iter().enumerate().fold(String::new(), |all, (n, (_, colour))| {
            all + &format!(
                "<pattern id=\"h{n}\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
                 <rect width=\"6\" height=\"6\" fill=\"{colour}\" fill-opacity=\"0.18\"/><rect width=\"2.4\" height=\"6\" fill=\"{colour}\"/></pattern>"
            )
        })
    );
    let config = &scale.config;
    let line = format!(
        "{} rooms; a gateway and a worker on each host; {} rounds of {} s, in turns, every answer audited",
        grouped(u64::from(config.rooms)),
        config.rounds,
        scale.duration_s
    );
    svg::heading(&mut svg, LEFT, "Measured: CPU time an event", &line);
    let mut at = LEFT;
    for (name, colour) in KINDS {
        svg::legend(&mut svg, (at, 97.0), colour, "font-size=\"13\" fill=\"#2b3643\"", name);
        at += 100.0;
    }
    measured(&mut svg, scale);
    errors(&mut svg, scale);
    predicted(&mut svg, scale, below, height - below - 40.0);
    let [before, after] = scale.load_average;
    let foot = format!(
        "Measured on {} cores, which everything shared, the generator too. Load average of the machine: {before:.1} before, {after:.1} after.",
        scale.environment.cores
    );
    if let Some(doubt) = scale.doubt() {
        text(&mut svg, (LEFT, 20.0), "font-size=\"13\" font-weight=\"600\" fill=\"#b3261e\"", &format!("WARNING: {doubt}"));
    }
    svg::close(svg, (LEFT, height - 14.0), &foot)
}

fn measured(svg: &mut String, scale: &Scale) {
    let points = &scale.measured.points;
    let most = points.iter().map(|point| point.cpu_us.deployment()).fold(1.0, f64::max);
    text(svg, (LEFT, TOP - 12.0), SOFT, "nodes · hosts · shards · rate");
    text(svg, (NODES, TOP - 12.0), SOFT, "each node, of a core");
    for (n, point) in points.iter().enumerate() {
        let y = TOP + ROW * n as f64;
        let Point { setting, cpu_us, .. } = point;
        let name = format!("{} · {} · {} · {}", setting.nodes, setting.hosts, setting.shards, grouped(u64::from(setting.rate)));
        text(svg, (LEFT, y + 14.0), DARK, &name);
        let parts = [cpu_us.gateway, cpu_us.worker, cpu_us.redis];
        let fills = KINDS.map(|(_, colour)| colour.to_owned());
        let end = bar(svg, (BARS[0] + 10.0, y + 2.0), 16.0, (BARS[1] - BARS[0] - 60.0) / most, parts, &fills);
        text(svg, (end + 6.0, y + 14.0), DARK, &format!("{:.0} µs", cpu_us.deployment()));
        let shares: Vec<String> = point.each_node.iter().map(|node| format!("{:.0} %", 100.0 * node.cpu_share)).collect();
        text(svg, (NODES, y + 14.0), DARK, &shares.join(", "));
    }
    let y = TOP + ROW * points.len() as f64 + 22.0;
    let told = scale.measured.ratios.iter().max_by_key(|ratio| (ratio.nodes, std::cmp::Reverse(ratio.hosts)));
    if let Some(ratio) = told {
        let words = format!(
            "{} nodes against one: CPU an event {:.2}x, the busiest node has {:.2} of what the one has",
            ratio.nodes, ratio.cpu, ratio.busiest
        );
        text(svg, (LEFT, y), "font-size=\"13\" font-weight=\"600\" fill=\"#16202c\"", &words);
    }
}

/// How far the model is off from each run that it has not seen.
fn errors(svg: &mut String, scale: &Scale) {
    const MOST: f64 = 0.3;
    let x = |share: f64| f64::midpoint(ERRORS[0], ERRORS[1]) + (ERRORS[1] - ERRORS[0]) / 2.0 * (share / MOST).clamp(-1.0, 1.0);
    let bottom = TOP + ROW * scale.check.runs.len() as f64;
    text(svg, (ERRORS[0], TOP - 30.0), SOFT, "the model, without that run:");
    for share in [-0.2, 0.0, 0.2] {
        let colour = if share == 0.0 { "#8a95a3" } else { "#e6eaef" };
        let _ = writeln!(svg, "<path d=\"M{:.1} {TOP}V{bottom:.1}\" stroke=\"{colour}\"/>", x(share));
        let label = if share == 0.0 { "as measured".to_owned() } else { format!("{:+.0} %", 100.0 * share) };
        text(svg, (x(share), TOP - 12.0), "font-size=\"12\" fill=\"#5b6776\" text-anchor=\"middle\"", &label);
    }
    for (n, check) in scale.check.runs.iter().enumerate() {
        let y = TOP + ROW * n as f64 + 10.0;
        svg::line(svg, &[(x(0.0), y), (x(check.error), y)], "#8e5bb5", 2.0);
        svg::dot(svg, (x(check.error), y), "#8e5bb5", 5.0);
    }
    let [middle, most] = scale.check.error;
    let words = format!("off by {:.0} % in the median, {:.0} % at most", 100.0 * middle, 100.0 * most);
    text(
        svg,
        (f64::midpoint(ERRORS[0], ERRORS[1]), bottom + 22.0),
        "font-size=\"12.5\" fill=\"#2b3643\" text-anchor=\"middle\"",
        &words,
    );
}

fn predicted(svg: &mut String, scale: &Scale, top: f64, height: f64) {
    let _ = writeln!(
        svg,
        "<rect x=\"{}\" y=\"{top:.1}\" width=\"{}\" height=\"{height:.1}\" rx=\"10\" fill=\"#fbf7ee\" stroke=\"#c9a227\" stroke-dasharray=\"7 5\"/>",
        LEFT - 16.0,
        RIGHT - LEFT + 32.0
    );
    text(svg, (LEFT, top + 34.0), "font-size=\"22\" font-weight=\"600\" fill=\"#16202c\"", "Predicted, not measured: CPU cores");
    let line = "a million rooms at one event a second, 1,024 shards, one gateway and one worker a host; hatched as events share calls here, \
                outlined if none did";
    text(svg, (LEFT, top + 56.0), "font-size=\"13\" fill=\"#5b6776\"", line);
    let rows = &scale.predicted.rows;
    let all = |prediction: &Option<Prediction>| prediction.as_ref().map_or(0.0, |prediction| prediction.cores.all());
    let most = rows.iter().map(|row| all(&row.expected).max(all(&row.most))).fold(1.0, f64::max);
    let unit = (BARS[1] - BARS[0]) / most;
    for (n, row) in rows.iter().enumerate() {
        let y = top + 82.0 + PREDICTED_ROW * n as f64;
        text(
            svg,
            (LEFT, y + 17.0),
            "font-size=\"14\" font-weight=\"600\" fill=\"#16202c\"",
            &format!("{} gateways", grouped(u64::from(row.gateways))),
        );
        let Some(expected) = &row.expected else {
            text(svg, (BARS[0], y + 17.0), DARK, "no number of nodes does it");
            continue;
        };
        let cores = &expected.cores;
        let fills = [0, 1, 2].map(|n| format!("url(#h{n})"));
        bar(svg, (BARS[0], y + 2.0), 24.0, unit, [cores.gateway, cores.worker, cores.redis], &fills);
        if let Some(most) = &row.most {
            let width = unit * most.cores.all();
            let _ = writeln!(
                svg,
                "<rect x=\"{}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"24\" fill=\"none\" stroke=\"#2b3643\" stroke-dasharray=\"4 3\"/>",
                BARS[0],
                y + 2.0
            );
        }
        let at_most = row.most.as_ref().map_or_else(String::new, |most| format!(" (at most {})", most.setting.nodes));
        let words = format!(
            "{} nodes{at_most}, {:.0} cores: gateways {:.0}, workers {:.0}, Redis {:.0}",
            expected.setting.nodes,
            cores.all(),
            cores.gateway,
            cores.worker,
            cores.redis
        );
        text(svg, (BARS[1] + 24.0, y + 11.0), DARK, &words);
        let words =
            format!("{} in Redis, {:.0} connections a node", gigabytes(expected.redis_bytes), expected.connections_per_node);
        text(svg, (BARS[1] + 24.0, y + 28.0), SOFT, &words);
    }
}

/// A bar of parts, each `unit` wide for one of it. Returns where it ends.
fn bar(svg: &mut String, (x, y): (f64, f64), height: f64, unit: f64, parts: [f64; 3], fills: &[String; 3]) -> f64 {
    parts.into_iter().zip(fills).fold(x, |x, (part, fill)| {
        let width = unit * part;
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height}\" fill=\"{fill}\"/>",
            (width - 0.6).max(0.6)
        );
        x + width
    })
}

//! The stages as a picture: a bar for each rate, of stages in the order of an event's life.

use std::fmt::Write;

use super::breakdown::{Place, Stage};
use super::{Rate, Stages};
use crate::draw::svg::{self, grouped, text};

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 36.0;
const RIGHT: f64 = 964.0;
/// The first bar's title.
const TOP: f64 = 128.0;
/// One rate: title, bar, figures below it, and room.
const ROW: f64 = 156.0;
const BAR: f64 = 44.0;
/// The narrowest part that its name stands in.
const NAMED: f64 = 58.0;

fn colour(place: Place) -> &'static str {
    match place {
        Place::Gateway => "#0f9d76",
        Place::Redis => "#d1495b",
        Place::Way => "#e0a53d",
        Place::Worker => "#2f6fde",
        Place::Elsewhere => "#b6bfca",
    }
}

/// An SVG, complete in itself.
pub(crate) fn draw(stages: &Stages) -> String {
    let height = TOP + ROW * stages.rates.len() as f64 + 30.0;
    let mut svg = svg::open((WIDTH, height), "Where the time of one event goes, stage by stage", None);
    let line = format!("{}; medians from a send to its verdict, each bar on a scale of its own", stages.line());
    svg::heading(&mut svg, LEFT, "Where the time goes", &line);
    let mut at = LEFT;
    for place in [Place::Gateway, Place::Way, Place::Redis, Place::Worker, Place::Elsewhere] {
        let words = if place == Place::Elsewhere { "outside: generator and kernel, both ways" } else { place.name() };
        svg::legend(&mut svg, (at, 96.5), colour(place), "font-size=\"13\" fill=\"#2b3643\"", words);
        at += 44.0 + 7.0 * words.chars().count() as f64;
    }
    for (n, rate) in stages.rates.iter().enumerate() {
        bar(&mut svg, rate, TOP + ROW * n as f64);
    }
    let [before, after] = stages.load_average;
    let foot = format!(
        "{} cores that everything shares, the generator too. Load average of the machine: {before:.1} before, {after:.1} after.",
        stages.environment.cores
    );
    svg::close(svg, (LEFT, height - 18.0), &foot)
}

fn bar(svg: &mut String, rate: &Rate, top: f64) {
    let title = format!("{} events a second", grouped(u64::from(rate.events_per_s)));
    text(svg, (LEFT, top + 14.0), "font-size=\"15\" font-weight=\"600\" fill=\"#16202c\"", &title);
    let whole = format!("{} from send to verdict", time(rate.breakdown.service_us.median_us));
    text(svg, (RIGHT, top + 14.0), "font-size=\"13\" fill=\"#5b6776\" text-anchor=\"end\"", &whole);
    // A difference of two medians may be a little below nothing: it is no part of the bar then.
    let parts = || rate.breakdown.stages.iter().filter(|stage| stage.time.median_us > 0.0);
    let sum: f64 = parts().map(|stage| stage.time.median_us).sum();
    let (y, mut x) = (top + 28.0, LEFT);
    let mut narrow: Vec<(f64, &Stage)> = Vec::new();
    for stage in parts() {
        let width = (RIGHT - LEFT) * stage.time.median_us / sum.max(f64::MIN_POSITIVE);
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{}\"><title>{}: {}</title></rect>",
            (width - 1.0).max(0.6),
            colour(stage.place),
            svg::escaped(stage.name),
            time(stage.time.median_us)
        );
        let middle = x + width / 2.0;
        if width >= NAMED {
            let dark = matches!(stage.place, Place::Elsewhere | Place::Way);
            let fill = if dark { "#16202c" } else { "#ffffff" };
            let style =
                |size, weight| format!("font-size=\"{size}\" font-weight=\"{weight}\" fill=\"{fill}\" text-anchor=\"middle\"");
            text(svg, (middle, y + 19.0), &style("12.5", 600), stage.name);
            text(svg, (middle, y + 35.0), &style("11.5", 400), &time(stage.time.median_us));
        } else {
            narrow.push((middle, stage));
        }
        x += width;
    }
    below(svg, &narrow, y + BAR);
}

/// Names of the parts that are too narrow for them, below the bar, each with a line to its part.
fn below(svg: &mut String, narrow: &[(f64, &Stage)], bottom: f64) {
    let width = |stage: &Stage| 7.0 * (stage.name.chars().count() + time(stage.time.median_us).chars().count() + 1) as f64 + 12.0;
    // From the right: what does not fit there moves its neighbours to the left.
    let mut places = Vec::new();
    let mut end = RIGHT + 12.0;
    for (middle, stage) in narrow.iter().rev() {
        let at = (middle - width(stage) / 2.0).min(end - width(stage));
        places.push(at);
        end = at;
    }
    let mut begin = LEFT;
    for ((middle, stage), at) in narrow.iter().zip(places.into_iter().rev()) {
        let at = at.max(begin);
        begin = at + width(stage);
        let centre = at + width(stage) / 2.0 - 6.0;
        let _ = writeln!(
            svg,
            "<path d=\"M{middle:.1} {bottom:.1}V{:.1}L{centre:.1} {:.1}\" fill=\"none\" stroke=\"#8a95a3\"/>",
            bottom + 4.0,
            bottom + 18.0
        );
        let words = format!("{} {}", stage.name, time(stage.time.median_us));
        text(svg, (centre, bottom + 32.0), "font-size=\"12\" fill=\"#2b3643\" text-anchor=\"middle\"", &words);
    }
}

fn time(us: f64) -> String {
    match us {
        us if us < 9.95 => format!("{us:.1} µs"),
        us if us < 1000.0 => format!("{us:.0} µs"),
        us => format!("{:.1} ms", us / 1000.0),
    }
}

//! A contest's timeline as a picture: one row for each contender, in the order of the decisions.

use std::fmt::Write;

use super::timeline::{Contender, Timeline, shown};
use crate::limits::PICTURE_CONTENDERS_MAX;

const WIDTH: f64 = 1080.0;
const MARGIN: f64 = 40.0;
/// Where the arrivals are drawn.
const LEFT: f64 = 250.0;
const RIGHT: f64 = 800.0;
const TOP: f64 = 150.0;
const ROW: f64 = 46.0;
/// The colours of gateways, in turn.
const COLOURS: [&str; 6] = ["#2f6fde", "#e07b1f", "#8a4fd3", "#0f8f8a", "#c23d7a", "#64748b"];
const INK: &str = "#16202c";
const GREY: &str = "#5b6776";
const GREEN: &str = "#0f8a5f";

/// An SVG, complete in itself.
#[must_use]
pub(crate) fn draw(timeline: &Timeline) -> String {
    let rows = chosen(timeline);
    let axis_y = TOP + ROW * rows.len() as f64 + 8.0;
    let height = axis_y + 108.0;
    let mut page = Page(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"Inter, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif\" role=\"img\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" rx=\"12\" fill=\"#ffffff\"/>\n"
    ));
    let _ = writeln!(page.0, "<title>{}</title>", escape(&format!("{} in room {}", timeline.contest, timeline.room)));
    heading(&mut page, timeline);
    let origin =
        timeline.winner.map_or_else(|| rows.first().map_or(0, |c| c.arrival_ns), |at| timeline.contenders[at].arrival_ns);
    let scale = Scale::of(&rows, origin);
    let named = if timeline.winner.is_some() { "the winner's arrival" } else { "the first arrival" };
    axis(&mut page, &scale, axis_y, named);
    for (n, contender) in rows.iter().enumerate() {
        row(&mut page, timeline, contender, &scale, TOP + ROW * (n as f64 + 0.5));
    }
    footer(&mut page, timeline, rows.len(), height);
    page.0 + "</svg>\n"
}

/// The contenders to draw: all, or those who arrived nearest to the winner.
fn chosen(timeline: &Timeline) -> Vec<&Contender> {
    let mut rows: Vec<&Contender> = timeline.contenders.iter().collect();
    if rows.len() > PICTURE_CONTENDERS_MAX {
        let at = timeline.winner.map_or(rows[0].arrival_ns, |at| timeline.contenders[at].arrival_ns);
        rows.sort_by_key(|c| c.arrival_ns.abs_diff(at));
        rows.truncate(PICTURE_CONTENDERS_MAX);
        rows.sort_by_key(|c| c.seq);
    }
    rows
}

struct Page(String);

impl Page {
    fn text(&mut self, (x, y): (f64, f64), style: &str, text: &str) {
        // Writing into a String cannot fail.
        let _ = writeln!(self.0, "<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{}</text>", escape(text));
    }

    fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), style: &str) {
        let _ = writeln!(self.0, "<path d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\" {style}/>");
    }

    /// A word on a coloured ground; returns where the next may begin.
    fn chip(&mut self, x: f64, y: f64, (ground, ink): (&str, &str), word: &str) -> f64 {
        let width = 14.0 + 6.6 * word.chars().count() as f64;
        let top = y - 9.0;
        let _ =
            writeln!(self.0, "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"18\" rx=\"9\" fill=\"{ground}\"/>");
        let style = format!("font-size=\"11.5\" font-weight=\"600\" fill=\"{ink}\" text-anchor=\"middle\"");
        self.text((x + width / 2.0, y + 4.0), &style, word);
        x + width + 6.0
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn heading(page: &mut Page, timeline: &Timeline) {
    let round =
        if timeline.rounds.len() > 1 || timeline.round > 1 { format!(", round {}", timeline.round) } else { String::new() };
    let place = format!("{} in room {}{round}", timeline.contest, timeline.room);
    page.text((MARGIN, 40.0), &format!("font-size=\"14\" fill=\"{GREY}\""), &place);
    page.text((MARGIN, 74.0), &format!("font-size=\"26\" font-weight=\"650\" fill=\"{INK}\""), &verdict(timeline));
    let mut x = MARGIN;
    let gateways = timeline.contenders.iter().map(|c| c.gateway).max().unwrap_or(0);
    for gateway in 1..=gateways.min(COLOURS.len()) {
        let session = timeline.contenders.iter().find(|c| c.gateway == gateway).map_or("", |c| c.session.as_str());
        let label = format!("gateway {gateway} ({})", session.split('-').next().unwrap_or_default());
        let _ = writeln!(page.0, "<circle cx=\"{:.1}\" cy=\"101\" r=\"5\" fill=\"{}\"/>", x + 5.0, COLOURS[gateway - 1]);
        page.text((x + 16.0, 105.5), &format!("font-size=\"13\" fill=\"{GREY}\""), &label);
        x += 44.0 + 7.0 * label.chars().count() as f64;
    }
}

/// What happened, in one sentence.
fn verdict(timeline: &Timeline) -> String {
    let Some(winner) = timeline.winner.map(|at| &timeline.contenders[at]) else { return "Nobody won".to_owned() };
    let beaten = |c: &&Contender| c.behind_ns.is_some() && c.reason.as_deref() == Some("late");
    let late = || timeline.contenders.iter().filter(beaten);
    // Players who may have been first are named before those who certainly were not.
    let doubtful = late().find(|c| c.flags.contains(&"photo_finish"));
    let nearest = doubtful.or_else(|| late().min_by_key(|c| c.behind_ns));
    match nearest {
        None => format!("{} won, unrivalled", winner.player),
        Some(rival) if rival.flags.contains(&"photo_finish") => {
            format!("{} won; too close to {} for the clock to tell", winner.player, rival.player)
        }
        Some(rival) => format!("{} won, {} ahead of {}", winner.player, behind(rival, winner), rival.player),
    }
}

fn behind(rival: &Contender, winner: &Contender) -> String {
    let uncertainty_ns = rival.uncertainty_ns.max(winner.uncertainty_ns);
    shown(rival.behind_ns.unwrap_or(0), uncertainty_ns)
}

/// From moments to places: straight, or by powers of ten where some are far away.
struct Scale {
    origin: u64,
    low: f64,
    high: f64,
    bent: bool,
}

/// Straight up to here, bent beyond, in nanoseconds.
const BEND_NS: f64 = 1_000.0;

impl Scale {
    fn of(rows: &[&Contender], origin: u64) -> Self {
        let moments = || {
            rows.iter()
                .flat_map(|c| [c.arrival_ns, c.arrival_ns.saturating_sub(c.uncertainty_ns), c.raw_ns.unwrap_or(c.arrival_ns)])
        };
        let offsets: Vec<f64> = moments().map(|ns| ns as f64 - origin as f64).collect();
        let far = offsets.iter().fold(1_000.0, |most: f64, o| most.max(o.abs()));
        let mut arrivals: Vec<f64> = rows.iter().map(|c| c.arrival_ns.abs_diff(origin) as f64).filter(|d| *d > 0.0).collect();
        arrivals.sort_by(f64::total_cmp);
        let bent = arrivals.first().is_some_and(|near| far / near > 40.0);
        let mut this = Self { origin, low: 0.0, high: 0.0, bent };
        let places: Vec<f64> = offsets.iter().map(|o| this.bend(*o)).collect();
        let (low, high) = places.iter().fold((0.0_f64, 0.0_f64), |(l, h), p| (l.min(*p), h.max(*p)));
        let room = ((high - low) * 0.06).max(this.bend(BEND_NS) * 0.2);
        (this.low, this.high) = (low - room, high + room);
        this
    }

    fn bend(&self, offset_ns: f64) -> f64 {
        if self.bent { (offset_ns.abs() / BEND_NS).ln_1p().copysign(offset_ns) } else { offset_ns }
    }

    fn x(&self, offset_ns: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * (self.bend(offset_ns) - self.low) / (self.high - self.low)
    }

    fn at(&self, ns: u64) -> f64 {
        self.x(ns as f64 - self.origin as f64)
    }

    /// Where to write what, in nanoseconds.
    fn ticks(&self) -> Vec<f64> {
        let mut ticks = vec![0.0];
        if self.bent {
            for power in 3..=12 {
                let tick = 10f64.powi(power);
                ticks.extend([tick, -tick]);
            }
        } else {
            let rough = (self.high - self.low) / 6.0;
            let power = 10f64.powf(rough.log10().floor());
            let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= rough).unwrap_or(rough);
            for n in 1..=8 {
                ticks.extend([step * f64::from(n), -step * f64::from(n)]);
            }
        }
        ticks.retain(|tick| (LEFT..=RIGHT).contains(&self.x(*tick)));
        ticks.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
        // Labels need space.
        let mut kept: Vec<f64> = Vec::new();
        for tick in ticks {
            if kept.iter().all(|other| (self.x(*other) - self.x(tick)).abs() > 56.0) {
                kept.push(tick);
            }
        }
        kept
    }
}

fn axis(page: &mut Page, scale: &Scale, y: f64, origin: &str) {
    for tick in scale.ticks() {
        let x = scale.x(tick);
        let style = if tick == 0.0 { "stroke=\"#9aa5b1\" stroke-dasharray=\"3 3\"" } else { "stroke=\"#e9edf1\"" };
        page.line((x, TOP - 10.0), (x, y), style);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive, whole number of nanoseconds")]
        let label = match tick {
            0.0 => "0".to_owned(),
            _ => format!("{}{}", if tick > 0.0 { '+' } else { '−' }, shown(tick.abs() as u64, tick.abs() as u64)),
        };
        page.text((x, y + 18.0), &format!("font-size=\"12\" fill=\"{GREY}\" text-anchor=\"middle\""), &label);
    }
    let bent = if scale.bent { "; the scale goes by powers of ten" } else { "" };
    let label = format!("arrival at the machine, measured from {origin}{bent}");
    page.text(
        (f64::midpoint(LEFT, RIGHT), y + 40.0),
        &format!("font-size=\"12\" fill=\"{GREY}\" text-anchor=\"middle\""),
        &label,
    );
}

fn row(page: &mut Page, timeline: &Timeline, c: &Contender, scale: &Scale, y: f64) {
    let won = c.outcome == "won";
    if won {
        let top = y - ROW / 2.0 + 3.0;
        let (x, width, height) = (MARGIN - 14.0, WIDTH - 2.0 * MARGIN + 28.0, ROW - 6.0);
        let _ =
            writeln!(page.0, "<rect x=\"{x}\" y=\"{top:.1}\" width=\"{width}\" height=\"{height}\" rx=\"8\" fill=\"#e9f7f0\"/>");
    }
    let colour = COLOURS[(c.gateway - 1) % COLOURS.len()];
    page.text((MARGIN, y - 2.0), &format!("font-size=\"15\" font-weight=\"600\" fill=\"{INK}\""), &short(&c.player, 22));
    let under = format!("verdict {}{}", c.seq, c.id.as_ref().map(|id| format!(" · {}", short(id, 18))).unwrap_or_default());
    page.text((MARGIN, y + 14.0), &format!("font-size=\"11.5\" fill=\"{GREY}\""), &under);

    let (from, to) = (scale.at(c.arrival_ns.saturating_sub(c.uncertainty_ns)), scale.at(c.arrival_ns));
    page.line((LEFT, y), (RIGHT, y), "stroke=\"#eef1f4\"");
    page.line(
        (from, y),
        (to, y),
        &format!("stroke=\"{colour}\" stroke-opacity=\"0.35\" stroke-width=\"10\" stroke-linecap=\"round\""),
    );
    if let Some(raw) = c.raw_ns {
        let raw = scale.at(raw);
        page.line((raw, y), (to, y), &format!("stroke=\"{colour}\" stroke-width=\"1.5\" stroke-dasharray=\"2 3\""));
        let _ = writeln!(
            page.0,
            "<circle cx=\"{raw:.1}\" cy=\"{y:.1}\" r=\"5\" fill=\"#ffffff\" stroke=\"{colour}\" stroke-width=\"2\"/>"
        );
    }
    let _ = writeln!(
        page.0,
        "<circle cx=\"{to:.1}\" cy=\"{y:.1}\" r=\"6.5\" fill=\"{colour}\" stroke=\"#ffffff\" stroke-width=\"2\"/>"
    );

    let (what, ink) = match (won, timeline.winner.map(|at| &timeline.contenders[at]), c.behind_ns) {
        (true, ..) => ("won".to_owned(), GREEN),
        (false, Some(_), Some(_)) if c.flags.contains(&"photo_finish") => ("too close to tell".to_owned(), INK),
        (false, Some(winner), Some(_)) => (format!("{} late", behind(c, winner)), INK),
        _ => (c.reason.as_ref().map_or_else(|| c.outcome.to_owned(), |why| format!("{}: {why}", c.outcome)), GREY),
    };
    let x = RIGHT + 28.0;
    let chips: Vec<&str> = c.flags.clone();
    let middle = if chips.is_empty() { y + 5.0 } else { y - 4.0 };
    page.text((x, middle), &format!("font-size=\"15\" font-weight=\"600\" fill=\"{ink}\""), &short(&what, 28));
    let mut at = x;
    for flag in chips {
        at = page.chip(at, y + 11.0, ("#fdf0d5", "#8a5a00"), &flag.replace('_', " "));
    }
}

fn short(text: &str, most: usize) -> String {
    if text.chars().count() <= most { text.to_owned() } else { text.chars().take(most - 1).chain(['…']).collect() }
}

fn footer(page: &mut Page, timeline: &Timeline, drawn: usize, height: f64) {
    let replay = &timeline.replay;
    let mut worst = timeline.contenders.iter().map(|c| c.uncertainty_ns).collect::<Vec<_>>();
    worst.sort_unstable();
    let (first, last) = (worst.first().copied().unwrap_or(0), worst.last().copied().unwrap_or(0));
    let (first, last) = (shown(first, first), shown(last, last));
    let known = if first == last { last } else { format!("{first} to {last}") };
    let mut line = format!("Bars show uncertainty: each arrival lies within its bar ({known} long).");
    if timeline.contenders.iter().any(|c| c.raw_ns.is_some()) {
        line += " Hollow: the raw stamp, before it was moved.";
    }
    if drawn < timeline.contenders.len() {
        let _ = write!(line, " {} further actions are not drawn.", timeline.contenders.len() - drawn);
    }
    page.text((MARGIN, height - 38.0), &format!("font-size=\"12\" fill=\"{GREY}\""), &line);
    let (ink, line) = if replay.deviations.is_empty() {
        (GREEN, format!("✓ Resolved again: verdicts {} to {} are the same, all {}.", replay.from, replay.to, replay.verdicts))
    } else {
        ("#b42318", format!("✗ Resolved again: {} of {} verdicts deviate.", replay.deviations.len(), replay.verdicts))
    };
    page.text((MARGIN, height - 18.0), &format!("font-size=\"12\" font-weight=\"600\" fill=\"{ink}\""), &line);
}

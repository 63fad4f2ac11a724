//! One chart of the page: lines over a grid, coloured by the page's style, so that it is light or dark as the page is.

use std::fmt::Write;

use super::svg::{Scale, escaped, grouped, path};

const WIDTH: f64 = 540.0;
const HEIGHT: f64 = 290.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = 526.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 246.0;

/// What a vertical axis counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Micros,
    Number,
}

/// One line, and how the style calls its colour.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) name: &'static str,
    pub(super) colour: char,
    pub(super) points: Vec<(f64, f64)>,
    /// Points that have a dot, and what is told of them.
    pub(super) dots: Vec<((f64, f64), String)>,
}

/// A chart.
#[derive(Debug)]
pub(super) struct Chart {
    /// What it shows, for those who do not see it.
    pub(super) label: &'static str,
    pub(super) unit: Unit,
    pub(super) scale: Scale,
    /// The horizontal axis.
    pub(super) span: (f64, f64),
    pub(super) ticks: Vec<(f64, String)>,
    pub(super) axis: &'static str,
    pub(super) lines: Vec<Line>,
    /// A height that matters.
    pub(super) bound: Option<f64>,
}

/// Time as one reads it.
pub(super) fn time(us: f64) -> String {
    let digits = |value: f64, unit: &str| {
        let places = if value >= 100.0 || value.fract() == 0.0 {
            0
        } else if value >= 10.0 {
            1
        } else {
            2
        };
        let text = format!("{value:.places$}");
        let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
        format!("{text} {unit}")
    };
    match us {
        us if us < 1000.0 => digits(us, "µs"),
        us if us < 1e6 => digits(us / 1e3, "ms"),
        us => digits(us / 1e6, "s"),
    }
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Micros => time(value),
            Self::Number if value.fract() != 0.0 => value.to_string(),
            Self::Number => grouped(value as u64),
        }
    }
}

impl Chart {
    /// As HTML: a legend, and the chart.
    pub(super) fn draw(&self) -> String {
        let (low, high) = self.span;
        let x = |value: f64| LEFT + (RIGHT - LEFT) * ((value - low) / (high - low).max(1e-9)).clamp(0.0, 1.0);
        let y = |value: f64| BOTTOM - (BOTTOM - TOP) * self.scale.at(value);
        let mut html = String::from("<p class=\"legend\">");
        for line in &self.lines {
            // Writing into a String cannot fail.
            let _ = write!(html, "<span><i class=\"key {}\"></i>{}</span>", line.colour, escaped(line.name));
        }
        let _ =
            writeln!(html, "</p>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">", escaped(self.label));
        for (n, tick) in self.scale.ticks.iter().enumerate() {
            let class = if n == 0 { "axis" } else { "grid-line" };
            let _ = writeln!(html, "<path class=\"{class}\" d=\"M{LEFT} {0:.1}H{RIGHT}\"/>", y(*tick));
            // Many decades leave room for their beginnings only.
            if self.scale.ticks.len() <= 8 || tick.log10().fract() == 0.0 {
                let label = self.unit.show(*tick);
                let _ =
                    writeln!(html, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>", LEFT - 8.0, y(*tick) + 5.0);
            }
        }
        for (value, label) in &self.ticks {
            let _ = writeln!(
                html,
                "<path class=\"grid-line\" d=\"M{0:.1} {TOP}V{BOTTOM}\"/><text x=\"{0:.1}\" y=\"{1}\" text-anchor=\"{2}\">{3}</text>",
                x(*value),
                BOTTOM + 20.0,
                // The last one would reach over the edge.
                if RIGHT - x(*value) < 24.0 { "end" } else { "middle" },
                escaped(label)
            );
        }
        let middle = f64::midpoint(LEFT, RIGHT);
        let _ = writeln!(html, "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>", BOTTOM + 40.0, self.axis);
        if let Some(bound) = self.bound {
            let _ = writeln!(html, "<path class=\"bound\" d=\"M{LEFT} {0:.1}H{RIGHT}\"/>", y(bound));
        }
        for line in &self.lines {
            let points: Vec<(f64, f64)> = line.points.iter().map(|(at, value)| (x(*at), y(*value))).collect();
            let _ = writeln!(html, "<path class=\"line {}\" d=\"{}\"/>", line.colour, path(&points));
            for ((at, value), told) in &line.dots {
                let (cx, cy, colour, told) = (x(*at), y(*value), line.colour, escaped(told));
                let _ = writeln!(
                    html,
                    "<circle class=\"{colour}\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"4.5\"><title>{told}</title></circle>"
                );
            }
        }
        html + "</svg>\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        let shown = [0.0, 7.25, 999.9, 1000.0, 12_340.0, 250_000.0, 1_500_000.0].map(time);
        assert_eq!(shown, ["0 µs", "7.25 µs", "1000 µs", "1 ms", "12.3 ms", "250 ms", "1.5 s"]);
    }
}

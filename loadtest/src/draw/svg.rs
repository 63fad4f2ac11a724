//! What all pictures share: the frame, text, axes and lines.

use std::fmt::Write;

/// Beginning of an SVG that is complete in itself: its size, its title, what drew it, and a white card.
pub(crate) fn open((width, height): (f64, f64), title: &str, description: Option<&str>) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"Inter, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif\" role=\"img\">\n<title>{}</title>\n",
        escaped(title)
    );
    if let Some(description) = description {
        let _ = writeln!(svg, "<desc>{}</desc>", escaped(description));
    }
    let _ = writeln!(svg, "<rect width=\"{width}\" height=\"{height}\" rx=\"12\" fill=\"#ffffff\"/>");
    svg
}

/// The picture's heading and the line below it.
pub(crate) fn heading(svg: &mut String, left: f64, title: &str, below: &str) {
    text(svg, (left, 44.0), "font-size=\"22\" font-weight=\"600\" fill=\"#16202c\"", title);
    text(svg, (left, 68.0), "font-size=\"14\" fill=\"#5b6776\"", below);
}

/// The picture's last line, and its end.
pub(crate) fn close(mut svg: String, at: (f64, f64), foot: &str) -> String {
    text(&mut svg, at, "font-size=\"12\" fill=\"#8a95a3\"", foot);
    svg + "</svg>\n"
}

/// A line of text, with its style as attributes.
pub(crate) fn text(svg: &mut String, (x, y): (f64, f64), style: &str, text: &str) {
    // Writing into a String cannot fail.
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{}</text>", escaped(text));
}

/// A dot of a legend, and its words in the style that is given.
pub(crate) fn legend(svg: &mut String, (x, y): (f64, f64), colour: &str, style: &str, words: &str) {
    let _ = writeln!(svg, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"5\" fill=\"{colour}\"/>", x + 5.0, y - 5.0);
    text(svg, (x + 18.0, y), style, words);
}

/// A horizontal line of a grid; the lowest is the axis.
pub(crate) fn rule(svg: &mut String, (left, right): (f64, f64), y: f64, is_axis: bool) {
    let colour = if is_axis { "#8a95a3" } else { "#e6eaef" };
    let _ = writeln!(svg, "<path d=\"M{left:.1} {y:.1}H{right:.1}\" stroke=\"{colour}\"/>");
}

/// A line through points.
pub(crate) fn line(svg: &mut String, points: &[(f64, f64)], colour: &str, width: f64) {
    let _ = writeln!(
        svg,
        "<path d=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\" stroke-linejoin=\"round\" stroke-linecap=\"round\"/>",
        path(points)
    );
}

/// A dot on a line.
pub(crate) fn dot(svg: &mut String, (x, y): (f64, f64), colour: &str, radius: f64) {
    let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"{colour}\" stroke=\"#ffffff\"/>");
}

/// Points as a path's data.
pub(crate) fn path(points: &[(f64, f64)]) -> String {
    let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
    if points.is_empty() { String::new() } else { format!("M{}", points.join("L")) }
}

/// Text as it may stand in XML and HTML, in attributes too.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// With commas between the thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A vertical axis: its ticks, from the lowest to the highest.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scale {
    pub(crate) ticks: Vec<f64>,
    logarithmic: bool,
}

impl Scale {
    /// From 0 to `high` or a little more, in halves.
    pub(crate) fn linear(high: f64) -> Self {
        let top = steps().into_iter().find(|top| *top >= high).unwrap_or(high.max(0.5));
        Self { ticks: vec![0.0, top / 2.0, top], logarithmic: false }
    }

    /// From `low` or a little less to `high` or a little more.
    pub(crate) fn logarithmic(low: f64, high: f64) -> Self {
        let steps = steps();
        let from = steps.iter().rposition(|step| *step <= low).unwrap_or(0).min(steps.len() - 2);
        let to = steps.iter().position(|step| *step >= high).unwrap_or(steps.len() - 1).max(from + 1);
        Self { ticks: steps[from..=to].to_vec(), logarithmic: true }
    }

    /// Where a value lies: 0 at the bottom, 1 at the top.
    pub(crate) fn at(&self, value: f64) -> f64 {
        let (low, high) = (self.ticks[0], self.ticks[self.ticks.len() - 1]);
        let value = value.clamp(low, high);
        if self.logarithmic { (value / low).ln() / (high / low).ln() } else { (value - low) / (high - low) }
    }
}

/// 0.5, 1, 2, 5, 10 and so on.
fn steps() -> Vec<f64> {
    std::iter::once(0.5).chain((0..10).flat_map(|n| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(n)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_reach_around_their_values() {
        assert_eq!(Scale::linear(3.0).ticks, [0.0, 2.5, 5.0]);
        assert_eq!(Scale::linear(0.0).ticks, [0.0, 0.25, 0.5]);
        assert_eq!(Scale::logarithmic(150.0, 900.0).ticks, [100.0, 200.0, 500.0, 1000.0]);
        assert_eq!(Scale::logarithmic(0.0, 0.0).ticks, [0.5, 1.0]);
        let scale = Scale::logarithmic(1.0, 100.0);
        assert!((scale.at(10.0) - 0.5).abs() < 1e-9 && scale.at(0.0) == 0.0 && scale.at(1e9) == 1.0);
        let scale = Scale::logarithmic(1e12, 2e12);
        assert!(scale.ticks.len() >= 2 && scale.at(5e12) <= 1.0, "{scale:?}");
    }

    #[test]
    fn text_cannot_break_out() {
        let mut svg = open((10.0, 10.0), "a<b", Some("c&\"d"));
        text(&mut svg, (1.0, 2.0), "", "</text>");
        assert!(svg.contains("<title>a&lt;b</title>") && svg.contains("c&amp;&quot;d") && svg.contains("&lt;/text&gt;"), "{svg}");
        assert_eq!(path(&[(1.0, 2.04), (3.0, 4.0)]), "M1.0 2.0L3.0 4.0");
        assert_eq!((grouped(1_234_567).as_str(), grouped(999).as_str()), ("1,234,567", "999"));
    }
}

//! A report as one HTML page without network or script, light or dark as the reader prefers.

use std::fmt::Write;

use super::chart::{Chart, Line, Unit, time};
use super::svg::{Scale, escaped, grouped};
use crate::load::audit::Faults;
use crate::load::knee::{Figures, Knee};
use crate::load::record::{Distribution, Quantiles, Second};
use crate::load::report::Report;

const STYLE: &str = include_str!("page/style.css");
/// Points of one line: a day has more seconds than a screen has columns.
const POINTS_MAX: usize = 400;

/// The page of a run.
pub(crate) fn of_run(report: &Report) -> String {
    let title = format!("Load report: {}", report.setting.dialect);
    let failure = report.failure();
    let pill = match &failure {
        None => ("good", "audit passed".to_owned()),
        Some(failure) => ("bad", failure.clone()),
    };
    page(&title, &report.setting.to_string(), (pill.0, &pill.1), &run(report))
}

/// The page of a ramp, with the run at its knee.
pub(crate) fn of_knee(knee: &Knee) -> String {
    let setting = knee.report.as_ref().map(|report| format!("{}, {}", report.setting.seats(), report.setting.dialect));
    let pill = if knee.knee_rate.is_some() { "good" } else { "bad" };
    let mut body = format!("<div class=\"grid\" style=\"margin-top:22px\">{}{}</div>", ramp_chart(knee), ramp_table(knee));
    if let Some(report) = &knee.report {
        let _ = write!(body, "<h2 style=\"margin-top:26px\">The run at the knee</h2>{}", run(report));
    }
    page("Ramp", &setting.unwrap_or_default(), (pill, &knee.to_string()), &body)
}

fn page(title: &str, below: &str, (class, pill): (&str, &str), body: &str) -> String {
    let (title, below, pill) = (escaped(title), escaped(below), escaped(pill));
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>{title}</title>\n\
         <style>\n{STYLE}</style></head>\n<body><main>\n\
         <header><h1>{title}</h1><span class=\"pill {class}\">{pill}</span></header>\n<p class=\"soft\">{below}</p>\n{body}\n\
         <footer>lasthit loadtest {}. The audit checks every action of the run for exactly one answer, every session for a count \
         without gaps, and every contest for one winner.</footer>\n</main></body></html>\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// All that is told of one run.
fn run(report: &Report) -> String {
    let mut html = String::from("<div class=\"tiles\">");
    let latency = &report.latency_us;
    let per_s = grouped(report.verdicts_per_s.round() as u64);
    for (figure, what) in [
        (per_s, "verdicts a second"),
        (time(latency.p50), "median"),
        (time(latency.p99), "p99"),
        (time(latency.p999), "p99.9"),
        (time(latency.max), "slowest"),
    ] {
        // Writing into a String cannot fail.
        let _ = write!(html, "<div class=\"tile\"><b>{figure}</b><span>{what}</span></div>");
    }
    html += "</div><div class=\"grid\">";
    let is_open = report.setting.rate.is_some();
    let below = if is_open {
        "From the intended send, what a stall held up counts in full (no coordinated omission); from the actual send, only what \
         the server took."
    } else {
        "From the actual send. In a closed loop a stalled server is asked less, so that stalls count for less than they are."
    };
    html += &card("Latency by percentile", below, &distribution(report));
    let below = "From the intended and from the actual send, without the warm-up. Lateness is the generator's own.";
    html += &card("The same in figures", if is_open { below } else { "Without the warm-up." }, &quantiles(report));
    html += &card("Throughput", "Actions sent and verdicts received, second by second.", &throughput(report));
    html += &card("Latency over time", "Of the verdicts of each second, and of its sends.", &over_time(report));
    html + "</div><div class=\"facts\">" + &facts(report) + "</div>"
}

fn card(title: &str, below: &str, body: &str) -> String {
    format!("<section class=\"card\"><h2>{}</h2><p class=\"soft\">{}</p>{body}</section>\n", escaped(title), escaped(below))
}

/// HdrHistogram's plot: each tenth of what is left is as wide as the one before.
fn distribution(report: &Report) -> String {
    let count = (report.verdicts.max(1)) as f64;
    // One in `count` is the last that a percentile tells of.
    let last = count.log10().clamp(1.0, 7.0);
    let left = |percent: f64| (100.0 / (100.0 - percent).max(1e-9)).log10().min(last);
    let line = |name, colour, distribution: &Distribution, q: &Quantiles| Line {
        name,
        colour,
        points: distribution.iter().map(|(percent, us)| (left(*percent), *us)).collect(),
        dots: [(50.0, q.p50), (90.0, q.p90), (99.0, q.p99), (99.9, q.p999)]
            .into_iter()
            .filter(|(percent, _)| left(*percent) < last)
            .map(|(percent, us)| ((left(percent), us), format!("{percent} %: {}", time(us))))
            .collect(),
    };
    let service = line("from the actual send", 'b', &report.service_distribution, &report.service_us);
    let mut lines = vec![service];
    if report.setting.rate.is_some() {
        lines.push(line("from the intended send", 'a', &report.latency_distribution, &report.latency_us));
    }
    let ticks: [f64; 8] = [50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.9999, 99.99999];
    let ticks = ticks.into_iter().filter(|percent| (100.0 / (100.0f64 - percent)).log10() <= last + 1e-6);
    let ticks = ticks.map(|percent| (left(percent), format!("{percent} %"))).collect();
    let scale = log_scale(lines.iter().flat_map(|line| &line.points).map(|(_, us)| *us));
    let label = "Latency by percentile";
    Chart { label, unit: Unit::Micros, scale, span: (0.0, last), ticks, axis: "percentile", lines, bound: None }.draw()
}

fn log_scale(values: impl Iterator<Item = f64>) -> Scale {
    let (low, high) = values.filter(|us| *us > 0.0).fold((f64::MAX, 1.0), |(low, high), us| (us.min(low), us.max(high)));
    Scale::logarithmic(low.min(high), high)
}

fn quantiles(report: &Report) -> String {
    let mut rows = String::from("<div class=\"scroll\"><table><tr><th></th>");
    let mut columns = Vec::new();
    if report.setting.rate.is_some() {
        columns.push(("intended", 'a', report.latency_us));
    }
    columns.push(("actual", 'b', report.service_us));
    if report.setting.rate.is_some() {
        columns.push(("lateness", 'c', report.generator.lateness_us));
    }
    for (name, colour, _) in &columns {
        let _ = write!(rows, "<th><i class=\"key {colour}\"></i>{name}</th>");
    }
    rows += "</tr>";
    let q = |pick: fn(&Quantiles) -> f64| pick;
    let picks = [
        ("p50", q(|q| q.p50)),
        ("p90", q(|q| q.p90)),
        ("p99", q(|q| q.p99)),
        ("p99.9", q(|q| q.p999)),
        ("slowest", q(|q| q.max)),
    ];
    for (name, pick) in picks {
        let _ = write!(rows, "<tr><td>{name}</td>");
        for (_, _, quantiles) in &columns {
            let _ = write!(rows, "<td>{}</td>", time(pick(quantiles)));
        }
        rows += "</tr>";
    }
    rows + "</table></div>"
}

/// Seconds as points, thinned out where there are too many: the worst of each group stays.
fn points(series: &[Second], value: fn(&Second) -> f64) -> Vec<(f64, f64)> {
    let group = series.len().div_ceil(POINTS_MAX).max(1);
    let groups = series.chunks(group).enumerate();
    groups.map(|(n, seconds)| ((n * group) as f64, seconds.iter().map(value).fold(0.0, f64::max))).collect()
}

fn seconds_axis(series: &[Second]) -> ((f64, f64), Vec<(f64, String)>) {
    let last = (series.len().max(2) - 1) as f64;
    let step = [1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 3600.0, 14_400.0].into_iter().find(|step| last / step <= 8.0);
    let step = step.unwrap_or(14_400.0);
    let ticks = (0..=(last / step) as u32).map(|n| (f64::from(n) * step, (f64::from(n) * step).to_string())).collect();
    ((0.0, last), ticks)
}

/// The seconds that are drawn, and what is said of them: behind the schedule's end come the answers that were still missing,
/// if that took long.
fn drawn(report: &Report) -> (&[Second], &'static str) {
    let scheduled = report.setting.duration_s.ceil() as usize;
    if report.series.len() > scheduled + 1 {
        (&report.series, "seconds after the warm-up; in the last, nothing is sent")
    } else {
        (&report.series[..report.series.len().min(scheduled)], "seconds after the warm-up")
    }
}

fn throughput(report: &Report) -> String {
    let (series, axis) = drawn(report);
    let (span, ticks) = seconds_axis(series);
    let line = |name, colour, value| Line { name, colour, points: points(series, value), dots: vec![] };
    let mut sent = line("sent", 'b', |s| s.sent as f64);
    sent.points.retain(|(second, _)| *second < report.setting.duration_s);
    let lines = vec![sent, line("verdicts", 'a', |s| s.verdicts as f64)];
    let high = lines.iter().flat_map(|line| &line.points).map(|(_, count)| *count).fold(0.0, f64::max);
    let scale = Scale::linear(high);
    let label = "Actions and verdicts of each second";
    Chart { label, unit: Unit::Number, scale, span, ticks, axis, lines, bound: None }.draw()
}

fn over_time(report: &Report) -> String {
    let (series, axis) = drawn(report);
    let (span, ticks) = seconds_axis(series);
    let line = |name, colour, value: fn(&Second) -> f64| {
        let points = points(series, value).into_iter().filter(|(_, us)| *us > 0.0).collect();
        Line { name, colour, points, dots: vec![] }
    };
    let mut lines = vec![line("p99", 'a', |s| s.p99_us), line("p50", 'b', |s| s.p50_us)];
    if report.setting.rate.is_some() {
        lines.push(line("sends late by, p99", 'c', |s| s.lateness_p99_us));
    }
    let scale = log_scale(lines.iter().flat_map(|line| &line.points).map(|(_, us)| *us));
    let label = "Latency of each second";
    Chart { label, unit: Unit::Micros, scale, span, ticks, axis, lines, bound: None }.draw()
}

/// Two columns of text.
fn pairs<'a>(rows: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let rows = rows
        .into_iter()
        .map(|(name, value)| format!("<tr><td class=\"soft\">{}</td><td>{}</td></tr>", escaped(name), escaped(&value)));
    format!("<table class=\"pairs\">{}</table>", rows.collect::<String>())
}

/// What was run, where, and what the audit and the generator's health were.
fn facts(report: &Report) -> String {
    let (setting, env) = (&report.setting, &report.environment);
    let pace = match (setting.rate, setting.outstanding) {
        (Some(rate), None) => format!("open loop, {} a second", grouped(u64::from(rate))),
        (Some(rate), Some(n)) => format!("open loop, {} a second, {n} outstanding a session at most", grouped(u64::from(rate))),
        (None, n) => format!("closed loop, {} outstanding a session", n.unwrap_or(1)),
    };
    let Faults { lost, doubled, gaps, two_winners, overtaken } = report.faults;
    let mut audit = vec![
        ("actions", grouped(report.audited)),
        ("lost", grouped(lost)),
        ("answered twice", grouped(doubled)),
        ("gaps in a session's count", grouped(gaps)),
        ("contests with two winners", grouped(two_winners)),
        ("overtaken by the same player's next", grouped(overtaken)),
        ("not sent: gateways did not keep up", grouped(report.unsent)),
        ("broken sessions", grouped(report.broken_sessions)),
        ("refused", grouped(report.refusals())),
    ];
    audit.extend(report.outcomes.iter().map(|(outcome, count)| (outcome.as_str(), grouped(*count))));
    let run = pairs([
        ("pace", pace),
        ("sessions", grouped(u64::from(setting.sessions))),
        ("rooms", grouped(u64::from(setting.rooms))),
        ("gateways", setting.gateways.to_string()),
        ("contenders a contest", setting.contenders.to_string()),
        ("payload", format!("{} bytes", setting.payload_bytes)),
        ("verdicts go to", format!("the {}", setting.audience)),
        ("time", format!("{} s after {} s of warm-up", setting.duration_s, setting.warm_up_s)),
        ("dialect", setting.dialect.to_owned()),
    ]);
    let machine = pairs([
        ("CPU", env.cpu.clone()),
        ("cores", env.cores.to_string()),
        ("kernel", env.kernel.clone()),
        ("Redis", env.redis.clone().unwrap_or_else(|| "not installed here".to_owned())),
        ("lasthit", env.lasthit.to_owned()),
        ("load average", env.load_average.to_string()),
        ("generator used", report.generator.usage.to_string()),
    ]);
    card("Audit", "Of the whole run, the warm-up too.", &pairs(audit))
        + &card("What was run", "As it was asked for.", &run)
        + &card("Where", "The generator shares the machine with what it measures.", &machine)
}

fn ramp_chart(knee: &Knee) -> String {
    let mut figures: Vec<(f64, Figures)> =
        knee.tried.iter().filter_map(|t| Some((f64::from(t.rate).log10(), t.figures?))).collect();
    figures.sort_by(|a, b| a.0.total_cmp(&b.0));
    let line = |name, colour, value: fn(&Figures) -> f64| {
        let points: Vec<(f64, f64)> = figures.iter().map(|(rate, figures)| (*rate, value(figures))).collect();
        let dots = points.iter().map(|point| (*point, time(point.1))).collect();
        Line { name, colour, points, dots }
    };
    let lines = vec![line("p99 from the intended send", 'a', |f| f.p99_us), line("median", 'b', |f| f.p50_us)];
    let rates = || knee.tried.iter().map(|t| f64::from(t.rate));
    let (low, high) = (rates().fold(f64::MAX, f64::min).min(1e9), rates().fold(1.0, f64::max));
    let scale = Scale::logarithmic(low, high.max(low * 2.0));
    let ticks: Vec<(f64, String)> = scale.ticks.iter().map(|rate| (rate.log10(), grouped(*rate as u64))).collect();
    let span = (ticks[0].0, ticks[ticks.len() - 1].0);
    let every = ticks.len().div_ceil(7);
    let ticks = ticks.into_iter().step_by(every).collect();
    let heights = lines.iter().flat_map(|line| &line.points).map(|(_, us)| *us).chain([knee.p99_max_us]);
    let scale = log_scale(heights);
    let chart = Chart {
        label: "Latency by rate",
        unit: Unit::Micros,
        scale,
        span,
        ticks,
        axis: "actions a second",
        lines,
        bound: Some(knee.p99_max_us),
    };
    let below = format!("The dashed line is the bound: {}.", time(knee.p99_max_us));
    card("Latency by rate", &below, &chart.draw())
}

fn ramp_table(knee: &Knee) -> String {
    let mut rows = String::from("<div class=\"scroll\"><table><tr><th>rate</th><th>median</th><th>p99</th><th></th></tr>");
    for tried in &knee.tried {
        let (p50, p99) = tried.figures.map_or(("".into(), "".into()), |f| (time(f.p50_us), time(f.p99_us)));
        let (class, told) = tried.why.as_deref().map_or(("good", "sustained"), |why| ("bad", why));
        let (rate, told) = (grouped(u64::from(tried.rate)), escaped(told));
        let _ = write!(rows, "<tr><td>{rate}</td><td>{p50}</td><td>{p99}</td><td class=\"why {class}\">{told}</td></tr>");
    }
    card("Rates that were tried", "In the order in which they were.", &(rows + "</table></div>"))
}

#[cfg(test)]
mod tests;

//! What is measured of rules, and the two values that each figure is compared with: the bar, which it must keep, and the aim.

use serde::Serialize;
use serde_json::Value;

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Bar {
    /// Median at 1,000 a second: JavaScript against built-in rules
    JsMedian,
    /// Verdicts a second with a p99 under 50 ms: JavaScript against built-in rules
    JsThroughput,
    /// Median at 1,000 a second: a Python process against built-in rules
    ProcessMedian,
    /// Verdicts a second with a p99 under 50 ms: a Python process against built-in rules
    ProcessThroughput,
    /// Median and CPU time an event of built-in rules: this program against that of --before
    BuiltinCost,
    /// Memory of a JavaScript room with 1 KiB of state beyond that of a built-in one
    RoomKib,
    /// Time from a timer's due moment to its delivery, 1,000 rooms with a timer a second each
    TimerUs,
    /// Timers a second that one worker fires with a p99 under 50 ms late, in 1,000 rooms
    TimersPerS,
    /// Commands a second to Redis of 1,000 rooms with a timer an hour ahead, where nobody acts
    TimerIdle,
    /// Time until a push has changed 1,000 busy rooms, and answers by another version than the room's
    PushS,
}

/// One value, the bar, and the aim.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Figure {
    /// Which of a row's values; empty where there is one.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) part: &'static str,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    pub(crate) bar: f64,
    pub(crate) aim: f64,
    /// The bar is kept.
    pub(crate) met: bool,
    /// The aim is reached.
    pub(crate) aim_reached: bool,
}

/// A row's values, and what they were made of.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    #[serde(skip)]
    pub(crate) name: String,
    pub(crate) what: &'static str,
    pub(crate) figures: Vec<Figure>,
    /// Everything that was measured for it.
    pub(crate) raw: Value,
}

/// Of one value: the part, the unit, the bar and the aim.
type Limit = (&'static str, &'static str, f64, f64);

impl Bar {
    /// As in the JSON and on the command line.
    pub(crate) fn name(self) -> String {
        use clap::ValueEnum;
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn what(self) -> &'static str {
        match self {
            Self::JsMedian => "median at 1,000/s, JavaScript against built-in",
            Self::JsThroughput => "verdicts/s with p99 under 50 ms, JavaScript against built-in",
            Self::ProcessMedian => "median at 1,000/s, a Python process against built-in",
            Self::ProcessThroughput => "verdicts/s with p99 under 50 ms, a Python process against built-in",
            Self::BuiltinCost => "built-in rules, this program against the one before",
            Self::RoomKib => "memory of a JavaScript room of 1 KiB beyond a built-in one",
            Self::TimerUs => "timer: due to delivered, 1,000 rooms, one a second each",
            Self::TimersPerS => "timers a second of one worker, 1,000 rooms, p99 under 50 ms late",
            Self::TimerIdle => "commands/s to Redis, 1,000 rooms with a timer an hour ahead",
            Self::PushS => "push to 1,000 busy rooms: until all have changed; answers by another version",
        }
    }

    fn limits(self) -> &'static [Limit] {
        match self {
            Self::JsMedian => &[("", "x", 1.25, 1.1)],
            Self::JsThroughput => &[("", "x", 0.4, 0.6)],
            Self::ProcessMedian => &[("", "x", 1.6, 1.3)],
            Self::ProcessThroughput => &[("", "x", 0.1, 0.25)],
            Self::BuiltinCost => &[("median", "x", 1.05, 1.0), ("cpu", "x", 1.05, 1.0)],
            Self::RoomKib => &[("", "KiB", 4.0, 2.0)],
            Self::TimerUs => &[("p50", "µs", 3_000.0, 1_500.0), ("p99", "µs", 20_000.0, 8_000.0)],
            Self::TimersPerS => &[("", "/s", 10_000.0, 20_000.0)],
            Self::TimerIdle => &[("", "/s", 50.0, 20.0)],
            Self::PushS => &[("", "s", 2.0, 1.0), ("wrong", "answers", 0.0, 0.0)],
        }
    }

    /// The row, of as many values as it has parts.
    pub(crate) fn row(self, values: &[f64], raw: Value) -> Row {
        let figure = |((part, unit, bar, aim), value): (&Limit, &f64)| {
            // Where the aim is above the bar, more is better.
            let keeps = |limit: f64| if aim > bar { *value >= limit } else { *value <= limit };
            let (met, aim_reached) = (keeps(*bar), keeps(*aim));
            Figure { part, value: *value, unit, bar: *bar, aim: *aim, met, aim_reached }
        };
        let figures = self.limits().iter().zip(values).map(figure).collect();
        Row { name: self.name(), what: self.what(), figures, raw }
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn a_bar_is_kept_from_its_own_side() {
        let one = |bar: Bar, value: f64| {
            let row = bar.row(&[value], Value::Null);
            (row.figures[0].met, row.figures[0].aim_reached)
        };
        assert_eq!([1.0, 1.2, 1.3].map(|x| one(Bar::JsMedian, x)), [(true, true), (true, false), (false, false)]);
        assert_eq!([0.7, 0.5, 0.3].map(|x| one(Bar::JsThroughput, x)), [(true, true), (true, false), (false, false)]);
        assert_eq!(one(Bar::JsMedian, f64::NAN), (false, false), "what is no number keeps nothing");
    }

    #[test]
    fn every_bar_has_a_name_and_its_values() {
        let names: Vec<String> = Bar::value_variants().iter().map(|bar| bar.name()).collect();
        assert!(names.iter().any(|name| name == "js_median") && names.iter().any(|name| name == "timers_per_s"), "{names:?}");
        let row = Bar::TimerUs.row(&[1000.0, 30_000.0], Value::Null);
        assert_eq!(row.figures.iter().map(|f| (f.part, f.met)).collect::<Vec<_>>(), [("p50", true), ("p99", false)]);
    }
}

//! From figures to ratios, and the targets that lasthit sets for itself. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

/// What was measured, by name: `two_gateways.p99_us`.
pub(crate) type Figures = BTreeMap<String, f64>;

/// The worker concurrencies of the usual stack; its best one counts.
pub(crate) const PEER_CONCURRENCIES: [u32; 3] = [1, 4, 16];
/// The same of groupmq.
pub(crate) const GROUPMQ_CONCURRENCIES: [u32; 3] = [4, 16, 100];

/// A figure, and the two targets that it has.
#[derive(Debug)]
pub(crate) struct Target {
    /// The figure's name in the JSON.
    pub(crate) name: &'static str,
    /// What is compared with what.
    pub(crate) what: &'static str,
    pub(crate) required: f64,
    pub(crate) goal: f64,
    pub(crate) unit: &'static str,
    of: fn(&Figures) -> Option<f64>,
}

/// Which target a figure reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reached {
    Nothing,
    Required,
    Goal,
}

/// All of them, in the order in which they are shown.
pub(crate) const TARGETS: [Target; 11] = [
    Target {
        name: "throughput_vs_peer",
        what: "verdicts/s with a p99 under 50 ms, compared with the usual stack's best",
        required: 12.0,
        goal: 20.0,
        unit: "x",
        of: |f| Some(get(f, "two_gateways.verdicts_per_s")? / peers(f, "verdicts_per_s", f64::max)?),
    },
    Target {
        name: "throughput_vs_echo",
        what: "the same, compared with a bare echo",
        required: 0.4,
        goal: 0.6,
        unit: "x",
        of: |f| Some(get(f, "two_gateways.verdicts_per_s")? / get(f, "echo.verdicts_per_s")?),
    },
    Target {
        name: "latency_vs_floor_one_gateway",
        what: "median at 1,000/s, one gateway, compared with echo and Redis floor",
        required: 2.0,
        goal: 1.4,
        unit: "x",
        of: |f| Some(get(f, "one_gateway.p50_us")? / floor(f)?),
    },
    Target {
        name: "latency_vs_floor_two_gateways",
        what: "the same, rooms on two gateways",
        required: 3.0,
        goal: 2.0,
        unit: "x",
        of: |f| Some(get(f, "two_gateways.p50_us")? / floor(f)?),
    },
    Target {
        name: "p99_vs_peer",
        what: "p99 at 1,000/s, compared with the usual stack's best",
        required: 1.0 / 10.0,
        goal: 1.0 / 30.0,
        unit: "x",
        of: |f| Some(get(f, "two_gateways.p99_us")? / peers(f, "p99_us", f64::min)?),
    },
    Target {
        name: "rooms_10000_vs_100",
        what: "CPU time per event, 10,000 rooms compared with 100 rooms",
        required: 1.5,
        goal: 1.1,
        unit: "x",
        of: |f| Some(get(f, "rooms_10000.cpu_us_per_event")? / get(f, "rooms_100.cpu_us_per_event")?),
    },
    Target {
        name: "session_kib",
        what: "resident memory per idle session, at 5,000",
        required: 16.0,
        goal: 8.0,
        unit: " KiB",
        of: |f| f.get("session_kib").copied(),
    },
    Target {
        name: "queue_throughput_vs_groupmq",
        what: "without sockets, events/s in strict order, compared with groupmq's best",
        required: 5.0,
        goal: 10.0,
        unit: "x",
        of: |f| Some(get(f, "queue_lasthit.jobs_per_s")? / groupmq(f, "jobs_per_s", f64::max)?),
    },
    Target {
        name: "queue_p99_vs_groupmq",
        what: "without sockets, p99 at 1,000/s, compared with groupmq's",
        required: 1.0 / 2.0,
        goal: 1.0 / 5.0,
        unit: "x",
        of: |f| Some(get(f, "queue_lasthit.p99_us")? / get(f, "queue_groupmq.p99_us")?),
    },
    Target {
        name: "redis_commands_per_event",
        what: "Redis commands sent per event at full load",
        required: 1.0,
        goal: 0.3,
        unit: "",
        of: |f| f.get("redis_commands_per_event").copied(),
    },
    Target {
        name: "redis_bytes_per_event",
        what: "Redis memory per resolved event that is kept",
        required: 300.0,
        goal: 120.0,
        unit: " B",
        of: |f| f.get("redis_bytes_per_event").copied(),
    },
];

impl Target {
    /// Whether more is better.
    fn rises(&self) -> bool {
        self.goal > self.required
    }

    /// How far a value gets.
    pub(crate) fn reached(&self, value: f64) -> Reached {
        let reaches = |target: f64| if self.rises() { value >= target } else { value <= target };
        match (reaches(self.goal), reaches(self.required)) {
            (true, _) => Reached::Goal,
            (_, true) => Reached::Required,
            _ => Reached::Nothing,
        }
    }

    /// The value over several rounds: the median of what each gives, because a round's systems had the same machine.
    pub(crate) fn value(&self, rounds: &[Figures]) -> Option<f64> {
        median(rounds.iter().filter_map(self.of).filter(|value| value.is_finite()).collect())
    }
}

/// A figure that something may be divided by.
fn get(figures: &Figures, name: &str) -> Option<f64> {
    figures.get(name).copied().filter(|value| *value > 0.0)
}

fn floor(figures: &Figures) -> Option<f64> {
    Some(get(figures, "echo.p50_us")? + get(figures, "floor.p50_us")?)
}

fn peers(figures: &Figures, figure: &str, best: fn(f64, f64) -> f64) -> Option<f64> {
    PEER_CONCURRENCIES.iter().filter_map(|c| get(figures, &format!("peer_{c}.{figure}"))).reduce(best)
}

fn groupmq(figures: &Figures, figure: &str, best: fn(f64, f64) -> f64) -> Option<f64> {
    GROUPMQ_CONCURRENCIES.iter().filter_map(|c| get(figures, &format!("queue_groupmq_{c}.{figure}"))).reduce(best)
}

/// The middle value; the mean of the two middle ones of an even number.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.get(values.len().checked_sub(1)? / 2)?, values.get(values.len() / 2)?);
    Some(f64::midpoint(*low, *high))
}

/// The median of every figure over the rounds that have it.
pub(crate) fn medians(rounds: &[Figures]) -> Figures {
    let mut values: BTreeMap<&String, Vec<f64>> = BTreeMap::new();
    for (name, value) in rounds.iter().flatten() {
        values.entry(name).or_default().push(*value);
    }
    values.into_iter().filter_map(|(name, values)| Some((name.clone(), median(values)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(pairs: &[(&str, f64)]) -> Figures {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
    }

    fn value(name: &str, rounds: &[Figures]) -> Option<f64> {
        TARGETS.iter().find(|target| target.name == name).expect("a target").value(rounds)
    }

    #[test]
    fn ratios_are_of_the_best_rival_in_the_same_round() {
        let round = |own, small, large| {
            figures(&[
                ("two_gateways.verdicts_per_s", own),
                ("two_gateways.p99_us", 1000.0),
                ("peer_1.verdicts_per_s", small),
                ("peer_16.verdicts_per_s", large),
                ("peer_1.p99_us", 20_000.0),
                ("peer_16.p99_us", 40_000.0),
            ])
        };
        // In a slow round both are slow: 20, 10, 12.
        let rounds = [round(100.0, 5.0, 4.0), round(100.0, 5.0, 10.0), round(12.0, 0.5, 1.0)];
        assert_eq!(value("throughput_vs_peer", &rounds), Some(12.0));
        assert_eq!(value("p99_vs_peer", &rounds), Some(0.05));
    }

    #[test]
    fn every_ratio_comes_from_its_figures() {
        let round = figures(&[
            ("two_gateways.verdicts_per_s", 60.0),
            ("echo.verdicts_per_s", 120.0),
            ("echo.p50_us", 60.0),
            ("floor.p50_us", 90.0),
            ("one_gateway.p50_us", 300.0),
            ("two_gateways.p50_us", 450.0),
            ("two_gateways.p99_us", 900.0),
            ("peer_4.verdicts_per_s", 4.0),
            ("peer_4.p99_us", 9000.0),
            ("rooms_100.cpu_us_per_event", 50.0),
            ("rooms_10000.cpu_us_per_event", 60.0),
            ("session_kib", 9.5),
            ("queue_lasthit.jobs_per_s", 200.0),
            ("queue_lasthit.p99_us", 500.0),
            ("queue_groupmq_16.jobs_per_s", 20.0),
            ("queue_groupmq_100.jobs_per_s", 25.0),
            ("queue_groupmq.p99_us", 2000.0),
            ("redis_commands_per_event", 0.2),
            ("redis_bytes_per_event", 250.0),
        ]);
        let values = [15.0, 0.5, 2.0, 3.0, 0.1, 1.2, 9.5, 8.0, 0.25, 0.2, 250.0];
        for (target, value) in TARGETS.iter().zip(values) {
            assert_eq!(target.value(std::slice::from_ref(&round)), Some(value), "{}", target.name);
            let expected = if target.name == "redis_commands_per_event" { Reached::Goal } else { Reached::Required };
            assert_eq!(target.reached(value), expected);
        }
    }

    #[test]
    fn what_was_not_measured_has_no_ratio() {
        let round = figures(&[("two_gateways.verdicts_per_s", 60.0), ("echo.verdicts_per_s", 0.0)]);
        assert!(TARGETS.iter().all(|target| target.value(std::slice::from_ref(&round)).is_none()));
        assert!(TARGETS.iter().all(|target| target.value(&[]).is_none()));
    }

    #[test]
    fn a_target_is_reached_from_its_own_side() {
        let reached = |name: &str, value| TARGETS.iter().find(|target| target.name == name).expect("a target").reached(value);
        assert_eq!(
            [11.9, 12.0, 20.0].map(|v| reached("throughput_vs_peer", v)),
            [Reached::Nothing, Reached::Required, Reached::Goal]
        );
        assert_eq!([16.1, 16.0, 8.0].map(|v| reached("session_kib", v)), [Reached::Nothing, Reached::Required, Reached::Goal]);
    }

    #[test]
    fn medians_are_of_the_rounds_that_have_the_figure() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0]), Some(2.0));
        let rounds = [figures(&[("a", 9.0), ("b", 1.0)]), figures(&[("a", 1.0)]), figures(&[("a", 2.0)])];
        assert_eq!(medians(&rounds), figures(&[("a", 2.0), ("b", 1.0)]));
    }
}

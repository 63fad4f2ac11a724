//! Checks that the generator kept up. If the load is not sent as planned, the figures are the generator's.

use std::fmt;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde::Serialize;
use tokio::time::Instant;

use super::record::Record;
use crate::limits::CPU_SHARE_MAX;

/// What the generator's thread had used at a moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meter {
    at: Instant,
    cpu: Duration,
    waited: Option<Duration>,
}

/// What it used of the time between two moments.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Usage {
    /// CPU time, as a share of one core.
    pub(crate) cpu_share: f64,
    /// Time in which it could have run and had no core; None where the kernel does not say.
    pub(crate) waiting_share: Option<f64>,
}

impl Meter {
    /// Of the thread that calls.
    pub(crate) fn read() -> Self {
        let cpu = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from);
        // CPU time, time on the run queue, slices.
        let scheduled = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
        let waited = scheduled.and_then(|text| text.split(' ').nth(1)?.parse().ok()).map(Duration::from_nanos);
        Self { at: Instant::now(), cpu, waited }
    }

    /// What was used since.
    pub(crate) fn usage(&self) -> Usage {
        let now = Self::read();
        let time = now.at.saturating_duration_since(self.at).as_secs_f64().max(1e-9);
        let share = |from: Duration, to: Duration| (to.saturating_sub(from).as_secs_f64() / time * 1000.0).round() / 1000.0;
        Usage {
            cpu_share: share(self.cpu, now.cpu),
            waiting_share: self.waited.zip(now.waited).map(|(from, to)| share(from, to)),
        }
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} % of a core", self.cpu_share * 100.0)?;
        self.waiting_share.map_or(Ok(()), |share| write!(f, ", waiting for one {:.0} % of the time", share * 100.0))
    }
}

/// Why there is no report.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Saturation {
    why: String,
    /// From the actual send: what of the times is not the generator's fault. In microseconds.
    pub(crate) service_p99_us: f64,
}

impl Saturation {
    /// None when the generator kept up: a hundredth of its sends at most left later than `lateness_max`, and it had a rest
    /// of its core to spare.
    pub(crate) fn of(record: &Record, usage: Usage, lateness_max: Duration) -> Option<Self> {
        let late = record.lateness.quantile_us(0.99);
        let why = if late > lateness_max.as_secs_f64() * 1e6 {
            format!("1 % of the sends left more than {:.1} ms late (limit: {lateness_max:?})", late / 1000.0)
        } else if usage.cpu_share > CPU_SHARE_MAX {
            "it had nothing left of its core".to_owned()
        } else {
            return None;
        };
        Some(Self::because(format!("{why}, at {usage}"), record))
    }

    /// It fell so far behind that it gave up.
    pub(crate) fn gave_up(behind: Duration, record: &Record, usage: Usage) -> Self {
        Self::because(format!("it fell {:.1} s behind its schedule and gave up, at {usage}", behind.as_secs_f64()), record)
    }

    fn because(why: String, record: &Record) -> Self {
        Self { why, service_p99_us: record.service.quantile_us(0.99) }
    }
}

impl fmt::Display for Saturation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the generator was saturated, so there is no report: {}: use a lower rate, or give it a core of its own",
            self.why
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_millis(5);

    fn usage(cpu_share: f64) -> Usage {
        Usage { cpu_share, waiting_share: None }
    }

    #[test]
    fn one_percent_may_be_late() {
        let mut record = Record::new();
        for _ in 0..99 {
            record.lateness.record(Duration::from_micros(60));
        }
        record.lateness.record(MAX * 2);
        assert_eq!(Saturation::of(&record, usage(0.5), MAX), None);
        record.lateness.record(MAX * 2);
        let told = Saturation::of(&record, usage(0.5), MAX).expect("saturated").to_string();
        assert!(told.contains("10.0 ms late (limit: 5ms), at 50 % of a core") && !told.contains('\n'), "{told}");
        assert_eq!(Saturation::of(&record, usage(0.5), MAX * 3), None);
    }

    #[test]
    fn a_full_core_is_saturated_even_when_nothing_is_late() {
        assert!(Saturation::of(&Record::new(), usage(0.97), MAX).expect("saturated").to_string().contains("97 %"));
    }

    #[test]
    fn a_thread_that_spins_uses_its_core() {
        let meter = Meter::read();
        // CPU time, so that it is spent whatever else runs.
        while Meter::read().cpu - meter.cpu < Duration::from_millis(20) {}
        let usage = meter.usage();
        assert!(usage.cpu_share > 0.0 && usage.cpu_share <= 1.1, "{usage}");
    }
}

//! The names of all metrics, what they mean, and how they are shown. Labels are few and bounded: an event kind, an
//! outcome, an error code; a program; a node of the cluster; never a room, a player or a session.
//!
//! Parts count with the macros of the `metrics` crate: `metrics::counter!(EVENTS_TOTAL, "kind" => "data").increment(1)`.
//! Without [`install`] the figures are dropped, at next to no cost.

use std::time::Duration;

use metrics::Histogram;
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Seconds,
}

macro_rules! metrics {
    ($($kind:ident $name:ident = $text:literal: $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $name: &str = $text;
        )*
        const ALL: &[(Kind, &str, &str)] = &[$((Kind::$kind, $name, $help)),*];
    };
}

metrics! {
    Gauge SESSIONS_OPEN = "lasthit_sessions_open": "Sessions that are open on this gateway";
    Counter SESSIONS_TOTAL = "lasthit_sessions_total": "Sessions that ended, by `how` (client, server, error, slow, idle, expired, draining, moved)";
    Counter MOVES_OFFERED_TOTAL = "lasthit_moves_offered_total": "Sessions that this gateway asked to move to another one";
    Counter EVENTS_TOTAL = "lasthit_events_total": "Events that arrived, by `kind` (open, data, end, error, close)";
    Counter REFUSALS_TOTAL = "lasthit_refusals_total": "Connections and actions that were refused, by `code`";
    Counter FLUSHES_TOTAL = "lasthit_flushes_total": "Flushes that the journal stored";
    Seconds APPEND_SECONDS = "lasthit_append_seconds": "How long the journal took to store a flush";
    Counter JOURNAL_RETRIES_TOTAL = "lasthit_journal_retries_total": "Steps of a gateway that were sent again because their outcome was unknown";
    Seconds SETTLE_SECONDS = "lasthit_settle_seconds": "How long an event waited on its gateway, from its arrival until its flush left";
    Seconds STAMP_AGE_SECONDS = "lasthit_stamp_age_seconds": "How old an arrival stamp was when its bytes were read";
    Seconds COMMIT_WAIT_SECONDS = "lasthit_commit_wait_seconds": "How long a verdict waited in its worker until the commit left that made it final";
    Counter COMMITS_TOTAL = "lasthit_commits_total": "Commits that became final";
    Seconds COMMIT_SECONDS = "lasthit_commit_seconds": "How long the journal took to make a commit final";
    Counter VERDICTS_TOTAL = "lasthit_verdicts_total": "Verdicts that became final, by `outcome` (granted, denied, void, repeat)";
    Counter CLAMPED_TOTAL = "lasthit_clamped_total": "Verdicts whose stamp was moved";
    Counter UNPROVEN_TOTAL = "lasthit_unproven_total": "Verdicts whose order rests on a gateway that died";
    Counter PHOTO_FINISH_TOTAL = "lasthit_photo_finish_total": "Denied contenders that lost by less than the uncertainty";
    Gauge SHARDS_OWNED = "lasthit_shards_owned": "Shards that this worker owns";
    Gauge ROOMS_IN_MEMORY = "lasthit_rooms_in_memory": "Rooms that this worker holds in memory";
    Gauge SHARD_ROOMS_MAX = "lasthit_shard_rooms_max": "Rooms in memory of the fullest shard that this worker owns";
    Gauge ROOMS_QUARANTINED = "lasthit_rooms_quarantined": "Rooms that this worker cannot continue and leaves alone for now; its log names them";
    Counter RULES_OVERRUNS_TOTAL = "lasthit_rules_overruns_total": "Jobs of this worker that were given up because the rules had one event for too long";
    Seconds RULES_SECONDS = "lasthit_rules_seconds": "How long a program inside the worker took for an event, by `program`";
    Counter RULES_FAILURES_TOTAL = "lasthit_rules_failures_total": "Events that are void because a program failed on them, by `program`";
    Counter RULES_IMPURE_TOTAL = "lasthit_rules_impure_total": "Events that a program decided otherwise the second time, by `program`; only where that is checked";
    Seconds PROGRAM_SECONDS = "lasthit_program_seconds": "How long a program outside of the worker took over one request, by `program`";
    Counter PROGRAM_FAILURES_TOTAL = "lasthit_program_failures_total": "Requests on which an instance of a program died, was too late, or answered what is no answer, by `program`";
    Seconds READ_SECONDS = "lasthit_read_seconds": "How long an event took from its arrival until a worker had read it";
    Seconds HOLD_SECONDS = "lasthit_hold_seconds": "How long an event was held until every gateway had passed its stamp";
    Seconds RESOLVE_SECONDS = "lasthit_resolve_seconds": "How long an event took from its release until its room's batch was resolved";
    Seconds VERDICT_SECONDS = "lasthit_verdict_seconds": "How long an action took from its arrival until its verdict was handed to its session";
    Seconds WRITTEN_SECONDS = "lasthit_written_seconds": "How long an action took from its arrival until its verdict was written to its session's socket";
    Counter JOURNAL_ERRORS_TOTAL = "lasthit_journal_errors_total": "Steps of the journal that failed, by `kind` (unreachable, refused, unexpected, damaged)";
    Gauge NODE_REACHED = "lasthit_node_reached": "Whether a node of the cluster took steps when it was last asked: 1 or 0, by `node`; also 0 once nothing of this deployment is on it";
    Counter NODE_ERRORS_TOTAL = "lasthit_node_errors_total": "Connections to a node of the cluster and commands on it that failed, by `node`";
    Counter GATEWAY_DEATHS_TOTAL = "lasthit_gateway_deaths_total": "Gateways that were fenced because they were gone, or owed a watermark for too long";
    Counter ROLLED_BACK_TOTAL = "lasthit_rolled_back_total": "Rooms that began a new era because the journal came back and verdicts that were delivered are missing or may be";
    Counter PUSHES_TOTAL = "lasthit_pushes_total": "Pushes that were published to gateways";
    Counter GAPS_FILLED_TOTAL = "lasthit_gaps_filled_total": "Gaps in a room's verdicts that were filled from the journal";
}

/// Upper bounds of the histograms' buckets, in seconds: from what a kernel stamp can tell to what a client waits for.
const BUCKETS_SECONDS: [f64; 27] = [
    5e-6, 1e-5, 2.5e-5, 5e-5, 7.5e-5, 1e-4, 1.5e-4, 2e-4, 2.5e-4, 3e-4, 4e-4, 5e-4, 7.5e-4, 1e-3, 2.5e-3, 3e-3, 5e-3, 1e-2,
    2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Why the metrics could not be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MetricsError {
    /// The exporter refused its configuration.
    #[error("metrics cannot be set up: {0}")]
    Build(#[from] BuildError),
    /// The process already has a recorder.
    #[error("metrics were set up twice in one process")]
    Twice,
}

/// Records every metric of this process from now on. The handle renders them. Its upkeep must run regularly, as
/// [`crate::admin::Admin::run`] does: otherwise the histograms grow until they are read.
pub(crate) fn install() -> Result<PrometheusHandle, MetricsError> {
    let recorder = recorder()?;
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|_| MetricsError::Twice)?;
    describe();
    Ok(handle)
}

/// As [`install`], for a program that may have a recorder of its own: then the handle renders nothing.
pub(crate) fn install_or_none() -> Result<PrometheusHandle, MetricsError> {
    install().or_else(|error| match error {
        MetricsError::Twice => {
            tracing::warn!("this program records its metrics itself: its supervisor shows none of them");
            Ok(recorder()?.handle())
        }
        other => Err(other),
    })
}

fn recorder() -> Result<PrometheusRecorder, MetricsError> {
    Ok(PrometheusBuilder::new().set_buckets(&BUCKETS_SECONDS)?.build_recorder())
}

fn describe() {
    for (kind, name, help) in ALL {
        match kind {
            Kind::Counter => metrics::describe_counter!(*name, *help),
            Kind::Gauge => metrics::describe_gauge!(*name, *help),
            Kind::Seconds => metrics::describe_histogram!(*name, metrics::Unit::Seconds, *help),
        }
    }
}

/// Events that wait and will stop waiting together. The mean wait is recorded for each of them, so that sum and count are
/// right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Waits {
    sum_ns: u128,
    count: usize,
}

impl Waits {
    /// Adds an event that has waited since `since_ns`.
    pub(crate) fn add(&mut self, since_ns: u64) {
        self.sum_ns += u128::from(since_ns);
        self.count += 1;
    }

    /// Whether nothing waits.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Records the waits, which end at `now_ns`, and forgets them.
    pub(crate) fn end(&mut self, now_ns: u64, histogram: &Histogram) {
        let Self { sum_ns, count } = std::mem::take(self);
        if count > 0 {
            let since_ns = u64::try_from(sum_ns / count as u128).unwrap_or(u64::MAX);
            histogram.record_many(Duration::from_nanos(now_ns.saturating_sub(since_ns)), count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_prometheus() {
        for (kind, name, help) in ALL {
            let suffix = match kind {
                Kind::Counter => name.ends_with("_total"),
                Kind::Seconds => name.ends_with("_seconds"),
                Kind::Gauge => !name.ends_with("_total"),
            };
            assert!(suffix && name.starts_with("lasthit_") && !help.is_empty(), "{name}");
            assert_eq!(ALL.iter().filter(|(_, other, _)| other == name).count(), 1, "{name}");
        }
    }

    #[test]
    fn what_waited_together_is_recorded_by_its_mean() {
        let recorder = recorder().expect("recorder");
        let text = metrics::with_local_recorder(&recorder, || {
            let (mut waits, histogram) = (Waits::default(), metrics::histogram!(SETTLE_SECONDS));
            waits.end(99, &histogram);
            for since_ns in [1_000_000_000, 2_000_000_000, 3_000_000_000] {
                waits.add(since_ns);
            }
            waits.end(4_000_000_000, &histogram);
            assert!(waits.is_empty());
            recorder.handle().render()
        });
        assert!(text.contains("lasthit_settle_seconds_sum 6\n") && text.contains("lasthit_settle_seconds_count 3\n"), "{text}");
    }

    #[test]
    fn what_is_recorded_is_rendered_with_help_and_buckets() {
        let recorder = recorder().expect("recorder");
        metrics::with_local_recorder(&recorder, || {
            describe();
            metrics::counter!(EVENTS_TOTAL, "kind" => "data").increment(3);
            metrics::gauge!(SESSIONS_OPEN).set(2.0);
            metrics::histogram!(HOLD_SECONDS).record(0.0003);
            metrics::histogram!(COMMIT_SECONDS).record(0.001);
        });
        let text = recorder.handle().render();
        for line in [
            "# HELP lasthit_events_total Events that arrived",
            "lasthit_events_total{kind=\"data\"} 3",
            "lasthit_sessions_open 2",
            "# TYPE lasthit_hold_seconds histogram",
            "lasthit_hold_seconds_bucket{le=\"0.00025\"} 0",
            "lasthit_hold_seconds_bucket{le=\"0.0005\"} 1",
            "lasthit_commit_seconds_count 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}

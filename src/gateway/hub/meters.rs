//! Metrics of a gateway. Each is looked up once, because looking one up costs more than counting an event.

use metrics::{Counter, Histogram, counter, histogram};

use crate::metrics as names;

/// The metrics of a gateway that change with its events.
pub(super) struct Meters {
    pub(super) opens: Counter,
    pub(super) data: Counter,
    pub(super) flushes: Counter,
    pub(super) settle: Histogram,
    pub(super) append: Histogram,
    /// The time from an action's arrival to its verdict.
    pub(super) verdict: Histogram,
}

impl Meters {
    pub(super) fn new() -> Self {
        let events = |kind: &'static str| counter!(names::EVENTS_TOTAL, "kind" => kind);
        Self {
            opens: events("open"),
            data: events("data"),
            flushes: counter!(names::FLUSHES_TOTAL),
            settle: histogram!(names::SETTLE_SECONDS),
            append: histogram!(names::APPEND_SECONDS),
            verdict: histogram!(names::VERDICT_SECONDS),
        }
    }
}

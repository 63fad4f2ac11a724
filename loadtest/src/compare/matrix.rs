//! What the programs without sockets print, ours and the rivals': one line of JSON.

use serde::{Deserialize, Serialize};

/// One measurement.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct QueueFigures {
    pub(crate) n: u64,
    pub(crate) jobs_per_s: f64,
    /// Jobs that began after a later one of their room had.
    pub(crate) start_inv: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    /// Of a run at a rate, without its first second.
    #[serde(default)]
    pub(crate) p50_us: Option<f64>,
    #[serde(default)]
    pub(crate) p99_us: Option<f64>,
}

impl QueueFigures {
    /// The share of jobs that were out of order.
    #[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^52")]
    pub(crate) fn inverted(&self) -> f64 {
        self.start_inv as f64 / self.n.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rivals_lines_are_read() {
        let line = r#"{"name":"groupmq","mode":"throughput","conc":16,"handler":"empty","n":50000,"jobs_per_s":8807,"start_inv":25,"end_inv":0,"overlap":0,"lost":0,"doubled":1}"#;
        let figures: QueueFigures = serde_json::from_str(line).expect("figures");
        assert_eq!((figures.n, figures.jobs_per_s, figures.lost, figures.doubled), (50_000, 8807.0, 0, 1));
        assert_eq!((figures.p99_us, figures.inverted()), (None, 0.0005));
        let line = r#"{"name":"bullmq-rooms","mode":"latency","conc":16,"handler":"empty","n":6000,"jobs_per_s":1000,"start_inv":0,"end_inv":0,"overlap":0,"lost":2,"doubled":0,"p50_us":260,"p99_us":2385,"max_us":29532}"#;
        let figures: QueueFigures = serde_json::from_str(line).expect("figures");
        assert_eq!((figures.p50_us, figures.p99_us, figures.lost), (Some(260.0), Some(2385.0), 2));
        // Too few jobs after the first second.
        let none = r#"{"n":10,"jobs_per_s":null,"start_inv":0,"lost":0,"doubled":0,"p50_us":null,"p99_us":null}"#;
        assert!(serde_json::from_str::<QueueFigures>(none).is_err());
    }
}

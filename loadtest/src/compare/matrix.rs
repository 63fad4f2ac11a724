//! What the programs without sockets print, ours and the rivals': one line of JSON.

use serde::{Deserialize, Serialize};

/// One measurement.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct QueueFigures {
    pub(crate) name: String,
    /// How many jobs a worker has under way.
    pub(crate) conc: u32,
    pub(crate) n: u64,
    pub(crate) jobs_per_s: f64,
    /// Jobs that began after a later one of their room had.
    pub(crate) start_inv: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    #[serde(default)]
    pub(crate) p50_us: Option<f64>,
    #[serde(default)]
    pub(crate) p99_us: Option<f64>,
}

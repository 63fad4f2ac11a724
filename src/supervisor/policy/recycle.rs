//! When a child is replaced because of what it has done, its age or its memory.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// After what a child is replaced. None: never.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bounds {
    /// Actions that came in, or events that were resolved.
    pub(crate) events: Option<u64>,
    /// Since its start.
    pub(crate) age: Option<Duration>,
    /// Resident memory.
    pub(crate) memory_bytes: Option<u64>,
}

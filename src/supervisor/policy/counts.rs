//! How many processes a role has.

use serde::{Deserialize, Serialize};

/// How many processes of a role are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Count {
    /// So many.
    Fixed(usize),
    /// As load wants it, within both.
    Between {
        /// At least.
        min: usize,
        /// At most; not below `min`.
        max: usize,
    },
}

impl Count {
    /// The count within it that is nearest to the one that is there.
    pub(crate) fn nearest(self, now: usize) -> usize {
        match self {
            Self::Fixed(count) => count,
            Self::Between { min, max } => now.clamp(min, max),
        }
    }
}

//! The bounds of Sentinel: how many there may be, and how often they are asked.

use std::time::Duration;

/// Sentinels in one URL.
pub(crate) const SENTINELS_MAX: usize = 16;
/// How often the sentinels are asked whether the primary is still the one that a process is connected to.
pub(crate) const SENTINEL_INTERVAL: Duration = Duration::from_secs(1);
/// How many questions to one sentinel may be without an answer, before its connection is given up.
pub(crate) const SENTINEL_UNANSWERED_MAX: u32 = 8;
/// How often a server at the level `replicated` is compared with the replicas that Sentinel knows, in units of [`SENTINEL_INTERVAL`].
pub(crate) const REPLICAS_LOOKED_AT: u32 = 5;

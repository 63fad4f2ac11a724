//! The bounds of clusters of Redis: how many nodes a URL names, and how often they are asked.

use std::time::Duration;

/// Nodes in one URL.
pub(crate) const CLUSTER_HOSTS_MAX: usize = 64;
/// How often a process asks the nodes which of them serves what, when nothing shows that it has changed.
pub(crate) const CLUSTER_INTERVAL: Duration = Duration::from_secs(5);
/// The least time between two such questions.
pub(crate) const CLUSTER_PAUSE: Duration = Duration::from_millis(100);
/// The same while a node does not answer: until its successor is elected, nothing else helps its rooms.
pub(crate) const CLUSTER_AWAY_PAUSE: Duration = Duration::from_millis(300);
/// How long the other nodes are waited for once one has answered.
pub(crate) const CLUSTER_PATIENCE: Duration = Duration::from_millis(500);

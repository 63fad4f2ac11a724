//! The bounds of what a supervisor and its children say to each other.

use std::time::Duration;

/// Bytes of a message on a child's channel.
pub(crate) const CHANNEL_MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// Bytes of the settings of a child.
pub(crate) const CHANNEL_SETTINGS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of the metrics of a child.
pub(crate) const CHANNEL_METRICS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long a child waits for its settings.
pub(crate) const CHILD_SETTINGS_TIMEOUT: Duration = Duration::from_secs(10);
/// A child says at least so often what it has to do.
pub(crate) const CHILD_BEAT: Duration = Duration::from_secs(1);
/// A child says at most so often what it has to do.
pub(crate) const CHILD_LOAD_INTERVAL: Duration = Duration::from_millis(20);
/// Connections that were passed to a gateway and that it has not accepted yet: as many as may be in their handshake.
pub(crate) const PASSED_MAX: usize = super::HANDSHAKES_MAX;

//! The bounds of connections to Redis.

use std::time::Duration;

/// How long Redis may take to answer before the outcome of a step counts as unknown.
pub(crate) const REDIS_RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long replicas may take to confirm a step before its outcome counts as unknown.
pub(crate) const REPLICAS_TIMEOUT: Duration = Duration::from_secs(1);
/// Connections that wait for replicas. A wait blocks its connection, so shards are spread over several.
pub(crate) const REPLICATED_CONNECTIONS: usize = 8;
/// How long connecting to Redis, or subscribing there, may take.
pub(crate) const REDIS_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a process that starts waits for a Redis that cannot be reached, before it ends with an error.
pub(crate) const REDIS_START_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a process calls itself by the connection for its commands, to hear whether the one for its subscriptions does.
pub const SUBSCRIPTION_ECHO_INTERVAL: Duration = Duration::from_secs(1);
/// Echoes, one after the other, that may not come back before the subscribing connection is made again.
pub(crate) const ECHOES_MISSING_MAX: u32 = 2;
/// First pause before a broken subscription connects again. It doubles with every failure.
pub(crate) const RESUBSCRIBE_DELAY_MIN: Duration = Duration::from_millis(20);
/// Longest pause before a broken subscription connects again.
pub(crate) const RESUBSCRIBE_DELAY_MAX: Duration = Duration::from_millis(100);

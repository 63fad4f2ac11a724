//! The bounds of a supervisor: how many processes it runs, how long it waits for them, when it replaces them and how it spreads load.

use std::time::Duration;

use super::{CHILD_BEAT, MARKS_PER_ROOM_MAX, SHARDS_MAX};

/// Deployments that one supervisor runs.
pub(crate) const DEPLOYMENTS_MAX: usize = 16;
/// Processes of one role in one deployment.
pub(crate) const PROCESSES_PER_ROLE_MAX: usize = 128;
/// Bytes of a deployment's name.
pub(crate) const DEPLOYMENT_BYTES_MAX: usize = 32;
/// Requests that wait for their end at one time. Further ones are refused.
pub(crate) const REQUESTS_MAX: usize = 64;
/// Names in one request, ranges counted as one.
pub(crate) const REQUEST_NAMES_MAX: usize = 256;
/// How often the supervisor reads all channels of its children, whatever happens. Of a longer gap only so much counts as waking time.
pub(crate) const BEAT: Duration = Duration::from_secs(1);
/// How long a child may take until it is ready, unless configured otherwise.
pub(crate) const READY_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a child may take to end after it was asked to, unless configured otherwise.
pub(crate) const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a child may say nothing, unless configured otherwise.
pub(crate) const HANG_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a gateway may say nothing until it gets no connections, and others get them.
pub(crate) const GATEWAY_SILENCE_MAX: Duration = Duration::from_secs(2);
/// How long a supervisor in a program of somebody else waits for settings when it is reloaded.
pub(crate) const SETTINGS_TIMEOUT: Duration = Duration::from_secs(30);
/// Addresses of which connections are known before those that have none are forgotten.
pub(crate) const ADDRESSES_SWEPT_AT: usize = 1_024;
/// Shortest of these three that may be configured.
pub(crate) const CHILD_TIMEOUT_MIN: Duration = Duration::from_secs(2);
/// Longest of these three that may be configured.
pub(crate) const CHILD_TIMEOUT_MAX: Duration = Duration::from_secs(600);
/// How long a gateway that leaves may take to move its sessions, unless configured otherwise.
pub(crate) const DRAIN_WINDOW: Duration = Duration::from_secs(5);
/// Longest such time that may be configured.
pub(crate) const DRAIN_WINDOW_MAX: Duration = Duration::from_secs(300);
/// First pause before a child that crashed is started again. It doubles each time.
pub(crate) const CHILD_RESTART_MIN: Duration = Duration::from_millis(100);
/// Longest such pause.
pub(crate) const CHILD_RESTART_MAX: Duration = Duration::from_secs(10);
/// A child that was ready for so long has started well: the pauses begin from the start again.
pub(crate) const CHILD_RESTART_RESET: Duration = Duration::from_secs(10);
/// Mean use of a core, in per cent, above which a role that follows load gets one more process.
pub(crate) const SCALE_UP_CPU_PERCENT: u32 = 70;
/// How long the mean must be above it.
pub(crate) const SCALE_UP_AFTER: Duration = Duration::from_secs(10);
/// Mean use of a core, in per cent, below which the others must stay for a role to give one process up.
pub(crate) const SCALE_DOWN_CPU_PERCENT: u32 = 50;
/// How long the mean would have to be below it.
pub(crate) const SCALE_DOWN_AFTER: Duration = Duration::from_secs(120);
/// How long gateways are uneven before sessions are offered to move.
pub(crate) const EVEN_AFTER: Duration = Duration::from_secs(3);
/// How often sessions are offered to move.
pub(crate) const EVEN_INTERVAL: Duration = Duration::from_millis(200);
/// Sessions that are offered to move in a second, over all gateways.
pub(crate) const EVEN_MOVES_PER_SECOND: u32 = 50;
/// How long a session that was asked to move counts as one that will. Afterwards it stays where it is, and others are asked.
pub(crate) const EVEN_OFFER: Duration = Duration::from_secs(5);
/// Sessions of the fullest gateway, in per cent of the mean, above which gateways are uneven. One session above it is even.
pub(crate) const EVEN_ABOVE_PERCENT: u64 = 110;
/// Sessions of the fullest gateway, in per cent of the mean, at which they are even again.
pub(crate) const EVEN_UNTIL_PERCENT: u64 = 105;
/// How far below its bound a child may be replaced, in per cent of the bound, so that not all are due at once.
pub(crate) const RECYCLE_SPREAD_PERCENT: u64 = 10;
/// Fewest events after which a child is replaced that may be configured.
pub(crate) const RECYCLE_EVENTS_MIN: u64 = 100;
/// Most such events.
pub(crate) const RECYCLE_EVENTS_MAX: u64 = 1_000_000_000_000;
/// Shortest age at which a child is replaced that may be configured.
pub(crate) const RECYCLE_AGE_MIN: Duration = Duration::from_secs(60);
/// Longest such age.
pub(crate) const RECYCLE_AGE_MAX: Duration = Duration::from_secs(365 * 24 * 3_600);
/// Least memory at which a child is replaced that may be configured, in bytes.
pub(crate) const RECYCLE_MEMORY_MIN: u64 = 32 << 20;
/// Most such memory, in bytes.
pub(crate) const RECYCLE_MEMORY_MAX: u64 = 1 << 40;
/// No child is replaced by itself before it is so old: one that needs more than it may have is not replaced again and again at once.
pub(crate) const RECYCLE_LIFE_MIN: Duration = Duration::from_secs(5);
/// How long after a replacement that failed the next is tried.
pub(crate) const RECYCLE_RETRY: Duration = Duration::from_secs(60);
/// How long a roll waits between two slots: a start and a hand-over cost some 40 ms of a core, and those who play share the cores.
pub(crate) const ROLL_REST: Duration = Duration::from_millis(250);
/// Connections in a second that the door lets in from a queue that has formed. This doubles each [`DOOR_PACE_STEP`] that it lasts.
pub(crate) const DOOR_PACE: u32 = 1_000;
/// How long the door keeps one such rate.
pub(crate) const DOOR_PACE_STEP: Duration = Duration::from_secs(1);
/// Connections without a pause between them that are no queue yet.
pub(crate) const DOOR_BURST: u32 = 64;
/// How often `lasthit top` looks.
pub(crate) const TOP_INTERVAL: Duration = Duration::from_secs(1);
/// Looks over which `lasthit top` takes latencies.
pub(crate) const TOP_WINDOW: usize = 5;
/// Looks that `lasthit top` draws at most.
pub(crate) const TOP_HISTORY: usize = 240;
/// Looks in a row that nobody answers until `lasthit top` gives up.
pub(crate) const TOP_RETRIES_MAX: u32 = 60;
/// Keys that wait for `lasthit top`.
pub(crate) const TOP_KEYS_WAITING: usize = 16;
/// How often a Redis that starts is asked whether it answers.
pub(crate) const MANAGED_POLL: Duration = Duration::from_millis(20);
/// How long a lock on the data of a Redis may be held by a process that does not answer.
pub(crate) const MANAGED_LOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a redis-server may take to tell its version.
pub(crate) const MANAGED_VERSION_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the last words of a Redis that has ended are waited for.
pub(crate) const MANAGED_LAST_WORDS: Duration = Duration::from_millis(500);
/// Bytes of the path of a Unix socket, as the kernel has it.
pub(crate) const SOCKET_PATH_BYTES_MAX: usize = 107;

// A replacement's pair of each gateway has a place among the gateways of a room.
const _: () = assert!(PROCESSES_PER_ROLE_MAX * 2 <= MARKS_PER_ROOM_MAX && PROCESSES_PER_ROLE_MAX <= SHARDS_MAX as usize);
const _: () = assert!(CHILD_BEAT.as_millis() * 2 <= CHILD_TIMEOUT_MIN.as_millis());
// A gateway that has something to say is heard before it is passed over.
const _: () = assert!(CHILD_BEAT.as_millis() * 2 <= GATEWAY_SILENCE_MAX.as_millis());
const _: () = assert!(CHILD_TIMEOUT_MIN.as_millis() <= HANG_TIMEOUT.as_millis());
const _: () = assert!(HANG_TIMEOUT.as_millis() <= CHILD_TIMEOUT_MAX.as_millis());
const _: () = assert!(READY_TIMEOUT.as_millis() <= CHILD_TIMEOUT_MAX.as_millis());
const _: () = assert!(STOP_TIMEOUT.as_millis() <= CHILD_TIMEOUT_MAX.as_millis());
const _: () = assert!(DRAIN_WINDOW.as_millis() <= DRAIN_WINDOW_MAX.as_millis());
const _: () = assert!(CHILD_RESTART_MIN.as_millis() < CHILD_RESTART_MAX.as_millis());
const _: () = assert!(CHILD_RESTART_MAX.as_millis() <= CHILD_RESTART_RESET.as_millis());
// What one process more takes off the others must not be what gives it up again.
const _: () = assert!(SCALE_DOWN_CPU_PERCENT < SCALE_UP_CPU_PERCENT && SCALE_UP_AFTER.as_millis() < SCALE_DOWN_AFTER.as_millis());
const _: () = assert!(100 < EVEN_UNTIL_PERCENT && EVEN_UNTIL_PERCENT < EVEN_ABOVE_PERCENT);
const _: () =
    assert!(EVEN_INTERVAL.as_millis() * EVEN_MOVES_PER_SECOND as u128 >= 1_000 && EVEN_INTERVAL.as_millis() < BEAT.as_millis());
// An offer lasts until its outcome has been heard.
const _: () = assert!(BEAT.as_millis() * 2 <= EVEN_OFFER.as_millis());
const _: () = assert!(RECYCLE_SPREAD_PERCENT < 100 && RECYCLE_LIFE_MIN.as_millis() < RECYCLE_AGE_MIN.as_millis());
const _: () = assert!(1 < TOP_WINDOW && TOP_WINDOW <= TOP_HISTORY);

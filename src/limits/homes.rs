//! Bounds of homes: where a shard's gateways and owner are.

use std::time::Duration;

/// Shards in which a gateway says every `HEADS_INTERVAL` that it lives, and looks whether it has missed verdicts: at most 16 steps a second.
/// A gateway that is in more shards takes them in turns, and so learns after 130 s at 1,024 shards that it was fenced in one where nobody
/// acts. If it was fenced in another one, too, it looks at all shards with the next `HEADS_INTERVAL`.
pub(crate) const CHECKED_SHARDS_MAX: usize = 40;
/// How many gateways, counted in each shard, a worker begins to ask in one [`super::SHARD_CHECK_INTERVAL`] because it has heard nothing of them for
/// long. So a process asks, and is asked, no more often if there are more shards.
pub(crate) const GATEWAYS_CHECKED_MAX: usize = 10;
/// How long a gateway waits before it asks again whether a shard without a home has one.
pub(crate) const HELD_TRIES: Duration = Duration::from_millis(50);
/// How long an answer about a home is used without asking again.
pub(crate) const HOME_FRESH: Duration = Duration::from_secs(1);
/// How long such an answer is used where the journal does not say in time. No read takes so long, so what contradicts an answer of this
/// age came later.
pub(crate) const HOME_STALE: Duration = Duration::from_secs(5);
/// How long a request waits to hear where its room is.
pub(crate) const HOME_WITHIN: Duration = Duration::from_secs(1);
/// How often a process asks where shards are, in a second.
pub(crate) const HOMES_PER_S: u32 = 50;
/// How much earlier than it is asked to a gateway closes the sessions of a shard that it hands over.
pub(crate) const LEAVE_EARLY: Duration = Duration::from_millis(100);
/// How often in a second one address is told that a room is elsewhere.
pub(crate) const SENT_ON_PER_S: u32 = 20;
/// Bytes of a host's name: a boot id and a time namespace are about 52.
pub(crate) const HOST_NAME_BYTES_MAX: usize = 128;
/// The highest number of a home. The next one names changes of programs, and no event bears it.
pub(crate) const HOME_NUMBER_MAX: u32 = u32::MAX - 1;
/// How long the hosts must be out of balance, without a break, before a shard is moved for it. Nor is a shard moved for it again
/// within this time.
pub(crate) const BALANCE_AFTER: Duration = Duration::from_secs(30);
/// How long a shard may take from its being named to its new home. A move that takes longer is given up.
pub(crate) const REHOME_WITHIN: Duration = Duration::from_secs(20);
/// Within how many leases of its loss only the host that the plan has chosen claims a shard, beyond the time that it is waited for.
pub(crate) const CHOSEN_LEASES: u32 = 1;
/// How long a named successor may keep others from a shard, by its server's clock, after the owner has named it for the last time. A
/// name is good for one lease; a server that takes over may have an earlier clock.
pub(crate) const NAMED_MAX: Duration = Duration::from_secs(120);
/// By when the gateways are to have left a shard that is handed over. Clients wait for a welcome for 2 s, and those who have followed
/// are connected to the next home all that time: they are welcomed there when everybody has left.
pub(crate) const HAND_WITHIN: Duration = Duration::from_millis(1_500);
/// How much the clocks of two machines of one name must differ, wall less monotonic, in microseconds. Processes of one host find the same
/// within a few microseconds.
pub(crate) const CLONES_APART_US: u64 = 5_000;
/// After this pause a machine that has another's name looks again.
pub(crate) const CLONES_PAUSE: Duration = Duration::from_secs(1);
/// Bounds of `--rehome-after-ms`: two of the shortest leases, and ten minutes.
pub(crate) const REHOME_AFTER_MS_MIN: u64 = 1_600;
pub(crate) const REHOME_AFTER_MS_MAX: u64 = 600_000;
/// Bytes of the reason in a close frame.
pub(crate) const CLOSE_REASON_BYTES: usize = 123;
/// Bytes of a host's public URL. A close frame's reason holds it, with `#` and the number of a home behind it.
pub(crate) const ADVERTISE_BYTES_MAX: usize = 96;
/// How often a gateway asks under the URL that it was told to advertise who answers there, before it warns.
pub(crate) const ADVERTISE_TRIES: u32 = 3;
/// How long it waits for an answer.
pub(crate) const ADVERTISE_WITHIN: Duration = Duration::from_secs(2);
/// And then for a proxy to lead there, or to hear of another gateway of its host.
pub(crate) const ADVERTISE_PAUSE: Duration = Duration::from_secs(3);

// What is handed over is there in time, with a lease for those who have not heard.
const _: () = assert!(HAND_WITHIN.as_millis() * 2 < REHOME_WITHIN.as_millis());
const _: () = assert!(ADVERTISE_BYTES_MAX + "#4294967294".len() <= CLOSE_REASON_BYTES);
// A move for balance that fails is not tried again at once.
const _: () = assert!(REHOME_WITHIN.as_secs() < BALANCE_AFTER.as_secs() && CHOSEN_LEASES > 0);

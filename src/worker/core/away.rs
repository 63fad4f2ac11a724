//! Parts of the journal that are out of reach while others are not: nodes of a cluster.

use std::collections::{BTreeMap, BTreeSet};

use crate::journal::Lease;
use crate::types::ShardId;
use crate::worker::step::Failure;

/// What follows from it for a worker.
#[derive(Debug, Default)]
pub(super) struct Away {
    /// Until when no gateway's silence counts in these shards (rule R5).
    excused: BTreeMap<ShardId, u64>,
    /// Shards whose last claim failed.
    unclaimed: BTreeSet<ShardId>,
    /// When the last claim found that another one was faster.
    lost_at_ns: BTreeMap<ShardId, u64>,
    /// The catalog, in which workers say that they live, was away when this one was to say so last.
    mute: bool,
    /// Until then nobody counts as dead because a heartbeat has run out.
    spared_until_ns: u64,
}

impl Away {
    pub(super) fn failed(&mut self, failure: &Failure) {
        self.mute |= failure.is_of_the_catalog();
    }

    pub(super) fn excuse(&mut self, shard: ShardId, until_ns: u64) {
        let excused_ns = self.excused.entry(shard).or_default();
        *excused_ns = until_ns.max(*excused_ns);
    }

    pub(super) fn is_excused(&self, shard: ShardId, now_ns: u64) -> bool {
        self.excused.get(&shard).is_some_and(|until_ns| now_ns < *until_ns)
    }

    /// A heartbeat was taken. After the catalog was away, whoever comes first finds that all others' have run out: they have one lease
    /// to be there again (rule N7).
    pub(super) fn heard(&mut self, now_ns: u64, lease_ms: u64) {
        if std::mem::take(&mut self.mute) {
            self.spared_until_ns = now_ns.saturating_add(lease_ms.saturating_mul(1_000_000));
        }
    }

    pub(super) fn spares(&self, from: Option<Lease>, now_ns: u64) -> bool {
        from.is_some() && now_ns < self.spared_until_ns
    }

    pub(super) fn claimed(&mut self, shard: ShardId, failed: bool) {
        if failed {
            self.unclaimed.insert(shard);
        } else {
            self.unclaimed.remove(&shard);
        }
    }

    /// Another claim of the shard was faster. Whether that is news: if it happens again at once, something else is wrong with it.
    pub(super) fn is_first_loss(&mut self, shard: ShardId, now_ns: u64, within_ns: u64) -> bool {
        self.lost_at_ns.insert(shard, now_ns).is_none_or(|lost_ns| now_ns.saturating_sub(lost_ns) >= within_ns)
    }

    /// Those that could not be had, because their node is away or they are damaged, come last: they must not keep the worker from the
    /// others.
    pub(super) fn order(&self, wanted: &mut [ShardId]) {
        wanted.sort_by_key(|shard| self.unclaimed.contains(shard));
    }
}

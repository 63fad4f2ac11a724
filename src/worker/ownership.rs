//! Which shards of its host a worker should own: each living worker gets an even share, and shards move one at a time.

use std::collections::BTreeSet;

use crate::journal::WorkerRecord;
use crate::types::{Incarnation, ShardId};

/// What a worker should do to reach its share.
#[derive(Debug, PartialEq, Eq, Default)]
pub(super) struct Plan {
    /// How many shards to take over.
    pub(super) claim: usize,
    /// The shards that nobody alive lists, in the order in which to take them. The stored owner of some may live.
    pub(super) free: Vec<ShardId>,
    /// A shard to hand over, so that another worker can reach its share.
    pub(super) release: Option<ShardId>,
}

/// How many of `shards` shards worker `me` should own. `living` may or may not include it.
fn share(me: Incarnation, living: &[WorkerRecord], shards: usize) -> usize {
    shards.div_ceil(workers(me, living).len())
}

fn workers(me: Incarnation, living: &[WorkerRecord]) -> BTreeSet<Incarnation> {
    living.iter().map(|worker| worker.incarnation).chain([me]).collect()
}

/// Plans for worker `me`, which owns `mine`. `living` are the workers of its host, and `homes` are all shards that are its host's, in
/// their order.
pub(super) fn plan(me: Incarnation, mine: &BTreeSet<ShardId>, living: &[WorkerRecord], homes: &[ShardId]) -> Plan {
    let share = share(me, living, homes.len());
    if mine.len() > share {
        return Plan { release: mine.last().copied(), ..Plan::default() };
    }
    if mine.len() == share {
        return Plan::default();
    }
    let owned: BTreeSet<ShardId> = living.iter().filter(|w| w.incarnation != me).flat_map(|w| w.shards.iter().copied()).collect();
    // Each worker starts its search at another shard, so that two rarely claim the same one.
    let rank = workers(me, living).iter().position(|worker| *worker == me).unwrap_or_default();
    let start = rank * share;
    let free = homes.iter().cycle().skip(start).take(homes.len()).copied();
    let free: Vec<ShardId> = free.filter(|shard| !owned.contains(shard) && !mine.contains(shard)).collect();
    Plan { claim: free.len().min(share - mine.len()), free, release: None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Workers that follow their plans in turns end up with all shards, evenly spread, and then plan nothing more.
        #[test]
        fn shards_spread_evenly(workers in 1usize..8, shards in 1u16..64, turns in proptest::collection::vec(any::<prop::sample::Index>(), 40)) {
            let mut owned: Vec<BTreeSet<ShardId>> = vec![BTreeSet::new(); workers];
            let records = |owned: &[BTreeSet<ShardId>]| -> Vec<WorkerRecord> {
                owned.iter().enumerate().map(|(i, s)| WorkerRecord { incarnation: Incarnation(i as u128 + 1), shards: s.iter().copied().collect() }).collect()
            };
            let homes: Vec<ShardId> = (0..shards).map(ShardId).collect();
            let round: Vec<usize> = (0..workers).collect();
            let order = turns.iter().map(|t| t.index(workers)).chain(round.iter().copied().cycle().take(workers * 200));
            for turn in order {
                let plan = plan(Incarnation(turn as u128 + 1), &owned[turn], &records(&owned), &homes);
                for shard in plan.free.into_iter().take(plan.claim) {
                    if !owned.iter().any(|o| o.contains(&shard)) {
                        owned[turn].insert(shard);
                    }
                }
                if let Some(shard) = plan.release {
                    owned[turn].remove(&shard);
                }
            }
            let total: usize = owned.iter().map(BTreeSet::len).sum();
            prop_assert_eq!(total, usize::from(shards));
            let share = usize::from(shards).div_ceil(workers);
            prop_assert!(owned.iter().all(|o| o.len() <= share));
            for (i, mine) in owned.iter().enumerate() {
                prop_assert_eq!(plan(Incarnation(i as u128 + 1), mine, &records(&owned), &homes), Plan::default());
            }
        }
    }
}

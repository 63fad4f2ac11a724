//! Which shards a worker should own: each living worker gets an even share, and shards move one at a time.

use std::collections::BTreeSet;

use crate::journal::WorkerRecord;
use crate::types::{Incarnation, ShardId};

/// What a worker should do to reach its share.
#[derive(Debug, PartialEq, Eq, Default)]
pub(super) struct Plan {
    /// Shards to take over, unless their stored owner lives.
    pub(super) claim: Vec<ShardId>,
    /// A shard to hand over, so that another worker can reach its share.
    pub(super) release: Option<ShardId>,
}

/// Plans for worker `me`, which owns `mine`. `living` may or may not include `me`. The deployment has `shards` shards.
pub(super) fn plan(me: Incarnation, mine: &BTreeSet<ShardId>, living: &[WorkerRecord], shards: u16) -> Plan {
    let mut workers: Vec<Incarnation> = living.iter().map(|w| w.incarnation).collect();
    workers.push(me);
    workers.sort_unstable();
    workers.dedup();
    let share = usize::from(shards).div_ceil(workers.len());
    if mine.len() > share {
        return Plan { claim: Vec::new(), release: mine.last().copied() };
    }
    let owned: BTreeSet<ShardId> = living.iter().filter(|w| w.incarnation != me).flat_map(|w| w.shards.iter().copied()).collect();
    // Each worker starts its search at another shard, so that two rarely claim the same one.
    let rank = workers.iter().position(|w| *w == me).unwrap_or_default();
    let start = rank * share;
    let free = (0..usize::from(shards)).map(|i| (start + i) % usize::from(shards));
    let free = free.filter_map(|i| u16::try_from(i).ok().map(ShardId));
    let claim = free.filter(|shard| !owned.contains(shard) && !mine.contains(shard)).take(share - mine.len());
    Plan { claim: claim.collect(), release: None }
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
            let round: Vec<usize> = (0..workers).collect();
            let order = turns.iter().map(|t| t.index(workers)).chain(round.iter().copied().cycle().take(workers * 200));
            for turn in order {
                let plan = plan(Incarnation(turn as u128 + 1), &owned[turn], &records(&owned), shards);
                for shard in plan.claim {
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
                prop_assert_eq!(plan(Incarnation(i as u128 + 1), mine, &records(&owned), shards), Plan::default());
            }
        }
    }
}

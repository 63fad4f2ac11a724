//! How a worker says that it lives and where, names a successor, and tells other processes where a shard is.

use bytes::Bytes;

use super::Worker;
use crate::clock;
use crate::journal::{Homing, Lease, Leased, Successor};
use crate::types::{Incarnation, ShardId};
use crate::worker::step::{Failure, Input, Scope};

impl Worker {
    /// A full journal still takes heartbeats, so that shards stay where they are. The ping tells whether it takes other writes.
    pub(super) fn heartbeat(&self, owned: Vec<ShardId>) {
        let (journal, mut record, lease_ms) = (self.journal.clone(), self.record.clone(), self.lease_ms);
        record.offset_us = clock::epoch_us();
        record.lacks.clone_from(&self.lacks.lock());
        let (inputs, lacks) = (self.inputs.clone(), self.lacks.clone());
        self.once("heartbeat", None, async move {
            let said = async {
                let beats = journal.beat(&record, lease_ms).await?;
                Ok((beats, journal.heartbeat(record.incarnation, &owned, lease_ms).await?))
            };
            let (said, away) = tokio::join!(said, journal.ping_shards());
            *lacks.lock() = away.iter().flat_map(|(shards, _)| shards).copied().collect();
            let _ = inputs.send(Input::Away(away)).await;
            let (beats, living) = said?;
            let failure = journal.ping().await.err();
            let failure = failure.map(|error| Failure::new("ping", Scope::Ping, error).at(journal.beside(None)));
            Ok(Input::Alive { living, beats, failure })
        });
    }

    pub(super) fn claim(&self, shard: ShardId, from: Option<Lease>, homing: Homing) {
        let (journal, me, inputs) = (self.journal.clone(), self.record.incarnation, self.inputs.clone());
        tokio::spawn(async move {
            let answer = match journal.claim(shard, from, me, clock::unix_ms(), &homing).await {
                Ok(answer) => {
                    if let (Leased::Done(lease), Some(before), true) = (&answer, &homing.seen, homing.moves) {
                        tracing::info!(shard = shard.0, number = lease.home, from = %before.host, "this host is the home of a shard now");
                    }
                    Some(answer)
                }
                Err(error) => {
                    let failure = Failure::new("claim shard", Scope::Claim, error);
                    let _ = inputs.send(Input::Failed(failure.at(journal.beside(Some(shard))))).await;
                    None
                }
            };
            let _ = inputs.send(Input::Claimed(shard, answer)).await;
        });
    }

    pub(super) fn name(&self, shard: ShardId, lease: Lease, to: Option<Successor>) {
        let (journal, lease_ms) = (self.journal.clone(), self.lease_ms);
        self.once("name successor", Some(shard), async move {
            let answer = journal.name(shard, lease, to.as_ref(), lease_ms).await?;
            Ok(Input::Named(shard, lease, answer))
        });
    }

    pub(super) fn tell(&self, process: Incarnation, push: Bytes) {
        let journal = self.journal.clone();
        tokio::spawn(async move {
            // Who misses it asks the journal.
            let _ = journal.publish(None, process, push).await;
        });
    }
}

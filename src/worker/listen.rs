//! The tasks beside the worker's loop: they receive bells and pushes, and keep the worker's registration alive.

use std::sync::Arc;

use tokio::sync::{Notify, mpsc};

use super::step::{Failure, Input, Scope};
use crate::journal::{self, Backoff, Signal, Signals, WorkerJournal};
use crate::limits::HEADS_INTERVAL;
use crate::types::{Incarnation, ShardId};
use crate::wire::push::{self, Push};

/// Regularly tells the journal for which rooms this worker has rules.
pub(super) async fn say_patterns(
    journal: Arc<dyn WorkerJournal>,
    me: Incarnation,
    patterns: Vec<String>,
    inputs: mpsc::Sender<Input>,
) {
    let mut interval = tokio::time::interval(HEADS_INTERVAL);
    loop {
        interval.tick().await;
        if let Err(error) = journal::keep_known(&*journal, me, &patterns).await {
            let _ = inputs
                .send(Input::Failed(
                    Failure::new("say for which rooms there are rules", Scope::Shared, error).at(journal.beside(None)),
                ))
                .await;
        }
    }
}

/// Passes the other workers' pushes to the loop. `programs` is told of pushed programs.
pub(super) async fn hear_of_shards(mut pushes: Signals<bytes::Bytes>, programs: Arc<Notify>, inputs: mpsc::Sender<Input>) {
    while let Some(signal) = pushes.recv().await {
        let (free, pushed) = match &signal {
            Signal::Subscribed => (true, true),
            Signal::Message(bytes) => match push::decode(bytes) {
                Ok(Push::Give { shard, host }) => {
                    if inputs.send(Input::Give(shard, host)).await.is_err() {
                        return;
                    }
                    (false, false)
                }
                Ok(Push::Free { .. }) => (true, false),
                Ok(Push::Programs) => (false, true),
                _ => (false, false),
            },
        };
        if pushed {
            programs.notify_one();
        }
        if free && inputs.send(Input::ShardIsFree).await.is_err() {
            return;
        }
    }
}

/// Passes a shard's bells to the loop, in order.
pub(super) async fn follow(journal: Arc<dyn WorkerJournal>, shard: ShardId, inputs: mpsc::Sender<Input>) {
    let mut backoff = Backoff::default();
    loop {
        match journal.bells(&[shard]).await {
            Ok(mut bells) => {
                while let Some(signal) = bells.recv().await {
                    let input = match signal {
                        Signal::Subscribed => Input::Subscribed(shard),
                        Signal::Message(bell) => Input::Bell(bell),
                    };
                    if inputs.send(input).await.is_err() {
                        return;
                    }
                }
            }
            Err(error) => {
                if inputs
                    .send(Input::Failed(Failure::new("follow bells", Scope::Shared, error).at(journal.beside(Some(shard)))))
                    .await
                    .is_err()
                {
                    return;
                }
            }
        }
        backoff.rest().await;
    }
}

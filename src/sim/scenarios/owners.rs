//! Owners of a shard that come, go and come too late, and what they leave behind: one interleaving each.

use super::*;
use crate::journal::{Beats, Commit, Committed, WorkerRecord};

impl Stage {
    /// What the worker would commit now: the journal does not get it yet.
    fn commit_on_its_way(&mut self) -> std::sync::Arc<Commit> {
        self.turn();
        let mut commits = self.take(|command| matches!(command, WorkerCommand::Commit(_)));
        let Some(WorkerCommand::Commit(commit)) = commits.pop() else { panic!("nothing to commit: {:?}", self.wanted) };
        assert!(commits.is_empty(), "{commits:?}");
        commit
    }

    /// The ids of the verdicts that the journal has.
    fn stored_ids(&self) -> Vec<String> {
        let page = self.store.verdicts(&room(), 0, 100);
        let batches = page.batches.iter().map(|bytes| verdicts::decode(bytes).expect("a batch"));
        batches.flat_map(|batch| batch.verdicts).filter_map(|verdict| verdict.id).collect()
    }

    fn owns(&self) -> bool {
        self.worker.owned().next().is_some()
    }

    /// One heartbeat with these workers alive, and what comes of it.
    fn look_around(&mut self, living: &[WorkerRecord]) -> Vec<WorkerCommand> {
        self.worker.apply(Input::Alive { living: living.to_vec(), beats: Beats::default(), failure: None }, self.now);
        self.collect();
        if !self.take(|command| matches!(command, WorkerCommand::ReadOwners)).is_empty() {
            self.worker.apply(Input::Owners(self.store.owners(0)), self.now);
            self.collect();
        }
        self.take(|command| matches!(command, WorkerCommand::Claim { .. }))
    }

    /// Carries a claim out; tells from whom.
    fn claim(&mut self, claims: &[WorkerCommand], worker: u128) -> Option<Incarnation> {
        let [WorkerCommand::Claim { shard, from, .. }] = claims else { panic!("{claims:?}") };
        let answer = self.store.claim(*shard, *from, Incarnation(worker), (0, 0), &Homing::default()).expect("a shard");
        self.worker.apply(Input::Claimed(*shard, Some(answer)), self.now);
        from.map(|lease| lease.owner)
    }
}

fn record(worker: u128) -> WorkerRecord {
    WorkerRecord { incarnation: Incarnation(worker), shards: Vec::new() }
}

/// Rule C1: an owner was paused with a commit on its way, and that arrives when a successor has loaded the room, before the
/// successor's own first commit: number and `seq` fit, only the lease does not.
#[test]
fn a_paused_owners_commit_comes_after_a_takeover() {
    let (mut stage, mut a) = alone();
    a.act(1, "a", 1_030 * MS);
    let bell = a.flush(&mut stage.store, 1_031 * MS, false);
    stage.bell(bell);
    let late = stage.commit_on_its_way();
    let mut paused = std::mem::replace(&mut stage.worker, WorkerCore::new(Incarnation(101), 1, limits()));
    let lease = stage.store.claim(SHARD, Some(late.lease), Incarnation(101), (0, 0), &Homing::default()).expect("a shard");
    stage.worker.apply(Input::Claimed(SHARD, Some(lease)), stage.now);
    stage.collect();
    stage.subscribe();
    stage.take(|command| matches!(command, WorkerCommand::Survey { .. }));
    stage.survey();
    let own = {
        // The room is read, brought back, resolved.
        stage.turn();
        stage.turn();
        stage.commit_on_its_way()
    };
    assert_eq!((own.number, own.rooms[0].from), (late.number, late.rooms[0].from), "both follow the same commit");
    let (answer, _) = stage.store.commit(&late).expect("a commit");
    assert_eq!(answer, Committed::Fenced);
    paused.apply(Input::Committed { shard: SHARD, lease: late.lease, number: late.number, answer }, stage.now);
    assert_eq!(paused.owned().count(), 0, "it lets go");
    let (answer, _) = stage.store.commit(&own).expect("a commit");
    assert_eq!(answer, Committed::Done);
    stage.worker.apply(Input::Committed { shard: SHARD, lease: own.lease, number: own.number, answer }, stage.now);
    stage.collect();
    stage.settle();
    assert!(stage.owns());
    assert_eq!(stage.stored_ids(), ["a"]);
}

/// Rule C1: a commit took effect and its answer was lost. Sent again it is done already: nothing is decided twice, nothing is
/// loaded again, and the next commit follows.
#[test]
fn a_commit_whose_answer_was_lost_is_done() {
    let (mut stage, mut a) = alone();
    a.act(1, "a", 1_030 * MS);
    let bell = a.flush(&mut stage.store, 1_031 * MS, false);
    stage.bell(bell);
    let commit = stage.commit_on_its_way();
    stage.store.commit(&commit).expect("a commit");
    let (answer, pushes) = stage.store.commit(&commit).expect("a commit");
    assert_eq!((&answer, pushes.len()), (&Committed::Done, 0));
    stage.worker.apply(Input::Committed { shard: SHARD, lease: commit.lease, number: commit.number, answer }, stage.now);
    stage.collect();
    a.act(1, "b", 1_040 * MS);
    let bell = a.flush(&mut stage.store, 1_041 * MS, false);
    stage.bell(bell);
    stage.settle();
    assert_eq!((stage.stored_ids(), stage.complaints), (vec!["a".to_owned(), "b".to_owned()], Vec::new()));
}

/// Rule C1: a claim took effect and its answer was lost. The worker that made it claims the shard from itself.
#[test]
fn a_claim_whose_answer_was_lost_is_made_again() {
    let mut stage = Stage::unowned(limits());
    stage.store.claim(SHARD, None, Incarnation(100), (0, 0), &Homing::default()).expect("a shard");
    stage.worker.apply(Input::Claimed(SHARD, None), stage.now);
    let claims = stage.look_around(&[record(100)]);
    assert_eq!(stage.claim(&claims, 100), Some(Incarnation(100)));
    assert!(stage.owns());
}

/// Rule C1: the same, but it was another worker's claim, which lives, and has meanwhile what it needs. It is suspected when it
/// does not list the shard with its next heartbeat either: until then it may not have said so yet.
#[test]
fn a_living_owner_that_does_not_know_of_its_shard_is_claimed_from() {
    let mut stage = Stage::unowned(limits());
    stage.store.claim(SHARD, None, Incarnation(101), (0, 0), &Homing::default()).expect("a shard");
    let living = [record(100), record(101)];
    assert!(stage.look_around(&living).is_empty(), "it may not have said so yet");
    assert!(stage.look_around(&living).is_empty(), "nor in the same moment");
    stage.now += 20 * MS;
    let claims = stage.look_around(&living);
    assert_eq!(stage.claim(&claims, 100), Some(Incarnation(101)));
    assert!(stage.owns());
}

/// Rule C4: an Open comes in below what was released. A successor brings the room back in the recorded order, which is not that
/// of the stamps.
#[test]
fn a_room_is_brought_back_in_its_recorded_order() {
    let (mut stage, mut a) = alone();
    a.act(1, "a", 1_030 * MS);
    let bell = a.flush(&mut stage.store, 1_031 * MS, false);
    stage.bell(bell);
    stage.settle();
    let mut b = gateway(&mut stage.store, 2);
    b.join("bob", None, 1_020 * MS);
    let bell = b.flush(&mut stage.store, 1_032 * MS, false);
    stage.bell(bell);
    stage.pass(&mut a, 1_035 * MS);
    let stamps: Vec<u64> = stage.committed.iter().map(|verdict| verdict.stamp.moment.ns).collect();
    assert!(!stamps.is_sorted(), "{stamps:?}");
    stage.take_over(101, limits());
    a.act(1, "late", 1_040 * MS);
    let bell = a.flush(&mut stage.store, 1_041 * MS, false);
    stage.bell(bell);
    stage.pass(&mut b, 1_045 * MS);
    assert_eq!((stage.stored_ids(), stage.complaints), (vec!["a".to_owned(), "late".to_owned()], Vec::new()));
}

/// What of a room a gateway was not told, because its last push was lost, and nothing follows that would show the gap.
fn a_lost_last_push() -> (Stage, ScriptedGateway) {
    let (mut stage, mut a) = alone();
    stage.push(&mut a);
    a.act(1, "a", 1_030 * MS);
    let bell = a.flush(&mut stage.store, 1_031 * MS, false);
    stage.bell(bell);
    stage.settle();
    stage.pushed.clear();
    assert!(a.seqs(1).is_empty());
    (stage, a)
}

/// Rule C5: the gateway finds it when it compares its rooms with the journal, after it subscribed again and slowly always.
#[test]
fn a_lost_last_push_is_found_in_the_heads() {
    let (mut stage, mut a) = a_lost_last_push();
    a.check_heads(&mut stage.store);
    a.read(&stage.store);
    assert_eq!(a.seqs(1), [2]);
}

/// Rule C5: the owner died with its commit, before it published. Its successor tells every room's head at once.
#[test]
fn a_successor_tells_the_heads() {
    let (mut stage, mut a) = a_lost_last_push();
    stage.take_over(101, limits());
    stage.push(&mut a);
    a.read(&stage.store);
    assert_eq!(a.seqs(1), [2]);
}

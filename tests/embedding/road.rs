//! The road on the memory journal, through the embedding API: gateways, a worker, verdicts.

use std::sync::Arc;
use std::time::Duration;

use lasthit::embed::{Delivery, Gateway, Joining, Seat, act};
use lasthit::journal::{Journal, memory::MemoryJournal};
use lasthit::rules::{RulesBook, claim::Claim, last_hit::LastHit};
use lasthit::types::{Audience, Outcome, Role, Since, Verdict};
use lasthit::wire::client::Welcome;
use lasthit::worker::{self, WorkerOptions};
use tokio_util::sync::CancellationToken;

fn rules() -> RulesBook {
    RulesBook::new()
        .room("quiet-*", || Claim::new(Audience::Session))
        .room("claim-*", || Claim::new(Audience::Room))
        .room("*", LastHit::new)
}

struct Deployment {
    journal: Arc<dyn Journal>,
    stop: CancellationToken,
}

impl Deployment {
    fn start() -> Self {
        let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::new(4));
        let this = Self { journal, stop: CancellationToken::new() };
        this.worker();
        this
    }

    fn worker(&self) -> CancellationToken {
        let stop = self.stop.child_token();
        tokio::spawn(worker::run(self.journal.clone(), rules(), WorkerOptions::default(), stop.clone(), Default::default()));
        stop
    }

    async fn gateway(&self) -> Gateway {
        Gateway::start(self.journal.clone()).await.expect("gateway")
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn joining(room: &str, player: &str) -> Joining {
    Joining { room: room.parse().expect("room"), player: player.parse().expect("player"), role: Role::Player, since: None }
}

async fn next(seat: &mut Seat) -> Delivery {
    tokio::time::timeout(Duration::from_secs(20), seat.recv()).await.expect("a delivery in time").expect("an open session")
}

async fn welcome(seat: &mut Seat) -> Welcome {
    match next(seat).await {
        Delivery::Welcome(welcome) => *welcome,
        other => panic!("{other:?} instead of a welcome"),
    }
}

/// The next verdict; `from` ranges must continue where `seq` was.
async fn verdict(seat: &mut Seat, seq: &mut u64) -> Verdict {
    match next(seat).await {
        Delivery::Verdict { from, frames } => {
            let verdict = frames.verdict().clone();
            assert_eq!(from.unwrap_or(verdict.seq), *seq + 1, "contiguous");
            *seq = verdict.seq;
            verdict
        }
        other => panic!("{other:?} instead of a verdict"),
    }
}

async fn answer(seat: &mut Seat, seq: &mut u64, id: &str) -> Verdict {
    loop {
        let verdict = verdict(seat, seq).await;
        if verdict.id.as_deref() == Some(id) {
            return verdict;
        }
    }
}

#[tokio::test]
async fn two_gateways_decide_by_arrival() {
    let deployment = Deployment::start();
    let (a, b) = (deployment.gateway().await, deployment.gateway().await);
    let mut ann = a.join(joining("claim-1", "ann")).expect("join");
    let mut bob = b.join(joining("claim-1", "bob")).expect("join");
    let (mut seen_a, mut seen_b) = (welcome(&mut ann).await.seq, welcome(&mut bob).await.seq);
    for i in 0..50 {
        let (contest, id) = (format!("c{i}"), format!("i{i}"));
        let action = act("claim", &id).contest(&contest);
        let (first, second) = if i % 2 == 0 { (&ann, &bob) } else { (&bob, &ann) };
        first.arrive(&action).expect("accepted");
        second.arrive(&action).expect("accepted");
        let winner = if i % 2 == 0 { "ann" } else { "bob" };
        for _ in 0..2 {
            let v = answer(&mut ann, &mut seen_a, &id).await;
            let won = v.player.as_ref().is_some_and(|p| p.as_str() == winner);
            assert_eq!(v.outcome, if won { Outcome::Granted } else { Outcome::Denied("late".to_owned()) }, "contest {i}");
            assert_eq!(v.behind_ns.is_some(), !won);
            let same = answer(&mut bob, &mut seen_b, &id).await;
            assert_eq!(same.seq, v.seq);
        }
    }
}

#[tokio::test]
async fn a_repeated_id_acts_once_and_gets_its_first_verdict() {
    let deployment = Deployment::start();
    let gateway = deployment.gateway().await;
    let mut ann = gateway.join(joining("claim-1", "ann")).expect("join");
    let mut seq = welcome(&mut ann).await.seq;
    ann.arrive(&act("claim", "x").contest("seat")).expect("accepted");
    let first = answer(&mut ann, &mut seq, "x").await;
    ann.arrive(&act("claim", "x").contest("seat")).expect("accepted");
    ann.arrive(&act("release", "y").contest("seat")).expect("accepted");
    let again = answer(&mut ann, &mut seq, "x").await;
    assert_eq!((again.outcome, again.round), (first.outcome, first.round));
    assert_eq!(again.seq, first.seq + 1);
    assert_eq!(answer(&mut ann, &mut seq, "y").await.outcome, Outcome::Granted);
}

#[tokio::test]
async fn since_delivers_what_was_missed() {
    let deployment = Deployment::start();
    let (a, b) = (deployment.gateway().await, deployment.gateway().await);
    let mut ann = a.join(joining("claim-1", "ann")).expect("join");
    let mut bob = b.join(joining("claim-1", "bob")).expect("join");
    let mut seq = welcome(&mut ann).await.seq;
    let hello = welcome(&mut bob).await;
    let (era, mut seen) = (hello.era, hello.seq);
    bob.leave(1000);
    for i in 0..30 {
        ann.arrive(&act("claim", &format!("i{i}")).contest(&format!("c{i}"))).expect("accepted");
    }
    answer(&mut ann, &mut seq, "i29").await;
    let mut bob = b.join(Joining { since: Some(Since { era, seq: seen }), ..joining("claim-1", "bob") }).expect("join");
    let back = welcome(&mut bob).await;
    assert!(back.resumed && !back.gone && back.seq == seen && back.state.is_none());
    for i in 0..30 {
        answer(&mut bob, &mut seen, &format!("i{i}")).await;
    }
    let mut other = b.join(Joining { since: Some(Since { era: era + 7, seq: 3 }), ..joining("claim-1", "eve") }).expect("join");
    let gone = welcome(&mut other).await;
    assert!(gone.gone && !gone.resumed && gone.state.is_some());
    let mut ahead = b.join(Joining { since: Some(Since { era, seq: 10_000 }), ..joining("claim-1", "fay") }).expect("join");
    assert!(matches!(next(&mut ahead).await, Delivery::Close { code: 4400, .. }));
}

#[tokio::test]
async fn what_a_session_may_not_see_is_covered_by_ranges() {
    let deployment = Deployment::start();
    let gateway = deployment.gateway().await;
    let mut ann = gateway.join(joining("quiet-1", "ann")).expect("join");
    let bob = gateway.join(joining("quiet-1", "bob")).expect("join");
    let mut seq = welcome(&mut ann).await.seq;
    for i in 0..10 {
        bob.arrive(&act("claim", &format!("b{i}")).contest(&format!("b{i}"))).expect("accepted");
    }
    ann.arrive(&act("claim", "a").contest("b3")).expect("accepted");
    let v = answer(&mut ann, &mut seq, "a").await;
    assert_eq!(v.outcome, Outcome::Denied("late".to_owned()));
    assert!(v.seq >= 12);
}

#[tokio::test]
async fn shards_move_between_workers_without_losing_anything() {
    let deployment = Deployment::start();
    let gateway = deployment.gateway().await;
    let mut seats = Vec::new();
    for i in 0..8 {
        let mut seat = gateway.join(joining(&format!("claim-{i}"), "ann")).expect("join");
        let seq = welcome(&mut seat).await.seq;
        seats.push((seat, seq));
    }
    let mut last: Option<CancellationToken> = None;
    for round in 0..6 {
        let next_worker = deployment.worker();
        for (seat, _) in &seats {
            for i in 0..20 {
                seat.arrive(&act("claim", &format!("r{round}i{i}")).contest(&format!("c{i}"))).expect("accepted");
            }
        }
        if let Some(old) = last.replace(next_worker) {
            old.cancel();
        }
        for (seat, seq) in &mut seats {
            for i in 0..20 {
                let v = answer(seat, seq, &format!("r{round}i{i}")).await;
                let expected = if round == 0 { Outcome::Granted } else { Outcome::Denied("already_yours".to_owned()) };
                assert_eq!(v.outcome, expected, "round {round}");
            }
        }
    }
}

#[tokio::test]
async fn a_dropped_session_ends_and_closes_once() {
    let deployment = Deployment::start();
    let gateway = deployment.gateway().await;
    let mut ann = gateway.join(joining("claim-1", "ann")).expect("join");
    let bob = gateway.join(joining("claim-1", "bob")).expect("join");
    let mut seq = welcome(&mut ann).await.seq;
    drop(bob);
    let mut kinds = Vec::new();
    for _ in 0..3 {
        kinds.push(verdict(&mut ann, &mut seq).await.kind.as_str());
    }
    assert_eq!(kinds, ["open", "end", "close"]);
    let leave = async {
        assert!(matches!(next(&mut ann).await, Delivery::Close { code: 1001, .. }));
        drop(ann);
    };
    tokio::join!(gateway.drain(), leave);
    let refused = gateway.join(joining("claim-1", "eve")).expect_err("a drained gateway takes nobody in");
    assert_eq!(refused.code.as_str(), "shutting_down");
}

//! A gateway with one seat and a worker, on a journal.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use lasthit::embed::{Delivery, Gateway, Joining, Seat, act};
use lasthit::internals::runtime;
use lasthit::journal::Journal;
use lasthit::rules::{LastHit, RulesBook};
use lasthit::types::{Outcome, Role};
use lasthit::worker::{self, WorkerOptions};
use tokio_util::sync::CancellationToken;

/// A worker on a thread of its own.
pub(crate) struct Worker {
    stop: CancellationToken,
    thread: JoinHandle<()>,
}

impl Worker {
    pub(crate) fn start(journal: &Arc<dyn Journal>) -> Self {
        let stop = CancellationToken::new();
        let rules = RulesBook::new().room("*", LastHit::new);
        // Who is silent is waited for until the end.
        let options = WorkerOptions { gateway_timeout: Duration::from_secs(3600), ..WorkerOptions::default() };
        let run = worker::run(journal.clone(), rules, options, stop.clone(), Default::default());
        Self {
            stop,
            thread: std::thread::spawn(move || {
                runtime::worker(runtime::Priority::Normal).expect("runtime").block_on(run).expect("worker")
            }),
        }
    }

    pub(crate) fn end(self) {
        self.stop.cancel();
        self.thread.join().expect("worker");
    }
}

/// A seat in a room with a monster that nobody can kill.
pub(crate) struct Scene {
    seat: Seat,
    next: u64,
}

impl Scene {
    pub(crate) async fn new(journal: Arc<dyn Journal>) -> Self {
        let gateway = Gateway::start(journal).await.expect("gateway");
        let name = |text: &str| text.parse().expect("name");
        let joining = Joining { room: name("pit"), player: "game".parse().expect("name"), role: Role::Server, since: None };
        let mut seat = gateway.join(joining).expect("joined");
        let spawn = act("spawn", "s").contest("baron").args(&serde_json::json!({ "hp": 1_000_000_000_000_u64 }));
        seat.arrive(&spawn).expect("accepted");
        loop {
            match seat.recv().await.expect("open") {
                Delivery::Verdict { frames, .. } if frames.verdict().id.as_deref() == Some("s") => break,
                _ => {}
            }
        }
        let mut scene = Self { seat, next: 0 };
        scene.rounds(1, 100).await;
        scene
    }

    /// So many times: sends hits and waits for all their verdicts.
    pub(crate) async fn rounds(&mut self, rounds: u64, in_flight: u64) {
        for _ in 0..rounds {
            for _ in 0..in_flight {
                self.next += 1;
                let hit = act("hit", &format!("i{}", self.next)).contest("baron").args(&serde_json::json!({ "damage": 1 }));
                self.seat.arrive(&hit).expect("accepted");
            }
            let mut answered = 0;
            while answered < in_flight {
                if let Delivery::Verdict { frames, .. } = self.seat.recv().await.expect("open")
                    && frames.verdict().id.is_some()
                {
                    assert_eq!(frames.verdict().outcome, Outcome::Granted);
                    answered += 1;
                }
            }
        }
    }
}

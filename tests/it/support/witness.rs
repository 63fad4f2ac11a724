//! A worker inside the test, whose rules tell what reached them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use lasthit::journal::redis::{RedisJournal, RedisOptions};
use lasthit::rules::{Act, Decision, Happening, Rules, RulesBook, What};
use lasthit::worker::{self, WorkerOptions};
use serde_json::json;
use servers::RedisServer;
use tokio_util::sync::CancellationToken;

/// How many rooms are being resolved, and how many were at the most.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Crowd {
    pub(crate) fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

/// Grants everything, and says what it saw: `end 1000`, `error ...`. `nap` takes a while, `shout` has a large body,
/// `trip` panics.
#[derive(Debug, Clone, Default)]
pub(crate) struct Witness(pub(crate) Arc<Crowd>);

impl Witness {
    fn nap(&self, act: Act<'_>) {
        let ms = act.args::<std::collections::BTreeMap<String, u64>>().ok().and_then(|args| args.get("ms").copied());
        let now = self.0.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.most.fetch_max(now, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(ms.unwrap_or_default()));
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Rules for Witness {
    fn name(&self) -> &'static str {
        "witness"
    }

    fn version(&self) -> u32 {
        1
    }

    fn resolve(&mut self, event: &Happening<'_>) -> Decision {
        let saw = match event.what {
            What::Open => "open".to_owned(),
            What::Data(Act { op: "shout", .. }) => return Decision::granted().body(&"x".repeat(15_000)),
            What::Data(Act { op: "trip", .. }) => panic!("tripped"),
            What::Data(act) => {
                if act.op == "nap" {
                    self.nap(act);
                }
                format!("data {}", act.op)
            }
            What::End { code } => format!("end {code}"),
            What::Error { reason } => format!("error {reason}"),
            What::Close => "close".to_owned(),
        };
        Decision::granted().body(&json!({ "saw": saw }))
    }

    fn snapshot(&self) -> Vec<u8> {
        Vec::new()
    }

    fn restore(&mut self, _: u32, _: &[u8]) -> Result<(), String> {
        Ok(())
    }
}

/// A worker on a thread of its own, with [`Witness`] in every room.
pub(crate) struct WitnessWorker {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
    pub(crate) crowd: Arc<Crowd>,
}

impl WitnessWorker {
    pub(crate) fn on(redis: &RedisServer, options: WorkerOptions) -> Self {
        let (url, stop, crowd) = (redis.url(), CancellationToken::new(), Arc::new(Crowd::default()));
        let (stopped, witness) = (stop.clone(), Witness(Arc::clone(&crowd)));
        let thread = std::thread::spawn(move || {
            let runtime = lasthit::internals::runtime::worker(lasthit::internals::runtime::Priority::Normal).expect("a runtime");
            runtime.block_on(async {
                let options_of_redis = RedisOptions { prefix: "lasthit".to_owned(), ..RedisOptions::default() };
                let journal = RedisJournal::connect(&url, options_of_redis).await.expect("a journal");
                let rules = RulesBook::new().room("*", move || witness.clone());
                worker::run(Arc::new(journal), rules, options, stopped, Default::default()).await.expect("a worker");
            });
        });
        Self { stop, thread: Some(thread), crowd }
    }
}

impl Drop for WitnessWorker {
    fn drop(&mut self) {
        self.stop.cancel();
        let joined = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            joined.expect("a thread").expect("the worker ended well");
        }
    }
}

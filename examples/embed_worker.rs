//! A worker with rules of its own. Supervised, or by hand beside `lasthit gateway`:
//!     lasthit up --redis redis://127.0.0.1 --worker-command target/debug/examples/embed_worker
//!     cargo run --example embed_worker -- redis://127.0.0.1
use lasthit::journal::redis::{RedisJournal, RedisOptions};
use lasthit::rules::{Decision, Happening, Rules, RulesBook, What};
use lasthit::{child, shutdown::Shutdown, worker};

/// An auction: only what is above every earlier bid is granted. The action's arguments are the bid.
#[derive(Default)]
struct Auction(u64);

impl Rules for Auction {
    fn name(&self) -> &'static str {
        "auction"
    }
    fn version(&self) -> u32 {
        1
    }
    fn resolve(&mut self, event: &Happening<'_>) -> Decision {
        let What::Data(act) = event.what else { return Decision::granted().body(&self.0) };
        let bid = act.args().unwrap_or(0);
        let decision = if bid > self.0 { Decision::granted() } else { Decision::denied("too_low") };
        self.0 = self.0.max(bid);
        decision.body(&self.0)
    }
    fn snapshot(&self) -> Vec<u8> {
        self.0.to_be_bytes().to_vec()
    }
    fn restore(&mut self, _version: u32, bytes: &[u8]) -> Result<(), String> {
        self.0 = u64::from_be_bytes(bytes.try_into().map_err(|_| "the state is not 8 bytes long")?);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let rules = RulesBook::new().room("*", Auction::default);
    if let Some(child) = child::attach()? {
        let child::Worker { journal, options, stop, health, .. } = child.worker().await?;
        return Ok(worker::run(journal, rules, options, stop, health).await?);
    }
    let (url, shutdown) = (std::env::args().nth(1).unwrap_or("redis://127.0.0.1".to_owned()), Shutdown::new());
    shutdown.watch_signals()?;
    let journal = std::sync::Arc::new(RedisJournal::connect(&url, RedisOptions::default()).await?);
    Ok(worker::run(journal, rules, Default::default(), shutdown.token().clone(), Default::default()).await?)
}

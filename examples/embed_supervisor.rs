//! A game server that is its own supervisor: its gateways and workers are processes of this program.
//!
//!     cargo run --example embed_supervisor -- lasthit.toml
//!
//! Commands such as `lasthit ps` and `lasthit reload` are answered as by `lasthit up`.

use std::process::ExitCode;

use lasthit::child;
use lasthit::rules::{Decision, Happening, Rules, RulesBook, What};
use lasthit::supervisor::{Settings, Supervisor};

/// Counts what is done in a room.
#[derive(Default)]
struct Counter(u64);

impl Rules for Counter {
    fn name(&self) -> &'static str {
        "counter"
    }
    fn version(&self) -> u32 {
        1
    }
    fn resolve(&mut self, event: &Happening<'_>) -> Decision {
        self.0 += u64::from(matches!(event.what, What::Data(_)));
        Decision::granted().body(&self.0)
    }
    fn snapshot(&self) -> Vec<u8> {
        self.0.to_be_bytes().to_vec()
    }
    fn restore(&mut self, _version: u32, bytes: &[u8]) -> Result<(), String> {
        self.0 = u64::from_be_bytes(bytes.try_into().map_err(|_| "the state is not 8 bytes long")?);
        Ok(())
    }
}

fn main() -> ExitCode {
    let ended = match child::attach() {
        Ok(Some(child)) => return child.run(RulesBook::new().room("*", Counter::default)),
        Ok(None) => supervise(),
        Err(error) => return fails(&error, error.exit_code()),
    };
    ended.map_or_else(|error| fails(&error, ExitCode::FAILURE), |()| ExitCode::SUCCESS)
}

#[tokio::main(flavor = "current_thread")]
async fn supervise() -> Result<(), lasthit::supervisor::Error> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "lasthit.toml".to_owned());
    // Asked again at every reload.
    Supervisor::run(async || Settings::file(&path)).await
}

fn fails(error: &dyn std::error::Error, code: ExitCode) -> ExitCode {
    eprintln!("embed_supervisor: {error}");
    code
}

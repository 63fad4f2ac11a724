//! The rules of the simulated rooms: `hit` is a race for a contest, `next` starts its next round, `note` is for the sender.

use std::collections::BTreeSet;

use crate::rules::{Act, Decision, Happening, Rules, What};
use crate::types::Audience;

#[derive(Debug, Default)]
pub(super) struct Race {
    pub(super) won: BTreeSet<String>,
    pub(super) slow: bool,
}

impl Rules for Race {
    fn name(&self) -> &'static str {
        "race"
    }

    fn version(&self) -> u32 {
        1
    }

    fn is_quick(&self) -> bool {
        !self.slow
    }

    fn resolve(&mut self, event: &Happening<'_>) -> Decision {
        match event.what {
            What::Data(Act { op: "hit", contest: Some(contest), .. }) if self.won.contains(contest) => Decision::late(contest),
            What::Data(Act { op: "hit", contest: Some(contest), .. }) => {
                self.won.insert(contest.to_owned());
                Decision::won(contest)
            }
            What::Data(Act { op: "next", contest: Some(contest), .. }) if self.won.remove(contest) => {
                Decision::granted().about(contest).next_round()
            }
            What::Data(_) => Decision::denied("noted").to(Audience::Session),
            _ => Decision::granted(),
        }
    }

    fn snapshot(&self) -> Vec<u8> {
        self.won.iter().map(String::as_str).collect::<Vec<_>>().join(" ").into_bytes()
    }

    fn restore(&mut self, _version: u32, bytes: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
        self.won = text.split_whitespace().map(str::to_owned).collect();
        Ok(())
    }
}

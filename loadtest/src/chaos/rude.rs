//! A hostile session: it joins, floods, repeats itself, does not read, leaves without a goodbye, and asks for everything from the
//! beginning. Its own verdicts are not checked; its effect on the others is measured.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use futures_util::{SinkExt, StreamExt};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::player::{Phase, World};
use super::record::Record;
use super::wire::{Action, Socket, connect};
use crate::speak::frame::{Encoding, Text};

/// Its name.
const NAME: &str = "rude";
/// Actions that it sends in one go, at most.
const BURST_MAX: usize = 200;
/// Of those that it sent lately it repeats any. A room remembers more of a player.
const REPEATED: usize = 100;
/// How long joining, and writing without being read, may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long it listens, when it does.
const LISTEN: Duration = Duration::from_millis(50);
/// From one join to the next, at least.
const REST: Duration = Duration::from_millis(100);

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Frame<'a> {
    #[serde(borrow)]
    t: Text<'a>,
    era: u64,
}

/// Until the phase is another than [`Phase::Play`].
pub(super) async fn be_rude(room: String, seed: u64, world: Arc<World>, phase: watch::Receiver<Phase>) {
    let random = StdRng::seed_from_u64(seed ^ 0x7275_6465);
    let mut rude = Rude { room, world, random, era: None, sent: 0, lately: VecDeque::new() };
    while *phase.borrow() == Phase::Play {
        // Whatever comes of it.
        let _ = rude.live().await;
        sleep(REST).await;
    }
}

struct Rude {
    room: String,
    world: Arc<World>,
    random: StdRng,
    era: Option<u64>,
    sent: u64,
    lately: VecDeque<u64>,
}

impl Rude {
    /// One connection.
    async fn live(&mut self) -> Result<()> {
        let encoding = if self.random.random_bool(0.5) { Encoding::Json } else { Encoding::Msgpack };
        let gateway = self.random.random_range(0..self.world.urls.len());
        let since = self.era.map(|era| format!("&since={era}.0")).unwrap_or_default();
        let address = format!("{}/v1/room/{}?player={NAME}{since}", self.world.urls[gateway], self.room);
        let mut socket = timeout(PATIENCE, connect(&address, encoding)).await??;
        self.world.rude_joins.fetch_add(1, Ordering::Relaxed);
        if self.random.random_bool(0.7) {
            self.listen(&mut socket, encoding).await?;
        }
        for _ in 0..self.random.random_range(0..BURST_MAX) {
            timeout(PATIENCE, self.say(&mut socket, encoding)).await??;
        }
        timeout(PATIENCE, socket.flush()).await??;
        if self.random.random_bool(0.5) {
            self.listen(&mut socket, encoding).await?;
        }
        if self.random.random_bool(0.5) {
            timeout(PATIENCE, socket.close(None)).await??;
        }
        Ok(())
    }

    /// Something new, or something old.
    async fn say(&mut self, socket: &mut Socket, encoding: Encoding) -> Result<()> {
        let old = (!self.lately.is_empty() && self.random.random_bool(0.5))
            .then(|| self.lately[self.random.random_range(0..self.lately.len())]);
        let number = old.unwrap_or(self.sent);
        if old.is_none() {
            self.sent += 1;
            self.lately.push_back(number);
            if self.lately.len() > REPEATED {
                self.lately.pop_front();
            }
        }
        // Never a key that the others contend for: who holds it for ever takes the game from them.
        let (id, key) = (format!("r{number}"), format!("rude{}", number % 8));
        let op = if number.is_multiple_of(2) { "claim" } else { "release" };
        socket.feed(encoding.message(&Action { op, id: &id, contest: &key, args: None })?).await?;
        self.world.rude_actions.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn listen(&mut self, socket: &mut Socket, encoding: Encoding) -> Result<()> {
        let heard = async {
            while let Some(message) = socket.next().await {
                let message = message?;
                if let Ok(frame) = encoding.read::<Frame<'_>>(&message)
                    && &*frame.t == "welcome"
                {
                    self.era = Some(frame.era);
                }
            }
            anyhow::Ok(())
        };
        timeout(LISTEN, heard).await.unwrap_or(Ok(()))
    }
}

/// The 99th percentile of the time from sending until the answer, of what was first sent in a stretch of the run; None when that
/// is too little to tell.
pub(super) fn p99(records: &[Record], stretch: std::ops::Range<Duration>) -> Option<Duration> {
    let within = records.iter().flat_map(|record| &record.acted).filter(|acted| stretch.contains(&acted.sent));
    of_100(within.filter_map(|acted| Some(acted.answer.as_ref()?.at.saturating_sub(acted.sent))).collect(), 99)
}

/// A percentile; None of too few.
pub(super) fn of_100(mut took: Vec<Duration>, percent: usize) -> Option<Duration> {
    took.sort_unstable();
    (took.len() >= 100).then(|| took[took.len() * percent / 100])
}

#[cfg(test)]
mod tests {
    use super::super::record::{Acted, Answer};
    use super::*;

    #[test]
    fn the_99th_percentile_is_of_what_was_sent_in_the_stretch() {
        let ms = Duration::from_millis;
        let acted = (0..400).map(|n| Acted {
            id: String::new(),
            sent: ms(n),
            sends: 1,
            // Those of the second half take 10 ms more.
            answer: Some(Answer { at: ms(n + 1 + n % 100 / 99 * 5 + n / 200 * 10), seq: 1 }),
        });
        let records = [Record { acted: acted.collect(), ..Record::default() }];
        assert_eq!(p99(&records, ms(0)..ms(200)), Some(ms(6)));
        assert_eq!(p99(&records, ms(200)..ms(400)), Some(ms(16)));
        assert_eq!(p99(&records, ms(200)..ms(299)), None, "too few");
    }
}

//! Two rivals of one room who claim the same key a known time apart, wherever the room is at home. Who sent first is known, so that
//! the verdicts can be judged; where a connection breaks in between, the arrival is another, and only that one of them wins is.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use futures_util::{SinkExt, StreamExt};
use lasthit::internals::clock::monotonic_ns;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use crate::chaos::player::{Homes, Phase, World};
use crate::chaos::wire::{Action, Socket, connect};
use crate::speak::frame::{Encoding, Text};

/// Between the end of the first send and the beginning of the second.
const GAPS_US: std::ops::Range<u64> = 30..300;
/// How long both verdicts may take before the connections are given up.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two tries to get an answer.
const PAUSE: Duration = Duration::from_millis(50);
/// Between two races of a room.
const REST_MS: std::ops::Range<u64> = 40..120;

/// What came of a room's races.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Races {
    /// Those in which both rivals kept their connections.
    pub(super) close: u64,
    /// Of them, those that the first sender did not win.
    pub(super) wrong: u64,
    /// Of them, those without a flag.
    pub(super) wrong_unflagged: u64,
    /// Of the close ones, those in which a verdict was flagged.
    pub(super) flagged: u64,
    /// Those in which a connection broke, and an action was sent again.
    pub(super) broken: u64,
    /// Races that nobody won, or two.
    pub(super) not_one_winner: u64,
    /// Actions that were never answered.
    pub(super) lost: u64,
}

impl Races {
    pub(super) fn add(&mut self, other: Self) {
        for (mine, theirs) in [
            (&mut self.close, other.close),
            (&mut self.wrong, other.wrong),
            (&mut self.wrong_unflagged, other.wrong_unflagged),
            (&mut self.flagged, other.flagged),
            (&mut self.broken, other.broken),
            (&mut self.not_one_winner, other.not_one_winner),
            (&mut self.lost, other.lost),
        ] {
            *mine += theirs;
        }
    }
}

/// One of the two.
struct Rival {
    player: &'static str,
    homes: Homes,
    since: Option<(u64, u64)>,
    socket: Option<Socket>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Frame<'a> {
    #[serde(borrow)]
    t: Text<'a>,
    era: u64,
    seq: u64,
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    player: Text<'a>,
    #[serde(borrow)]
    outcome: Text<'a>,
    #[serde(borrow)]
    url: Text<'a>,
    clamped: bool,
    unproven: bool,
    photo_finish: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Answer {
    won: bool,
    flagged: bool,
}

const ENCODING: Encoding = Encoding::Json;

impl Rival {
    async fn join(&mut self, room: &str, world: &World, random: &mut StdRng) -> Result<()> {
        let (at, within) = self.homes.pick(world.urls.len(), random);
        timeout(within, self.join_at(&world.urls[at], room, world)).await?
    }

    async fn join_at(&mut self, url: &str, room: &str, world: &World) -> Result<()> {
        let since = self.since.map(|(era, seq)| format!("&since={era}.{seq}")).unwrap_or_default();
        let mut socket = connect(&format!("{url}/v1/room/{room}?player={}{since}", self.player), ENCODING).await?;
        while let Some(message) = socket.next().await {
            match message? {
                Message::Close(close) => {
                    if let Some(close) = close {
                        self.homes.closed(u16::from(close.code), close.reason.as_str(), &world.urls);
                        if u16::from(close.code) == crate::chaos::player::AHEAD {
                            self.since = None;
                        }
                    }
                    break;
                }
                message @ (Message::Text(_) | Message::Binary(_)) => {
                    let frame: Frame<'_> = ENCODING.read(&message)?;
                    if &*frame.t == "welcome" {
                        self.since = Some((frame.era, frame.seq));
                        self.homes.stay();
                        self.socket = Some(socket);
                        return Ok(());
                    }
                }
                _ => {}
            }
        }
        bail!("no welcome")
    }

    async fn send(&mut self, message: &Message) -> Result<()> {
        let Some(socket) = &mut self.socket else { bail!("not connected") };
        timeout(PATIENCE, socket.send(message.clone())).await??;
        Ok(())
    }

    /// Reads until this action is answered. A refusal is an answer to nothing: it is sent again.
    async fn answer(&mut self, id: &str, message: &Message, world: &World) -> Result<Answer> {
        loop {
            let Some(socket) = &mut self.socket else { bail!("not connected") };
            let Some(next) = socket.next().await else { bail!("the connection ended") };
            let next = next?;
            match &next {
                Message::Text(_) | Message::Binary(_) => {}
                Message::Close(close) => {
                    if let Some(close) = close {
                        self.homes.closed(u16::from(close.code), close.reason.as_str(), &world.urls);
                    }
                    bail!("closed by the gateway")
                }
                _ => continue,
            }
            let frame: Frame<'_> = ENCODING.read(&next)?;
            match &*frame.t {
                "verdict" => {
                    self.since = self.since.map(|(era, seen)| (era, seen.max(frame.seq)));
                    if &*frame.id == id && &*frame.player == self.player {
                        let flagged = frame.clamped || frame.unproven || frame.photo_finish;
                        return Ok(Answer { won: &*frame.outcome == "granted", flagged });
                    }
                }
                "move" => self.homes.asked(&frame.url, &world.urls),
                "error" if &*frame.id == id => {
                    sleep(PAUSE).await;
                    self.send(message).await?;
                }
                _ => {}
            }
        }
    }
}

/// Races in one room until the run is over.
pub(super) async fn race(room: String, seed: u64, world: Arc<World>, phase: watch::Receiver<Phase>) -> Races {
    let mut random = StdRng::seed_from_u64(seed);
    let mut rivals = ["ann", "bob"].map(|player| Rival { player, homes: Homes::default(), since: None, socket: None });
    let mut races = Races::default();
    for number in 0u64.. {
        if *phase.borrow() != Phase::Play {
            break;
        }
        sleep(Duration::from_millis(random.random_range(REST_MS))).await;
        for rival in &mut rivals {
            while rival.socket.is_none() && *phase.borrow() == Phase::Play {
                if rival.join(&room, &world, &mut random).await.is_err() {
                    sleep(PAUSE).await;
                }
            }
        }
        if rivals.iter().any(|rival| rival.socket.is_none()) {
            break;
        }
        if random.random() {
            rivals.swap(0, 1);
        }
        races.add(one(&room, number, &mut rivals, &world, &mut random, &phase).await);
    }
    races
}

async fn one(
    room: &str,
    number: u64,
    rivals: &mut [Rival; 2],
    world: &World,
    random: &mut StdRng,
    phase: &watch::Receiver<Phase>,
) -> Races {
    let (contest, ids) = (format!("c{number}"), [format!("f{number}"), format!("s{number}")]);
    let message = |id: &str| ENCODING.message(&Action { op: "claim", id, contest: &contest, args: None });
    let (Ok(first), Ok(second)) = (message(&ids[0]), message(&ids[1])) else { return Races::default() };
    let messages = [first, second];
    let gap_ns = random.random_range(GAPS_US) * 1_000;
    let mut broken = rivals[0].send(&messages[0]).await.is_err();
    let due = monotonic_ns() + gap_ns;
    while monotonic_ns() < due {
        std::hint::spin_loop();
    }
    broken |= rivals[1].send(&messages[1]).await.is_err();

    let mut answers = [None, None];
    let mut until = None;
    while answers.iter().any(Option::is_none) {
        // What is not answered when nothing is broken any more is lost.
        if *phase.borrow() >= Phase::Drain && *until.get_or_insert(Instant::now() + super::DRAIN) < Instant::now() {
            break;
        }
        for ((rival, id), (message, answer)) in rivals.iter_mut().zip(&ids).zip(messages.iter().zip(&mut answers)) {
            if answer.is_some() {
                continue;
            }
            if rival.socket.is_some() {
                *answer = timeout(PATIENCE, rival.answer(id, message, world)).await.ok().and_then(Result::ok);
            }
            if answer.is_none() {
                (broken, rival.socket) = (true, None);
                if rival.join(room, world, random).await.is_err() || rival.send(message).await.is_err() {
                    sleep(PAUSE).await;
                }
            }
        }
    }
    let mut races = Races { lost: answers.iter().filter(|answer| answer.is_none()).count() as u64, ..Races::default() };
    let [Some(first), Some(second)] = answers else { return races };
    races.not_one_winner = u64::from(first.won == second.won);
    if broken {
        races.broken = 1;
        return races;
    }
    let (wrong, flagged) = (!first.won, first.flagged || second.flagged);
    races.close = 1;
    races.flagged = u64::from(flagged);
    races.wrong = u64::from(wrong);
    races.wrong_unflagged = u64::from(wrong && !flagged);
    races
}

//! A player that never gives up: it joins through any living gateway, resumes, and sends again what was not answered, under the
//! same id. It records everything that it receives.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use futures_util::{SinkExt, StreamExt};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::game::{Game, Move};
use super::record::{Acted, Answer, Record, Says, Seen, Told, digest};
use super::wire::{Action, Socket, connect};
use crate::speak::frame::{Encoding, Nanos, Text};

/// Actions of one player that may be unanswered; past it no new one is begun.
const UNANSWERED_MAX: usize = 32;
/// How long joining may take before another gateway is tried.
const JOIN_TIMEOUT: Duration = Duration::from_secs(4);
/// The same where it was sent, or was welcomed before: it may have been sent to a host that is gone, and the client goes on after this time.
const HOME_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an action may be unanswered before its connection is given up.
const ANSWER_PATIENCE: Duration = Duration::from_secs(3);
/// Pause before a refused action is sent again.
const RESEND_DELAY: Duration = Duration::from_millis(200);
/// The pause between two tries to join; doubles up to the longest.
const RECONNECT_MIN: Duration = Duration::from_millis(20);
/// See [`RECONNECT_MIN`].
const RECONNECT_MAX: Duration = Duration::from_millis(500);
/// How often in a row a player goes where a gateway sends it, without a pause.
const FOLLOW_MAX: u32 = 4;
/// The gateway's close code for a `since` that the room has not come to.
pub(crate) const AHEAD: u16 = 4400;
/// The gateway's close code for a room that is at home on another host.
const ELSEWHERE: u16 = 4421;
/// No gateway.
const NOWHERE: usize = usize::MAX;

/// What the players are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Act.
    Play,
    /// Begin nothing new; leave when everything is answered.
    Drain,
    /// Leave.
    Over,
}

/// What all players of a run share.
#[derive(Debug)]
pub(crate) struct World {
    /// The gateways.
    pub(crate) urls: Vec<String>,
    /// The start of the run.
    pub(crate) start: Instant,
    /// The mean time between two actions of one player.
    pub(crate) pace: Duration,
    /// Each of the gateways is another host's: whoever was welcomed comes back there.
    pub(crate) are_hosts: bool,
    /// What they play.
    pub(super) game: Game,
    /// Which gateway each player is connected to.
    seats: Vec<AtomicUsize>,
    /// Answers so far.
    pub(crate) answered: AtomicU64,
    /// Of each room, when the latest action that was answered had been sent, in ms of the run.
    latest_ms: Vec<AtomicU64>,
    /// Connections that were made again.
    pub(crate) reconnects: AtomicU64,
    /// Times that the rude session joined.
    pub(crate) rude_joins: AtomicU64,
    /// The actions that it sent.
    pub(crate) rude_actions: AtomicU64,
}

impl World {
    /// A world without players, at time 0.
    pub(crate) fn new(urls: Vec<String>, (players, rooms): (usize, usize), pace: Duration, game: Game) -> Self {
        Self {
            urls,
            start: Instant::now(),
            pace,
            are_hosts: false,
            game,
            seats: (0..players).map(|_| AtomicUsize::new(NOWHERE)).collect(),
            answered: AtomicU64::new(0),
            latest_ms: (0..rooms).map(|_| AtomicU64::new(0)).collect(),
            reconnects: AtomicU64::new(0),
            rude_joins: AtomicU64::new(0),
            rude_actions: AtomicU64::new(0),
        }
    }

    /// Time of the run.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Whether something that was sent to the room after this moment of the run has been answered.
    pub(crate) fn plays_since(&self, room: usize, since: Duration) -> bool {
        u128::from(self.latest_ms[room].load(Ordering::Relaxed)) > since.as_millis()
    }

    /// The players on a gateway.
    pub(crate) fn seated(&self, gateway: usize) -> Vec<usize> {
        (0..self.seats.len()).filter(|n| self.seats[*n].load(Ordering::Relaxed) == gateway).collect()
    }
}

/// At which gateway a session tries next.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Homes {
    next: Option<usize>,
    last: usize,
}

impl Default for Homes {
    fn default() -> Self {
        Self { next: None, last: NOWHERE }
    }
}

impl Homes {
    /// Where it is to go; without that, any gateway but the one that was tried last, when there are others. And how long joining there
    /// may take.
    pub(crate) fn pick(&mut self, count: usize, random: &mut StdRng) -> (usize, Duration) {
        let other = |random: &mut StdRng| {
            let at = random.random_range(0..count);
            if at == self.last { (at + 1) % count } else { at }
        };
        let (at, within) = match self.next.take() {
            Some(at) => (at, HOME_TIMEOUT),
            None => (other(random), JOIN_TIMEOUT),
        };
        self.last = at;
        (at, within)
    }

    /// A gateway has closed the session, and may have said where the room is at home.
    pub(crate) fn closed(&mut self, code: u16, reason: &str, urls: &[String]) {
        if code == ELSEWHERE {
            self.asked(reason.split_once('#').map_or(reason, |(url, _)| url), urls);
        }
    }

    /// It is to go there.
    pub(crate) fn asked(&mut self, url: &str, urls: &[String]) {
        self.next = urls.iter().position(|known| known.trim_end_matches('/') == url.trim_end_matches('/')).or(self.next);
    }

    /// Whether it has been told where to go.
    fn is_sent(&self) -> bool {
        self.next.is_some()
    }

    /// It comes back to where it was welcomed.
    pub(crate) fn stay(&mut self) {
        self.next = Some(self.last);
    }
}

/// One player.
pub(crate) struct Player {
    number: usize,
    room: String,
    /// It is its room's session of a server.
    keeper: bool,
    world: Arc<World>,
    phase: watch::Receiver<Phase>,
    encoding: Encoding,
    random: StdRng,
    record: Record,
    /// Unanswered actions: what to send, and when to send it again.
    open: BTreeMap<usize, Open>,
    /// Keys that it holds, as far as it knows.
    held: Vec<String>,
    /// The `since` to resume with.
    since: Option<(u64, u64)>,
    homes: Homes,
}

#[derive(Debug)]
struct Open {
    does: Move,
    /// When it was last sent on this connection.
    sent: Instant,
    /// It was refused, and is due again then.
    again: Option<Instant>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Frame<'a> {
    #[serde(borrow)]
    t: Text<'a>,
    era: u64,
    seq: u64,
    from: Option<u64>,
    resumed: bool,
    #[serde(borrow)]
    event: Text<'a>,
    #[serde(borrow)]
    timer: Text<'a>,
    #[serde(borrow)]
    session: Text<'a>,
    #[serde(borrow)]
    player: Text<'a>,
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    contest: Text<'a>,
    round: u64,
    #[serde(borrow)]
    outcome: Text<'a>,
    #[serde(borrow)]
    reason: Text<'a>,
    arrival_ns: Nanos,
    repeat_of: Option<u64>,
    #[serde(borrow)]
    url: Text<'a>,
}

impl Player {
    /// A player of a room, by its index and name.
    pub(crate) fn new(
        number: usize,
        (room, name): (usize, String),
        keeper: bool,
        seed: u64,
        world: Arc<World>,
        phase: watch::Receiver<Phase>,
    ) -> Self {
        let encoding = if number.is_multiple_of(2) { Encoding::Msgpack } else { Encoding::Json };
        let record = Record { player: format!("p{number}"), room, ..Record::default() };
        let random = StdRng::seed_from_u64(seed ^ (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (open, held) = (BTreeMap::new(), Vec::new());
        Self {
            number,
            room: name,
            keeper,
            world,
            phase,
            encoding,
            random,
            record,
            open,
            held,
            since: None,
            homes: Homes::default(),
        }
    }

    /// Plays until the phase says that it is over, or until everything is answered while draining.
    pub(crate) async fn play(mut self) -> Record {
        let (mut pause, mut follows) = (RECONNECT_MIN, 0);
        while !self.is_done() {
            let (at, within) = self.homes.pick(self.world.urls.len(), &mut self.random);
            match timeout(within, self.join(at)).await {
                Ok(Ok(socket)) => {
                    (pause, follows) = (RECONNECT_MIN, 0);
                    self.world.seats[self.number].store(at, Ordering::Relaxed);
                    self.session(socket).await;
                    self.world.seats[self.number].store(NOWHERE, Ordering::Relaxed);
                    self.world.reconnects.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Err(_)) if self.homes.is_sent() && follows < FOLLOW_MAX => follows += 1,
                Ok(Err(_)) | Err(_) => {
                    follows = 0;
                    sleep(pause.mul_f64(self.random.random_range(0.5..1.5))).await;
                    pause = (pause * 2).min(RECONNECT_MAX);
                }
            }
        }
        self.record
    }

    fn is_done(&self) -> bool {
        match *self.phase.borrow() {
            Phase::Play => false,
            Phase::Drain => self.open.is_empty(),
            Phase::Over => true,
        }
    }

    async fn join(&mut self, at: usize) -> Result<Socket> {
        let since = self.since.map(|(era, seq)| format!("&since={era}.{seq}")).unwrap_or_default();
        let role = if self.keeper { "&role=server" } else { "" };
        let address = format!("{}/v1/room/{}?player={}{role}{since}", self.world.urls[at], self.room, self.record.player);
        let mut socket = connect(&address, self.encoding).await?;
        while let Some(message) = socket.next().await {
            match message? {
                Message::Ping(_) | Message::Pong(_) => {}
                Message::Close(frame) => {
                    let Some(frame) = frame else { break };
                    self.homes.closed(u16::from(frame.code), frame.reason.as_str(), &self.world.urls);
                    if u16::from(frame.code) == AHEAD {
                        self.record.told.push(Told::Ahead);
                        self.since = None;
                    }
                    break;
                }
                message => {
                    let frame: Frame<'_> = self.encoding.read(&message)?;
                    // A session that is refused is told why, and closed.
                    ensure!(&*frame.t == "welcome", "no welcome");
                    let session = frame.session.to_string();
                    let (era, seq, resumed) = (frame.era, frame.seq, frame.resumed);
                    self.record.told.push(Told::Welcome { at: self.world.now(), era, seq, resumed, session });
                    self.since = Some((era, seq));
                    if self.world.are_hosts {
                        self.homes.stay();
                    }
                    return Ok(socket);
                }
            }
        }
        bail!("closed before the welcome")
    }

    /// One connection, from its welcome on, until it breaks or is given up or everything is over.
    async fn session(&mut self, mut socket: Socket) {
        if self.resend_all(&mut socket).await.is_err() {
            return;
        }
        let mut next = Instant::now() + self.think();
        loop {
            if self.is_done() {
                // A goodbye that fails costs nobody anything.
                let _ = timeout(ANSWER_PATIENCE, socket.close(None)).await;
                return;
            }
            let playing = *self.phase.borrow() == Phase::Play;
            let again = self.open.values().filter_map(|open| open.again).min();
            let patience = self.open.values().filter(|open| open.again.is_none()).map(|open| open.sent + ANSWER_PATIENCE).min();
            let far = next + ANSWER_PATIENCE;
            let went_well = tokio::select! {
                message = socket.next() => match message {
                    Some(Ok(message)) => self.receive(&message).is_ok(),
                    Some(Err(_)) | None => false,
                },
                () = sleep_until(next), if playing => {
                    next = Instant::now() + self.think();
                    self.act(&mut socket).await.is_ok()
                }
                () = sleep_until(again.unwrap_or(far)), if again.is_some() => self.resend_due(&mut socket).await.is_ok(),
                () = sleep_until(patience.unwrap_or(far)), if patience.is_some() => false,
                changed = self.phase.changed() => changed.is_ok(),
            };
            if !went_well {
                return;
            }
        }
    }

    fn think(&mut self) -> Duration {
        self.world.pace.mul_f64(self.random.random_range(0.2..1.8))
    }

    /// Begins something new.
    async fn act(&mut self, socket: &mut Socket) -> Result<()> {
        if self.open.len() >= UNANSWERED_MAX {
            return Ok(());
        }
        let number = self.record.acted.len();
        let does = self.world.game.next(&mut self.random, &mut self.held, self.keeper);
        // Its first letter says what it is.
        let id = format!("{}{number}", &does.op[..1]);
        self.record.acted.push(Acted { id, sent: self.world.now(), sends: 0, answer: None });
        self.open.insert(number, Open { does, sent: Instant::now(), again: None });
        self.send(socket, number).await
    }

    async fn send(&mut self, socket: &mut Socket, number: usize) -> Result<()> {
        let Some(open) = self.open.get_mut(&number) else { return Ok(()) };
        (open.sent, open.again) = (Instant::now(), None);
        let acted = &mut self.record.acted[number];
        acted.sends += 1;
        let Move { op, key, args } = &open.does;
        let action = Action { op, id: &acted.id, contest: key, args: *args };
        let message = self.encoding.message(&action)?;
        timeout(ANSWER_PATIENCE, socket.send(message)).await??;
        Ok(())
    }

    async fn resend_all(&mut self, socket: &mut Socket) -> Result<()> {
        let open: Vec<usize> = self.open.keys().copied().collect();
        for number in open {
            self.send(socket, number).await?;
        }
        Ok(())
    }

    async fn resend_due(&mut self, socket: &mut Socket) -> Result<()> {
        let now = Instant::now();
        let due: Vec<usize> =
            self.open.iter().filter(|(_, open)| open.again.is_some_and(|at| at <= now)).map(|(n, _)| *n).collect();
        for number in due {
            self.send(socket, number).await?;
        }
        Ok(())
    }

    fn receive(&mut self, message: &Message) -> Result<()> {
        match message {
            Message::Text(_) | Message::Binary(_) => {}
            Message::Close(frame) => {
                if let Some(frame) = frame {
                    self.homes.closed(u16::from(frame.code), frame.reason.as_str(), &self.world.urls);
                }
                bail!("closed by the gateway")
            }
            _ => return Ok(()),
        }
        let frame: Frame<'_> = self.encoding.read(message)?;
        match &*frame.t {
            "verdict" => self.verdict(&frame),
            // It stays until it is closed: to be welcomed at the next home it would have to wait for the others to leave.
            "move" if self.world.are_hosts => self.homes.asked(&frame.url, &self.world.urls),
            "error" => {
                let again = Instant::now() + RESEND_DELAY;
                if let Some(open) = number(&frame.id).and_then(|number| self.open.get_mut(&number)) {
                    open.again = Some(again);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn verdict(&mut self, frame: &Frame<'_>) {
        let digest = digest(&Says {
            event: &frame.event,
            timer: &frame.timer,
            player: &frame.player,
            id: &frame.id,
            contest: &frame.contest,
            round: frame.round,
            outcome: &frame.outcome,
            reason: &frame.reason,
            arrival_ns: frame.arrival_ns.0,
        });
        let (seq, from) = (frame.seq, frame.from.unwrap_or(frame.seq));
        self.record.told.push(Told::Verdict(Seen { from, seq, repeat_of: frame.repeat_of.unwrap_or(0), digest }));
        self.since = self.since.map(|(era, seen)| (era, seen.max(seq)));
        if *frame.player != *self.record.player {
            return;
        }
        let Some((number, open)) = number(&frame.id).and_then(|n| self.open.remove_entry(&n)) else { return };
        let acted = &mut self.record.acted[number];
        acted.answer = Some(Answer { at: self.world.now(), seq });
        let sent_ms = u64::try_from(acted.sent.as_millis()).unwrap_or(u64::MAX);
        self.world.latest_ms[self.record.room].fetch_max(sent_ms, Ordering::Relaxed);
        self.world.answered.fetch_add(1, Ordering::Relaxed);
        if open.does.op == "claim" && &*frame.outcome == "granted" {
            self.held.push(open.does.key);
        }
    }
}

/// The number in an action's id.
fn number(id: &str) -> Option<usize> {
    id.get(1..)?.parse().ok()
}

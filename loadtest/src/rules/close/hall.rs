//! The sessions of an auction: the house, and for each lot two bidders on two gateways, written and read by the calling thread itself. A
//! bidder is answered before it bids again: what a gateway reads together with a later message has that one's stamp.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lasthit::internals::clock::monotonic_ns;
use serde::{Deserialize, Serialize};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::fair::priority;
use crate::fair::rival::{Gap, Rival};
use crate::load::record::nanos;
use crate::speak::dialect::Dialect;
use crate::speak::frame::{Encoding, Nanos, Text};
use crate::speak::socket::frame;

/// From its opening to the first lot's close, and from that to the next one's.
const FIRST_MS: u64 = 300;
const NEXT_MS: u64 = 10;
/// How long a send is expected to take before one was seen.
const SEND_NS: u64 = 10_000;
/// How long answers may take, with a takeover in between.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// What is bid: the second one is the higher, so that it would win if it were in time.
const AMOUNTS: [u64; 2] = [10, 20];
/// The bidders.
const BIDDERS: [&str; 2] = ["ann", "bob"];

/// A bid, as its sender knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bid {
    /// Its sender, as an index.
    pub(super) bidder: usize,
    /// The monotonic clock before and after its send: the kernel stamps it in between.
    pub(super) sent_ns: (u64, u64),
    /// What came back.
    pub(super) answer: Option<Answer>,
}

/// The verdict on a bid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) granted: bool,
    pub(super) late: bool,
    pub(super) arrival_ns: u64,
    /// It reached the host at most so long before.
    pub(super) uncertainty_ns: u64,
    /// It says that its place is not sure.
    pub(super) flagged: bool,
}

/// One lot: the bid before its close, and the one after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lot {
    /// When it is to close, on the monotonic clock, by the arrival of its opening.
    pub(super) closes_ns: u64,
    pub(super) bids: [Option<Bid>; 2],
    /// All closes that the house saw, and the first one that each bidder saw.
    pub(super) closed: [Vec<Closing>; 3],
}

/// A close, as a session saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Closing {
    pub(super) arrival_ns: u64,
    /// Who has the lot.
    pub(super) by: Option<usize>,
}

/// The house and the bidders in one room.
pub(super) struct Hall {
    pub(super) room: u32,
    house: Rival,
    /// Those of each lot.
    bidders: Vec<[Rival; 2]>,
    /// The number of its first lot that is not closed.
    first: u32,
    /// How long a send takes, on the whole.
    send_ns: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Told<'a> {
    #[serde(borrow)]
    t: Text<'a>,
    #[serde(borrow)]
    event: Text<'a>,
    #[serde(borrow)]
    timer: Text<'a>,
    #[serde(borrow)]
    player: Text<'a>,
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    outcome: Text<'a>,
    #[serde(borrow)]
    reason: Text<'a>,
    #[serde(borrow)]
    message: Text<'a>,
    arrival_ns: Nanos,
    uncertainty_ns: Nanos,
    photo_finish: bool,
    clamped: bool,
    unproven: bool,
    read_time: bool,
    body: Option<Body>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Body {
    by: Option<String>,
}

#[derive(Serialize)]
struct Action<'a> {
    op: &'a str,
    id: &'a str,
    contest: &'a str,
    args: Args,
}

#[derive(Serialize)]
struct Args {
    #[serde(skip_serializing_if = "Option::is_none")]
    ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<u64>,
}

/// An action as the bytes of one WebSocket frame.
fn action(op: &str, id: &str, lot: u32, args: Args) -> Result<Vec<u8>> {
    let (mut payload, mut out) = (Vec::new(), Vec::new());
    Encoding::Msgpack.write(&mut payload, &Action { op, id, contest: &format!("lot-{lot}"), args })?;
    frame(&mut out, OpCode::Data(Data::Binary), &payload);
    Ok(out)
}

impl Hall {
    /// A new room with bidders for so many lots at a time. Ann bids through the first gateway, Bob through the second one.
    pub(super) fn enter(urls: &[String], room: u32, lots: u32) -> Result<Self> {
        let [one, two] = urls else { bail!("an auction needs two gateways") };
        let name = format!("hall-{room}");
        let join = |url, player: &str| Rival::join(Dialect::Lasthit, url, &name, player);
        // The player's name goes into the URL as it is.
        let house = join(one, "house&role=server")?;
        let pair = |n| {
            let [ann, bob] = BIDDERS.map(|bidder| format!("{bidder}-{n}"));
            Ok([join(one, &ann)?, join(two, &bob)?])
        };
        let bidders = (0..lots).map(pair).collect::<Result<_>>()?;
        Ok(Self { room, house, bidders, first: 0, send_ns: SEND_NS })
    }

    /// Opens lots that close one after the other.
    pub(super) fn open(&mut self, first: u32, count: u32) -> Result<Vec<Lot>> {
        self.first = first;
        let ms = |n: u32| FIRST_MS + NEXT_MS * u64::from(n);
        for n in 0..count {
            let open = action("open", &(first + n).to_string(), first + n, Args { ms: Some(ms(n)), amount: None })?;
            self.house.send(&open).context("a lot cannot be opened")?;
        }
        let mut opened: Vec<Option<u64>> = vec![None; count as usize];
        let mut left = count;
        listen(&mut self.house, |told| {
            let number = told.id.parse::<u32>().ok().and_then(|id| id.checked_sub(first)).filter(|n| *n < count);
            if let Some(n) = number.filter(|_| &*told.event == "data" && &*told.player == "house") {
                ensure!(&*told.outcome == "granted", "a lot was not opened: {} {}", &*told.outcome, &*told.reason);
                opened[n as usize] = Some(told.arrival_ns.0 + ms(n) * 1_000_000);
                left -= 1;
            }
            Ok(left == 0)
        })?;
        let lot = |closes_ns: Option<u64>| {
            Some(Lot { closes_ns: closes_ns?, bids: [None, None], closed: [Vec::new(), Vec::new(), Vec::new()] })
        };
        let lots: Option<Vec<Lot>> = opened.into_iter().map(lot).collect();
        lots.context("lots were not opened in time")
    }

    /// Bids for each lot: one send is over so long before its close, the other begins so long after it; who is the first changes from lot to lot. Whether the thread
    /// ran before all usual ones.
    pub(super) fn bid(&mut self, mut lots: Vec<Lot>, apart: Duration) -> Result<(bool, Vec<Lot>)> {
        // On a thread of its own: its priority is not for those that the caller starts.
        std::thread::scope(|scope| {
            let bidding = scope.spawn(|| {
                let realtime = priority::raise().is_ok();
                for (number, lot) in (self.first..).zip(&mut lots) {
                    self.bid_for(number, lot, apart, realtime)?;
                }
                anyhow::Ok((realtime, lots))
            });
            bidding.join().unwrap_or_else(|_| bail!("the bidding thread panicked"))
        })
    }

    fn bid_for(&mut self, number: u32, lot: &mut Lot, apart: Duration, sleeps: bool) -> Result<()> {
        let clock = Gap { ns: 0, sleeps };
        let pair = &mut self.bidders[(number - self.first) as usize];
        let moments = [lot.closes_ns - nanos(apart) - self.send_ns, lot.closes_ns + nanos(apart)];
        for turn in 0..2 {
            let bidder = (number as usize + turn) % 2;
            let bid = action("bid", &number.to_string(), number, Args { ms: None, amount: Some(AMOUNTS[turn]) })?;
            clock.wait_until(moments[turn]);
            let before = monotonic_ns();
            pair[bidder].send(&bid).context("a bid cannot be sent")?;
            let after = monotonic_ns();
            if turn == 0 {
                // One that was interrupted counts for little.
                let took_ns = (after - before).min(2 * self.send_ns);
                self.send_ns = (7 * self.send_ns + took_ns) / 8;
            }
            lot.bids[turn] = Some(Bid { bidder, sent_ns: (before, after), answer: None });
        }
        Ok(())
    }

    /// Reads until all sessions have seen what came of their lots.
    pub(super) fn hear(&mut self, mut lots: Vec<Lot>) -> Result<Vec<Lot>> {
        let Self { house, bidders, first, .. } = self;
        let number = |told: &Told<'_>| {
            let name = if &*told.event == "timer" { told.timer.strip_prefix("close:lot-")? } else { &*told.id };
            name.parse::<u32>().ok()?.checked_sub(*first)
        };
        // It is denied: what was due before it has come before it.
        let mark = format!("mark-{first}");
        house.send(&action("open", &mark, *first, Args { ms: Some(FIRST_MS), amount: None })?).context("the house cannot act")?;
        listen(house, |told| {
            if let Some(close) = closing(told)
                && let Some(lot) = number(told).and_then(|n| lots.get_mut(n as usize))
            {
                lot.closed[0].push(close);
            }
            Ok(*told.id == mark)
        })?;
        for ((at, lot), pair) in (0..).zip(&mut lots).zip(bidders) {
            for (bidder, session) in pair.iter_mut().enumerate() {
                let player = format!("{}-{at}", BIDDERS[bidder]);
                let Lot { bids, closed, .. } = &mut *lot;
                let bid = bids.iter_mut().flatten().find(|bid| bid.bidder == bidder).context("nobody bid")?;
                let closed = &mut closed[1 + bidder];
                listen(session, |told| {
                    if number(told) == Some(at) {
                        if closed.is_empty() {
                            closed.extend(closing(told));
                        }
                        if *told.player == player {
                            bid.answer = Some(Answer::of(told));
                        }
                    }
                    Ok(bid.answer.is_some() && !closed.is_empty())
                })?;
            }
        }
        Ok(lots)
    }
}

impl Answer {
    fn of(told: &Told<'_>) -> Self {
        Self {
            granted: &*told.outcome == "granted",
            late: &*told.reason == "late",
            arrival_ns: told.arrival_ns.0,
            uncertainty_ns: told.uncertainty_ns.0,
            flagged: told.photo_finish || told.clamped || told.unproven || told.read_time,
        }
    }
}

/// The close that a verdict is.
fn closing(told: &Told<'_>) -> Option<Closing> {
    let by = told.body.as_ref().and_then(|body| body.by.as_deref());
    let by = by.and_then(|by| BIDDERS.iter().position(|bidder| by.starts_with(bidder)));
    (&*told.event == "timer").then_some(Closing { arrival_ns: told.arrival_ns.0, by })
}

/// Reads verdicts until `heard` has all of them, or the time is over.
fn listen(session: &mut Rival, mut heard: impl FnMut(&Told<'_>) -> Result<bool>) -> Result<()> {
    let deadline = monotonic_ns() + nanos(ANSWER_TIMEOUT);
    while monotonic_ns() < deadline {
        let Some(Message::Binary(bytes)) = session.next()? else { continue };
        let told: Told<'_> = rmp_serde::from_slice(&bytes).context("a message is not understood")?;
        ensure!(&*told.t != "error", "refused: {}", &*told.message);
        if &*told.t == "verdict" && heard(&told)? {
            return Ok(());
        }
    }
    Ok(())
}

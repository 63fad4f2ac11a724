//! What was decided, against when it was sent. Pure.
//!
//! Two clocks judge. By the sender's: a bid whose send was over before the close is granted, one whose send began after it is late. By the
//! verdicts themselves: a bid is granted if and only if it arrived before the close. And a lot closes once, at the moment that was
//! set when it was opened, for everybody.

use std::fmt;

use serde::Serialize;

use super::hall::{Bid, Lot};

/// Room time is in milliseconds, with a fraction that a float of 64 bits holds: a close may be so far from its moment.
const ROUNDED_NS: u64 = 1_000;

/// Bids that are told one by one.
const TOLD_MAX: usize = 20;

/// What was found. What is wrong must be 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Tally {
    pub(super) lots: u64,
    /// Of them, those whose bids were sent at their moments.
    pub(super) vouched: u64,
    /// Bids that were decided otherwise than by when they were sent, and not flagged.
    pub(super) wrong: u64,
    /// The same, flagged as too close to tell, clamped, unproven or read late.
    pub(super) wrong_flagged: u64,
    /// Bids that were decided otherwise than by their own arrival, or neither granted nor late.
    pub(super) wrong_by_arrival: u64,
    /// Bids without a verdict.
    pub(super) lost: u64,
    /// Sessions that saw a lot not close, or close more than once.
    pub(super) not_once: u64,
    /// Closes at another moment than was set.
    pub(super) moved: u64,
    /// Lots that went to somebody else than who was granted the last bid.
    pub(super) wrong_winner: u64,
    /// The first bids that were wrong in any way, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) told: Vec<String>,
}

impl Tally {
    pub(super) fn lot(&mut self, lot: &Lot) {
        self.lots += 1;
        for closed in &lot.closed {
            self.not_once += u64::from(closed.len() != 1);
            self.moved += closed.iter().filter(|close| close.arrival_ns.abs_diff(lot.closes_ns) > ROUNDED_NS).count() as u64;
        }
        let [Some(early), Some(late)] = &lot.bids else { return };
        let vouched = early.sent_ns.1 + ROUNDED_NS < lot.closes_ns && late.sent_ns.0 > lot.closes_ns + ROUNDED_NS;
        self.vouched += u64::from(vouched);
        let Some(close) = lot.closed.iter().flatten().next() else { return };
        let mut last = None;
        for bid in [early, late] {
            self.bid(bid, lot.closes_ns, close.arrival_ns);
            if bid.answer.as_ref().is_some_and(|answer| answer.granted) {
                last = Some(bid.bidder);
            }
        }
        self.wrong_winner += lot.closed.iter().flatten().filter(|close| close.by != last).count() as u64;
    }

    fn bid(&mut self, bid: &Bid, closes_ns: u64, closed_ns: u64) {
        let Some(answer) = &bid.answer else {
            self.lost += 1;
            return;
        };
        let (before, after) = bid.sent_ns;
        let contradicts =
            (after + ROUNDED_NS < closes_ns && !answer.granted) || (before > closes_ns + ROUNDED_NS && answer.granted);
        *(if answer.flagged { &mut self.wrong_flagged } else { &mut self.wrong }) += u64::from(contradicts);
        // A timer fires before an event with the same stamp.
        let in_time = answer.arrival_ns < closed_ns;
        let contradicts_itself = answer.granted != in_time || answer.granted == answer.late;
        self.wrong_by_arrival += u64::from(contradicts_itself);
        if (contradicts || contradicts_itself) && self.told.len() < TOLD_MAX {
            let from_close = |ns: u64| (i128::from(ns) - i128::from(closes_ns)) as f64 / 1000.0;
            self.told.push(format!(
                "a bid was sent at {} to {} µs from the close, arrived at {} (uncertainty {} µs), and was {}{}",
                from_close(before),
                from_close(after),
                from_close(answer.arrival_ns),
                answer.uncertainty_ns as f64 / 1000.0,
                if answer.granted { "granted" } else { "denied" },
                if answer.flagged { ", flagged" } else { "" }
            ));
        }
    }

    /// What was wrong, in one line.
    pub(super) fn failure(&self) -> Option<String> {
        let counted = [
            (self.wrong, "bids were decided otherwise than by when they were sent"),
            (self.wrong_by_arrival, "otherwise than by their arrival"),
            (self.lost, "got no verdict"),
            (self.not_once, "closes were seen never or more than once"),
            (self.moved, "closes were at another moment"),
            (self.wrong_winner, "lots went to another bidder"),
        ];
        let mut wrong: Vec<String> =
            counted.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        if self.vouched == 0 {
            wrong.push("no bids were sent at their moments: the machine is too busy".to_owned());
        }
        (!wrong.is_empty()).then(|| format!("the auction is wrong: {}", wrong.join(", ")))
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lots, vouched, wrong, wrong_flagged, wrong_by_arrival, lost, not_once, moved, wrong_winner, told } = self;
        for told in told {
            writeln!(f, "{told}")?;
        }
        writeln!(f, "lots     {lots}, of them {vouched} with bids at their moments")?;
        writeln!(
            f,
            "bids     wrong {wrong}  wrong but flagged {wrong_flagged}  wrong by arrival {wrong_by_arrival}  lost {lost}"
        )?;
        write!(f, "closes   not once {not_once}  at another moment {moved}  with another winner {wrong_winner}")
    }
}

#[cfg(test)]
mod tests {
    use super::super::hall::{Answer, Closing};
    use super::*;

    const AT: u64 = 1_000_000_000;

    fn bid(bidder: usize, sent_ns: (u64, u64), granted: bool) -> Option<Bid> {
        let answer = Answer { granted, late: !granted, arrival_ns: sent_ns.0 + 5_000, uncertainty_ns: 2_000, flagged: false };
        Some(Bid { bidder, sent_ns, answer: Some(answer) })
    }

    /// Ann 20 µs before, Bob 20 µs after.
    fn lot() -> Lot {
        let close = || vec![Closing { arrival_ns: AT + 200, by: Some(0) }];
        let bids = [bid(0, (AT - 20_000, AT - 10_000), true), bid(1, (AT + 20_000, AT + 30_000), false)];
        Lot { closes_ns: AT, bids, closed: [close(), close(), close()] }
    }

    fn tally(change: impl FnOnce(&mut Lot)) -> Tally {
        let (mut lot, mut tally) = (lot(), Tally::default());
        change(&mut lot);
        tally.lot(&lot);
        tally
    }

    #[test]
    fn a_lot_that_closes_at_its_moment_is_right() {
        let tally = tally(|_| {});
        assert_eq!(tally, Tally { lots: 1, vouched: 1, ..Tally::default() });
        assert_eq!(tally.failure(), None);
    }

    #[test]
    fn what_is_wrong_is_found() {
        let early_denied = tally(|lot| {
            lot.bids[0] = bid(0, (AT - 20_000, AT - 10_000), false);
            lot.closed.iter_mut().flatten().for_each(|close| close.by = None);
        });
        assert_eq!((early_denied.wrong, early_denied.wrong_by_arrival, early_denied.wrong_winner), (1, 1, 0));
        let late_granted = tally(|lot| lot.bids[1] = bid(1, (AT + 20_000, AT + 30_000), true));
        assert_eq!((late_granted.wrong, late_granted.wrong_by_arrival, late_granted.wrong_winner), (1, 1, 3));
        let twice = tally(|lot| lot.closed[1].push(Closing { arrival_ns: AT, by: Some(0) }));
        let never = tally(|lot| lot.closed[2].clear());
        assert_eq!((twice.not_once, never.not_once), (1, 1));
        assert_eq!(tally(|lot| lot.closed[0][0].arrival_ns = AT + 2_000).moved, 1);
        assert_eq!(tally(|lot| lot.bids[0].as_mut().expect("a bid").answer = None).lost, 1);
        for wrong in [early_denied, late_granted, twice, never] {
            assert!(wrong.failure().is_some(), "{wrong:?}");
        }
    }

    #[test]
    fn a_bid_whose_send_lay_over_the_close_is_judged_by_its_arrival_alone() {
        let interrupted = tally(|lot| lot.bids[0] = bid(0, (AT - 1_000, AT + 9_000), false));
        assert_eq!((interrupted.vouched, interrupted.wrong, interrupted.wrong_by_arrival), (0, 0, 0));
    }

    #[test]
    fn a_flag_excuses_what_the_sender_saw_and_not_what_the_verdict_says() {
        let clamped = tally(|lot| {
            let answer = lot.bids[0].as_mut().and_then(|bid| bid.answer.as_mut()).expect("an answer");
            (answer.granted, answer.late, answer.flagged, answer.arrival_ns) = (false, true, true, AT + 500);
            lot.closed.iter_mut().flatten().for_each(|close| close.by = None);
        });
        assert_eq!((clamped.wrong, clamped.wrong_flagged, clamped.wrong_by_arrival), (0, 1, 0));
        assert!(clamped.told[0].contains("-20 to -10 µs from the close, arrived at 0.5"), "{:?}", clamped.told);
        assert_eq!(clamped.failure(), None);
    }
}

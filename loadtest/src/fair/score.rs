//! The result of the races for each gap: how many were wrong, and the confidence interval.

use std::fmt;

use anyhow::Result;
use serde::Serialize;
use tokio_tungstenite::tungstenite::Message;

use crate::speak::dialect::Dialect;

/// What came back for one claim.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// Of which claim.
    pub(super) id: String,
    /// Whether the claimer won; None when the claim was refused.
    pub(super) won: Option<bool>,
    pub(super) clamped: bool,
    pub(super) unproven: bool,
    pub(super) photo_finish: bool,
    /// How well the arrival is known; the peer does not say.
    pub(super) uncertainty_ns: Option<u64>,
    /// By how much a loser was late; the peer does not say.
    pub(super) behind_ns: Option<u64>,
}

impl Answer {
    /// What a message answers; None when it is something else.
    pub(super) fn of(dialect: Dialect, message: &Message) -> Result<Option<Self>> {
        let (is_text, payload) = match message {
            Message::Text(text) => (true, text.as_bytes()),
            Message::Binary(bytes) => (false, &bytes[..]),
            _ => return Ok(None),
        };
        let frame = dialect.hear(is_text, payload)?;
        let won = match &*frame.t {
            "verdict" => Some(&*frame.outcome == "granted"),
            "error" => None,
            _ => return Ok(None),
        };
        Ok(Some(Self {
            id: frame.id.to_string(),
            won,
            clamped: frame.clamped,
            unproven: frame.unproven,
            photo_finish: frame.photo_finish,
            uncertainty_ns: frame.uncertainty_ns.map(|ns| ns.0),
            behind_ns: frame.behind_ns.map(|ns| ns.0),
        }))
    }
}

/// One gap's races.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    trials: u64,
    dropped: u64,
    dropped_wrong: u64,
    wrong: u64,
    wrong_unflagged: u64,
    no_verdict: u64,
    flagged: u64,
    clamped: u64,
    unproven: u64,
    photo_finish: u64,
    uncertainty_ns: Vec<u64>,
    gap_ns: Vec<u64>,
    behind_ns: Vec<u64>,
}

/// What is told of one gap; its serialized form is in the JSON report.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct GapScore {
    /// The wanted gap, from the end of the first send to the beginning of the second.
    pub(crate) gap_us: u64,
    /// Races.
    pub(crate) trials: u64,
    /// Of them, those whose gap was another one, because the sender was interrupted: not counted below.
    pub(crate) dropped: u64,
    /// Dropped races that the first sender did not win.
    pub(crate) dropped_wrong: u64,
    /// Races that the first sender did not win, whatever the flags; no verdict is no win.
    pub(crate) wrong: u64,
    /// Of them, those in which no verdict was flagged.
    pub(crate) wrong_unflagged: u64,
    /// Of the wrong ones, those in which the first sender got no verdict.
    pub(crate) no_verdict: u64,
    /// Races in which a verdict was flagged.
    pub(crate) flagged: u64,
    /// Races with a clamped stamp.
    pub(crate) clamped: u64,
    /// Races decided while a gateway was dying.
    pub(crate) unproven: u64,
    /// Races too close to tell.
    pub(crate) photo_finish: u64,
    /// Wrong races of a hundred.
    pub(crate) unfair_pct: f64,
    /// Where that lies with 95 % confidence (Wilson): at least.
    pub(crate) ci_low: f64,
    /// At most.
    pub(crate) ci_high: f64,
    /// The median of what the verdicts say about their stamps; None where they say nothing.
    pub(crate) uncertainty_ns_p50: Option<u64>,
    /// The highest of them.
    pub(crate) uncertainty_ns_max: Option<u64>,
    /// The median of the measured gaps.
    pub(crate) real_gap_us_p50: f64,
    /// The median of `behind_ns`.
    pub(crate) behind_us_p50: Option<f64>,
}

impl Tally {
    /// One race: whether the sender vouches for its gap, and what the first sender and the second were answered.
    pub(super) fn race(&mut self, vouched: bool, gap_ns: u64, first: Option<&Answer>, second: Option<&Answer>) {
        self.trials += 1;
        let won = first.and_then(|answer| answer.won);
        let wrong = won != Some(true);
        if !vouched {
            self.dropped += 1;
            self.dropped_wrong += u64::from(wrong);
            return;
        }
        let any = |flag: fn(&Answer) -> bool| first.is_some_and(flag) || second.is_some_and(flag);
        let (clamped, unproven, photo_finish) = (any(|a| a.clamped), any(|a| a.unproven), any(|a| a.photo_finish));
        let flagged = clamped || unproven || photo_finish;
        for (count, is) in [
            (&mut self.wrong, wrong),
            (&mut self.wrong_unflagged, wrong && !flagged),
            (&mut self.no_verdict, won.is_none()),
            (&mut self.flagged, flagged),
            (&mut self.clamped, clamped),
            (&mut self.unproven, unproven),
            (&mut self.photo_finish, photo_finish),
        ] {
            *count += u64::from(is);
        }
        self.uncertainty_ns.extend([first, second].into_iter().flatten().filter_map(|a| a.uncertainty_ns));
        self.behind_ns.extend([first, second].into_iter().flatten().filter_map(|a| a.behind_ns));
        self.gap_ns.push(gap_ns);
    }

    /// The figures.
    pub(super) fn score(&mut self, gap_us: u64) -> GapScore {
        let counted = self.trials - self.dropped;
        let (ci_low, ci_high) = wilson(self.wrong, counted);
        let us = |ns: u64| (ns / 10) as f64 / 100.0;
        GapScore {
            gap_us,
            trials: self.trials,
            dropped: self.dropped,
            dropped_wrong: self.dropped_wrong,
            wrong: self.wrong,
            wrong_unflagged: self.wrong_unflagged,
            no_verdict: self.no_verdict,
            flagged: self.flagged,
            clamped: self.clamped,
            unproven: self.unproven,
            photo_finish: self.photo_finish,
            unfair_pct: hundredths(100.0 * self.wrong as f64 / counted.max(1) as f64),
            ci_low,
            ci_high,
            uncertainty_ns_p50: median(&mut self.uncertainty_ns),
            uncertainty_ns_max: self.uncertainty_ns.last().copied(),
            real_gap_us_p50: median(&mut self.gap_ns).map_or(0.0, us),
            behind_us_p50: median(&mut self.behind_ns).map(us),
        }
    }
}

/// Sorts, and returns the middle one.
fn median(values: &mut [u64]) -> Option<u64> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Wilson's 95 % interval for `hits` of `of`, in percent: it says something at 0 of 1,000, too, where the usual one says
/// that all is certain.
fn wilson(hits: u64, of: u64) -> (f64, f64) {
    if of == 0 {
        return (0.0, 100.0);
    }
    let (n, p, z) = (of as f64, hits as f64 / of as f64, 1.959_964);
    let centre = p + z * z / (2.0 * n);
    let spread = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    let scale = 100.0 / (1.0 + z * z / n);
    (hundredths(((centre - spread) * scale).max(0.0)), hundredths(((centre + spread) * scale).min(100.0)))
}

/// The table's head.
pub(super) const HEAD: &str =
    "  gap µs  trials dropped   wrong unflagged  unfair %     95 % interval  flagged clamped  photo unproven  uncertainty µs";

impl fmt::Display for GapScore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = self;
        let interval = format!("{:.2} - {:.2}", s.ci_low, s.ci_high);
        let uncertainty = s.uncertainty_ns_p50.map_or("-".to_owned(), |ns| format!("{:.1}", ns as f64 / 1000.0));
        write!(
            f,
            "{:8}{:8}{:8}{:8}{:10}{:10.2}{interval:>18}{:9}{:8}{:7}{:9}{uncertainty:>16}",
            s.gap_us,
            s.trials,
            s.dropped,
            s.wrong,
            s.wrong_unflagged,
            s.unfair_pct,
            s.flagged,
            s.clamped,
            s.photo_finish,
            s.unproven
        )?;
        if s.no_verdict > 0 {
            write!(f, "  ({} without a verdict)", s.no_verdict)?;
        }
        if s.dropped_wrong > 0 {
            write!(f, "  ({} of the dropped wrong, too)", s.dropped_wrong)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn won(won: bool) -> Answer {
        Answer { won: Some(won), uncertainty_ns: Some(2_000), ..Answer::default() }
    }

    #[test]
    fn wrong_is_whatever_the_first_sender_did_not_win() {
        let mut tally = Tally::default();
        tally.race(true, 10, Some(&won(true)), Some(&won(false)));
        tally.race(true, 10, Some(&won(false)), Some(&won(true)));
        tally.race(true, 10, Some(&Answer { photo_finish: true, ..won(false) }), Some(&won(true)));
        tally.race(true, 10, None, Some(&won(false)));
        tally.race(true, 10, Some(&Answer::default()), Some(&won(true)));
        tally.race(false, 10, Some(&won(false)), Some(&won(true)));
        let score = tally.score(5);
        assert_eq!((score.trials, score.dropped, score.dropped_wrong), (6, 1, 1));
        assert_eq!((score.wrong, score.wrong_unflagged, score.no_verdict), (4, 3, 2));
        assert_eq!((score.flagged, score.photo_finish, score.clamped), (1, 1, 0));
        assert_eq!((score.unfair_pct, score.uncertainty_ns_p50), (80.0, Some(2_000)));
    }

    #[test]
    fn a_flag_on_either_verdict_flags_the_race() {
        let mut tally = Tally::default();
        tally.race(true, 0, Some(&won(true)), Some(&Answer { clamped: true, unproven: true, ..won(false) }));
        let score = tally.score(0);
        assert_eq!((score.flagged, score.clamped, score.unproven, score.photo_finish), (1, 1, 1, 0));
    }

    #[test]
    fn the_interval_is_wilsons() {
        // Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
        for (hits, of, low, high) in [(81, 263, 25.53, 36.62), (15, 148, 6.24, 16.05), (0, 20, 0.0, 16.11), (1, 29, 0.61, 17.18)]
        {
            let (l, h) = wilson(hits, of);
            assert!((l - low).abs() < 0.02 && (h - high).abs() < 0.02, "{hits}/{of}: {l} {h}");
        }
        assert_eq!(wilson(0, 0), (0.0, 100.0));
    }
}

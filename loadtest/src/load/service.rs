//! What a run says of the phases in it, and of the further connections beside it.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::moves::Moves;
use super::phases::{Connects, Phases, Stretch};

/// What became of further connections.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Connected {
    pub(crate) made: u64,
    /// Nobody listened, or the server said no.
    pub(crate) refused: u64,
    /// Ended without a word.
    pub(crate) reset: u64,
    /// Welcomed later than the limit, or never.
    pub(crate) late: u64,
    /// From when they were due to their welcome.
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// Why the first of those failed that were not welcomed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) first: Option<String>,
}

impl Connected {
    fn of(connects: &Connects) -> Self {
        let Connects { made, refused, reset, late, first, times } = connects;
        let ms = |quantile| (times.quantile_us(quantile) / 10.0).round() / 100.0;
        let (p50_ms, p99_ms, first) = (ms(0.5), ms(0.99), first.clone());
        Self { made: *made, refused: *refused, reset: *reset, late: *late, p50_ms, p99_ms, first }
    }
}

/// One phase, or what is outside of all.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Phase {
    pub(crate) name: &'static str,
    /// From the start of the run, the warm-up in it; None outside of phases.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) begin_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) end_s: Option<f64>,
    /// How long what was done took: the phase goes on a little longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) took_s: Option<f64>,
    /// Verdicts that it has the times of, from the intended send.
    pub(crate) verdicts: u64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Its p99 over that outside of all phases.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p99_ratio: Option<f64>,
    pub(crate) moves: Moves,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) connects: Option<Connected>,
    /// What it was not as promised in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) broken: Vec<String>,
}

/// How a service was while things were done to it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Service {
    /// `reload_p99_ratio` and its like, by phase.
    #[serde(flatten)]
    pub(crate) ratios: BTreeMap<String, f64>,
    /// The longest time in which an action of a player could not be accepted.
    pub(crate) unconnected_ms: f64,
    /// All further connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) connects: Option<Connected>,
    /// From when on a connection is late.
    pub(crate) late_after_ms: f64,
    pub(crate) outside: Phase,
    pub(crate) phases: Vec<Phase>,
}

impl Phase {
    fn of(stretch: &Stretch, connects: bool, outside_p99: Option<f64>) -> Self {
        let Stretch { from, to, took, failed, what, latency, moves, .. } = stretch;
        let connected = Connected::of(&stretch.connects);
        let is_phase = outside_p99.is_some();
        let seconds = |time: &std::time::Duration| is_phase.then_some((time.as_secs_f64() * 100.0).round() / 100.0);
        let p99_us = latency.quantile_us(0.99);
        let p99_ratio = outside_p99.filter(|outside| *outside > 0.0).map(|outside| (p99_us / outside * 100.0).round() / 100.0);
        let counted = [
            (connected.refused, "refused"),
            (if what.resets { 0 } else { connected.reset }, "reset"),
            (if what.resets { 0 } else { connected.late }, "late"),
        ];
        let counted = counted.into_iter().filter(|(count, _)| *count > 0).map(|(count, how)| match &connected.first {
            Some(first) if how != "late" => format!("{count} connections {how}, the first: {first}"),
            _ => format!("{count} connections {how}"),
        });
        let broken = failed.iter().cloned().chain(counted).collect();
        Self {
            name: what.name,
            begin_s: seconds(from),
            end_s: to.as_ref().and_then(seconds),
            took_s: seconds(took),
            verdicts: latency.count(),
            p50_us: latency.quantile_us(0.5),
            p99_us,
            p99_ratio,
            moves: *moves,
            connects: connects.then_some(connected),
            broken,
        }
    }
}

impl Service {
    /// Of a run that is over. Without phases it has those connections only.
    pub(crate) fn of(phases: &Phases, moves: &Moves, connects: bool) -> Self {
        let outside = Phase::of(phases.outside(), connects, None);
        let all: Vec<Phase> = phases.all().iter().map(|stretch| Phase::of(stretch, connects, Some(outside.p99_us))).collect();
        let ratios =
            all.iter().filter_map(|phase| Some((format!("{}_p99_ratio", phase.name.replace('-', "_")), phase.p99_ratio?)));
        let mut sum =
            Connects { made: 0, refused: 0, reset: 0, late: 0, first: None, times: phases.outside().connects.times.clone() };
        for stretch in phases.all() {
            sum.times.add(&stretch.connects.times);
        }
        for Stretch { connects, .. } in phases.all().iter().chain([phases.outside()]) {
            sum.made += connects.made;
            sum.refused += connects.refused;
            sum.reset += connects.reset;
            sum.late += connects.late;
        }
        Self {
            ratios: ratios.collect(),
            unconnected_ms: moves.unconnected_ms,
            connects: connects.then(|| Connected::of(&sum)),
            late_after_ms: phases.late_after().as_secs_f64() * 1000.0,
            outside,
            phases: all,
        }
    }

    /// What was not as promised.
    pub(crate) fn broken(&self) -> impl Iterator<Item = String> {
        self.phases
            .iter()
            .chain([&self.outside])
            .flat_map(|phase| phase.broken.iter().map(|broken| format!("{}: {broken}", phase.name)))
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let opened = self.connects.is_some();
        if !self.phases.is_empty() {
            write!(
                f,
                "\n{:16}{:>9}{:>9}{:>11}{:>11}{:>7}{:>13}{:>10}{:>9}",
                "phase", "from", "took", "p50", "p99", "ratio", "unconnected", "followed", "ignored"
            )?;
            writeln!(f, "{}", if opened { "   connects  refused/reset/late" } else { "" })?;
        }
        for phase in [&self.outside].into_iter().chain(&self.phases).filter(|_| !self.phases.is_empty()) {
            let seconds = |time: Option<f64>| time.map_or_else(String::new, |time| format!("{time:.1} s"));
            let ms = |us: f64| format!("{:.2} ms", us / 1000.0);
            let ratio = phase.p99_ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
            let Moves { followed, ignored, unconnected_ms, .. } = phase.moves;
            write!(f, "{:16}{:>9}{:>9}", phase.name, seconds(phase.begin_s), seconds(phase.took_s))?;
            write!(f, "{:>11}{:>11}{ratio:>7}", ms(phase.p50_us), ms(phase.p99_us))?;
            write!(f, "{:>13}{followed:>10}{ignored:>9}", format!("{unconnected_ms} ms"))?;
            if let Some(Connected { made, refused, reset, late, .. }) = &phase.connects {
                write!(f, "{made:>11}  {refused}/{reset}/{late}")?;
            }
            writeln!(f)?;
        }
        if let Some(Connected { made, refused, reset, late, p50_ms, p99_ms, .. }) = &self.connects {
            writeln!(
                f,
                "connects  {made} made  {refused} refused  {reset} reset  {late} late (over {} ms)  p50 {p50_ms} ms  p99 {p99_ms} ms",
                self.late_after_ms
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::connects::Connect;
    use super::super::moves::Away;
    use super::super::phases::{How, What};
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Outside at 1 ms; a reload with 4 ms, in which one was refused; a crash in which one was reset; a stop that failed.
    fn service() -> Service {
        let mut phases = Phases::new(100 * MS);
        let what = |name, resets| What { name, resets, allowance: Duration::ZERO };
        phases.answered(MS, 2 * MS);
        for (n, (name, resets)) in [("reload", false), ("crash", true), ("supervisor-stop", false)].into_iter().enumerate() {
            let at = 10_000 * MS * (u32::try_from(n).expect("few") + 1);
            phases.begin(what(name, resets), at);
            phases.answered(at, at + 4 * MS);
            let how = [How::Refused, How::Reset, How::Welcomed][n];
            let why = (how != How::Welcomed).then(|| "no".to_owned());
            phases.connected(Connect { at, took: MS, behind: MS, how, why });
            phases.moved(at, |moves| moves.count(Some(Away::Moved), Some(7 * MS)), None);
            phases.done(at + 100 * MS, (n == 2).then(|| "it hangs".to_owned()));
            phases.end(at + 1000 * MS);
        }
        Service::of(&phases, &Moves { unconnected_ms: 7.0, ..Moves::default() }, true)
    }

    #[test]
    fn each_phase_is_compared_with_what_is_outside_of_all() {
        let json = serde_json::to_value(service()).expect("JSON");
        let ratio = |name: &str| json[name].as_f64().expect("a ratio");
        assert!(
            (ratio("reload_p99_ratio") - 4.0).abs() < 0.05 && (ratio("supervisor_stop_p99_ratio") - 4.0).abs() < 0.05,
            "{json:#}"
        );
        assert_eq!(
            (&json["unconnected_ms"], &json["connects"]["made"], &json["connects"]["refused"]),
            (&7.0.into(), &3.into(), &1.into())
        );
        let phase = &json["phases"][0];
        assert_eq!((&phase["begin_s"], &phase["end_s"], &phase["took_s"]), (&10.0.into(), &11.0.into(), &0.1.into()));
        assert!(json["outside"].get("begin_s").is_none());
    }

    #[test]
    fn what_was_not_as_promised_is_named_with_its_phase() {
        let broken: Vec<String> = service().broken().collect();
        // Whoever was on a process that was killed may be reset.
        assert_eq!(broken, ["reload: 1 connections refused, the first: no", "supervisor-stop: it hangs"]);
    }

    #[test]
    fn a_person_reads_a_line_for_each_phase() {
        let text = service().to_string();
        let line =
            |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {text}")).to_owned();
        assert!(line("reload").contains("10.0 s") && line("reload").ends_with("1  1/0/0"), "{text}");
        assert!(
            line("outside").contains("1.00 ms") && line("connects").contains("1 refused  1 reset  0 late (over 100 ms)"),
            "{text}"
        );
    }
}

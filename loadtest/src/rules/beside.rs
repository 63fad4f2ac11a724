//! Programs beside the built-in rules: the same work on the same processes, in turns.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::bars::{Bar, Row};
use super::programs::{Family, Programs, SPAWN};
use super::{Pace, none_failed, until_in_memory};
use crate::compare::generator::Target;
use crate::compare::{Teller, explain};
use crate::spawn::Fleet;
use crate::stages::median;

/// Actions a second of the medians.
const RATE: u32 = 1_000;

/// Measures what of this is wanted.
pub(super) async fn measure(wanted: &[Bar], pace: Pace, teller: &mut Teller) -> Result<Vec<Row>> {
    let any = |bars: [Bar; 2]| bars.iter().any(|bar| wanted.contains(bar));
    let mut families = vec![Family::BuiltIn];
    families.extend(any([Bar::JsMedian, Bar::JsThroughput]).then_some(Family::JavaScript));
    families.extend(any([Bar::ProcessMedian, Bar::ProcessThroughput]).then_some(Family::Python));
    if families.len() == 1 {
        return Ok(Vec::new());
    }
    let files = Programs::write(&families)?;
    let mut fleet = Fleet::start_with(SPAWN, &files.options("1s")).await?;
    let measured = async {
        let (mut medians, mut rates) = (Vec::new(), Vec::new());
        if any([Bar::JsMedian, Bar::ProcessMedian]) {
            medians = in_turns("median", &families, pace, &fleet, teller, async |target| median_us(target, pace).await).await?;
        }
        if any([Bar::JsThroughput, Bar::ProcessThroughput]) {
            rates = in_turns("highest rate", &families, pace, &fleet, teller, async |target| highest(target, pace).await).await?;
        }
        none_failed(&fleet).await?;
        anyhow::Ok((medians, rates))
    };
    let measured = measured.await;
    explain(&measured, &mut fleet);
    fleet.end().await;
    let (medians, rates) = measured?;
    let rows = [
        (Bar::JsMedian, Family::JavaScript, &medians),
        (Bar::JsThroughput, Family::JavaScript, &rates),
        (Bar::ProcessMedian, Family::Python, &medians),
        (Bar::ProcessThroughput, Family::Python, &rates),
    ];
    Ok(rows.into_iter().filter(|(bar, ..)| wanted.contains(bar)).map(|(bar, family, all)| row(bar, family, all)).collect())
}

/// One family's value, and what else is known of it.
type Measured = (Family, f64, Value);

/// Every family by turns, so that what the machine does meanwhile falls on all of them.
async fn in_turns(
    what: &str,
    families: &[Family],
    pace: Pace,
    fleet: &Fleet,
    teller: &mut Teller,
    measure: impl AsyncFn(&Target) -> Result<(f64, Value)>,
) -> Result<Vec<Measured>> {
    let mut all = Vec::new();
    for round in 1..=pace.rounds {
        for family in families {
            teller.tell(&format!("{what}, round {round} of {}: {}", pace.rounds, family.name()));
            // What was measured before has left nothing.
            until_in_memory(fleet, 0).await?;
            let target = Target { family: family.tag(), ..Target::lasthit(fleet.urls()) };
            let (value, raw) = measure(&target).await.with_context(|| family.name())?;
            all.push((*family, value, raw));
        }
    }
    Ok(all)
}

async fn median_us(target: &Target, pace: Pace) -> Result<(f64, Value)> {
    let report = target.at(RATE, pace.latency).await?;
    let [p50, p99] = [report.latency_us.p50, report.latency_us.p99];
    Ok((p50, json!({ "p50_us": p50, "p99_us": p99 })))
}

/// Verdicts a second. The search begins near what all sessions get that send when they are answered.
async fn highest(target: &Target, pace: Pace) -> Result<(f64, Value)> {
    let expected = target.flat_out(pace.step).await?.verdicts_per_s;
    let found = target.highest(expected, pace.step).await?;
    let raw = json!({ "verdicts_per_s": found.verdicts_per_s, "generator": found.generator, "flat_out_per_s": expected });
    Ok((found.verdicts_per_s, raw))
}

/// The ratio of the medians over the rounds.
fn row(bar: Bar, family: Family, all: &[Measured]) -> Row {
    let of = |family: Family| all.iter().filter(move |(of, ..)| *of == family);
    let value = |family| median(of(family).map(|(_, value, _)| *value).collect());
    let raw = |family| Value::Array(of(family).map(|(.., raw)| raw.clone()).collect());
    let ratio = value(family) / value(Family::BuiltIn);
    bar.row(&[ratio], json!({ "built_in": raw(Family::BuiltIn), "program": raw(family) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_of_medians() {
        let measured = |family, value: f64| (family, value, json!(value));
        let all = [
            measured(Family::BuiltIn, 100.0),
            measured(Family::JavaScript, 120.0),
            measured(Family::BuiltIn, 900.0),
            measured(Family::JavaScript, 5_000.0),
            measured(Family::BuiltIn, 80.0),
            measured(Family::JavaScript, 110.0),
        ];
        let row = row(Bar::JsMedian, Family::JavaScript, &all);
        assert_eq!((row.figures[0].value, row.figures[0].met), (1.2, true));
        assert_eq!(row.raw, json!({"built_in": [100.0, 900.0, 80.0], "program": [120.0, 5_000.0, 110.0]}));
    }
}

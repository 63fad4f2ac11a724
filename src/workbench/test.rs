//! `lasthit rules test`: plays each scenario straight, and with the room taken out and put back between all events.

use std::sync::Arc;

use serde_json::{Value, json};

use super::play::{Decided, Led, play, shown};
use super::scenario::{Expected, Problem, Scenario};
use crate::engine::{Room, Trouble};
use crate::rules::js::{Budget, Checking, JsRules, Program, ProgramError};
use crate::types::{Outcome, Verdict};

/// Plays a scenario. Returns what is wrong.
pub(super) fn test(program: &Arc<Program>, scenario: &Scenario) -> Result<Vec<Problem>, ProgramError> {
    let rules = || Box::new(JsRules::new(program.clone(), Checking::Anew));
    let straight = match play(scenario, rules(), &mut |room, _, next| next(room)) {
        Ok(led) => led,
        Err(problem) => return Ok(vec![problem]),
    };
    let mut problems: Vec<Problem> = Vec::new();
    for ((at, step), led) in (1..).zip(&scenario.steps).zip(&straight) {
        problems.extend(checked(step, led).into_iter().map(|what| Problem::of(at, what)));
    }
    if straight.iter().flat_map(all).any(|decided| !decided.trouble.impure.is_empty()) {
        return Ok(problems);
    }
    // Loaded again, so that it begins in contexts of its own.
    let again = Program::load(program.file(), program.text().as_bytes(), Budget::default())?;
    let rules = || Box::new(JsRules::new(again.clone(), Checking::Off));
    let mut damaged = None;
    let put_back = play(scenario, rules(), &mut |room, _, next| {
        match Room::restore(&room.snapshot(), rules()) {
            Ok(restored) => *room = restored,
            Err(error) => damaged = Some(error.to_string()),
        }
        next(room)
    });
    problems.extend(damaged.map(|why| Problem::of_all(format!("the room cannot be put back: {why}"))));
    problems.extend(otherwise(&straight, &put_back));
    Ok(problems)
}

/// The first difference, if there is one, between what was played straight and what was played with the room put back.
fn otherwise(straight: &[Led], put_back: &Result<Vec<Led>, Problem>) -> Option<Problem> {
    let put_back = match put_back {
        Ok(put_back) => put_back,
        Err(problem) => {
            return Some(Problem::of_all(format!("with the state taken out and put back it cannot be played: {problem}")));
        }
    };
    let mut steps = (1..).zip(straight.iter().map(words).zip(put_back.iter().map(words)));
    let (at, (first, again)) = steps.find(|(_, (first, again))| first != again)?;
    let what = format!("with the state taken out and put back it comes out otherwise: first {first}; again {again}");
    Some(Problem::of(at, what))
}

/// All verdicts of a step.
fn all(led: &Led) -> impl Iterator<Item = &Decided> {
    led.fires.iter().chain(&led.joined).chain(&led.decided)
}

fn words(led: &Led) -> String {
    let shown: Vec<Value> = all(led).map(|decided| shown(&decided.verdict)).collect();
    json!(shown).to_string()
}

fn checked(step: &super::scenario::Step, led: &Led) -> Vec<String> {
    let mut problems = Vec::new();
    if let Some(expected) = &step.fires {
        let names = |fires: &mut dyn Iterator<Item = String>| fires.collect::<Vec<_>>().join(", ");
        let wanted =
            names(&mut expected.iter().map(|fire| fire.0.get("timer").and_then(Value::as_str).unwrap_or_default().to_owned()));
        let fired = names(&mut led.fires.iter().map(|decided| timer(&decided.verdict).to_owned()));
        if wanted != fired {
            problems.push(format!("fires [{fired}], not [{wanted}]"));
        }
    }
    let none = Expected::default();
    for (at, decided) in led.fires.iter().enumerate() {
        let expected = step.fires.as_ref().and_then(|fires| fires.get(at)).unwrap_or(&none);
        let what = format!("timer {}", timer(&decided.verdict));
        problems.extend(told(decided, expected).into_iter().map(|problem| format!("{what}: {problem}")));
    }
    if let Some(decided) = &led.joined {
        problems.extend(told(decided, &none).into_iter().map(|problem| format!("join: {problem}")));
    }
    if let Some(decided) = &led.decided {
        problems.extend(told(decided, &step.expect));
    }
    problems
}

fn timer(verdict: &Verdict) -> &str {
    verdict.fire.as_ref().map_or("", |fire| &fire.name)
}

/// What is wrong with a verdict.
fn told(decided: &Decided, expected: &Expected) -> Vec<String> {
    let Decided { verdict, trouble: Trouble { failures, impure } } = decided;
    let mut problems: Vec<String> = impure
        .iter()
        .map(|what| format!("it remembers something outside ctx.state, so another context decides otherwise: {what}"))
        .collect();
    match &verdict.outcome {
        Outcome::Void(reason) if !expected.is_void() => {
            let why: Vec<&str> = failures.iter().map(|failed| failed.error.as_str()).collect();
            problems.push(format!("void {reason}{}{}", if why.is_empty() { "" } else { ": " }, why.join("; ")));
        }
        _ => problems.extend(expected.differs(verdict)),
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_played_again_is_told() {
        let nothing = || Led { fires: Vec::new(), joined: None, decided: None };
        assert!(otherwise(&[nothing()], &Ok(vec![nothing()])).is_none());
        let told = otherwise(&[nothing()], &Err(Problem::of(1, "ann is inside already".to_owned()))).expect("told").to_string();
        assert!(told.contains("cannot be played: step 1: ann is inside already"), "{told}");
    }
}

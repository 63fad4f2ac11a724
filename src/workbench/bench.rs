//! `lasthit rules bench`: how long a program takes for the events of its scenarios.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::play::play;
use super::scenario::Scenario;
use crate::limits::{BENCH_EVENTS_MAX, BENCH_TIME};
use crate::rules::js::{Checking, JsRules, Program};

/// What was measured of the events of one name.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    /// The action, the socket event, or `timer`.
    pub(super) event: String,
    /// How many were measured.
    pub(super) events: usize,
    /// Microseconds an event.
    pub(super) mean_us: f64,
    /// The time that half of them took at most.
    pub(super) p50_us: f64,
    /// The time that 99 of 100 took at most.
    pub(super) p99_us: f64,
}

/// Times by name, and the most bytes that the state had.
#[derive(Debug, Serialize)]
pub(super) struct Bench {
    pub(super) all: Measured,
    pub(super) by_event: Vec<Measured>,
    pub(super) state_bytes: usize,
}

/// Plays the scenarios again and again for a second. The first time round is not measured.
pub(super) fn bench(program: &Arc<Program>, scenarios: &[Scenario]) -> Result<Bench, String> {
    let rules = || Box::new(JsRules::new(program.clone(), Checking::Off));
    let mut state_bytes = 0;
    for scenario in scenarios {
        let led = play(scenario, rules(), &mut |room, _, next| {
            let verdict = next(room);
            state_bytes = state_bytes.max(room.state_bytes());
            verdict
        });
        led.map_err(|problem| format!("{}: {problem}", scenario.name))?;
    }
    let mut times: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    let (began, mut events) = (quanta::Instant::now(), 0);
    while began.elapsed() < BENCH_TIME && events < BENCH_EVENTS_MAX {
        let before = events;
        for scenario in scenarios {
            play(scenario, rules(), &mut |room, name, next| {
                let start = quanta::Instant::now();
                let verdict = next(room);
                let ns = u32::try_from(start.elapsed().as_nanos()).unwrap_or(u32::MAX);
                match times.get_mut(name) {
                    Some(times) => times.push(ns),
                    None => drop(times.insert(name.to_owned(), vec![ns])),
                }
                events += 1;
                verdict
            })
            .map_err(|problem| problem.to_string())?;
        }
        if events == before {
            return Err("its tests have no event: write one with who and op".to_owned());
        }
    }
    let all = measured("all".to_owned(), times.values().flatten().copied().collect());
    Ok(Bench { all, by_event: times.into_iter().map(|(name, times)| measured(name, times)).collect(), state_bytes })
}

#[expect(clippy::cast_precision_loss, reason = "shown with two digits behind the point")]
fn measured(event: String, mut times: Vec<u32>) -> Measured {
    times.sort_unstable();
    let us = |ns: f64| (ns / 10.0).round() / 100.0;
    let at = |percent: usize| us(f64::from(times.get(times.len().saturating_sub(1) * percent / 100).copied().unwrap_or(0)));
    let sum: u64 = times.iter().map(|ns| u64::from(*ns)).sum();
    let mean_us = us(sum as f64 / times.len().max(1) as f64);
    Measured { event, events: times.len(), mean_us, p50_us: at(50), p99_us: at(99) }
}

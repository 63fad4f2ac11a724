//! A load that rises and falls over a supervisor whose counts follow it, and a table of these counts over time.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::cli::duration;
use crate::environment::Environment;
use crate::limits::{AUTO_LOOK_INTERVAL, AUTO_ROW_S, AUTO_STEPS_MAX, RATE_MAX};
use crate::load::progress::Progress;
use crate::load::{Load, Outcome, Pace, measure};
use crate::spawn::{Count, Fleet, Spawn};
use crate::speak::dialect::Dialect;
use crate::supervised::{Process, Supervised};

/// One rate, and how long it is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    rate: u32,
    time: Duration,
}

impl FromStr for Step {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rate, time) = text.split_once(':').ok_or_else(|| format!("step {text:?} is not of the form 1000:30s"))?;
        let rate = rate.parse().ok().filter(|rate| (1..=RATE_MAX).contains(rate));
        let rate =
            rate.ok_or_else(|| format!("step {text:?}: use a rate of 1 to {RATE_MAX} actions a second, as in 1000:30s"))?;
        let time = duration(time).map_err(|why| format!("step {text:?}: {why}"))?;
        if time < Duration::from_secs(1) {
            return Err(format!("step {text:?}: use at least 1s"));
        }
        Ok(Self { rate, time })
    }
}

/// What to run.
#[derive(Debug, Clone)]
pub(crate) struct AutoConfig {
    pub(crate) spawn: Spawn,
    pub(crate) steps: Vec<Step>,
    pub(crate) sessions: u32,
    pub(crate) rooms: u32,
}

/// One role at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
struct Role {
    /// Processes that are ready.
    ready: usize,
    /// Their mean use of a core, in percent.
    cpu_percent: f64,
}

/// What was there at one moment.
#[derive(Debug, Clone, Serialize)]
struct Look {
    s: f64,
    /// Actions a second that are being sent.
    rate: u32,
    gateways: Role,
    workers: Role,
}

/// What a step was like for its players.
#[derive(Debug, Clone, Serialize)]
struct Stepped {
    rate: u32,
    time_s: f64,
    /// None where the generator did not keep up, so that there are no figures.
    #[serde(skip_serializing_if = "Option::is_none")]
    p99_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    broken: Option<String>,
}

/// What came of it; its serialized form is what `--json` writes.
#[derive(Debug, Serialize)]
pub(crate) struct Followed {
    gateways: String,
    workers: String,
    most_gateways: usize,
    most_workers: usize,
    steps: Vec<Stepped>,
    looks: Vec<Look>,
    environment: Environment,
}

impl Followed {
    /// Runs all steps. None when somebody asked for the end.
    pub(crate) async fn measure(config: &AutoConfig, stop: impl Future<Output = ()>) -> Result<Option<Self>> {
        let Spawn::Up { gateways, workers } = config.spawn else {
            bail!("auto needs a supervisor: use --spawn up:gateways=auto:1..4,workers=1");
        };
        let by_load = |count| matches!(count, Count::Between { .. });
        ensure!(
            by_load(gateways) || by_load(workers),
            "auto needs counts that follow the load: use --spawn up:gateways=auto:1..4,workers=1"
        );
        ensure!((1..=AUTO_STEPS_MAX).contains(&config.steps.len()), "{} steps: use 1 to {AUTO_STEPS_MAX}", config.steps.len());
        let mut fleet = Fleet::start(config.spawn).await?;
        let done = tokio::select! {
            done = follow(config, &fleet) => done.map(Some),
            () = stop => Ok(None),
        };
        if done.is_err() {
            eprintln!("{}", fleet.logs());
        }
        fleet.end().await;
        let Some((steps, looks)) = done? else { return Ok(None) };
        let most = |of: fn(&Look) -> usize| looks.iter().map(of).max().unwrap_or(0);
        Ok(Some(Self {
            gateways: gateways.to_string(),
            workers: workers.to_string(),
            most_gateways: most(|look| look.gateways.ready),
            most_workers: most(|look| look.workers.ready),
            steps,
            looks,
            environment: Environment::read(),
        }))
    }

    /// What was not as promised.
    pub(crate) fn failure(&self) -> Option<String> {
        self.steps.iter().find_map(|step| step.broken.as_ref().map(|broken| format!("at {}/s: {broken}", step.rate)))
    }
}

async fn follow(config: &AutoConfig, fleet: &Fleet) -> Result<(Vec<Stepped>, Vec<Look>)> {
    let supervised = fleet.supervised().context("no supervisor")?.clone();
    let (rate, looks) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(Vec::new())));
    let looking = tokio::spawn(look_on(supervised, Arc::clone(&rate), Arc::clone(&looks)));
    let mut steps = Vec::new();
    for step in &config.steps {
        *rate.lock().unwrap_or_else(PoisonError::into_inner) = step.rate;
        let load = Load {
            sessions: config.sessions,
            rooms: config.rooms,
            warm_up: Duration::ZERO,
            duration: step.time,
            ..Load::new(Dialect::Lasthit, fleet.urls().to_vec(), Pace::Open { rate: step.rate })
        };
        let progress = Progress::new(false).of(format!("{}/s", step.rate));
        let outcome = measure(&load, &progress, std::future::pending()).await.with_context(|| format!("at {}/s", step.rate))?;
        let (p99_us, broken) = match outcome {
            Outcome::Done(report) => (Some(report.latency_us.p99), report.failure()),
            Outcome::Saturated(_) | Outcome::Interrupted(_) => (None, None),
        };
        steps.push(Stepped { rate: step.rate, time_s: step.time.as_secs_f64(), p99_us, broken });
    }
    looking.abort();
    let looks = looks.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok((steps, looks))
}

async fn look_on(supervised: Supervised, rate: Arc<Mutex<u32>>, looks: Arc<Mutex<Vec<Look>>>) {
    let began = Instant::now();
    loop {
        // A supervisor that does not answer this time is asked again.
        if let Ok(all) = supervised.processes().await {
            let s = (began.elapsed().as_secs_f64() * 10.0).round() / 10.0;
            let rate = *rate.lock().unwrap_or_else(PoisonError::into_inner);
            let look = Look { s, rate, gateways: role(&all, true), workers: role(&all, false) };
            looks.lock().unwrap_or_else(PoisonError::into_inner).push(look);
        }
        sleep(AUTO_LOOK_INTERVAL).await;
    }
}

fn role(all: &[Process], gateways: bool) -> Role {
    let of_role = || all.iter().filter(|process| process.is_ready() && process.is_gateway() == gateways);
    let ready = of_role().count();
    let cpu: f64 = of_role().map(|process| process.cpu).sum();
    Role { ready, cpu_percent: (cpu / ready.max(1) as f64 * 1000.0).round() / 10.0 }
}

/// The moments that a table shows: each change, and one now and then.
fn rows(looks: &[Look]) -> impl Iterator<Item = &Look> {
    let mut before: Option<&Look> = None;
    looks.iter().filter(move |look| {
        let changed = |before: &Look| {
            let counts = |look: &Look| (look.rate, look.gateways.ready, look.workers.ready);
            counts(before) != counts(look) || look.s >= before.s + AUTO_ROW_S
        };
        let is_shown = before.is_none_or(changed);
        if is_shown {
            before = Some(look);
        }
        is_shown
    })
}

impl fmt::Display for Followed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "gateways {}, workers {}\n", self.gateways, self.workers)?;
        writeln!(f, "{:>9}{:>11}{:>10}{:>10}{:>9}{:>10}", "time", "actions/s", "gateways", "mean CPU", "workers", "mean CPU")?;
        for Look { s, rate, gateways, workers } in rows(&self.looks) {
            let percent = |role: &Role| format!("{:.0} %", role.cpu_percent);
            writeln!(
                f,
                "{:>9}{rate:>11}{:>10}{:>10}{:>9}{:>10}",
                format!("{s:.1} s"),
                gateways.ready,
                percent(gateways),
                workers.ready,
                percent(workers)
            )?;
        }
        for Stepped { rate, time_s, p99_us, broken } in &self.steps {
            write!(f, "\n{rate}/s for {time_s} s: ")?;
            match (p99_us, broken) {
                (_, Some(broken)) => write!(f, "{broken}")?,
                (Some(p99), None) => write!(f, "p99 {:.1} ms, audit passed", p99 / 1000.0)?,
                (None, None) => write!(f, "the generator did not keep up: no figures")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_a_rate_for_a_time() {
        assert_eq!("1000:30s".parse(), Ok(Step { rate: 1000, time: Duration::from_secs(30) }));
        for bad in ["", "1000", "0:30s", "x:30s", "1000:30", "1000:500ms", "-1:1s", "99999999:1s"] {
            let error = bad.parse::<Step>().expect_err(bad);
            assert!(error.contains(&format!("{bad:?}")) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_table_has_every_change_and_a_row_now_and_then() {
        let look = |s: f64, ready| Look { s, rate: 1, gateways: Role { ready, cpu_percent: 0.0 }, workers: Role::default() };
        let looks: Vec<Look> = [(0.0, 1), (1.0, 1), (2.0, 2), (3.0, 2), (2.0 + AUTO_ROW_S, 2), (3.0 + AUTO_ROW_S, 1)]
            .map(|(s, ready)| look(s, ready))
            .into();
        let shown: Vec<(f64, usize)> = rows(&looks).map(|look| (look.s, look.gateways.ready)).collect();
        assert_eq!(shown, [(0.0, 1), (2.0, 2), (2.0 + AUTO_ROW_S, 2), (3.0 + AUTO_ROW_S, 1)]);
    }

    #[test]
    fn a_role_has_the_mean_of_those_that_are_ready() {
        let process =
            |name: &str, phase: &str, cpu| Process { name: name.into(), phase: phase.into(), pid: None, cpu, sessions: 0 };
        let all = [
            process("gateway-1", "ready", 0.5),
            process("gateway-2", "ready", 0.7),
            process("gateway-3", "starting", 0.0),
            process("worker-1", "ready", 0.1),
        ];
        assert_eq!(role(&all, true), Role { ready: 2, cpu_percent: 60.0 });
        assert_eq!(role(&all, false), Role { ready: 1, cpu_percent: 10.0 });
    }
}

//! One measurement: joins all sessions, sends by the plan, waits for the answers, reports. [`measure`] is what `run`, the
//! ramp and the comparisons are made of.
//!
//! `terms` says what to measure, `plan` who sends what, `pace` waits until it is due, `joined` connects, `client` sends and reads, `moves` opens
//! a session's next connection, `judge` reads what a session is told, `answers` knows its own actions, `tally` counts, `audit` judges, `record` keeps the times, `health` watches the generator, `progress` and `report` tell. `knee` measures rate
//! after rate. `phases` knows what is done to the system meanwhile, `connects` makes further connections, `service` tells of both.

pub(crate) mod answers;
pub(crate) mod audit;
pub(crate) mod client;
pub(crate) mod connects;
pub(crate) mod health;
pub(crate) mod home;
pub(crate) mod joined;
mod judge;
pub(crate) mod knee;
pub(crate) mod moves;
pub(crate) mod pace;
pub(crate) mod phases;
pub(crate) mod plan;
pub(crate) mod progress;
pub(crate) mod record;
pub(crate) mod report;
pub(crate) mod service;
pub(crate) mod tally;
mod terms;

use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use lasthit::types::{Incarnation, RoomId, ShardId};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::limits::{BATCH_ACTIONS_MAX, BEHIND_MAX, BESIDE_LEAVE, CONNECTING_MAX, LEAD, OUTSTANDING_MAX, PAYLOAD_BYTES_MAX};
use audit::Audit;
use client::{Run, Session};
use health::{Meter, Saturation, Usage};
use joined::Joined;
use pace::Pacer;
use phases::Phases;
use plan::{Plan, Schedule};
use progress::Progress;
use report::Report;
use tally::{Tally, Window};
pub(crate) use terms::{Load, Pace};

/// How a measurement ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// As planned.
    Done(Box<Report>),
    /// The generator did not keep up, so that there are no figures.
    Saturated(Saturation),
    /// Somebody asked for it after so many actions.
    Interrupted(u64),
}

/// What is done beside a run. The schedule ends with it, at the latest when the load's `extra` time is over.
pub(crate) type Beside = Box<dyn FnOnce(Arc<Run>) -> Pin<Box<dyn Future<Output = Result<()>>>>>;

/// Measures until everything is answered or the drain time is over, or until `stop` is ready; closes all sessions before it
/// returns. The generator is the thread that calls.
///
/// # Errors
/// When the load is out of bounds, or its sessions cannot be joined.
pub(crate) async fn measure(load: &Load, progress: &Progress, stop: impl Future<Output = ()>) -> Result<Outcome> {
    measure_beside(load, progress, stop, None).await
}

/// The same, while something else is done.
///
/// # Errors
/// As in [`measure`], and when what is done beside it fails or does not end in time.
pub(crate) async fn measure_beside(
    load: &Load,
    progress: &Progress,
    stop: impl Future<Output = ()>,
    beside: Option<Beside>,
) -> Result<Outcome> {
    let urls = u32::try_from(load.urls.len()).context("more urls than can be counted")?;
    ensure!(load.payload_bytes <= PAYLOAD_BYTES_MAX, "payload of {} bytes: use 0 to {PAYLOAD_BYTES_MAX}", load.payload_bytes);
    ensure!(!load.duration.is_zero(), "duration 0: use at least 1ms");
    let whole = load.warm_up + load.duration + load.extra;
    let (plan, schedule, outstanding) = match load.pace {
        Pace::Open { rate } => {
            let schedule = Schedule::new(rate)?;
            let plan = Plan::new(load.sessions, load.rooms, urls, load.contenders, schedule.actions(whole))?;
            (plan, Some(schedule), load.waiting_max.unwrap_or(u32::MAX))
        }
        Pace::Closed { outstanding } => (Plan::filled(load.sessions, load.rooms, urls, load.contenders)?, None, outstanding),
    };
    let is_bounded = schedule.is_none() || load.waiting_max.is_some();
    ensure!(!is_bounded || (1..=OUTSTANDING_MAX).contains(&outstanding), "outstanding {outstanding}: use 1 to {OUTSTANDING_MAX}");
    allow_files(u64::from(load.sessions) + 256)?;
    let mut stop = pin!(stop);
    let tag = load.tag.clone().unwrap_or_else(|| format!("{}{}", load.family, Incarnation::random()));
    let joined = tokio::select! {
        joined = join_all(load, &plan, &tag) => joined?,
        () = &mut stop => return Ok(Outcome::Interrupted(0)),
    };

    let audit = Audit::new(plan.actions(), plan.actions() / u64::from(load.contenders));
    let run = Arc::new(Run {
        plan,
        schedule,
        outstanding,
        start: Instant::now() + LEAD,
        end: whole,
        tag,
        dialect: load.dialect,
        audience: load.audience,
        urls: load.urls.clone(),
        follows: load.follows,
        args: "x".repeat(load.payload_bytes),
        cut: OnceLock::new(),
        tally: Tally::new(audit, Window { from: load.warm_up, to: whole }),
        pen: Mutex::default(),
        scratch: Run::scratch(),
    });
    let sessions = (0..).zip(joined).map(|(number, joined)| Arc::new(Session::new(joined, number, &run)));
    let sessions: Vec<Arc<Session>> = sessions.collect();
    let mut tasks = JoinSet::new();
    for session in &sessions {
        tasks.spawn(client::play(Arc::clone(session), Arc::clone(&run)));
    }
    if beside.is_some() {
        run.tally.lock().phases = Some(Phases::new(load.late_after));
    }
    let driven = tokio::select! {
        driven = drive_beside(load, &run, &sessions, beside) => Some(driven),
        never = progress.show(&run) => match never {},
        () = &mut stop => None,
    };
    sessions.iter().for_each(|session| session.end(&run));
    // Each session's task has the only handle then, and with it the socket to close.
    drop(sessions);
    while let Some(task) = tasks.join_next().await {
        task.map_err(|e| anyhow!("a session failed: {e}"))?;
    }
    let counts = run.tally.lock();
    let load = &Load {
        duration: run.cut.get().map_or(load.duration + load.extra, |at| at.saturating_sub(load.warm_up)),
        ..load.clone()
    };
    Ok(match driven.transpose()? {
        None => Outcome::Interrupted(counts.audit.sent_count()),
        Some(Driven::GaveUp { behind, usage }) => Outcome::Saturated(Saturation::gave_up(behind, &counts.record, usage)),
        Some(Driven::Through(usage)) => match Saturation::of(&counts.record, usage, load.lateness_max) {
            // What contradicts itself does so however late the generator was.
            Some(saturation) if !counts.audit.faults().contradict() => Outcome::Saturated(saturation),
            _ => Outcome::Done(Box::new(Report::new(load, &counts, usage))),
        },
    })
}

/// How the schedule went.
#[derive(Debug)]
enum Driven {
    Through(Usage),
    GaveUp { behind: Duration, usage: Usage },
}

/// Joins every session, in the order of their numbers.
async fn join_all(load: &Load, plan: &Plan, tag: &str) -> Result<Vec<Joined>> {
    let joining = (0..plan.sessions()).map(|number| async move {
        let seat = plan.seat(number);
        let room = load.dialect.room(load.audience, tag, seat.room)?;
        let url = match u16::try_from(load.homes.len()) {
            Ok(shards) if shards > 0 => &load.homes[usize::from(ShardId::of(&RoomId::new(&room)?, shards).0)],
            _ => &load.urls[seat.url as usize],
        };
        joined::join(load.dialect, url, &room, &format!("p{number}")).await
    });
    stream::iter(joining).buffered(CONNECTING_MAX).try_collect().await
}

/// The schedule, which ends as soon as what is done beside it does.
async fn drive_beside(load: &Load, run: &Arc<Run>, sessions: &[Arc<Session>], beside: Option<Beside>) -> Result<Driven> {
    let Some(beside) = beside else { return drive(load, run, sessions).await };
    let beside = async {
        let done = beside(Arc::clone(run)).await;
        // A second end changes nothing.
        let _ = run.cut.set(run.elapsed());
        done
    };
    let (mut driving, mut beside, mut done) = (pin!(drive(load, run, sessions)), pin!(beside), None);
    let driven = loop {
        tokio::select! {
            driven = &mut driving => break driven?,
            ended = &mut beside, if done.is_none() => done = Some(ended),
        }
    };
    if matches!(driven, Driven::Through(_)) {
        match done {
            Some(done) => done?,
            None => match timeout(BESIDE_LEAVE, beside).await {
                Ok(done) => done?,
                Err(_) => bail!("what is done beside the run does not end within its time"),
            },
        }
    }
    Ok(driven)
}

/// Sends what is due, or lets the sessions do so, then waits until all is answered.
async fn drive(load: &Load, run: &Run, sessions: &[Arc<Session>]) -> Result<Driven> {
    let driven = match run.schedule {
        Some(schedule) => send_all(load, run, schedule, sessions).await?,
        None => {
            sleep_until(run.start + load.warm_up).await;
            let meter = Meter::read();
            sleep_until(run.start + run.end).await;
            Driven::Through(meter.usage())
        }
    };
    if matches!(driven, Driven::Through(_)) {
        drain(load, run).await;
    }
    Ok(driven)
}

/// Every action when it is due. What several actions of one session have to say at one time leaves with one system call.
async fn send_all(load: &Load, run: &Run, schedule: Schedule, sessions: &[Arc<Session>]) -> Result<Driven> {
    let mut pacer = Pacer::new().context("no timer for the schedule")?;
    let (mut next, mut touched) = (0, Vec::new());
    let mut meter = None;
    while next < run.plan.actions() && run.cut.get().is_none() {
        let (now, batch) = (Instant::now(), next);
        if now >= run.start + load.warm_up {
            meter.get_or_insert_with(Meter::read);
        }
        while next < run.plan.actions() && next - batch < BATCH_ACTIONS_MAX && run.start + schedule.due(next) <= now {
            let session = run.plan.action(next).session;
            sessions[session as usize].queue(run, next)?;
            touched.push(session);
            next += 1;
        }
        // A session that is flushed has nothing left to write when its turn comes again.
        for session in touched.drain(..) {
            sessions[session as usize].flush(run);
        }
        let due = run.start + schedule.due(next);
        let behind = now.saturating_duration_since(due);
        if behind > BEHIND_MAX {
            let usage = meter.unwrap_or_else(Meter::read).usage();
            return Ok(Driven::GaveUp { behind, usage });
        }
        if next < run.plan.actions() {
            pacer.until(due.max(now + schedule.pace())).await?;
        }
    }
    Ok(Driven::Through(meter.unwrap_or_else(Meter::read).usage()))
}

/// Returns when everything is answered, or the time for that is over.
async fn drain(load: &Load, run: &Run) {
    let deadline = Instant::now() + load.drain;
    while Instant::now() < deadline && !run.tally.lock().audit.settled() {
        sleep(Duration::from_millis(5)).await;
    }
    // A verdict that comes twice, or to nobody, comes late.
    sleep(Duration::from_millis(100)).await;
}

/// Every session is a file descriptor, and the usual limit is 1,024.
pub(crate) fn allow_files(needed: u64) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < needed {
        let raised = setrlimit(Resource::RLIMIT_NOFILE, needed.min(hard), hard);
        raised.ok().filter(|()| needed <= hard).with_context(|| {
            format!("{needed} open files are needed and {hard} allowed: use fewer sessions, or raise `ulimit -Hn`")
        })?;
    }
    Ok(())
}

//! One load run: joins all sessions, sends by the plan, waits for the answers, reports.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use lasthit::types::Incarnation;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::client::{self, Joined, Run};
use crate::frame::Encoding;
use crate::limits::{CONNECTING_MAX, LEAD, OUTBOX_ACTIONS_MAX, PACE, PROGRESS_INTERVAL};
use crate::pace::Pacer;
use crate::plan::Plan;
use crate::report::{Report, Setting};
use crate::tally::Tally;

/// Bytes of a claim's arguments.
const ARGS_BYTES: usize = 64;

/// What to run.
#[derive(Debug, Clone)]
pub(crate) struct RunConfig {
    /// The gateways.
    pub(crate) urls: Vec<String>,
    /// Sessions over all gateways.
    pub(crate) sessions: u32,
    /// Rooms that they play in.
    pub(crate) rooms: u32,
    /// Actions a second over all sessions.
    pub(crate) rate: u32,
    /// How long actions are sent.
    pub(crate) duration: Duration,
    /// How long the last answers may take.
    pub(crate) drain: Duration,
    /// How the sessions speak.
    pub(crate) encoding: Encoding,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// As planned.
    Done(Box<Report>),
    /// Somebody asked for it after so many actions.
    Interrupted(u64),
}

/// Runs until everything is answered or the drain time is over, or until `stop` is ready; closes all sessions before
/// it returns.
pub(crate) async fn run(config: &RunConfig, stop: impl Future<Output = ()>) -> Result<Ended> {
    let urls = u32::try_from(config.urls.len()).context("more urls than can be counted")?;
    let plan = Plan::new(config.sessions, config.rooms, urls, config.rate, config.duration)?;
    allow_files(u64::from(config.sessions) + 256)?;
    let mut stop = pin!(stop);
    let run = Arc::new(Run {
        tally: Tally::new(plan.actions()),
        plan,
        tag: Incarnation::random().to_string(),
        encoding: config.encoding,
        args: "x".repeat(ARGS_BYTES),
    });

    let joined = tokio::select! {
        joined = join_all(config, &run) => joined?,
        () = &mut stop => return Ok(Ended::Interrupted(0)),
    };
    let start = Instant::now() + LEAD;
    let mut tasks = JoinSet::new();
    let mut outboxes = Vec::with_capacity(joined.len());
    for (number, joined) in joined {
        let (outbox, actions) = mpsc::channel(OUTBOX_ACTIONS_MAX);
        outboxes.push(outbox);
        tasks.spawn(client::play(joined, number, start, Arc::clone(&run), actions));
    }

    let progress = tokio::spawn(show_progress(Arc::clone(&run), start));
    let driven = tokio::select! {
        driven = drive(config, &run, &outboxes, start) => Some(driven),
        () = &mut stop => None,
    };
    progress.abort();
    // Closed outboxes tell the sessions that the run is over; what they wait for besides is bounded.
    drop(outboxes);
    while let Some(task) = tasks.join_next().await {
        task.map_err(|e| anyhow!("a session failed: {e}"))?;
    }
    match driven {
        Some(driven) => {
            driven?;
            let setting = Setting::of(config);
            let report = Report::new(setting, &run.tally.lock());
            Ok(Ended::Done(Box::new(report)))
        }
        None => Ok(Ended::Interrupted(run.tally.lock().audit.sent_count())),
    }
}

/// Joins every session, in the order of their numbers.
async fn join_all(config: &RunConfig, run: &Run) -> Result<Vec<(u32, Joined)>> {
    let joining = (0..run.plan.sessions()).map(|number| async move {
        let seat = run.plan.seat(number);
        let url = &config.urls[seat.url as usize];
        let joined = client::join(url, &format!("load-{}", seat.room), &format!("p{number}"), run.encoding).await;
        joined.map(|joined| (number, joined))
    });
    stream::iter(joining).buffered(CONNECTING_MAX).try_collect().await
}

/// Puts every action into its session's outbox when it is due, then waits until all are answered.
async fn drive(config: &RunConfig, run: &Run, outboxes: &[mpsc::Sender<u64>], start: Instant) -> Result<()> {
    let mut pacer = Pacer::new().context("no timer for the schedule")?;
    let mut next = 0;
    while next < run.plan.actions() {
        let now = Instant::now();
        while next < run.plan.actions() && start + run.plan.due(next) <= now {
            let outbox = &outboxes[run.plan.action(next).session as usize];
            // A closed outbox is a session that broke, and is counted as that.
            if let Err(mpsc::error::TrySendError::Full(_)) = outbox.try_send(next) {
                run.tally.lock().unsent += 1;
            }
            next += 1;
        }
        pacer.until((start + run.plan.due(next)).max(now + PACE)).await?;
    }
    let deadline = Instant::now() + config.drain;
    // What waits in an outbox is not sent yet, so that the audit alone does not tell when all is over.
    while Instant::now() < deadline {
        let waiting = outboxes.iter().any(|o| !o.is_closed() && o.capacity() < OUTBOX_ACTIONS_MAX);
        if !waiting && run.tally.lock().audit.settled() {
            break;
        }
        sleep(Duration::from_millis(5)).await;
    }
    // A verdict that comes twice, or to nobody, comes late.
    sleep(Duration::from_millis(100)).await;
    Ok(())
}

/// A line that lives, when there is a terminal to draw it on.
async fn show_progress(run: Arc<Run>, start: Instant) {
    let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(run.plan.actions()).with_style(style);
    while !bar.is_hidden() {
        sleep(PROGRESS_INTERVAL).await;
        let (sent, message) = {
            let counts = run.tally.lock();
            let latency = &counts.record.latency;
            let seconds = Instant::now().saturating_duration_since(start).as_secs();
            let (p50, p99) = (latency.quantile_us(0.5), latency.quantile_us(0.99));
            let (sent, verdicts) = (counts.audit.sent_count(), latency.count());
            (sent, format!("{seconds} s  {sent} sent  {verdicts} verdicts  p50 {p50} µs  p99 {p99} µs"))
        };
        bar.set_position(sent);
        bar.set_message(message);
    }
}

/// Every session is a file descriptor, and the usual limit is 1,024.
fn allow_files(needed: u64) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < needed {
        let raised = setrlimit(Resource::RLIMIT_NOFILE, needed.min(hard), hard);
        raised.ok().filter(|()| needed <= hard).with_context(|| {
            format!("{needed} open files are needed and {hard} allowed: use fewer sessions, or raise `ulimit -Hn`")
        })?;
    }
    Ok(())
}

/// Writes the report's JSON.
pub(crate) fn write_json(report: &Report, path: &Path) -> Result<()> {
    let json = serde_json::to_string_pretty(report)?;
    std::fs::write(path, json + "\n").with_context(|| format!("{} cannot be written", path.display()))
}

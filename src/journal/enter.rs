//! How a process enters a deployment: it looks who is there, and says who it is.

use super::{Beats, CommonJournal, JournalError, Part, ProcessRecord};
use crate::limits::{CLONES_APART_US, CLONES_PAUSE};
use crate::types::Incarnation;

/// Looks whether this process may enter. Returns what it is to say of itself with each beat; it has not beaten yet. `url` is under which
/// URL players reach a gateway; None for a worker, and for a gateway that was told none. `offset_us` reads the wall clock less the
/// monotonic clock, in microseconds.
///
/// # Errors
/// [`JournalError::Refused`] for a gateway without a URL where another host has a worker, for a machine that has the name of another one,
/// and while processes of an earlier version use the journal on another host; otherwise when the journal does not work.
#[doc(hidden)]
pub async fn enter(
    journal: &dyn CommonJournal,
    me: Incarnation,
    part: Part,
    url: Option<&str>,
    offset_us: impl Fn() -> u64 + Send,
) -> Result<ProcessRecord, JournalError> {
    let host = journal.host().clone();
    let timeline = journal.timeline(host.as_str()).await?;
    if let Some(other) = journal.live_timelines(timeline, 0).await?.first() {
        return Err(JournalError::Refused(format!(
            "processes of an earlier version use this deployment on another host (timeline {other}): stop them first"
        )));
    }
    let mut record = ProcessRecord::new(me.process(), host, part);
    record.cores = std::thread::available_parallelism().ok().and_then(|cores| u32::try_from(cores.get()).ok()).unwrap_or(1);
    record.host_id = journal.host_id();
    record.offset_us = offset_us();
    record.url = url.unwrap_or_default().to_owned();
    // A beat that is good for 0 ms only reads.
    let beats = journal.beat(&record, 0).await?;
    if part == Part::Gateway && record.url.is_empty() {
        alone(&record, &beats)?;
    }
    if twin(&record, &beats).is_some() {
        // One of them may have been suspended a moment ago, and not have set its clock yet.
        tokio::time::sleep(CLONES_PAUSE).await;
        record.offset_us = offset_us();
        if let Some(twin) = twin(&record, &journal.beat(&record, 0).await?) {
            return Err(JournalError::Refused(format!(
                "process {} runs on another machine of the same name ({}), perhaps a clone of this one, and its clock is {} ms off: \
                 boot one of them anew",
                twin.incarnation,
                twin.host,
                twin.offset_us.abs_diff(record.offset_us) / 1_000
            )));
        }
    }
    record.ready = true;
    Ok(record)
}

/// A gateway that has no URL serves players where there is one host only.
fn alone(me: &ProcessRecord, beats: &Beats) -> Result<(), JournalError> {
    let Some(other) = beats.other_home(me) else { return Ok(()) };
    let url = beats.processes.iter().filter(|process| process.host == other.host).map(|process| process.url.as_str()).max();
    let url = url.filter(|url| !url.is_empty()).map_or_else(|| "without a URL".to_owned(), str::to_owned);
    Err(JournalError::Refused(format!(
        "another host ({}, {url}) uses this deployment: give this one --advertise URL, under which players reach it",
        other.host
    )))
}

/// A process with this host's name whose host has another id, and a clock that is set differently. Containers of one host may keep several
/// ids; they have one clock.
fn twin<'a>(me: &ProcessRecord, beats: &'a Beats) -> Option<&'a ProcessRecord> {
    let same = |other: &&ProcessRecord| other.incarnation != me.incarnation && other.host == me.host;
    let known = |other: &&ProcessRecord| other.host_id != 0 && me.host_id != 0 && other.host_id != me.host_id;
    let apart = |other: &&ProcessRecord| other.offset_us.abs_diff(me.offset_us) > CLONES_APART_US;
    beats.processes.iter().filter(same).filter(known).find(apart)
}

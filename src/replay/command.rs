//! `lasthit replay`, `lasthit dump` and `lasthit timeline`.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::timeline::{Timeline, draw};
use super::{Recording, ReplayError, dump};
use crate::config::Config;
use crate::journal::redis::{RedisJournal, RedisOptions};
use crate::rules::RulesBook;
use crate::types::RoomId;
use crate::worker::programs;

/// What to do with a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Where it is.
    pub source: Source,
    /// Whether to print JSON instead of text.
    pub json: bool,
    pub task: Task,
}

/// Where a recording is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// In the Redis of the configuration.
    Redis(RoomId),
    /// In a dump. If a room is given, the dump must be of this room.
    File(PathBuf, Option<RoomId>),
}

impl Source {
    /// What a command line names.
    ///
    /// # Errors
    /// One line: what is missing, or no room's name.
    pub(crate) fn of(room: Option<String>, file: Option<PathBuf>) -> Result<Self, String> {
        let room: Option<RoomId> = room.map(|room| room.parse()).transpose().map_err(|e| format!("--room: {e}"))?;
        match (room, file) {
            (room, Some(file)) => Ok(Self::File(file, room)),
            (Some(room), None) => Ok(Self::Redis(room)),
            (None, None) => Err("room is missing: give --room".to_owned()),
        }
    }
}

/// What to do with a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Task {
    /// Resolve it again and compare.
    Replay,
    /// Write it into a file.
    Dump(PathBuf),
    /// Draw a contest.
    Timeline {
        contest: String,
        /// Which of its rounds; None for the last.
        round: Option<u64>,
        /// Where the picture goes.
        svg: Option<PathBuf>,
    },
}

/// The result of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// What to print.
    pub text: String,
    /// Whether a verdict differs from the record.
    pub deviates: bool,
}

/// Most deviations that are printed one by one; JSON has all.
const TOLD_MAX: usize = 20;

/// Carries out the task.
///
/// # Errors
/// When the recording cannot be read or resolved, or a file cannot be written.
pub(crate) async fn run(reading: &Reading, config: &Config) -> Result<Told, ReplayError> {
    let recording = load(&reading.source, config).await?;
    // The programs end with the command. A room that nobody resolves again needs none.
    let (rules, _programs) = match &reading.task {
        Task::Dump(_) => programs::start(RulesBook::new())?,
        Task::Replay | Task::Timeline { .. } => programs::start(config.rules_book().of_room(&recording.room))?,
    };
    match &reading.task {
        Task::Replay => {
            let replayed = recording.resolve(&rules)?;
            let deviates = !replayed.deviations.is_empty();
            if reading.json {
                return Ok(Told { text: json(&replayed), deviates });
            }
            let mut text = format!(
                "room {} era {}: verdicts {} to {} resolved again, {} of {} are the same",
                replayed.room,
                replayed.era,
                replayed.from,
                replayed.to,
                replayed.verdicts.saturating_sub(replayed.deviations.len()),
                replayed.verdicts
            );
            for line in replayed.deviations.iter().take(TOLD_MAX) {
                let _ = write!(text, "\n  {line}");
            }
            if replayed.deviations.len() > TOLD_MAX {
                let _ = write!(text, "\n  and {} more: see --json", replayed.deviations.len() - TOLD_MAX);
            }
            Ok(Told { text, deviates })
        }
        Task::Dump(path) => {
            dump::write(&recording, path)?;
            let (room, entries) = (&recording.room, recording.entries.len());
            let text = format!(
                "room {room} era {}: {entries} entries up to verdict {} in {}",
                recording.era,
                recording.seq,
                path.display()
            );
            Ok(Told { text, deviates: false })
        }
        Task::Timeline { contest, round, svg } => {
            let timeline = Timeline::of(&recording, &rules, contest, *round)?;
            if let Some(path) = svg {
                write(path, &draw(&timeline))?;
            }
            let deviates = !timeline.replay.deviations.is_empty();
            let text = if reading.json { json(&timeline) } else { prose(&timeline) };
            Ok(Told { text, deviates })
        }
    }
}

/// Reads a recording.
///
/// # Errors
/// When it cannot be read.
pub(crate) async fn load(source: &Source, config: &Config) -> Result<Recording, ReplayError> {
    let room = match source {
        Source::Redis(room) => room,
        Source::File(path, wanted) => {
            let recording = dump::read(path)?;
            return match wanted {
                Some(room) if *room != recording.room => {
                    let why = format!("the dump is of room {}", recording.room);
                    Err(ReplayError::Unresolvable { room: room.clone(), why })
                }
                _ => Ok(recording),
            };
        }
    };
    let url = config.redis.as_ref().map(|url| url.reveal().to_owned()).unwrap_or_default();
    // As many shards as the deployment has.
    let options = RedisOptions { prefix: config.prefix.clone(), runtime_dir: None, ..RedisOptions::default() };
    let journal = RedisJournal::connect_to_read(&url, options).await?;
    Recording::read(&journal, room).await
}

fn write(path: &Path, text: &str) -> Result<(), dump::DumpError> {
    std::fs::write(path, text).map_err(|source| dump::DumpError::File { path: path.to_owned(), what: "written", source })
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

fn prose(timeline: &Timeline) -> String {
    let mut text = format!("{} round {} in room {}", timeline.contest, timeline.round, timeline.room);
    for c in &timeline.contenders {
        let late = c.behind_ns.map(|ns| {
            let winner = timeline.winner.map_or(0, |at| timeline.contenders[at].uncertainty_ns);
            format!(", {} late", super::timeline::shown(ns, c.uncertainty_ns.max(winner)))
        });
        let why = c.reason.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
        let flags = if c.flags.is_empty() { String::new() } else { format!(", {}", c.flags.join(", ")) };
        let _ = write!(
            text,
            "\n  verdict {}: {} {}{why}{}{flags}, gateway {}",
            c.seq,
            c.player,
            c.outcome,
            late.unwrap_or_default(),
            c.gateway
        );
    }
    for line in timeline.replay.deviations.iter().take(TOLD_MAX) {
        let _ = write!(text, "\n  deviates: {line}");
    }
    text
}

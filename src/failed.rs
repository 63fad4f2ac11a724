//! `lasthit failed`: the events that are void because rules failed on them, as the journal keeps them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::str::FromStr;

use serde_json::{Value, json};

use crate::config::Config;
use crate::journal::redis::{RedisJournal, RedisOptions};
use crate::journal::{CommonJournal as _, FailedJournal, JournalError};
use crate::limits::FAILED_PAGE;
use crate::types::{Failed, RoomId, ShardId, StreamId, VerdictKind};
use crate::wire::{action, failed};

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Looking {
    pub task: Task,
    /// Whether to print JSON instead of text.
    pub json: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Task {
    /// The newest of each pattern, newest first; only those of a pattern or a room, if one is given.
    List { pattern: Option<String>, room: Option<RoomId> },
    /// All of one.
    Show(Id),
    /// Drop these.
    Drop(Vec<Id>),
    /// Drop those of a pattern, or all.
    DropAll(Option<String>),
}

/// Names a failed event: `ROOM/ERA/SEQ`. Without an era the last one counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Id {
    pub room: RoomId,
    pub era: Option<u64>,
    pub seq: u64,
}

impl FromStr for Id {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no failed event: write it as list does, ROOM/ERA/SEQ");
        let [room, era, seq] = text.split('/').collect::<Vec<_>>().try_into().map_err(|_| wrong())?;
        let number = |text: &str| text.parse().map_err(|_| wrong());
        Ok(Self { room: room.parse().map_err(|_| wrong())?, era: Some(number(era)?), seq: number(seq)? })
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.era {
            Some(era) => write!(f, "{}/{era}/{}", self.room, self.seq),
            None => write!(f, "{} {}", self.room, self.seq),
        }
    }
}

impl Id {
    fn is_of(&self, kept: &Kept) -> bool {
        (&self.room, self.seq) == (&kept.room, kept.failed.seq) && self.era.is_none_or(|era| era == kept.failed.era)
    }
}

/// The result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// What to print.
    pub text: String,
    /// What is damaged, a line each.
    pub damaged: Vec<String>,
}

/// A failed event, and where it is kept.
#[derive(Debug)]
struct Kept {
    shard: ShardId,
    pattern: String,
    at: StreamId,
    room: RoomId,
    wall_ms: u64,
    failed: Failed,
}

/// Carries out the task.
///
/// # Errors
/// When the journal does not work, or has no such failed event: one line.
pub(crate) async fn run(looking: &Looking, config: &Config) -> Result<Told, String> {
    let url = config.redis.as_ref().map(|url| url.reveal().to_owned()).unwrap_or_default();
    let options = RedisOptions { prefix: config.prefix.clone(), runtime_dir: None, ..RedisOptions::default() };
    let journal = RedisJournal::connect_to_read(&url, options).await.map_err(|e| e.to_string())?;
    let mut damaged = Vec::new();
    let text = match &looking.task {
        Task::List { pattern, room } => {
            let mut kept = newest(&journal, pattern.as_deref(), &mut damaged).await?;
            kept.retain(|kept| room.as_ref().is_none_or(|room| *room == kept.room));
            if looking.json {
                pretty(&json!({ "failed": kept.iter().map(Kept::json).collect::<Vec<_>>(), "damaged": damaged }))
            } else {
                listed(&kept)
            }
        }
        Task::Show(id) => {
            let kept = find(&journal, id).await?;
            if looking.json { pretty(&kept.json()) } else { kept.prose() }
        }
        Task::Drop(ids) => {
            let mut dropped = 0;
            for id in ids {
                let Kept { shard, pattern, at, .. } = find(&journal, id).await?;
                dropped += journal.drop_failed(shard, &pattern, &[at]).await.map_err(|e| e.to_string())?;
            }
            told_dropped(dropped, looking.json)
        }
        Task::DropAll(only) => {
            let mut dropped = 0;
            for shard in (0..journal.shards()).map(ShardId) {
                let patterns = match only {
                    Some(pattern) => vec![pattern.clone()],
                    None => match journal.failed_patterns(shard).await {
                        Ok(patterns) => patterns.into_iter().map(|(pattern, _)| pattern).collect(),
                        Err(error) => {
                            damaged.push(readable(error)?);
                            continue;
                        }
                    },
                };
                for pattern in patterns {
                    dropped += journal.drop_failed(shard, &pattern, &[]).await.map_err(|e| e.to_string())?;
                }
            }
            told_dropped(dropped, looking.json)
        }
    };
    Ok(Told { text, damaged })
}

/// The line for what is damaged; other errors end the command.
fn readable(error: JournalError) -> Result<String, String> {
    match error {
        JournalError::Unexpected(why) | JournalError::Damaged(why) => Ok(why),
        other => Err(other.to_string()),
    }
}

/// The newest failed events of all shards, newest first: of each pattern as many as it keeps.
async fn newest(journal: &RedisJournal, only: Option<&str>, damaged: &mut Vec<String>) -> Result<Vec<Kept>, String> {
    let mut by_pattern: BTreeMap<String, (Vec<Kept>, u32)> = BTreeMap::new();
    for shard in (0..journal.shards()).map(ShardId) {
        let patterns = match journal.failed_patterns(shard).await {
            Ok(patterns) => patterns,
            Err(error) => {
                damaged.push(readable(error)?);
                continue;
            }
        };
        for (pattern, keep) in patterns.into_iter().filter(|(pattern, _)| only.is_none_or(|only| only == pattern)) {
            let (all, last_keep) = by_pattern.entry(pattern.clone()).or_default();
            let newest_before = all.first().map(Kept::age);
            all.extend(read(journal, shard, &pattern, damaged).await?);
            all.sort_by_key(|kept| std::cmp::Reverse(kept.age()));
            // What was written last knows what is configured now.
            if all.first().map(Kept::age) != newest_before {
                *last_keep = keep;
            }
            all.truncate(usize::try_from((*last_keep).max(keep)).unwrap_or(usize::MAX));
        }
    }
    let mut all: Vec<Kept> = Vec::new();
    for (mut kept, keep) in by_pattern.into_values() {
        kept.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
        all.extend(kept);
    }
    all.sort_by_key(|kept| std::cmp::Reverse(kept.age()));
    Ok(all)
}

/// All of a pattern in one shard, newest first.
async fn read(journal: &RedisJournal, shard: ShardId, pattern: &str, damaged: &mut Vec<String>) -> Result<Vec<Kept>, String> {
    let (mut all, mut before) = (Vec::new(), None);
    loop {
        let page = match journal.failed(shard, pattern, before).await {
            Ok(page) => page,
            Err(error) => {
                damaged.push(readable(error)?);
                return Ok(all);
            }
        };
        for (at, record) in &page {
            match failed::decode(record) {
                Ok((room, wall_ms, failed)) => {
                    all.push(Kept { shard, pattern: pattern.to_owned(), at: *at, room, wall_ms, failed });
                }
                Err(error) => damaged.push(format!("shard {shard}, pattern {pattern:?}, {at}: {error}")),
            }
        }
        before = page.last().map(|(at, _)| *at);
        if page.len() < FAILED_PAGE {
            return Ok(all);
        }
    }
}

async fn find(journal: &RedisJournal, id: &Id) -> Result<Kept, String> {
    let shard = ShardId::of(&id.room, journal.shards());
    let mut found: Option<Kept> = None;
    for (pattern, _) in journal.failed_patterns(shard).await.map_err(|e| e.to_string())? {
        for kept in read(journal, shard, &pattern, &mut Vec::new()).await?.into_iter().filter(|kept| id.is_of(kept)) {
            if found.as_ref().is_none_or(|found| found.failed.era < kept.failed.era) {
                found = Some(kept);
            }
        }
    }
    found.ok_or_else(|| format!("no failed event {id} is kept: see lasthit failed list"))
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

fn listed(all: &[Kept]) -> String {
    let mut text = String::new();
    for kept in all {
        let Failed { program, version, error, .. } = &kept.failed;
        let (time, player) = (time(kept.wall_ms), kept.failed.player.as_ref().map_or("-", |player| player.as_str()));
        let _ =
            writeln!(text, "{}  {time}  {}  {program} v{version}  {}  {player}  {error}", kept.id(), kept.pattern, kept.event());
    }
    let _ = write!(text, "{}", counted(all.len() as u64, ""));
    text
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} failed event{}{what}", if count == 1 { "" } else { "s" })
}

fn told_dropped(dropped: u64, json: bool) -> String {
    if json { pretty(&json!({ "dropped": dropped })) } else { counted(dropped, " dropped") }
}

/// A wall clock's time, to the millisecond.
pub(crate) fn time(ms: u64) -> String {
    let time = i64::try_from(ms).ok().filter(|ms| *ms > 0).and_then(chrono::DateTime::from_timestamp_millis);
    time.map_or_else(|| "unknown".to_owned(), |time| time.to_string().replacen(' ', "T", 1).replace(" UTC", "Z"))
}

impl Kept {
    fn id(&self) -> Id {
        Id { room: self.room.clone(), era: Some(self.failed.era), seq: self.failed.seq }
    }

    /// Sorts by time.
    fn age(&self) -> (u64, ShardId, StreamId) {
        (self.wall_ms, self.shard, self.at)
    }

    fn action(&self) -> Option<Value> {
        let read = action::decode(self.failed.action.as_ref()?).ok()?;
        let args = rmp_serde::from_slice::<Value>(&read.args);
        let args =
            args.unwrap_or_else(|_| json!({ "messagepack": read.args.iter().map(|b| format!("{b:02x}")).collect::<String>() }));
        Some(json!({ "op": read.op, "id": read.id, "contest": read.contest, "args": args }))
    }

    /// The event in a few words.
    fn event(&self) -> String {
        match (self.failed.kind, &self.failed.timer) {
            (VerdictKind::Data, _) => {
                let action = self.action();
                action.map_or_else(|| "data".to_owned(), |action| format!("data {}", action["op"]))
            }
            (VerdictKind::Timer, Some(name)) => format!("timer {name:?}"),
            (kind, _) => kind.as_str().to_owned(),
        }
    }

    fn json(&self) -> Value {
        let Failed { era, seq, now, kind, timer, player, program, version, reason, error, stack, .. } = &self.failed;
        json!({
            "id": self.id().to_string(), "pattern": self.pattern, "room": self.room.as_str(), "era": era, "seq": seq,
            "time_ms": self.wall_ms, "room_time_ms": now.ms(), "event": kind.as_str(), "timer": timer,
            "player": player.as_ref().map(|player| player.as_str()), "action": self.action(), "program": program, "version": version,
            "reason": reason, "error": error, "stack": stack,
        })
    }

    fn prose(&self) -> String {
        let Failed { now, player, program, version, reason, error, stack, .. } = &self.failed;
        let mut text = format!(
            "{}\ntime       {}\nroom time  {}\npattern    {}\nprogram    {program} version {version}\nevent      {}",
            self.id(),
            time(self.wall_ms),
            time(now.ms()),
            self.pattern,
            self.event(),
        );
        if let Some(player) = player {
            let _ = write!(text, "\nplayer     {player}");
        }
        if let Some(action) = self.action() {
            let _ = write!(text, "\naction     {action}");
        }
        let _ = write!(text, "\nreason     {reason}\nerror      {error}");
        for (at, line) in stack.iter().enumerate() {
            let _ = write!(text, "\n{}{line}", if at == 0 { "stack      " } else { "           " });
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_told() {
        let id: Id = "pit-3/7/42".parse().expect("good");
        assert_eq!((id.room.as_str(), id.era, id.seq, id.to_string().as_str()), ("pit-3", Some(7), 42, "pit-3/7/42"));
        for wrong in ["pit-3", "pit-3/7", "pit-3/7/42/1", "pit-3/x/42", "p t/7/42", "/7/42"] {
            let error = wrong.parse::<Id>().expect_err(wrong);
            assert!(error.contains("ROOM/ERA/SEQ") && error.contains(wrong) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn times_are_told_to_the_millisecond() {
        assert_eq!((time(1_795_342_634_123).as_str(), time(0).as_str()), ("2026-11-22T10:17:14.123Z", "unknown"));
    }
}

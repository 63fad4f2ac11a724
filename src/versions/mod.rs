//! `lasthit rules push`, `list`, `drop` and `try`: the programs of a deployment, version by version.

mod trying;
mod unused;

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::config::Config;
use crate::failed::time;
use crate::journal::redis::{RedisJournal, RedisOptions};
use crate::journal::{JournalError, ProgramJournal as _, PushAnswer, Pushed, PushedBy};
use crate::replay::command::Source;
use crate::types::ProgramId;
use crate::{workbench, worker};

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Managing {
    pub(crate) task: Task,
    /// Whether to print JSON instead of text.
    pub(crate) json: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Task {
    /// Let the program in this file decide the rooms of a pattern.
    Push {
        file: PathBuf,
        pattern: String,
        /// Whether rooms that refused it try again.
        again: bool,
    },
    /// Say what decides, and what is kept.
    List,
    /// Say what the program in this file would have decided otherwise.
    Try { file: PathBuf, source: Source },
    /// Drop the programs that nothing names.
    DropUnused,
}

impl Task {
    /// The exit code if it cannot be carried out.
    pub(crate) fn fails_with(&self) -> u8 {
        if matches!(self, Self::Try { .. }) { 2 } else { 1 }
    }
}

/// The result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// What to print.
    pub(crate) text: String,
    /// Whether a decision comes out otherwise.
    pub(crate) differs: bool,
}

/// Carries out the task.
///
/// # Errors
/// One line.
pub(crate) async fn run(managing: &Managing, config: &Config) -> Result<Told, String> {
    let json = managing.json;
    let told = |text: String| Told { text, differs: false };
    match &managing.task {
        Task::Push { file, pattern, again } => push(config, file, pattern, *again).await.map(|pushed| told(pushed.told(json))),
        Task::List => list(&connect(config).await?, json).await.map(told),
        Task::Try { file, source } => trying::run(config, file, source, json).await,
        Task::DropUnused => unused::run(&connect(config).await?, json).await.map(told),
    }
}

async fn connect(config: &Config) -> Result<RedisJournal, String> {
    let url = config.redis.as_ref().map(|url| url.reveal().to_owned()).unwrap_or_default();
    let options = RedisOptions { prefix: config.prefix.clone(), runtime_dir: None, ..RedisOptions::default() };
    RedisJournal::connect_to_read(&url, options).await.map_err(line)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn line(error: JournalError) -> String {
    error.to_string()
}

/// A push, and what decided before.
struct Changed {
    now: Pushed,
    before: Option<Pushed>,
}

impl Changed {
    fn told(&self, json: bool) -> String {
        let Self { now, before } = self;
        let is_new = before.as_ref().is_none_or(|before| before.push != now.push);
        if json {
            let before = before.as_ref().filter(|_| is_new);
            return pretty(&json!({ "pushed": is_new, "now": pushed_json(now), "before": before.map(pushed_json) }));
        }
        let Pushed { pattern, name, version, program, push, .. } = now;
        if !is_new {
            return format!(
                "{pattern}: {name} version {version} ({program}) decides already, since push {push}. With --again, rooms that refused \
                 it try again"
            );
        }
        let from = match before {
            Some(before) if before.program == *program => ", again".to_owned(),
            Some(before) => format!(", before version {} ({})", before.version, before.program),
            None => String::new(),
        };
        format!(
            "{pattern}: {name} version {version} ({program}) is push {push}{from}. Each room changes with its next event or timer"
        )
    }
}

async fn push(config: &Config, file: &std::path::Path, pattern: &str, again: bool) -> Result<Changed, String> {
    let program = workbench::checked(file)?;
    let journal = connect(config).await?;
    let before = journal.pushed_programs().await.map_err(line)?;
    let by = if again { PushedBy::HandAgain } else { PushedBy::Hand };
    let push = worker::as_push(pattern, &program, by);
    let answer = journal.push_program(&push).await.map_err(line)?;
    let why = worker::refusal(&push, program.file(), &answer).unwrap_or_default();
    match answer {
        PushAnswer::Decides(now) => Ok(Changed { before: before.into_iter().find(|before| before.pattern == now.pattern), now }),
        PushAnswer::Unknown if before.is_empty() => {
            Err(format!("{why}, nor any others: start a worker with one first (rules = {{ file }})"))
        }
        PushAnswer::Unknown => {
            let known: Vec<String> = before.iter().map(|known| format!("{:?}", known.pattern)).collect();
            Err(format!("{why}: the patterns that have one are {}", known.join(", ")))
        }
        PushAnswer::Stays(_) | PushAnswer::Full => Err(why),
    }
}

fn pushed_json(pushed: &Pushed) -> Value {
    let Pushed { pattern, program, push, name, version, at_ms } = pushed;
    json!({
        "pattern": pattern, "name": name, "version": version, "program": program.to_string(), "push": push, "time_ms": at_ms,
    })
}

/// What decides the rooms of each pattern, and which other programs are kept.
async fn list(journal: &RedisJournal, json: bool) -> Result<String, String> {
    let (pushed, kept) = (journal.pushed_programs().await.map_err(line)?, journal.kept_programs().await.map_err(line)?);
    let mut of_patterns = Vec::new();
    for pushed in &pushed {
        // Read, as a damaged text is as good as none.
        let text = journal.program(pushed.program).await.map_err(line)?;
        of_patterns.push((pushed, text.map(|text| text.len())));
    }
    let others: Vec<(ProgramId, usize)> =
        kept.into_iter().filter(|(program, _)| pushed.iter().all(|pushed| pushed.program != *program)).collect();
    if json {
        let patterns: Vec<Value> = of_patterns
            .iter()
            .map(|(pushed, bytes)| {
                let mut value = pushed_json(pushed);
                value["bytes"] = json!(bytes);
                value
            })
            .collect();
        let others: Vec<Value> =
            others.iter().map(|(program, bytes)| json!({ "program": program.to_string(), "bytes": bytes })).collect();
        return Ok(pretty(&json!({ "patterns": patterns, "others": others })));
    }
    let mut text = String::new();
    for (Pushed { pattern, program, push, name, version, at_ms }, bytes) in of_patterns {
        let bytes = bytes.map_or_else(|| "not there, or damaged: push it again".to_owned(), |bytes| format!("{bytes} bytes"));
        let _ = writeln!(text, "{pattern}  {name} v{version}  {program}  {bytes}  push {push}  {}", time(*at_ms));
    }
    for (program, bytes) in &others {
        let _ = writeln!(text, "-  {program}  {bytes} bytes");
    }
    let (patterns, programs) = (pushed.len(), others.len());
    let _ = write!(
        text,
        "{patterns} pattern{}, {programs} other program{}",
        if patterns == 1 { "" } else { "s" },
        if programs == 1 { "" } else { "s" }
    );
    Ok(text)
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

//! Programs in files: what was pushed, and what recorded rooms were decided by.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::job::Loading;
use super::step::{Failure, Input, Scope};
use crate::journal::{self, JournalError, ProgramPush, PushAnswer, Pushed, PushedBy, WorkerJournal};
use crate::limits::{PROGRAMS_INTERVAL, PROGRAMS_KEPT_MAX, PROGRAMS_OPEN_MAX};
use crate::rules::js::Program;
use crate::rules::{FileRules, Library, Rules, RulesBook, Unopened};
use crate::types::{ProgramId, RoomId, ShardId};

/// The programs that this worker has read.
pub(super) struct Shelf {
    book: RulesBook,
    read: Mutex<Read>,
}

#[derive(Default)]
struct Read {
    /// None for a program that is not there.
    texts: HashMap<ProgramId, Option<Bytes>>,
    /// Loaded for the rooms of a pattern, in its budget.
    loaded: HashMap<(ProgramId, String), FileRules>,
}

impl Shelf {
    pub(super) fn new(book: RulesBook) -> Self {
        Self { book, read: Mutex::default() }
    }

    /// Takes in what the journal has of a program.
    pub(super) fn put(&self, program: ProgramId, text: Option<Bytes>) {
        let texts = &mut self.read.lock().texts;
        if texts.len() >= PROGRAMS_OPEN_MAX {
            texts.clear();
        }
        texts.insert(program, text);
    }
}

impl Library for Shelf {
    fn open(&self, room: &RoomId, program: ProgramId) -> Result<Box<dyn Rules>, Unopened> {
        let failed = |why: &str| Unopened::Failed(why.to_owned());
        let file = self.book.file_of(room).ok_or_else(|| failed("its rules are no file any more: give it rules = { file }"))?;
        if file.program.id() == program {
            return Ok(file.new_room());
        }
        let key = (program, self.book.pattern_of(room).unwrap_or_default().to_owned());
        let mut read = self.read.lock();
        if let Some(loaded) = read.loaded.get(&key).map(FileRules::new_room) {
            read.texts.remove(&program);
            return Ok(loaded);
        }
        // What is not there is looked for again when the room is loaded again.
        let Some(text) = read.texts.remove(&program) else { return Err(Unopened::Unread) };
        drop(read);
        let text = text.ok_or_else(|| {
            failed(&format!(
                "its program {program} is not in the journal, or damaged there: push its file again (lasthit rules push)"
            ))
        })?;
        let loaded = file.with_text(&text).map_err(|why| failed(&format!("its program {program} cannot be loaded: {why}")))?;
        let rules = loaded.new_room();
        let loaded_before = &mut self.read.lock().loaded;
        if loaded_before.len() >= PROGRAMS_OPEN_MAX {
            loaded_before.clear();
        }
        loaded_before.insert(key, loaded);
        Ok(rules)
    }
}

/// A program of the book, as it is to be pushed.
pub(crate) fn as_push(pattern: &str, program: &Program, by: PushedBy) -> ProgramPush {
    let (name, text) = (program.name().to_owned(), Bytes::copy_from_slice(program.text().as_bytes()));
    ProgramPush { pattern: pattern.to_owned(), name, version: program.version(), text, by }
}

/// Why a push changes nothing, in one line that says what to do. None if it decides.
pub(crate) fn refusal(push: &ProgramPush, file: &str, answer: &PushAnswer) -> Option<String> {
    let ProgramPush { pattern, name, version, .. } = push;
    Some(match answer {
        PushAnswer::Decides(_) => return None,
        PushAnswer::Stays(other) if other.name != *name => {
            format!(
                "{file} calls itself {name:?}, the rooms of {pattern:?} are decided by {:?}: give it the same name",
                other.name
            )
        }
        PushAnswer::Stays(other) => {
            format!("{file} has version {version}, the rooms of {pattern:?} are decided by version {}: raise it", other.version)
        }
        PushAnswer::Full => {
            format!("the journal keeps {PROGRAMS_KEPT_MAX} programs, which is the most: drop some (lasthit rules drop --unused)")
        }
        PushAnswer::Unknown => format!("no program in a file decides the rooms of {pattern:?}"),
    })
}

/// Settles with the journal what the patterns' rooms are decided by: by the file of this worker, or by what was pushed.
pub(super) async fn settle(journal: &dyn WorkerJournal, mut book: RulesBook) -> Result<RulesBook, JournalError> {
    let files: Vec<(String, Arc<Program>)> =
        book.files().map(|(pattern, file)| (pattern.to_owned(), file.program.clone())).collect();
    for (pattern, mine) in files {
        let push = as_push(&pattern, &mine, PushedBy::Start);
        let answer = journal.push_program(&push).await?;
        let why = refusal(&push, mine.file(), &answer).unwrap_or_default();
        match answer {
            PushAnswer::Decides(pushed) => book.set_file(&pattern, mine, pushed.push),
            PushAnswer::Stays(pushed) => {
                tracing::warn!(
                    "rooms stay with the program {} that was pushed, and do not change to {}: {why}",
                    pushed.program,
                    mine.id()
                );
                take(journal, &mut book, &pushed, false).await?;
            }
            PushAnswer::Full | PushAnswer::Unknown => {
                tracing::error!("rooms of {} cannot be continued elsewhere: {why}", mine.file());
            }
        }
    }
    Ok(book)
}

/// [`settle`], as often as it takes. None if the worker is asked to stop first.
pub(super) async fn settled(journal: &dyn WorkerJournal, book: RulesBook, stop: &CancellationToken) -> Option<RulesBook> {
    let failed = |error| {
        tracing::warn!(%error, "which programs decide cannot be asked: trying again");
        std::future::ready(Ok::<(), Infallible>(()))
    };
    let settling = journal::insist(|| settle(journal, book.clone()), failed);
    stop.run_until_cancelled(settling).await.map(|settled| settled.unwrap_or_else(|never| match never {}))
}

/// Reads a program that a job needs.
pub(super) async fn fetch(
    journal: Arc<dyn WorkerJournal>,
    shelf: Arc<Shelf>,
    (shard, program, loading): (ShardId, ProgramId, Box<Loading>),
    inputs: mpsc::Sender<Input>,
) {
    let failed =
        |error| inputs.send(Input::Failed(Failure::new("read a program", Scope::Shared, error).at(journal.beside(None))));
    if let Ok(text) = journal::insist(|| journal.program(program), failed).await {
        shelf.put(program, text);
        let _ = inputs.send(Input::Fetched(shard, loading)).await;
    }
}

/// Follows the pushes, and tells the worker of each.
pub(super) async fn follow(journal: Arc<dyn WorkerJournal>, mut book: RulesBook, told: Arc<Notify>, inputs: mpsc::Sender<Input>) {
    if book.files().next().is_none() {
        return;
    }
    let mut refused = HashMap::new();
    loop {
        match catch_up(&*journal, &mut book, &mut refused).await {
            Ok(false) => {}
            Ok(true) => {
                if inputs.send(Input::Rules(book.clone())).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                let failure = Failure::new("read the pushed programs", Scope::Shared, error).at(journal.beside(None));
                if inputs.send(Input::Failed(failure)).await.is_err() {
                    return;
                }
            }
        }
        let _ = tokio::time::timeout(PROGRAMS_INTERVAL, told.notified()).await;
    }
}

/// Returns whether the book has changed. `refused` has the last push of a pattern that cannot be loaded here: that is told once.
async fn catch_up(
    journal: &dyn WorkerJournal,
    book: &mut RulesBook,
    refused: &mut HashMap<String, u64>,
) -> Result<bool, JournalError> {
    let pushed = journal.pushed_programs().await?;
    let known: Vec<(String, u64, Arc<Program>)> =
        book.files().map(|(pattern, file)| (pattern.to_owned(), book.push_of_pattern(pattern), file.program.clone())).collect();
    let mut changed = false;
    for (pattern, push, mine) in known {
        let now = match pushed.iter().find(|pushed| pushed.pattern == pattern) {
            Some(pushed) if pushed.push == push => continue,
            Some(pushed) if pushed.push > push => pushed.clone(),
            // The journal has lost the last pushes: rooms may have changed to this program by now, so it is pushed again.
            found => {
                let by = if found.is_some() { PushedBy::Hand } else { PushedBy::Start };
                match journal.push_program(&as_push(&pattern, &mine, by)).await? {
                    PushAnswer::Decides(pushed) | PushAnswer::Stays(pushed) => pushed,
                    PushAnswer::Full | PushAnswer::Unknown => continue,
                }
            }
        };
        let is_told = refused.get(&pattern) == Some(&now.push);
        let taken = take(journal, book, &now, is_told).await?;
        if !taken {
            refused.insert(pattern, now.push);
        }
        changed |= taken;
    }
    Ok(changed)
}

/// Lets a pushed program decide its pattern's rooms. Returns whether it does; says why not, unless that is told already.
async fn take(journal: &dyn WorkerJournal, book: &mut RulesBook, pushed: &Pushed, is_told: bool) -> Result<bool, JournalError> {
    let Pushed { pattern, program, push, name, version, .. } = pushed;
    let Some(file) = book.files().find(|(known, _)| known == pattern).map(|(_, file)| file.clone()) else { return Ok(false) };
    if file.program.id() == *program {
        book.set_file(pattern, file.program, *push);
        return Ok(true);
    }
    let Some(text) = journal.program(*program).await? else {
        if !is_told {
            tracing::error!(
                %pattern,
                "the program {name} version {version} ({program}) was pushed and is not there, or damaged: push it again"
            );
        }
        return Ok(false);
    };
    let loaded = tokio::task::spawn_blocking(move || file.with_text(&text)).await;
    match loaded.unwrap_or_else(|error| Err(error.to_string())) {
        Ok(file) => {
            tracing::info!(%pattern, "rooms change to {name} version {version} ({program})");
            book.set_file(pattern, file.program, *push);
            Ok(true)
        }
        Err(why) => {
            if !is_told {
                tracing::error!(%pattern, "rooms stay with their program: {why}");
            }
            Ok(false)
        }
    }
}

//! The files of programs, read again: when they change (`--watch`), and when the operator says so (SIGHUP). What is read is pushed, as
//! `lasthit rules push` does.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use crate::config::program_text;
use crate::journal::{PushAnswer, PushedBy, WorkerJournal};
use crate::limits::WATCH_INTERVAL;
use crate::rules::{FileRules, RulesBook};
use crate::worker::{as_push, refusal};

/// Pushes the files of the book when they have changed, until it is dropped. Returns if there are none.
pub(super) async fn follow_files(journal: Arc<dyn WorkerJournal>, book: RulesBook, watch: bool) {
    let mut files: Vec<File> = book.files().map(|(pattern, rules)| File::new(pattern, rules.clone())).collect();
    if files.is_empty() {
        return;
    }
    let mut asked = match signal(SignalKind::hangup()) {
        Ok(asked) => asked,
        Err(error) => {
            tracing::warn!(%error, "SIGHUP cannot be watched: the files of programs are not read again");
            return;
        }
    };
    let mut look = tokio::time::interval(WATCH_INTERVAL);
    loop {
        tokio::select! {
            Some(()) = asked.recv() => {
                tracing::info!("SIGHUP: the files of programs are read again");
                for file in &mut files {
                    file.push(&*journal, true).await;
                }
            }
            _ = look.tick(), if watch => {
                for file in &mut files {
                    file.push(&*journal, false).await;
                }
            }
        }
    }
}

struct File {
    pattern: String,
    rules: FileRules,
    /// What was in it at the last look, and what was pushed, or refused. It is pushed once it has stood still for a look.
    seen: Vec<u8>,
    taken: Vec<u8>,
}

impl File {
    fn new(pattern: &str, rules: FileRules) -> Self {
        let text = rules.program.text().as_bytes().to_vec();
        Self { pattern: pattern.to_owned(), rules, seen: text.clone(), taken: text }
    }

    /// Pushes what is in the file, if it is new; `asked`: at once, and whatever is wrong is told again.
    async fn push(&mut self, journal: &dyn WorkerJournal, asked: bool) {
        let (pattern, path) = (&self.pattern, self.rules.path.clone());
        let text = match tokio::task::spawn_blocking(move || program_text(&path)).await {
            Ok(Ok(text)) => text,
            // An editor may be about to write it.
            Ok(Err(why)) if asked => {
                tracing::error!(%pattern, "{} {why}; its rooms stay with their program", self.rules.path.display());
                return;
            }
            _ => return,
        };
        let stands_still = std::mem::replace(&mut self.seen, text.clone()) == text;
        if !asked && (!stands_still || text == self.taken) {
            return;
        }
        self.taken.clone_from(&text);
        let rules = self.rules.clone();
        let loaded = tokio::task::spawn_blocking(move || rules.with_text(&text)).await;
        let program = match loaded.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(loaded) => loaded.program,
            Err(why) => {
                tracing::error!(%pattern, "rooms stay with their program: {why}");
                return;
            }
        };
        let push = as_push(pattern, &program, PushedBy::Hand);
        let told = match journal.push_program(&push).await {
            Ok(answer) => {
                let Some(why) = refusal(&push, program.file(), &answer) else { return };
                if answer == PushAnswer::Unknown {
                    // The worker is about to start: at the next look it is tried again.
                    self.taken.clear();
                }
                why
            }
            Err(error) => {
                // At the next look it is tried again.
                self.taken.clear();
                error.to_string()
            }
        };
        tracing::error!(%pattern, "rooms stay with their program: {told}");
    }
}

//! The files of programs, read again: at each look (`--watch`), and when the operator says so (SIGHUP). What has changed since this
//! process last pushed it is pushed, as `lasthit rules push` does. A file that has not changed replaces nothing that was pushed
//! elsewhere meanwhile.

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
    /// Whether it was refused: that is told again when somebody asks.
    refused: bool,
}

impl File {
    fn new(pattern: &str, rules: FileRules) -> Self {
        let text = rules.program.text().as_bytes().to_vec();
        Self { pattern: pattern.to_owned(), rules, seen: text.clone(), taken: text, refused: false }
    }

    /// Pushes what is in the file, if it is new; `asked`: at once, and what was refused is tried again.
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
        let is_due = if asked { text != self.taken || self.refused } else { text != self.taken && stands_still };
        if !is_due {
            return;
        }
        self.taken.clone_from(&text);
        self.refused = true;
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
                let Some(why) = refusal(&push, program.file(), &answer) else {
                    self.refused = false;
                    return;
                };
                if answer == PushAnswer::Unknown {
                    // The worker is about to start: it is tried again, at the next look or when somebody asks.
                    self.taken.clear();
                }
                why
            }
            Err(error) => {
                // As above.
                self.taken.clear();
                error.to_string()
            }
        };
        tracing::error!(%pattern, "rooms stay with their program: {told}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::ProgramJournal as _;
    use crate::journal::memory::MemoryJournal;
    use crate::rules::js::{Budget, Checking, Program};
    use crate::types::ProgramId;

    fn text(version: u32, more: &str) -> String {
        format!("export default {{ name: 'pit', version: {version} }}; // {more}")
    }

    #[tokio::test]
    async fn a_file_that_has_not_changed_replaces_nothing() {
        let (journal, folder) = (MemoryJournal::new(1), tempfile::tempdir().expect("folder"));
        let path = folder.path().join("pit.js");
        let load = |text: &str| Program::load("pit.js", text.as_bytes(), Budget::default()).expect("a program");
        let write = |text: &str| std::fs::write(&path, text).expect("written");
        let decides = async || journal.pushed_programs().await.expect("asked")[0].program;
        let id = |text: &str| ProgramId::of(text.as_bytes());
        let (first, by_hand, next) = (text(1, "first"), text(1, "by hand"), text(1, "next"));
        write(&first);
        let rules = FileRules { path: path.clone(), program: load(&first), checking: Checking::Off };
        let mut file = File::new("pit-*", rules);
        journal.push_program(&as_push("pit-*", &load(&first), PushedBy::Start)).await.expect("pushed");
        journal.push_program(&as_push("pit-*", &load(&by_hand), PushedBy::Hand)).await.expect("pushed");

        file.push(&journal, true).await;
        assert_eq!(decides().await, id(&by_hand), "what is in the file is what this process had already");
        write(&next);
        file.push(&journal, false).await;
        assert_eq!(decides().await, id(&by_hand), "it has not stood still");
        file.push(&journal, true).await;
        assert_eq!(decides().await, id(&next));

        // What was refused is tried again when somebody asks: another may decide by then.
        journal.push_program(&as_push("pit-*", &load(&text(2, "")), PushedBy::Hand)).await.expect("pushed");
        write(&first);
        file.push(&journal, true).await;
        assert!(file.refused && decides().await == id(&text(2, "")));
        file.rules.program = load(&text(3, ""));
        write(&text(3, ""));
        file.push(&journal, true).await;
        assert!(!file.refused && decides().await == id(&text(3, "")));
    }
}

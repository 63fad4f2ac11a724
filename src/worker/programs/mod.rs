//! Programs that decide rooms from outside: they are started, watched, asked and ended here. `docs/rules-protocol.md` is the author's
//! side of it, [`crate::rules::Process`] the rules'.
//!
//! Each instance has a thread that keeps it: it starts the process, waits for its `hello`, asks now and then whether it is there, and
//! starts it again when it is not. The jobs of rooms ask through the [`Pool`], each on its own thread, and block meanwhile. An
//! instance that fails in any way (it dies, takes too long, answers what is no answer) is given up at once: its connection is closed,
//! its process killed. What was asked is asked again elsewhere by the room's lane, which decides how often.
//!
//! No process outlives its worker: a worker that ends kills them. One that is killed itself cannot; but then their sockets close,
//! and a program ends when its socket does.

mod keeper;
mod link;
mod pool;

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::watch;

use self::pool::Pool;
use crate::rules::{Process, ProgramSource, RulesBook};

/// The programs that run. When this is dropped, they are ended.
#[derive(Debug)]
pub(crate) struct Programs {
    pools: Vec<Arc<Pool>>,
    keepers: Vec<JoinHandle<()>>,
    /// Where the sockets of started programs are: their user's only.
    dir: Option<PathBuf>,
    trouble: watch::Receiver<Option<String>>,
}

/// Why the programs cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum ProgramsError {
    /// There is no place for their sockets.
    #[error("the sockets of the rules' programs need a directory of their own in {}: {source}", at.display())]
    Directory {
        /// The directory for temporary files.
        at: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A socket cannot be opened.
    #[error("the socket {} of the rules' program cannot be opened: {source}", at.display())]
    Socket {
        /// Its path.
        at: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The system gives no more threads.
    #[error("a thread for the rules' program cannot start: {0}")]
    Thread(io::Error),
}

/// Starts the programs of a book. Returns at once: rooms wait until an instance is there.
///
/// # Errors
/// When sockets or threads cannot be had. A program that cannot be started is no such error: it is tried again and again.
pub(crate) fn start(book: RulesBook) -> Result<(RulesBook, Programs), ProgramsError> {
    let (sender, trouble) = watch::channel(None);
    let troubles = pool::Troubles::new(sender);
    let mut programs = Programs { pools: Vec::new(), keepers: Vec::new(), dir: None, trouble };
    let book = book.with_programs(|spec| {
        let at = programs.pools.len();
        let pool = Arc::new(Pool::new(spec.clone(), at, troubles.clone()));
        programs.pools.push(pool.clone());
        match &spec.source {
            ProgramSource::Command(_) => {
                let dir = match &programs.dir {
                    Some(dir) => dir.clone(),
                    None => programs.dir.insert(private_dir()?).clone(),
                };
                for instance in 0..spec.instances {
                    programs.keepers.push(keeper::start(&pool, &dir.join(format!("{at}-{instance}.sock")), instance)?);
                }
            }
            ProgramSource::Socket(path) => programs.keepers.push(keeper::listen(&pool, path)?),
        }
        Ok(move || Process::new(pool.clone()))
    })?;
    Ok((book, programs))
}

/// A new directory that only this user may enter.
fn private_dir() -> Result<PathBuf, ProgramsError> {
    let at = std::env::temp_dir();
    for attempt in 0..1_000_u32 {
        let dir = at.join(format!("lasthit-{}-{attempt}", std::process::id()));
        match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => return Ok(dir),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(ProgramsError::Directory { at, source }),
        }
    }
    Err(ProgramsError::Directory { at, source: io::ErrorKind::AlreadyExists.into() })
}

impl Programs {
    /// Whether there is any.
    pub(crate) fn are_there(&self) -> bool {
        !self.pools.is_empty()
    }

    /// What is wrong with them, now and whenever it changes: None while all instances run.
    pub(crate) fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.trouble.clone()
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        self.pools.iter().for_each(|pool| pool.stop());
        for keeper in self.keepers.drain(..) {
            let _ = keeper.join();
        }
        if let Some(dir) = &self.dir {
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}

//! Keeps the instances of a program: one thread for each that is started, one for a socket that others connect to.

use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use quanta::Instant;

use super::ProgramsError;
use super::link::{Lines, Link};
use super::pool::Pool;
use crate::limits::{
    PROGRAM_HELLO_TIMEOUT, PROGRAM_LINE_BYTES_MAX, PROGRAM_PING_INTERVAL, PROGRAM_RESTART_MAX, PROGRAM_RESTART_MIN,
};
use crate::rules::ProgramSource;

/// How often a keeper looks whether its process lives, and whether somebody connects.
const LOOK: Duration = Duration::from_millis(10);
/// How often it looks at an instance that works.
const LOOK_WORKING: Duration = Duration::from_millis(50);
/// The name under which a program finds its socket.
const SOCKET: &str = "LASTHIT_RULES";

/// Keeps one instance of a program that the worker starts; its socket is at `path`.
pub(super) fn start(pool: &Arc<Pool>, path: &Path, instance: usize) -> Result<JoinHandle<()>, ProgramsError> {
    let listener = open(path)?;
    let (pool, path, label) = (pool.clone(), path.to_owned(), format!("{} #{instance}", pool.label));
    thread(format!("program {instance}"), move || {
        let mut pause = PROGRAM_RESTART_MIN;
        loop {
            let (why, was_good) = run(&pool, &listener, &path, &label);
            if !pool.pause(Duration::ZERO) {
                return;
            }
            if was_good {
                pause = PROGRAM_RESTART_MIN;
            }
            tracing::warn!(program = label, "{why}; it is started again in {} ms", pause.as_millis());
            if !pool.rest(pause) {
                return;
            }
            pause = (pause * 2).min(PROGRAM_RESTART_MAX);
        }
    })
}

fn thread(name: String, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, ProgramsError> {
    std::thread::Builder::new().name(name).spawn(run).map_err(ProgramsError::Thread)
}

fn open(path: &Path) -> Result<UnixListener, ProgramsError> {
    let failed = |source| ProgramsError::Socket { at: path.to_owned(), source };
    let listener = UnixListener::bind(path).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// A process, which does not outlive this value.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs an instance until it ends, fails, or the keepers are to end. Returns why, and whether it has decided anything.
fn run(pool: &Arc<Pool>, listener: &UnixListener, path: &Path, label: &str) -> (String, bool) {
    let ProgramSource::Command(words) = &pool.spec.source else { return (String::new(), false) };
    let (program, args) = words.split_first().map_or(("", &[][..]), |(program, args)| (program.as_str(), args));
    let mut command = Command::new(program);
    command.args(args).env(SOCKET, path).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    pool.spec.folder.as_ref().map(|folder| command.current_dir(folder));
    let mut child = match command.spawn() {
        Ok(child) => Started(child),
        Err(error) => {
            let why = format!("{program} cannot be started: {error}");
            pool.not_come(None, &why);
            return (why, false);
        }
    };
    let said: [Option<Box<dyn Read + Send>>; 2] =
        [child.0.stdout.take().map(|out| Box::new(out) as _), child.0.stderr.take().map(|err| Box::new(err) as _)];
    for output in said.into_iter().flatten() {
        let label = label.to_owned();
        let _ = thread("program log".to_owned(), move || log(output, &label));
    }
    let stream = match connect(pool, listener, &mut child) {
        Ok(Some(stream)) => stream,
        Ok(None) => return (String::new(), false),
        Err(why) => {
            pool.not_come(None, &why);
            return (why, false);
        }
    };
    let number = match greet(pool, stream, label.to_owned(), PROGRAM_HELLO_TIMEOUT) {
        Ok(number) => number,
        Err(why) => return (why, false),
    };
    let mut pinged = Instant::now();
    while pool.has(number) {
        if let Ok(Some(status)) = child.0.try_wait() {
            let why = ended(status);
            // Whoever asks it notices by itself.
            if pool.take(number).is_some() {
                pool.lose(number, &why);
            }
        } else if pinged.elapsed() >= PROGRAM_PING_INTERVAL {
            pinged = Instant::now();
            ping(pool, number);
        }
        if !pool.pause(LOOK_WORKING) {
            break;
        }
    }
    let why = match child.0.try_wait() {
        Ok(Some(status)) => ended(status),
        _ => "it was given up".to_owned(),
    };
    (why, pool.take_proven(number))
}

fn ended(status: ExitStatus) -> String {
    format!("it ended: {status}")
}

/// Waits until the child connects. None if the keepers are to end.
fn connect(pool: &Pool, listener: &UnixListener, child: &mut Started) -> Result<Option<UnixStream>, String> {
    let began = Instant::now();
    while began.elapsed() < PROGRAM_HELLO_TIMEOUT {
        match listener.accept() {
            Ok((stream, _)) => return Ok(Some(stream)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(format!("its socket: {error}")),
        }
        if let Ok(Some(status)) = child.0.try_wait() {
            return Err(format!("it ended before it connected to ${SOCKET}: {status}"));
        }
        if !pool.pause(LOOK) {
            return Ok(None);
        }
    }
    Err(format!("it did not connect to ${SOCKET} within {} s", PROGRAM_HELLO_TIMEOUT.as_secs()))
}

/// Waits for the hello on a new connection. Returns its number.
fn greet(pool: &Pool, stream: UnixStream, label: String, within: Duration) -> Result<u64, String> {
    let number = pool.connected(&stream)?;
    let came = Link::greet(stream, label.clone(), within).map_err(|e| e.to_string());
    let added = came.and_then(|(link, identity)| {
        pool.add(number, link, identity.clone())?;
        tracing::info!(program = label, "{identity} is there");
        Ok(())
    });
    if let Err(why) = &added {
        pool.not_come(Some(number), why);
    }
    added.map(|()| number)
}

/// Gives an instance up that nobody asks and that does not answer.
fn ping(pool: &Pool, number: u64) {
    if let Some(mut link) = pool.take(number) {
        match link.ping(pool.spec.budget) {
            Ok(()) => pool.give_back(number, link),
            Err(error) => pool.lose(number, &error.to_string()),
        }
    }
}

/// Writes what a process says into the log, line by line.
fn log(mut output: impl Read, label: &str) {
    let (mut lines, mut line, mut piece) = (Lines::new(), Vec::new(), [0; 4096]);
    while let Ok(bytes @ 1..) = output.read(&mut piece) {
        for byte in &piece[..bytes] {
            match byte {
                b'\n' => lines.tell(label, &String::from_utf8_lossy(&std::mem::take(&mut line))),
                // The rest of a long line is left out.
                _ if line.len() >= PROGRAM_LINE_BYTES_MAX => {}
                byte => line.push(*byte),
            }
        }
    }
    if !line.is_empty() {
        lines.tell(label, &String::from_utf8_lossy(&line));
    }
}

/// Keeps the instances that somebody else starts: they connect to `path`.
pub(super) fn listen(pool: &Arc<Pool>, path: &Path) -> Result<JoinHandle<()>, ProgramsError> {
    let listener = open_private(path).map_err(|source| ProgramsError::Socket { at: path.to_owned(), source })?;
    let (pool, path) = (pool.clone(), path.to_owned());
    thread("program socket".to_owned(), move || {
        tracing::info!("rules' programs may connect to {}", path.display());
        let mut pinged = Instant::now();
        while pool.pause(LOOK) {
            if let Ok((stream, _)) = listener.accept()
                && let Err(why) = greet(&pool, stream, pool.label.clone(), pool.spec.budget)
            {
                tracing::warn!(program = pool.label, "a program was refused: {why}");
            }
            if pinged.elapsed() >= PROGRAM_PING_INTERVAL {
                pinged = Instant::now();
                pool.numbers().into_iter().for_each(|number| ping(&pool, number));
            }
        }
        let _ = std::fs::remove_file(&path);
    })
}

/// Opens a socket for this user alone. It is never open to others: it comes to be in a directory that only this user may enter.
fn open_private(path: &Path) -> io::Result<UnixListener> {
    // Nobody listens on a socket that a killed worker has left.
    match UnixStream::connect(path) {
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens on it")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
        Err(_) => {}
    }
    let mut dir = path.as_os_str().to_owned();
    dir.push(format!(".{}", std::process::id()));
    let dir = PathBuf::from(dir);
    std::fs::DirBuilder::new().mode(0o700).create(&dir)?;
    let inside = dir.join("s");
    let opened = UnixListener::bind(&inside).and_then(|listener| {
        std::fs::set_permissions(&inside, std::fs::Permissions::from_mode(0o600))?;
        if path.exists() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it exists and is no socket of a worker"));
        }
        std::fs::rename(&inside, path)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    let _ = std::fs::remove_file(&inside);
    let _ = std::fs::remove_dir(&dir);
    opened
}

//! The terminal: another screen while this lives, and what it was before afterwards, whatever happens.

use std::io::{self, IsTerminal as _, Stdout, Write as _};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui_core::terminal::Terminal;
use ratatui_termion::TermionBackend;
use ratatui_termion::termion::cursor::Show;
use ratatui_termion::termion::event::Key;
use ratatui_termion::termion::input::TermRead as _;
use ratatui_termion::termion::raw::{IntoRawMode as _, RawTerminal};
use ratatui_termion::termion::screen::{ToAlternateScreen, ToMainScreen};
use tokio::sync::mpsc;

use crate::limits::TOP_KEYS_WAITING;

/// The terminal, with what it was before. A process has one.
static RAW: OnceLock<RawTerminal<Stdout>> = OnceLock::new();
static IS_OURS: AtomicBool = AtomicBool::new(false);

/// A screen of its own.
pub(super) struct Screen {
    pub(super) terminal: Terminal<TermionBackend<Stdout>>,
}

/// Whether there is a terminal to read keys from and to draw on.
pub(super) fn is_there() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

impl Screen {
    /// Takes the terminal. A panic gives it back before it says what went wrong.
    pub(super) fn open() -> io::Result<Self> {
        let raw = io::stdout().into_raw_mode()?;
        let _ = RAW.set(raw);
        IS_OURS.store(true, Ordering::SeqCst);
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            hook(panic);
        }));
        // From here on it is given back when this is dropped, also if the rest fails.
        let screen = Self { terminal: Terminal::new(TermionBackend::new(io::stdout()))? };
        write!(io::stdout(), "{ToAlternateScreen}")?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn give_back() {
    if IS_OURS.swap(false, Ordering::SeqCst) {
        let mut out = io::stdout();
        let _ = write!(out, "{ToMainScreen}{Show}");
        let _ = out.flush();
        if let Some(raw) = RAW.get() {
            let _ = raw.suspend_raw_mode();
        }
    }
}

/// Keys as they are pressed. It closes when the terminal does.
pub(super) fn keys() -> io::Result<mpsc::Receiver<Key>> {
    let (keys, pressed) = mpsc::channel(TOP_KEYS_WAITING);
    let read = move || {
        for key in io::stdin().keys() {
            match key {
                Ok(key) if keys.blocking_send(key).is_ok() => {}
                _ => return,
            }
        }
    };
    std::thread::Builder::new().name("keys".to_owned()).spawn(read)?;
    Ok(pressed)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use servers::Terminal;

    use super::*;

    /// Run by the next one, on a terminal.
    #[test]
    #[ignore = "needs a terminal of its own"]
    fn panics_on_a_screen() {
        let _screen = Screen::open().expect("a screen");
        panic!("as it is meant to");
    }

    #[test]
    fn a_panic_gives_the_terminal_back_before_it_is_told() {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--ignored", "--exact", "--nocapture", "supervisor::top::screen::tests::panics_on_a_screen"]);
        let mut terminal = Terminal::run(&mut command, 80, 24).expect("a terminal");
        assert!(!terminal.ended().success());
        let written = terminal.written("as it is meant to");
        let (back, told) = (written.find(&format!("{ToMainScreen}")), written.find("as it is meant to"));
        assert!(back.is_some() && back < told, "{written:?}");
        assert!(terminal.is_as_before());
    }
}

//! A terminal that a program under test runs on.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A pseudo terminal, and the program that runs on it, which ends with this.
#[derive(Debug)]
pub struct Terminal {
    near: File,
    /// Kept open, so that the modes can be read when the program has ended.
    far: File,
    child: Child,
    before: String,
    written: Arc<(Mutex<String>, Condvar)>,
}

impl Terminal {
    /// Runs a command with a terminal of this size as its stdin, stdout and stderr.
    ///
    /// # Errors
    /// When the system gives no terminal, or the command cannot be started.
    ///
    /// # Panics
    /// When a thread that follows the output has panicked.
    pub fn run(command: &mut Command, columns: u16, rows: u16) -> io::Result<Self> {
        let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&near)?;
        unlockpt(&near)?;
        let name = ptsname(&near, Vec::new())?;
        let far = File::options().read(true).write(true).open(std::ffi::OsStr::from_bytes(name.as_bytes()))?;
        tcsetwinsize(&far, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?;
        let before = modes(&far);
        let end = || far.try_clone().map(Stdio::from);
        let child = command.stdin(end()?).stdout(end()?).stderr(end()?).env("TERM", "xterm").spawn()?;
        let near = File::from(near);
        let written: Arc<(Mutex<String>, Condvar)> = Arc::default();
        let (mut from, to) = (near.try_clone()?, written.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                to.0.lock().expect("output").push_str(&String::from_utf8_lossy(&bytes[..count]));
                to.1.notify_all();
            }
        });
        Ok(Self { near, far, child, before, written })
    }

    /// The process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What was written so far, once `text` is in it.
    ///
    /// # Panics
    /// When it does not come.
    #[must_use]
    pub fn written(&self, text: &str) -> String {
        let (written, more) = &*self.written;
        let all = written.lock().expect("output");
        let (all, _) = more.wait_timeout_while(all, PATIENCE, |all| !all.contains(text)).expect("output");
        assert!(all.contains(text), "{text:?} is not in {all:?}");
        all.clone()
    }

    /// Waits until a line of the screen has `text` in it.
    ///
    /// # Panics
    /// When it does not come.
    pub fn shows(&self, text: &str) {
        let is_there = |all: &String| lines(all).iter().any(|line| line.contains(text));
        let (written, more) = &*self.written;
        let all = written.lock().expect("output");
        let (all, _) = more.wait_timeout_while(all, PATIENCE, |all| !is_there(all)).expect("output");
        assert!(is_there(&all), "{text:?} is not on the screen: {:#?}", lines(&all));
    }

    /// Presses keys.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn press(&mut self, keys: &str) {
        self.near.write_all(keys.as_bytes()).expect("pressed");
    }

    /// Whether the terminal's modes (whether lines are edited, keys echoed, and so on) are what they were before the program ran.
    ///
    /// # Panics
    /// When the terminal is gone.
    #[must_use]
    pub fn is_as_before(&self) -> bool {
        modes(&self.far) == self.before
    }

    /// How the program ended, once it has.
    ///
    /// # Panics
    /// When it does not end.
    pub fn ended(&mut self) -> ExitStatus {
        for _ in 0..PATIENCE.as_millis() / 10 {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it does not end: {:?}", self.written.0.lock())
    }
}

fn modes(terminal: &File) -> String {
    let modes = tcgetattr(terminal).expect("modes");
    format!("{:?} {:?} {:?}", modes.input_modes, modes.output_modes, modes.local_modes)
}

/// The screen after all that was written: only places and characters, and the last of the screens.
fn lines(written: &str) -> Vec<String> {
    let mut screen: Vec<Vec<char>> = Vec::new();
    let (mut row, mut column) = (0, 0);
    let shown = written.rsplit("\u{1b}[?1049h").next().unwrap_or_default();
    let mut parts = shown.split("\u{1b}[");
    let mut put = |text: &str, row: usize, column: &mut usize| {
        for character in text.chars() {
            if screen.len() <= row {
                screen.resize(row + 1, Vec::new());
            }
            if screen[row].len() <= *column {
                screen[row].resize(*column + 1, ' ');
            }
            screen[row][*column] = character;
            *column += 1;
        }
    };
    put(parts.next().unwrap_or_default(), row, &mut column);
    for part in parts {
        let Some(end) = part.find(|c: char| c.is_ascii_alphabetic()) else { continue };
        let (command, text) = part.split_at(end + 1);
        if let Some((to_row, to_column)) = command.strip_suffix('H').and_then(|place| place.split_once(';')) {
            let number = |text: &str| text.parse::<usize>().unwrap_or(1) - 1;
            (row, column) = (number(to_row), number(to_column));
        }
        put(text, row, &mut column);
    }
    screen.into_iter().map(|line| line.into_iter().collect()).collect()
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! `lasthit top`: the processes of a supervisor and how fast they are, again each second.
//!
//! What is drawn ([`view`]) is a function of what was seen ([`snapshot`]). This file looks, waits for keys, and gives up in the end
//! if nobody answers any more.

mod scrape;
mod screen;
mod snapshot;
mod view;

use std::io::Write as _;
use std::path::Path;

use ratatui_termion::termion::event::Key;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use self::screen::Screen;
use self::snapshot::{Snapshot, Watch};
use self::view::View;
use super::ask::Process;
use super::client;
use crate::limits::{TOP_INTERVAL, TOP_RETRIES_MAX};

/// Lines that a page of the keyboard scrolls.
const PAGE: isize = 10;

/// What a look has found: the processes, and the metrics if they came.
type Seen = Result<(Vec<Process>, Option<String>), String>;

async fn look(control: &Path) -> Seen {
    let (processes, metrics) = tokio::join!(client::get(control, "/v1/processes"), client::get(control, "/metrics"));
    let processes = serde_json::from_str(&processes?).map_err(|error| format!("the supervisor's answer: {error}"))?;
    Ok((processes, metrics.ok()))
}

/// Prints a snapshot a second as a line of JSON: so many, or until it is ended.
///
/// # Errors
/// One line when nobody answers for [`TOP_RETRIES_MAX`] looks, or at the first one.
pub(super) async fn print(control: &Path, count: Option<u64>) -> Result<(), String> {
    let (mut watch, mut failed, mut left) = (Watch::default(), 0, count);
    let mut turns = interval(TOP_INTERVAL);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_first = true;
    while left != Some(0) {
        turns.tick().await;
        match look(control).await {
            Ok((processes, metrics)) => {
                failed = 0;
                let snapshot = watch.take(processes, metrics.as_deref());
                // The first one has nothing to compare latencies with.
                if std::mem::take(&mut is_first) {
                    continue;
                }
                let line = serde_json::to_string(&snapshot).map_err(|error| error.to_string())?;
                let mut out = std::io::stdout();
                if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
                    // The reader has gone.
                    return Ok(());
                }
                left = left.map(|left| left - 1);
            }
            Err(why) if is_first || failed >= TOP_RETRIES_MAX => return Err(why),
            Err(_) => failed += 1,
        }
    }
    Ok(())
}

/// Draws on the terminal until `q` or Ctrl-C is pressed.
///
/// # Errors
/// One line when there is no terminal, or nobody answers for [`TOP_RETRIES_MAX`] looks, or at the first one.
pub(super) async fn show(control: &Path) -> Result<(), String> {
    if !screen::is_there() {
        return Err("top needs a terminal: use `lasthit ps`, or `lasthit top --json`".to_owned());
    }
    let failed = |error: std::io::Error| format!("the terminal cannot be used: {error}");
    let first = look(control).await?;
    let has_colour = std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let mut shown = Shown { watch: Watch::default(), snapshot: Snapshot::default(), view: View::new(has_colour), failed: 0 };
    shown.seen(Ok(first))?;
    let watched = |kind| signal(kind).map_err(failed);
    let mut resized = watched(SignalKind::window_change())?;
    let mut ends = [watched(SignalKind::terminate())?, watched(SignalKind::interrupt())?, watched(SignalKind::hangup())?];
    let [terminate, interrupt, hangup] = &mut ends;
    let mut screen = Screen::open().map_err(failed)?;
    let mut keys = screen::keys().map_err(failed)?;
    let mut looks = looks(control);
    loop {
        let Shown { watch, snapshot, view, .. } = &shown;
        let drawn = screen.terminal.draw(|frame| view::draw(frame.buffer_mut(), snapshot, &watch.history, view));
        drawn.map_err(failed)?;
        tokio::select! {
            Some(seen) = looks.recv() => shown.seen(seen)?,
            key = keys.recv() => match key {
                None | Some(Key::Char('q' | 'Q') | Key::Ctrl('c')) => return Ok(()),
                Some(key) => shown.pressed(key),
            },
            _ = resized.recv() => {}
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
        }
    }
}

/// Looks again and again, beside whatever is drawn.
fn looks(control: &Path) -> mpsc::Receiver<Seen> {
    let (looks, seen) = mpsc::channel(1);
    let control = control.to_owned();
    tokio::spawn(async move {
        let mut turns = interval(TOP_INTERVAL);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        turns.tick().await;
        loop {
            turns.tick().await;
            if looks.send(look(&control).await).await.is_err() {
                return;
            }
        }
    });
    seen
}

/// What is on the screen.
struct Shown {
    watch: Watch,
    snapshot: Snapshot,
    view: View,
    /// Looks in a row that nobody answered.
    failed: u32,
}

impl Shown {
    fn seen(&mut self, seen: Seen) -> Result<(), String> {
        match seen {
            Ok((processes, metrics)) => {
                (self.failed, self.view.trouble) = (0, None);
                self.snapshot = self.watch.take(processes, metrics.as_deref());
            }
            Err(why) if self.failed >= TOP_RETRIES_MAX => return Err(why),
            Err(_) => {
                self.failed += 1;
                let trouble = format!("the supervisor does not answer: trying again ({} of {TOP_RETRIES_MAX})", self.failed);
                self.view.trouble = Some(trouble);
            }
        }
        Ok(())
    }

    fn pressed(&mut self, key: Key) {
        match key {
            Key::Char(key) => self.view.pressed(key),
            Key::Up => self.view.scroll(-1),
            Key::Down => self.view.scroll(1),
            Key::PageUp => self.view.scroll(-PAGE),
            Key::PageDown => self.view.scroll(PAGE),
            _ => {}
        }
        self.view.above = self.view.above.min(self.snapshot.processes.len().saturating_sub(1));
    }
}

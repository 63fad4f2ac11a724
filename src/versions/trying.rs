//! `lasthit rules try`: what a program would have decided otherwise.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::{Told, pretty};
use crate::config::Config;
use crate::replay::command::{Source, load};
use crate::replay::trying::{Otherwise, Tried};
use crate::types::{Verdict, VerdictKind};
use crate::workbench::{self, shown};

/// Most differences that are printed one by one; JSON has all.
const TOLD_MAX: usize = 20;

pub(super) async fn run(config: &Config, file: &Path, source: &Source, json: bool) -> Result<Told, String> {
    let program = workbench::checked(file)?;
    let recording = load(source, config).await.map_err(|error| error.to_string())?;
    let tried = recording.try_program(&program).map_err(|error| error.to_string())?;
    let Tried { from, to, verdicts, otherwise } = &tried;
    let differs = !otherwise.is_empty();
    let (room, era) = (recording.room.as_str(), recording.era);
    let (name, version, id) = (program.name(), program.version(), program.id());
    if json {
        let otherwise: Vec<Value> = otherwise.iter().map(as_json).collect();
        let text = pretty(&json!({
            "room": room, "era": era, "from": from, "to": to, "verdicts": verdicts, "name": name, "version": version,
            "program": id.to_string(), "otherwise": otherwise,
        }));
        return Ok(Told { text, differs });
    }
    let mut text = format!(
        "room {room} era {era}: verdicts {from} to {to} decided by {name} version {version} ({id}), {} otherwise",
        otherwise.len()
    );
    for one in otherwise.iter().take(TOLD_MAX) {
        let _ = write!(text, "\n  {}", prose(one));
    }
    if otherwise.len() > TOLD_MAX {
        let _ = write!(text, "\n  and {} more: see --json", otherwise.len() - TOLD_MAX);
    }
    Ok(Told { text, differs })
}

/// The verdict that there is.
fn any(one: &Otherwise) -> Option<&Verdict> {
    one.recorded.as_ref().or(one.now.as_ref())
}

fn as_json(one: &Otherwise) -> Value {
    let verdict = any(one);
    json!({
        // A timer that did not fire then has none.
        "seq": one.recorded.as_ref().map(|v| v.seq),
        "event": verdict.map(|v| v.kind.as_str()),
        "player": verdict.and_then(|v| v.player.as_ref()).map(|player| player.as_str()),
        "id": verdict.and_then(|v| v.id.as_deref()),
        "recorded": one.recorded.as_ref().map(shown),
        "now": one.now.as_ref().map(shown),
        "error": one.error,
    })
}

fn prose(one: &Otherwise) -> String {
    let Some(verdict) = any(one) else { return String::new() };
    let mut text = match &one.recorded {
        Some(recorded) => format!("verdict {}: ", recorded.seq),
        None => format!("before verdict {}: ", verdict.seq),
    };
    match (verdict.kind, &verdict.fire) {
        (VerdictKind::Timer, Some(fire)) => _ = write!(text, "timer {:?}", fire.name),
        (kind, _) => text += kind.as_str(),
    }
    if let Some(player) = &verdict.player {
        let _ = write!(text, " of {player}");
    }
    if let Some(id) = &verdict.id {
        let _ = write!(text, " (id {id})");
    }
    text += ": ";
    match (&one.recorded, &one.now) {
        (Some(recorded), Some(now)) => {
            let (recorded, now) = (shown(recorded), shown(now));
            let keys = ["outcome", "reason", "contest", "round", "to", "body"];
            let odd = keys.iter().filter(|key| recorded.get(**key) != now.get(**key));
            let none = Value::Null;
            let words: Vec<String> = odd
                .map(|key| format!("{key} was {}, is {}", recorded.get(*key).unwrap_or(&none), now.get(*key).unwrap_or(&none)))
                .collect();
            text += &words.join("; ");
        }
        (Some(_), None) => text += "it fired, and would not",
        _ => text += "it would fire, and has not",
    }
    if let Some(error) = &one.error {
        let _ = write!(text, ": {error}");
    }
    text
}

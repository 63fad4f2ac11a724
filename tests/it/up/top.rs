//! `lasthit top` on real processes: on a terminal, and as JSON.

use serde_json::{Value, json};
use servers::Terminal;

use super::{Said, Up, shown};
use crate::support::{end_by_signal, program, redis};

/// What gives the terminal back: its own screen, and the cursor.
const BACK: &str = "\u{1b}[?1049l\u{1b}[?25h";

fn top(up: &Up) -> Terminal {
    let mut command = program(&["top", "--control", &shown(&up.home.control())]);
    Terminal::run(&mut command, 80, 24).expect("a terminal")
}

#[tokio::test]
async fn it_shows_processes_until_it_is_ended_and_gives_the_terminal_back() {
    let redis = redis(&[]);
    let mut up = Up::on(&redis, &[]);
    let _ann = up.ticket("claim-1", "ann").join().await;

    let mut terminal = top(&up);
    for text in ["lasthit top", "4 of 4 processes ready", "1 session", "gateway-2", "worker-1", "[q]uit"] {
        terminal.shows(text);
    }
    assert!(!terminal.is_as_before(), "keys are read as they are pressed");
    terminal.press("m");
    terminal.press("q");
    assert!(terminal.ended().success());
    let _ = terminal.written(BACK);
    assert!(terminal.is_as_before());

    // Ctrl-C, and a signal.
    let mut terminal = top(&up);
    terminal.shows("gateway-1");
    terminal.press("\u{3}");
    assert!(terminal.ended().success() && terminal.is_as_before());
    let mut terminal = top(&up);
    terminal.shows("gateway-1");
    end_by_signal(terminal.id(), "TERM");
    assert!(terminal.ended().success() && terminal.is_as_before());
    let _ = terminal.written(BACK);

    // The supervisor goes, and another one comes.
    let mut terminal = top(&up);
    terminal.shows("gateway-1");
    up.process.kill();
    terminal.shows("the supervisor does not answer: trying again (1 of 60)");
    let home = std::mem::replace(&mut up.home, super::Home::new());
    let again = Up::of(home, &redis, &["--admin", "none"]);
    again.all_ready(4);
    terminal.shows("4 of 4 processes ready");
    terminal.press("q");
    assert!(terminal.ended().success());
}

#[tokio::test]
async fn scripts_get_a_snapshot_a_second() {
    let redis = redis(&[]);
    let up = Up::on(&redis, &[]);
    let mut ann = up.ticket("claim-1", "ann").join().await;
    let counting = up.asks(&["top", "--json", "--count", "2"]);
    let mut number = 0;
    while !counting.is_finished() {
        number += 1;
        ann.ask("claim", &number.to_string(), &format!("hat{number}"), json!(null)).await;
    }
    let lines = counting.join().expect("counted").done();
    assert_eq!(lines.len(), 2);
    let last: Value = serde_json::from_str(&lines[1]).expect("json");
    let processes = last["processes"].as_array().expect("processes");
    assert_eq!(processes.len(), 4);
    let of = |role: &str, field: &str| {
        let all = processes.iter().filter(|process| process["name"].as_str().is_some_and(|name| name.starts_with(role)));
        let found: Vec<f64> = all.filter_map(|process| process[field]["p99_ms"].as_f64()).collect();
        found
    };
    // One gateway has the session. The room's shard may have gone from one worker to the other.
    let (verdicts, holds) = (of("gateway", "verdict"), of("worker", "hold"));
    assert!(verdicts.len() == 1 && verdicts[0] > 0.0 && !holds.is_empty(), "{last}");
    assert!(of("gateway", "hold").is_empty() && of("worker", "verdict").is_empty(), "{last}");
    let totals = &last["totals"];
    assert!(totals["sessions"] == 1 && totals["actions_per_s"].as_f64().is_some_and(|rate| rate > 1.0), "{last}");
    assert!(totals["verdict"]["p50_ms"].as_f64() <= totals["verdict"]["p99_ms"].as_f64(), "{last}");
    assert_eq!(last["status"], "4 of 4 processes ready, 1 session");

    // Nobody looks at it.
    let refused = up.ask(&["top"]).refused(1);
    assert_eq!(refused, "top needs a terminal: use `lasthit ps`, or `lasthit top --json`");
    assert!(up.ask(&["top", "--count", "2"]).refused(2).contains("--json"));
    let gone = Said::of(&["top", "--json", "--control", "/nowhere"]).refused(1);
    assert!(gone.starts_with("no supervisor answers at /nowhere"), "{gone}");
}

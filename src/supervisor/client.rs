//! Asks a running supervisor, over its control socket.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixStream;

use super::ask::{Process, Told};
use super::asking::{Asking, What};
use crate::limits::CONTROL_ANSWER_TIMEOUT;

/// Asks, and prints the answer as it comes.
///
/// # Errors
/// One line: nobody answers, or it is not done, and why.
pub(crate) async fn ask(asking: &Asking) -> Result<(), String> {
    let Asking { control, json, what } = asking;
    let (method, path, body) = match what {
        What::Ps => (Method::GET, "/v1/processes".to_owned(), Value::Null),
        What::Act(verb, names) => (Method::POST, format!("/v1/{verb}"), json!({ "names": names })),
        What::Scale { group, count } => (Method::POST, "/v1/scale".to_owned(), json!({ "group": group, "count": count })),
        What::Reload => (Method::POST, "/v1/reload".to_owned(), Value::Null),
        What::End => (Method::POST, "/v1/end".to_owned(), Value::Null),
        What::Logs { follow } => (Method::GET, format!("/v1/logs{}", if *follow { "?follow" } else { "" }), Value::Null),
    };
    let response = tokio::time::timeout(CONTROL_ANSWER_TIMEOUT, send(control, method, &path, &body)).await;
    let response = response.map_err(|_| {
        let s = CONTROL_ANSWER_TIMEOUT.as_secs();
        format!("the supervisor does not answer within {s} s: try again, or see whether its process hangs or is stopped")
    })??;
    let is_wrong = response.status() != StatusCode::OK;
    let mut body = response.into_body();
    if is_wrong {
        return Err(read(body).await?.trim_end().to_owned());
    }
    if *what == What::Ps {
        let text = read(body).await?;
        if *json {
            print(text.trim_end());
            return Ok(());
        }
        let processes: Vec<Process> = serde_json::from_str(&text).map_err(|error| format!("the supervisor's answer: {error}"))?;
        print(table(&processes).trim_end());
        return Ok(());
    }
    let mut rest = String::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("the supervisor stopped answering: {error}"))?;
        rest += &String::from_utf8_lossy(frame.data_ref().map_or(&[], |data| &data[..]));
        while let Some((line, others)) = rest.split_once('\n') {
            if matches!(what, What::Logs { .. }) || *json {
                print(line);
            }
            if !matches!(what, What::Logs { .. }) {
                match serde_json::from_str(line).map_err(|error| format!("the supervisor's answer {line:?}: {error}"))? {
                    Told::Progress(said) if !json => print(&said),
                    Told::Progress(_) => {}
                    Told::Done => return Ok(()),
                    Told::Failed(why) => return Err(why),
                }
            }
            rest = others.to_owned();
        }
    }
    if matches!(what, What::Logs { .. }) { Ok(()) } else { Err("the supervisor ended before it was done".to_owned()) }
}

/// A reader that has gone (`| head`) is nobody's mistake.
fn print(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

async fn send(control: &Path, method: Method, path: &str, body: &Value) -> Result<Response<Incoming>, String> {
    let stream = UnixStream::connect(control).await.map_err(|error| {
        format!("no supervisor answers at {} ({error}): start one with `lasthit up`, or give its --control", control.display())
    })?;
    let failed = |error: hyper::Error| format!("the supervisor does not answer: {error}");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header("host", "lasthit");
    let request = request.body(Full::new(Bytes::from(body.to_string()))).map_err(|error| error.to_string())?;
    sender.send_request(request).await.map_err(failed)
}

async fn read(body: Incoming) -> Result<String, String> {
    let bytes = body.collect().await.map_err(|error| format!("the supervisor stopped answering: {error}"))?.to_bytes();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Processes for people.
fn table(processes: &[Process]) -> String {
    let header = ["NAME", "PHASE", "PID", "AGE", "CPU", "MEMORY", "SESSIONS", "ACTIONS/S", "CRASHES"].map(str::to_owned);
    let rows = processes.iter().map(|process| {
        let runs = process.pid.is_some();
        let or_none = |text: String| if runs { text } else { "-".to_owned() };
        [
            process.name.clone(),
            process.starts_in_s.map_or_else(|| process.phase.clone(), |rest| format!("starts in {rest:.1} s")),
            process.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            or_none(age(process.age_s)),
            or_none(format!("{:.0} %", process.cpu * 100.0)),
            or_none(mib(process.memory_bytes)),
            or_none(process.sessions.to_string()),
            or_none(format!("{:.0}", process.actions_per_s)),
            process.crashes.to_string(),
        ]
    });
    let rows: Vec<[String; 9]> = std::iter::once(header).chain(rows).collect();
    let widths: Vec<usize> = (0..9).map(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0)).collect();
    let lines = rows.iter().enumerate().map(|(number, row)| {
        let mut line = String::new();
        for (at, cell) in row.iter().enumerate() {
            let width = widths[at];
            let _ = if at < 2 { write!(line, "{cell:<width$}  ") } else { write!(line, "{cell:>width$}  ") };
        }
        line += number.checked_sub(1).and_then(|n| processes[n].last_end.as_deref()).unwrap_or_default();
        line.trim_end().to_owned() + "\n"
    });
    lines.collect()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole seconds of a process's age")]
fn age(age_s: f64) -> String {
    let s = age_s as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3_600 => format!("{} min", s / 60),
        3_600..172_800 => format!("{} h", s / 3_600),
        _ => format!("{} d", s / 86_400),
    }
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1024 * 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_line_for_each_and_says_how_one_ended() {
        let process = |name: &str, pid| Process {
            name: name.to_owned(),
            phase: "ready".to_owned(),
            pid,
            age_s: 65.2,
            cpu: 0.123,
            memory_bytes: 1,
            sessions: 40,
            actions_per_s: 999.7,
            crashes: 0,
            starts_in_s: None,
            last_end: None,
            generation: 1,
        };
        let ended = Some("was ended by signal 9".to_owned());
        let waiting = Process { starts_in_s: Some(0.4), crashes: 3, last_end: ended, ..process("worker-1", None) };
        assert_eq!(
            table(&[process("gateway-1", Some(77)), waiting]),
            "NAME       PHASE            PID    AGE   CPU  MEMORY  SESSIONS  ACTIONS/S  CRASHES\n\
             gateway-1  ready             77  1 min  12 %   1 MiB        40       1000        0\n\
             worker-1   starts in 0.4 s    -      -     -       -         -          -        3  was ended by signal 9\n"
        );
    }
}

//! Asks a running supervisor, over its control socket.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixStream;

use super::ask::{Process, Told};
use super::asking::{Asking, What};
use super::top;
use crate::limits::{CONTROL_ANSWER_BYTES_MAX, CONTROL_ANSWER_TIMEOUT};

/// Asks, and prints the answer as it comes.
///
/// # Errors
/// One line: nobody answers, or it is not done, and why.
pub(crate) async fn ask(asking: &Asking) -> Result<(), String> {
    let Asking { control, json, what } = asking;
    let (path, body) = match what {
        What::Ps => return list(control, *json).await,
        What::Top { count } if *json => return top::print(control, *count).await,
        What::Top { .. } => return top::show(control).await,
        What::Logs { follow } => return logs(control, *follow).await,
        What::Act(verb, names) => (format!("/v1/{verb}"), json!({ "names": names })),
        What::Scale { group, count } => ("/v1/scale".to_owned(), json!({ "group": group, "count": count })),
        What::Reload(binary) => ("/v1/reload".to_owned(), json!({ "binary": shown(binary.as_deref()) })),
        What::Check(binary) => ("/v1/check".to_owned(), json!({ "binary": shown(binary.as_deref()) })),
        What::End => ("/v1/end".to_owned(), Value::Null),
    };
    let body = begin(control, Method::POST, &path, &body).await?;
    let told = lines(body, |line| {
        if *json {
            print(line);
        }
        Ok(match serde_json::from_str(line).map_err(|error| format!("the supervisor's answer {line:?}: {error}"))? {
            Told::Progress(_) if *json => None,
            Told::Progress(said) => {
                print(&said);
                None
            }
            Told::Done => Some(Ok(())),
            Told::Failed(why) => Some(Err(why)),
        })
    });
    told.await?.unwrap_or_else(|| Err("the supervisor ended before it was done".to_owned()))
}

async fn list(control: &Path, json: bool) -> Result<(), String> {
    let text = get(control, "/v1/processes").await?;
    if json {
        print(text.trim_end());
        return Ok(());
    }
    let processes: Vec<Process> = serde_json::from_str(&text).map_err(|error| format!("the supervisor's answer: {error}"))?;
    print(table(&processes).trim_end());
    Ok(())
}

async fn logs(control: &Path, follow: bool) -> Result<(), String> {
    let body = begin(control, Method::GET, if follow { "/v1/logs?follow" } else { "/v1/logs" }, &Value::Null).await?;
    let print = |line: &str| {
        print(line);
        Ok(None::<()>)
    };
    lines(body, print).await.map(drop)
}

fn shown(path: Option<&Path>) -> Option<String> {
    path.map(|path| path.to_string_lossy().into_owned())
}

/// A reader that has gone (`| head`) is nobody's mistake.
fn print(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// A whole answer.
///
/// # Errors
/// One line: nobody answers, or not all of it comes, or it is too long.
pub(super) async fn get(control: &Path, path: &str) -> Result<String, String> {
    let answer = async { read(begin(control, Method::GET, path, &Value::Null).await?).await };
    tokio::time::timeout(CONTROL_ANSWER_TIMEOUT, answer).await.unwrap_or_else(|_| Err(silent()))
}

/// The body of an answer that says that all is well.
async fn begin(control: &Path, method: Method, path: &str, body: &Value) -> Result<Incoming, String> {
    let answer = tokio::time::timeout(CONTROL_ANSWER_TIMEOUT, send(control, method, path, body));
    let response = answer.await.unwrap_or_else(|_| Err(silent()))?;
    let is_well = response.status() == StatusCode::OK;
    let body = response.into_body();
    if is_well { Ok(body) } else { Err(read(body).await?.trim_end().to_owned()) }
}

fn silent() -> String {
    let s = CONTROL_ANSWER_TIMEOUT.as_secs();
    format!("the supervisor does not answer within {s} s: try again, or see whether its process hangs or is stopped")
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

fn broken(error: impl std::fmt::Display) -> String {
    format!("the supervisor stopped answering: {error}")
}

async fn read(body: Incoming) -> Result<String, String> {
    let bytes = Limited::new(body, CONTROL_ANSWER_BYTES_MAX).collect().await.map_err(broken)?.to_bytes();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Gives each line of an answer to `take` until that returns something. None: the answer has ended before.
async fn lines<T>(mut body: Incoming, mut take: impl FnMut(&str) -> Result<Option<T>, String>) -> Result<Option<T>, String> {
    let mut rest = Vec::new();
    while let Some(frame) = body.frame().await {
        rest.extend_from_slice(frame.map_err(broken)?.data_ref().map_or(&[], |data| &data[..]));
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            if let Some(taken) = take(String::from_utf8_lossy(&line[..end]).as_ref())? {
                return Ok(Some(taken));
            }
        }
    }
    Ok(None)
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
pub(super) fn age(age_s: f64) -> String {
    let s = age_s as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3_600 => format!("{} min", s / 60),
        3_600..172_800 => format!("{} h", s / 3_600),
        _ => format!("{} d", s / 86_400),
    }
}

pub(super) fn mib(bytes: u64) -> String {
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

//! Whether a program can take the supervisor's place: it is asked itself, before anything changes. It gets the settings and the state on
//! its stdin, and answers with one line on its stdout (`lasthit takeover`).

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::spawn::{self, Binary};
use super::state::State;
use super::{settings, workers};
use crate::child::channel::{VERSION, bytes_of, file_of};
use crate::child::settings as child;
use crate::journal::redis::FORMAT;
use crate::limits::{CHECK_ANSWER_BYTES_MAX, CHECK_TIMEOUT, PARKED_BYTES_MAX};

/// The command that asks a program.
pub(super) const COMMAND: &str = "takeover";
/// The form of question and answer.
const FORM: u32 = 1;

/// What a program is asked. It holds secrets: it is shown nowhere.
#[derive(Serialize, Deserialize)]
pub(super) struct Question {
    form: u32,
    /// What children and supervisor speak, and the form of what processes write into the journal.
    channel: u32,
    journal: u32,
    settings: child::Settings,
    /// [`State::write`].
    state: String,
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    /// Its version.
    lasthit: String,
    /// Why it cannot. Empty: it can.
    mistakes: Vec<String>,
}

impl Question {
    pub(super) fn new(settings: child::Settings, state: String) -> Self {
        Self { form: FORM, channel: VERSION, journal: FORMAT, settings, state }
    }

    /// Asks a program. Returns its version.
    ///
    /// # Errors
    /// One line: all that speaks against it.
    pub(super) async fn ask(self, binary: Binary, path: &Path) -> Result<String, String> {
        let path = path.display();
        let asked = tokio::time::timeout(CHECK_TIMEOUT, self.put(&binary)).await;
        let asked =
            asked.map_err(|_| format!("{path} does not say within {} s whether it can take over", CHECK_TIMEOUT.as_secs()))?;
        let Said { code, output, error } = asked.map_err(|error| format!("{path} cannot be run: {error}"))?;
        let answer = serde_json::from_slice::<Answer>(&output).ok().filter(|_| code == Some(0));
        let Some(Answer { lasthit, mistakes }) = answer else {
            let code = code.map_or_else(|| "was ended by a signal".to_owned(), |code| format!("ended with code {code}"));
            let last = error.lines().rev().find(|line| !line.trim().is_empty());
            let said = last.map_or_else(String::new, |line| format!(", and said {:?}", short(line)));
            return Err(format!("{path} is no lasthit that can take over: it {code}{said}"));
        };
        if mistakes.is_empty() { Ok(short(&lasthit)) } else { Err(mistakes.join("; ").replace('\n', " ")) }
    }

    async fn put(&self, binary: &Binary) -> io::Result<Said> {
        let question = file_of("question", &serde_json::to_vec(self)?)?;
        let mut command = tokio::process::Command::from(spawn::command(binary, &spawn::own(&[COMMAND])));
        command.stdin(Stdio::from(question)).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(io::Error::other("a process without output"));
        };
        // Whatever becomes of it, what it has started ends with it.
        let _group = Group(child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)));
        let (output, error) = tokio::join!(some(stdout), some(stderr));
        let status = child.wait().await?;
        Ok(Said { code: status.code(), output, error: String::from_utf8_lossy(&error).into_owned() })
    }
}

/// What a program came to.
struct Said {
    code: Option<i32>,
    output: Vec<u8>,
    error: String,
}

struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// What somebody writes, up to a bound. Then it is closed: whoever writes more fails.
async fn some(output: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = output.take(CHECK_ANSWER_BYTES_MAX as u64).read_to_end(&mut bytes).await;
    bytes
}

fn short(line: &str) -> String {
    line.trim().chars().take(200).collect()
}

/// Answers the question on stdin: one line.
///
/// # Errors
/// One line: there is no question.
pub(crate) fn answer() -> Result<String, String> {
    let none = |why: String| format!("stdin has no question of a supervisor ({why}): `lasthit check` asks it");
    let stdin = rustix::io::dup(rustix::stdio::stdin()).map_err(|error| none(error.to_string()))?;
    let bytes = bytes_of(stdin, PARKED_BYTES_MAX).map_err(|error| none(error.to_string()))?;
    let mistakes = match serde_json::from_slice::<Question>(&bytes) {
        Ok(question) => question.mistakes(),
        Err(_) => {
            #[derive(Deserialize)]
            struct Form {
                form: u32,
            }
            // The error may have words of the text, which has secrets.
            let Form { form } = serde_json::from_slice(&bytes).map_err(|_| none("it is something else".to_owned()))?;
            vec![format!(
                "the supervisor asks in form {form}, and lasthit {} answers in form {FORM}: {ANEW}",
                env!("CARGO_PKG_VERSION")
            )]
        }
    };
    let answer = Answer { lasthit: env!("CARGO_PKG_VERSION").to_owned(), mistakes };
    serde_json::to_string(&answer).map_err(|error| error.to_string())
}

/// What to do where two versions cannot be mixed.
const ANEW: &str = "they cannot be mixed, stop all with `lasthit down` and start the new one";

impl Question {
    fn mistakes(self) -> Vec<String> {
        let mut mistakes = Vec::new();
        let version = env!("CARGO_PKG_VERSION");
        for (what, theirs, own) in [
            ("speak version {} of the channel", self.channel, VERSION),
            ("write format {} into the journal", self.journal, FORMAT),
            ("ask in form {}", self.form, FORM),
        ] {
            if theirs != own {
                let (now, new) = (what.replace("{}", &theirs.to_string()), what.replace("{}", &own.to_string()));
                mistakes.push(format!("the processes that run {now}, and those of lasthit {version} {new}: {ANEW}"));
            }
        }
        match self.settings.of_supervisor() {
            Ok(config) => mistakes.extend([settings(&config).err(), workers(&config).err()].into_iter().flatten()),
            Err(error) => mistakes.extend(error.mistakes),
        }
        if let Err(why) = State::read(&self.state, Duration::ZERO) {
            mistakes.push(format!("lasthit {version} cannot take over: {why}; {ANEW}"));
        }
        mistakes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn question(state: &str) -> Question {
        let settings = child::Settings { flags: vec![("redis".to_owned(), "redis://h".to_owned())], ..empty() };
        Question::new(settings, state.to_owned())
    }

    fn empty() -> child::Settings {
        serde_json::from_value(
            serde_json::json!({"role": "", "flags": [], "env": BTreeMap::<String, String>::new(), "file": null}),
        )
        .expect("settings")
    }

    /// Each mistake is named. All of them at once.
    #[test]
    fn every_mistake_is_said() {
        let mut other = question("{\"form\": 9}");
        other.channel += 1;
        other.journal += 1;
        other.settings.flags.push(("gateways".to_owned(), "many".to_owned()));
        let mistakes = other.mistakes();
        let [channel, journal, settings, state] = &mistakes[..] else { panic!("{mistakes:?}") };
        assert!(
            channel.contains(&format!("speak version {} of the channel", VERSION + 1)) && channel.contains(ANEW),
            "{channel}"
        );
        assert!(journal.contains(&format!("write format {} into the journal", FORMAT + 1)), "{journal}");
        assert!(settings.contains("\"many\" does not fit"), "{settings}");
        assert!(state.contains("has form 9, this version reads 1"), "{state}");
        let mut many = question("{}");
        many.settings.flags.push(("workers".to_owned(), "9".to_owned()));
        let mistakes = many.mistakes();
        assert!(mistakes[0].contains("9 processes and 8 shards") && mistakes[1].contains("cannot be read"), "{mistakes:?}");
        assert!(mistakes.iter().all(|line| !line.contains('\n')));
    }
}

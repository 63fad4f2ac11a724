//! `rules = { process = ... }` and `rules = { socket = ... }`: programs that decide from outside.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::rooms::{unknown, whole};
use crate::limits::{PROGRAM_BUDGET, PROGRAM_BUDGET_MS_MAX, PROGRAM_BUDGET_MS_MIN, PROGRAM_INSTANCES_MAX};
use crate::rules::{ProgramSource, ProgramSpec};

/// `{ process = ["python3", "quiz.py"], instances = 2, budget_ms = 500 }`, or with `socket = "PATH"` instead of the process.
pub(super) fn read(table: &toml::Table, folder: &Path, problems: &mut Vec<String>) -> ProgramSpec {
    unknown(table, &["process", "socket", "instances", "budget_ms", "attempts"], "rules: ", problems);
    let words = |value: &toml::Value| -> Option<Vec<String>> {
        let words = value.as_array()?.iter().map(|word| word.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()?;
        words.first().is_some_and(|first| !first.is_empty()).then_some(words)
    };
    let source = match (table.get("process"), table.get("socket")) {
        (Some(process), None) => words(process).map(ProgramSource::Command).unwrap_or_else(|| {
            problems.push(format!("rules: process {process} is no command: write it as [\"python3\", \"quiz.py\"]"));
            ProgramSource::Command(Vec::new())
        }),
        (None, Some(socket)) => {
            let path = socket.as_str().filter(|path| !path.is_empty()).map(|path| folder.join(path));
            ProgramSource::Socket(path.unwrap_or_else(|| {
                problems.push(format!("rules: socket {socket} is no path"));
                PathBuf::new()
            }))
        }
        _ => {
            problems.push("rules: give a process or a socket, one of them".to_owned());
            ProgramSource::Command(Vec::new())
        }
    };
    let mut number = |key: &str, least: u64, most: u64, usual: u64| whole(table, key, least..=most, usual, "rules: ", problems);
    let instances = number("instances", 1, PROGRAM_INSTANCES_MAX as u64, 1);
    let usual_ms = u64::try_from(PROGRAM_BUDGET.as_millis()).unwrap_or(PROGRAM_BUDGET_MS_MAX);
    let budget_ms = number("budget_ms", PROGRAM_BUDGET_MS_MIN, PROGRAM_BUDGET_MS_MAX, usual_ms);
    let instances = usize::try_from(instances).unwrap_or(PROGRAM_INSTANCES_MAX);
    let folder = (!folder.as_os_str().is_empty()).then(|| folder.to_owned());
    ProgramSpec { source, folder, instances, budget: Duration::from_millis(budget_ms) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ProgramSpec, Vec<String>> {
        let (table, mut problems) = (text.parse().expect("TOML"), Vec::new());
        let spec = read(&table, Path::new("/etc/lasthit"), &mut problems);
        if problems.is_empty() { Ok(spec) } else { Err(problems) }
    }

    #[test]
    fn a_program_is_a_command_or_a_socket() {
        let started = parse("process = ['python3', 'quiz.py']\ninstances = 2\nbudget_ms = 500").expect("good");
        let folder = Some(PathBuf::from("/etc/lasthit"));
        let source = ProgramSource::Command(vec!["python3".to_owned(), "quiz.py".to_owned()]);
        assert_eq!(started, ProgramSpec { source, folder: folder.clone(), instances: 2, budget: Duration::from_millis(500) });
        let other = parse("socket = 'raid.sock'").expect("good");
        let source = ProgramSource::Socket(PathBuf::from("/etc/lasthit/raid.sock"));
        assert_eq!(other, ProgramSpec { source, folder, instances: 1, budget: PROGRAM_BUDGET });
    }

    #[test]
    fn mistakes_are_told_in_a_line_each() {
        for (text, why) in [
            ("process = 'python3 quiz.py'", "process \"python3 quiz.py\" is no command: write it as [\"python3\", \"quiz.py\"]"),
            ("process = []", "is no command"),
            ("process = ['']", "is no command"),
            ("socket = 3", "socket 3 is no path"),
            ("process = ['a']\nsocket = 'b'", "give a process or a socket, one of them"),
            ("process = ['a']\ninstances = 65", "instances 65 is not allowed: use a number from 1 to 64"),
            ("process = ['a']\nbudget_ms = 1", "budget_ms 1 is not allowed: use a number from 10 to 60000"),
            (
                "process = ['a']\nmemory_mib = 1",
                "\"memory_mib\" is not a setting: use process, socket, instances, budget_ms, attempts",
            ),
        ] {
            let problems = parse(text).expect_err(text);
            assert!(problems.len() == 1 && problems[0].contains(why) && !problems[0].contains('\n'), "{text}: {problems:?}");
        }
    }
}

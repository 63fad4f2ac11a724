//! The pages are kept true where a program can: relative links lead somewhere, commands have the flags that they are shown
//! with, and the architecture's map has every file.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The program's.
const COMMANDS: [&str; 6] = ["serve", "gateway", "worker", "replay", "dump", "timeline"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files below `directory` with this ending, but those of builds and of the repository itself.
fn files(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path()) {
        let name = entry.file_name().expect("a name").to_string_lossy().into_owned();
        if entry.is_dir() {
            if !["target", ".git", "node_modules"].contains(&name.as_str()) {
                found.extend(files(&entry, ending));
            }
        } else if name.ends_with(ending) {
            found.push(entry);
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A heading's anchor, as it is made of its text.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The page without what stands in fenced or indented blocks.
fn prose(page: &str) -> String {
    let unfenced: String = page.split("```").step_by(2).collect();
    unfenced.lines().filter(|line| !line.starts_with("    ")).flat_map(|line| [line, "\n"]).collect()
}

#[test]
fn relative_links_lead_somewhere() {
    let mut broken = Vec::new();
    for page in files(root(), ".md") {
        let text = prose(&read(&page));
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let images = text.split("src=\"").skip(1).filter_map(|rest| rest.split('"').next());
        for target in targets.chain(images).filter(|t| !t.contains("://") && !t.starts_with("mailto:")) {
            let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { page.clone() } else { page.parent().expect("a directory").join(file) };
            let there = path.exists()
                && (fragment.is_empty() || prose(&read(&path)).lines().any(|l| l.starts_with('#') && anchor(l) == fragment));
            if !there {
                broken.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

fn help(program: &Path, command: &str) -> String {
    let output = Command::new(program).args([command, "--help"]).output().expect("run");
    assert!(output.status.success(), "{} {command} --help", program.display());
    String::from_utf8(output.stdout).expect("text")
}

/// Every shown command line of a program, continuation lines joined: the words behind its name.
fn shown(page: &str, name: &str) -> Vec<Vec<String>> {
    let joined = page.replace("\\\n", " ");
    let lines = joined.lines().flat_map(|line| line.split('`')).filter_map(|line| {
        let words: Vec<&str> = line.split('#').next()?.split_whitespace().collect();
        let at = words.iter().position(|word| *word == name || word.ends_with(&format!("/{name}")))?;
        // `cargo run --release -p loadtest -- run`: the program's own words begin behind the dashes.
        let rest = &words[at + 1..];
        Some(rest.strip_prefix(&["--"]).unwrap_or(rest).iter().map(|word| (*word).to_owned()).collect())
    });
    lines.filter(|words: &Vec<String>| !words.is_empty()).collect()
}

#[test]
fn shown_commands_have_their_flags() {
    let mut wrong = Vec::new();
    let loadtest = read(&root().join("loadtest/src/cli.rs"));
    let mut seen = 0;
    for page in files(root(), ".md") {
        // The program runs as `cargo run --release -- serve`, too.
        let text = read(&page).replace("cargo run --release -- ", "lasthit ").replace("cargo run -- ", "lasthit ");
        for words in shown(&text, "lasthit") {
            let command = words[0].as_str();
            if !COMMANDS.contains(&command) {
                continue;
            }
            let help = help(Path::new(env!("CARGO_BIN_EXE_lasthit")), command);
            for flag in words.iter().filter(|word| word.starts_with("--")) {
                seen += 1;
                if !help.contains(&format!("{flag} ")) && !help.contains(&format!("{flag}\n")) {
                    wrong.push(format!("{}: lasthit {command} {flag}", page.display()));
                }
            }
        }
        for words in shown(&text, "loadtest").iter().filter(|words| ["run", "fair", "curve", "compare"].contains(&&*words[0])) {
            for flag in words.iter().filter_map(|word| word.strip_prefix("--")) {
                seen += 1;
                // Its program is another package's: the source of its command line has a field of that name.
                if !loadtest.contains(&format!("pub(crate) {}:", flag.replace('-', "_"))) {
                    wrong.push(format!("{}: loadtest {} --{flag}", page.display(), words[0]));
                }
            }
        }
    }
    // A flag by itself, in the text: some command has it.
    let commands = COMMANDS.map(|command| help(Path::new(env!("CARGO_BIN_EXE_lasthit")), command));
    for page in ["README.md", "ARCHITECTURE.md"] {
        let text = prose(&read(&root().join(page)));
        for flag in text.split('`').skip(1).step_by(2).filter(|span| span.starts_with("--")) {
            let flag = flag.split_whitespace().next().unwrap_or_default();
            let of_loadtest = loadtest.contains(&format!("pub(crate) {}:", flag.trim_start_matches("--").replace('-', "_")));
            if !of_loadtest && !commands.iter().any(|help| help.contains(&format!("{flag} "))) {
                wrong.push(format!("{page}: {flag}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(seen > 10, "only {seen} flags are shown: the pages are not read as they are written");
}

#[test]
fn the_map_has_every_file() {
    let map = read(&root().join("ARCHITECTURE.md"));
    let named: BTreeSet<&str> = map.split('`').skip(1).step_by(2).collect();
    let missing: Vec<String> = files(&root().join("src"), ".rs")
        .iter()
        .map(|file| file.strip_prefix(root()).expect("inside").display().to_string())
        .filter(|file| !file.contains("tests") && !named.contains(file.trim_start_matches("src/")))
        .collect();
    assert!(missing.is_empty(), "not in ARCHITECTURE.md: {missing:#?}");
    let gone: Vec<&&str> = named
        .iter()
        .filter(|name| name.ends_with(".rs") && !["src", ""].iter().any(|base| root().join(base).join(name).exists()))
        .collect();
    assert!(gone.is_empty(), "no such file: {gone:#?}");
}

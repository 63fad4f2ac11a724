//! The pages are kept true where a program can: relative links lead somewhere, commands have the flags that they are shown
//! with, the architecture's map has every file, names of the code are still there, and the rules are stated, cited and proven.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use super::tree::{files, from_root, read, root};

/// The program's.
const COMMANDS: [&str; 20] = [
    "serve", "up", "gateway", "worker", "ps", "start", "stop", "restart", "recycle", "delete", "scale", "reload", "down", "logs",
    "top", "replay", "dump", "timeline", "rules", "failed",
];
/// Those with commands of their own, which have the flags.
const NESTED: [&str; 2] = ["rules", "failed"];

/// The words of a text: letters, digits and underscores, with the place where each begins.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text.split(move |c| !is_word(c))
        .filter(|word| !word.is_empty())
        .map(move |word| (word.as_ptr() as usize - text.as_ptr() as usize, word))
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
    for page in files(root(), &[".md"]) {
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

fn help(program: &Path, command: &[&str]) -> String {
    let output = Command::new(program).args(command).arg("--help").output().expect("run");
    assert!(output.status.success(), "{} {command:?} --help", program.display());
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
    let loadtest: String = files(&root().join("loadtest/src/cli"), &[".rs"]).iter().map(|file| read(file)).collect();
    let loadtest = read(&root().join("loadtest/src/cli.rs")) + &loadtest;
    let mut seen = 0;
    for page in files(root(), &[".md"]) {
        // The program runs as `cargo run --release -- serve`, too.
        let text = read(&page).replace("cargo run --release -- ", "lasthit ").replace("cargo run -- ", "lasthit ");
        for words in shown(&text, "lasthit") {
            let command = words[0].as_str();
            if !COMMANDS.contains(&command) {
                continue;
            }
            let nested = words.get(1).filter(|word| NESTED.contains(&command) && !word.starts_with('-'));
            let command: Vec<&str> = [command].into_iter().chain(nested.map(String::as_str)).collect();
            let help = help(Path::new(env!("CARGO_BIN_EXE_lasthit")), &command);
            for flag in words.iter().filter(|word| word.starts_with("--")) {
                seen += 1;
                if !help.contains(&format!("{flag} ")) && !help.contains(&format!("{flag}\n")) {
                    wrong.push(format!("{}: lasthit {} {flag}", page.display(), command.join(" ")));
                }
            }
        }
        let commands = ["run", "fair", "curve", "compare", "stages", "chaos", "soak", "rules", "even", "door", "auto", "scale"];
        for words in shown(&text, "loadtest").iter().filter(|words| commands.contains(&&*words[0])) {
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
    let commands = COMMANDS.map(|command| help(Path::new(env!("CARGO_BIN_EXE_lasthit")), &[command]));
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
    let missing: Vec<String> = files(&root().join("src"), &[".rs"])
        .iter()
        .map(|file| from_root(file))
        .filter(|file| !file.contains("tests") && !named.contains(file.trim_start_matches("src/")))
        .collect();
    assert!(missing.is_empty(), "not in ARCHITECTURE.md: {missing:#?}");
}

/// Names of the kernel and of other programs that the pages speak of.
const OF_OTHERS: [&str; 4] = ["SCHED_FIFO", "SO_TIMESTAMPING", "SO_TIMESTAMPNS", "epoll_wait"];

/// What stands between backticks in a page's prose, with its line.
fn spans(page: &str) -> Vec<(usize, &str)> {
    let (mut found, mut fenced) = (Vec::new(), false);
    for (line, text) in (1..).zip(page.lines()) {
        fenced ^= text.trim_start().starts_with("```");
        if !fenced && !text.starts_with("    ") {
            found.extend(text.split('`').skip(1).step_by(2).map(|span| (line, span)));
        }
    }
    found
}

/// What a source file defines.
struct Source {
    /// Its path without the ending.
    path: String,
    /// Types and modules, also those that it implements something for.
    owners: BTreeSet<String>,
    /// Functions, types, modules, constants, fields, variants.
    declared: BTreeSet<String>,
}

impl Source {
    fn new(path: String, text: &str) -> Self {
        let (mut owners, mut declared, mut before) = (BTreeSet::new(), BTreeSet::new(), "");
        for (_, word) in words(text) {
            if ["struct", "enum", "trait", "mod", "type", "impl", "for"].contains(&before) {
                owners.insert(word.to_owned());
            }
            if ["fn", "mod", "struct", "enum", "trait", "type", "const", "static"].contains(&before) {
                declared.insert(word.to_owned());
            }
            before = word;
        }
        for line in text.lines().map(str::trim_start) {
            // `pub(super) name: Type,` and `Name(...),`
            let line = line.strip_prefix("pub(").and_then(|rest| rest.split_once(") ")).map_or(line, |(_, rest)| rest);
            let line = line.strip_prefix("pub ").unwrap_or(line);
            if let Some((0, word)) = words(line).next()
                && (line.len() == word.len() || line[word.len()..].trim_start().starts_with([',', '(', '{', ':']))
            {
                declared.insert(word.to_owned());
            }
        }
        Self { path, owners, declared }
    }

    /// Whether it is the module of this name, lies in it, or defines a type or module of this name.
    fn has(&self, owner: &str) -> bool {
        let stem = self.path.rsplit('/').next().unwrap_or_default();
        self.path.split('/').any(|part| part == owner)
            || stem.strip_suffix("_tests") == Some(owner)
            || self.owners.contains(owner)
    }
}

/// The name between backticks is of no use to a reader when nothing has it any more: files, `Type::method` and module paths,
/// constants, names of tests; in the pages for those who change the code, types as well.
#[test]
fn names_are_still_there() {
    let folders = ["src", "loadtest", "tests", "benches", "examples", "clients", "scripts"].map(|folder| root().join(folder));
    let paths = folders.iter().flat_map(|folder| files(folder, &[".rs", ".lua", ".js", ".mjs", ".sh", ".py"]));
    let texts: Vec<_> = paths.map(|path| (from_root(&path.with_extension("")), read(&path))).collect();
    let known: BTreeSet<&str> = texts.iter().flat_map(|(_, text)| words(text)).map(|(_, word)| word).chain(OF_OTHERS).collect();
    let all: Vec<Source> = texts.iter().map(|(path, text)| Source::new(path.clone(), text)).collect();
    let is_name =
        |text: &str| text.chars().all(|c| c.is_alphanumeric() || c == '_') && !text.starts_with(|c: char| c.is_ascii_digit());
    let mut gone = Vec::new();
    // What was is what a list of changes is about.
    for page in files(root(), &[".md"]).iter().filter(|page| !page.ends_with("CHANGELOG.md")) {
        let text = read(page);
        let of_code = ["ARCHITECTURE.md", "proofs.md", "rules-of-order.md"].iter().any(|name| page.ends_with(name));
        for (line, span) in spans(&text) {
            let is_file = [".rs", ".lua", ".js", ".mjs", ".sh", ".py"].iter().any(|ending| span.ends_with(ending));
            let span = span.trim_end_matches("()");
            let path: Vec<&str> = span.split("::").collect();
            let there = if is_file && !span.contains([' ', '*', '<']) {
                let bases = ["", "src", "src/journal/redis/lua", "loadtest", "loadtest/src"].map(|base| root().join(base));
                bases.iter().map(|base| base.as_path()).chain(page.parent()).any(|base| base.join(span).exists())
            } else if path.len() > 1 && path.iter().all(|segment| is_name(segment)) && path[0] != "std" {
                let name = path[path.len() - 1];
                let owner = path[..path.len() - 1].iter().rev().find(|segment| **segment != "tests").unwrap_or(&path[0]);
                all.iter().any(|source| source.has(owner) && source.declared.contains(name))
            } else if !is_name(span) || span.is_empty() {
                true
            } else {
                let is_constant =
                    span.contains('_') && span.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
                let is_long = span.matches('_').count() > 2;
                let is_type = of_code && span.starts_with(char::is_uppercase) && span.contains(char::is_lowercase);
                !(is_constant || is_long || is_type) || known.contains(span)
            };
            if !there {
                gone.push(format!("{}:{line}: `{span}` is in no source: name what took its place", from_root(page)));
            }
        }
    }
    assert!(gone.is_empty(), "\n{}", gone.join("\n"));
}

/// A letter and a number, as rules are named. `U8` is a type of numbers.
fn is_rule(word: &str) -> bool {
    word != "U8" && matches!(word.as_bytes(), [b'S' | b'W' | b'R' | b'C' | b'T' | b'P' | b'X' | b'U' | b'G', b'1'..=b'9'])
}

/// Every rule that is cited below these folders, with one place; and what names one without the word "rule".
fn citations(folders: &[&str]) -> (BTreeMap<String, String>, Vec<String>) {
    let (mut cited, mut bare) = (BTreeMap::new(), Vec::new());
    for file in folders.iter().flat_map(|folder| files(&root().join(folder), &[".rs", ".lua"])) {
        let text = read(&file);
        for (at, word) in words(&text).filter(|(_, word)| is_rule(word)) {
            let place = format!("{}:{}", from_root(&file), text[..at].matches('\n').count() + 1);
            // The line before may have ended with it, and this one begun with the signs of a comment.
            let before = text[..at].trim_end_matches(|c: char| c.is_whitespace() || matches!(c, '/' | '!' | '-'));
            if before.ends_with("rule") || before.ends_with("Rule") {
                cited.entry(word.to_owned()).or_insert(place);
            } else {
                bare.push(format!("{place}: {word}"));
            }
        }
    }
    (cited, bare)
}

#[test]
fn rules_are_stated_cited_and_proven() {
    let page = read(&root().join("docs/rules-of-order.md"));
    let statement = |line: &str| line.strip_prefix("**")?.split_once(". ").map(|(rule, _)| rule.to_owned());
    let stated: BTreeSet<String> = page.lines().filter_map(statement).filter(|rule| is_rule(rule)).collect();
    let (cited, bare) = citations(&["src"]);
    let (elsewhere, bare_elsewhere) = citations(&["tests", "benches", "loadtest/src"]);
    let proofs = read(&root().join("docs/proofs.md"));
    let rows = proofs.lines().filter_map(|line| line.strip_prefix("| ")?.split('|').next());
    let proven: BTreeSet<&str> = rows.flat_map(words).map(|(_, word)| word).filter(|word| is_rule(word)).collect();

    let bare: Vec<String> = bare.into_iter().chain(bare_elsewhere).collect();
    assert!(bare.is_empty(), "write `rule S7`, so that who searches finds it: {bare:#?}");
    let unstated: Vec<_> = cited.iter().chain(&elsewhere).filter(|(rule, _)| !stated.contains(*rule)).collect();
    assert!(unstated.is_empty(), "cited, and not stated in docs/rules-of-order.md: {unstated:#?}");
    for rule in &stated {
        assert!(
            cited.contains_key(rule),
            "docs/rules-of-order.md states {rule}, and nothing in src cites it: cite it where it is kept"
        );
        assert!(
            proven.contains(rule.as_str()),
            "docs/proofs.md has no row for {rule}: say which test plays it, or that none does"
        );
    }
    let unknown: Vec<_> = proven.iter().filter(|rule| !stated.contains(**rule)).collect();
    assert!(unknown.is_empty(), "docs/proofs.md has rows for rules that docs/rules-of-order.md does not state: {unknown:?}");
}

//! The walls of the house: who may import whom, who may name a clock, Redis, tokio or randomness, and how long a file may be.
//! ARCHITECTURE.md says why under *Invariants*.
//!
//! Only production code counts: tests and the simulation may import what they like. The scan reads tokens, not types: it sees
//! `use` lines and written paths, and no value that comes through another part.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::tree::{files, from_root, read, root};

// Lists of names are written as text, with blanks between them.

/// The parts of `src`, and what each may import: only parts that stand above it, so that there are no circles. A file belongs
/// to the part with the longest name that fits. An import may be narrowed to one module or item of a part.
const PARTS: &[(&str, &str)] = &[
    ("limits", ""),
    ("types", "limits"),
    ("rules", "limits types"),
    ("wire/client", "limits types"),
    ("wire", "limits types"),
    ("clock", "limits"),
    ("metrics", ""),
    ("telemetry", ""),
    ("shutdown", ""),
    ("runtime", "limits"),
    ("admin", "limits"),
    ("arena", ""),
    ("journal", "limits types wire"),
    ("journal/memory", "journal types"),
    ("journal/redis", "journal limits types wire"),
    ("engine", "limits rules types wire"),
    ("gateway", "clock journal limits metrics rules/Pattern types wire wire/client"),
    ("gateway/front", "clock gateway limits metrics types wire/client"),
    ("worker", "clock engine journal limits metrics rules types wire"),
    ("embed", "gateway journal limits types wire/client"),
    ("config", "gateway/front/auth journal/default_runtime_dir journal/redis/Durability limits rules telemetry types"),
    ("replay", "engine journal limits rules types wire worker"),
    ("replay/command", "config journal/redis replay types"),
    (
        "roles",
        "admin arena clock config gateway gateway/front journal journal/memory journal/redis limits metrics runtime \
         shutdown worker",
    ),
    ("cli", "config replay/command"),
    ("program", "cli config limits replay/command roles runtime shutdown telemetry"),
    ("internals", "clock config engine gateway/front limits metrics program replay runtime telemetry wire"),
    ("main", "internals"),
];

/// What a part never reaches, however long the way.
const APART: &[(&str, &str, &str)] = &[
    ("gateway", "worker engine journal/redis", "gateways never decide, and know the journal only"),
    ("gateway/front", "worker engine journal/redis", "gateways never decide, and know the journal only"),
    ("embed", "worker engine journal/redis", "gateways never decide, and know the journal only"),
    ("worker", "gateway gateway/front journal/redis", "workers never see a socket, and know the journal only"),
    ("engine", "clock journal metrics", "what the engine is given decides"),
    ("rules", "clock journal metrics", "what rules are given decides"),
    ("wire", "clock journal metrics", "bytes are values"),
];

/// What drives the cores: everything else in `gateway` and `worker` is a step function, or a value.
const DRIVERS: &str = "\
    gateway/front gateway/hub worker/run worker/listen worker/join worker/timings";

/// Names, the only places that may use them, and what others do instead.
const FENCES: &[(&str, &str, &str)] = &[
    ("redis", "journal/redis", "only the Redis journal knows Redis: add a step to the journal's trait"),
    (
        "std::time::Instant std::time::SystemTime nix::time",
        "clock",
        "only clock.rs reads clocks: take the time as an argument, or let a driver measure a duration with quanta",
    ),
    ("hyper hyper_util tokio_tungstenite", "admin gateway/front", "only the front and the admin address speak HTTP"),
    (
        "nix",
        "clock runtime gateway/front journal/lockfile",
        "only clock, runtime, arrival and lock files ask the system: take what they found as an argument",
    ),
    ("rand", "types/id clock", "only identities are random: take one as an argument"),
    (
        "crate::types::Incarnation::random",
        "gateway/hub journal/redis worker/join",
        "only a process that starts, and a server that is met for the first time, get a new identity: take it as an argument",
    ),
];

/// What decides: time and chance are arguments, and what is to be done is a value.
const PURE: &str = "engine gateway journal/check journal/steps limits rules types wire worker";

/// Names that nothing in [`PURE`] uses, but for [`DRIVERS`].
const IMPURE: &str = "\
    async await crate::clock crate::metrics::Stopwatch futures_util quanta std::env std::fs std::net::TcpListener \
    std::net::TcpStream std::net::UdpSocket std::os std::process std::thread tokio tokio_util";

/// Lines of a production file, its unit tests included.
const LINES_MAX: usize = 500;

struct Token<'a> {
    line: usize,
    text: &'a str,
}

/// The tokens of a source: words, `::`, and single signs. Comments, literals and lifetimes are left out.
fn tokens(source: &str) -> Vec<Token<'_>> {
    let (mut found, mut rest, mut line) = (Vec::new(), source, 1);
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (length, counts) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), false)
        } else if rest.starts_with("/*") {
            (rest.find("*/").map_or(rest.len(), |at| at + 2), false)
        } else if let Some(length) = literal(rest) {
            (length, false)
        } else if word > 0 {
            (word, true)
        } else if rest.starts_with("::") {
            (2, true)
        } else {
            (first.len_utf8(), !first.is_whitespace())
        };
        let (text, behind) = rest.split_at(length);
        if counts {
            found.push(Token { line, text });
        }
        line += text.matches('\n').count();
        rest = behind;
    }
    found
}

/// The length of the string, character or lifetime that a text begins with.
fn literal(text: &str) -> Option<usize> {
    let unprefixed = text.strip_prefix('b').unwrap_or(text);
    let prefix = text.len() - unprefixed.len();
    if let Some(raw) = unprefixed.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if let Some(body) = raw[hashes..].strip_prefix('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            return Some(prefix + hashes + 2 + body.find(&end).map_or(body.len(), |at| at + end.len()));
        }
    }
    let quote = unprefixed.chars().next().filter(|c| matches!(*c, '"' | '\''))?;
    let body = &unprefixed[1..];
    let mut escaped = false;
    let close = body.char_indices().find(|(_, c)| {
        let closes = *c == quote && !escaped;
        escaped = *c == '\\' && !escaped;
        closes
    });
    let close = close.map_or(body.len(), |(at, _)| at);
    let is_lifetime = quote == '\'' && !body.starts_with('\\') && body[..close].chars().count() != 1;
    let length =
        if is_lifetime { body.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(body.len()) } else { close + 1 };
    Some((prefix + 1 + length).min(text.len()))
}

/// Where an item ends that begins at `at`: behind its `;`, or behind the brace that closes its body.
fn behind_item(tokens: &[Token<'_>], at: usize) -> usize {
    let is_use = tokens.get(at).is_some_and(|token| token.text == "use");
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate().skip(at) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" => depth -= 1,
            "}" if depth == 1 && !is_use => return i + 1,
            // The last field of a struct.
            "}" if depth == 0 => return i,
            "}" => depth -= 1,
            ";" if depth == 0 => return i + 1,
            _ => {}
        }
    }
    tokens.len()
}

/// The tokens without the items that only tests have.
fn production(tokens: Vec<Token<'_>>) -> Vec<Token<'_>> {
    const TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut skipped = BTreeSet::new();
    let mut at = 0;
    while at < tokens.len() {
        if !tokens[at..].iter().map(|token| token.text).take(TEST.len()).eq(TEST) {
            at += 1;
            continue;
        }
        let mut item = at + TEST.len();
        // Further attributes of the same item.
        while tokens.get(item).is_some_and(|token| token.text == "#") {
            let close = tokens[item..].iter().position(|token| token.text == "]");
            item += close.map_or(1, |close| close + 1);
        }
        let end = behind_item(&tokens, item);
        skipped.extend(at..end);
        at = end;
    }
    tokens.into_iter().enumerate().filter(|(i, _)| !skipped.contains(i)).map(|(_, token)| token).collect()
}

type Path<'a> = (usize, Vec<&'a str>);

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Takes a tree of a `use` line apart; tells where it ends. `as` gives a path another name.
fn use_tree<'a>(
    tokens: &[Token<'a>],
    mut at: usize,
    before: &[&'a str],
    found: &mut Vec<Path<'a>>,
    named: &mut BTreeMap<&'a str, Vec<&'a str>>,
) -> usize {
    let mut path = before.to_vec();
    while let Some(token) = tokens.get(at) {
        match token.text {
            "::" => at += 1,
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token.text != "}") {
                    at = use_tree(tokens, at, &path, found, named);
                    at += usize::from(tokens.get(at).is_some_and(|token| token.text == ","));
                }
                return at + 1;
            }
            word if is_word(word) || word == "*" => {
                if word != "self" || path.is_empty() {
                    path.push(word);
                }
                at += 1;
                if tokens.get(at).is_some_and(|next| next.text == "::") {
                    continue;
                }
                let mut name = path.last().copied().unwrap_or_default();
                if tokens.get(at).is_some_and(|next| next.text == "as") {
                    name = tokens.get(at + 1).map_or(name, |token| token.text);
                    at += 2;
                }
                named.insert(name, path.clone());
                found.push((token.line, path));
                return at;
            }
            _ => return at + 1,
        }
    }
    at
}

/// Every path that a source names, with its line: each leaf of a `use` line, and what is written out elsewhere, with the names
/// that `use` and `mod` lines gave put back.
fn paths<'a>(tokens: &[Token<'a>]) -> Vec<Path<'a>> {
    let (mut used, mut named, mut written) = (Vec::new(), BTreeMap::new(), Vec::new());
    let mut at = 0;
    while at < tokens.len() {
        let text = |i: usize| tokens.get(i).map_or("", |token: &Token<'a>| token.text);
        let Token { line, text: first } = tokens[at];
        if first == "use" && text(at + 1) != "<" {
            at = use_tree(tokens, at + 1, &[], &mut used, &mut named);
        } else if first == "mod" && is_word(text(at + 1)) {
            named.insert(text(at + 1), vec!["self", text(at + 1)]);
            at += 2;
        } else if is_word(first) {
            let mut path = vec![first];
            at += 1;
            while text(at) == "::" && is_word(text(at + 1)) {
                path.push(text(at + 1));
                at += 2;
            }
            written.push((line, path));
        } else {
            at += 1;
        }
    }
    let own = |(line, path): Path<'a>| match named.get(path[0]) {
        Some(named) if path.len() > 1 && named[0] != path[0] => (line, [&named[..], &path[1..]].concat()),
        _ => (line, path),
    };
    used.into_iter().chain(written).map(own).collect()
}

/// A path as it is from the crate's root, `crate` first; another crate's stays as it is.
fn absolute<'a>(module: &[&'a str], path: &[&'a str]) -> Vec<&'a str> {
    let mut base = match path[0] {
        "lasthit" if module.is_empty() || module == ["main"] => Vec::new(),
        "self" | "super" => module.to_vec(),
        _ => return path.to_vec(),
    };
    let up = path.iter().take_while(|segment| matches!(**segment, "self" | "super" | "lasthit")).count();
    for _ in path[..up].iter().filter(|segment| **segment == "super") {
        base.pop();
    }
    [&["crate"][..], &base[..], &path[up..]].concat()
}

/// A file below `src` without its ending, and the segments of its module.
fn module(file: &str) -> Vec<&str> {
    let mut module: Vec<&str> = file.trim_end_matches(".rs").split('/').collect();
    if matches!(module.last(), Some(&("mod" | "lib"))) {
        module.pop();
    }
    module
}

/// Whether a name, of segments that `separator` parts, begins with another.
fn begins(name: &str, with: &str, separator: &str) -> bool {
    name.strip_prefix(with).is_some_and(|rest| rest.is_empty() || rest.starts_with(separator))
}

/// The part that a module, or an item in it, belongs to.
fn part_of(name: &str) -> Option<usize> {
    let fitting = PARTS.iter().enumerate().filter(|(_, (part, _))| begins(name, part, "/"));
    fitting.max_by_key(|(_, (part, _))| part.len()).map(|(i, _)| i)
}

/// Whether a file is in one of some places: a folder, or files that begin so (`gateway/hub` is `hub.rs` and `hub/`).
fn is_in(file: &str, places: &str) -> bool {
    places.split_whitespace().any(|place| begins(file.trim_end_matches(".rs"), place, "/"))
}

/// What is wrong with the imports of a file below `src`.
fn wrong_imports(file: &str, source: &str) -> Vec<String> {
    let module = module(file);
    if module.is_empty() {
        return Vec::new();
    }
    let Some(own) = part_of(&module.join("/")) else {
        return vec![format!(
            "src/{file}: belongs to no part: give it a row in PARTS (tests/docs/tidy.rs), with what it may import"
        )];
    };
    let (part, allowed) = PARTS[own];
    let mut wrong = Vec::new();
    for (line, path) in paths(&production(tokens(source))) {
        if path.len() < 2 {
            continue;
        }
        let path = absolute(&module, &path);
        let ["crate", item @ ..] = &path[..] else { continue };
        let name = item.join("/");
        let Some(other) = part_of(&name).filter(|other| *other != own) else { continue };
        if !allowed.split_whitespace().any(|allowed| begins(&name, allowed, "/") && part_of(allowed) == Some(other)) {
            wrong.push(format!(
                "src/{file}:{line}: {part} may not import {} ({}): move what both need to a part above both; \
                 if the import is right, say so in PARTS (tests/docs/tidy.rs)",
                PARTS[other].0,
                path.join("::"),
            ));
        }
    }
    wrong
}

/// What a file below `src` names and may not.
fn wrong_names(file: &str, source: &str) -> Vec<String> {
    let module = module(file);
    let is_pure = is_in(file, PURE) && !is_in(file, DRIVERS);
    let mut wrong = Vec::new();
    for (line, path) in paths(&production(tokens(source))) {
        let name = absolute(&module, &path).join("::");
        for (names, places, instead) in FENCES {
            let is_fenced = path.len() > 1 && names.split_whitespace().any(|fenced| begins(&name, fenced, "::"));
            if is_fenced && !is_in(file, places) {
                wrong.push(format!("src/{file}:{line}: names {name}: {instead}"));
            }
        }
        if is_pure && IMPURE.split_whitespace().any(|impure| begins(&name, impure, "::")) {
            wrong.push(format!(
                "src/{file}:{line}: names {name}: what decides awaits nothing, reads no clock and does no I/O; let a driver do it \
                 (DRIVERS in tests/docs/tidy.rs), and take the result as an argument"
            ));
        }
    }
    wrong
}

/// The production files below `src`, as their paths from there, and their texts.
fn sources() -> Vec<(String, String)> {
    let all = files(&root().join("src"), &[".rs"]);
    let named = all.iter().map(|path| (from_root(path).trim_start_matches("src/").to_owned(), read(path)));
    named.filter(|(file, _)| !is_test(file)).collect()
}

fn is_test(file: &str) -> bool {
    file.trim_end_matches(".rs").split('/').any(|name| matches!(name, "sim" | "tests") || name.ends_with("_tests"))
}

#[test]
fn parts_import_only_what_stands_above_them() {
    for (i, (part, allowed)) in PARTS.iter().enumerate() {
        for import in allowed.split_whitespace() {
            let other = part_of(import).unwrap_or_else(|| panic!("PARTS: {part} may import {import}, which is no part"));
            assert!(other < i, "PARTS: {part} may import {import}, which does not stand above it: that would allow a circle");
        }
    }
    let wrong: Vec<String> = sources().iter().flat_map(|(file, source)| wrong_imports(file, source)).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn some_parts_never_reach_others() {
    for (part, others, why) in APART {
        // Each part that is reached, and by which it was.
        let mut reached = BTreeMap::from([(part_of(part).expect("a part"), None)]);
        let mut next: Vec<usize> = reached.keys().copied().collect();
        while let Some(from) = next.pop() {
            for import in PARTS[from].1.split_whitespace() {
                let to = part_of(import).expect("a part");
                if let Entry::Vacant(new) = reached.entry(to) {
                    new.insert(Some(from));
                    next.push(to);
                }
            }
        }
        for other in others.split_whitespace() {
            let at = part_of(other).expect("a part");
            let way: Vec<&str> =
                std::iter::successors(Some(at), |at| reached.get(at).copied().flatten()).map(|at| PARTS[at].0).collect();
            let way: Vec<&str> = way.into_iter().rev().collect();
            assert!(!reached.contains_key(&at), "PARTS: {part} reaches {other} ({}): {why}", way.join(" -> "));
        }
    }
}

#[test]
fn names_stay_where_they_belong() {
    let wrong: Vec<String> = sources().iter().flat_map(|(file, source)| wrong_names(file, source)).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// A row that nothing needs any more would let something back in.
#[test]
fn no_wall_has_a_gap_that_nothing_uses() {
    let mut unused: BTreeSet<(&str, &str)> = PARTS
        .iter()
        .flat_map(|(part, allowed)| allowed.split_whitespace().map(move |import| (*part, import)))
        .chain(FENCES.iter().flat_map(|(names, places, _)| places.split_whitespace().map(move |place| (place, *names))))
        .chain(DRIVERS.split_whitespace().map(|driver| (driver, "")))
        .collect();
    for (file, source) in sources() {
        let module = module(&file);
        let own = part_of(&module.join("/"));
        for (_, path) in paths(&production(tokens(&source))) {
            let path = absolute(&module, &path);
            let (name, item) = (path.join("::"), path[1..].join("/"));
            let is_named = |names: &str| names.split_whitespace().any(|listed| begins(&name, listed, "::"));
            unused.retain(|(place, what)| match *what {
                "" => !(is_in(&file, place) && is_named(IMPURE)),
                names if FENCES.iter().any(|(fenced, _, _)| *fenced == names) => !(is_in(&file, place) && is_named(names)),
                import => {
                    let is_own = own.is_some_and(|own| PARTS[own].0 == *place);
                    !(is_own && path[0] == "crate" && begins(&item, import, "/") && part_of(&item) == part_of(import))
                }
            });
        }
    }
    assert!(unused.is_empty(), "nothing needs these (place, import or name); take them out: {unused:#?}");
}

#[test]
fn production_files_are_short() {
    let all = ["src", "loadtest/src"].iter().flat_map(|folder| files(&root().join(folder), &[".rs"]));
    let long: Vec<String> = all
        .map(|path| (from_root(&path), read(&path).lines().count()))
        .filter(|(file, lines)| !is_test(file) && *lines > LINES_MAX)
        .map(|(file, lines)| {
            format!("{file}: {lines} lines of at most {LINES_MAX}: move one coherent piece to a file of its own")
        })
        .collect();
    assert!(long.is_empty(), "\n{}", long.join("\n"));
}

/// Each wall fails where it should, and only there.
#[test]
fn walls_stand() {
    let imports: [(&str, &str, Option<&str>); 9] = [
        ("gateway/front/auth.rs", "use crate::config::Config;", Some("auth.rs:1: gateway/front may not import config")),
        (
            "gateway/core.rs",
            "use crate::{\n    types::RoomId,\n    worker::run,\n};",
            Some("core.rs:3: gateway may not import worker"),
        ),
        ("worker/lane.rs", "fn f() { super::super::gateway::hub::f() }", Some("worker may not import gateway")),
        (
            "journal/mod.rs",
            "use crate::journal;\nfn f() { journal::redis::f() }",
            Some("mod.rs:2: journal may not import journal/redis"),
        ),
        ("config.rs", "use crate::journal::redis::RedisJournal;", Some("config may not import journal/redis")),
        ("config.rs", "use crate::journal::redis::Durability;", None),
        (
            "engine/room.rs",
            "// crate::clock::now()\nconst A: &str = \"crate::clock::now()\";\nfn f<'a>(_: &'a str) { g('\\'', '\"') }",
            None,
        ),
        (
            "engine/room.rs",
            "#[cfg(test)]\nmod tests { use crate::worker::run; }\n#[cfg(test)]\nuse crate::{worker, clock};",
            None,
        ),
        ("unheard_of.rs", "", Some("unheard_of.rs: belongs to no part")),
    ];
    for (file, source, expected) in imports {
        let wrong = wrong_imports(file, source);
        assert!(wrong.len() == usize::from(expected.is_some()), "{file}: {source:?}: {wrong:#?}");
        assert!(wrong.iter().all(|line| line.contains(expected.unwrap_or_default())), "{file}: {source:?}: {wrong:#?}");
    }
    let names: [(&str, &str, usize); 15] = [
        ("worker/shard.rs", "use redis::Cmd;", 1),
        ("journal/mod.rs", "fn f() { ::redis::cmd(\"PING\"); }", 1),
        ("journal/mod.rs", "pub mod redis;\npub use redis::RedisJournal;", 0),
        ("worker/run.rs", "use std::time::{Duration, Instant};", 1),
        ("gateway/hub.rs", "use std::time;\nfn f() { time::SystemTime::now(); }", 1),
        ("worker/shard/commits.rs", "use quanta::Instant;", 1),
        ("worker/run.rs", "use quanta::Instant;", 0),
        ("gateway/settle.rs", "use tokio::sync::Notify;", 1),
        ("gateway/hub/outbox.rs", "use tokio::sync::Notify;", 0),
        ("gateway/core.rs", "use hyper::Request;", 1),
        ("engine/recent.rs", "fn f() -> u64 { rand::random() }", 1),
        ("worker/core.rs", "use crate::types::Incarnation;\nfn f() { Incarnation::random(); }", 1),
        ("worker/core/answers.rs", "async fn f() { g().await }", 2),
        ("gateway/deliver.rs", "use crate::clock;\nfn f() { clock::monotonic_ns(); }", 2),
        ("wire/entry.rs", "fn f() { std::fs::read(\"x\"); }", 1),
    ];
    for (file, source, expected) in names {
        let wrong = wrong_names(file, source);
        assert!(wrong.len() == expected, "{file}: {source:?}: {wrong:#?}");
    }
    let seen: usize = sources().iter().map(|(_, source)| paths(&production(tokens(source))).len()).sum();
    assert!(seen > 10_000, "only {seen} names were seen: the sources are not read as they are written");
}

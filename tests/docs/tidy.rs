//! The walls of the house: who may import whom, who may name a clock, Redis, tokio or randomness, and how long a file may be.
//! ARCHITECTURE.md says why under *Invariants*.
//!
//! Only production code counts: tests and the simulation may import what they like.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::scan::{absolute, module, names};
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
    ("shutdown", "limits"),
    ("runtime", "limits"),
    ("admin", "limits"),
    ("supervisor/asking", ""),
    ("supervisor/policy", "limits"),
    ("supervisor/plan", "limits supervisor/policy"),
    ("arena", ""),
    ("journal", "clock/timeline_name limits types wire"),
    ("journal/memory", "journal limits types"),
    // It alone knows the nodes of a cluster, which metrics name.
    ("journal/redis", "journal limits metrics types wire"),
    ("engine", "limits rules types wire"),
    ("gateway", "clock journal limits metrics rules/Pattern types wire wire/client"),
    ("gateway/front", "clock gateway limits metrics types wire/client"),
    ("worker", "clock engine journal limits metrics rules types wire"),
    ("embed", "gateway journal limits types wire/client"),
    (
        "config",
        "gateway/front/auth journal/default_runtime_dir journal/redis/CLUSTER_FORM journal/redis/ClusterUrl journal/redis/Durability journal/redis/SENTINEL_FORM \
         journal/redis/SentinelUrl journal/redis/names_a_host limits rules runtime/Priority \
         supervisor/policy/counts/Wanted supervisor/policy/names/is_deployment supervisor/policy/recycle/Bounds telemetry types",
    ),
    ("child/settings", "config"),
    ("child/channel", "child/settings limits"),
    (
        "child/link",
        "child/channel gateway/front/Everywhere gateway/front/Passing gateway/front/Peer gateway/front/arrival gateway/front/tally limits \
         shutdown",
    ),
    (
        "supervisor",
        "child/channel child/settings config gateway/front/arrival gateway/front/network journal/JournalError journal/redis/Durability \
         journal/redis/FORMAT journal/redis/own limits runtime shutdown supervisor/asking supervisor/plan supervisor/policy telemetry/LogFormat",
    ),
    ("replay", "engine journal limits rules types wire worker"),
    ("replay/command", "config journal/redis replay rules types worker"),
    (
        "roles",
        "admin arena child/link clock config gateway gateway/front journal journal/memory journal/redis limits metrics runtime \
         rules shutdown worker",
    ),
    ("process", "child/link config limits metrics roles rules runtime shutdown telemetry"),
    ("child", "child/channel config journal/redis limits process roles rules runtime shutdown worker"),
    ("workbench", "config engine limits rules types wire"),
    ("failed", "config journal journal/redis limits types wire"),
    ("hosts", "config journal journal/redis limits types wire worker/eligible"),
    ("versions", "clock config failed journal journal/redis limits replay replay/command rules types workbench worker"),
    ("cli", "child/settings config failed hosts journal/default_runtime_dir replay/command supervisor/asking versions workbench"),
    (
        "program",
        "child cli config failed hosts process replay/command runtime shutdown supervisor supervisor/asking telemetry versions \
         workbench",
    ),
    (
        "internals",
        "clock config engine gateway/front limits metrics program replay roles rules/messages runtime shutdown telemetry wire",
    ),
    ("main", "internals"),
];

/// What a part never reaches, however long the way.
const APART: &[(&str, &str, &str)] = &[
    ("gateway", "worker engine journal/redis", "gateways never decide, and know the journal only"),
    ("gateway/front", "worker engine journal/redis", "gateways never decide, and know the journal only"),
    ("embed", "worker engine journal/redis", "gateways never decide, and know the journal only"),
    ("worker", "gateway gateway/front journal/redis", "workers never see a socket, and know the journal only"),
    ("supervisor/plan", "clock config journal metrics", "what the plan is given decides"),
    ("engine", "clock journal metrics", "what the engine is given decides"),
    ("rules", "clock journal metrics", "what rules are given decides"),
    ("wire", "clock journal metrics", "bytes are values"),
];

/// What drives the cores: everything else in `gateway` and `worker` is a step function, or a value.
const DRIVERS: &str = "\
    gateway/front gateway/hub worker/run worker/wake worker/listen worker/join worker/release worker/meters worker/programs worker/threads
    worker/library";

/// Names, the only places that may use them, and what others do instead.
const FENCES: &[(&str, &str, &str)] = &[
    ("redis", "journal/redis", "only the Redis journal knows Redis: add a step to the journal's trait"),
    (
        "std::time::Instant std::time::SystemTime nix::time",
        "clock rules/js/budget",
        "only clock.rs reads clocks, and a program's budget the processor time that it has used: take the time as an argument, or let a driver measure a duration with quanta",
    ),
    (
        "hyper hyper_util tokio_tungstenite",
        "admin gateway/front supervisor/client supervisor/control",
        "only the front, the admin address and the control socket speak HTTP",
    ),
    (
        "nix",
        "clock runtime gateway/front journal/lockfile rules/js/budget",
        "only clock, runtime, arrival, lock files and the budgets of programs ask the system: take what they found as an argument",
    ),
    ("rand", "types/id clock", "only identities are random: take one as an argument"),
    (
        "crate::types::Incarnation::random",
        "gateway/hub journal/redis worker/join",
        "only a process that starts, and a server that is met for the first time, get a new identity: take it as an argument",
    ),
    (
        "crate::types::Seed::random",
        "journal/redis journal/memory",
        "only a journal gives rooms their seeds: take it as an argument",
    ),
];

/// What decides: time and chance are arguments, and what is to be done is a value.
const PURE: &str = "engine gateway journal/check journal/steps limits rules supervisor/plan supervisor/policy types wire worker";

/// Names that nothing in [`PURE`] uses, but for [`DRIVERS`].
const IMPURE: &str = "\
    async await crate::clock crate::metrics::Stopwatch futures_util quanta std::env std::fs std::net::TcpListener \
    std::net::TcpStream std::net::UdpSocket std::os std::process std::thread tokio tokio_util";

/// Lines of a production file, its unit tests included.
const LINES_MAX: usize = 500;

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
    for (line, path) in names(source) {
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
    for (line, path) in names(source) {
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
        for (_, path) in names(&source) {
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
    let all = ["src", "loadtest/src"].iter().flat_map(|folder| files(&root().join(folder), &[".rs", ".js", ".lua"]));
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
    let named: [(&str, &str, usize); 15] = [
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
    for (file, source, expected) in named {
        let wrong = wrong_names(file, source);
        assert!(wrong.len() == expected, "{file}: {source:?}: {wrong:#?}");
    }
    let seen: usize = sources().iter().map(|(_, source)| names(source).len()).sum();
    assert!(seen > 10_000, "only {seen} names were seen: the sources are not read as they are written");
}

//! The commands of docs/host.md, one after the other, on a folder in place of the host.

use std::collections::BTreeSet;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{Home, Said, shown};
use crate::support::{Process, redis, until};

const PAGE: &str = include_str!("../../../docs/host.md");

/// Programs whose commands are the service manager's, or need a registry of images.
const OF_OTHERS: [&str; 4] = ["systemctl", "journalctl", "podman", "git archive"];

/// What the page shows under a heading, to be typed.
fn commands(heading: &str) -> Vec<&'static str> {
    let (_, section) = PAGE.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("{heading}"));
    let section = section.split("\n## ").next().unwrap_or_default();
    let all: Vec<&str> = section.lines().filter_map(|line| line.strip_prefix("    ")).collect();
    assert!(!all.is_empty(), "{heading} shows no command");
    all
}

/// A host in a folder.
struct Host<'a> {
    home: &'a Home,
    /// What the page says, and what it is here. The first that fits counts.
    here: Vec<(String, String)>,
}

impl Host<'_> {
    fn here(&self, text: &str) -> String {
        self.here.iter().fold(text.to_owned(), |text, (there, here)| text.replace(there, here))
    }

    /// Runs what the page shows under a heading. Returns what it printed.
    fn run(&self, heading: &str) -> String {
        let mut printed = String::new();
        for line in commands(heading).into_iter().filter(|line| !OF_OTHERS.iter().any(|other| line.starts_with(other))) {
            let path = std::env::var("PATH").unwrap_or_default();
            let mut command = Command::new("sh");
            command.args(["-c", &self.here(line)]).current_dir(env!("CARGO_MANIFEST_DIR"));
            command.env("PATH", format!("{}:{path}", shown(&self.home.file("usr/local/bin"))));
            command.env("LASTHIT_CONTROL", self.home.file("run/lasthit/supervisor.sock"));
            let output = command.output().expect("sh");
            let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert!(output.status.success(), "{heading}: {line}: {said}");
            printed += &said;
        }
        printed
    }
}

fn folder(path: &Path) {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).expect("a folder");
}

#[test]
fn a_fresh_host_gets_a_deployment_by_the_commands_of_the_page() {
    let (redis, home) = (redis(&[]), Home::new());
    let free = || servers::free_address().expect("a free port").to_string();
    let (listen, admin) = (free(), free());
    for path in ["usr/local/bin", "etc/systemd/system", "run/lasthit"] {
        folder(&home.file(path));
    }
    for file in ["passwd", "group", "shadow", "gshadow"] {
        home.write(&format!("etc/{file}"), "");
    }
    let root = shown(home.0.path());
    let pairs = [
        ("apt-get install -y", "apt-get install --simulate -y".to_owned()),
        ("cargo build --release --locked", "true".to_owned()),
        ("useradd --system", format!("useradd --prefix {root} --system")),
        ("target/release/lasthit", env!("CARGO_BIN_EXE_lasthit").to_owned()),
        ("/usr/local/bin", format!("{root}/usr/local/bin")),
        ("/etc/", format!("{root}/etc/")),
        ("/run/lasthit", format!("{root}/run/lasthit")),
        ("127.0.0.1:7777", listen.clone()),
        ("127.0.0.1:7778", admin),
        ("redis://127.0.0.1:6379", redis.url()),
    ];
    let here = pairs.map(|(there, here)| (there.to_owned(), here)).to_vec();
    let host = Host { home: &home, here };

    host.run("Install");
    assert!(std::fs::read_to_string(home.file("etc/passwd")).is_ok_and(|users| users.starts_with("lasthit:")));
    let file = home.file("etc/lasthit/lasthit.toml");
    let settings = std::fs::read_to_string(&file).expect("settings");
    std::fs::write(&file, host.here(&settings)).expect("written");
    let secrets = std::fs::read_to_string(home.file("etc/lasthit/environment")).expect("secrets");

    // What systemd does with the unit.
    let unit = std::fs::read_to_string(home.file("etc/systemd/system/lasthit.service")).expect("a unit");
    let unit = host.here(&unit);
    let socket = std::fs::read_to_string(home.file("etc/systemd/system/lasthit.socket")).expect("a unit");
    assert!(host.here(&socket).contains(&format!("ListenStream={listen}\n")), "{socket}");
    let value = |name: &str| unit.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}"));
    let words: Vec<&str> = value("ExecStart=").split(' ').collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir("/");
    let variables = value("Environment=").split(' ').chain(secrets.lines()).filter_map(|line| line.split_once('='));
    command.envs(variables);
    let process = Process::of(&mut command);
    let address = process.address_in("open http://");
    assert_eq!(address.to_string(), listen);

    // As `systemctl start` does.
    let control = shown(&home.file("run/lasthit/supervisor.sock"));
    let ready = || Said::of(&["ps", "--json", "--control", &control]).lines.concat().matches("\"phase\":\"ready\"").count();
    until("all are ready", || (ready() >= 2).then_some(()));
    let printed = host.run("Look");
    for text in ["gateway-1", "worker-1", "\"status\":\"", "processes ready", "ready\n"] {
        assert!(printed.contains(text), "{text}: {printed}");
    }
    let pids = || -> BTreeSet<u64> {
        let rows = Said::of(&["ps", "--json", "--control", &control]).done().concat();
        let rows: Vec<Value> = serde_json::from_str(&rows).expect("json");
        rows.iter().filter_map(|row| row["pid"].as_u64()).collect()
    };
    let before = pids();
    host.run("Change");
    assert!(before.is_disjoint(&pids()), "all are new");
    let printed = host.run("Upgrade");
    assert_eq!(printed.matches("gateway-1: a new one is started").count(), 2, "there and back again: {printed}");
    host.run("When something is `failed`");
    drop(process);
}

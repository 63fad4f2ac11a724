//! The programs that are measured, in a folder with a configuration that gives each its rooms.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::spawn::{Options, Spawn};

/// What every bar is measured on.
pub(super) const SPAWN: Spawn = Spawn::Redis { gateways: 2, workers: 1, delay: None };
/// The configuration's file.
const CONFIG: &str = "lasthit.toml";

/// Rooms that have the same rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// The built-in `claim`, whose verdicts go to their sender.
    BuiltIn,
    /// The same in JavaScript, inside the worker.
    JavaScript,
    /// The same in Python, one process.
    Python,
    /// JavaScript with a state of 1 KiB.
    Kilobyte,
    /// JavaScript with a timer.
    Clock,
    /// JavaScript with a timer, whose answers name its version.
    Busy,
}

impl Family {
    /// What the tags of their rooms begin with.
    pub(super) fn tag(self) -> &'static str {
        match self {
            Self::BuiltIn => "",
            Self::JavaScript => "js-",
            Self::Python => "py-",
            Self::Kilobyte => "kib-",
            Self::Clock => "clock-",
            Self::Busy => "busy-",
        }
    }

    /// For people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::BuiltIn => "built-in rules",
            Self::JavaScript | Self::Kilobyte | Self::Clock | Self::Busy => "JavaScript",
            Self::Python => "a Python process",
        }
    }

    /// The files of its program, which itself is the first.
    fn files(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::BuiltIn => &[],
            Self::JavaScript => &[("claim.js", include_str!("../../programs/claim.js"))],
            Self::Python => &[
                ("claim.py", include_str!("../../programs/claim.py")),
                ("lasthit_rules.py", include_str!("../../../rules/python/lasthit_rules.py")),
            ],
            Self::Kilobyte => &[("room.js", include_str!("../../programs/room.js"))],
            Self::Clock => &[("clock.js", include_str!("../../programs/clock.js"))],
            Self::Busy => &[("busy.js", include_str!("../../programs/busy.js"))],
        }
    }

    /// The version that its answers name; 0 if they do not.
    pub(super) fn version(self) -> u32 {
        u32::from(self == Self::Busy)
    }

    /// Which rooms have its program, as in the configuration.
    pub(super) fn pattern(self) -> String {
        format!("load-{}*", self.tag())
    }

    fn rules(self) -> Option<String> {
        let (file, _) = self.files().first()?;
        let is_process = self == Self::Python;
        Some(if is_process { format!("{{ process = [\"python3\", \"{file}\"] }}") } else { format!("{{ file = \"{file}\" }}") })
    }
}

/// Programs and their configuration; the files go with it.
#[derive(Debug)]
pub(super) struct Programs(TempDir);

impl Programs {
    /// Writes those of these families. All other rooms have the built-in rules.
    pub(super) fn write(families: &[Family]) -> Result<Self> {
        if families.contains(&Family::Python) {
            let asked = std::process::Command::new("python3").arg("--version").output();
            ensure!(asked.is_ok_and(|output| output.status.success()), "python3 is not there: install Python 3.9 or newer");
        }
        let dir = tempfile::Builder::new().prefix("loadtest-rules-").tempdir().context("no directory for programs")?;
        let mut rooms = String::new();
        for family in families {
            for (file, text) in family.files() {
                std::fs::write(dir.path().join(file), text).with_context(|| format!("{file} cannot be written"))?;
            }
            if let Some(rules) = family.rules() {
                rooms += &format!("[[rooms]]\npattern = \"{}\"\nrules = {rules}\n", family.pattern());
            }
        }
        rooms += "[[rooms]]\npattern = \"*\"\nrules = \"claim\"\naudience = \"sender\"\n";
        std::fs::write(dir.path().join(CONFIG), rooms).context("the configuration cannot be written")?;
        Ok(Self(dir))
    }

    /// How processes are started that use them. A room ends so long after its last session has left.
    pub(super) fn options(&self, room_linger: &str) -> Options {
        let config = self.path().join(CONFIG).display().to_string();
        let settings = [("config", config), ("room-linger", room_linger.to_owned())];
        Options { settings: settings.map(|(name, value)| (name.to_owned(), value)).to_vec(), ..Options::default() }
    }

    /// Puts something else in the place of a part of a program's text, and returns its file.
    pub(super) fn rewrite(&self, family: Family, [part, instead]: [&str; 2]) -> Result<PathBuf> {
        let (file, text) = family.files().first().context("built-in rules have no file")?;
        ensure!(text.contains(part), "{file} has no {part:?}");
        let path = self.path().join(file);
        std::fs::write(&path, text.replace(part, instead)).with_context(|| format!("{file} cannot be written"))?;
        Ok(path)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

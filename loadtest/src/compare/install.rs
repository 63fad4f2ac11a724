//! The programs of others: copied to a directory of their own, with their packages, so that nothing is written beside them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::Teller;
use crate::spawn::run_to_end;

/// The oldest Node that they are meant for.
const NODE_MIN: u32 = 20;
/// How long the packages of one may take.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(120);
/// How long Node may take to say its version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);
/// Files of a rival, at most: they are a few scripts.
const FILES_MAX: usize = 200;

const WS_ROOM: [(&str, &str); 2] = [
    ("package.json", include_str!("../../peers/ws-room/package.json")),
    ("ws-room.mjs", include_str!("../../peers/ws-room/ws-room.mjs")),
];

/// Where each is; None for one that is not to be had.
#[derive(Debug)]
pub(super) struct Rivals {
    pub(super) ws_room: Option<PathBuf>,
    pub(super) bullmq: Option<PathBuf>,
    pub(super) groupmq: Option<PathBuf>,
    pub(super) bullmq_queue: Option<PathBuf>,
    dir: TempDir,
}

impl Rivals {
    /// Copies and installs what can be, if any are wanted; the others are noted.
    pub(super) async fn install(are_wanted: bool, peer: Option<&Path>, teller: &mut Teller) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("loadtest-rivals-").tempdir().context("no directory for the rivals")?;
        let mut rivals = Self { ws_room: None, bullmq: None, groupmq: None, bullmq_queue: None, dir };
        if !are_wanted {
            return Ok(rivals);
        }
        if let Err(e) = node_is_there(rivals.dir.path()).await {
            teller.note(format!("without rivals on Node, whose rows are absent: {e:#}"));
            return Ok(rivals);
        }
        let root = rivals.dir.path().to_owned();
        let ws_room = root.join("ws-room");
        std::fs::create_dir(&ws_room)?;
        for (name, text) in WS_ROOM {
            std::fs::write(ws_room.join(name), text)?;
        }
        rivals.ws_room = packages(ws_room, teller).await;
        let Some(peer) = peer else {
            teller.note("without the usual stack, groupmq and BullMQ, whose rows are absent: give --peer DIR".to_owned());
            return Ok(rivals);
        };
        ensure!(
            peer.join("queue-matrix").is_dir(),
            "peer {} has no folder queue-matrix: give the folder of all peers",
            peer.display()
        );
        copy(&peer.join("queue-matrix"), &root.join("queue-matrix"))?;
        for (name, slot) in
            [("bullmq", &mut rivals.bullmq), ("groupmq", &mut rivals.groupmq), ("bullmq-queue", &mut rivals.bullmq_queue)]
        {
            let (from, to) = (peer.join(name), root.join(name));
            if from.is_dir() {
                copy(&from, &to)?;
                *slot = packages(to, teller).await;
            } else {
                teller.note(format!("without {name}, which is not in {}: its rows are absent", peer.display()));
            }
        }
        Ok(rivals)
    }

    /// Removes the copies.
    pub(super) fn remove(self) {
        if let Err(e) = self.dir.close() {
            eprintln!("warning: the copies of the rivals are left: {e}");
        }
    }
}

async fn node_is_there(dir: &Path) -> Result<()> {
    let said = run_to_end("node", &["--version"], dir, VERSION_TIMEOUT).await?;
    let version = said.trim();
    let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    ensure!(major.is_some_and(|major| major >= NODE_MIN), "node is {version}, {NODE_MIN} or newer is needed");
    Ok(())
}

/// Its packages beside it; None when they are not to be had.
async fn packages(dir: PathBuf, teller: &mut Teller) -> Option<PathBuf> {
    let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    teller.tell(&format!("packages of {name}"));
    let arguments = ["install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"];
    match run_to_end("npm", &arguments, &dir, INSTALL_TIMEOUT).await {
        Ok(_) => Some(dir),
        Err(e) => {
            teller.note(format!("without {name}, whose rows are absent: its packages cannot be installed: {e:#}"));
            None
        }
    }
}

/// Copies a rival's files, without packages that lie beside them.
fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir(to)?;
    let listed = std::fs::read_dir(from).with_context(|| format!("peer {} cannot be read", from.display()))?;
    for (n, file) in listed.enumerate() {
        ensure!(n < FILES_MAX, "peer {} has more than {FILES_MAX} files: give the folder of a rival", from.display());
        let file = file?;
        if file.file_type()?.is_file() {
            // Their contents only: the copy is written to, and the original may be read-only.
            std::fs::write(to.join(file.file_name()), std::fs::read(file.path())?)?;
        }
    }
    Ok(())
}

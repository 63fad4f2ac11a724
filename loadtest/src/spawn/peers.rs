//! The rivals on Node: copied to a directory of their own, with their packages, so that nothing is written beside them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::run_to_end;

/// Where they are, unless another folder is given.
const OWN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");
/// What the rivals without sockets share: it lies beside each of them.
const SHARED: &str = "queue-matrix";
/// The oldest Node that they are meant for.
const NODE_MIN: u32 = 20;
/// How long the packages of one may take.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(120);
/// How long Node may take to say its version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);
/// Files of a rival, at most: they are a few scripts.
const FILES_MAX: usize = 200;

/// Where the copies are; they go with it.
#[derive(Debug)]
pub(crate) struct Peers {
    /// Looked through in this order.
    folders: Vec<PathBuf>,
    dir: TempDir,
}

impl Peers {
    /// Those of the repository, or those of `folder` before them.
    ///
    /// # Errors
    /// When there is no Node for them, or an old one.
    pub(crate) async fn open(folder: Option<&Path>) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("loadtest-rivals-").tempdir().context("no directory for the rivals")?;
        let said = run_to_end("node", &["--version"], dir.path(), VERSION_TIMEOUT).await?;
        let version = said.trim();
        let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
        ensure!(major.is_some_and(|major| major >= NODE_MIN), "node is {version}, {NODE_MIN} or newer is needed");
        let peers = Self { folders: folder.into_iter().chain([Path::new(OWN)]).map(Path::to_owned).collect(), dir };
        peers.copy(SHARED)?;
        Ok(peers)
    }

    /// Copies one and installs its packages; returns where it is.
    pub(crate) async fn install(&self, name: &str) -> Result<PathBuf> {
        let copy = self.copy(name)?;
        let arguments = ["install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"];
        run_to_end("npm", &arguments, &copy, INSTALL_TIMEOUT).await.context("its packages cannot be installed")?;
        Ok(copy)
    }

    /// One that has no packages.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        let there = self.dir.path().join(name);
        if there.is_dir() { Ok(there) } else { self.copy(name) }
    }

    /// Copies its files, without packages that lie beside them.
    fn copy(&self, name: &str) -> Result<PathBuf> {
        let from = self.folders.iter().map(|folder| folder.join(name)).find(|from| from.is_dir());
        let from = from.with_context(|| format!("{name} is in none of {:?}", self.folders))?;
        let to = self.dir.path().join(name);
        std::fs::create_dir(&to)?;
        let listed = std::fs::read_dir(&from).with_context(|| format!("peer {} cannot be read", from.display()))?;
        for (n, file) in listed.enumerate() {
            ensure!(n < FILES_MAX, "peer {} has more than {FILES_MAX} files: give the folder of a rival", from.display());
            let file = file?;
            if file.file_type()?.is_file() {
                // Their contents only: the copy is written to, and the original may be read-only.
                std::fs::write(to.join(file.file_name()), std::fs::read(file.path())?)?;
            }
        }
        Ok(to)
    }

    /// Removes the copies.
    pub(crate) fn remove(self) {
        if let Err(e) = self.dir.close() {
            eprintln!("warning: the copies of the rivals are left: {e}");
        }
    }
}

//! Lock files: how a host's processes notice at once that another one is gone (rule R9).
//!
//! Each gateway and each worker locks a file of its own (flock) for as long as it lives. The kernel frees the lock when the process
//! ends, however it ends. So a file whose lock is free proves that its process is gone. Nothing else proves anything: no file, a
//! file of another user, or one that does not name itself.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::types::Incarnation;

/// Files of processes that are gone are removed by those that start this long after they were made.
const STALE: Duration = Duration::from_secs(3600);
/// What the names of lock files end with.
const ENDING: &str = ".lock";
/// Bytes of a lock file's text at most.
const TEXT_BYTES_MAX: u64 = 128;

/// The lock files of one deployment on this host.
#[derive(Debug, Clone)]
pub(super) struct LockFiles {
    dir: PathBuf,
    prefix: String,
    /// Whose the directory, and each file in it, is.
    user: u32,
}

/// A lock that is held. It is given back, and its file removed, when this is dropped.
#[derive(Debug)]
pub struct LockFile {
    path: PathBuf,
    _locked: File,
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // Removed before it is free: one that leaves in an orderly way is not taken for dead.
        let _ = fs::remove_file(&self.path);
    }
}

/// `$XDG_RUNTIME_DIR/lasthit`, else a directory of this user under the system's temporary one.
#[must_use]
pub fn default_runtime_dir() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute()) {
        Some(dir) => dir.join("lasthit"),
        None => std::env::temp_dir().join(format!("lasthit-{}", nix::unistd::geteuid())),
    }
}

impl LockFiles {
    /// Those of a deployment, by its keys' prefix, in `dir`. Makes the directory, for this user alone, if there is none.
    ///
    /// # Errors
    /// When there is no such directory and it cannot be made, or when others may write in it.
    pub(super) fn open(dir: &Path, prefix: &str) -> io::Result<Self> {
        make(dir)?;
        let (found, user) = (fs::metadata(dir)?, nix::unistd::geteuid().as_raw());
        if !found.is_dir() {
            return Err(io::Error::other("it is no directory"));
        }
        if found.uid() != user || found.mode() & 0o022 != 0 {
            let mode = found.mode() & 0o777;
            return Err(io::Error::other(format!(
                "it belongs to user {} with mode {mode:03o}: it must be this process's own, and nobody else may write in it",
                found.uid()
            )));
        }
        let all = Self { dir: dir.to_owned(), prefix: prefix.to_owned(), user };
        all.clean_up();
        Ok(all)
    }

    /// Locks the file of a gateway or worker of this process.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn hold(&self, who: Incarnation) -> io::Result<LockFile> {
        // Whoever tidies up may have removed it.
        make(&self.dir)?;
        let (path, new) = (self.path(who), self.dir.join(format!(".{}-{}.new", self.prefix, who.to_hex())));
        let written = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            file.try_lock()?;
            file.write_all(text(who, file.metadata()?.ino()).as_bytes())?;
            // Nobody ever sees it without its lock.
            fs::rename(&new, &path)?;
            Ok(LockFile { path: path.clone(), _locked: file })
        };
        written().inspect_err(|_: &io::Error| {
            let _ = fs::remove_file(&new);
        })
    }

    /// Whether the process of `who` is proven to be gone.
    pub(super) fn is_gone(&self, who: Incarnation) -> bool {
        self.is_free(&self.path(who), |ino| text(who, ino))
    }

    /// Whether a file is what `expected` makes of its inode's number, and its lock is free. A copy has another inode.
    fn is_free(&self, path: &Path, expected: impl Fn(u64) -> String) -> bool {
        let look = || {
            // A pipe would not let itself be opened.
            if !fs::symlink_metadata(path)?.is_file() {
                return Ok(false);
            }
            let file = File::open(path)?;
            let found = file.metadata()?;
            let mut text = String::new();
            (&file).take(TEXT_BYTES_MAX).read_to_string(&mut text)?;
            if found.uid() != self.user || text != expected(found.ino()) {
                return Ok(false);
            }
            // Shared: of several that look at once all find it free.
            Ok::<bool, io::Error>(file.try_lock_shared().is_ok())
        };
        look().unwrap_or(false)
    }

    fn path(&self, who: Incarnation) -> PathBuf {
        self.dir.join(format!("{}-{}{ENDING}", self.prefix, who.to_hex()))
    }

    /// Removes the files of processes that are gone, once nobody is likely to look for them any more.
    fn clean_up(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let (name, path) = (entry.file_name(), entry.path());
            let is_old =
                entry.metadata().and_then(|found| found.modified()).is_ok_and(|at| at.elapsed().is_ok_and(|age| age > STALE));
            let hex = name.to_str().and_then(|name| name.strip_prefix(&format!("{}-", self.prefix))?.strip_suffix(ENDING));
            if let Some(who) = hex.and_then(Incarnation::from_hex)
                && is_old
                && self.is_free(&path, |ino| text(who, ino))
            {
                let _ = fs::remove_file(path);
            }
        }
    }
}

fn make(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// What stands in a lock file: whose it is, and the number of the inode that the text was written to.
fn text(who: Incarnation, ino: u64) -> String {
    format!("{} {ino}\n", who.to_hex())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const ME: Incarnation = Incarnation(0xfeed);

    fn files() -> (tempfile::TempDir, LockFiles) {
        let dir = tempfile::tempdir().expect("a directory");
        let files = LockFiles::open(&dir.path().join("run"), "lasthit").expect("lock files");
        (dir, files)
    }

    /// As the kernel leaves it when its process is killed.
    fn killed(file: LockFile) {
        let kept = std::mem::ManuallyDrop::new(file);
        kept._locked.unlock().expect("unlocked");
    }

    #[test]
    fn a_free_lock_proves_that_its_process_is_gone() {
        let (_dir, files) = files();
        assert!(!files.is_gone(ME), "no file proves nothing");
        let held = files.hold(ME).expect("a lock");
        assert!(!files.is_gone(ME), "it lives");
        let others = LockFiles { prefix: "other".to_owned(), ..files.clone() };
        killed(held);
        assert!(files.is_gone(ME) && files.is_gone(ME), "whoever looks finds it gone");
        assert!(!others.is_gone(ME), "another deployment's");
        assert!(!LockFiles { user: files.user + 1, ..files.clone() }.is_gone(ME), "another user's");
        drop(files.hold(Incarnation(2)).expect("a lock"));
        assert!(!files.is_gone(Incarnation(2)), "one that leaves takes its file along");
    }

    #[test]
    fn a_removed_or_foreign_file_proves_nothing() {
        let (_dir, files) = files();
        let _held = files.hold(ME).expect("a lock");
        let (path, copy) = (files.path(ME), files.dir.join("copy"));
        fs::copy(&path, &copy).expect("a copy");
        fs::remove_file(&path).expect("removed");
        assert!(!files.is_gone(ME), "removed");
        fs::rename(&copy, &path).expect("put back");
        assert!(!files.is_gone(ME), "a copy");
        fs::write(&path, "").expect("emptied");
        assert!(!files.is_gone(ME), "an empty file");
        fs::remove_file(&path).expect("removed");
        fs::create_dir(&path).expect("a directory");
        assert!(!files.is_gone(ME), "a directory");
        fs::remove_dir(&path).expect("removed");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo").success());
        assert!(!files.is_gone(ME), "a pipe");
        fs::remove_dir_all(&files.dir).expect("removed");
        assert!(!files.is_gone(ME), "no directory");
        killed(files.hold(ME).expect("made again"));
        assert!(files.is_gone(ME), "a lock of one's own again");
    }

    #[test]
    fn a_directory_that_others_may_write_in_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let run = dir.path().join("run");
        LockFiles::open(&run, "lasthit").expect("made");
        assert_eq!(fs::metadata(&run).expect("there").mode() & 0o777, 0o700);
        fs::set_permissions(&run, fs::Permissions::from_mode(0o777)).expect("opened to all");
        let error = LockFiles::open(&run, "lasthit").expect_err("refused").to_string();
        assert!(error.contains("mode 777"), "{error}");
        fs::write(dir.path().join("file"), "").expect("a file");
        assert!(LockFiles::open(&dir.path().join("file"), "lasthit").is_err());
    }

    #[test]
    fn old_files_of_the_dead_are_removed() {
        let (_dir, files) = files();
        killed(files.hold(ME).expect("a lock"));
        killed(files.hold(Incarnation(2)).expect("a lock"));
        let _held = files.hold(Incarnation(3)).expect("a lock");
        for who in [ME, Incarnation(3)] {
            let file = OpenOptions::new().write(true).open(files.path(who)).expect("there");
            file.set_modified(std::time::UNIX_EPOCH).expect("aged");
        }
        let files = LockFiles::open(&files.dir, "lasthit").expect("lock files");
        let left = [ME, Incarnation(2), Incarnation(3)].map(|who| files.path(who).exists());
        assert_eq!(left, [false, true, true], "the old one, the fresh one, the living one");
    }
}

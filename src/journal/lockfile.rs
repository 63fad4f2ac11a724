//! Lock files: how a host's processes notice at once that another one is gone (rule R9).
//!
//! Each gateway and each worker locks a file of its own (flock) for as long as it lives. The kernel frees the lock when the process
//! ends, however it ends. So a file whose lock is free proves that its process is gone. Nothing else proves anything: no file, a
//! file of another user or of another boot, or one that does not name itself.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::libc::{O_NOFOLLOW, O_NONBLOCK};

use crate::clock::timeline_name;
use crate::types::Incarnation;

/// Files of processes that are gone are removed by those that start this long after they were made.
const STALE: Duration = Duration::from_secs(3600);
/// What the names of lock files end with.
const ENDING: &str = ".lock";
/// What they end with, behind a leading dot, until they are locked.
const UNFINISHED: &str = ".new";
/// The file with the host's id.
const HOST_ID: &str = "host.id";
/// How often it is read while another process is writing it.
const HOST_ID_READS: usize = 100;
/// Bytes of a lock file's text at most.
const TEXT_BYTES_MAX: u64 = 256;

/// The lock files of one deployment on this host.
#[derive(Debug, Clone)]
pub(super) struct LockFiles {
    dir: PathBuf,
    prefix: String,
    /// Whose the directory, and each file in it, is.
    user: u32,
    /// The boot of this host, and its clock. Processes of another boot, or of another kernel that shares the directory, have
    /// other locks.
    boot: String,
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
        let (user, boot) = (nix::unistd::geteuid().as_raw(), timeline_name());
        let all = Self { dir: dir.to_owned(), prefix: prefix.to_owned(), user, boot };
        all.make()?;
        all.clean_up();
        Ok(all)
    }

    /// Makes the directory, for this user alone, if there is none. Whoever tidies up may have removed it.
    fn make(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let found = fs::symlink_metadata(&self.dir)?;
        if !found.is_dir() {
            return Err(io::Error::other("it is a link, or no directory"));
        }
        if found.uid() != self.user || found.mode() & 0o022 != 0 {
            let mode = found.mode() & 0o777;
            return Err(io::Error::other(format!(
                "it belongs to user {} with mode {mode:03o}: it must be this process's own, and nobody else may write in it",
                found.uid()
            )));
        }
        Ok(())
    }

    /// The random id of this directory, and so of this host: `new` if there was none. 0 if it can be neither made nor read.
    pub(super) fn host_id(&self, new: Incarnation) -> u128 {
        let path = self.dir.join(HOST_ID);
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        if let Ok(mut file) = made {
            let _ = file.write_all(new.to_hex().as_bytes());
        }
        let mut text = String::new();
        // Another process may be writing it.
        for _ in 0..HOST_ID_READS {
            text.clear();
            let read = open(&path).and_then(|file| file.take(TEXT_BYTES_MAX).read_to_string(&mut text));
            if let Some(id) = read.ok().and_then(|_| Incarnation::from_hex(&text)) {
                return id.0;
            }
            std::thread::yield_now();
        }
        0
    }

    /// Locks the file of a gateway or worker of this process.
    ///
    /// # Errors
    /// When the file cannot be written, or when this file system does not show a lock to those who look.
    pub(super) fn hold(&self, who: Incarnation) -> io::Result<LockFile> {
        self.make()?;
        let (path, new) = (self.path(who), self.dir.join(format!(".{}-{}{UNFINISHED}", self.prefix, who.to_hex())));
        let written = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            file.try_lock()?;
            file.write_all(self.text(who, &file.metadata()?).as_bytes())?;
            if File::open(&new)?.try_lock_shared().is_ok() {
                return Err(io::Error::other("its file system keeps no locks"));
            }
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
        open(&self.path(who)).and_then(|file| self.is_proof(&file, who)).unwrap_or(false)
    }

    fn is_proof(&self, file: &File, who: Incarnation) -> io::Result<bool> {
        if !self.is_free(file)? {
            return Ok(false);
        }
        let (mut text, found) = (String::new(), file.metadata()?);
        file.take(TEXT_BYTES_MAX).read_to_string(&mut text)?;
        // A copy has another inode. A process that leaves removes its file before it frees it.
        Ok(text == self.text(who, &found) && found.nlink() == 1)
    }

    /// Whether nobody has locked a file of this user. Of several that look at once all find it free.
    fn is_free(&self, file: &File) -> io::Result<bool> {
        let found = file.metadata()?;
        Ok(found.is_file() && found.uid() == self.user && file.try_lock_shared().is_ok())
    }

    /// What stands in a lock file: whose it is, on which boot, and the file that the text was written to.
    fn text(&self, who: Incarnation, file: &fs::Metadata) -> String {
        format!("{} {} {} {}\n", who.to_hex(), self.boot, file.dev(), file.ino())
    }

    fn path(&self, who: Incarnation) -> PathBuf {
        self.dir.join(format!("{}-{}{ENDING}", self.prefix, who.to_hex()))
    }

    /// Removes the files that nobody has locked, of whatever boot, once nobody is likely to look for them any more.
    fn clean_up(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            let own = |from: &str, ending: &str| {
                let hex = name.strip_prefix(from)?.strip_prefix(&self.prefix)?.strip_prefix('-')?.strip_suffix(ending)?;
                Incarnation::from_hex(hex)
            };
            if own("", ENDING).or_else(|| own(".", UNFINISHED)).is_none() {
                continue;
            }
            let modified = entry.metadata().and_then(|found| found.modified());
            // The age comes first: a look locks a file that is just being made.
            if modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > STALE))
                && open(&entry.path()).and_then(|file| self.is_free(&file)).unwrap_or(false)
            {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// Opens a file to look at its lock. A link is not followed, and a pipe is not waited for.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(path)
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
        assert!(!LockFiles { boot: "another".to_owned(), ..files.clone() }.is_gone(ME), "another kernel's");
        let leaving = files.hold(Incarnation(2)).expect("a lock");
        let seen = open(&files.path(Incarnation(2))).expect("there");
        drop(leaving);
        assert!(!files.is_gone(Incarnation(2)), "one that leaves takes its file along");
        assert!(!files.is_proof(&seen, Incarnation(2)).expect("read"), "also for whoever has opened it before");
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
        let target = files.dir.join("target");
        fs::rename(&path, &target).expect("moved");
        std::os::unix::fs::symlink(&target, &path).expect("a link");
        assert!(!files.is_gone(ME), "a link");
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
        let unfinished = files.dir.join(format!(".lasthit-{}{UNFINISHED}", ME.to_hex()));
        let file = File::create(&unfinished).expect("made");
        file.set_modified(std::time::UNIX_EPOCH).expect("aged");
        drop(file);
        let files = LockFiles::open(&files.dir, "lasthit").expect("lock files");
        assert!(!unfinished.exists());
        let left = [ME, Incarnation(2), Incarnation(3)].map(|who| files.path(who).exists());
        assert_eq!(left, [false, true, true], "the old one, the fresh one, the living one");
    }
}

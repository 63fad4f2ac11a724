//! Where a supervisor keeps the data of its own Redis: a folder for its user alone, with two locks. One is the supervisor's. The other
//! is the server's stdin, so that it is held for as long as the server lives, whatever becomes of those who started it.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use crate::limits::SOCKET_PATH_BYTES_MAX;

/// The folder in the one that `--data` names.
const FOLDER: &str = "redis";
pub(super) const SOCKET: &str = "redis.sock";
const SUPERVISORS_LOCK: &str = "supervisor.lock";
const SERVERS_LOCK: &str = "redis.lock";
const OUTPUT: &str = "output.pipe";
/// What stays as it is in the path of a URL.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The folder, for as long as this supervisor has it.
#[derive(Debug)]
pub(in crate::supervisor) struct Home {
    pub(super) folder: PathBuf,
    lock: File,
}

/// `/var/lib/lasthit` of root; of others `$XDG_STATE_HOME/lasthit`, or `~/.local/state/lasthit`.
fn default_data() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/var/lib/lasthit"));
    }
    let named = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = named("XDG_STATE_HOME").or_else(|| Some(named("HOME")?.join(".local/state")));
    state.map(|state| state.join("lasthit"))
}

impl Home {
    /// One that the last image of this supervisor had.
    pub(super) fn resume(folder: PathBuf, lock: File) -> Self {
        Self { folder, lock }
    }

    /// Gives the lock on.
    pub(super) fn into_lock(self) -> File {
        self.lock
    }

    /// The folder in `data`, or in the usual place. Makes it if it is not there.
    ///
    /// # Errors
    /// One line: it cannot be used, or another supervisor has it.
    pub(in crate::supervisor) fn open(data: Option<&Path>) -> Result<Self, String> {
        let data = data.map(Path::to_owned).or_else(default_data);
        let data = data.ok_or("there is no place for the data of redis, as HOME is not set: give --data DIR, or --redis URL")?;
        let folder = data.join(FOLDER);
        let bytes = folder.join(SOCKET).as_os_str().len();
        if bytes > SOCKET_PATH_BYTES_MAX {
            return Err(format!(
                "--data {data:?}: the path of a socket in it has {bytes} bytes, and at most {SOCKET_PATH_BYTES_MAX} are allowed: \
                 give a shorter one"
            ));
        }
        let unusable = |why: String| format!("--data {data:?} cannot be used ({why}): name a directory that this user may write");
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(|error| unusable(error.to_string()))?;
        let about = std::fs::symlink_metadata(&folder).map_err(|error| unusable(error.to_string()))?;
        if !about.is_dir() || about.uid() != rustix::process::geteuid().as_raw() {
            return Err(unusable(format!("{FOLDER} in it is another user's, or no directory")));
        }
        std::fs::set_permissions(&folder, Permissions::from_mode(0o700)).map_err(|error| unusable(error.to_string()))?;
        let mut lock = open(&folder.join(SUPERVISORS_LOCK)).map_err(|error| unusable(error.to_string()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let _ = lock.take(20).read_to_string(&mut pid);
                return Err(format!(
                    "--data {data:?} is in use by another supervisor (process {}): stop it, give this one another --data, or \
                     --redis {} to share its redis",
                    pid.trim(),
                    url(&folder)
                ));
            }
            Err(TryLockError::Error(error)) => return Err(unusable(format!("its file system keeps no locks: {error}"))),
        }
        let written = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| write!(lock, "{}", std::process::id()));
        written.map_err(|error| unusable(error.to_string()))?;
        Ok(Self { folder, lock })
    }

    /// How processes of this host reach the server.
    pub(in crate::supervisor) fn url(&self) -> String {
        url(&self.folder)
    }

    /// The lock of a server. None: a living one has it.
    pub(super) fn lock_of_server(&self) -> std::io::Result<Option<File>> {
        let lock = open(&self.folder.join(SERVERS_LOCK))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(lock)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Where the server writes its lines: a pipe with a name, so that the next supervisor reads on.
    pub(super) fn output(&self) -> std::io::Result<PathBuf> {
        let path = self.folder.join(OUTPUT);
        match std::fs::symlink_metadata(&path) {
            Ok(about) if about.file_type().is_fifo() => return Ok(path),
            Ok(_) => std::fs::remove_file(&path)?,
            Err(_) => {}
        }
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
        Ok(path)
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn url(folder: &Path) -> String {
    format!("unix://{}", percent_encode(folder.join(SOCKET).as_os_str().as_encoded_bytes(), IN_PATH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_supervisor_has_a_folder_of_its_own() {
        let data = tempfile::tempdir().expect("a folder");
        let of = |path: &Path| Home::open(Some(path));
        let home = of(data.path()).expect("opened");
        assert_eq!(std::fs::metadata(&home.folder).expect("there").permissions().mode() & 0o777, 0o700);
        let second = of(data.path()).expect_err("taken");
        assert!(second.contains(&format!("in use by another supervisor (process {})", std::process::id())), "{second}");
        assert!(second.contains(&format!("--redis {} ", home.url())), "{second}");
        drop(home);
        let home = of(data.path()).expect("free again");
        // The server's lock is another one.
        let lock = home.lock_of_server().expect("asked").expect("free");
        assert!(home.lock_of_server().expect("asked").is_none());
        drop(lock);
        assert!(home.lock_of_server().expect("asked").is_some());
        let pipe = home.output().expect("made");
        assert!(std::fs::metadata(&pipe).expect("there").file_type().is_fifo());
        assert_eq!(home.output().expect("kept"), pipe);
    }

    #[test]
    fn a_place_that_does_not_do_is_told_in_one_line() {
        let data = tempfile::tempdir().expect("a folder");
        let file = data.path().join("file");
        std::fs::write(&file, "notes").expect("written");
        let long = data.path().join("x".repeat(120));
        let linked = data.path().join("linked");
        std::fs::create_dir(&linked).expect("made");
        std::os::unix::fs::symlink(data.path(), linked.join(FOLDER)).expect("linked");
        for (path, expected) in [
            (file.clone(), "cannot be used (Not a directory"),
            (long, "bytes, and at most 107 are allowed: give a shorter one"),
            (PathBuf::from("/proc/nowhere"), "cannot be used ("),
            (linked, "redis in it is another user's, or no directory"),
        ] {
            let line = Home::open(Some(&path)).expect_err(expected);
            assert!(line.starts_with("--data \"") && line.contains(expected) && !line.contains('\n'), "{line}");
        }
        assert_eq!(std::fs::read_to_string(file).expect("kept"), "notes");
    }

    #[test]
    fn its_url_is_read_as_the_path() {
        assert_eq!(url(Path::new("/var/lib/lasthit/redis")), "unix:///var/lib/lasthit/redis/redis.sock");
        assert_eq!(url(Path::new("/my data?x#%")), "unix:///my%20data%3Fx%23%25/redis.sock");
    }
}

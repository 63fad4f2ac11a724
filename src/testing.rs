//! For tests and benches: a private Redis server that ends with its handle.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long a server may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is asked.
const START_POLL: Duration = Duration::from_millis(5);

/// A redis-server of one's own: on a Unix socket in a directory of its own, without persistence, killed on drop.
#[derive(Debug)]
pub struct RedisServer {
    child: Child,
    directory: PathBuf,
}

impl RedisServer {
    /// Starts one.
    ///
    /// # Errors
    /// When there is no redis-server (in `$REDIS_SERVER`, on `PATH`, or under `target/redis`), or it does not start.
    pub fn start() -> io::Result<Self> {
        Self::start_with(&[])
    }

    /// Starts one with further options, as in `["--maxmemory", "1mb"]`.
    ///
    /// # Errors
    /// As [`RedisServer::start`]; with what the server said when it does not start.
    pub fn start_with(options: &[&str]) -> io::Result<Self> {
        // Socket paths are limited to about 100 bytes: the temporary directory it is, not the target directory.
        let directory = std::env::temp_dir().join(format!("lasthit-redis-{:016x}", rand::random::<u64>()));
        std::fs::create_dir(&directory)?;
        let child = match spawn(&directory, options) {
            Ok(child) => child,
            Err(error) => {
                let _ = std::fs::remove_dir_all(&directory);
                return Err(error);
            }
        };
        let mut server = Self { child, directory };
        server.wait_until_it_answers()?;
        Ok(server)
    }

    /// Where it listens, as `unix:///...`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// The path of its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.join("redis.sock")
    }

    /// The process, for a test that stops or kills it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait_until_it_answers(&mut self) -> io::Result<()> {
        let polls = START_TIMEOUT.as_millis() / START_POLL.as_millis();
        for _ in 0..polls {
            // The server listens when its socket is there; a connection that is taken is proof.
            if std::os::unix::net::UnixStream::connect(self.socket()).is_ok() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("redis-server ended with {status}: {}", self.said())));
            }
            std::thread::sleep(START_POLL);
        }
        Err(io::Error::other(format!("redis-server does not answer within {START_TIMEOUT:?}: {}", self.said())))
    }

    fn said(&self) -> String {
        let mut text = String::new();
        let read = File::open(self.directory.join("log")).and_then(|mut log| log.read_to_string(&mut text));
        read.map_or_else(
            |error| format!("its log cannot be read: {error}"),
            |_| text.lines().rev().take(5).collect::<Vec<_>>().join("; "),
        )
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn spawn(directory: &Path, options: &[&str]) -> io::Result<Child> {
    let log = File::create(directory.join("log"))?;
    Command::new(program()?)
        .args(["--port", "0", "--unixsocket", "redis.sock", "--save", "", "--appendonly", "no", "--daemonize", "no"])
        .args(options)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
}

/// The redis-server to use.
fn program() -> io::Result<PathBuf> {
    if let Some(named) = std::env::var_os("REDIS_SERVER").map(PathBuf::from) {
        return if named.is_file() {
            Ok(named)
        } else {
            Err(io::Error::other(format!("REDIS_SERVER is {}, which is no file: correct or unset it", named.display())))
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|directory| directory.join("redis-server"));
    // Where scripts/redis-server.sh unpacks one; tests run in their package's directory, benches of members too.
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/redis/redis-server");
    on_path.chain([unpacked]).find(|candidate| candidate.is_file()).ok_or_else(|| {
        io::Error::other(
            "no redis-server on PATH, in $REDIS_SERVER or under target/redis: run scripts/redis-server.sh to get one",
        )
    })
}

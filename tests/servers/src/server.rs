//! A private Redis server.

use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{Program, Upstream, free_address};

/// How long a server may take until it answers.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is asked.
const START_POLL: Duration = Duration::from_millis(5);
/// What a server is told that is no sentinel: nothing is kept, and replicas need not wait.
const STAND_ALONE: [&str; 6] = ["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"];
/// The configuration of a sentinel.
const SENTINEL: &str = "sentinel.conf";
/// Free ports that are tried: another process may take one before the server has it.
pub(crate) const PORTS_MAX: usize = 5;

/// A redis-server of one's own: on a Unix socket in a directory of its own, without persistence, killed on drop.
#[derive(Debug)]
pub struct RedisServer {
    program: PathBuf,
    child: Child,
    /// Where its socket and its log are; removed on drop.
    home: PathBuf,
    options: Vec<String>,
    port: Option<u16>,
}

impl RedisServer {
    /// Starts one.
    ///
    /// # Errors
    /// When there is no redis-server (in `$REDIS_SERVER`, on `PATH`, or under `target/redis`), or it does not start.
    pub fn start() -> io::Result<Self> {
        Self::start_with(&[])
    }

    /// Starts one with further options, as in `["--maxmemory", "1mb"]`. Its data is in its home, and goes with it, unless
    /// they say otherwise (`--dir`).
    ///
    /// # Errors
    /// As [`RedisServer::start`]; with what the server said when it does not start.
    pub fn start_with(options: &[&str]) -> io::Result<Self> {
        Self::launch(&program()?, options, None)
    }

    /// Starts one of another program, with options and a port as they say. None, and words on stderr, if the program is not
    /// here.
    ///
    /// # Errors
    /// As [`RedisServer::start_with`].
    pub fn start_other(program: Program, options: &[&str], with_port: bool) -> io::Result<Option<Self>> {
        let Some(program) = program.find()? else { return Ok(None) };
        if with_port {
            with_free_port(|port| Self::launch(&program, options, Some(port)))
        } else {
            Self::launch(&program, options, None)
        }
        .map(Some)
    }

    /// Starts one that listens on a loopback port too, which it keeps over restarts: one that may have replicas.
    ///
    /// # Errors
    /// As [`RedisServer::start_with`].
    pub fn start_tcp(options: &[&str]) -> io::Result<Self> {
        let program = program()?;
        with_free_port(|port| Self::launch(&program, options, Some(port)))
    }

    /// Starts a replica of this server, which must have a port, with the same program, and waits until it has caught up.
    ///
    /// # Errors
    /// As [`RedisServer::start_with`], and when the replica does not catch up.
    pub fn replica(&self, options: &[&str]) -> io::Result<Self> {
        let port = self.port_for_replicas()?;
        let options = [&["--replicaof", "127.0.0.1", &port], options].concat();
        let replica = with_free_port(|port| Self::launch(&self.program, &options, Some(port)))?;
        replica.follow(self)?;
        Ok(replica)
    }

    /// Makes it a replica of a server that has a port, as itself, and waits until it has caught up.
    ///
    /// # Errors
    /// When it does not.
    pub fn follow(&self, primary: &Self) -> io::Result<()> {
        self.ask::<()>(&["REPLICAOF", "127.0.0.1", &primary.port_for_replicas()?])?;
        // The replica says that its link is up some time before its primary counts on it.
        let online = format!("port={},state=online", self.port.unwrap_or_default());
        wait_until(START_TIMEOUT, || Ok(primary.ask::<String>(&["INFO", "replication"])?.contains(&online).then_some(())))?
            .ok_or_else(|| io::Error::other(format!("the replica has not caught up within {START_TIMEOUT:?}")))
    }

    fn port_for_replicas(&self) -> io::Result<String> {
        let port = self.port.ok_or_else(|| io::Error::other("a server without a port has no replicas: use start_tcp"))?;
        Ok(port.to_string())
    }

    fn launch(program: &Path, options: &[&str], port: Option<u16>) -> io::Result<Self> {
        Self::launch_on(program, None, options, port)
    }

    /// Starts a node of a cluster on a port that must be free, with the file in which nodes keep what they know of each other.
    pub(crate) fn node(program: &Path, nodes: &str, options: &[&str], port: u16) -> io::Result<Self> {
        Self::launch_on(program, Some(("nodes.conf", nodes)), options, Some(port))
    }

    /// Starts a sentinel of the same program as this server.
    pub(crate) fn sentinel(&self, configuration: &str) -> io::Result<Self> {
        with_free_port(|port| Self::launch_on(&self.program, Some((SENTINEL, configuration)), &[], Some(port)))
    }

    /// With a file that is written first, by its name. With the configuration of a sentinel it is one.
    fn launch_on(program: &Path, file: Option<(&str, &str)>, options: &[&str], port: Option<u16>) -> io::Result<Self> {
        // Socket paths are limited to about 100 bytes: the temporary directory it is, not the target directory.
        let home = std::env::temp_dir().join(format!("lasthit-redis-{:016x}", rand::random::<u64>()));
        std::fs::create_dir(&home)?;
        if let Some((name, text)) = file {
            std::fs::write(home.join(name), text)?;
        }
        let options: Vec<String> = match file {
            Some((SENTINEL, _)) => vec![SENTINEL.to_owned(), "--sentinel".to_owned()],
            _ => STAND_ALONE.iter().chain(options).map(|option| (*option).to_owned()).collect(),
        };
        let child = match spawn(program, &home, &options, port) {
            Ok(child) => child,
            Err(error) => {
                let _ = std::fs::remove_dir_all(&home);
                return Err(error);
            }
        };
        let mut server = Self { program: program.to_owned(), child, home, options, port };
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
        self.home.join("redis.sock")
    }

    /// Its loopback port; None but with [`RedisServer::start_tcp`].
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.port.map(|port| (Ipv4Addr::LOCALHOST, port).into())
    }

    /// What a [`Proxy`](super::Proxy) before it is given.
    #[must_use]
    pub fn upstream(&self) -> Upstream {
        Upstream::Unix(self.socket())
    }

    /// The directory of its socket, its log, and its data unless an option moved that.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The process, for a test that stops or kills it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The program that is started.
    ///
    /// # Errors
    /// When there is none.
    pub fn program() -> io::Result<PathBuf> {
        program()
    }

    /// Asks it something, on a connection of its own.
    ///
    /// # Errors
    /// When it does not answer, or not with a `T`. One that is loading its data has 10 seconds for that.
    pub fn ask<T: redis::FromRedisValue>(&self, command: &[&str]) -> io::Result<T> {
        let client = redis::Client::open(self.url()).map_err(io::Error::other)?;
        let mut connection = client.get_connection_with_timeout(START_TIMEOUT).map_err(io::Error::other)?;
        let mut cmd = redis::Cmd::new();
        for word in command {
            cmd.arg(word);
        }
        // A replica that has just been sent everything is loading it.
        let is_loading = |answer: &redis::RedisResult<T>| {
            answer.as_ref().is_err_and(|error| error.kind() == redis::ErrorKind::Server(redis::ServerErrorKind::BusyLoading))
        };
        let mut answer = cmd.query(&mut connection);
        for _ in 0..START_TIMEOUT.as_millis() / START_POLL.as_millis() {
            if !is_loading(&answer) {
                break;
            }
            std::thread::sleep(START_POLL);
            answer = cmd.query(&mut connection);
        }
        answer.map_err(io::Error::other)
    }

    /// SIGKILL, and it is gone. Its data stays.
    ///
    /// # Errors
    /// When it is not there any more.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Starts it again after [`RedisServer::kill`]: with the same options, in the same place, on the data that is there.
    /// Returns when it has loaded that.
    ///
    /// # Errors
    /// As [`RedisServer::start_with`].
    pub fn restart(&mut self) -> io::Result<()> {
        self.child = spawn(&self.program, &self.home, &self.options, self.port)?;
        self.wait_until_it_answers()
    }

    fn wait_until_it_answers(&mut self) -> io::Result<()> {
        let answered = wait_until(START_TIMEOUT, || {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("redis-server ended with {status}: {}", self.said())));
            }
            // Any answer but this one will do; one that wants a password has started as well.
            let answer = match std::os::unix::net::UnixStream::connect(self.socket()) {
                Ok(_) => self.ask::<String>(&["PING"]),
                Err(_) => return Ok(None),
            };
            Ok(answer.map_or_else(|error| !error.to_string().to_uppercase().contains("LOADING"), |_| true).then_some(()))
        })?;
        answered
            .ok_or_else(|| io::Error::other(format!("redis-server does not answer within {START_TIMEOUT:?}: {}", self.said())))
    }

    fn said(&self) -> String {
        let mut text = String::new();
        let read = File::open(self.home.join("log")).and_then(|mut log| log.read_to_string(&mut text));
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
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

/// Asks until there is an answer; None when there was none in time.
pub(crate) fn wait_until<T>(patience: Duration, mut ask: impl FnMut() -> io::Result<Option<T>>) -> io::Result<Option<T>> {
    for _ in 0..patience.as_millis() / START_POLL.as_millis() {
        if let Some(answer) = ask()? {
            return Ok(Some(answer));
        }
        std::thread::sleep(START_POLL);
    }
    Ok(None)
}

/// Tries with one free port after another, as long as somebody else takes it first.
fn with_free_port(mut launch: impl FnMut(u16) -> io::Result<RedisServer>) -> io::Result<RedisServer> {
    let mut tried = 1;
    loop {
        let port = free_address()?.port();
        match launch(port) {
            Err(error) if tried < PORTS_MAX && error.to_string().contains("Address already in use") => tried += 1,
            other => return other,
        }
    }
}

fn spawn(program: &Path, home: &Path, options: &[String], port: Option<u16>) -> io::Result<Child> {
    let log = File::create(home.join("log"))?;
    // The name of a configuration comes first; where an option comes twice, the later one counts.
    let (first, others) = match options {
        [first, others @ ..] if !first.starts_with("--") => (Some(first), others),
        all => (None, all),
    };
    Command::new(program)
        .args(first)
        .args(["--port", &port.unwrap_or(0).to_string(), "--unixsocket", "redis.sock", "--daemonize", "no"])
        .args(others)
        .current_dir(home)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
}

/// The redis-server to use.
pub(crate) fn program() -> io::Result<PathBuf> {
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
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/redis/redis-server");
    on_path.chain([unpacked]).find(|candidate| candidate.is_file()).ok_or_else(|| {
        io::Error::other(
            "no redis-server on PATH, in $REDIS_SERVER or under target/redis: run scripts/redis-server.sh to get one",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_in_its_place_with_its_data() {
        let mut server = RedisServer::start_tcp(&["--appendonly", "yes", "--appendfsync", "always"]).expect("a server");
        let (url, address) = (server.url(), server.address());
        server.ask::<()>(&["SET", "name", "ann"]).expect("set");
        server.kill().expect("killed");
        assert!(server.ask::<()>(&["PING"]).is_err(), "it is gone");
        server.restart().expect("restarted");
        assert_eq!((server.url(), server.address()), (url, address));
        assert_eq!(server.ask::<String>(&["GET", "name"]).expect("an answer"), "ann");
    }

    #[test]
    fn a_replica_has_what_its_primary_has() {
        let server = RedisServer::start_tcp(&[]).expect("a server");
        server.ask::<()>(&["SET", "name", "ann"]).expect("set");
        let replica = server.replica(&[]).expect("a replica");
        assert_eq!(replica.ask::<String>(&["GET", "name"]).expect("an answer"), "ann");
        replica.ask::<()>(&["REPLICAOF", "NO", "ONE"]).expect("promoted");
        replica.ask::<()>(&["SET", "name", "bob"]).expect("it takes writes");
    }

    #[test]
    fn one_that_cannot_start_says_why() {
        let error = RedisServer::start_with(&["--maxmemory", "many"]).expect_err("refused");
        assert!(error.to_string().contains("maxmemory"), "{error}");
        assert!(RedisServer::start().expect("a server").replica(&[]).is_err(), "no port, no replica");
    }
}

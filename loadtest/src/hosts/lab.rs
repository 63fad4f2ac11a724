//! Hosts on one machine: each is a network namespace and a time namespace. Outside of them are the players and Redis, on a bridge each.
//!
//! The generator enters a network namespace of its own first, so that nothing of it is seen by the machine, and the kernel removes all
//! of it when the last process has ended.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::spawn::binary;

/// `CLONE_NEWTIME`, which `nix` does not name.
const NEW_TIME: CloneFlags = CloneFlags::from_bits_retain(0x80);

/// One of the two ways to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Players come on it.
    Players,
    /// Redis is reached on it.
    Redis,
}

impl Way {
    const ALL: [Self; 2] = [Self::Players, Self::Redis];

    fn name(self) -> &'static str {
        match self {
            Self::Players => "players",
            Self::Redis => "redis",
        }
    }

    /// The address of a host on it; 0 is outside.
    pub(crate) fn address(self, host: usize) -> Ipv4Addr {
        let net = match self {
            Self::Players => 213,
            Self::Redis => 214,
        };
        Ipv4Addr::new(10, net, 0, u8::try_from(host + 1).unwrap_or(u8::MAX))
    }
}

/// Enters the world outside of the hosts. Call it before any thread is started.
///
/// # Errors
/// Without root, or where the kernel or `ip` is missing something.
pub(super) fn enter() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("no network namespace can be made: run it as root")?;
    ip(&["link", "set", "lo", "up"])?;
    for way in Way::ALL {
        let name = way.name();
        ip(&["link", "add", "name", name, "type", "bridge"])?;
        ip(&["address", "add", &format!("{}/24", way.address(0)), "dev", name])?;
        ip(&["link", "set", name, "up"])?;
    }
    Ok(())
}

fn ip(args: &[&str]) -> Result<()> {
    run("ip", args)
}

fn run(program: &str, args: &[&str]) -> Result<()> {
    let done = Command::new(program).args(args).output();
    let done = done.with_context(|| format!("{program} cannot be run: install iproute2 and util-linux"))?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{program} {}: {}", args.join(" "), said.trim());
    Ok(())
}

/// A machine of its own, as far as its clock and its network say: it is there as long as the handle.
#[derive(Debug)]
pub(crate) struct Held {
    holder: Child,
    /// The holder ends with it.
    _alive: Option<ChildStdin>,
    /// A process inside.
    inside: Pid,
}

impl Held {
    /// Makes one whose monotonic clock is `ahead` of the machine's. Its network leads nowhere.
    ///
    /// # Errors
    /// Without root, or where the kernel has no time namespaces.
    pub(crate) fn begin(ahead: Duration) -> Result<Self> {
        let mut holder = Command::new(binary::own()?)
            .args(["hold", &ahead.as_nanos().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .context("no host can be booted")?;
        let mut said = String::new();
        BufReader::new(holder.stdout.take().context("a holder without output")?).read_line(&mut said)?;
        let inside =
            said.trim().parse().map(Pid::from_raw).context("the host's clock cannot be set: is this kernel older than 5.6?")?;
        Ok(Self { _alive: holder.stdin.take(), holder, inside })
    }

    /// How a program is started under its clock, but in this network: by these arguments of `nsenter`, and the program's own behind
    /// them.
    pub(crate) fn clock_args(&self) -> Vec<String> {
        ["-t", &self.inside.to_string(), "-T", "--"].map(str::to_owned).to_vec()
    }

    /// Its name as the journal has it.
    pub(crate) fn name(&self) -> Option<String> {
        let inside = self.inside.to_string();
        fs::exists(format!("/proc/{inside}/ns/time")).ok()?.then(|| lasthit::internals::clock::timeline_name_of(&inside))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = kill(self.inside, Signal::SIGKILL);
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A host that is up.
#[derive(Debug)]
pub(super) struct Host {
    number: usize,
    life: u32,
    held: Held,
}

impl Host {
    /// Boots a host whose monotonic clock is `ahead` of the machine's.
    pub(super) fn boot(number: usize, life: u32, ahead: Duration) -> Result<Self> {
        let host = Self { number, life, held: Held::begin(ahead)? };
        let pid = host.held.inside.to_string();
        let within = |args: &[&str]| run("nsenter", &[&["-t", &pid, "-n", "--", "ip"], args].concat());
        within(&["link", "set", "lo", "up"])?;
        for way in Way::ALL {
            let (outside, bridge, address) = (host.link(way), way.name(), format!("{}/24", way.address(number + 1)));
            ip(&["link", "add", &outside, "type", "veth", "peer", "name", bridge, "netns", &pid])?;
            ip(&["link", "set", &outside, "master", bridge, "up"])?;
            // One that boots again is where the others remember it.
            let hardware = format!("02:00:00:00:{:02x}:{:02x}", way.address(number + 1).octets()[1], number + 1);
            within(&["link", "set", bridge, "address", &hardware])?;
            within(&["address", "add", &address, "dev", bridge])?;
            within(&["link", "set", bridge, "up"])?;
        }
        Ok(host)
    }

    /// The name of its cable, seen from outside. A host that boots again has new ones: the old ones may still be there.
    fn link(&self, way: Way) -> String {
        format!("{}{}-{}", &way.name()[..1], self.number, self.life)
    }

    /// How a program is started in it: by these arguments of `nsenter`, and the program's own behind them.
    pub(super) fn enter_args(&self) -> Vec<String> {
        ["-t", &self.held.inside.to_string(), "-n", "-T", "--"].map(str::to_owned).to_vec()
    }

    /// Its name as the journal has it.
    pub(super) fn name(&self) -> Option<String> {
        self.held.name()
    }

    /// Cuts one of its cables, or mends it.
    pub(super) fn cut(&self, way: Way, is_cut: bool) -> Result<()> {
        ip(&["link", "set", &self.link(way), if is_cut { "down" } else { "up" }])
    }

    /// Sends a signal to all processes inside, but for the one that keeps the host up.
    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        let mine = fs::read_link(format!("/proc/{}/ns/net", self.held.inside)).context("the host is gone")?;
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).map(Pid::from_raw) else { continue };
            let is_inside = fs::read_link(entry.path().join("ns/net")).is_ok_and(|net| net == mine);
            if is_inside && pid != self.held.inside && pid.as_raw() != i32::try_from(self.held.holder.id()).unwrap_or(0) {
                // It may have ended just now.
                let _ = kill(pid, signal);
            }
        }
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.signal(Signal::SIGKILL);
        // Its network may outlive it for a while, and would answer in the place of the one that boots next.
        for way in Way::ALL {
            let _ = ip(&["link", "delete", &self.link(way)]);
        }
    }
}

/// Is a host: makes its namespaces, says which process is inside, and stays until whoever booted it has ended.
///
/// # Errors
/// Without root, or where the kernel has no time namespaces.
pub(crate) fn hold(ahead_ns: u64) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET | NEW_TIME).context("no namespaces can be made: run it as root, on Linux 5.6 or newer")?;
    let (seconds, ns) = (ahead_ns / 1_000_000_000, ahead_ns % 1_000_000_000);
    fs::write("/proc/self/timens_offsets", format!("monotonic {seconds} {ns}\nboottime {seconds} {ns}\n"))?;
    // Only what is started from here on has the new clock.
    let mut inside = Command::new("sleep").arg("infinity").stdin(Stdio::null()).spawn().context("sleep cannot be run")?;
    println!("{}", inside.id());
    std::io::stdout().flush()?;
    let mut rest = Vec::new();
    let read = std::io::stdin().read_to_end(&mut rest);
    inside.kill()?;
    inside.wait()?;
    if let Err(error) = read {
        bail!("the host was left: {error}");
    }
    Ok(())
}

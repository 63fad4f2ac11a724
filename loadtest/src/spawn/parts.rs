//! Processes that `compare` starts beside lasthit's own: its parts, and those of others that run on Node.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use tokio::process::Command;

use super::process::Process;
use super::{Fleet, binary, url};

impl Fleet {
    /// Only a Redis without persistence.
    pub(crate) async fn start_redis() -> Result<Self> {
        let mut fleet = Self::empty()?;
        fleet.start_redis_process(super::NO_PORT).await?;
        Ok(fleet)
    }

    /// Only the bare echo.
    pub(crate) async fn start_echo() -> Result<Self> {
        let mut fleet = Self::empty()?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        fleet.start_part("echo", &["--listen", &address.to_string()]).await?;
        fleet.urls.push(url(address));
        Ok(fleet)
    }

    /// Only a script on Node that listens at `PORT`.
    pub(crate) async fn start_script(dir: &Path, script: &str) -> Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        Self::start_listening_script(dir, script, &[("PORT", address.port().to_string())], address).await
    }

    /// Only a script on Node that listens at `address`, as its environment says.
    pub(crate) async fn start_listening_script(
        dir: &Path,
        script: &str,
        env: &[(&str, String)],
        address: SocketAddr,
    ) -> Result<Self> {
        let mut fleet = Self::empty()?;
        fleet.start_node("script", dir, script, env, "ready").await?;
        fleet.urls.push(url(address));
        Ok(fleet)
    }

    /// Adds a part of this program, and returns when it is ready.
    pub(crate) async fn start_part(&mut self, part: &str, args: &[&str]) -> Result<()> {
        self.processes.push(Process::program(part, part_command(part, args)?, "ready", self.dir.path())?);
        self.ready().await
    }

    /// Adds a script on Node, and returns when it has written `word`.
    pub(crate) async fn start_node(
        &mut self,
        name: &str,
        dir: &Path,
        script: &str,
        env: &[(&str, String)],
        word: &'static str,
    ) -> Result<()> {
        self.processes.push(Process::program(name, node_command(dir, script, env), word, self.dir.path())?);
        self.ready().await
    }

    /// Runs a part of this program to its end, and returns its figures.
    pub(crate) async fn run_part<T: DeserializeOwned>(&self, part: &str, args: &[&str], time_max: Duration) -> Result<T> {
        let process = Process::program(part, part_command(part, args)?, "ready", self.dir.path())?;
        figures(&process.output(time_max).await?)
    }

    /// Adds a script on Node, and returns at once.
    pub(crate) fn add_node(&mut self, name: &str, dir: &Path, script: &str, env: &[(&str, String)]) -> Result<()> {
        self.processes.push(Process::program(name, node_command(dir, script, env), "ready", self.dir.path())?);
        Ok(())
    }

    /// Waits until the process of that name has ended by itself, and returns its figures.
    pub(crate) async fn figures_of<T: DeserializeOwned>(&mut self, name: &str, time_max: Duration) -> Result<T> {
        let at = self.processes.iter().position(|p| p.name() == name).with_context(|| format!("{name} was not started"))?;
        figures(&self.processes.remove(at).output(time_max).await?)
    }
}

/// Runs a program that ends by itself, in `dir`; its end and how it was are in its log there.
pub(super) async fn run_to_end(program: &str, args: &[&str], dir: &Path, time_max: Duration) -> Result<String> {
    let mut command = Command::new(program);
    command.args(args).current_dir(dir);
    Process::program(program, command, "", dir)?.output(time_max).await
}

fn part_command(part: &str, args: &[&str]) -> Result<Command> {
    let mut command = Command::new(binary::own()?);
    command.args(["part", part]).args(args);
    Ok(command)
}

fn node_command(dir: &Path, script: &str, env: &[(&str, String)]) -> Command {
    let mut command = Command::new("node");
    command.arg(script).current_dir(dir).envs(env.iter().map(|(name, value)| (name, value)));
    command
}

/// The last line of JSON in a program's output.
fn figures<T: DeserializeOwned>(output: &str) -> Result<T> {
    let line = output.lines().rev().find(|line| line.starts_with('{'));
    let line = line.with_context(|| format!("no figures in its output: {}", output.trim()))?;
    serde_json::from_str(line).with_context(|| format!("figures are not understood: {line}"))
}

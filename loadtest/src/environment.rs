//! The machine and the versions of a run, for later readers of its report.

use std::process::Command;

use serde::Serialize;

/// The machine, and the versions of what ran on it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Environment {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    /// Of the redis-server that `--spawn` would start; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) redis: Option<String>,
    /// Of this program, which is built from the same sources.
    pub(crate) lasthit: &'static str,
    /// Over the last minute: all that the machine had to do.
    pub(crate) load_average: f64,
}

impl Environment {
    /// Of this machine, now.
    pub(crate) fn read() -> Self {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpu = text("/proc/cpuinfo");
        let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        Self {
            cpu: cpu.map_or("unknown", |(_, name)| name.trim()).to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: format!("{} {}", std::env::consts::OS, text("/proc/sys/kernel/osrelease").trim()),
            redis: redis(),
            lasthit: env!("CARGO_PKG_VERSION"),
            load_average: load_average(),
        }
    }
}

/// The machine's load average over the last minute; 0 where it is not told.
pub(crate) fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0)
}

/// The program whose processes serve as Redis.
pub(crate) fn redis_server() -> std::ffi::OsString {
    std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into())
}

fn redis() -> Option<String> {
    let output = Command::new(redis_server()).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    version(&text).map(str::to_owned)
}

/// Out of `Redis server v=7.0.15 sha=...`.
fn version(text: &str) -> Option<&str> {
    text.split_whitespace().find_map(|word| word.strip_prefix("v="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_named() {
        let environment = Environment::read();
        assert!(environment.cores > 0 && !environment.cpu.is_empty() && environment.kernel.len() > 6, "{environment:?}");
        assert_eq!(version("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc"), Some("7.0.15"));
        assert_eq!(version("nothing"), None);
    }
}

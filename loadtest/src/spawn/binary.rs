//! The `lasthit` program beside this one, built when it is missing or older.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// This program, for a process that runs another part of it. Not by its path: a build may put another file there while this one runs.
pub(crate) fn own() -> Result<PathBuf> {
    let running = Path::new("/proc/self/exe");
    if running.exists() {
        Ok(running.to_owned())
    } else {
        std::env::current_exe().context("the load generator's own path is unknown")
    }
}

/// Where it is.
pub(crate) fn lasthit() -> Result<PathBuf> {
    let own = std::env::current_exe().context("the load generator's own path is unknown")?;
    let dir = own.parent().context("the load generator lies in no directory")?;
    let binary = dir.join(format!("lasthit{}", std::env::consts::EXE_SUFFIX));
    if modified(&binary) < modified(&own) {
        let built = build(dir);
        if binary.is_file() {
            if let Err(e) = built {
                eprintln!("warning: {} is older than the load generator, and {e:#}", binary.display());
            }
        } else {
            built?;
            bail!("{} is not there even after a build", binary.display());
        }
    }
    Ok(binary)
}

/// None, which is older than everything, for what is not there.
fn modified(path: &Path) -> Option<std::time::SystemTime> {
    path.metadata().and_then(|m| m.modified()).ok()
}

/// Builds with the profile whose directory the load generator lies in.
fn build(dir: &Path) -> Result<()> {
    let profile = match dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(profile) => profile,
        None => bail!("{} is no build directory", dir.display()),
    };
    let target = dir.parent().context("the build directory has no parent")?;
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"));
    ensure!(workspace.is_dir(), "lasthit is not beside the load generator: build it with `cargo build --release -p lasthit`");
    eprintln!("building lasthit ({profile})");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // Named together with the load generator, it shares the dependencies that were built for that; alone, it would ask
    // for other features of them and build them again.
    let status = Command::new(cargo)
        .args(["build", "-p", "lasthit", "-p", "loadtest", "--bins", "--profile", profile, "--target-dir"])
        .arg(target)
        .current_dir(workspace)
        .status()
        .context("cargo cannot be run to build lasthit")?;
    ensure!(status.success(), "lasthit was not built: cargo build ended with {status}");
    Ok(())
}

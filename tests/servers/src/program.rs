//! Other programs than the installed redis-server.

use std::io;
use std::path::{Path, PathBuf};

/// A server beside the installed redis-server, on which tests run where it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// Valkey 9: `$VALKEY_SERVER`, or what `scripts/other-servers.sh` has brought.
    Valkey,
    /// Redis 8: `$REDIS_8_SERVER`, or what `scripts/other-servers.sh` has brought.
    Redis8,
}

impl Program {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Valkey, Self::Redis8];

    /// Where it is. None, and words on stderr, when it is not here.
    ///
    /// # Errors
    /// When a variable names something that is no file.
    pub fn find(self) -> io::Result<Option<PathBuf>> {
        let (name, variable, file) = match self {
            Self::Valkey => ("Valkey 9", "VALKEY_SERVER", "valkey-server"),
            Self::Redis8 => ("Redis 8", "REDIS_8_SERVER", "redis-8-server"),
        };
        if let Some(named) = std::env::var_os(variable).map(PathBuf::from) {
            return if named.is_file() {
                Ok(Some(named))
            } else {
                Err(io::Error::other(format!("{variable} is {}, which is no file: correct or unset it", named.display())))
            };
        }
        let brought = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/servers").join(file);
        if brought.is_file() {
            return Ok(Some(brought));
        }
        eprintln!("skipped: there is no {name} here: run scripts/other-servers.sh, or name one in {variable}");
        Ok(None)
    }
}

//! What a child is told to do: its role, and the settings as the supervisor has found them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::{Config, ConfigError, Flags, ProcessRole};

/// The role and the settings of a child. They hold secrets: they are shown nowhere.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// `gateway` or `worker`.
    pub(crate) role: String,
    /// As on a command line.
    pub(crate) flags: Vec<(String, String)>,
    /// The environment's settings: `LASTHIT_...`.
    pub(crate) env: BTreeMap<String, String>,
    /// The configuration file: where it is, and its text.
    pub(crate) file: Option<(String, String)>,
}

impl Settings {
    /// The configuration of a child.
    ///
    /// # Errors
    /// All mistakes. A role that does not exist is one.
    pub(crate) fn config(self) -> Result<Config, ConfigError> {
        let Some(role) = [ProcessRole::Gateway, ProcessRole::Worker].into_iter().find(|role| role.as_str() == self.role) else {
            let mistakes = vec![format!("role {:?} of a child: use gateway or worker", self.role)];
            return Err(ConfigError { mistakes });
        };
        let env = |name: &str| self.env.get(name).cloned();
        Config::load_with(role, Flags::from(self.flags), &env, self.file)
    }
}

//! What a child is told to do: its role, and the settings as the supervisor has found them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::{Config, ConfigError, FileText, Flags, ProcessRole, Sources, of_environment, read_file};

/// The role and the settings of a child. They hold secrets: they are shown nowhere.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// `gateway` or `worker`.
    pub(crate) role: String,
    /// Which of the file's deployments it belongs to; empty for the only one.
    #[serde(default)]
    pub(crate) deployment: String,
    /// Where the supervisor's own Redis is, if it has one: for those that name no other.
    #[serde(default)]
    pub(crate) managed: Option<String>,
    /// As on a command line.
    pub(crate) flags: Vec<(String, String)>,
    /// The environment's settings: `LASTHIT_...`.
    pub(crate) env: BTreeMap<String, String>,
    /// The configuration file: where it is, and its text.
    pub(crate) file: Option<FileText>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("role", &self.role).finish_non_exhaustive()
    }
}

impl Settings {
    /// What a supervisor was started with. Role and deployment are those of no child yet.
    ///
    /// # Errors
    /// One line when the file cannot be read.
    pub(crate) fn gather(flags: &Flags, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        let file = read_file(flags, env)?;
        let (role, deployment) = (String::new(), String::new());
        Ok(Self { role, deployment, managed: None, flags: flags.pairs().to_vec(), env: of_environment(env), file })
    }

    /// The same, with the file as it is now.
    ///
    /// # Errors
    /// One line when the file cannot be read.
    pub(crate) fn again(&self) -> Result<Self, String> {
        let gathered = Self::gather(&Flags::from(self.flags.clone()), &|name| self.env.get(name).cloned())?;
        Ok(Self { managed: self.managed.clone(), ..gathered })
    }

    /// The configuration of the supervisor itself.
    ///
    /// # Errors
    /// All mistakes.
    pub(crate) fn of_supervisor(&self) -> Result<Config, ConfigError> {
        let env = |name: &str| self.env.get(name).cloned();
        Config::load_from(ProcessRole::Up, Sources::with_text(Flags::from(self.flags.clone()), &env, self.file.clone()))
    }

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
        let mut from = Sources::with_text(Flags::from(self.flags), &env, self.file);
        from.of(&self.deployment);
        from.managed = self.managed;
        Config::load_from(role, from)
    }
}

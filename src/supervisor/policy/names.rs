//! How slots are called, and what a list of names means.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits::{DEPLOYMENT_BYTES_MAX, PROCESSES_PER_ROLE_MAX};

/// What a process does. Workers sort first: a roll takes them first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Role {
    /// Resolves rooms.
    Worker,
    /// Holds sessions.
    Gateway,
}

impl Role {
    /// Both, in the order of a roll.
    pub(crate) const ALL: [Self; 2] = [Self::Worker, Self::Gateway];

    /// As in a name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Gateway => "gateway",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// All processes of one role in one deployment: `gateway`, `eu/worker`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Group {
    /// Which. It comes first in the order of a roll.
    pub(crate) role: Role,
    /// Empty for the one at the top of the file.
    pub(crate) deployment: String,
}

/// A place for a process: `gateway-1`, `eu/worker-2`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Slot {
    /// Of which deployment and role.
    pub(crate) group: Group,
    /// From 1.
    pub(crate) number: usize,
}

impl Group {
    /// Of one deployment, which may be empty.
    pub(crate) fn new(deployment: &str, role: Role) -> Self {
        Self { role, deployment: deployment.to_owned() }
    }

    /// Its slot with a number.
    pub(crate) fn slot(&self, number: usize) -> Slot {
        Slot { group: self.clone(), number }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { role, deployment } = self;
        if deployment.is_empty() { write!(f, "{role}") } else { write!(f, "{deployment}/{role}") }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.group, self.number)
    }
}

impl From<Group> for String {
    fn from(group: Group) -> Self {
        group.to_string()
    }
}

impl From<Slot> for String {
    fn from(slot: Slot) -> Self {
        slot.to_string()
    }
}

impl TryFrom<String> for Group {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl TryFrom<String> for Slot {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Group {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (deployment, role) = text.split_once('/').unwrap_or(("", text));
        let role = match role {
            "gateway" | "gateways" => Some(Role::Gateway),
            "worker" | "workers" => Some(Role::Worker),
            _ => None,
        };
        match role {
            Some(role) if deployment.is_empty() && !text.contains('/') || is_deployment(deployment) => {
                Ok(Self::new(deployment, role))
            }
            _ => Err(format!(
                "{text:?} is no group of processes: use gateway, worker, or a deployment before them as in eu/gateway"
            )),
        }
    }
}

impl FromStr for Slot {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.rsplit_once('-').and_then(|(group, number)| Some((group.parse::<Group>().ok()?, slot_number(number)?)));
        parsed
            .map(|(group, number)| group.slot(number))
            .ok_or_else(|| format!("{text:?} is no name of a process: use one such as gateway-1, worker-2, or eu/gateway-1"))
    }
}

/// A number as a name has it: without a sign or a leading zero.
fn slot_number(text: &str) -> Option<usize> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|number| plain && (1..=PROCESSES_PER_ROLE_MAX).contains(number))
}

/// Whether a text may name a deployment in the file: letters, digits, `_` and `-`.
pub(crate) fn is_deployment(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    (1..=DEPLOYMENT_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed) && text != "all"
}

//! How slots are called, and what a list of names means.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits::{DEPLOYMENT_BYTES_MAX, PROCESSES_PER_ROLE_MAX, REQUEST_NAMES_MAX};

/// What a process does. Workers sort first: a roll takes them first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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

/// The slots that names mean, each once, in the order of a roll. A name is one slot (`gateway-1`), a range of them (`gateway-2..4`), all
/// of a role (`worker`), each with a deployment before it if it is of another than the first (`eu/gateway-1`), all of a deployment
/// (`eu/all`), or `all`.
///
/// # Errors
/// One line about the first name that means nothing.
pub(crate) fn select(names: &[String], there: &[&Slot]) -> Result<Vec<Slot>, String> {
    if names.is_empty() {
        return Err(format!("name at least one process: {}", known(there)));
    }
    if names.len() > REQUEST_NAMES_MAX {
        return Err(format!("{} names: give at most {REQUEST_NAMES_MAX}, or a range such as gateway-1..4, or all", names.len()));
    }
    let mut selected = BTreeSet::new();
    for name in names {
        let meant: Vec<&Slot> = match Name::of(name) {
            Some(meaning) => there.iter().filter(|slot| meaning.means(slot)).copied().collect(),
            None => Vec::new(),
        };
        if meant.is_empty() {
            let shown: String = name.chars().take(NAME_SHOWN_CHARS).collect();
            return Err(format!("{shown:?} is no process: {}", known(there)));
        }
        selected.extend(meant.into_iter().cloned());
    }
    Ok(selected.into_iter().collect())
}

/// Characters of a wrong name that a line shows.
const NAME_SHOWN_CHARS: usize = 80;

/// What one name means.
enum Name {
    All,
    Deployment(String),
    Group(Group),
    /// From the first to the last number.
    Range(Group, usize, usize),
}

impl Name {
    fn of(text: &str) -> Option<Self> {
        if text == "all" {
            return Some(Self::All);
        }
        if let Some(deployment) = text.strip_suffix("/all") {
            return is_deployment(deployment).then(|| Self::Deployment(deployment.to_owned()));
        }
        if let Ok(group) = text.parse() {
            return Some(Self::Group(group));
        }
        let (group, numbers) = text.rsplit_once('-')?;
        let (first, last) = numbers.split_once("..").unwrap_or((numbers, numbers));
        let (first, last) = (slot_number(first)?, slot_number(last)?);
        let group = group.parse().ok()?;
        (first <= last).then_some(Self::Range(group, first, last))
    }

    fn means(&self, slot: &Slot) -> bool {
        match self {
            Self::All => true,
            Self::Deployment(deployment) => slot.group.deployment == *deployment,
            Self::Group(group) => slot.group == *group,
            Self::Range(group, first, last) => slot.group == *group && (*first..=*last).contains(&slot.number),
        }
    }
}

/// What there is, as ranges: `there is gateway-1..4, worker-1`.
fn known(there: &[&Slot]) -> String {
    let mut ranges: Vec<(&Group, usize, usize)> = Vec::new();
    let sorted: BTreeSet<&Slot> = there.iter().copied().collect();
    for slot in sorted {
        match ranges.last_mut() {
            Some((group, _, last)) if **group == slot.group && *last + 1 == slot.number => *last = slot.number,
            _ => ranges.push((&slot.group, slot.number, slot.number)),
        }
    }
    let shown: Vec<String> = ranges
        .into_iter()
        .map(|(group, first, last)| if first == last { format!("{group}-{first}") } else { format!("{group}-{first}..{last}") })
        .collect();
    if shown.is_empty() { "there is none".to_owned() } else { format!("there is {}", shown.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slots(names: &[&str]) -> Vec<Slot> {
        names.iter().map(|name| name.parse().expect(name)).collect()
    }

    /// What names mean among a few slots, or the line that says what is wrong.
    fn meant(names: &[&str]) -> String {
        let there = slots(&["gateway-1", "gateway-2", "gateway-4", "worker-1", "eu/gateway-1", "eu/worker-1", "eu/worker-2"]);
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        match select(&names, &there.iter().collect::<Vec<_>>()) {
            Ok(slots) => slots.iter().map(Slot::to_string).collect::<Vec<_>>().join(" "),
            Err(line) => line,
        }
    }

    #[test]
    fn names_mean_slots() {
        for (names, expected) in [
            (&["gateway-1"][..], "gateway-1"),
            (&["gateway-2", "worker-1", "gateway-2"], "worker-1 gateway-2"),
            (&["gateway-2..4"], "gateway-2 gateway-4"),
            (&["gateway"], "gateway-1 gateway-2 gateway-4"),
            (&["workers"], "worker-1"),
            (&["eu/worker"], "eu/worker-1 eu/worker-2"),
            (&["eu/all"], "eu/worker-1 eu/worker-2 eu/gateway-1"),
            (&["all"], "worker-1 eu/worker-1 eu/worker-2 gateway-1 gateway-2 gateway-4 eu/gateway-1"),
        ] {
            assert_eq!(meant(names), expected, "{names:?}");
        }
    }

    #[test]
    fn a_name_that_means_nothing_is_told_with_what_there_is() {
        let there = "there is worker-1, eu/worker-1..2, gateway-1..2, gateway-4, eu/gateway-1";
        assert_eq!(meant(&["gateway-1", "gateway-3"]), format!("\"gateway-3\" is no process: {there}"));
        assert_eq!(meant(&[]), format!("name at least one process: {there}"));
        let long = "x".repeat(100_000);
        for name in [
            "",
            "gateway-0",
            "gateway-01",
            "gateway--1",
            "gateway-2..1",
            "gateway-+1",
            "us/gateway",
            "us/all",
            "/all",
            "a/b/gateway-1",
            "/gateway-1",
            "redis",
            "\n",
            &long,
        ] {
            let line = meant(&[name]);
            assert!(line.ends_with(there) && !line.contains('\n') && line.len() < 300, "{name:?}: {line}");
        }
        assert_eq!(select(&["all".to_owned()], &[]), Err("\"all\" is no process: there is none".to_owned()));
        assert!(meant(&["all"; REQUEST_NAMES_MAX + 1]).starts_with("257 names: give at most 256"));
    }

    proptest! {
        #[test]
        fn a_name_reads_as_it_is_written(deployment in "[a-z][a-z0-9_-]{0,8}|", is_worker in any::<bool>(), number in 1..=PROCESSES_PER_ROLE_MAX) {
            prop_assume!(deployment != "all");
            let slot = Group::new(&deployment, if is_worker { Role::Worker } else { Role::Gateway }).slot(number);
            prop_assert_eq!(slot.to_string().parse(), Ok(slot.clone()));
            let json = serde_json::to_string(&slot).expect("json");
            prop_assert_eq!(serde_json::from_str::<Slot>(&json).expect("a slot"), slot);
        }

        #[test]
        fn no_text_is_taken_for_another(text in "([a-z/.-]|[0-9]|gateway|worker){0,6}") {
            if let Ok(slot) = text.parse::<Slot>() {
                prop_assert_eq!(slot.to_string().replace("gateways-", "gateway-"), text.replace("gateways-", "gateway-").replace("workers-", "worker-"));
            }
        }
    }
}

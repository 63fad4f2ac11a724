//! How many processes a role has.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::names::{Group, Role, is_deployment};
use crate::limits::{DEPLOYMENTS_MAX, PROCESSES_PER_ROLE_MAX};

/// How many processes of a role are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Count {
    /// So many.
    Fixed(usize),
    /// As load wants it, within both.
    Between {
        /// At least.
        min: usize,
        /// At most; not below `min`.
        max: usize,
    },
}

impl Count {
    /// The most that it can be.
    pub(crate) fn most(self) -> usize {
        match self {
            Self::Fixed(count) => count,
            Self::Between { max, .. } => max,
        }
    }

    /// The count within it that is nearest to the one that is there.
    pub(crate) fn nearest(self, now: usize) -> usize {
        match self {
            Self::Fixed(count) => count,
            Self::Between { min, max } => now.clamp(min, max),
        }
    }
}

/// One deployment and how many processes it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Deployment {
    /// Empty for the one at the top of the file.
    pub(crate) name: String,
    /// How many gateways.
    pub(crate) gateways: Count,
    /// How many workers.
    pub(crate) workers: Count,
    /// Shards: more workers than that are refused.
    pub(crate) shards: u16,
}

impl Deployment {
    /// How many processes of a role.
    pub(crate) fn count(&self, role: Role) -> Count {
        match role {
            Role::Gateway => self.gateways,
            Role::Worker => self.workers,
        }
    }

    /// The same, to be changed.
    pub(crate) fn count_mut(&mut self, role: Role) -> &mut Count {
        match role {
            Role::Gateway => &mut self.gateways,
            Role::Worker => &mut self.workers,
        }
    }
}

/// How many processes of a role somebody asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// As many as the cores of the host can feed.
    Auto,
    /// So many.
    Count(Count),
}

impl Wanted {
    /// Reads `auto`, `4` or `auto:1..6`.
    ///
    /// # Errors
    /// The rest of a sentence that begins with the value.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<usize>().ok().filter(|count| *count <= PROCESSES_PER_ROLE_MAX);
        if text == "auto" {
            return Ok(Self::Auto);
        }
        if let Some(range) = text.strip_prefix("auto:") {
            let bounds = range.split_once("..").and_then(|(min, max)| Some((number(min)?, number(max)?)));
            return match bounds {
                Some((min, max)) if 1 <= min && min <= max => Ok(Self::Count(Count::Between { min, max })),
                _ => Err(format!("is no range: use auto:MIN..MAX such as auto:1..6, from 1 to {PROCESSES_PER_ROLE_MAX}")),
            };
        }
        match number(text) {
            Some(count) => Ok(Self::Count(Count::Fixed(count))),
            None => Err(format!("does not fit: use auto, a whole number from 0 to {PROCESSES_PER_ROLE_MAX}, or auto:MIN..MAX")),
        }
    }

    /// How many that is, if `auto` is so many.
    pub(crate) fn or(self, auto: usize) -> Count {
        match self {
            Self::Auto => Count::Fixed(auto),
            Self::Count(count) => count,
        }
    }
}

/// What `auto` is: gateways, then workers. Measured, a worker needs three tenths of what an event costs. `cores` are those that the
/// process may use; Redis on the same host needs one of them.
pub(crate) fn auto(cores: usize, redis_is_here: bool, shards: u16) -> (usize, usize) {
    let cores = cores.saturating_sub(usize::from(redis_is_here)).max(1);
    // Three tenths, rounded.
    let workers = ((cores * 3 + 5) / 10).max(1);
    let gateways = cores.saturating_sub(workers).max(1);
    (gateways.min(PROCESSES_PER_ROLE_MAX), workers.min(PROCESSES_PER_ROLE_MAX).min(usize::from(shards)))
}

/// Whether deployments can be run.
///
/// # Errors
/// One line: what is wrong with which of them, and what to do.
pub(crate) fn check(deployments: &[Deployment]) -> Result<(), String> {
    if deployments.is_empty() || deployments.len() > DEPLOYMENTS_MAX {
        return Err(format!("{} deployments: give 1 to {DEPLOYMENTS_MAX}", deployments.len()));
    }
    let mut names = BTreeSet::new();
    for deployment in deployments {
        let name = &deployment.name;
        if !name.is_empty() && !is_deployment(name) {
            return Err(format!("deployment {name:?} has no fitting name: use 1 to 32 letters, digits, _ and -, and not `all`"));
        }
        if !names.insert(name) {
            return Err(format!("deployment {name:?} is there twice: give one of them another name"));
        }
        for role in Role::ALL {
            let group = Group::new(name, role);
            if let Count::Between { min, max } = deployment.count(role)
                && (min < 1 || min > max)
            {
                return Err(format!("{group}: auto:{min}..{max} is no range: use one such as auto:1..6"));
            }
            let most = deployment.count(role).most();
            if most > PROCESSES_PER_ROLE_MAX {
                return Err(format!("{group}: {most} processes: give at most {PROCESSES_PER_ROLE_MAX}"));
            }
        }
        let (workers, shards) = (deployment.workers.most(), deployment.shards);
        if workers > usize::from(shards) {
            return Err(format!(
                "{}: {workers} processes and {shards} shards: give at most {shards} workers, each needs a shard",
                Group::new(name, Role::Worker)
            ));
        }
        if workers == 0 && deployment.gateways.most() == 0 {
            let (gateways, workers) = (Group::new(name, Role::Gateway), Group::new(name, Role::Worker));
            return Err(format!("{gateways}: 0, and {workers}: 0: there is nothing to run, give one of them at least 1"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_follow_the_cores() {
        let of = |cores, redis_is_here| auto(cores, redis_is_here, 1024);
        assert_eq!(
            [1, 2, 4, 5, 8, 10, 16, 64].map(|cores| of(cores, false)),
            [(1, 1), (1, 1), (3, 1), (3, 2), (6, 2), (7, 3), (11, 5), (45, 19)]
        );
        assert_eq!((of(1, true), of(2, true), of(9, true)), ((1, 1), (1, 1), (6, 2)));
        assert_eq!(auto(64, false, 8), (45, 8), "no more workers than shards");
        assert_eq!(of(10_000, false), (128, 128));
    }

    #[test]
    fn counts_read_as_numbers_and_ranges() {
        let fixed = |count| Ok(Wanted::Count(Count::Fixed(count)));
        assert_eq!(Wanted::parse("auto"), Ok(Wanted::Auto));
        assert_eq!((Wanted::parse("0"), Wanted::parse("128")), (fixed(0), fixed(128)));
        assert_eq!(Wanted::parse("auto:1..6"), Ok(Wanted::Count(Count::Between { min: 1, max: 6 })));
        for wrong in ["", "-1", "1.5", "129", "many", "99999999999999999999"] {
            assert!(Wanted::parse(wrong).is_err_and(|e| e.contains("from 0 to 128")), "{wrong:?}");
        }
        for wrong in ["auto:", "auto:0..2", "auto:3..2", "auto:2", "auto:1..129", "auto:1...3"] {
            assert!(Wanted::parse(wrong).is_err_and(|e| e.starts_with("is no range")), "{wrong:?}");
        }
    }

    #[test]
    fn what_cannot_be_run_is_refused_in_one_line() {
        let one = Deployment { name: String::new(), gateways: Count::Fixed(2), workers: Count::Fixed(2), shards: 8 };
        let named = |name: &str| Deployment { name: name.to_owned(), ..one.clone() };
        let workers = |workers| Deployment { workers, ..one.clone() };
        assert_eq!(check(&[one.clone(), named("eu"), workers(Count::Fixed(8))][..2]), Ok(()));
        let none = Deployment { gateways: Count::Fixed(0), workers: Count::Fixed(0), ..named("eu") };
        for (deployments, expected) in [
            (vec![], "0 deployments: give 1 to 16"),
            (vec![workers(Count::Fixed(9))], "worker: 9 processes and 8 shards: give at most 8 workers"),
            (vec![workers(Count::Between { min: 1, max: 9 })], "worker: 9 processes and 8 shards"),
            (vec![workers(Count::Between { min: 2, max: 1 })], "worker: auto:2..1 is no range"),
            (vec![Deployment { gateways: Count::Fixed(129), ..one.clone() }], "gateway: 129 processes: give at most 128"),
            (vec![one.clone(), none], "eu/gateway: 0, and eu/worker: 0: there is nothing to run"),
            (vec![named("eu"), named("eu")], "deployment \"eu\" is there twice"),
            (vec![named("all")], "deployment \"all\" has no fitting name"),
            (vec![named("a/b")], "deployment \"a/b\" has no fitting name"),
        ] {
            let line = check(&deployments).expect_err(expected);
            assert!(line.starts_with(expected) && !line.contains('\n'), "{line}");
        }
        for (gateways, workers) in [(0, 2), (2, 0)] {
            let of_one_role = Deployment { gateways: Count::Fixed(gateways), workers: Count::Fixed(workers), ..one.clone() };
            assert_eq!(check(&[of_one_role]), Ok(()));
        }
    }
}

//! On what kind of Redis a run plays, and which faults there are for it.

use std::fmt;
use std::str::FromStr;

use super::Durability;
use super::plan::Kind;
use crate::limits::{COPIES_MAX, PRIMARIES_MAX, PRIMARIES_MIN};

/// What the rooms are kept on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Layout {
    /// One server, or a primary and the replica that the run itself lets take over.
    #[default]
    Single,
    /// A Redis Cluster.
    Cluster(Nodes),
    /// A primary and a replica, over which three sentinels decide.
    Sentinel,
}

/// The size of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Nodes {
    /// Each serves a part of the slots.
    pub(crate) primaries: u16,
    /// Of each primary.
    pub(crate) replicas: u16,
}

/// All that a run's servers are started by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct On {
    pub(crate) layout: Layout,
    pub(crate) durability: Durability,
    /// They are Valkey 9.
    pub(crate) valkey: bool,
    /// Whoever uses them is on a host of its own, and they are reached from there.
    pub(crate) hosts: bool,
}

impl From<Durability> for On {
    fn from(durability: Durability) -> Self {
        Self { layout: Layout::Single, durability, valkey: false, hosts: false }
    }
}

impl On {
    /// Why a run has no faults of this kind, and what to do; None when it has.
    pub(crate) fn lacks(self, kind: Kind) -> Option<String> {
        if kind == Kind::SlotMoveAtomic && matches!(self.layout, Layout::Cluster(_)) && !self.valkey {
            return Some(format!("{} needs Valkey 9 (CLUSTER MIGRATESLOTS): add --valkey", kind.name()));
        }
        if kind.is_of_hosts() {
            return (!self.hosts).then(|| format!("{} needs hosts: add --hosts 3", kind.name()));
        }
        if kind.needs_process() && self.hosts {
            return Some(format!("{} happens to one process of a run without hosts: leave out --hosts", kind.name()));
        }
        self.layout.lacks(kind, self.durability)
    }
}

impl fmt::Display for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.primaries, self.replicas + 1)
    }
}

impl FromStr for Nodes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('x').and_then(|(primaries, copies)| Some((primaries.parse().ok()?, copies.parse().ok()?)));
        let fit = parsed.filter(|(p, c)| (PRIMARIES_MIN..=PRIMARIES_MAX).contains(p) && (1..=COPIES_MAX).contains(c));
        let (primaries, copies): (u16, u16) = fit.ok_or_else(|| {
            format!(
                "cluster {text:?}: use {PRIMARIES_MIN} to {PRIMARIES_MAX} primaries and 1 to {COPIES_MAX} nodes for each of them, as \
                 in 3x2, which is 3 primaries with a replica each"
            )
        })?;
        Ok(Self { primaries, replicas: copies - 1 })
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Single => f.write_str("one Redis"),
            Self::Cluster(nodes) => write!(f, "a cluster of {nodes}"),
            Self::Sentinel => f.write_str("a primary under three sentinels"),
        }
    }
}

impl Layout {
    /// Replicas of each primary that may be elected without the run's doing.
    pub(crate) fn replicas(self) -> u16 {
        match self {
            Self::Single => 0,
            Self::Cluster(nodes) => nodes.replicas,
            Self::Sentinel => 1,
        }
    }

    /// Whether what was acknowledged at this level may be lost here: a replica may be elected that had not got it.
    pub(crate) fn may_lose(self, durability: Durability) -> bool {
        self.replicas() > 0 && durability != Durability::Replicated
    }

    /// Whether the audit fails when a room begins a new era, whatever explains it.
    pub(crate) fn keeps_eras(self, durability: Durability) -> bool {
        durability != Durability::Redis && !self.may_lose(durability)
    }

    /// See [`On::lacks`].
    fn lacks(self, kind: Kind, durability: Durability) -> Option<String> {
        let name = kind.name();
        if kind.is_of_nodes() {
            return match self {
                Self::Single => Some(format!("{name} needs nodes: add --cluster 3x2, or --sentinel")),
                Self::Sentinel if kind.moves_slots() => Some(format!("{name} needs a cluster: use --cluster 3x2")),
                _ if kind == Kind::NodeFailover && self.replicas() == 0 => {
                    Some(format!("{name} needs replicas: use --cluster 3x2"))
                }
                _ if kind == Kind::NodeKill && self.replicas() == 0 && durability != Durability::Disk => Some(format!(
                    "{name} loses what was acknowledged where there are no replicas: use --cluster 3x2, or --durability disk"
                )),
                _ => None,
            };
        }
        if self != Self::Single && kind.needs_single() {
            return Some(format!("{name} happens to a single Redis: leave out --cluster and --sentinel"));
        }
        (self == Self::Single && !durability.has(kind)).then(|| {
            use clap::ValueEnum;
            let fit = Durability::value_variants().iter().find(|other| other.has(kind)).map_or("", |other| other.name());
            let level = durability.name();
            format!("{name} loses what was acknowledged at durability {level}, or has no replica there: use --durability {fit}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_primaries_and_nodes_for_each() {
        assert_eq!("3x2".parse(), Ok(Nodes { primaries: 3, replicas: 1 }));
        assert_eq!("9x1".parse::<Nodes>().expect("a size").to_string(), "9x1");
        for bad in ["", "3", "x", "2x2", "10x1", "3x0", "3x5", "3x2x1", "-3x2", "threex2"] {
            let error = bad.parse::<Nodes>().expect_err(bad);
            assert!(error.contains(&format!("{bad:?}")) && error.contains("as in 3x2"), "{error}");
        }
    }

    #[test]
    fn what_a_layout_lacks_is_told_with_what_has_it() {
        let cluster = |text: &str| Layout::Cluster(text.parse().expect("a size"));
        let lacks = |layout: Layout, kind, level| layout.lacks(kind, level).unwrap_or_default();
        let redis = Durability::Redis;
        assert!(lacks(Layout::Single, Kind::NodeKill, redis).contains("add --cluster 3x2"));
        assert!(lacks(Layout::Sentinel, Kind::SlotMove, redis).contains("use --cluster 3x2"));
        assert!(lacks(cluster("3x1"), Kind::NodeFailover, redis).contains("needs replicas"));
        assert!(lacks(cluster("3x1"), Kind::NodeKill, redis).contains("--durability disk"));
        assert_eq!(lacks(cluster("3x1"), Kind::NodeKill, Durability::Disk), "");
        for layout in [cluster("3x2"), Layout::Sentinel] {
            assert_eq!(lacks(layout, Kind::Minority, redis) + &lacks(layout, Kind::WorkerKill, redis), "");
            assert!(lacks(layout, Kind::Cut, redis).contains("leave out --cluster"));
            assert!(lacks(layout, Kind::RedisKill, redis).contains("leave out --cluster"));
        }
        assert!(lacks(Layout::Single, Kind::RedisKill, redis).contains("use --durability disk"));
    }

    #[test]
    fn an_election_may_lose_what_no_replica_confirmed() {
        let cluster = |text: &str| Layout::Cluster(text.parse().expect("a size"));
        let keeps = |layout: Layout, level| (layout.may_lose(level), layout.keeps_eras(level));
        assert_eq!(keeps(Layout::Single, Durability::Redis), (false, false));
        assert_eq!(keeps(Layout::Single, Durability::Disk), (false, true));
        assert_eq!(keeps(cluster("3x2"), Durability::Disk), (true, false));
        assert_eq!(keeps(cluster("3x1"), Durability::Disk), (false, true));
        assert_eq!(keeps(Layout::Sentinel, Durability::Redis), (true, false));
        assert_eq!(keeps(cluster("3x2"), Durability::Replicated), (false, true));
    }
}

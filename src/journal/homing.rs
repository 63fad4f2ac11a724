//! Where a shard is at home, who owns it there, and what a claim may change of that.

use super::Lease;
use crate::types::{Home, HostId};

/// What the journal says of who has a shard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShardOwner {
    /// Its owner. None if nobody ever owned it, its owner released it, or its record is damaged: then the claim fails.
    pub lease: Option<Lease>,
    /// Its home; None if it never had one.
    pub home: Option<Home>,
    /// The successor that its owner has named, if the name has not run out.
    pub next: Option<Successor>,
}

/// The host that is to be the next home of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Successor {
    /// The host.
    pub host: HostId,
    /// Under which URL players reach it.
    pub url: String,
}

/// What a claim does about the shard's home. By default it leaves it where it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Homing {
    /// Whether the home may change to the claimer's host.
    pub moves: bool,
    /// The home that the claimer saw: another one does not change (rule H1).
    pub seen: Option<Home>,
    /// Under which URL players reach the claimer's host. Empty: what is stored stays where the home stays.
    pub address: String,
}

impl Homing {
    /// The home may change from the one that was seen; None: the shard had none.
    #[must_use]
    pub fn moves_from(seen: Option<Home>) -> Self {
        Self { moves: true, seen, address: String::new() }
    }
}

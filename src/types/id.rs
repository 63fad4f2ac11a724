//! Names and identities.

use std::fmt;
use std::sync::Arc;

use crate::limits::NAME_BYTES_MAX;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} name {value:?} is not allowed: use 1 to 64 characters out of A-Z a-z 0-9 . _ -")]
pub struct IdError {
    /// `room`, `player` or `program`.
    pub what: &'static str,
    /// The refused name, cut to 80 characters.
    pub value: String,
}

fn checked(what: &'static str, name: &str) -> Result<Arc<str>, IdError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed) {
        Ok(Arc::from(name))
    } else {
        Err(IdError { what, value: name.chars().take(80).collect() })
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the name: 1 to 64 characters out of `A-Z a-z 0-9 . _ -`.
            ///
            /// # Errors
            /// [`IdError`] with the refused name.
            pub fn new(name: &str) -> Result<Self, IdError> {
                checked($what, name).map(Self)
            }

            /// The name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(name: &str) -> Result<Self, IdError> {
                Self::new(name)
            }
        }
    };
}

name! {
    /// The unit of order: everything in one room is resolved in one sequence.
    RoomId, "room"
}
name! {
    /// A player's name. One player may have several sessions.
    PlayerId, "player"
}

/// Checks the name of a program: as any name.
pub(crate) fn check_program_name(name: &str) -> Result<(), IdError> {
    checked("program", name).map(drop)
}

/// A fixed group of rooms that share a Redis hash tag; the unit of ownership.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

impl ShardId {
    /// The shard of a room in a deployment of `shards` shards. Part of the journal's format: it never changes.
    ///
    /// # Panics
    /// When `shards` is 0.
    #[must_use]
    pub fn of(room: &RoomId, shards: u16) -> Self {
        let hash = crc32fast::hash(room.as_str().as_bytes());
        #[expect(clippy::cast_possible_truncation, reason = "the remainder of a u16 fits a u16")]
        Self((hash % u32::from(shards)) as u16)
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Identity of one start of a process: random, never reused (rule W1). A gateway that is fenced in a shard goes on there under the next
/// turn of its identity, which no other registration has or had: bits 64 to 95 count its turns, the others are the process. The upper 32 bits
/// are what people see.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Incarnation(pub u128);

impl Incarnation {
    /// Stands for no process, as in the verdict on an unreadable entry.
    pub const NONE: Self = Self(0);

    /// A new identity from the operating system's randomness.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random::<u128>() | 1).process()
    }

    /// The process: the same for all its turns. Its lock and its pushes have this name.
    #[must_use]
    pub fn process(self) -> Self {
        Self(self.0 & !(u128::from(u32::MAX) << 64))
    }

    /// The turn of this number, of the same process; 0 is the process itself.
    #[must_use]
    pub fn turn(self, number: u32) -> Self {
        Self(self.process().0 | u128::from(number) << 64)
    }

    /// The 32 hexadecimal digits that Redis keeps.
    #[must_use]
    pub fn to_hex(self) -> String {
        format!("{:032x}", self.0)
    }

    /// Reads what [`Incarnation::to_hex`] wrote.
    #[must_use]
    pub fn from_hex(hex: &str) -> Option<Self> {
        (hex.len() == 32).then(|| u128::from_str_radix(hex, 16).ok()).flatten().map(Self)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        match (self.0 ^ self.process().0) >> 64 {
            0 => Ok(()),
            turn => write!(f, ".{turn}"),
        }
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0 >> 96)
    }
}

/// Names a program in one file: the first half of the SHA-256 of its text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ProgramId(pub u128);

impl ProgramId {
    /// Stands for rules that are no file.
    pub const NONE: Self = Self(0);

    /// The name of a text.
    #[must_use]
    pub fn of(text: &[u8]) -> Self {
        let hash = ring::digest::digest(&ring::digest::SHA256, text);
        let half = hash.as_ref().first_chunk().copied().unwrap_or_default();
        Self(u128::from_be_bytes(half))
    }
}

impl fmt::Display for ProgramId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ProgramId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0 >> 96)
    }
}

impl std::str::FromStr for ProgramId {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let hex = (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok()).flatten();
        hex.map(Self)
            .ok_or_else(|| format!("{:?} names no program: 32 hexadecimal digits do", text.chars().take(80).collect::<String>()))
    }
}

/// What a room was created with, and its random numbers come from. Rooms that one flush creates have it in common. It is never sent
/// to a client or a gateway.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub u128);

impl Seed {
    /// A new one from the operating system's randomness.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// The room's own seed. Part of the journal's format: it never changes.
    #[must_use]
    pub fn of(self, room: &RoomId) -> u128 {
        let bytes = [&self.0.to_be_bytes(), room.as_str().as_bytes()].concat();
        xxhash_rust::xxh3::xxh3_128(&bytes)
    }
}

/// Whoever reads a log learns no seed.
impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed")
    }
}

/// One WebSocket connection (or embedded session): the gateway's incarnation and its count there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId {
    /// The gateway that holds the session.
    pub gateway: Incarnation,
    /// Counted from 1 in that incarnation.
    pub number: u64,
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.gateway, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert!(RoomId::new("Baron.pit_1-a").is_ok());
        for bad in ["", "a b", "ä", "a/b", "a{b}", &"x".repeat(65)] {
            let error = RoomId::new(bad).expect_err(bad);
            assert!(error.to_string().starts_with("room name"), "{error}");
        }
    }

    #[test]
    fn a_room_keeps_its_shard() {
        // Part of the format: another hash would lose every stored room.
        assert_eq!(ShardId::of(&RoomId::new("baron").expect("name"), 16), ShardId((crc32fast::hash(b"baron") % 16) as u16));
        assert_eq!(crc32fast::hash(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn rooms_that_one_flush_creates_have_seeds_of_their_own() {
        let [baron, drake] = ["baron", "drake"].map(|name| RoomId::new(name).expect("name"));
        let seed = Seed(7);
        assert_ne!(seed.of(&baron), seed.of(&drake));
        assert_ne!(seed.of(&baron), Seed(8).of(&baron));
        // Part of the format: another hash would give the rooms that have no snapshot yet other random numbers.
        assert_eq!(seed.of(&baron), 0xce2f_3fd2_14e7_553f_53d5_e0d5_a654_d891);
    }

    #[test]
    fn incarnations_survive_hex() {
        let one = Incarnation::random();
        assert_eq!(Incarnation::from_hex(&one.to_hex()), Some(one));
        assert_eq!(Incarnation::from_hex("12"), None);
    }
}

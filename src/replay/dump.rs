//! A recording as a file: `lasthit-dump`, a version byte, the CRC-32 of the rest, and the rest as MessagePack.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::Recording;
use crate::journal::StoredSnapshot;
use crate::limits::RECORDING_BYTES_MAX;
use crate::types::{ProgramId, Seed, StreamId};

const MAGIC: &[u8; 12] = b"lasthit-dump";
/// Version 3: `{room, era, seq, seed: bytes | nil, snapshot: {seq, ms, n, bytes} | nil, verdicts: [bytes], entries: [[ms, n, bytes]],
/// programs: [text]}`. A later lasthit may add fields under this number: a dump that has them is refused by one that does not know them.
/// Dumps of rooms without programs have no such field.
///
/// Version 2 is read too. It has no seed.
pub const VERSION: u8 = 3;
/// The oldest version that is read.
const VERSION_MIN: u8 = 2;
const SEED_BYTES: usize = 16;
/// The fields that this version knows.
const FIELDS: [&str; 8] = ["room", "era", "seq", "seed", "snapshot", "verdicts", "entries", "programs"];
/// Magic, version and checksum.
const HEAD_BYTES: usize = MAGIC.len() + 1 + 4;

/// Why a dump could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The file system refuses.
    #[error("{path:?} cannot be {what}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Read or written.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is not a dump.
    #[error("{0:?} is not a dump: give a file that `lasthit dump` wrote")]
    Other(PathBuf),
    /// A dump of another version.
    #[error("dump {path:?} has version {found}, this lasthit reads version {VERSION}: use the lasthit that wrote it")]
    Version {
        /// Which file.
        path: PathBuf,
        /// Its version.
        found: u8,
    },
    /// A newer version wrote something that this one cannot replay.
    #[error("dump {path:?} has {field:?}, which this lasthit does not know: a newer version wrote it, use that one")]
    Newer {
        /// Which file.
        path: PathBuf,
        /// What it has.
        field: String,
    },
    /// The dump is too large for memory.
    #[error("dump {0:?} has more than {mib} MiB", mib = RECORDING_BYTES_MAX >> 20)]
    TooLarge(PathBuf),
    /// The dump is incomplete, or was changed.
    #[error("dump {path:?} is damaged: {why}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    room: String,
    era: u64,
    seq: u64,
    #[serde(default)]
    seed: Option<serde_bytes::ByteArray<SEED_BYTES>>,
    snapshot: Option<Snapshot>,
    verdicts: Vec<ByteBuf>,
    entries: Vec<(u64, u64, ByteBuf)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    programs: Vec<ByteBuf>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Snapshot {
    seq: u64,
    ms: u64,
    n: u64,
    bytes: ByteBuf,
}

/// Writes a recording into a file. An existing file is replaced only after everything was written.
///
/// # Errors
/// When the file cannot be written.
pub fn write(recording: &Recording, path: &Path) -> Result<(), DumpError> {
    let stored = Stored {
        room: recording.room.to_string(),
        era: recording.era,
        seq: recording.seq,
        seed: recording.seed.map(|seed| seed.0.to_be_bytes().into()),
        snapshot: recording.snapshot.as_ref().map(|s| Snapshot {
            seq: s.seq,
            ms: s.cursor.ms,
            n: s.cursor.seq,
            bytes: ByteBuf::from(s.bytes.to_vec()),
        }),
        verdicts: recording.verdicts.iter().map(|b| ByteBuf::from(b.to_vec())).collect(),
        entries: recording.entries.iter().map(|(at, b)| (at.ms, at.seq, ByteBuf::from(b.to_vec()))).collect(),
        programs: recording.programs.values().map(|text| ByteBuf::from(text.to_vec())).collect(),
    };
    let file = |source| DumpError::File { path: path.to_owned(), what: "written", source };
    let body = rmp_serde::to_vec_named(&stored).map_err(|e| file(std::io::Error::other(e)))?;
    let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
    bytes.extend(MAGIC);
    bytes.push(VERSION);
    bytes.extend(crc32fast::hash(&body).to_be_bytes());
    bytes.extend(body);
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    std::fs::write(&partial, bytes).and_then(|()| std::fs::rename(&partial, path)).map_err(file)
}

/// Reads what [`write()`] wrote.
///
/// # Errors
/// When the file cannot be read or is not a dump.
pub fn read(path: &Path) -> Result<Recording, DumpError> {
    let mut bytes = Vec::new();
    // The form adds a few bytes to each entry.
    let most = RECORDING_BYTES_MAX as u64 * 2;
    let opened = std::fs::File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes));
    opened.map_err(|source| DumpError::File { path: path.to_owned(), what: "read", source })?;
    if bytes.len() as u64 > most {
        return Err(DumpError::TooLarge(path.to_owned()));
    }
    parse(&bytes, path)
}

/// Reads a dump's bytes; `path` is for errors.
fn parse(bytes: &[u8], path: &Path) -> Result<Recording, DumpError> {
    let Some(rest) = bytes.strip_prefix(MAGIC) else { return Err(DumpError::Other(path.to_owned())) };
    let damaged = |why: String| DumpError::Damaged { path: path.to_owned(), why };
    let (version, rest) = rest.split_first().ok_or_else(|| damaged("it ends after its name".to_owned()))?;
    if !(VERSION_MIN..=VERSION).contains(version) {
        return Err(DumpError::Version { path: path.to_owned(), found: *version });
    }
    let (checksum, body) = rest.split_first_chunk().ok_or_else(|| damaged("it ends within its head".to_owned()))?;
    if crc32fast::hash(body) != u32::from_be_bytes(*checksum) {
        return Err(damaged("its checksum is wrong: it is incomplete or was changed".to_owned()));
    }
    let fields: BTreeMap<String, IgnoredAny> = rmp_serde::from_slice(body).map_err(|e| damaged(e.to_string()))?;
    if let Some(field) = fields.into_keys().find(|field| !FIELDS.contains(&field.as_str())) {
        return Err(DumpError::Newer { path: path.to_owned(), field: field.chars().take(80).collect() });
    }
    let stored: Stored = rmp_serde::from_slice(body).map_err(|e| damaged(e.to_string()))?;
    let bytes = |b: ByteBuf| Bytes::from(b.into_vec());
    Ok(Recording {
        room: stored.room.parse().map_err(|e| damaged(format!("{e}")))?,
        era: stored.era,
        seq: stored.seq,
        seed: stored.seed.map(|seed| Seed(u128::from_be_bytes(seed.into_array()))),
        snapshot: stored.snapshot.map(|s| StoredSnapshot {
            seq: s.seq,
            cursor: StreamId { ms: s.ms, seq: s.n },
            bytes: bytes(s.bytes),
        }),
        verdicts: stored.verdicts.into_iter().map(bytes).collect(),
        entries: stored.entries.into_iter().map(|(ms, seq, b)| (StreamId { ms, seq }, bytes(b))).collect(),
        programs: stored.programs.into_iter().map(bytes).map(|text| (ProgramId::of(&text), text)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recording() -> Recording {
        Recording {
            room: "quiz".parse().expect("room"),
            era: 3,
            seq: 9,
            seed: Some(Seed(u128::MAX - 7)),
            snapshot: Some(StoredSnapshot { seq: 5, cursor: StreamId { ms: 7, seq: 1 }, bytes: Bytes::from_static(b"state") }),
            verdicts: vec![Bytes::from_static(b"v")],
            entries: vec![(StreamId { ms: 8, seq: 0 }, Bytes::from_static(b"entry"))],
            programs: [(ProgramId::of(b"text"), Bytes::from_static(b"text"))].into(),
        }
    }

    #[test]
    fn what_was_written_is_read_and_anything_else_is_a_clear_error() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("quiz.dump");
        write(&recording(), &path).expect("written");
        assert_eq!(read(&path).expect("read"), recording());
        let good = std::fs::read(&path).expect("bytes");

        let error = |bytes: &[u8]| parse(bytes, &path).expect_err("refused").to_string();
        let mut newer = good.clone();
        newer[12] = 4;
        assert!(error(&newer).contains("has version 4, this lasthit reads version 3"), "{}", error(&newer));
        assert!(error(b"{\"json\": true}").contains("is not a dump"));
        assert!(error(b"").contains("is not a dump"));
        assert!(error(&good[..12]).contains("damaged") && error(&good[..15]).contains("within its head"));
        for at in HEAD_BYTES - 4..good.len() {
            let mut changed = good.clone();
            changed[at] ^= 1;
            assert!(error(&changed).contains("its checksum is wrong"), "byte {at}");
            assert!(parse(&good[..at], &path).is_err(), "cut at {at}");
        }
        let with = |field: &str, value: rmpv::Value| {
            let mut stored: Vec<(rmpv::Value, rmpv::Value)> = match rmp_serde::from_slice(&good[HEAD_BYTES..]).expect("a map") {
                rmpv::Value::Map(fields) => fields,
                other => panic!("{other}"),
            };
            stored.retain(|(name, _)| name.as_str() != Some(field));
            stored.push((field.into(), value));
            let body = rmp_serde::to_vec(&rmpv::Value::Map(stored)).expect("bytes");
            [&good[..HEAD_BYTES - 4], &crc32fast::hash(&body).to_be_bytes(), &body].concat()
        };
        let newer = error(&with("channels", rmpv::Value::Array(Vec::new())));
        assert!(newer.contains("has \"channels\", which this lasthit does not know: a newer version wrote it"), "{newer}");
        assert!(error(&with("seed", rmpv::Value::Binary(vec![7; 15]))).contains("damaged"));
        let without = parse(&with("seed", rmpv::Value::Nil), &path).expect("a dump");
        assert_eq!(without, Recording { seed: None, ..recording() });
        assert!(read(&dir.path().join("none")).expect_err("refused").to_string().contains("cannot be read"));
    }
}

//! A room's state as bytes: its keys in their order, each with its value. An event reads and writes only the keys that it touches.
//!
//! Version 1: a byte 1, then for each key the length of the key, the length of the value, the key, the value. Lengths have four bytes,
//! big-endian. A value is MessagePack.

use std::ops::Range;

use super::data;

const VERSION: u8 = 1;

/// A key of a state and its value: where both are in the bytes.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: Range<usize>,
    pub(super) value: Range<usize>,
}

impl Entry {
    /// Both, with their lengths.
    pub(super) fn whole(&self) -> Range<usize> {
        self.key.start - 8..self.value.end
    }
}

/// A state without keys.
pub(super) fn empty() -> Vec<u8> {
    vec![VERSION]
}

/// Appends a key and its value.
pub(super) fn push(bytes: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    for part in [key, value] {
        bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
    }
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(value);
}

/// The key that begins there. None at the end, and where the bytes are no state.
fn entry_at(bytes: &[u8], at: usize) -> Option<Entry> {
    let len = |at: usize| {
        let len = bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_be_bytes)?;
        usize::try_from(len).ok()
    };
    let (key_len, value_len) = (len(at)?, len(at + 4)?);
    let key = at + 8..(at + 8).checked_add(key_len)?;
    let value = key.end..key.end.checked_add(value_len)?;
    (value.end <= bytes.len()).then_some(Entry { key, value })
}

/// Finds the keys. None if the bytes are no state.
pub(super) fn entries(bytes: &[u8]) -> Option<Vec<Entry>> {
    let mut at = 1;
    let mut entries = Vec::new();
    if *bytes.first()? != VERSION {
        return None;
    }
    while at < bytes.len() {
        let entry = entry_at(bytes, at)?;
        at = entry.value.end;
        entries.push(entry);
    }
    Some(entries)
}

/// So many keys are searched for from the front.
const FEW_SEARCHES: usize = 16;

/// Finds single keys of one state. An event touches few of them: for those it walks over the state. For more it sorts all keys once.
#[derive(Debug, Default)]
pub(super) struct Index {
    searches: usize,
    sorted: Option<Vec<Entry>>,
}

impl Index {
    /// A key of the state, which is always the same one.
    pub(super) fn find(&mut self, state: &[u8], key: &[u8]) -> Option<Entry> {
        if self.searches < FEW_SEARCHES {
            self.searches += 1;
            let entries = std::iter::successors(entry_at(state, 1), |entry| entry_at(state, entry.value.end));
            return entries.into_iter().find(|entry| state[entry.key.clone()] == *key);
        }
        let sorted = self.sorted.get_or_insert_with(|| {
            let mut entries = entries(state).unwrap_or_default();
            entries.sort_unstable_by(|one, other| state[one.key.clone()].cmp(&state[other.key.clone()]));
            entries
        });
        let at = sorted.binary_search_by(|entry| state[entry.key.clone()].cmp(key)).ok()?;
        sorted.get(at).cloned()
    }
}

/// The state with other values of some keys: those that it has keep their places, new ones follow. None if nothing differs.
pub(super) fn with_changes<'a>(
    before: &[u8],
    index: &mut Index,
    touched: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) -> Option<Vec<u8>> {
    let (mut there, mut new) = (Vec::new(), Vec::new());
    for (key, value) in touched {
        match index.find(before, key) {
            Some(entry) if before[entry.value.clone()] != *value => there.push((entry.whole(), key, value)),
            None if !value.is_empty() => new.push((key, value)),
            _ => {}
        }
    }
    if there.is_empty() && new.is_empty() {
        return None;
    }
    there.sort_unstable_by_key(|(place, ..)| place.start);
    let (mut after, mut copied) = (Vec::with_capacity(before.len() + 64), 0);
    for (place, key, value) in there {
        after.extend_from_slice(&before[copied..place.start]);
        if !value.is_empty() {
            push(&mut after, key, value);
        }
        copied = place.end;
    }
    after.extend_from_slice(&before[copied..]);
    new.into_iter().for_each(|(key, value)| push(&mut after, key, value));
    Some(after)
}

/// Checks bytes that may be anything.
///
/// # Errors
/// One line when they are no state.
pub(super) fn check(bytes: &[u8]) -> Result<(), String> {
    let entries = entries(bytes).ok_or("state: damaged, or of another version of lasthit")?;
    let mut keys = std::collections::BTreeSet::new();
    for Entry { key, value } in entries {
        let key = std::str::from_utf8(&bytes[key]).map_err(|_| "state: a key is not UTF-8")?;
        if !keys.insert(key) {
            return Err(format!("state: {key:?} is there twice"));
        }
        data::check(&bytes[value]).map_err(|why| format!("state: {key:?}: {why}"))?;
    }
    Ok(())
}

/// How many bytes two texts have in common at one side: `at` takes so many bytes there, `rest` leaves them out.
fn common<'a>(
    mut one: &'a [u8],
    mut other: &'a [u8],
    at: impl Fn(&'a [u8], usize) -> &'a [u8],
    rest: impl Fn(&'a [u8], usize) -> &'a [u8],
) -> usize {
    let mut len = 0;
    for step in [256, 16, 1] {
        while one.len().min(other.len()) >= step && at(one, step) == at(other, step) {
            (one, other) = (rest(one, step), rest(other, step));
            len += step;
        }
    }
    len
}

/// What turns a state back into the one before it: the part that differs.
#[derive(Debug)]
pub(super) struct Undo {
    /// How many bytes at the front and at the end are the same.
    front: usize,
    end: usize,
    /// What was between them.
    middle: Box<[u8]>,
}

impl Undo {
    pub(super) fn new(before: &[u8], after: &[u8]) -> Self {
        let front = common(before, after, |bytes, len| &bytes[..len], |bytes, len| &bytes[len..]);
        let (before, after) = (&before[front..], &after[front..]);
        let end = common(before, after, |bytes, len| &bytes[bytes.len() - len..], |bytes, len| &bytes[..bytes.len() - len]);
        Self { front, end, middle: before[..before.len() - end].into() }
    }

    /// How many bytes it keeps.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.middle.len()
    }

    /// The state before.
    pub(super) fn apply(&self, after: &[u8]) -> Vec<u8> {
        [&after[..self.front], &self.middle, &after[after.len() - self.end..]].concat()
    }
}

/// A state in words, shortened.
pub(super) fn shown(bytes: &[u8]) -> String {
    let keys = entries(bytes).unwrap_or_default().into_iter().map(|Entry { key, value }| {
        let key = String::from_utf8_lossy(&bytes[key]).into_owned();
        format!("{key}: {}", data::shown(&bytes[value]))
    });
    format!("{{{}}}", keys.collect::<Vec<_>>().join(", "))
}

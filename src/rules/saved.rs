//! How the built-in rules store their state: as one MessagePack value of unnamed arrays.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits::FIELD_BYTES_MAX;

/// Encodes a state.
pub(super) fn encode(state: &impl Serialize) -> Vec<u8> {
    // The built-in rules' states are strings, integers and arrays, which MessagePack always carries.
    rmp_serde::to_vec(state).unwrap_or_else(|e| panic!("rules: state does not serialize: {e}"))
}

/// Reads what [`encode`] wrote: a state of `version`, where `known` is read here.
pub(super) fn decode<T: DeserializeOwned>(version: u32, known: u32, bytes: &[u8]) -> Result<T, String> {
    if version != known {
        return Err(format!("state of version {version}: these rules read version {known}"));
    }
    let mut rest = bytes;
    let state = T::deserialize(&mut rmp_serde::Deserializer::new(&mut rest)).map_err(|e| format!("state: {e}"))?;
    match rest.len() {
        0 => Ok(state),
        trailing => Err(format!("state: {trailing} trailing bytes")),
    }
}

/// Reads a list of saved contests, sorted by name, at most `most`. `read` decodes each.
pub(super) fn by_name<S, T>(
    saved: Vec<(String, S)>,
    most: usize,
    read: impl Fn(&str, S) -> Result<T, String>,
) -> Result<BTreeMap<String, T>, String> {
    if saved.len() > most {
        return Err(format!("state: {} names instead of at most {most}", saved.len()));
    }
    let mut all = BTreeMap::<String, T>::new();
    for (name, saved) in saved {
        if !(1..=FIELD_BYTES_MAX).contains(&name.len()) {
            return Err(format!("state: a name of {} bytes instead of 1 to {FIELD_BYTES_MAX}", name.len()));
        }
        if all.last_key_value().is_some_and(|(last, _)| *last >= name) {
            return Err(format!("state: {name:?} is out of order"));
        }
        let read = read(&name, saved)?;
        all.insert(name, read);
    }
    Ok(all)
}

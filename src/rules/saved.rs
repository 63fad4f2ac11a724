//! How the built-in rules keep their state: one MessagePack value of unnamed arrays, and nothing behind it.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits::FIELD_BYTES_MAX;

/// The bytes of a state.
pub(super) fn encode(state: &impl Serialize) -> Vec<u8> {
    // The built-in rules' states are strings, integers and arrays, which MessagePack always carries.
    rmp_serde::to_vec(state).unwrap_or_else(|e| panic!("rules: state does not serialize: {e}"))
}

/// Reads what [`encode`] wrote.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let mut rest = bytes;
    let state = T::deserialize(&mut rmp_serde::Deserializer::new(&mut rest)).map_err(|e| format!("state: {e}"))?;
    match rest.len() {
        0 => Ok(state),
        trailing => Err(format!("state: {trailing} trailing bytes")),
    }
}

/// Checks the name of a contest that comes from stored bytes.
pub(super) fn name(name: &str) -> Result<(), String> {
    if (1..=FIELD_BYTES_MAX).contains(&name.len()) {
        Ok(())
    } else {
        Err(format!("state: a name of {} bytes instead of 1 to {FIELD_BYTES_MAX}", name.len()))
    }
}

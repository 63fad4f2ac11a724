//! Keys are found and replaced as a plain walk over all of them would.

use proptest::prelude::*;

use super::super::state::{Index, empty, entries, push, with_changes};

type Keys = Vec<(Vec<u8>, Vec<u8>)>;

fn bytes(keys: &Keys) -> Vec<u8> {
    let mut bytes = empty();
    keys.iter().for_each(|(key, value)| push(&mut bytes, key, value));
    bytes
}

/// Up to 40 keys, of which many are the beginning of another one, with values that may be anything but empty.
fn keys(least: usize) -> impl Strategy<Value = Keys> {
    let key = prop_oneof!["a{0,12}", "[ab]{0,4}", "claim:[0-9]{1,3}"];
    let keys = proptest::collection::vec((key, proptest::collection::vec(any::<u8>(), least..6)), 0..40);
    keys.prop_map(|keys| {
        let mut seen = std::collections::BTreeSet::new();
        let keys = keys.into_iter().filter(|(key, _)| seen.insert(key.clone()));
        keys.map(|(key, value)| (key.into_bytes(), value)).collect()
    })
}

proptest! {
    #[test]
    fn each_key_is_found(state in keys(1), other in keys(1)) {
        let (bytes, mut index) = (bytes(&state), Index::default());
        // More than are searched for one by one.
        for (key, _) in state.iter().chain(&other).chain(&state) {
            let value = index.find(&bytes, key).map(|entry| bytes[entry.value].to_vec());
            prop_assert_eq!(value.as_ref(), state.iter().find(|(there, _)| there == key).map(|(_, value)| value));
        }
    }

    #[test]
    fn what_was_touched_is_replaced_in_its_place(state in keys(1), touched in keys(0)) {
        let mut expected = state.clone();
        for (key, value) in &touched {
            match expected.iter_mut().find(|(there, _)| there == key) {
                Some((_, old)) => old.clone_from(value),
                None => expected.push((key.clone(), value.clone())),
            }
        }
        expected.retain(|(_, value)| !value.is_empty());
        let before = bytes(&state);
        let after = with_changes(&before, &mut Index::default(), touched.iter().map(|(key, value)| (&key[..], &value[..])));
        prop_assert_eq!(after.is_none(), expected == state);
        let after = after.unwrap_or(before);
        prop_assert!(entries(&after).is_some());
        prop_assert_eq!(after, bytes(&expected));
    }

    #[test]
    fn bytes_that_are_no_state_have_no_keys_that_reach_beyond_them(state in keys(1), cut: prop::sample::Index, at: prop::sample::Index, byte: u8) {
        let mut bytes = bytes(&state);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(cut.index(bytes.len()) + 1);
        let mut index = Index::default();
        for (key, _) in &state {
            let found = index.find(&bytes, key);
            prop_assert!(found.is_none_or(|entry| entry.value.end <= bytes.len()));
        }
    }
}

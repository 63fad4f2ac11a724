//! What is read from bytes alone.

use std::path::Path;

use ::bytes::Bytes;
use lasthit::internals::config::{Config, Flags, ProcessRole};
use lasthit::internals::engine::Room;
use lasthit::internals::gateway::{Asking, Gatekeeper, JwtKey};
use lasthit::internals::limits::{MESSAGE_BYTES_MAX, TOKEN_BYTES_MAX};
use lasthit::internals::programs;
use lasthit::internals::replay::{Recording, dump};
use lasthit::internals::wire::{action, entry, push, verdicts};
use lasthit::journal::StoredSnapshot;
use lasthit::rules::{Claim, LastHit, Rules};
use lasthit::types::{Audience, RoomId, StreamId};
use lasthit::wire::client::{Encoding, parse_action};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::{bounded, valid};

/// Memory that a value may take per byte that it was read from: an event of a few bytes is a struct of some hundred.
const TIMES: usize = 256;
/// And beside that: error texts, tables, buffers.
const FIXED: usize = 64 * 1024;
/// The same where serde sizes a list by what is announced: it believes up to a MiB of it, per list that is open.
const FIXED_BY_SERDE: usize = 3 * 1024 * 1024;

/// What can happen to good bytes.
#[derive(Debug, Clone)]
enum Spoil {
    Flip(Index, u8),
    Cut(Index),
    Remove(Index, usize),
    Repeat(Index, usize),
    Insert(Index, Vec<u8>),
    Overwrite(Index, Vec<u8>),
}

/// Lengths and numbers at the edge, as MessagePack writes them.
fn edges() -> impl Strategy<Value = Vec<u8>> {
    let long = |marker| vec![marker, 0xff, 0xff, 0xff, 0xff];
    let deep = vec![0x91; 200];
    let number = |byte| [vec![0xcf], vec![byte; 8]].concat();
    select(vec![
        long(0xdd),
        long(0xdf),
        long(0xdb),
        long(0xc6),
        vec![0xdc, 0xff, 0xff],
        vec![0xde, 0x7f, 0xff],
        vec![0xda, 0xff, 0xff],
        number(0xff),
        number(0x7f),
        vec![0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0],
        vec![0xc0],
        vec![0xc1],
        deep,
        vec![b'['; 300],
        b"1e999".to_vec(),
        b"\"\\ud800\"".to_vec(),
        vec![0xff; 4],
    ])
}

fn spoil() -> impl Strategy<Value = Spoil> {
    let any = any::<Index>;
    prop_oneof![
        (any(), 0..8_u8).prop_map(|(at, bit)| Spoil::Flip(at, 1 << bit)),
        any().prop_map(Spoil::Cut),
        (any(), 1..40_usize).prop_map(|(at, len)| Spoil::Remove(at, len)),
        (any(), 1..40_usize).prop_map(|(at, len)| Spoil::Repeat(at, len)),
        (any(), prop_oneof![edges(), vec(0_u8.., 0..20)]).prop_map(|(at, new)| Spoil::Insert(at, new)),
        (any(), edges()).prop_map(|(at, new)| Spoil::Overwrite(at, new)),
    ]
}

fn spoiled(mut bytes: Vec<u8>, by: &[Spoil]) -> Vec<u8> {
    for spoil in by {
        if bytes.is_empty() {
            return bytes;
        }
        let range = |at: &Index, len: usize| at.index(bytes.len())..(at.index(bytes.len()) + len).min(bytes.len());
        match spoil {
            Spoil::Flip(at, bits) => {
                let at = at.index(bytes.len());
                bytes[at] ^= bits;
            }
            Spoil::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Spoil::Remove(at, len) => drop(bytes.drain(range(at, *len))),
            Spoil::Repeat(at, len) => {
                let part = bytes[range(at, *len)].to_vec();
                let at = at.index(bytes.len());
                bytes.splice(at..at, part);
            }
            Spoil::Insert(at, new) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, new.iter().copied());
            }
            Spoil::Overwrite(at, new) => drop(bytes.splice(range(at, new.len()), new.iter().copied())),
        }
    }
    bytes
}

/// Anything, mostly almost right.
fn hostile() -> impl Strategy<Value = (&'static str, Bytes)> {
    let arbitrary = (select(valid::all()), vec(0_u8.., 0..300)).prop_map(|((what, _), bytes)| (what, bytes.into()));
    let almost =
        (select(valid::all()), vec(spoil(), 0..4)).prop_map(|((what, good), by)| (what, spoiled(good.to_vec(), &by).into()));
    prop_oneof![1 => arbitrary, 9 => almost]
}

/// Reads it as everything that it could be taken for; what is read is used as it would be.
fn read(bytes: &Bytes) {
    if let Ok(entry) = entry::decode(bytes) {
        let _ = entry.top();
        for last_hit in [true, false] {
            let (room, _) = valid::resolved(&valid::held(std::slice::from_ref(&entry)), last_hit);
            Room::restore(&room.snapshot(), valid::rules(last_hit)).expect("what a room wrote, it reads");
        }
    }
    if let Ok(batch) = verdicts::decode(bytes) {
        assert_eq!(verdicts::decode(&verdicts::encode(&batch)).as_ref(), Ok(&batch));
    }
    let _ = push::decode(bytes);
    let _ = action::decode(bytes);
}

/// Takes it for a room's state, or its rules', and goes on from there.
fn restore(bytes: &Bytes) {
    for last_hit in [true, false] {
        if let Ok(mut room) = Room::restore(bytes, valid::rules(last_hit)) {
            for held in valid::held(&valid::entries()) {
                room.resolve(&held, None);
            }
            let _ = room.snapshot();
        }
    }
    let _ = LastHit::new().restore(1, bytes);
    let _ = Claim::new(Audience::Room).restore(1, bytes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn what_the_journal_holds((_, bytes) in hostile()) {
        bounded(bytes.len(), TIMES, FIXED, || read(&bytes));
        bounded(bytes.len(), TIMES, FIXED_BY_SERDE, || restore(&bytes));
    }

    #[test]
    fn what_clients_send((_, bytes) in hostile()) {
        let message = &bytes[..bytes.len().min(MESSAGE_BYTES_MAX)];
        for encoding in [Encoding::Json, Encoding::Msgpack] {
            bounded(message.len(), TIMES, FIXED, || {
                if let Ok(said) = parse_action(encoding, message) {
                    assert_eq!(action::decode(&action::encode(&said)).expect("its own bytes"), said);
                }
            });
        }
    }

    /// In JSON and in MessagePack, cut and spoiled: an error or a message, whatever comes.
    #[test]
    fn what_programs_answer(by in vec(spoil(), 0..4), arbitrary in vec(0_u8.., 0..300)) {
        let decision = serde_json::json!({"outcome": "won", "contest": "flag", "next_round": true, "to": ["ann"], "body": {"a": [1.5, null]},
            "timers": [{"name": "t", "after": 20, "data": {"x": "y"}}, {"name": "u", "cron": "0 20 * * FRI", "offset": "+09:00"}], "state": {"n": 1}});
        let failed = serde_json::json!({"outcome": "failed", "error": "e", "stack": ["a", "b"]});
        let answers = [
            serde_json::json!({"type": "resolved", "id": 7, "decisions": [decision, failed]}),
            serde_json::json!({"type": "hello", "protocol": 1, "name": "flag", "version": 1}),
            serde_json::json!({"type": "log", "text": "a\u{1b}[2Jb"}),
        ];
        for answer in answers {
            for good in [answer.to_string().into_bytes(), rmp_serde::to_vec_named(&answer).expect("memory")] {
                programs::check(&good, 2).expect("it is good");
                for body in [spoiled(good, &by), arbitrary.clone()] {
                    bounded(body.len(), TIMES, FIXED_BY_SERDE, || match programs::check(&body, 2) {
                        Ok(said) => assert!(!said.is_empty()),
                        Err(why) => assert!(!why.is_empty()),
                    });
                }
            }
        }
    }

    #[test]
    fn tokens(by in vec(spoil(), 0..4), claims in "\\PC{0,60}", arbitrary in vec(0_u8.., 0..80)) {
        let key = [b'k'; 32];
        let keeper = Gatekeeper::new(Some(&JwtKey::new(&key).expect("a key")), Vec::new(), false);
        let claims = serde_json::json!({"sub": "ann", "exp": 99_999, "rooms": ["pit*"], "role": "player", "x": claims});
        let signed = servers::token(&key, &serde_json::json!({"alg": "HS256", "typ": "JWT"}), &claims);
        let room = RoomId::new("pit").expect("name");
        for token in [spoiled(signed.into_bytes(), &by), arbitrary] {
            let text = String::from_utf8_lossy(&token[..token.len().min(TOKEN_BYTES_MAX)]);
            let asking = Asking { room: &room, player: Some(&text), role: None, token: Some(&text), origin: Some(&text), host: Some(&text) };
            bounded(text.len(), TIMES, FIXED, || keeper.admit(&asking, 1_000));
            let asking = Asking { player: None, origin: None, ..asking };
            bounded(text.len(), TIMES, FIXED, || keeper.admit(&asking, 1_000));
        }
    }

    #[test]
    fn dumps(by in vec(spoil(), 0..4)) {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("room.dump");
        let snapshot = StoredSnapshot { seq: 5, cursor: StreamId { ms: 7, seq: 1 }, bytes: Bytes::from_static(b"state") };
        let entries = valid::entries().iter().map(|e| (StreamId { ms: 8, seq: 0 }, entry::encode(e))).collect();
        let verdicts = vec![verdicts::encode(&valid::batch())];
        let room = RoomId::new("pit").expect("name");
        dump::write(&Recording { room, era: 1, seq: 9, seed: Some(lasthit::types::Seed(7)), snapshot: Some(snapshot), verdicts, entries, programs: std::collections::BTreeMap::new() }, &path).expect("written");
        // Behind the checksum: whoever makes a dump by hand makes that as well.
        let whole = std::fs::read(&path).expect("read");
        let (head, body) = (&whole[..13], spoiled(whole[17..].to_vec(), &by));
        let sum = crc32fast::hash(&body).to_be_bytes();
        std::fs::write(&path, [head, &sum, &body].concat()).expect("written");
        bounded(whole.len(), TIMES, FIXED_BY_SERDE, || dump::read(&path));
        std::fs::write(&path, spoiled(whole.clone(), &by)).expect("written");
        bounded(whole.len(), TIMES, FIXED_BY_SERDE, || dump::read(&path));
    }

    #[test]
    fn configuration_files(by in vec(spoil(), 0..4), arbitrary in "\\PC{0,200}") {
        let good = "shards = 3\nretention = \"5m\"\nallowed_origins = \"https://a.example\"\n[[rooms]]\nmatch = \"pit*\"\nrules = \"claim\"\n";
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("lasthit.toml");
        for text in [spoiled(good.as_bytes().to_vec(), &by), arbitrary.into_bytes()] {
            std::fs::write(&path, &text).expect("written");
            bounded(text.len(), TIMES, FIXED, || load(&path));
        }
    }
}

fn load(path: &Path) {
    let flags = Flags::default().with("config", path.to_str().expect("a path"));
    if let Err(error) = Config::load(ProcessRole::Serve, flags, &|_| None) {
        assert!(!error.to_string().is_empty());
    }
}

//! An entry of a room's stream: one gateway's events of one flush in one room.

use bytes::Bytes;

use super::codec::{DecodeError, Reader, Writer};
use crate::limits::REASON_BYTES_MAX;
use crate::types::{Arrival, Entry, Event, EventKind, Flags, Role};

/// Version 3, packed: `3, incarnation, timeline * 2 + death, count, event...`, where an event is
/// `head, session, ordinal, ns, uncertainty, flags, raw, fields of its kind`. Ordinal and ns are differences from the event
/// before. Flags and raw are there only if the head says so.
///
/// Version 2 is read too. Its heads are bytes with three bits for the kind.
pub(crate) const VERSION: u8 = 3;
/// The oldest version that is read.
const VERSION_MIN: u8 = 2;

/// Bits of an event's head, a packed number: its kind, and the fields that are there. Further bits are free for versions to come.
const KIND: u64 = 15;
const FLAGS: u64 = 16;
const RAW: u64 = 32;
const HEAD_BITS: u32 = 6;
/// The fewest bytes of an event.
const EVENT_BYTES_MIN: usize = 5;

/// Encodes an entry.
#[must_use]
pub fn encode(entry: &Entry) -> Bytes {
    write(VERSION, entry, |w, head| _ = w.varint(head))
}

fn write(version: u8, entry: &Entry, write_head: impl Fn(&mut Writer, u64)) -> Bytes {
    let payload: usize = entry.events.iter().map(|e| if let EventKind::Data(b) = &e.kind { b.len() + 12 } else { 40 }).sum();
    let mut w = Writer::with_capacity(payload + 40);
    w.byte(version).tail(&entry.incarnation.0.to_be_bytes());
    w.varint(u64::from(entry.timeline) << 1 | u64::from(entry.death)).varint(entry.events.len() as u64);
    let (mut ordinal, mut ns) = (0, 0);
    for event in &entry.events {
        let Arrival { flags, raw_ns, uncertainty_ns, .. } = event.arrival;
        let kind = match event.kind {
            EventKind::Open { .. } => 0,
            EventKind::Data(_) => 1,
            EventKind::End { .. } => 2,
            EventKind::Error { .. } => 3,
            EventKind::Close => 4,
        };
        write_head(&mut w, kind | if flags.0 == 0 { 0 } else { FLAGS } | if raw_ns.is_none() { 0 } else { RAW });
        w.varint(event.session).varint(event.ordinal - ordinal).varint(event.arrival.ns - ns).varint(uncertainty_ns);
        (ordinal, ns) = (event.ordinal, event.arrival.ns);
        if flags.0 != 0 {
            w.byte(flags.0);
        }
        if let Some(raw) = raw_ns {
            w.varint(raw);
        }
        match &event.kind {
            EventKind::Open { player, role } => w.sized(player.as_str().as_bytes()).byte(u8::from(*role == Role::Server)),
            EventKind::Data(action) => w.sized(action),
            EventKind::End { code } => w.varint((*code).into()),
            EventKind::Error { reason } => w.sized(reason.as_bytes()),
            EventKind::Close => &mut w,
        };
    }
    w.finish()
}

/// The head of version 2 in the bits of this one: it had three bits for the kind, then those of the fields.
fn head_of_earlier(head: u8) -> u64 {
    let head = u64::from(head);
    head & 7 | head >> 3 << 4
}

/// Writes as version 2 did.
#[cfg(test)]
pub(crate) fn encode_earlier(entry: &Entry) -> Bytes {
    write(2, entry, |w, head| _ = w.byte(u8::try_from(head & 7 | head >> 4 << 3).expect("five bits")))
}

/// Reads what [`encode`] and its earlier version wrote. Checks that there is at least one event, and that ordinals and stamps rise.
pub fn decode(bytes: &Bytes) -> Result<Entry, DecodeError> {
    let (mut r, version) = Reader::packed_of("journal entry", bytes, VERSION_MIN..=VERSION)?;
    let incarnation = r.identity()?;
    let timeline = r.varint()?;
    let death = timeline & 1 == 1;
    let timeline = u32::try_from(timeline >> 1).map_err(|_| r.damaged(format!("timeline {}", timeline >> 1)))?;
    let len = r.count(EVENT_BYTES_MIN)?;
    if len == 0 {
        return Err(r.damaged("no events"));
    }
    let mut events: Vec<Event> = Vec::with_capacity(len);
    for _ in 0..len {
        let before = events.last().map_or((0, 0), |last| (last.ordinal, last.arrival.ns));
        let event = decode_event(&mut r, version, bytes, before)?;
        if !events.is_empty() && event.ordinal == before.0 {
            return Err(r.damaged("two events have one ordinal"));
        }
        events.push(event);
    }
    r.end()?;
    Ok(Entry { incarnation, timeline, death, events })
}

fn decode_event(r: &mut Reader<'_>, version: u8, bytes: &Bytes, (ordinal, ns): (u64, u64)) -> Result<Event, DecodeError> {
    let head = if version < VERSION { head_of_earlier(r.byte()?) } else { r.varint()? };
    if head >> HEAD_BITS != 0 {
        return Err(r.damaged(format!("unknown fields in the event head {head:#x}")));
    }
    let session = r.varint()?;
    let ordinal = ordinal.checked_add(r.varint()?).ok_or_else(|| r.damaged("ordinal overflows"))?;
    let ns = ns.checked_add(r.varint()?).ok_or_else(|| r.damaged("arrival overflows"))?;
    let uncertainty_ns = r.varint()?;
    let flags = Flags(if head & FLAGS == 0 { 0 } else { r.byte()? });
    let raw_ns = if head & RAW == 0 { None } else { Some(r.varint()?) };
    let kind = match head & KIND {
        0 => EventKind::Open { player: r.sized_player()?, role: if r.byte()? == 1 { Role::Server } else { Role::Player } },
        1 => EventKind::Data(bytes.slice_ref(r.sized()?)),
        2 => EventKind::End { code: r.narrow()? },
        3 => {
            let reason = r.sized_text()?;
            if reason.len() > REASON_BYTES_MAX {
                return Err(r.damaged(format!("reason of {} bytes", reason.len())));
            }
            EventKind::Error { reason: reason.to_owned() }
        }
        4 => EventKind::Close,
        kind => return Err(r.damaged(format!("event kind {kind}"))),
    };
    Ok(Event { session, ordinal, arrival: Arrival { ns, uncertainty_ns, flags, raw_ns }, kind })
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::{Incarnation, PlayerId};

    fn kind() -> impl Strategy<Value = EventKind> {
        prop_oneof![
            ("[a-z]{1,8}", any::<bool>()).prop_map(|(name, server)| EventKind::Open {
                player: PlayerId::new(&name).expect("name"),
                role: if server { Role::Server } else { Role::Player },
            }),
            proptest::collection::vec(any::<u8>(), 0..100).prop_map(|b| EventKind::Data(b.into())),
            any::<u16>().prop_map(|code| EventKind::End { code }),
            "[ -~]{0,50}".prop_map(|reason| EventKind::Error { reason }),
            Just(EventKind::Close),
        ]
    }

    prop_compose! {
        pub(crate) fn entry()(
            incarnation: u128, timeline: u32, death: bool, base in 0..u64::MAX / 2,
            parts in proptest::collection::vec((any::<u64>(), 1..1000u64, 0..1000u64, any::<u32>(), any::<u8>(), any::<Option<u64>>(), kind()), 1..20),
        ) -> Entry {
            let (mut ordinal, mut ns) = (base, base);
            let events = parts.into_iter().map(|(session, o, n, uncertainty, flags, raw_ns, kind)| {
                ordinal += o;
                ns += n;
                Event { session, ordinal, arrival: Arrival { ns, uncertainty_ns: uncertainty.into(), flags: Flags(flags), raw_ns }, kind }
            }).collect();
            Entry { incarnation: Incarnation(incarnation), timeline, death, events }
        }
    }

    proptest! {
        #[test]
        fn entries_survive_the_wire(entry in entry()) {
            prop_assert_eq!(decode(&encode(&entry)), Ok(entry));
        }

        #[test]
        fn entries_of_the_version_before_are_read(entry in entry()) {
            let earlier = encode_earlier(&entry);
            prop_assert_eq!(earlier.len(), encode(&entry).len());
            prop_assert_eq!(decode(&earlier), Ok(entry));
        }

        #[test]
        fn unknown_fields_are_named(entry in entry(), bit in HEAD_BITS..64) {
            let unknown = write(VERSION, &entry, |w, head| _ = w.varint(head | 1 << bit));
            let error = decode(&unknown).expect_err("a field of a version to come").to_string();
            prop_assert!(error.contains("unknown fields in the event head 0x"), "{}", error);
        }

        #[test]
        fn damaged_bytes_are_an_error_or_an_entry(entry in entry(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
            for good in [encode(&entry), encode_earlier(&entry)] {
                prop_assert!(decode(&good.slice(..cut.index(good.len()))).is_err(), "what was cut off is noticed");
                let mut bytes = good.to_vec();
                let index = at.index(bytes.len());
                bytes[index] = byte;
                let _ = decode(&bytes.into());
            }
        }

        #[test]
        fn arbitrary_bytes_are_an_error_or_an_entry(bytes: Vec<u8>) {
            let _ = decode(&bytes.into());
        }
    }

    #[test]
    fn another_version_is_named() {
        let error = decode(&Bytes::from_static(&[9, 0])).expect_err("version 9");
        assert_eq!(error, DecodeError::Version { what: "journal entry", found: 9, known: 3 });
    }
}

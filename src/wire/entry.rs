//! A room stream's entry: one gateway's events of one flush in one room.

use bytes::Bytes;

use super::codec::{DecodeError, Reader, Writer};
use crate::limits::REASON_BYTES_MAX;
use crate::types::{Arrival, Entry, Event, EventKind, Flags, Role};

/// Version 1: `[1, incarnation, timeline, death, ordinal, ns, [event...]]`, where an event is
/// `[session, ordinal - base, ns - base, uncertainty, flags, raw | nil, kind, payload...]`.
pub const VERSION: u64 = 1;

/// Encodes an entry.
#[must_use]
pub fn encode(entry: &Entry) -> Bytes {
    let payload: usize = entry.events.iter().map(|e| if let EventKind::Data(b) = &e.kind { b.len() + 24 } else { 40 }).sum();
    let mut w = Writer::with_capacity(payload + 48);
    let (ordinal, ns) = entry.events.first().map_or((0, 0), |e| (e.ordinal, e.arrival.ns));
    w.array(7).uint(VERSION).incarnation(entry.incarnation).uint(entry.timeline.into()).uint(entry.death.into());
    w.uint(ordinal).uint(ns).array(entry.events.len());
    for event in &entry.events {
        let fields = match &event.kind {
            EventKind::Open { .. } => 9,
            EventKind::Data(_) | EventKind::End { .. } | EventKind::Error { .. } => 8,
            EventKind::Close => 7,
        };
        w.array(fields).uint(event.session).uint(event.ordinal - ordinal).uint(event.arrival.ns - ns);
        w.uint(event.arrival.uncertainty_ns).uint(event.arrival.flags.0.into()).uint_or_nil(event.arrival.raw_ns);
        match &event.kind {
            EventKind::Open { player, role } => w.uint(0).text(player.as_str()).uint(u64::from(*role == Role::Server)),
            EventKind::Data(action) => w.uint(1).bytes(action),
            EventKind::End { code } => w.uint(2).uint((*code).into()),
            EventKind::Error { reason } => w.uint(3).text(reason),
            EventKind::Close => w.uint(4),
        };
    }
    w.finish()
}

/// Reads what [`encode`] wrote, and checks what makes it an entry: at least one event, rising ordinals and stamps.
///
/// # Errors
/// [`DecodeError::Version`] for another version's entry, [`DecodeError::Damaged`] for anything else.
pub fn decode(bytes: &Bytes) -> Result<Entry, DecodeError> {
    let mut r = Reader::versioned("journal entry", bytes, VERSION, 6)?;
    let (incarnation, timeline) = (r.incarnation()?, r.small()?);
    let death = r.uint()? == 1;
    let (base_ordinal, base_ns) = (r.uint()?, r.uint()?);
    let len = r.array()?;
    if len == 0 {
        return Err(r.damaged("no events"));
    }
    let mut events: Vec<Event> = Vec::with_capacity(len.min(1024));
    for _ in 0..len {
        let event = decode_event(&mut r, bytes, base_ordinal, base_ns)?;
        if let Some(last) = events.last()
            && (last.ordinal >= event.ordinal || last.arrival.ns > event.arrival.ns)
        {
            return Err(r.damaged("events are out of order"));
        }
        events.push(event);
    }
    r.end()?;
    Ok(Entry { incarnation, timeline, death, events })
}

fn decode_event(r: &mut Reader<'_>, bytes: &Bytes, base_ordinal: u64, base_ns: u64) -> Result<Event, DecodeError> {
    let fields = r.array()?;
    let session = r.uint()?;
    let (ordinal, ns) = (r.uint()?, r.uint()?);
    let ordinal = base_ordinal.checked_add(ordinal).ok_or_else(|| r.damaged("ordinal overflows"))?;
    let ns = base_ns.checked_add(ns).ok_or_else(|| r.damaged("arrival overflows"))?;
    let arrival = Arrival { ns, uncertainty_ns: r.uint()?, flags: Flags(r.small()?), raw_ns: r.or_nil(Reader::uint)? };
    let kind = match (r.uint()?, fields) {
        (0, 9) => EventKind::Open { player: r.player()?, role: if r.uint()? == 1 { Role::Server } else { Role::Player } },
        (1, 8) => EventKind::Data(bytes.slice_ref(r.raw()?)),
        (2, 8) => EventKind::End { code: r.small()? },
        (3, 8) => {
            let reason = r.text()?;
            if reason.len() > REASON_BYTES_MAX {
                return Err(r.damaged(format!("reason of {} bytes", reason.len())));
            }
            EventKind::Error { reason: reason.to_owned() }
        }
        (4, 7) => EventKind::Close,
        (kind, fields) => return Err(r.damaged(format!("event kind {kind} with {fields} fields"))),
    };
    Ok(Event { session, ordinal, arrival, kind })
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
        fn damaged_bytes_are_an_error_or_an_entry(entry in entry(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
            let mut bytes = encode(&entry).to_vec();
            let index = at.index(bytes.len());
            bytes[index] = byte;
            let _ = decode(&bytes.clone().into());
            bytes.truncate(cut.index(bytes.len()));
            prop_assert!(decode(&bytes.into()).is_err());
        }

        #[test]
        fn arbitrary_bytes_are_an_error_or_an_entry(bytes: Vec<u8>) {
            let _ = decode(&bytes.into());
        }
    }

    #[test]
    fn another_version_is_named() {
        let error = decode(&Bytes::from_static(&[0x92, 9, 0])).expect_err("version 9");
        assert_eq!(error, DecodeError::Version { what: "journal entry", found: 9, known: 1 });
    }
}

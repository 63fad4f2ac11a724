//! An entry of a room's stream: one gateway's events of one flush in one room.

use bytes::Bytes;

use super::codec::{DecodeError, Reader, Writer};
use crate::limits::REASON_BYTES_MAX;
use crate::types::{Arrival, Entry, Event, EventKind, Flags, Role};

/// Version 2, packed: `2, incarnation, timeline * 2 + death, count, event...`, where an event is
/// `head, session, ordinal, ns, uncertainty, flags, raw, fields of its kind`. Ordinal and ns are differences from the event
/// before. Flags and raw are there only if the head says so.
pub(crate) const VERSION: u8 = 2;

/// Bits of an event's head: its kind, and the fields that are there.
const KIND: u8 = 7;
const FLAGS: u8 = 8;
const RAW: u8 = 16;
/// The fewest bytes of an event.
const EVENT_BYTES_MIN: usize = 5;

/// Encodes an entry.
#[must_use]
pub fn encode(entry: &Entry) -> Bytes {
    let payload: usize = entry.events.iter().map(|e| if let EventKind::Data(b) = &e.kind { b.len() + 12 } else { 40 }).sum();
    let mut w = Writer::with_capacity(payload + 40);
    w.byte(VERSION).tail(&entry.incarnation.0.to_be_bytes());
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
        w.byte(kind | if flags.0 == 0 { 0 } else { FLAGS } | if raw_ns.is_none() { 0 } else { RAW });
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

/// Reads what [`encode`] wrote. Checks that there is at least one event, and that ordinals and stamps rise.
pub fn decode(bytes: &Bytes) -> Result<Entry, DecodeError> {
    let mut r = Reader::packed("journal entry", bytes, VERSION)?;
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
        let event = decode_event(&mut r, bytes, before)?;
        if !events.is_empty() && event.ordinal == before.0 {
            return Err(r.damaged("two events have one ordinal"));
        }
        events.push(event);
    }
    r.end()?;
    Ok(Entry { incarnation, timeline, death, events })
}

fn decode_event(r: &mut Reader<'_>, bytes: &Bytes, (ordinal, ns): (u64, u64)) -> Result<Event, DecodeError> {
    let head = r.byte()?;
    if head & !(KIND | FLAGS | RAW) != 0 {
        return Err(r.damaged(format!("event head {head}")));
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
        fn damaged_bytes_are_an_error_or_an_entry(entry in entry(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
            let good = encode(&entry);
            prop_assert!(decode(&good.slice(..cut.index(good.len()))).is_err(), "what was cut off is noticed");
            let mut bytes = good.to_vec();
            let index = at.index(bytes.len());
            bytes[index] = byte;
            let _ = decode(&bytes.into());
        }

        #[test]
        fn arbitrary_bytes_are_an_error_or_an_entry(bytes: Vec<u8>) {
            let _ = decode(&bytes.into());
        }
    }

    #[test]
    fn another_version_is_named() {
        let error = decode(&Bytes::from_static(&[9, 0])).expect_err("version 9");
        assert_eq!(error, DecodeError::Version { what: "journal entry", found: 9, known: 2 });
    }
}

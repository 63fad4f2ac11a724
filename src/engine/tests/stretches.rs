//! Rule R7 over several clocks: what a dead gateway may have beaten is told by its own clock, or not at all.

use bytes::Bytes;
use proptest::prelude::*;

use super::incarnation;
use crate::engine::{Resequencer, Room};
use crate::rules::Claim;
use crate::types::{Arrival, Audience, Entry, Event, EventKind, Flags, Incarnation, Moment, PlayerId, Role, StreamId};

/// The timelines of two hosts, or of two boots of one.
const FIRST: u32 = 3;
const SECOND: u32 = 4;

struct Scene {
    hold: Resequencer,
    read: u64,
    ordinals: [u64; 3],
}

impl Scene {
    /// Two gateways of the first host, with a session each.
    fn new() -> Self {
        let mut scene = Self { hold: Resequencer::default(), read: 0, ordinals: [0; 3] };
        scene.open(0, Moment { timeline: FIRST, ns: 10 });
        scene.open(1, Moment { timeline: FIRST, ns: 11 });
        scene
    }

    fn open(&mut self, gateway: usize, moment: Moment) {
        self.happen(gateway, moment, EventKind::Open { player: PlayerId::new("ann").expect("a name"), role: Role::Player });
    }

    fn act(&mut self, gateway: usize, timeline: u32, ns: u64) {
        self.happen(gateway, Moment { timeline, ns }, EventKind::Data(Bytes::new()));
    }

    fn happen(&mut self, gateway: usize, moment: Moment, kind: EventKind) {
        self.ordinals[gateway] += 1;
        let event = Event { session: 1, ordinal: self.ordinals[gateway], arrival: Arrival::at(moment.ns, 0), kind };
        let entry = Entry { incarnation: incarnation(gateway), timeline: moment.timeline, death: false, events: vec![event] };
        self.read(&entry, Moment::default());
    }

    fn read(&mut self, entry: &Entry, last_watermark: Moment) {
        self.read += 1;
        self.hold.read(StreamId { ms: 1, seq: self.read }, entry, last_watermark, 0);
    }

    /// The first gateway is dead. Whoever finds out writes that at `now`.
    fn die(&mut self, watermark_ns: u64, now: Moment) -> Entry {
        let death = self.hold.death_entry(incarnation(0), now).expect("a session");
        self.read(&death, Moment { timeline: FIRST, ns: watermark_ns });
        death
    }

    /// The stamps that are flagged `unproven`, of what arrives from the second gateway or a third, once all is proven.
    fn unproven(&mut self) -> Vec<Moment> {
        let released = self.hold.release(usize::MAX, |_: Incarnation| Moment { timeline: u32::MAX, ns: u64::MAX });
        let flagged = released.iter().filter(|held| held.arrival.flags.has(Flags::UNPROVEN));
        flagged.map(|held| held.stamp.moment).collect()
    }
}

proptest! {
    /// The gateway may have taken along anything above its last watermark of 100. Another clock, whatever it shows, ends that stretch
    /// neither within the gateway's timeline nor behind it.
    #[test]
    fn a_stretch_ends_with_its_clock(now_ns in prop_oneof![0..1_000u64, any::<u64>()], late_ns in 101..1_000u64, next_ns in prop_oneof![0..1_000u64, any::<u64>()]) {
        let mut scene = Scene::new();
        scene.act(1, FIRST, 90);
        scene.act(1, FIRST, late_ns);
        scene.die(100, Moment { timeline: SECOND, ns: now_ns });
        // Read later, of the same time; then of the next host.
        scene.act(1, FIRST, late_ns + 5);
        scene.open(2, Moment { timeline: SECOND, ns: next_ns });
        let at = |ns| Moment { timeline: FIRST, ns };
        prop_assert_eq!(scene.unproven(), [at(late_ns), at(late_ns + 5)]);
    }

    /// On its own clock the stretch ends with the death.
    #[test]
    fn on_one_clock_a_stretch_ends_with_the_death(died_ns in 200..500u64, late_ns in 101..1_000u64) {
        let mut scene = Scene::new();
        scene.act(1, FIRST, late_ns);
        scene.die(100, Moment { timeline: FIRST, ns: died_ns });
        prop_assert_eq!(!scene.unproven().is_empty(), late_ns <= died_ns);
    }
}

/// What no clock tells is in no verdict.
#[test]
fn a_death_that_no_clock_tells_has_no_moment() {
    for (timeline, raw_ns) in [(FIRST, Some(500)), (SECOND, None)] {
        let mut scene = Scene::new();
        let death = scene.die(100, Moment { timeline, ns: 500 });
        let mut room = Room::with_seed(1, 42, Box::new(Claim::new(Audience::Room)));
        let released = scene.hold.release(usize::MAX, |_: Incarnation| Moment { timeline: u32::MAX, ns: u64::MAX });
        let told: Vec<_> = released.iter().map(|held| (held.stamp.ordinal, room.resolve(held, None).raw_ns)).collect();
        let of_death = death.events.iter().map(|event| (event.ordinal, raw_ns));
        for closed in of_death {
            assert!(told.contains(&closed), "{closed:?} of {told:?}");
        }
    }
}

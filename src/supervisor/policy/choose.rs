//! Which gateway gets the next connection.

use crate::supervisor::policy::names::Slot;

/// A ready gateway, as the door sees it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Candidate {
    /// Its name.
    pub(crate) slot: Slot,
    /// Connections that were passed to it and are not gone.
    pub(crate) sessions: u64,
    /// Actions in a second.
    pub(crate) actions_per_s: f64,
    /// How many more sessions it takes.
    pub(crate) free_sessions: u64,
    /// How many more handshakes it takes.
    pub(crate) free_handshakes: u64,
}

impl Candidate {
    /// How many connections it takes now.
    pub(crate) fn credit(&self) -> u64 {
        self.free_sessions.min(self.free_handshakes)
    }
}

/// The one with the fewest sessions out of those that have credit; of several the one with the fewest actions, then the first by
/// name. None: accept nothing, the kernel's queue holds what comes.
pub(crate) fn choose(gateways: &[Candidate]) -> Option<usize> {
    let open = gateways.iter().enumerate().filter(|(_, gateway)| gateway.credit() > 0);
    let fewest = open.min_by(|(_, a), (_, b)| {
        a.sessions.cmp(&b.sessions).then(a.actions_per_s.total_cmp(&b.actions_per_s)).then_with(|| a.slot.cmp(&b.slot))
    });
    fewest.map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::policy::names::{Group, Role};
    use proptest::prelude::*;

    fn gateway(number: usize, sessions: u64, actions_per_s: f64) -> Candidate {
        let slot = Group::new("", Role::Gateway).slot(number);
        Candidate { slot, sessions, actions_per_s, free_sessions: 9, free_handshakes: 9 }
    }

    #[test]
    fn ties_go_by_actions_then_by_name() {
        assert_eq!(choose(&[]), None);
        assert_eq!(choose(&[gateway(1, 3, 0.0), gateway(2, 2, 9.0)]), Some(1));
        assert_eq!(choose(&[gateway(1, 2, 3.0), gateway(2, 2, 2.5)]), Some(1));
        assert_eq!(choose(&[gateway(10, 2, 2.0), gateway(9, 2, 2.0)]), Some(1), "9 before 10");
    }

    proptest! {
        #[test]
        fn whoever_is_chosen_has_credit_and_nobody_with_credit_has_less(
            all in proptest::collection::vec((0..5_u64, 0..3_u64, 0..3_u64), 0..6)
        ) {
            let all: Vec<Candidate> = (1..).zip(all).map(|(number, (sessions, free_sessions, free_handshakes))| {
                Candidate { free_sessions, free_handshakes, ..gateway(number, sessions, 0.0) }
            }).collect();
            let open = |gateway: &&Candidate| gateway.free_sessions > 0 && gateway.free_handshakes > 0;
            let fewest = all.iter().filter(open).map(|gateway| gateway.sessions).min();
            prop_assert_eq!(choose(&all).map(|index| all[index].sessions), fewest);
            prop_assert!(choose(&all).is_none_or(|index| open(&&all[index])));
        }

        #[test]
        fn connections_spread_evenly(gateways in 1..9_usize, connections in 0..200_usize) {
            let mut all: Vec<Candidate> = (1..=gateways).map(|number| Candidate {
                free_sessions: 200, free_handshakes: 200, ..gateway(number, 0, 0.0)
            }).collect();
            for _ in 0..connections {
                let index = choose(&all).expect("credit");
                all[index].sessions += 1;
            }
            let (least, most) = all.iter().fold((u64::MAX, 0), |(least, most), g| (least.min(g.sessions), most.max(g.sessions)));
            prop_assert!(most - least <= 1, "{least} to {most}");
        }
    }
}

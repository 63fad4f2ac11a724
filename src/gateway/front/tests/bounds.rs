//! How many may come in.

use super::*;
use crate::gateway::Joining;
use crate::limits::SESSIONS_MAX;

#[tokio::test]
async fn a_gateway_takes_as_many_sessions_as_it_is_told_to() {
    for most in [2, SESSIONS_MAX + 1] {
        let hub = Hub::start(Arc::new(MemoryJournal::new(1)), Settle::Lock, most, "read", 0).await.unwrap();
        let join = |n: usize| {
            let (room, player) = (format!("pit-{}", n % 100).parse().unwrap(), format!("p{n}").parse().unwrap());
            hub.join(Joining::new(room, player))
        };
        for n in 0..most {
            join(n).unwrap_or_else(|refusal| panic!("{n} of {most}: {}", refusal.message));
        }
        let refusal = join(most).expect_err("one too many");
        assert!(refusal.message.contains(&most.to_string()), "{}", refusal.message);
    }
}

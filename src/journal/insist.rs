//! How everything that fails is tried again.

use std::time::Duration;

use super::JournalError;
use crate::limits::{RETRY_MAX, RETRY_MIN};

/// The pauses between tries: each is twice as long as the one before, up to a bound.
#[derive(Debug)]
pub(crate) struct Backoff {
    pause: Duration,
    max: Duration,
}

impl Backoff {
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self { pause: min, max }
    }

    fn next(&mut self) -> Duration {
        let longer = (self.pause * 2).min(self.max);
        std::mem::replace(&mut self.pause, longer)
    }

    /// Waits before the next try.
    pub(crate) async fn rest(&mut self) {
        tokio::time::sleep(self.next()).await;
    }
}

/// The pauses between tries of a step of the journal.
impl Default for Backoff {
    fn default() -> Self {
        Self::new(RETRY_MIN, RETRY_MAX)
    }
}

/// Repeats a step of the journal until its outcome is known (rule W5). `failed` gets each error, and may end the tries with an
/// error of its own.
pub(crate) async fn insist<T, E, F, G>(step: impl Fn() -> F, mut failed: impl FnMut(JournalError) -> G) -> Result<T, E>
where
    F: Future<Output = Result<T, JournalError>>,
    G: Future<Output = Result<(), E>>,
{
    let mut backoff = Backoff::default();
    loop {
        match step().await {
            Ok(value) => return Ok(value),
            Err(error) => failed(error).await?,
        }
        backoff.rest().await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn pauses_grow_up_to_a_bound() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..9).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 500, 500]);
    }

    #[tokio::test]
    async fn a_step_is_tried_until_it_succeeds() {
        let (tries, failures) = (Cell::new(0), Cell::new(0));
        let step = || {
            tries.set(tries.get() + 1);
            std::future::ready(if tries.get() == 3 { Ok("done") } else { Err(JournalError::Silent(String::new())) })
        };
        let failed = |_| {
            failures.set(failures.get() + 1);
            std::future::ready(Ok::<(), ()>(()))
        };
        assert_eq!((insist(step, failed).await, tries.get(), failures.get()), (Ok("done"), 3, 2));
    }

    #[tokio::test]
    async fn whoever_hears_of_the_failures_may_end_the_tries() {
        let step = || std::future::ready(Err::<(), _>(JournalError::Refused("password".into())));
        let given_up = insist(step, |error| std::future::ready(Err(error.to_string()))).await;
        assert_eq!(given_up, Err("journal refuses: password".into()));
    }
}

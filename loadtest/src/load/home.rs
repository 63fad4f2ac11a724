//! Where a session's room is at home, as far as the session knows.

use std::fmt;

use anyhow::Error;
use serde::Deserialize;
use tokio::time::Instant;

use crate::limits::{FOLLOW_MAX, HOME_STEADY};
use crate::speak::socket::{Closed, Refused};

/// The room is at home elsewhere, and the reason is the URL.
const ELSEWHERE: u16 = 4421;
/// The same as an answer to a handshake.
const MISDIRECTED: u16 = 421;

/// Where a gateway sends a session.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Elsewhere {
    url: String,
    /// The home's number.
    #[serde(rename = "home")]
    number: Option<u64>,
}

impl Elsewhere {
    /// What the end of a connection, or the answer to a handshake, says about it.
    pub(crate) fn told(why: &Error) -> Option<Self> {
        let told = match (why.downcast_ref::<Closed>(), why.downcast_ref::<Refused>()) {
            (Some(closed), _) if closed.code == Some(ELSEWHERE) => {
                let (url, number) = closed.reason.split_once('#').unwrap_or((&closed.reason, ""));
                Self { url: url.to_owned(), number: number.parse().ok() }
            }
            (_, Some(refused)) if refused.status == MISDIRECTED => serde_json::from_str(&refused.body).ok()?,
            _ => return None,
        };
        told.url.starts_with("ws://").then_some(told)
    }
}

impl fmt::Display for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

/// What a session knows of its room's home.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    url: Option<String>,
    /// The highest number that it was told.
    number: u64,
    /// How many answers in a row were older.
    older: u32,
    /// How often in a row it was sent on.
    follows: u32,
    welcomed: Option<Instant>,
}

impl Known {
    /// Where the room is at home.
    pub(crate) fn url(&self) -> Option<&str> {
        self.url.as_deref()
    }

    /// It is sent elsewhere: whether to go there at once. An older answer is not followed, and too many in a row are not.
    pub(crate) fn sent(&mut self, to: &Elsewhere) -> bool {
        self.url = None;
        if self.welcomed.take().is_some_and(|at| at.elapsed() > HOME_STEADY) {
            self.follows = 0;
        }
        if to.number.is_some_and(|number| number < self.number) {
            self.older += 1;
            // A room that was rolled back may have a lower one.
            if self.older >= FOLLOW_MAX {
                self.number = 0;
            }
            return false;
        }
        (self.older, self.number) = (0, to.number.unwrap_or(self.number));
        self.follows += 1;
        if self.follows > FOLLOW_MAX {
            self.follows = 0;
            return false;
        }
        self.url = Some(to.url.clone());
        true
    }

    /// It was welcomed under this URL, which is the room's home if the welcome has a number.
    pub(crate) fn welcomed(&mut self, url: &str, number: Option<u64>) {
        self.welcomed = Some(Instant::now());
        if let Some(number) = number {
            (self.url, self.number, self.older) = (Some(url.to_owned()), number, 0);
        }
    }

    /// The home does not answer.
    pub(crate) fn forget(&mut self) {
        self.url = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elsewhere(url: &str, number: Option<u64>) -> Elsewhere {
        Elsewhere { url: url.to_owned(), number }
    }

    #[test]
    fn both_kinds_of_answers_are_read() {
        let closed = |code, reason: &str| Elsewhere::told(&Closed { code, reason: reason.to_owned() }.into());
        assert_eq!(closed(Some(4421), "ws://b:1#7"), Some(elsewhere("ws://b:1", Some(7))));
        assert_eq!(closed(Some(4421), "ws://b:1"), Some(elsewhere("ws://b:1", None)));
        assert_eq!((closed(Some(4421), "go away"), closed(Some(4504), "ws://b:1#7"), closed(None, "")), (None, None, None));
        let refused =
            |status, body: &str| Elsewhere::told(&Refused { status, line: String::new(), body: body.to_owned() }.into());
        let body = r#"{"url": "ws://b:1", "home": 7, "room": "pit"}"#;
        assert_eq!(refused(421, body), Some(elsewhere("ws://b:1", Some(7))));
        assert_eq!((refused(503, body), refused(421, "{}"), refused(421, r#"{"url": "http://b"}"#)), (None, None, None));
        assert_eq!(Elsewhere::told(&anyhow::anyhow!("421")), None);
    }

    #[test]
    fn it_is_followed_four_times_in_a_row() {
        let mut known = Known::default();
        for _ in 0..2 {
            for _ in 0..4 {
                assert!(known.sent(&elsewhere("ws://b:1", Some(7))));
                assert_eq!(known.url(), Some("ws://b:1"));
                known.welcomed("ws://b:1", Some(7));
            }
            assert!(!known.sent(&elsewhere("ws://b:1", Some(7))));
            assert_eq!(known.url(), None);
        }
    }

    #[test]
    fn sessions_that_last_are_no_circle() {
        let mut known = Known::default();
        for _ in 0..9 {
            assert!(known.sent(&elsewhere("ws://b:1", Some(7))));
            known.welcomed("ws://b:1", None);
            known.welcomed = Instant::now().checked_sub(HOME_STEADY * 2);
        }
    }

    #[test]
    fn older_answers_are_not_followed_until_all_are_older() {
        let mut known = Known::default();
        known.welcomed("ws://b:1", Some(7));
        assert!(!known.sent(&elsewhere("ws://a:1", Some(6))));
        assert!(known.sent(&elsewhere("ws://c:1", None)));
        for _ in 0..4 {
            assert!(!known.sent(&elsewhere("ws://a:1", Some(6))));
        }
        assert!(known.sent(&elsewhere("ws://a:1", Some(6))));
        known.welcomed("ws://a:1", Some(5));
        assert!(known.sent(&elsewhere("ws://c:1", Some(5))), "a welcome is no old answer");
        known.forget();
        assert_eq!(known.url(), None);
    }
}

//! When a timer is due: pure arithmetic on room time.

use std::time::Duration;

use chrono::{DateTime, FixedOffset};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

use crate::limits::{CRON_BYTES_MAX, TIMER_AHEAD_MAX, TIMER_AHEAD_MIN, TIMER_DATA_BYTES_MAX, TIMERS_PER_ROOM_MAX};
use crate::types::RoomTime;

/// When a timer is due, in room time: between 16 ms and 30 days ahead. A verdict whose decision says otherwise is void, as
/// `timer_too_soon`, `timer_too_far` or `bad_timer`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// Once, this long after the event that sets it.
    After(Duration),
    /// Once, at this moment.
    At(RoomTime),
    /// Again and again, for the first time this long after the event that sets it.
    Every(Duration),
    /// At every moment that a cron expression of five or six fields names (the sixth, in front, is the second).
    Cron {
        /// As in `0 20 * * FRI`.
        expression: String,
        /// Seconds east of Greenwich: less than a day. There are no time zones, because an update of their data would change
        /// replays.
        offset_s: i32,
    },
}

/// How a timer goes on after it has fired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Repeat {
    Never,
    /// Every so many nanoseconds: at least [`TIMER_AHEAD_MIN`].
    Every(u64),
    /// The expression and its offset. It was checked.
    Cron(String, i32),
}

/// Why a timer cannot be set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TimerFault {
    #[error("timer_too_soon: it is due less than {} ms ahead", TIMER_AHEAD_MIN.as_millis())]
    TooSoon,
    #[error("timer_too_far: it is due more than {} days ahead", TIMER_AHEAD_MAX.as_secs() / 86_400)]
    TooFar,
    #[error("too_many_timers: a room has at most {}", TIMERS_PER_ROOM_MAX)]
    TooMany,
    #[error("timer_data_too_large: {0} bytes, at most {max}", max = TIMER_DATA_BYTES_MAX)]
    Data(usize),
    #[error("bad_timer: {0}")]
    Bad(String),
}

impl TimerFault {
    /// The reason of the void verdict.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::TooSoon => "timer_too_soon",
            Self::TooFar => "timer_too_far",
            Self::TooMany => "too_many_timers",
            Self::Data(_) => "timer_data_too_large",
            Self::Bad(_) => "bad_timer",
        }
    }
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl When {
    /// When the timer is due for the first time, and how it goes on, if it is set at `now`.
    pub(crate) fn first(&self, now: RoomTime) -> Result<(RoomTime, Repeat), TimerFault> {
        let (due, repeat) = match self {
            Self::After(ahead) => (now.plus(ns(*ahead)), Repeat::Never),
            Self::At(due) => (*due, Repeat::Never),
            Self::Every(every) => (now.plus(ns(*every)), Repeat::Every(ns(*every))),
            Self::Cron { expression, offset_s } => {
                // croner looks for a day that never comes through centuries.
                if !has_a_day(expression, *offset_s, now)? {
                    return Err(TimerFault::TooFar);
                }
                let repeat = Repeat::Cron(expression.clone(), *offset_s);
                // A moment that is nearer than the bound is left out: the next one counts.
                let due = repeat.checked_next(now, now.plus(ns(TIMER_AHEAD_MIN) - 1))?;
                (due.ok_or_else(|| TimerFault::Bad(format!("cron {expression:?} names no moment to come")))?, repeat)
            }
        };
        if due < now.plus(ns(TIMER_AHEAD_MIN)) {
            return Err(TimerFault::TooSoon);
        }
        if due > now.plus(ns(TIMER_AHEAD_MAX)) {
            return Err(TimerFault::TooFar);
        }
        Ok((due, repeat))
    }
}

impl Repeat {
    /// The first moment after `after` of a timer that was due at `due`; None if there is none.
    pub(crate) fn next(&self, due: RoomTime, after: RoomTime) -> Option<RoomTime> {
        self.checked_next(due, after).ok().flatten()
    }

    /// How many moments there are from `due` on, up to and including `until`. Those of cron are counted up to `most`.
    pub(crate) fn count(&self, due: RoomTime, until: RoomTime, most: u64) -> u64 {
        match self {
            _ if until < due => 0,
            Self::Never => 1,
            Self::Every(every) => (until.since(due) / (*every).max(1)).saturating_add(1),
            Self::Cron(expression, offset_s) => {
                let Ok((cron, zone)) = parse(expression, *offset_s) else { return 1 };
                let mut at = zoned(due, zone);
                let until = zoned(until, zone);
                let mut count = 1;
                while count < most
                    && let Some(next) =
                        at.and_then(|at| cron.find_next_occurrence(&at, false).ok()).filter(|at| Some(*at) <= until)
                {
                    (count, at) = (count + 1, Some(next));
                }
                count
            }
        }
    }

    /// The last moment up to and including `until` of a timer that was due at `due`; None if there is none from `due` on.
    pub(crate) fn last(&self, due: RoomTime, until: RoomTime) -> Option<RoomTime> {
        match self {
            _ if until < due => None,
            Self::Never => Some(due),
            Self::Every(every) => Some(RoomTime(until.0 - until.since(due) % (*every).max(1))),
            Self::Cron(expression, offset_s) => {
                let (cron, zone) = parse(expression, *offset_s).ok()?;
                let last = cron.find_previous_occurrence(&zoned(until, zone)?, true).ok()?;
                room_time(&last).filter(|last| *last >= due).or(Some(due))
            }
        }
    }

    fn checked_next(&self, due: RoomTime, after: RoomTime) -> Result<Option<RoomTime>, TimerFault> {
        match self {
            Self::Never => Ok(None),
            Self::Every(every) => {
                let steps = (after.since(due) / (*every).max(1)).saturating_add(1);
                Ok(Some(due.plus(steps.saturating_mul(*every))))
            }
            Self::Cron(expression, offset_s) => {
                let bad = |why: String| TimerFault::Bad(format!("cron {expression:?}: {why}"));
                let (cron, zone) = parse(expression, *offset_s).map_err(bad)?;
                let next = zoned(after, zone).and_then(|from| cron.find_next_occurrence(&from, false).ok());
                Ok(next.as_ref().and_then(room_time))
            }
        }
    }
}

/// Seconds of an offset such as `+09:00`, or `Z`.
///
/// # Errors
/// How it is written.
pub(crate) fn offset_s(text: &str) -> Result<i32, String> {
    let wrong = || format!("offset {text:?}: write it as +09:00");
    let (sign, rest) = match text.as_bytes().first() {
        Some(b'+') => (1, &text[1..]),
        Some(b'-') => (-1, &text[1..]),
        Some(b'Z') if text.len() == 1 => return Ok(0),
        _ => return Err(wrong()),
    };
    let (hours, minutes) = rest.split_once(':').ok_or_else(wrong)?;
    let part = |digits: &str, below: i32| {
        let good = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse::<i32>().ok().filter(|n| good && *n < below).ok_or_else(wrong)
    };
    Ok(sign * (part(hours, 24)? * 3600 + part(minutes, 60)? * 60))
}

/// The last whole second: the moments of cron are whole seconds, and croner takes a part of one along.
fn zoned(at: RoomTime, zone: FixedOffset) -> Option<DateTime<FixedOffset>> {
    let whole = at.0 - at.0 % 1_000_000_000;
    Some(DateTime::from_timestamp_nanos(i64::try_from(whole).ok()?).with_timezone(&zone))
}

fn room_time(at: &DateTime<FixedOffset>) -> Option<RoomTime> {
    at.timestamp_nanos_opt().and_then(|ns| u64::try_from(ns).ok()).map(RoomTime)
}

/// Whether there is a day on which a cron expression has a moment, no farther ahead than a timer may be.
fn has_a_day(expression: &str, offset_s: i32, now: RoomTime) -> Result<bool, TimerFault> {
    let bad = |why: String| TimerFault::Bad(format!("cron {expression:?}: {why}"));
    let (_, zone) = parse(expression, offset_s).map_err(bad)?;
    let fields: Vec<&str> = expression.split_whitespace().collect();
    let days = format!("* * {}", fields[fields.len().saturating_sub(3)..].join(" "));
    let (days, _) = parse(&days, offset_s).map_err(bad)?;
    let day = |n: u64| zoned(now.plus(n * 86_400_000_000_000), zone).map(|at| at.timestamp() / 60 * 60);
    let minute = |n| DateTime::from_timestamp(day(n)?, 0).map(|at| at.with_timezone(&zone));
    let most = TIMER_AHEAD_MAX.as_secs() / 86_400;
    Ok((0..=most).filter_map(minute).any(|at| days.is_time_matching(&at).unwrap_or(false)))
}

fn parse(expression: &str, offset_s: i32) -> Result<(Cron, FixedOffset), String> {
    if expression.len() > CRON_BYTES_MAX {
        return Err(format!("{} bytes, at most {CRON_BYTES_MAX}", expression.len()));
    }
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
    let cron = parser.parse(expression).map_err(|e| e.to_string())?;
    let zone = FixedOffset::east_opt(offset_s).ok_or_else(|| "an offset of a day or more".to_owned())?;
    Ok((cron, zone))
}

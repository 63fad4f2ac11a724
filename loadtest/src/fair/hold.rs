//! How long the workers held events until every gateway had passed their stamps, out of the workers' own metrics.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, bail};
use lasthit::metrics::HOLD_SECONDS;
use serde::Serialize;

use crate::limits::PROBE_TIMEOUT;
use crate::record::Times;

/// Counts by upper bound in nanoseconds, each with those below it; `u64::MAX` for what has no bound.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Buckets(BTreeMap<u64, u64>);

/// What is told of it, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Hold {
    /// Whether it is what the workers measured. Else nobody said where their metrics are, or there are none, and these are
    /// the times from a rival's send to its verdict, of which the hold is a part.
    pub(crate) by_workers: bool,
    /// How many events.
    pub(crate) events: u64,
    /// The median.
    pub(crate) p50: f64,
    /// 99 %.
    pub(crate) p99: f64,
    /// 99.9 %.
    pub(crate) p999: f64,
}

impl Buckets {
    /// Adds up what all workers say; `addresses` are those of their metrics.
    pub(super) fn read(addresses: &[String]) -> Result<Self> {
        let mut all = Self::default();
        for address in addresses {
            let text = metrics(address).with_context(|| format!("no metrics from {address}"))?;
            for (bound, count) in Self::parse(&text)?.0 {
                *all.0.entry(bound).or_default() += count;
            }
        }
        Ok(all)
    }

    fn parse(text: &str) -> Result<Self> {
        let mut buckets = BTreeMap::new();
        for line in text.lines().filter(|line| line.starts_with(HOLD_SECONDS)) {
            let Some((bound, count)) =
                line[HOLD_SECONDS.len()..].strip_prefix("_bucket{le=\"").and_then(|l| l.split_once("\"} "))
            else {
                continue;
            };
            let bound = match bound {
                "+Inf" => u64::MAX,
                seconds => nanos(seconds.parse().with_context(|| format!("bucket {line:?}"))?),
            };
            buckets.insert(bound, count.parse().with_context(|| format!("bucket {line:?}"))?);
        }
        Ok(Self(buckets))
    }

    /// What came since `before`.
    pub(super) fn since(mut self, before: &Self) -> Self {
        for (bound, count) in &mut self.0 {
            *count = count.saturating_sub(before.0.get(bound).copied().unwrap_or(0));
        }
        self
    }

    fn events(&self) -> u64 {
        self.0.values().next_back().copied().unwrap_or(0)
    }

    /// One quantile in microseconds to the tenth, as if the events of a bucket lay evenly in it.
    fn quantile_us(&self, quantile: f64) -> f64 {
        let wanted = quantile * self.events() as f64;
        let (mut low, mut below) = (0, 0);
        for (bound, count) in &self.0 {
            if *count > below && *count as f64 >= wanted {
                // Past the last bound nothing more is known.
                let high = if *bound == u64::MAX { low } else { *bound };
                let part = (wanted - below as f64) / (count - below) as f64;
                return ((low as f64 + part * (high - low) as f64) / 100.0).round() / 10.0;
            }
            (low, below) = (*bound, *count);
        }
        0.0
    }

    pub(super) fn hold(&self) -> Hold {
        let at = |quantile| self.quantile_us(quantile);
        Hold { by_workers: true, events: self.events(), p50: at(0.5), p99: at(0.99), p999: at(0.999) }
    }
}

impl Hold {
    /// When the workers cannot be asked.
    pub(super) fn at_most(latency: &Times) -> Self {
        let all = latency.quantiles();
        Self { by_workers: false, events: latency.count(), p50: all.p50, p99: all.p99, p999: all.p999 }
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.by_workers {
            write!(f, "hold µs: p50 {}  p99 {}  p99.9 {}  of {} events", self.p50, self.p99, self.p999, self.events)
        } else {
            f.write_str("hold: less than that; give the workers' --admin addresses as --metrics for its own figures")
        }
    }
}

fn nanos(seconds: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounds of buckets: seconds, not negative")]
    let nanos = (seconds * 1e9).round() as u64;
    nanos
}

fn metrics(address: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PROBE_TIMEOUT))?;
    // In one piece: whoever has read a part of it may answer and close.
    stream.write_all(format!("GET /metrics HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if !answer.starts_with("HTTP/1.1 200") {
        bail!("it answers {:?}", answer.lines().next().unwrap_or_default());
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn text(counts: [u64; 4]) -> String {
        let bounds = ["0.0001", "0.0003", "0.003", "+Inf"];
        let line = |(bound, count)| format!("lasthit_hold_seconds_bucket{{le=\"{bound}\"}} {count}\n");
        let lines: String = bounds.into_iter().zip(counts).map(line).collect();
        format!(
            "# TYPE lasthit_hold_seconds histogram\n{lines}lasthit_hold_seconds_sum 9\nlasthit_hold_seconds_count {}\n",
            counts[3]
        )
    }

    fn buckets(counts: [u64; 4]) -> Buckets {
        Buckets::parse(&text(counts)).expect("buckets")
    }

    #[test]
    fn quantiles_lie_within_their_buckets() {
        // Of 100 since then: 20 up to 100 µs, 40 up to 300 µs, 39 up to 3 ms, one beyond.
        let hold = buckets([120, 260, 300, 301]).since(&buckets([100, 200, 201, 201])).hold();
        assert_eq!((hold.events, hold.p50, hold.p99, hold.p999), (100, 250.0, 3000.0, 3000.0));
        assert_eq!(Buckets::default().hold().p99, 0.0);
        assert_eq!(buckets([4, 4, 4, 4]).hold().p50, 50.0);
    }

    #[test]
    fn all_workers_are_asked() {
        let serve = || {
            let listener = TcpListener::bind("127.0.0.1:0").expect("port");
            let address = listener.local_addr().expect("address").to_string();
            let thread = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().expect("connection");
                let _ = stream.read(&mut [0; 512]).expect("request");
                write!(stream, "HTTP/1.1 200 OK\r\n\r\n{}", text([1, 2, 3, 4])).expect("answer");
            });
            (address, thread)
        };
        let (workers, threads): (Vec<_>, Vec<_>) = [serve(), serve()].into_iter().unzip();
        assert_eq!(Buckets::read(&workers).expect("metrics"), buckets([2, 4, 6, 8]));
        threads.into_iter().for_each(|thread| thread.join().expect("served"));
        let error = format!("{:#}", Buckets::read(&workers).expect_err("gone"));
        assert!(error.contains(&workers[0]), "{error}");
    }
}

//! How long the workers held events until every gateway had passed their stamps, out of the workers' own metrics.

use std::fmt;
use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, bail};
use lasthit::internals::metrics::HOLD_SECONDS;
use serde::Serialize;

use crate::histogram::Histogram;
use crate::limits::PROBE_TIMEOUT;
use crate::load::record::Times;

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

/// Adds up what all workers say; `addresses` are those of their metrics.
pub(super) fn read(addresses: &[String]) -> Result<Histogram> {
    let mut all = Histogram::default();
    for address in addresses {
        let text = metrics(address).with_context(|| format!("no metrics from {address}"))?;
        all.add(&Histogram::parse(&text, HOLD_SECONDS)?);
    }
    Ok(all)
}

impl Hold {
    /// What the workers measured.
    pub(super) fn of(held: &Histogram) -> Self {
        let at = |quantile| held.quantile_us(quantile);
        Self { by_workers: true, events: held.count(), p50: at(0.5), p99: at(0.99), p999: at(0.999) }
    }

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

    #[test]
    fn all_workers_are_asked() {
        let text = format!("{HOLD_SECONDS}_bucket{{le=\"0.0001\"}} 3\n{HOLD_SECONDS}_bucket{{le=\"+Inf\"}} 4\n");
        let serve = || {
            let listener = TcpListener::bind("127.0.0.1:0").expect("port");
            let address = listener.local_addr().expect("address").to_string();
            let text = text.clone();
            let thread = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().expect("connection");
                let _ = stream.read(&mut [0; 512]).expect("request");
                write!(stream, "HTTP/1.1 200 OK\r\n\r\n{text}").expect("answer");
            });
            (address, thread)
        };
        let (workers, threads): (Vec<_>, Vec<_>) = [serve(), serve()].into_iter().unzip();
        let hold = Hold::of(&read(&workers).expect("metrics"));
        assert_eq!((hold.by_workers, hold.events, hold.p50), (true, 8, 66.7));
        threads.into_iter().for_each(|thread| thread.join().expect("served"));
        let error = format!("{:#}", read(&workers).expect_err("gone"));
        assert!(error.contains(&workers[0]), "{error}");
    }
}

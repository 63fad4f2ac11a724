//! Which processes there are, on which hosts: what they say of themselves with each beat. No order rests on it (rule H6).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use crate::limits::ADVERTISE_BYTES_MAX;
use crate::types::{HostId, Incarnation, ShardId};

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// It takes sessions.
    Gateway,
    /// It decides events.
    Worker,
}

/// What a process says of itself with each beat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessRecord {
    /// The process: a gateway's is that of its turn 0.
    pub incarnation: Incarnation,
    /// Where it runs.
    pub host: HostId,
    /// What it does.
    pub part: Part,
    /// Whether it takes work. This does not hang on any shard's being at home there.
    pub ready: bool,
    /// How many cores its host has, at least 1.
    pub cores: u32,
    /// The random id that this host keeps in its runtime directory; 0 if it keeps none.
    pub host_id: u128,
    /// Its wall clock (since 1970) less its monotonic clock, in microseconds.
    pub offset_us: u64,
    /// The shards whose server it does not reach.
    pub lacks: BTreeSet<ShardId>,
    /// Under which URL players reach a gateway's host, at most `ADVERTISE_BYTES_MAX` bytes. Empty if it was told none, and for a worker.
    pub url: String,
}

impl ProcessRecord {
    /// A process that is not ready, on a host of one core with no id, no URL and no clock; it lacks nothing.
    #[must_use]
    pub fn new(incarnation: Incarnation, host: HostId, part: Part) -> Self {
        let lacks = BTreeSet::new();
        Self { incarnation, host, part, ready: false, cores: 1, host_id: 0, offset_us: 0, lacks, url: String::new() }
    }

    /// What the journal keeps beside its incarnation: `host|role|cores|id|offset|lacks|URL`.
    #[must_use]
    pub fn record(&self) -> String {
        let role = match (self.part, self.ready) {
            (Part::Gateway, false) => "g",
            (Part::Gateway, true) => "gr",
            (Part::Worker, false) => "w",
            (Part::Worker, true) => "wr",
        };
        let lacks = self.lacks.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        format!("{}|{role}|{}|{:032x}|{}|{lacks}|{}", self.host, self.cores, self.host_id, self.offset_us, self.url)
    }

    /// Reads what [`ProcessRecord::record`] wrote. None if it would not have written this text.
    #[must_use]
    pub fn parse_record(incarnation: Incarnation, text: &str) -> Option<Self> {
        let mut fields = text.splitn(7, '|');
        let host = HostId::new(fields.next()?).ok()?;
        let (part, ready) = match fields.next()? {
            "g" => (Part::Gateway, false),
            "gr" => (Part::Gateway, true),
            "w" => (Part::Worker, false),
            "wr" => (Part::Worker, true),
            _ => return None,
        };
        let cores = number(fields.next()?).filter(|cores| *cores > 0)?;
        let host_id = Incarnation::from_hex(fields.next()?)?.0;
        let offset_us = number(fields.next()?)?;
        let lacks = fields.next()?;
        let lacks = lacks.split(',').filter(|_| !lacks.is_empty()).map(|shard| number(shard).map(ShardId));
        let lacks = lacks.collect::<Option<_>>()?;
        let url = fields.next().filter(|url| url.len() <= ADVERTISE_BYTES_MAX)?.to_owned();
        if !url.bytes().all(|b| b.is_ascii_graphic() && b != b'|') {
            return None;
        }
        Some(Self { incarnation, host, part, ready, cores, host_id, offset_us, lacks, url })
    }
}

fn number<T: FromStr + fmt::Display>(text: &str) -> Option<T> {
    text.parse::<T>().ok().filter(|read| read.to_string() == text)
}

/// The answer to a beat.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Beats {
    /// All processes that beat, by their incarnation.
    pub processes: Vec<ProcessRecord>,
    /// The hosts that are to have no shard.
    pub drained: BTreeSet<HostId>,
    /// What could not be read of that, each in a few words: it counts as not there.
    pub damaged: Vec<String>,
}

impl Beats {
    /// A worker of another host: that host may be a home.
    #[must_use]
    pub fn other_home(&self, me: &ProcessRecord) -> Option<&ProcessRecord> {
        self.processes.iter().find(|process| process.part == Part::Worker && process.host != me.host)
    }

    /// The hosts with a gateway that takes sessions, each with the URL that players reach it under, or an empty one. Without those that
    /// have the URL of this process's host: what this machine was before it booted beats for a while, and nobody is sent to where he is.
    #[must_use]
    pub fn ready_hosts(&self, me: &ProcessRecord) -> BTreeMap<HostId, String> {
        let mut hosts = BTreeMap::<HostId, String>::new();
        for process in self.processes.iter().filter(|process| process.part == Part::Gateway && process.ready) {
            let url = hosts.entry(process.host.clone()).or_default();
            if url.is_empty() {
                url.clone_from(&process.url);
            }
        }
        hosts.retain(|host, url| *host == me.host || *url != me.url);
        hosts
    }

    /// Adds the entry of a process.
    pub(super) fn add(&mut self, incarnation: Incarnation, text: &str) {
        match ProcessRecord::parse_record(incarnation, text) {
            Some(process) => self.processes.push(process),
            None => {
                let text: String = text.chars().take(160).collect();
                self.damaged.push(format!("process {} says {text:?}", incarnation.to_hex()));
            }
        }
    }

    /// Adds a drained host.
    pub(super) fn add_drained(&mut self, host: &str) {
        match HostId::new(host) {
            Ok(host) => _ = self.drained.insert(host),
            Err(error) => self.damaged.push(format!("a drained host: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process() -> ProcessRecord {
        ProcessRecord {
            ready: true,
            cores: 8,
            host_id: 7,
            offset_us: 1_700_000_000_000_000,
            lacks: [ShardId(3), ShardId(12)].into(),
            url: "wss://a.example:8443".to_owned(),
            ..ProcessRecord::new(Incarnation(1), HostId::new("boot/time:[1]").expect("a name"), Part::Gateway)
        }
    }

    #[test]
    fn a_process_survives_its_record() {
        // Part of the format: processes of other versions read this text.
        let text = "boot/time:[1]|gr|8|00000000000000000000000000000007|1700000000000000|3,12|wss://a.example:8443";
        assert_eq!(process().record(), text);
        let bare = ProcessRecord::new(Incarnation(1), process().host, Part::Worker);
        for part in [Part::Gateway, Part::Worker] {
            for ready in [false, true] {
                for process in [process(), bare.clone()].map(|process| ProcessRecord { part, ready, ..process }) {
                    assert_eq!(ProcessRecord::parse_record(Incarnation(1), &process.record()), Some(process));
                }
            }
        }
    }

    #[test]
    fn what_a_host_was_before_it_booted_is_no_other_host() {
        let of = |name: &str, url: &str| ProcessRecord {
            host: HostId::new(name).expect("a name"),
            url: url.to_owned(),
            ready: true,
            ..ProcessRecord::new(Incarnation(1), process().host, Part::Gateway)
        };
        for (url, others) in [("wss://a", 2), ("", 2), ("wss://new", 3)] {
            let me = of("now", url);
            let unready = ProcessRecord { ready: false, ..of("starts", "wss://c") };
            let worker = ProcessRecord { part: Part::Worker, ..of("works", "") };
            let processes =
                vec![of("before", "wss://a"), of("mute", ""), of("other", "wss://b"), of("other", ""), unready, worker];
            let hosts = Beats { processes, ..Beats::default() }.ready_hosts(&me);
            assert_eq!(hosts.len(), others, "{hosts:?}");
            assert_eq!(hosts[&of("other", "").host], "wss://b");
            let with_me = Beats { processes: vec![me.clone()], ..Beats::default() }.ready_hosts(&me);
            assert_eq!(with_me, [(me.host, url.to_owned())].into());
        }
    }

    #[test]
    fn a_damaged_record_is_none() {
        let good = process().record();
        let long = format!("{}{}", good, "x".repeat(ADVERTISE_BYTES_MAX));
        for (from, to) in [
            ("boot", "bo ot"),
            ("gr", "x"),
            ("|8|", "|0|"),
            ("|8|", "|08|"),
            ("07|", "7|"),
            ("3,12", "3,x"),
            ("3,", ","),
            ("wss", "w s"),
            ("wss", "w|s"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good);
            assert_eq!(ProcessRecord::parse_record(Incarnation(1), &bad), None, "{bad}");
        }
        for bad in ["", "|", "a|g|1", long.as_str()] {
            assert_eq!(ProcessRecord::parse_record(Incarnation(1), bad), None, "{bad}");
        }
    }
}

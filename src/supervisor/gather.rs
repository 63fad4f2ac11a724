//! The metrics of all children in one text, each sample with the name of its process.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::fd::OwnedFd;

use tokio::sync::oneshot;

use crate::child::channel::bytes_of;
use crate::limits::{CHANNEL_METRICS_BYTES_MAX, GATHERINGS_MAX};

/// Answers that are not complete yet.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    next: u64,
    open: BTreeMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    /// In beats.
    age: u32,
    answer: Option<oneshot::Sender<String>>,
    missing: usize,
    families: Families,
}

impl Gathering {
    /// Begins an answer of so many parts. The oldest one is answered as it is if there are too many.
    pub(super) fn begin(&mut self, answer: oneshot::Sender<String>, parts: usize) -> u64 {
        self.next += 1;
        self.open.insert(self.next, Open { age: 0, answer: Some(answer), missing: parts, families: Families::default() });
        while self.open.len() > GATHERINGS_MAX {
            drop(self.open.pop_first());
        }
        self.finish(self.next);
        self.next
    }

    /// Goes on behind this number: what is said of it or of one before comes too late.
    pub(super) fn resume(number: u64) -> Self {
        Self { next: number, open: BTreeMap::new() }
    }

    /// The last number.
    pub(super) fn number(&self) -> u64 {
        self.next
    }

    /// A child's part.
    pub(super) fn take(&mut self, number: u64, process: &str, file: OwnedFd) {
        let Some(open) = self.open.get_mut(&number) else { return };
        match bytes_of(file, CHANNEL_METRICS_BYTES_MAX) {
            Ok(bytes) => open.families.add(process, &String::from_utf8_lossy(&bytes)),
            Err(error) => tracing::warn!(process, %error, "metrics are left out"),
        }
        open.missing = open.missing.saturating_sub(1);
        self.finish(number);
    }

    /// A child's part was lost.
    pub(super) fn miss(&mut self, number: u64) {
        if let Some(open) = self.open.get_mut(&number) {
            open.missing = open.missing.saturating_sub(1);
        }
        self.finish(number);
    }

    /// A beat has passed: who has not answered for two of them is left out.
    pub(super) fn grow_old(&mut self) {
        self.open.values_mut().for_each(|open| open.age += 1);
        self.open.retain(|_, open| open.age < 2);
    }

    fn finish(&mut self, number: u64) {
        if self.open.get(&number).is_some_and(|open| open.missing == 0) {
            drop(self.open.remove(&number));
        }
    }
}

impl Drop for Open {
    /// Whoever waits gets what came, also if a child did not answer.
    fn drop(&mut self) {
        if let Some(answer) = self.answer.take() {
            let _ = answer.send(self.families.to_string());
        }
    }
}

/// Samples by the name of their family, and what is said about it.
#[derive(Debug, Default)]
struct Families(BTreeMap<String, (Vec<String>, Vec<String>)>);

impl Families {
    fn add(&mut self, process: &str, text: &str) {
        let mut family = String::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(about) = line.strip_prefix("# ") {
                let name = about.split(' ').nth(1).unwrap_or_default();
                name.clone_into(&mut family);
                let said = &mut self.0.entry(family.clone()).or_default().0;
                if !said.iter().any(|there| there == line) {
                    said.push(line.to_owned());
                }
                continue;
            }
            let end = line.find(['{', ' ']).unwrap_or(line.len());
            let (name, rest) = line.split_at(end);
            let sample = match rest.strip_prefix('{') {
                Some(labels) => format!("{name}{{process=\"{process}\",{labels}"),
                None => format!("{name}{{process=\"{process}\"}}{rest}"),
            };
            let of = if !family.is_empty() && name.starts_with(&family) { &family } else { name };
            self.0.entry(of.to_owned()).or_default().1.push(sample);
        }
    }
}

impl std::fmt::Display for Families {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (about, samples) in self.0.values() {
            for line in about.iter().chain(samples) {
                writeln!(f, "{line}")?;
            }
            f.write_char('\n')?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::child::channel::file_of;

    #[tokio::test]
    async fn samples_are_named_and_families_stay_together() {
        let (mut gathering, (answer, answered)) = (Gathering::default(), oneshot::channel());
        let number = gathering.begin(answer, 2);
        let one = "# HELP a_seconds How long\n# TYPE a_seconds histogram\na_seconds_bucket{le=\"1\"} 2\na_seconds_sum 1.5\n\n# TYPE b gauge\nb 7\n";
        let part = |text: &str| file_of("metrics", text.as_bytes()).expect("a file");
        gathering.take(number, "gateway-1", part(one));
        gathering.take(number, "worker-1", part("# TYPE b gauge\nb 8\n"));
        let text = answered.await.expect("an answer");
        assert_eq!(
            text,
            "# HELP a_seconds How long\n# TYPE a_seconds histogram\na_seconds_bucket{process=\"gateway-1\",le=\"1\"} 2\n\
             a_seconds_sum{process=\"gateway-1\"} 1.5\n\n# TYPE b gauge\nb{process=\"gateway-1\"} 7\nb{process=\"worker-1\"} 8\n\n"
        );
    }

    #[tokio::test]
    async fn what_is_missing_is_left_out_in_the_end() {
        let mut gathering = Gathering::default();
        let (answer, none) = oneshot::channel();
        gathering.begin(answer, 0);
        assert_eq!(none.await.expect("at once"), "");
        let (answer, old) = oneshot::channel();
        gathering.begin(answer, 1);
        for _ in 0..GATHERINGS_MAX {
            gathering.begin(oneshot::channel().0, 1);
        }
        assert_eq!(old.await.expect("given up"), "");
        let (answer, late) = oneshot::channel();
        let number = gathering.begin(answer, 2);
        gathering.miss(number);
        gathering.grow_old();
        gathering.grow_old();
        assert_eq!(late.await.expect("without who is silent"), "");
    }
}

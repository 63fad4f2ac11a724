//! The instances of one program: which are there, and who may ask which.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Histogram, counter, histogram};
use parking_lot::{Condvar, Mutex};
use quanta::Instant;
use tokio::sync::watch;

use super::link::{Link, LinkError};
use crate::limits::{PROGRAM_JOBS_PER_INSTANCE, PROGRAM_WAIT_MAX};
use crate::metrics as names;
use crate::rules::messages::Decided;
use crate::rules::{Fault, Program, ProgramIdentity, ProgramSource, ProgramSpec};

/// Why nobody is asked any more.
const ENDS: &str = "the worker ends";

/// The instances of one program.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(super) spec: ProgramSpec,
    /// The program in log lines: its command, or its socket.
    pub(super) label: String,
    /// Its number among the worker's programs.
    at: usize,
    inner: Mutex<Inner>,
    /// An instance is free, has come, or has gone.
    changed: Condvar,
    /// An instance has gone, or all are to end: the keepers look.
    gone: Condvar,
    troubles: Troubles,
    meters: Meters,
}

#[derive(Debug)]
struct Inner {
    /// The instances that are there, by the number of their connection. None while somebody asks it.
    links: BTreeMap<u64, Option<Link>>,
    /// All connections, also those that have not said hello: they are shut down when the programs are to end, so that nobody waits.
    streams: BTreeMap<u64, UnixStream>,
    /// The connections of started instances that have decided something: one for each instance, at most.
    proven: BTreeSet<u64>,
    numbers: u64,
    /// What the instances call themselves. A later version takes their place; an earlier one when none is left.
    identity: Option<ProgramIdentity>,
    /// Connections to a version before, which somebody still asks.
    outdated: BTreeSet<u64>,
    /// Since when no instance is there.
    down_since: Instant,
    /// Why the last instance ended.
    why: String,
    stopping: bool,
}

impl Inner {
    /// How many instances of the current version are there.
    fn there(&self) -> usize {
        self.links.len() - self.outdated.len()
    }
}

struct Meters {
    seconds: Histogram,
    failures: Counter,
}

impl std::fmt::Debug for Meters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meters")
    }
}

/// What is wrong with the programs of a worker, as one line.
#[derive(Debug, Clone)]
pub(super) struct Troubles {
    line: watch::Sender<Option<String>>,
    /// By the program's number.
    all: Arc<Mutex<BTreeMap<usize, String>>>,
}

impl Troubles {
    pub(super) fn new(sender: watch::Sender<Option<String>>) -> Self {
        Self { line: sender, all: Arc::default() }
    }

    fn set(&self, program: usize, trouble: Option<String>) {
        let mut all = self.all.lock();
        match trouble {
            Some(trouble) => all.insert(program, trouble),
            None => all.remove(&program),
        };
        let line = (!all.is_empty()).then(|| all.values().cloned().collect::<Vec<_>>().join("; "));
        self.line.send_if_modified(|now| {
            let other = *now != line;
            *now = line;
            other
        });
    }
}

impl Pool {
    pub(super) fn new(spec: ProgramSpec, at: usize, troubles: Troubles) -> Self {
        let label = match &spec.source {
            ProgramSource::Command(words) => words.join(" "),
            ProgramSource::Socket(path) => path.display().to_string(),
        };
        let inner = Inner {
            links: BTreeMap::new(),
            streams: BTreeMap::new(),
            proven: BTreeSet::new(),
            numbers: 0,
            identity: None,
            outdated: BTreeSet::new(),
            down_since: Instant::now(),
            why: "none has said hello yet".to_owned(),
            stopping: false,
        };
        let meters = Meters {
            seconds: histogram!(names::PROGRAM_SECONDS, "program" => label.clone()),
            failures: counter!(names::PROGRAM_FAILURES_TOTAL, "program" => label.clone()),
        };
        let (changed, gone) = (Condvar::new(), Condvar::new());
        let pool = Self { spec, label, at, inner: Mutex::new(inner), changed, gone, troubles, meters };
        pool.tell(&pool.inner.lock());
        pool
    }

    /// Somebody has connected. Returns the number of the connection.
    pub(super) fn connected(&self, stream: &UnixStream) -> Result<u64, String> {
        let mut inner = self.inner.lock();
        if inner.stopping {
            return Err(ENDS.to_owned());
        }
        let stream = stream.try_clone().map_err(|e| format!("its socket: {e}"))?;
        inner.numbers += 1;
        let number = inner.numbers;
        inner.streams.insert(number, stream);
        Ok(number)
    }

    /// An instance has said hello.
    ///
    /// # Errors
    /// When it is another program than the ones before.
    pub(super) fn add(&self, number: u64, mut link: Link, identity: ProgramIdentity) -> Result<(), String> {
        let mut inner = self.inner.lock();
        let known = inner.identity.clone().filter(|known| *known != identity);
        if let Some(known) = known {
            let is_next = known.name == identity.name && (identity.version > known.version || inner.links.is_empty());
            if !is_next {
                let why = format!("it is {identity}, but this worker runs {known}: start the worker again to change its rules");
                link.refuse(&why);
                inner.why.clone_from(&why);
                self.tell(&inner);
                return Err(why);
            }
            tracing::info!(program = self.label, "{identity} takes the place of version {}", known.version);
            self.retire(&mut inner, &format!("{identity} takes its place"));
        }
        let there = inner.there();
        if there >= self.spec.instances {
            let why = format!("{there} instances are connected already");
            link.refuse(&why);
            return Err(why);
        }
        inner.identity = Some(identity);
        inner.links.insert(number, Some(link));
        self.tell(&inner);
        self.changed.notify_all();
        Ok(())
    }

    /// Gives up all instances: at once, or when they have answered.
    fn retire(&self, inner: &mut Inner, why: &str) {
        let there: Vec<(u64, bool)> = inner.links.iter().map(|(number, link)| (*number, link.is_some())).collect();
        for (number, is_free) in there {
            if !is_free {
                inner.outdated.insert(number);
                continue;
            }
            if let Some(Some(mut link)) = inner.links.remove(&number) {
                link.refuse(why);
            }
            if let Some(stream) = inner.streams.remove(&number) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        why.clone_into(&mut inner.why);
        self.gone.notify_all();
    }

    /// The instance of this connection is given up.
    pub(super) fn lose(&self, number: u64, why: &str) {
        let mut inner = self.inner.lock();
        inner.streams.remove(&number);
        inner.outdated.remove(&number);
        if inner.links.remove(&number).is_some() {
            why.clone_into(&mut inner.why);
            if inner.links.is_empty() {
                inner.down_since = Instant::now();
            }
            self.tell(&inner);
            self.changed.notify_all();
            self.gone.notify_all();
        }
    }

    /// An instance ended before it said hello.
    pub(super) fn not_come(&self, number: Option<u64>, why: &str) {
        let mut inner = self.inner.lock();
        number.map(|number| inner.streams.remove(&number));
        why.clone_into(&mut inner.why);
        self.tell(&inner);
    }

    /// Whether the instance of a connection that has ended had decided something.
    pub(super) fn take_proven(&self, number: u64) -> bool {
        self.inner.lock().proven.remove(&number)
    }

    /// Whether the instance of this connection is still there.
    pub(super) fn has(&self, number: u64) -> bool {
        self.inner.lock().links.contains_key(&number)
    }

    /// The connections that are there.
    pub(super) fn numbers(&self) -> BTreeSet<u64> {
        self.inner.lock().links.keys().copied().collect()
    }

    /// Takes an instance that nobody asks.
    pub(super) fn take(&self, number: u64) -> Option<Link> {
        self.inner.lock().links.get_mut(&number)?.take()
    }

    /// Gives it back.
    pub(super) fn give_back(&self, number: u64, link: Link) {
        let mut inner = self.inner.lock();
        if inner.outdated.contains(&number) {
            drop((inner, link));
            self.lose(number, "a later version takes its place");
            return;
        }
        if let Some(place) = inner.links.get_mut(&number) {
            *place = Some(link);
        }
        drop(inner);
        self.changed.notify_all();
    }

    /// Waits until an instance may have gone, or for `pause`. Returns false if the keepers are to end.
    pub(super) fn pause(&self, pause: Duration) -> bool {
        let mut inner = self.inner.lock();
        if !inner.stopping {
            self.gone.wait_for(&mut inner, pause);
        }
        !inner.stopping
    }

    /// Waits for `pause`, whatever happens to other instances. Returns false if the keepers are to end.
    pub(super) fn rest(&self, pause: Duration) -> bool {
        let began = Instant::now();
        while let Some(left) = pause.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) {
            if !self.pause(left) {
                return false;
            }
        }
        self.pause(Duration::ZERO)
    }

    pub(super) fn stop(&self) {
        let mut inner = self.inner.lock();
        inner.stopping = true;
        for stream in inner.streams.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.changed.notify_all();
        self.gone.notify_all();
    }

    /// Shows in `/readyz` what is missing.
    fn tell(&self, inner: &Inner) {
        let (there, wanted) = (inner.there(), self.spec.instances);
        let enough = match self.spec.source {
            ProgramSource::Command(_) => there == wanted,
            ProgramSource::Socket(_) => there > 0,
        };
        let trouble = format!("{}: {there} of {wanted} instances are there: {}", self.label, inner.why);
        self.troubles.set(self.at, (!enough).then_some(trouble));
    }

    /// Waits for an instance that nobody asks, and that is `who`, if that is given.
    fn wait(&self, who: Option<&ProgramIdentity>) -> Result<(u64, Link), Fault> {
        let (began, mut inner) = (Instant::now(), self.inner.lock());
        loop {
            if inner.stopping {
                return Err(Fault::Failed(ENDS.to_owned()));
            }
            if who.is_some() && inner.identity.as_ref() != who {
                return Err(Fault::Failed("another version has taken its place".to_owned()));
            }
            if let Some((number, place)) = inner.links.iter_mut().find(|(_, place)| place.is_some())
                && let Some(link) = place.take()
            {
                return Ok((*number, link));
            }
            // While instances are busy, their jobs end in time. While there is none, it is known for how long.
            let waited = if inner.links.is_empty() { inner.down_since.elapsed() } else { began.elapsed() };
            let Some(left) = wait_max(inner.links.len(), self.spec.budget).checked_sub(waited).filter(|left| !left.is_zero())
            else {
                return Err(Fault::Failed(format!("no instance of {} is free: {}", self.label, inner.why)));
            };
            self.changed.wait_for(&mut inner, left);
        }
    }
}

/// How long to wait for an instance that is free, when so many are there: as long as the jobs that share one may take.
fn wait_max(links: usize, budget: Duration) -> Duration {
    let jobs = u32::try_from(PROGRAM_JOBS_PER_INSTANCE).unwrap_or(u32::MAX);
    if links == 0 { PROGRAM_WAIT_MAX } else { PROGRAM_WAIT_MAX.max(budget.saturating_mul(jobs)) }
}

impl Program for Pool {
    fn identity(&self) -> Result<ProgramIdentity, Fault> {
        let known = self.inner.lock().identity.clone();
        match known {
            Some(identity) => Ok(identity),
            None => {
                let (number, link) = self.wait(None)?;
                self.give_back(number, link);
                self.inner.lock().identity.clone().ok_or_else(|| Fault::Failed(ENDS.to_owned()))
            }
        }
    }

    fn resolve(&self, who: &ProgramIdentity, state: &str, events: &[String]) -> Result<Vec<Decided>, Fault> {
        self.ask(who, events.len(), |link| link.resolve(state, events, self.spec.budget))
    }

    fn migrate(&self, who: &ProgramIdentity, state: &str, from: u32) -> Result<Result<Arc<str>, String>, Fault> {
        self.ask(who, 0, |link| link.migrate(state, from, self.spec.budget))
    }
}

impl Pool {
    /// Asks an instance of this version. One that gives no answer is given up.
    fn ask<T>(
        &self,
        who: &ProgramIdentity,
        events: usize,
        ask: impl FnOnce(&mut Link) -> Result<T, LinkError>,
    ) -> Result<T, Fault> {
        let (number, mut link) = self.wait(Some(who))?;
        let began = Instant::now();
        match ask(&mut link) {
            Ok(answer) => {
                if matches!(self.spec.source, ProgramSource::Command(_)) {
                    self.inner.lock().proven.insert(number);
                }
                self.give_back(number, link);
                self.meters.seconds.record(began.elapsed());
                Ok(answer)
            }
            Err(error) => {
                self.meters.failures.increment(1);
                tracing::warn!(program = link.label, events, "the program failed: {error}");
                drop(link);
                self.lose(number, &error.to_string());
                Err(Fault::Failed(error.to_string()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::limits::PROGRAM_BUDGET_MS_MAX;
    use crate::rules::frames::{self, Encoding};

    /// An instance of this version says hello: the number of its connection, and its own end of that.
    fn joins(pool: &Pool, version: u32) -> (u64, UnixStream) {
        let (mut its, ours) = UnixStream::pair().expect("a pair");
        let hello = format!(r#"{{"type":"hello","protocol":1,"name":"quiz","version":{version}}}"#);
        its.write_all(&frames::write(Encoding::Json, &hello).expect("a frame")).expect("written");
        let number = pool.connected(&ours).expect("connected");
        let (link, identity) = Link::greet(ours, format!("quiz {number}"), Duration::from_secs(5)).expect("a hello");
        pool.add(number, link, identity).expect("added");
        (number, its)
    }

    #[test]
    fn an_instance_of_the_version_before_does_not_count() {
        let (sender, trouble) = watch::channel(None);
        let source = ProgramSource::Command(vec!["quiz".to_owned()]);
        let spec = ProgramSpec { source, folder: None, instances: 1, budget: Duration::from_millis(50) };
        let pool = Pool::new(spec, 0, Troubles::new(sender));
        assert_eq!(trouble.borrow().as_deref(), Some("quiz: 0 of 1 instances are there: none has said hello yet"));
        let (first, _first) = joins(&pool, 1);
        assert_eq!(*trouble.borrow(), None);

        // Somebody still asks it when the next version comes.
        let link = pool.take(first).expect("free");
        let (second, _second) = joins(&pool, 2);
        assert_eq!(*trouble.borrow(), None, "all that are wanted are there");
        pool.lose(second, "it died");
        assert_eq!(trouble.borrow().as_deref(), Some("quiz: 0 of 1 instances are there: it died"));
        pool.give_back(first, link);
        assert!(!pool.has(first), "it is given up when it has answered");
        joins(&pool, 2);
        assert_eq!(*trouble.borrow(), None);
    }

    #[test]
    fn a_job_waits_as_long_as_the_one_before_it_may_take() {
        let longest = Duration::from_millis(PROGRAM_BUDGET_MS_MAX);
        assert!(wait_max(1, longest) > longest, "the one before it has only begun");
        assert_eq!(wait_max(1, Duration::from_millis(50)), PROGRAM_WAIT_MAX);
        assert_eq!(wait_max(0, longest), PROGRAM_WAIT_MAX, "nobody works: nothing ends in time");
    }
}

//! The threads that programs are decided on: each has its own contexts, which never change threads.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Condvar, Mutex};

use crate::limits::PROGRAM_THREAD_STACK_BYTES;

type Task = Box<dyn FnOnce() + Send>;

/// So many threads take the tasks in turn. They start when there is something to do. The queue is as long as the core lets it become:
/// it bounds the jobs.
pub(super) struct Threads {
    shared: Arc<Shared>,
    /// How many threads work, beside those that were given up.
    most: usize,
    /// The tasks that were not given up, and whether they are done or given up, whichever is first.
    running: HashMap<u64, Arc<AtomicBool>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<(Task, Arc<AtomicBool>)>,
    /// Threads that wait for a task.
    idle: usize,
    /// Threads that are not given up.
    working: usize,
    /// All threads.
    alive: usize,
    closed: bool,
}

impl Threads {
    pub(super) fn new(most: usize) -> Self {
        Self { shared: Arc::default(), most: most.max(1), running: HashMap::new() }
    }

    /// Runs a task on one of the threads. `token` names it.
    pub(super) fn run(&mut self, token: u64, task: impl FnOnce() + Send + 'static) {
        let ended = Arc::new(AtomicBool::new(false));
        self.running.insert(token, ended.clone());
        let needs_one = {
            let mut state = self.shared.state.lock();
            state.queue.push_back((Box::new(task), ended));
            state.queue.len() > state.idle && state.working < self.most
        };
        if needs_one {
            self.start();
        } else {
            self.shared.wake.notify_one();
        }
    }

    /// A task is done.
    pub(super) fn done(&mut self, token: u64) {
        self.running.remove(&token);
    }

    /// A task hangs. It keeps its thread, and another one takes its place. Should the task end, its thread ends, too.
    pub(super) fn give_up(&mut self, token: u64) {
        if self.running.remove(&token).is_some_and(|ended| !ended.swap(true, Ordering::AcqRel)) {
            self.shared.state.lock().working -= 1;
            self.start();
        }
    }

    fn start(&self) {
        let number = {
            let mut state = self.shared.state.lock();
            state.working += 1;
            state.alive += 1;
            state.alive
        };
        let shared = self.shared.clone();
        let thread = std::thread::Builder::new().name(format!("rules-{number}")).stack_size(PROGRAM_THREAD_STACK_BYTES);
        if let Err(error) = thread.spawn(move || shared.work()) {
            tracing::error!(%error, "a thread for programs cannot start: their rooms wait until one can");
            let mut state = self.shared.state.lock();
            state.working -= 1;
            state.alive -= 1;
        }
    }
}

impl Drop for Threads {
    /// The threads end when they are done. Nobody waits for those that never are.
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.wake.notify_all();
    }
}

impl Shared {
    fn work(&self) {
        while let Some((task, ended)) = self.next() {
            if catch_unwind(AssertUnwindSafe(task)).is_err() {
                tracing::error!("a job of a program panicked");
            }
            if ended.swap(true, Ordering::AcqRel) {
                // It was given up, and replaced.
                self.state.lock().alive -= 1;
                return;
            }
        }
    }

    /// The next task. None when there will be none.
    fn next(&self) -> Option<(Task, Arc<AtomicBool>)> {
        let mut state = self.state.lock();
        loop {
            if let Some(task) = state.queue.pop_front() {
                return Some(task);
            }
            if state.closed {
                state.working -= 1;
                state.alive -= 1;
                return None;
            }
            state.idle += 1;
            self.wake.wait(&mut state);
            state.idle -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn wait_for(threads: &Threads, condition: impl Fn(&State) -> bool) {
        while !condition(&threads.shared.state.lock()) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn tasks_run_on_a_bounded_number_of_threads() {
        let mut threads = Threads::new(2);
        let (sender, names) = mpsc::channel();
        for token in 0..100 {
            let sender = sender.clone();
            threads.run(token, move || sender.send(std::thread::current().name().map(str::to_owned)).expect("a receiver"));
        }
        let mut names: Vec<_> = names.iter().take(100).collect();
        names.sort();
        names.dedup();
        assert!(names.len() <= 2 && names.iter().flatten().all(|name| name.starts_with("rules-")), "{names:?}");
        (0..100).for_each(|token| threads.done(token));
        assert!(threads.running.is_empty());
    }

    #[test]
    fn a_task_that_hangs_is_replaced_and_leaves_no_thread_behind() {
        let mut threads = Threads::new(1);
        let (release, held) = mpsc::channel::<()>();
        threads.run(1, move || held.recv().expect("released"));
        let (sender, done) = mpsc::channel();
        threads.run(2, move || sender.send(()).expect("a receiver"));
        wait_for(&threads, |state| state.queue.len() == 1);
        threads.give_up(1);
        done.recv().expect("the other thread runs it");
        assert_eq!(threads.shared.state.lock().alive, 2);
        threads.give_up(1);
        release.send(()).expect("it waits");
        wait_for(&threads, |state| state.alive == 1 && state.working == 1 && state.idle == 1);
        let shared = threads.shared.clone();
        drop(threads);
        while shared.state.lock().alive > 0 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_task_that_panics_leaves_its_thread_alive() {
        let mut threads = Threads::new(1);
        threads.run(1, || panic!("as it must"));
        let (sender, done) = mpsc::channel();
        threads.run(2, move || sender.send(()).expect("a receiver"));
        done.recv().expect("the thread goes on");
    }
}

//! Bytes from anywhere: whatever is read (clients' messages, tokens, the journal's entries, verdicts, snapshots and pushes,
//! Redis' replies, dumps, configuration files) is an error or a value. Never a panic, never an endless loop, and never more
//! memory than a multiple of what was given: a length that is announced is not believed.
#![expect(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

mod bytes;
mod replies;
mod valid;

struct Counting;

thread_local! {
    /// What this thread has allocated and not freed, and the most it ever had since it was last asked.
    static LIVE: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

fn count(bytes: isize) {
    // A thread that is ending counts no more.
    let _ = LIVE.try_with(|live| {
        let now = live.get().0 + bytes;
        live.set((now, live.get().1.max(now)));
    });
}

// SAFETY: all is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as promised to this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as promised to this function.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most memory that `work` held at one time, in bytes.
fn peak<T>(work: impl FnOnce() -> T) -> usize {
    let before = LIVE.with(|live| {
        live.set((live.get().0, live.get().0));
        live.get().0
    });
    drop(work());
    usize::try_from(LIVE.with(|live| live.get().1) - before).unwrap_or(0)
}

/// Fails when reading `given` bytes took more than `times` as many, beside `fixed`.
#[track_caller]
fn bounded<T>(given: usize, times: usize, fixed: usize, work: impl FnOnce() -> T) {
    let took = peak(work);
    assert!(took <= given * times + fixed, "{took} bytes of memory for {given} bytes given");
}

#[test]
fn the_peak_of_a_thread_is_measured() {
    assert_eq!(peak(|| Vec::<u8>::with_capacity(1 << 20)), 1 << 20);
    assert!(peak(|| drop(vec![1_u8; 4096])) < 8192);
}

//! Waiting for an instant to within microseconds: tokio's own timers round up to the next millisecond.

use std::io;

use tokio::time::Instant;

use crate::limits::SPIN;

/// A timer of its own.
#[derive(Debug)]
pub(crate) struct Pacer(Timer);

impl Pacer {
    /// A new one; needs a running tokio runtime.
    pub(crate) fn new() -> io::Result<Self> {
        Timer::new().map(Self)
    }

    /// Returns at `at` or a little later; when that has passed, after everything else that is ready has run once.
    pub(crate) async fn until(&mut self, at: Instant) -> io::Result<()> {
        let left = at.saturating_duration_since(Instant::now());
        if left >= SPIN * 4 {
            self.0.sleep(left - SPIN).await?;
        } else if !left.is_zero() {
            return self.0.sleep(left).await;
        }
        // Each turn lets all other tasks and the sockets have theirs.
        loop {
            tokio::task::yield_now().await;
            if Instant::now() >= at {
                return Ok(());
            }
        }
    }
}

#[cfg(target_os = "linux")]
use linux::Timer;

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::os::fd::{AsFd, AsRawFd, RawFd};
    use std::time::Duration;

    use nix::sys::time::TimeSpec;
    use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
    use tokio::io::unix::AsyncFd;
    use tokio::time::Instant;

    #[derive(Debug)]
    struct Fd(TimerFd);

    impl AsRawFd for Fd {
        fn as_raw_fd(&self) -> RawFd {
            self.0.as_fd().as_raw_fd()
        }
    }

    #[derive(Debug)]
    pub(super) struct Timer(AsyncFd<Fd>);

    impl Timer {
        pub(super) fn new() -> io::Result<Self> {
            let fd = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
            #[expect(
                deprecated,
                reason = "its successor is unsafe code; `Fd` owns its descriptor and never changes it, as both ask"
            )]
            AsyncFd::new(Fd(fd)).map(Self)
        }

        pub(super) async fn sleep(&mut self, time: Duration) -> io::Result<()> {
            let until = Instant::now() + time;
            let once = Expiration::OneShot(TimeSpec::from_duration(time));
            // Setting it takes back that it expired before, so that it is never read: at high rates this is called often.
            self.0.get_ref().0.set(once, TimerSetTimeFlags::empty())?;
            loop {
                self.0.readable().await?.clear_ready();
                if Instant::now() >= until {
                    return Ok(());
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
struct Timer;

#[cfg(not(target_os = "linux"))]
impl Timer {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn sleep(&mut self, time: std::time::Duration) -> io::Result<()> {
        tokio::time::sleep(time).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn it_is_never_early_and_mostly_exact() {
        let mut pacer = Pacer::new().expect("timer");
        let mut late = Vec::new();
        for _ in 0..50 {
            let at = Instant::now() + Duration::from_micros(300);
            pacer.until(at).await.expect("wait");
            late.push(Instant::now().checked_duration_since(at).expect("not early"));
        }
        late.sort();
        // On a busy machine the later ones are anybody's guess; whole milliseconds would show in the fastest.
        assert!(late[5] < Duration::from_micros(500), "{late:?}");
        pacer.until(Instant::now()).await.expect("the past is no wait");
    }
}

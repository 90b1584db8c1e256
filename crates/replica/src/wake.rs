//! Wakes a thread that waits in `poll`.

use environment::{Parked, Simulation, ThreadId};
use network::PollSet;
use rustix::event::{EventfdFlags, eventfd};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// An eventfd that is written at most once before it is read. Clones wake the same thread.
#[derive(Clone, Debug)]
pub struct Waker {
    inner: Arc<Inner>,
}

struct Inner {
    fd: OwnedFd,
    woken: AtomicBool,
    /// In a simulation the thread that waits, which made this, is unparked as well.
    simulated: Option<(Arc<dyn Simulation>, ThreadId)>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waker").field("woken", &self.woken).finish()
    }
}

impl Waker {
    /// A new one, not woken.
    pub fn new() -> io::Result<Waker> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Waker {
            inner: Arc::new(Inner {
                fd,
                woken: AtomicBool::new(false),
                simulated: environment::current().map(|simulation| {
                    let thread = simulation.this_thread();
                    (simulation, thread)
                }),
            }),
        })
    }

    /// Wakes the thread; cheap when it was woken already.
    pub fn wake(&self) {
        if !self.inner.woken.swap(true, Ordering::AcqRel) {
            // It cannot overflow: it is written once before each read.
            let _written = rustix::io::write(&self.inner.fd, &1u64.to_ne_bytes());
            if let Some((simulation, thread)) = &self.inner.simulated {
                simulation.unpark(*thread);
            }
        }
    }

    /// The woken thread calls this before it looks at what there is.
    pub fn clear(&self) {
        let mut buffer = [0; 8];
        // Empty when the poll ended for another reason.
        let _read = rustix::io::read(&self.inner.fd, &mut buffer);
        self.inner.woken.store(false, Ordering::Release);
    }

    /// Waits until it is woken, at most for `timeout`, and clears it: for the thread that made it, if it waits
    /// for nothing else.
    ///
    /// # Errors
    /// The host does not let it wait, or the process is ended.
    pub fn wait(&self, timeout: Duration) -> io::Result<()> {
        match &self.inner.simulated {
            None => {
                let mut set = PollSet::new();
                set.add(self.fd(), (), true, false);
                set.wait(Some(timeout))?;
            }
            Some((simulation, _)) => {
                let until_ns = simulation.monotonic_ns() + timeout.as_nanos() as u64;
                while !self.inner.woken.load(Ordering::Acquire)
                    && simulation.monotonic_ns() < until_ns
                {
                    if let Parked::Dying(_) = simulation.park(Some(until_ns)) {
                        return Err(io::ErrorKind::Interrupted.into());
                    }
                }
            }
        }
        self.clear();
        Ok(())
    }

    /// To be polled for reading.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.inner.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn is_readable(waker: &Waker) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(waker.fd(), PollFlags::IN)];
        poll(
            &mut fds,
            Some(&Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            }),
        )
        .unwrap()
            == 1
    }

    #[test]
    fn it_is_readable_from_the_wake_to_the_clear() {
        let waker = Waker::new().unwrap();
        assert!(!is_readable(&waker));
        waker.wake();
        waker.clone().wake();
        assert!(is_readable(&waker));
        waker.clear();
        assert!(!is_readable(&waker));
        waker.wake();
        assert!(is_readable(&waker));
    }
}

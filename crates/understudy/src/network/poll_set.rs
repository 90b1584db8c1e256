//! The descriptors that one turn of the event loop waits for.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// Descriptors with what each means to the loop.
pub(crate) struct PollSet<'fd, Token> {
    polled: Vec<PollFd<'fd>>,
    tokens: Vec<Token>,
}

/// What a descriptor is ready for. An error or an end is both: reading or writing tells which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Readiness {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

impl<'fd, Token> PollSet<'fd, Token> {
    pub(crate) fn new() -> PollSet<'fd, Token> {
        PollSet {
            polled: Vec::new(),
            tokens: Vec::new(),
        }
    }

    /// Waits for `fd` to become readable or writable; not at all when neither is wanted, since
    /// `poll` would report an ended connection again and again.
    pub(crate) fn add(&mut self, fd: BorrowedFd<'fd>, token: Token, read: bool, write: bool) {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, read);
        flags.set(PollFlags::OUT, write);
        if !flags.is_empty() {
            self.polled.push(PollFd::from_borrowed_fd(fd, flags));
            self.tokens.push(token);
        }
    }

    /// Waits for at most `timeout`, for ever without one; returns what is ready, in the order in
    /// which it was added.
    pub(crate) fn wait(mut self, timeout: Option<Duration>) -> io::Result<Vec<(Token, Readiness)>> {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs().min(1 << 30) as i64,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        match poll(&mut self.polled, timeout.as_ref()) {
            Ok(0) | Err(Errno::INTR) => return Ok(Vec::new()),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = self
            .polled
            .iter()
            .zip(self.tokens)
            .filter_map(|(polled, token)| {
                let flags = polled.revents();
                let ended = flags.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL);
                let readiness = Readiness {
                    readable: ended || flags.contains(PollFlags::IN),
                    writable: ended || flags.contains(PollFlags::OUT),
                };
                (!flags.is_empty()).then_some((token, readiness))
            });
        Ok(ready.collect())
    }
}

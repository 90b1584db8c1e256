//! The descriptors that one turn of the event loop waits for.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// Descriptors with what each means to the loop.
#[derive(Debug)]
pub struct PollSet<'fd, Token> {
    polled: Vec<PollFd<'fd>>,
    tokens: Vec<Token>,
}

/// What a descriptor is ready for. An error or an end is both: reading or writing tells which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Reading tells something.
    pub readable: bool,
    /// Writing may go on, or tells that it cannot.
    pub writable: bool,
}

impl<Token> Default for PollSet<'_, Token> {
    fn default() -> Self {
        PollSet::new()
    }
}

impl<'fd, Token> PollSet<'fd, Token> {
    /// No descriptor yet.
    pub fn new() -> PollSet<'fd, Token> {
        PollSet {
            polled: Vec::new(),
            tokens: Vec::new(),
        }
    }

    /// Waits for `fd` to become readable or writable; not at all when neither is wanted, since
    /// `poll` would report an ended connection again and again.
    pub fn add(&mut self, fd: BorrowedFd<'fd>, token: Token, read: bool, write: bool) {
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
    pub fn wait(mut self, timeout: Option<Duration>) -> io::Result<Vec<(Token, Readiness)>> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn an_ended_stream_is_readable_a_silent_one_is_not_and_an_unwanted_one_is_not_told() {
        let (first, mut second) = UnixStream::pair().unwrap();
        let (third, fourth) = UnixStream::pair().unwrap();
        let (silent, _peer) = UnixStream::pair().unwrap();
        second.write_all(b"x").unwrap();
        drop(fourth);
        let mut set = PollSet::new();
        set.add(first.as_fd(), "bytes", true, false);
        set.add(third.as_fd(), "ended", true, false);
        set.add(silent.as_fd(), "silent", true, true);
        set.add(first.as_fd(), "unwanted", false, false);
        let ready = set.wait(Some(Duration::ZERO)).unwrap();
        let told: Vec<_> = ready
            .iter()
            .map(|(token, ready)| (*token, ready.readable, ready.writable))
            .collect();
        let expected = [
            ("bytes", true, false),
            ("ended", true, true),
            ("silent", false, true),
        ];
        assert_eq!(told, expected);
    }
}

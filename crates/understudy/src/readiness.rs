//! Waits until one of several descriptors is ready.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// What a descriptor is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Something can be read.
    Read,
    /// Something can be read or written.
    ReadWrite,
    /// Nothing; the descriptor only keeps its place.
    Nothing,
}

/// What a descriptor is ready for. An error or an end counts as readable: reading tells which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Reading tells something.
    pub read: bool,
    /// Writing may go on.
    pub write: bool,
}

/// Waits for at most `timeout`, for ever without one. The answer has the order of `fds`.
pub fn wait(
    fds: &[(BorrowedFd<'_>, Interest)],
    timeout: Option<Duration>,
) -> io::Result<Vec<Ready>> {
    let mut polled: Vec<PollFd<'_>> = fds
        .iter()
        .map(|(fd, interest)| {
            let flags = match interest {
                Interest::Read => PollFlags::IN,
                Interest::ReadWrite => PollFlags::IN | PollFlags::OUT,
                Interest::Nothing => PollFlags::empty(),
            };
            PollFd::from_borrowed_fd(*fd, flags)
        })
        .collect();
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: timeout.as_secs().min(1 << 30) as i64,
        tv_nsec: i64::from(timeout.subsec_nanos()),
    });
    match poll(&mut polled, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(polled
        .iter()
        .zip(fds)
        .map(|(polled, (_, interest))| {
            let flags = polled.revents();
            let ended = flags.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL);
            Ready {
                read: *interest != Interest::Nothing && (flags.contains(PollFlags::IN) || ended),
                write: flags.contains(PollFlags::OUT),
            }
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn an_ended_stream_is_readable_and_a_silent_one_is_not() {
        let (first, mut second) = UnixStream::pair().unwrap();
        let (third, fourth) = UnixStream::pair().unwrap();
        let (silent, _peer) = UnixStream::pair().unwrap();
        second.write_all(b"x").unwrap();
        drop(fourth);
        let fds = [
            (first.as_fd(), Interest::Read),
            (third.as_fd(), Interest::Read),
            (silent.as_fd(), Interest::ReadWrite),
            (first.as_fd(), Interest::Nothing),
        ];
        let ready = wait(&fds, Some(Duration::ZERO)).unwrap();
        let read: Vec<bool> = ready.iter().map(|ready| ready.read).collect();
        assert_eq!(read, [true, true, false, false]);
        assert!(ready[2].write);
    }
}

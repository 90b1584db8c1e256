//! SIGTERM and SIGINT as something to poll.

use crate::simulation::with_current;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// Becomes readable when the process is asked to end.
#[derive(Debug)]
pub struct StopSignals {
    receiver: UnixStream,
}

impl StopSignals {
    /// Catches SIGTERM, SIGINT and SIGHUP from now on.
    ///
    /// # Errors
    /// The host does not let it.
    pub fn catch() -> io::Result<StopSignals> {
        let (receiver, sender) = UnixStream::pair()?;
        receiver.set_nonblocking(true)?;
        let simulated = sender.try_clone()?;
        if with_current(|simulation| simulation.ask_to_end_by(simulated)).is_none() {
            for signal in [SIGTERM, SIGINT, SIGHUP] {
                signal_hook::low_level::pipe::register(signal, sender.try_clone()?)?;
            }
        }
        Ok(StopSignals { receiver })
    }
    /// Whether a signal came since the last call.
    pub fn arrived(&self) -> bool {
        let mut buffer = [0; 16];
        matches!((&self.receiver).read(&mut buffer), Ok(length) if length > 0)
    }

    /// To be polled for reading.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.receiver.as_fd()
    }
}

//! Files that go with the process, also when a signal ends it.

use crate::exit::ExitStatus;
use replica::StopSignals;
use rustix::event::{PollFd, PollFlags, poll};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::exit;
use std::thread;

/// From now on SIGINT, SIGTERM and SIGHUP remove this file before they end the process.
///
/// # Errors
/// The host lets nobody catch signals, or gives no thread.
pub fn remove_when_stopped(path: &Path) -> io::Result<()> {
    let signals = StopSignals::catch()?;
    let path = path.to_owned();
    thread::Builder::new()
        .name("leftovers".into())
        .spawn(move || end_when_stopped(&signals, &path))?;
    Ok(())
}

fn end_when_stopped(signals: &StopSignals, path: &PathBuf) {
    loop {
        let mut waited_for = [PollFd::from_borrowed_fd(signals.fd(), PollFlags::IN)];
        // An interruption is a signal that arrives.
        let _polled = poll(&mut waited_for, None);
        if signals.arrived() {
            // It may have got its name, or be gone.
            let _removed = fs::remove_file(path);
            eprintln!("understudy: ended by a signal");
            exit(ExitStatus::Failure.code().into());
        }
    }
}

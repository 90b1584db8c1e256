//! The control socket: one JSON document, the replica's status, for each connection.

use crate::state_directory::StateDirectory;
use crate::status::ReplicaStatus;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// The socket's name in the state directory.
pub const SOCKET_NAME: &str = "control.sock";
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// No status is longer.
const ANSWER_LIMIT: u64 = 1 << 20;

/// The control socket cannot be made.
#[derive(Debug, Error)]
pub enum ControlError {
    /// The socket cannot be bound.
    #[error("cannot make the control socket in {}: {source}", directory.display())]
    Bind {
        /// The state directory.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The listening end; the file is removed when it is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ControlSocket {
    /// Binds the socket in `directory`, which is this process's own: what is there was left behind by
    /// a dead one.
    pub fn bind(directory: &StateDirectory) -> Result<ControlSocket, ControlError> {
        let directory = directory.path();
        let path = directory.join(SOCKET_NAME);
        let bind = || {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = with_short_path(directory, |short| UnixListener::bind(short))?;
            fs::set_permissions(&path, Permissions::from_mode(0o600))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listener = bind().map_err(|source| ControlError::Bind {
            directory: directory.into(),
            source,
        })?;
        Ok(ControlSocket { listener, path })
    }

    /// To be polled for reading.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Answers everybody who waits.
    pub fn answer(&self, status: impl Fn() -> ReplicaStatus) {
        while let Ok((stream, _)) = self.listener.accept() {
            // Whoever does not take the answer at once goes without it: the socket's buffer holds
            // it, and the event loop waits for nobody.
            let _answered = answer_one(stream, &status());
        }
    }

    /// Waits for one question and answers it.
    #[cfg(test)]
    pub fn wait_and_answer(&self, status: &ReplicaStatus) -> io::Result<()> {
        self.listener.set_nonblocking(false)?;
        answer_one(self.listener.accept()?.0, status)
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _removed = std::fs::remove_file(&self.path);
    }
}

fn answer_one(mut stream: UnixStream, status: &ReplicaStatus) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    let mut json = serde_json::to_vec(status)?;
    json.push(b'\n');
    stream.write_all(&json)
}

/// Asks the replica whose state directory this is.
pub fn ask(directory: &Path) -> io::Result<ReplicaStatus> {
    let stream = with_short_path(directory, |short| UnixStream::connect(short))?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let mut json = Vec::new();
    stream.take(ANSWER_LIMIT).read_to_end(&mut json)?;
    Ok(serde_json::from_slice(&json)?)
}

/// The socket's path through an open directory: a Unix socket's address holds 107 bytes only,
/// a state directory may be deeper.
fn with_short_path<T>(
    directory: &Path,
    use_path: impl FnOnce(&Path) -> io::Result<T>,
) -> io::Result<T> {
    let opened = File::open(directory)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd())).join(SOCKET_NAME);
    use_path(&short)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(pid: u32) -> ReplicaStatus {
        ReplicaStatus {
            role: "backup".into(),
            pid,
            ..ReplicaStatus::default()
        }
    }

    #[test]
    fn a_socket_of_a_dead_process_is_replaced() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("d".repeat(120));
        let directory = StateDirectory::take(&path).unwrap();
        File::create(path.join(SOCKET_NAME)).unwrap();
        let socket = ControlSocket::bind(&directory).unwrap();
        let asked = std::thread::scope(|scope| {
            let asked = scope.spawn(|| ask(&path));
            socket.wait_and_answer(&status(17)).unwrap();
            asked.join().unwrap().unwrap()
        });
        assert_eq!(asked.pid, 17);
    }
}

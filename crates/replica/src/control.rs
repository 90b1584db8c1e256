//! The control socket in the state directory: a request a connection, a line of JSON, and its answer.

mod client;
mod request;
mod socket;

pub use client::{ask, attach, snapshot, status};
pub use request::{Answer, Button, Request, Word};
pub use socket::{ControlError, ControlSocket, ConversationId};

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// The socket's name in the state directory.
pub const SOCKET_NAME: &str = "control.sock";

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
    use crate::state_directory::StateDirectory;
    use crate::status::ReplicaStatus;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    /// Serves until one request was answered as `answer` says.
    fn serve_one(socket: &mut ControlSocket, answer: impl Fn(&Request) -> Answer) {
        loop {
            socket.accept();
            for id in socket.conversations() {
                if let Some(request) = socket.read(id) {
                    let answer = answer(&request);
                    return socket.answer(id, &answer);
                }
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_socket_of_a_dead_process_is_replaced_and_answers() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("d".repeat(120));
        let directory = StateDirectory::take(&path).unwrap();
        File::create(path.join(SOCKET_NAME)).unwrap();
        let mut socket = ControlSocket::bind(&directory).unwrap();
        let asked = std::thread::scope(|scope| {
            let asked = scope.spawn(|| status(&path));
            serve_one(&mut socket, |request| {
                assert_eq!(*request, Request::Status);
                Answer::Status(Box::new(ReplicaStatus {
                    role: "backup".into(),
                    pid: 17,
                    ..ReplicaStatus::default()
                }))
            });
            asked.join().unwrap().unwrap()
        });
        assert_eq!(asked.pid, 17);
    }

    #[test]
    fn nonsense_silence_and_a_flood_of_both_leave_room_for_a_request() {
        let parent = tempfile::tempdir().unwrap();
        let directory = StateDirectory::take(&parent.path().join("state")).unwrap();
        let path = directory.path().to_owned();
        let mut socket = ControlSocket::bind(&directory).unwrap();
        let connect = || with_short_path(&path, |short| UnixStream::connect(short)).unwrap();
        let silent: Vec<UnixStream> = (0..40).map(|_| connect()).collect();
        let mut nonsense = connect();
        nonsense.write_all(b"{\"word\":7}\n").unwrap();
        let mut endless = connect();
        endless.write_all(&[b' '; 8192]).unwrap();
        let word = Word {
            without: vec!["b".into()],
            new_life: false,
        };
        let said = std::thread::scope(|scope| {
            let asked = scope.spawn(|| ask(&path, &Request::Word(word.clone())));
            serve_one(&mut socket, |request| {
                assert_eq!(*request, Request::Word(word.clone()));
                Answer::Done("so be it".into())
            });
            asked.join().unwrap().unwrap()
        });
        assert_eq!(said, Answer::Done("so be it".into()));
        assert!(socket.conversations().len() < silent.len());
    }
}

//! Asks a replica.

use super::{Answer, Request, with_short_path};
use crate::status::ReplicaStatus;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long an answer may take. A person's word takes as long as peers and arbiter, and so does a
/// switchover, whose host gives up before. A button may be passed on.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);
const BUTTON_TIMEOUT: Duration = Duration::from_secs(10);
const WORD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may take until a snapshot begins, and for how long nothing may come of it: another one may be
/// under way, or its host may be busy.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(60);
/// No answer is longer.
const ANSWER_LIMIT: u64 = 1 << 20;

/// Asks the replica whose state directory this is.
///
/// # Errors
/// Nobody answers; [`io::ErrorKind::UnexpectedEof`]: the replica ended before it did.
pub fn ask(directory: &Path, request: &Request) -> io::Result<Answer> {
    let mut stream = with_short_path(directory, |short| UnixStream::connect(short))?;
    let timeout = match request {
        Request::Status | Request::WouldTake(_) => STATUS_TIMEOUT,
        Request::Press(_) | Request::Fenced => BUTTON_TIMEOUT,
        Request::Word(_) | Request::SwitchOver { .. } | Request::MoveArbiter { .. } => WORD_TIMEOUT,
        Request::Console | Request::Snapshot { .. } => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a console or a snapshot is no question: attach to it",
            ));
        }
    };
    send(&mut stream, request, timeout)?;
    let mut json = Vec::new();
    stream.take(ANSWER_LIMIT).read_to_end(&mut json)?;
    if json.is_empty() {
        let why = "the replica ended before it answered";
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
    }
    Ok(serde_json::from_slice(&json)?)
}

fn send(stream: &mut UnixStream, request: &Request, timeout: Duration) -> io::Result<()> {
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// Attaches to the console of the machine that is live in the replica whose state directory this is.
///
/// # Errors
/// Nobody answers, or nothing is live there: the error's text is the replica's.
pub fn attach(directory: &Path) -> io::Result<UnixStream> {
    converse(directory, &Request::Console, STATUS_TIMEOUT)
}

/// Has the replica whose state directory this is take a snapshot, whose file comes on the connection.
///
/// # Errors
/// Nobody answers, or it cannot be taken there: then the kind is [`io::ErrorKind::Other`], and the text is the
/// replica's.
pub fn snapshot(directory: &Path, here: bool) -> io::Result<UnixStream> {
    converse(directory, &Request::Snapshot { here }, SNAPSHOT_TIMEOUT)
}

/// Asks for what is more than an answer.
fn converse(directory: &Path, request: &Request, timeout: Duration) -> io::Result<UnixStream> {
    let mut stream = with_short_path(directory, |short| UnixStream::connect(short))?;
    send(&mut stream, request, timeout)?;
    match serde_json::from_slice(&read_line(&stream)?)? {
        Answer::Done(_) => Ok(stream),
        Answer::Refused(why) => Err(io::Error::other(why)),
        Answer::Status(_) => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Byte by byte: what follows the line is the guest's.
fn read_line(mut stream: &UnixStream) -> io::Result<Vec<u8>> {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while line.len() < ANSWER_LIMIT as usize {
        stream.read_exact(&mut byte)?;
        if byte[0] == b'\n' {
            return Ok(line);
        }
        line.push(byte[0]);
    }
    Err(io::ErrorKind::InvalidData.into())
}

/// The status of the replica whose state directory this is.
pub fn status(directory: &Path) -> io::Result<ReplicaStatus> {
    match ask(directory, &Request::Status)? {
        Answer::Status(status) => Ok(*status),
        Answer::Done(text) | Answer::Refused(text) => {
            Err(io::Error::new(io::ErrorKind::InvalidData, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use environment::thread;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_replica_that_ends_before_it_answers_is_no_replica_that_does_not_answer() {
        let directory = tempfile::tempdir().unwrap();
        let listener =
            with_short_path(directory.path(), |short| UnixListener::bind(short)).unwrap();
        let ends = thread::Builder::new().spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            read_line(&stream).unwrap();
        });
        let error = ask(directory.path(), &Request::Status).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{error}");
        ends.unwrap().join().unwrap();
    }
}

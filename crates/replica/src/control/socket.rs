//! The replica's end.

use super::{Answer, Request, SOCKET_NAME, with_short_path};
use crate::host_time::monotonic;
use crate::state_directory::StateDirectory;
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// Conversations at once; the oldest ends for one more.
const CONVERSATION_LIMIT: usize = 16;
/// No request is longer.
const REQUEST_LIMIT_BYTES: usize = 4096;
/// Bytes that may wait for somebody at the console; who is further behind is let go.
const CONSOLE_LIMIT_BYTES: usize = 256 << 10;
/// Typed bytes that are taken at once.
const TYPED_BYTES: usize = 1024;
/// How long a request may take to come.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

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

/// Names somebody who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConversationId(u64);

#[derive(Debug)]
struct Conversation {
    stream: UnixStream,
    request: Vec<u8>,
    state: State,
    since: Duration,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// The request has not come yet, or not as a whole.
    Asking,
    /// It is not answered yet.
    Asked,
    /// At the guest's console; what the guest printed and did not yet go out.
    Console(Vec<u8>),
}

/// The listening end, and everybody who asks; the file is removed when it is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    conversations: BTreeMap<ConversationId, Conversation>,
    next: u64,
}

impl ControlSocket {
    /// Binds the socket in `directory`, which is this process's own: what is there was left behind by
    /// a dead one.
    pub fn bind(directory: &StateDirectory) -> Result<ControlSocket, ControlError> {
        let directory = directory.path();
        let path = directory.join(SOCKET_NAME);
        let listener = listen(directory, &path).map_err(|source| ControlError::Bind {
            directory: directory.into(),
            source,
        })?;
        Ok(ControlSocket {
            listener,
            path,
            conversations: BTreeMap::new(),
            next: 0,
        })
    }

    /// To be polled for reading.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Those whose request has not come yet, and those at the console, to be polled for reading, and
    /// for writing where that is true.
    pub fn interests(&self) -> impl Iterator<Item = (ConversationId, BorrowedFd<'_>, bool)> {
        self.conversations.iter().filter_map(|(id, conversation)| {
            let writes = match &conversation.state {
                State::Asking => false,
                State::Asked => return None,
                State::Console(waiting) => !waiting.is_empty(),
            };
            Some((*id, conversation.stream.as_fd(), writes))
        })
    }

    /// Lets somebody who asked for it be at the console.
    pub fn attach(&mut self, id: ConversationId) {
        if let Some(conversation) = self.conversations.get_mut(&id) {
            let mut waiting = serde_json::to_vec(&Answer::Done("attached".into()))
                .expect("a text can be written as JSON");
            waiting.push(b'\n');
            conversation.state = State::Console(waiting);
            self.write(id);
        }
    }

    /// Gives the connection of somebody who asked for more than an answer to whoever has a thread for it: whoever
    /// writes to it waits, but not for longer than `patience`. `None`: nobody is there any more.
    pub fn hand_over(&mut self, id: ConversationId, patience: Duration) -> Option<UnixStream> {
        let mut stream = self.conversations.remove(&id)?.stream;
        let mut line = serde_json::to_vec(&Answer::Done("begun".into())).ok()?;
        line.push(b'\n');
        // The socket's buffer holds it.
        stream.write_all(&line).ok()?;
        stream.set_nonblocking(false).ok()?;
        stream.set_write_timeout(Some(patience)).ok()?;
        Some(stream)
    }

    /// Shows everybody at the console what the guest printed.
    pub fn show(&mut self, bytes: &[u8]) {
        let mut shown = Vec::new();
        for (id, conversation) in &mut self.conversations {
            if let State::Console(waiting) = &mut conversation.state {
                waiting.extend_from_slice(bytes);
                shown.push(*id);
            }
        }
        shown.into_iter().for_each(|id| self.write(id));
    }

    /// Whether this is somebody at the console.
    pub fn is_console(&self, id: ConversationId) -> bool {
        let conversation = self.conversations.get(&id);
        conversation.is_some_and(|open| matches!(open.state, State::Console(_)))
    }

    /// What was typed there.
    pub fn typed(&mut self, id: ConversationId) -> Vec<u8> {
        let mut buffer = [0; TYPED_BYTES];
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return Vec::new();
        };
        match conversation.stream.read(&mut buffer) {
            Ok(length) if length > 0 => buffer[..length].to_vec(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Vec::new(),
            Ok(_) | Err(_) => {
                self.conversations.remove(&id);
                Vec::new()
            }
        }
    }

    /// Writes what waits for somebody at the console, as far as that goes.
    pub fn write(&mut self, id: ConversationId) {
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        let State::Console(waiting) = &mut conversation.state else {
            return;
        };
        let is_over = match conversation.stream.write(waiting) {
            Ok(length) => {
                waiting.drain(..length);
                false
            }
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        };
        if is_over || waiting.len() > CONSOLE_LIMIT_BYTES {
            self.conversations.remove(&id);
        }
    }

    /// The machine is live here no more: whoever is at its console looks where it went.
    pub fn detach_all(&mut self) {
        self.conversations
            .retain(|_, open| !matches!(open.state, State::Console(_)));
    }

    /// All that are open.
    #[cfg(test)]
    pub fn conversations(&self) -> Vec<ConversationId> {
        self.conversations.keys().copied().collect()
    }

    /// Takes whoever has connected, and ends what lasts too long.
    pub fn accept(&mut self) {
        let now = monotonic();
        self.conversations
            .retain(|_, open| open.state != State::Asking || now < open.since + REQUEST_TIMEOUT);
        while let Ok((stream, _)) = self.listener.accept() {
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            if self.conversations.len() >= CONVERSATION_LIMIT {
                let open = self.conversations.iter();
                let mut silent = open.filter(|(_, open)| open.state == State::Asking);
                let oldest = silent.next().map(|(id, _)| *id);
                let Some(oldest) = oldest else {
                    // All wait for their answers: this one goes without.
                    continue;
                };
                self.conversations.remove(&oldest);
            }
            let conversation = Conversation {
                stream,
                request: Vec::new(),
                state: State::Asking,
                since: now,
            };
            self.conversations
                .insert(ConversationId(self.next), conversation);
            self.next += 1;
        }
    }

    /// The request, if it is whole by now. What is none ends the conversation.
    pub fn read(&mut self, id: ConversationId) -> Option<Request> {
        let conversation = self.conversations.get_mut(&id)?;
        match conversation.read_line() {
            Ok(None) => None,
            Ok(Some(line)) => match serde_json::from_slice(&line) {
                Ok(request) => {
                    conversation.state = State::Asked;
                    Some(request)
                }
                Err(error) => {
                    self.answer(id, &Answer::Refused(format!("this is no request: {error}")));
                    None
                }
            },
            Err(_) => {
                self.conversations.remove(&id);
                None
            }
        }
    }

    /// Answers, and ends the conversation. Whoever does not take the answer at once goes without it:
    /// the socket's buffer holds it, and the event loop waits for nobody.
    pub fn answer(&mut self, id: ConversationId, answer: &Answer) {
        let Some(mut conversation) = self.conversations.remove(&id) else {
            return;
        };
        if let Ok(mut json) = serde_json::to_vec(answer) {
            json.push(b'\n');
            let _written = conversation.stream.write_all(&json);
        }
    }
}

impl Conversation {
    fn read_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = [0; 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.request.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            if let Some(end) = self.request.iter().position(|byte| *byte == b'\n') {
                self.request.truncate(end);
                return Ok(Some(std::mem::take(&mut self.request)));
            }
            if self.request.len() > REQUEST_LIMIT_BYTES {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _removed = fs::remove_file(&self.path);
    }
}

fn listen(directory: &Path, path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = with_short_path(directory, |short| UnixListener::bind(short))?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

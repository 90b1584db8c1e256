//! Where other hosts come in: a thread of its own accepts connections and lets the members of the machine
//! in. The event loop sees nobody else.
//!
//! A stranger costs this thread a place for a few seconds, and nobody anything else: not the event loop,
//! not a member that is in, not one that is coming in ([`strangers`]).

mod strangers;
#[cfg(test)]
mod tests;

use crate::poll_set::{PollSet, Readiness};
use crate::secure_stream::SecureStream;
use keys::{Keys, Refusal};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use strangers::{Source, Strangers};

/// Whoever has not proved by then who it is does not come in.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(5);
/// Members that wait for the event loop to take them, at most. It takes them at once unless it speaks
/// with nobody new for now.
const MEMBERS_WAITING: usize = 32;
/// …and for how long they wait.
const MEMBER_PATIENCE: Duration = Duration::from_secs(5);
/// Connections that are accepted in one turn.
const ACCEPTED_A_TURN: usize = 64;
/// After the host ran out of descriptors nothing is accepted for this time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Of those who were turned away so many are told of until they are asked for; the rest is counted.
const TOLD: usize = 4;

/// The door as the event loop sees it.
#[derive(Debug)]
pub struct Door {
    shared: Arc<Mutex<Shared>>,
    address: SocketAddr,
    /// The thread ends when this is dropped.
    alive: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread has for the event loop.
#[derive(Debug, Default)]
struct Shared {
    members: VecDeque<(SecureStream, Instant)>,
    turned_away: VecDeque<String>,
    untold: u64,
}

impl Door {
    /// Lets hosts in that come to `listener`; `wake` is called when somebody came, and `begin` first,
    /// both on the thread.
    ///
    /// # Errors
    /// The host gives no thread, or does not let the listener be polled.
    pub fn open(
        listener: TcpListener,
        keys: Keys,
        wake: impl Fn() + Send + 'static,
        begin: impl FnOnce() + Send + 'static,
    ) -> io::Result<Door> {
        Door::open_for(HANDSHAKE_PATIENCE, listener, keys, wake, begin)
    }

    /// As [`Door::open`]; whoever has not proved within `patience` who it is does not come in.
    fn open_for(
        patience: Duration,
        listener: TcpListener,
        keys: Keys,
        wake: impl Fn() + Send + 'static,
        begin: impl FnOnce() + Send + 'static,
    ) -> io::Result<Door> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (alive, ended) = UnixStream::pair()?;
        let shared = Arc::new(Mutex::new(Shared::default()));
        let mut porter = Porter {
            listener,
            keys,
            patience,
            strangers: Strangers::default(),
            shared: shared.clone(),
            wake: Box::new(wake),
            ended,
            accept_again: None,
        };
        let thread = std::thread::Builder::new()
            .name("door".into())
            .spawn(move || {
                begin();
                porter.serve();
            })?;
        Ok(Door {
            shared,
            address,
            alive: Some(alive),
            thread: Some(thread),
        })
    }

    /// Where it listens, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next member that came in. Something that it sent may have been read already: read once,
    /// before polling.
    pub fn member(&self) -> Option<SecureStream> {
        lock(&self.shared)
            .members
            .pop_front()
            .map(|member| member.0)
    }

    /// Who was turned away since the last call, and why; and how many more there were.
    pub fn turned_away(&self) -> (VecDeque<String>, u64) {
        let mut shared = lock(&self.shared);
        let untold = std::mem::take(&mut shared.untold);
        (std::mem::take(&mut shared.turned_away), untold)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.alive = None;
        if let Some(thread) = self.thread.take() {
            // A panic has ended the process.
            let _joined = thread.join();
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // One call each: a panic elsewhere leaves nothing half done.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread.
struct Porter {
    listener: TcpListener,
    keys: Keys,
    /// How long a stranger has.
    patience: Duration,
    strangers: Strangers<SecureStream>,
    shared: Arc<Mutex<Shared>>,
    wake: Box<dyn Fn() + Send>,
    ended: UnixStream,
    accept_again: Option<Instant>,
}

#[derive(Clone, Copy)]
enum Token {
    Ended,
    Listener,
    Stranger(u64),
}

impl Porter {
    fn serve(&mut self) {
        loop {
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(error) => {
                    // Without descriptors or memory to wait with: that passes, and so does the door.
                    self.turned_away(format!("nobody can come in for now: {error}"));
                    std::thread::sleep(ACCEPT_PAUSE);
                    continue;
                }
            };
            let now = Instant::now();
            for (token, _) in ready {
                match token {
                    Token::Ended => return,
                    Token::Listener => self.accept(now),
                    Token::Stranger(id) => self.hear(id, now),
                }
            }
            self.accept_again = self.accept_again.filter(|again| *again > now);
            for source in self.strangers.expire(now) {
                let seconds = self.patience.as_secs_f64();
                let what = format!("{source} did not say within {seconds} s who it is");
                self.turned_away(what);
            }
            let mut shared = lock(&self.shared);
            shared.members.retain(|(_, until)| *until > now);
        }
    }

    fn wait(&self) -> io::Result<Vec<(Token, Readiness)>> {
        let now = Instant::now();
        let mut set = PollSet::new();
        set.add(self.ended.as_fd(), Token::Ended, true, false);
        let accepts = self.accept_again.is_none();
        set.add(self.listener.as_fd(), Token::Listener, accepts, false);
        for (id, stream) in self.strangers.all() {
            set.add(
                stream.as_fd(),
                Token::Stranger(id),
                true,
                stream.wants_write(),
            );
        }
        let members = lock(&self.shared).members.front().map(|member| member.1);
        let deadlines = [self.strangers.deadline(), self.accept_again, members];
        let deadline = deadlines.into_iter().flatten().min();
        set.wait(deadline.map(|at| at.saturating_duration_since(now)))
    }

    fn accept(&mut self, now: Instant) {
        for _ in 0..ACCEPTED_A_TURN {
            match self.listener.accept() {
                Ok((socket, address)) => self.meet(socket, address, now),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::Interrupted | ErrorKind::ConnectionAborted
                    ) => {}
                Err(_) => {
                    self.accept_again = Some(now + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    fn meet(&mut self, socket: TcpStream, address: SocketAddr, now: Instant) {
        let stream = self
            .keys
            .accept()
            .map_err(|refusal| io::Error::other(refusal.to_string()))
            .and_then(|session| SecureStream::new(session, socket));
        let Ok(stream) = stream else {
            return;
        };
        let source = Source::of(address);
        let until = now + self.patience;
        if let Some(gone) = self.strangers.add(stream, source, until) {
            self.turned_away(format!(
                "{gone} made place for others before it said who it is"
            ));
        }
    }

    /// A stranger said something.
    fn hear(&mut self, id: u64, now: Instant) {
        let Some((stream, _)) = self.strangers.get_mut(id) else {
            return;
        };
        let outcome = stream.handshake();
        if stream.has_spoken() {
            self.strangers.has_spoken(id);
        }
        match outcome {
            Ok(false) => {}
            Ok(true) => {
                if let Some((stream, source)) = self.strangers.remove(id) {
                    self.strangers.is_known(source);
                    self.let_in(stream, now);
                }
            }
            Err(error) => {
                if let Some((_, source)) = self.strangers.remove(id) {
                    self.refuse(source, &error);
                }
            }
        }
    }

    fn let_in(&mut self, stream: SecureStream, now: Instant) {
        let mut shared = lock(&self.shared);
        if shared.members.len() >= MEMBERS_WAITING {
            shared.members.pop_front();
        }
        shared.members.push_back((stream, now + MEMBER_PATIENCE));
        drop(shared);
        (self.wake)();
    }

    fn refuse(&self, source: Source, error: &io::Error) {
        let refusal = error.get_ref().and_then(|inner| inner.downcast_ref());
        match refusal {
            Some(refusal @ Refusal::ByPeer(_)) => {
                self.turned_away(format!("{source} does not want to be here: {refusal}"));
            }
            Some(refusal) => self.turned_away(format!("{source} was not let in: {refusal}")),
            // Somebody who came and went.
            None => self.turned_away(format!("{source} left before it said who it is")),
        }
    }

    fn turned_away(&self, what: String) {
        let mut shared = lock(&self.shared);
        if shared.turned_away.len() < TOLD {
            shared.turned_away.push_back(what);
            drop(shared);
            (self.wake)();
        } else {
            // The event loop was woken for those before and comes when it has time.
            shared.untold += 1;
        }
    }
}

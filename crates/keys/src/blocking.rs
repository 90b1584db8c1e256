//! A session for a thread that may wait.

use crate::error::Refusal;
use crate::keys::Keys;
use crate::name::HostName;
use crate::session::{Arrived, Session};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A session and its socket. Reading and writing wait as the socket does.
#[derive(Debug)]
pub struct BlockingSession {
    session: Session,
    socket: TcpStream,
}

impl BlockingSession {
    /// Of a session that was made by somebody who polls. The socket has to be one that waits.
    pub fn new(session: Session, socket: TcpStream) -> BlockingSession {
        BlockingSession { session, socket }
    }

    /// Makes a session as the one that connected, within `patience`. The socket has its time-outs as
    /// before afterwards.
    ///
    /// # Errors
    /// The connection failed or took too long, or a [`Refusal`].
    pub fn connect(
        keys: &Keys,
        socket: TcpStream,
        patience: Duration,
    ) -> io::Result<BlockingSession> {
        BlockingSession::establish(keys.connect(), socket, patience)
    }

    /// The same as the one that was connected to.
    ///
    /// # Errors
    /// As [`BlockingSession::connect`].
    pub fn accept(
        keys: &Keys,
        socket: TcpStream,
        patience: Duration,
    ) -> io::Result<BlockingSession> {
        BlockingSession::establish(keys.accept(), socket, patience)
    }

    fn establish(
        session: Result<Session, Refusal>,
        socket: TcpStream,
        patience: Duration,
    ) -> io::Result<BlockingSession> {
        let denied = |refusal: Refusal| io::Error::new(ErrorKind::PermissionDenied, refusal);
        let mut session = session.map_err(denied)?;
        let before = (socket.read_timeout()?, socket.write_timeout()?);
        let until = Instant::now() + patience;
        let mut stream = &socket;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            socket.set_read_timeout(Some(left))?;
            socket.set_write_timeout(Some(left))?;
            if session.handshake(&mut stream)? {
                break;
            }
        }
        socket.set_read_timeout(before.0)?;
        socket.set_write_timeout(before.1)?;
        Ok(BlockingSession { session, socket })
    }

    /// Who is there.
    pub fn peer(&self) -> Option<&HostName> {
        self.session.peer()
    }

    /// The socket, to end the connection from elsewhere or to set its time-outs.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Both, for somebody who polls.
    pub fn into_parts(self) -> (Session, TcpStream) {
        (self.session, self.socket)
    }
}

impl Read for BlockingSession {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match self.session.read_some(&mut self.socket, buffer)? {
                Arrived::Bytes(length) => return Ok(length),
                Arrived::Closed => return Ok(0),
                Arrived::Nothing => return Err(ErrorKind::TimedOut.into()),
                Arrived::More => {}
            }
        }
    }
}

impl Write for BlockingSession {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let taken = self.session.write_now(&mut self.socket, bytes)?;
        taken.ok_or_else(|| ErrorKind::TimedOut.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.session.flush(&mut self.socket)? {
            Ok(())
        } else {
            Err(ErrorKind::TimedOut.into())
        }
    }
}

//! One connection with one host: TLS over a socket that the caller has.
//!
//! A session never waits by itself: it reads from and writes to the socket that it is handed, and a socket
//! that would block ends the call. What it has encrypted and the socket did not take stays here until
//! [`Session::flush`]; the caller polls for writing while [`Session::wants_write`].

use crate::certificate::host_name;
use crate::error::Refusal;
use crate::name::HostName;
use rustls::Connection;
use std::io::{self, ErrorKind, Read, Write};
use std::ops::Range;

/// A caller that polls has to read into this much room at least, in bytes: nothing is left inside then
/// that polling would not tell.
pub const SMALLEST_BUFFER: usize = 32 << 10;
/// What is read from the socket in one go, in bytes.
const READ_BYTES: usize = 64 << 10;
/// …and before it is known who is there: a stranger makes nobody hold more.
pub(crate) const STRANGER_BYTES: usize = 4 << 10;
/// The longest record (RFC 8446, 5.2), in bytes.
const RECORD_BYTES: usize = (16 << 10) + 256 + 5;
/// What is encrypted in one go, in bytes.
const WRITE_BYTES: usize = 48 << 10;

/// What came of reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrived {
    /// So many bytes, one at least.
    Bytes(usize),
    /// The socket has nothing now.
    Nothing,
    /// Something came that is no byte for the caller yet.
    More,
    /// The peer closed the connection.
    Closed,
}

/// A session, from the first byte of its handshake on.
#[derive(Debug)]
pub struct Session {
    tls: Connection,
    protocol: Vec<u8>,
    /// Read from the socket and not looked at yet.
    incoming: Vec<u8>,
    unread: Range<usize>,
    peer: Option<HostName>,
    /// Something came from the peer.
    spoken: bool,
}

impl Session {
    pub(crate) fn new(tls: Connection, protocol: Vec<u8>) -> Session {
        Session {
            tls,
            protocol,
            incoming: Vec::new(),
            unread: 0..0,
            peer: None,
            spoken: false,
        }
    }

    /// Who is there, once that is proven.
    pub fn peer(&self) -> Option<&HostName> {
        self.peer.as_ref()
    }

    /// Whether the peer has sent anything at all.
    pub fn has_spoken(&self) -> bool {
        self.spoken
    }

    /// Bytes of memory that are kept for what comes, in front of TLS.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        self.incoming.capacity()
    }

    /// Whether something encrypted waits for the socket.
    pub fn wants_write(&self) -> bool {
        self.tls.wants_write()
    }

    /// Goes on with the handshake as far as the socket lets it. True once it is over and the peer is
    /// who may be there. Something that followed it may have been read already: read once, before
    /// polling.
    ///
    /// # Errors
    /// The connection failed, or a [`Refusal`] (as the error's inner one): of the peer, or by it.
    pub fn handshake(&mut self, socket: &mut (impl Read + Write)) -> io::Result<bool> {
        loop {
            self.flush(socket)?;
            if self.wants_write() {
                return Ok(false);
            }
            if !self.tls.is_handshaking() {
                return self.settle().map(|()| true);
            }
            match self.fetch(socket, STRANGER_BYTES)? {
                Arrived::Nothing => return Ok(false),
                Arrived::Closed => return Err(ErrorKind::UnexpectedEof.into()),
                Arrived::Bytes(_) | Arrived::More => self.decrypt_all(socket)?,
            }
        }
    }

    /// After the handshake: for which purpose, and with whom.
    fn settle(&mut self) -> io::Result<()> {
        if self.peer.is_some() {
            return Ok(());
        }
        if self.tls.alpn_protocol() != Some(&self.protocol) {
            return Err(refused(Refusal::NotTls("it names no purpose".into())));
        }
        let certificates = self.tls.peer_certificates().unwrap_or_default();
        let Some(certificate) = certificates.first() else {
            return Err(refused(Refusal::Unproven(
                "it showed no certificate".into(),
            )));
        };
        self.peer = Some(host_name(certificate).map_err(refused)?);
        Ok(())
    }

    /// Reads; `None` when nothing is there now, 0 when the peer closed the connection. Once it returns
    /// nothing is left inside that polling the socket would not tell.
    ///
    /// # Errors
    /// The connection failed, or what came was not encrypted by the peer.
    ///
    /// # Panics
    /// `buffer` is smaller than [`SMALLEST_BUFFER`].
    pub fn read_now(
        &mut self,
        socket: &mut (impl Read + Write),
        buffer: &mut [u8],
    ) -> io::Result<Option<usize>> {
        assert!(
            buffer.len() >= SMALLEST_BUFFER,
            "{} bytes are too few to read into",
            buffer.len()
        );
        // What is decrypted is no longer than what came, but for one record of which a part came before.
        let room = buffer.len() - RECORD_BYTES;
        let read = self.read(socket, buffer, room.min(READ_BYTES))?;
        assert!(self.unread.is_empty(), "bytes were left that no poll tells");
        Ok(match read {
            Arrived::Bytes(length) => Some(length),
            Arrived::Closed => Some(0),
            Arrived::Nothing | Arrived::More => None,
        })
    }

    /// Reads what is decrypted already, or else from the socket, at most `most` bytes of it.
    pub(crate) fn read(
        &mut self,
        socket: &mut (impl Read + Write),
        buffer: &mut [u8],
        most: usize,
    ) -> io::Result<Arrived> {
        let length = self.decrypt(socket, buffer)?;
        if length > 0 {
            return Ok(Arrived::Bytes(length));
        }
        match self.fetch(socket, most)? {
            Arrived::More => {}
            other => return Ok(other),
        }
        Ok(match self.decrypt(socket, buffer)? {
            0 => Arrived::More,
            length => Arrived::Bytes(length),
        })
    }

    /// Reads for a caller that may wait and has any room.
    pub(crate) fn read_some(
        &mut self,
        socket: &mut (impl Read + Write),
        buffer: &mut [u8],
    ) -> io::Result<Arrived> {
        self.read(socket, buffer, READ_BYTES)
    }

    /// Takes encrypted bytes from the socket; there are none left from before.
    fn fetch(&mut self, socket: &mut impl Read, most: usize) -> io::Result<Arrived> {
        debug_assert!(self.unread.is_empty());
        if self.incoming.len() < most {
            self.incoming.resize(most, 0);
        }
        loop {
            match socket.read(&mut self.incoming[..most]) {
                Ok(0) => return Ok(Arrived::Closed),
                Ok(length) => {
                    self.unread = 0..length;
                    self.spoken = true;
                    return Ok(Arrived::More);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Arrived::Nothing),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Decrypts what came, into `buffer` as far as there is room.
    fn decrypt(&mut self, socket: &mut impl Write, buffer: &mut [u8]) -> io::Result<usize> {
        let mut length = 0;
        loop {
            length += self.take(&mut buffer[length..])?;
            if length == buffer.len() || self.unread.is_empty() {
                return Ok(length);
            }
            self.digest(socket)?;
        }
    }

    /// Of a handshake: nothing comes that is the caller's.
    fn decrypt_all(&mut self, socket: &mut impl Write) -> io::Result<()> {
        while !self.unread.is_empty() {
            self.digest(socket)?;
            if !self.tls.is_handshaking() {
                // What follows the handshake stays for whoever reads.
                return Ok(());
            }
        }
        Ok(())
    }

    /// Gives rustls a piece of what came.
    fn digest(&mut self, socket: &mut impl Write) -> io::Result<()> {
        let mut piece = &self.incoming[self.unread.clone()];
        let taken = self.tls.read_tls(&mut piece)?;
        self.unread.start += taken;
        if let Err(error) = self.tls.process_new_packets() {
            // The peer is told why, if it still listens.
            let _told = self.flush(socket);
            return Err(refused(Refusal::of_tls(error)));
        }
        Ok(())
    }

    /// What is decrypted.
    fn take(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        match self.tls.reader().read(buffer) {
            Ok(length) => Ok(length),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Encrypts bytes and writes them. `None` when the socket takes nothing now; otherwise how many
    /// were taken: some of them may wait here ([`Session::wants_write`]).
    ///
    /// # Errors
    /// The connection failed.
    pub fn write_now(
        &mut self,
        socket: &mut impl Write,
        bytes: &[u8],
    ) -> io::Result<Option<usize>> {
        if !self.flush(socket)? {
            return Ok(None);
        }
        let taken = self
            .tls
            .writer()
            .write(&bytes[..bytes.len().min(WRITE_BYTES)])?;
        self.flush(socket)?;
        Ok(Some(taken))
    }

    /// Writes what waits; true when nothing does any more.
    ///
    /// # Errors
    /// The connection failed.
    pub fn flush(&mut self, socket: &mut impl Write) -> io::Result<bool> {
        while self.tls.wants_write() {
            match self.tls.write_tls(socket) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

fn refused(refusal: Refusal) -> io::Error {
    io::Error::new(ErrorKind::PermissionDenied, refusal)
}

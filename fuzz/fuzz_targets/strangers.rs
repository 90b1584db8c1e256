//! Whatever comes before the other side has proved who it is, cut anywhere: nothing panics, nobody comes in.
//!
//! The first byte says who is spoken to, the second how many bytes come at a time.
#![no_main]

use keys::{Keys, LetIn, Purpose, Site, Validity};
use libfuzzer_sys::fuzz_target;
use std::io::{ErrorKind, Read, Result, Write};
use std::sync::LazyLock;

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    let site = Site::init(directory.path()).unwrap();
    let host = site.issue(&"hosta".parse().unwrap(), Validity::days(9)).unwrap();
    Keys::open(&host, Purpose::Replica, LetIn::Site).unwrap()
});

/// A socket that gives some bytes at a time, and takes all.
struct Socket<'a> {
    left: &'a [u8],
    ready: usize,
}

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let length = self.ready.min(self.left.len()).min(buffer.len());
        if length == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let (now, left) = self.left.split_at(length);
        buffer[..length].copy_from_slice(now);
        self.left = left;
        self.ready -= length;
        Ok(length)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

fuzz_target!(|data: &[u8]| {
    let [role, piece, bytes @ ..] = data else {
        return;
    };
    let session = if role % 2 == 0 { KEYS.accept() } else { KEYS.connect() };
    let mut session = session.unwrap();
    let mut socket = Socket { left: bytes, ready: 0 };
    while !socket.left.is_empty() {
        socket.ready += usize::from(*piece) + 1;
        match session.handshake(&mut socket) {
            Ok(over) => assert!(!over, "a stranger came in"),
            Err(_) => break,
        }
    }
    assert!(session.peer().is_none());
});

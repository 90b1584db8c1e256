//! What of a connection's bytes the other side has not confirmed yet.

use rustix::ioctl::{Getter, Opcode, ioctl};
use std::ffi::c_int;
use std::io;
use std::net::TcpStream;

/// Linux's `SIOCOUTQ`, which is `TIOCOUTQ`, as `asm-generic/ioctls.h` has it: x86, Arm and RISC-V do.
const SIOCOUTQ: Opcode = 0x5411;

/// Bytes that were given to the connection and that the other side's host has not confirmed.
///
/// # Errors
/// It is no connection.
pub(super) fn unconfirmed_bytes(stream: &TcpStream) -> io::Result<u64> {
    // SAFETY: of a TCP socket SIOCOUTQ writes an `int`, as tcp(7) says, and nothing else.
    let bytes = unsafe { ioctl(stream, Getter::<SIOCOUTQ, c_int>::new())? };
    Ok(u64::try_from(bytes).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    #[test]
    fn what_nobody_reads_is_not_confirmed_and_what_was_read_is() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut other, _) = listener.accept().unwrap();
        assert_eq!(unconfirmed_bytes(&stream).unwrap(), 0);
        stream.set_nonblocking(true).unwrap();
        let mut written = 0;
        while let Ok(bytes) = stream.write(&[7; 64 << 10]) {
            written += bytes;
        }
        let unconfirmed = unconfirmed_bytes(&stream).unwrap();
        assert!(0 < unconfirmed && unconfirmed < written as u64);
        other.read_exact(&mut vec![0; written]).unwrap();
        // The last is confirmed before it can be read, but not before it is known here.
        while unconfirmed_bytes(&stream).unwrap() > 0 {
            std::thread::yield_now();
        }
    }
}

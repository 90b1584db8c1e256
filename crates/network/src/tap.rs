//! A TAP device: the guest's network card on the host's bridge. Needs root (CAP_NET_ADMIN), or a
//! persistent device that was made for this user (`ip tuntap add NAME mode tap user USER`).

use crate::frame_stream::{MAX_FRAME_LENGTH, MIN_FRAME_LENGTH};
use crate::stream::ready_or_none;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{IntegerSetter, Opcode, Setter, ioctl};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// `_IOW('T', 202, int)` in `linux/if_tun.h`.
const TUNSETIFF: Opcode = rustix::ioctl::opcode::write::<core::ffi::c_int>(b'T', 202);
/// `_IOW('T', 208, unsigned int)` in `linux/if_tun.h`.
const TUNSETOFFLOAD: Opcode = rustix::ioctl::opcode::write::<core::ffi::c_uint>(b'T', 208);
/// Ethernet frames, and nothing in front of them (`linux/if_tun.h`).
const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;
/// The longest name of an interface, without the terminating zero (`linux/if.h`).
const MAX_NAME_LENGTH: usize = 15;

/// `struct ifreq` as TUNSETIFF reads it: name and flags, padded to the size of the whole union.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    padding: [u8; 22],
}

/// An attached TAP device. One that this call made goes away with it; a persistent one stays.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

impl Tap {
    /// Attaches to the device `name` (1 to 15 characters), which is made if it does not exist.
    /// Putting it on a bridge and bringing it up is the user's part.
    pub fn open(name: &str) -> io::Result<Tap> {
        attach(name)
            .map(|fd| Tap {
                fd,
                buffer: vec![0; MAX_FRAME_LENGTH],
            })
            .map_err(|error| {
                let help = match error.kind() {
                    io::ErrorKind::PermissionDenied => {
                        "; it needs root, or `ip tuntap add NAME mode tap user USER` done once"
                    }
                    io::ErrorKind::ResourceBusy => "; another process has it open",
                    io::ErrorKind::NotFound => "; the host has no /dev/net/tun (modprobe tun)",
                    _ => "",
                };
                let text = format!("cannot attach the TAP device {name:?}: {error}{help}");
                io::Error::new(error.kind(), text)
            })
    }

    /// To be polled for reading.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Sends a frame of at least 14 octets. It is dropped, as on a cable, while the device is down
    /// or its queue is full.
    pub fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        if frame.len() < MIN_FRAME_LENGTH {
            return Ok(());
        }
        match ready_or_none(|| Ok(rustix::io::write(&self.fd, frame)?)) {
            Ok(_) => Ok(()),
            // EIO: the interface is down. EINVAL: longer than it takes.
            Err(error)
                if [Errno::IO, Errno::INVAL, Errno::NOBUFS]
                    .iter()
                    .any(|drop| error.raw_os_error() == Some(drop.raw_os_error())) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The next frame, `None` when none waits.
    pub fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        let read = ready_or_none(|| Ok(rustix::io::read(&self.fd, &mut self.buffer[..])?))?;
        Ok(read.map(|length| self.buffer[..length].to_vec()))
    }
}

#[allow(
    unsafe_code,
    reason = "no crate in use has TUNSETIFF and TUNSETOFFLOAD as safe functions"
)]
fn attach(name: &str) -> io::Result<OwnedFd> {
    if name.is_empty() || name.len() > MAX_NAME_LENGTH || name.bytes().any(|byte| byte <= b' ') {
        let text = format!("a name has 1 to {MAX_NAME_LENGTH} characters without spaces");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = rustix::fs::open("/dev/net/tun", flags, Mode::empty())?;
    let mut request = InterfaceRequest {
        name: [0; 16],
        flags: IFF_TAP | IFF_NO_PI,
        padding: [0; 22],
    };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: TUNSETIFF takes a pointer to a `struct ifreq`, which the kernel copies in (and back
    // out); `InterfaceRequest` has its 40 octets and its layout up to the flags, lives in the
    // setter during the call, and has no invalid bit patterns.
    unsafe { ioctl(&fd, Setter::<TUNSETIFF, InterfaceRequest>::new(request))? };
    // A persistent device keeps what its last user asked for. QEMU asks for frames without
    // checksums, which a guest would drop.
    // SAFETY: TUNSETOFFLOAD takes a set of flags as an integer; none is a set.
    unsafe { ioctl(&fd, IntegerSetter::<TUNSETOFFLOAD>::new_usize(0))? };
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_has_the_size_of_struct_ifreq() {
        assert_eq!(size_of::<InterfaceRequest>(), 40);
    }

    #[test]
    fn names_that_the_kernel_cannot_take_are_refused_by_name() {
        for name in ["", "a name", "sixteen-letters-"] {
            let error = Tap::open(name).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains(&format!("{name:?}")), "{error}");
        }
    }
}

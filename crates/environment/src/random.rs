//! The host's random numbers.

use crate::simulation::with_current;
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use std::io;

/// Whether the host has random numbers by now: early in its life it has not, and [`fill`] waits for them.
///
/// # Errors
/// It has none, and never will.
pub fn is_ready() -> io::Result<bool> {
    if let Some(ready) = with_current(|simulation| simulation.random_is_ready()) {
        return ready.map_err(none);
    }
    loop {
        match getrandom(&mut [0; 1], GetRandomFlags::NONBLOCK) {
            Ok(_) => return Ok(true),
            Err(Errno::AGAIN) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(error) => return Err(none(error.into())),
        }
    }
}

/// Fills `bytes`; waits for the host to have enough of them, early in its life.
///
/// # Errors
/// The host has none.
pub fn fill(bytes: &mut [u8]) -> io::Result<()> {
    if let Some(filled) = with_current(|simulation| simulation.fill_random(bytes)) {
        return filled.map_err(none);
    }
    let mut filled = 0;
    while filled < bytes.len() {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(length) => filled += length,
            Err(Errno::INTR) => {}
            Err(error) => return Err(none(error.into())),
        }
    }
    Ok(())
}

/// What the kernel says is of no use alone: who wanted something, and what can be done?
fn none(error: io::Error) -> io::Error {
    let text = format!(
        "this host gives no random numbers (getrandom(2): {error}): a sandbox it runs in has to let \
         that system call pass"
    );
    io::Error::new(error.kind(), text)
}

/// A random number that nobody else has.
///
/// # Errors
/// As [`fill`].
pub fn number() -> io::Result<u128> {
    let mut bytes = [0; 16];
    fill(&mut bytes)?;
    Ok(u128::from_ne_bytes(bytes))
}

//! The host's random numbers.

use crate::simulation::with_current;
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use std::io;

/// Fills `bytes`; waits for the host to have enough of them, early in its life.
///
/// # Errors
/// The host has none.
pub fn fill(bytes: &mut [u8]) -> io::Result<()> {
    if with_current(|simulation| simulation.fill_random(bytes)).is_some() {
        return Ok(());
    }
    let mut filled = 0;
    while filled < bytes.len() {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(length) => filled += length,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
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

//! The terminal as the guest's console: raw mode, and an escape key as in QEMU.

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// The escape key, Ctrl-A.
const ESCAPE: u8 = 0x01;

/// What was typed, with the escape sequences taken out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Typed {
    /// For the guest.
    pub bytes: Vec<u8>,
    /// Ctrl-A x: end the machine.
    pub quit: bool,
    /// Ctrl-A h: show the keys.
    pub help: bool,
}

/// Takes escape sequences out of what is typed, also when one arrives in two pieces.
#[derive(Clone, Debug, Default)]
pub struct EscapeFilter {
    after_escape: bool,
}

/// What Ctrl-A h shows.
pub const HELP: &str =
    "\r\nCtrl-A x  end the machine\r\nCtrl-A h  this help\r\nCtrl-A Ctrl-A  send Ctrl-A\r\n";

impl EscapeFilter {
    /// Filters the next bytes.
    pub fn filter(&mut self, bytes: &[u8]) -> Typed {
        let mut typed = Typed::default();
        for &byte in bytes {
            if !std::mem::take(&mut self.after_escape) {
                match byte {
                    ESCAPE => self.after_escape = true,
                    _ => typed.bytes.push(byte),
                }
                continue;
            }
            match byte {
                b'x' | b'X' => typed.quit = true,
                b'h' | b'H' | b'?' => typed.help = true,
                ESCAPE => typed.bytes.push(ESCAPE),
                _ => {}
            }
        }
        typed
    }
}

/// The terminal in raw mode; dropping it puts the old mode back.
#[derive(Debug)]
pub struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Puts standard input into raw mode if it is a terminal.
    pub fn enter() -> io::Result<Option<RawMode>> {
        RawMode::enter_on(io::stdin().as_fd())
    }

    fn enter_on(terminal: BorrowedFd<'_>) -> io::Result<Option<RawMode>> {
        if !isatty(terminal) {
            return Ok(None);
        }
        let before = tcgetattr(terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(terminal, OptionalActions::Now, &raw)?;
        Ok(Some(RawMode { before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Nothing can be done when the terminal has gone.
        let _restored = tcsetattr(io::stdin().as_fd(), OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escape_sequence_works_in_one_piece_and_in_two() {
        let mut filter = EscapeFilter::default();
        assert_eq!(
            filter.filter(b"ls\n"),
            Typed {
                bytes: b"ls\n".to_vec(),
                ..Typed::default()
            }
        );
        assert!(filter.filter(b"\x01x").quit);
        assert_eq!(
            filter.filter(b"a\x01"),
            Typed {
                bytes: b"a".to_vec(),
                ..Typed::default()
            }
        );
        assert!(filter.filter(b"x").quit);
    }

    #[test]
    fn the_escape_key_twice_sends_it_once_and_other_keys_after_it_are_dropped() {
        let mut filter = EscapeFilter::default();
        assert_eq!(filter.filter(b"\x01\x01a\x01zb").bytes, b"\x01ab");
        assert!(filter.filter(b"\x01h").help);
    }
}

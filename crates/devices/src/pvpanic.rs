//! QEMU's pvpanic (`docs/specs/pvpanic.rst`): one register, by which a guest says that its kernel panicked.

/// The kernel panicked.
const PANICKED: u64 = 1;
/// The kernel panicked, and starts the one that keeps its memory.
const CRASH_LOADED: u64 = 2;

/// What the register says when it is read: the events that are understood.
pub fn read(offset: u64) -> u64 {
    if offset == 0 {
        PANICKED | CRASH_LOADED
    } else {
        0
    }
}

/// Whether a write says that the kernel panicked and nothing else goes on.
pub fn says_panicked(offset: u64, value: u64) -> bool {
    offset == 0 && value & (PANICKED | CRASH_LOADED) == PANICKED
}

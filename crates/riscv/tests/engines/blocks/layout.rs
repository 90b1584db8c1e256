//! Where a program of random blocks has its parts, and what a run of a block begins with.

use riscv::memory::RAM_BASE;

/// RAM of the machine, in bytes.
pub const MEMORY_BYTES: u64 = 4 << 20;
/// The low bits of an address that say where in the program it is. Every window below shows the
/// whole program at such a distance that they are the same in all of them.
pub const OFFSET_MASK: u64 = 0x1f_ffff;

/// Pages of one hart's [`context`] each; M-mode's own.
pub const CONTEXTS: u64 = RAM_BASE + 0x4000;
/// The runs, one after the other.
pub const RUNS: u64 = RAM_BASE + 0x1_0000;
/// The blocks.
pub const CODE: u64 = RAM_BASE + 0x2_0000;
/// Pages of them.
pub const CODE_PAGES: u64 = 32;
/// Pages of small functions, which blocks call; the same offsets in each of them.
pub const FUNCTIONS: u64 = RAM_BASE + 0x4_0000;
/// Pages of them.
pub const FUNCTION_PAGES: u64 = 4;
/// Pages that blocks read and write.
pub const DATA: u64 = RAM_BASE + 0x4_4000;
/// Pages of them.
pub const DATA_PAGES: u64 = 16;
/// The page tables: see [`super::tables`].
pub const TABLES: u64 = RAM_BASE + 0x5_4000;

/// The window of U: the second GiB.
pub const USER_WINDOW: u64 = 0x4000_0000;
/// The devices, as U sees them.
pub const USER_DEVICES: u64 = 0xc000_0000;
/// The first GiB of RAM in one page, for U and for S.
pub const GIANT_PAGES: [u64; 2] = [0x1_0000_0000, 0x1_4000_0000];
/// From either window to the same RAM in a page of 2 MiB.
pub const LARGE_PAGE: u64 = 0x20_0000;

/// Entries of the leaf tables that a program changes, and that are put right before each run.
pub const CHANGED_FIRST: u64 = (FUNCTIONS - RAM_BASE) / 4096;
/// How many.
pub const CHANGED_ENTRIES: u64 = FUNCTION_PAGES + DATA_PAGES;

/// Fields of a hart's context, in bytes from its start.
pub mod context {
    /// Registers that the handler saves.
    pub const SAVED: i32 = 0;
    /// The run.
    pub const RUN: i32 = 48;
    /// Where the run's block ends, as its mode sees it.
    pub const END: i32 = 56;
    /// Runs that came to their end.
    pub const COMPLETED: i32 = 64;
    /// Runs that the timer ended.
    pub const TIMED_OUT: i32 = 72;
    /// Exceptions by cause.
    pub const EXCEPTIONS: i32 = 128;
    /// Interrupts by cause.
    pub const INTERRUPTS: i32 = 256;
}

/// Fields of a run, in bytes from its start.
pub mod run {
    /// Where it begins.
    pub const ENTRY: i32 = 0;
    /// Where it ends: an `ecall`.
    pub const END: i32 = 8;
    /// `mstatus`.
    pub const STATUS: i32 = 16;
    /// `satp`.
    pub const SPACE: i32 = 24;
    /// `medeleg`.
    pub const DELEGATED: i32 = 32;
    /// `fcsr`.
    pub const FCSR: i32 = 40;
    /// `mcounteren` and `scounteren`.
    pub const COUNTERS: i32 = 48;
    /// Ticks of guest time after which it is ended.
    pub const TICKS: i32 = 56;
    /// x0 to x31.
    pub const INTEGERS: i32 = 64;
    /// f0 to f31.
    pub const FLOATS: i32 = 320;
    /// All of it.
    pub const BYTES: u64 = 576;
}

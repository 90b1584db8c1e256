//! The core-local interruptor: software interrupts and the machine timer of each hart.
//!
//! SiFive CLINT layout, as in QEMU's `virt` and in the RISC-V ACLINT specification (MSWI at 0,
//! MTIMER at 0x4000).

use serde::{Deserialize, Serialize};

/// Nanoseconds of guest time in one tick of `mtime` (10 MHz).
pub const NANOSECONDS_PER_TICK: u64 = 100;
/// Ticks of `mtime` a second.
pub const TIMEBASE_HZ: u32 = 10_000_000;

/// `mtime` at a guest time, in ticks.
#[inline]
pub fn ticks(time_ns: u64) -> u64 {
    time_ns / NANOSECONDS_PER_TICK
}

const MSIP_BYTES: u64 = 4;
const MTIMECMP: u64 = 0x4000;
const MTIMECMP_BYTES: u64 = 8;
const MTIME: u64 = 0xbff8;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct HartTimer {
    software_interrupt: bool,
    /// `mtimecmp`, in ticks. All ones after reset, so that no timer fires before it is set.
    compare: u64,
}

/// The CLINT's registers. `mtime` itself is guest time and is not kept here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clint {
    harts: Vec<HartTimer>,
}

impl Clint {
    /// A CLINT for `harts` harts.
    pub fn new(harts: u32) -> Clint {
        let hart = HartTimer {
            software_interrupt: false,
            compare: u64::MAX,
        };
        Clint {
            harts: vec![hart; harts as usize],
        }
    }

    /// `msip` of a hart.
    pub fn software_interrupt(&self, hart: usize) -> bool {
        self.harts.get(hart).is_some_and(|h| h.software_interrupt)
    }

    /// `mtimecmp` of a hart in ticks.
    pub fn timer_compare(&self, hart: usize) -> u64 {
        self.harts.get(hart).map_or(u64::MAX, |h| h.compare)
    }

    /// Reads 4 or 8 bytes at an aligned offset; `None` is an access fault. What is not a register
    /// reads as zero.
    pub fn read(&self, offset: u64, size: u8, time_ns: u64) -> Option<u64> {
        let value = match offset {
            0..MTIMECMP => {
                let hart = (offset / MSIP_BYTES) as usize;
                return (size == 4).then_some(u64::from(self.software_interrupt(hart)));
            }
            MTIMECMP..MTIME => {
                let hart = ((offset - MTIMECMP) / MTIMECMP_BYTES) as usize;
                self.harts.get(hart).map_or(0, |h| h.compare)
            }
            MTIME.. => {
                if offset - MTIME < 8 {
                    time_ns / NANOSECONDS_PER_TICK
                } else {
                    0
                }
            }
        };
        match size {
            8 => Some(value),
            4 => Some((value >> (8 * (offset & 4))) & 0xffff_ffff),
            _ => None,
        }
    }

    /// Writes 4 or 8 bytes at an aligned offset; `None` is an access fault.
    ///
    /// `mtime` is read-only here: guest time comes from the instruction count alone.
    pub fn write(&mut self, offset: u64, size: u8, value: u64) -> Option<()> {
        match offset {
            0..MTIMECMP => {
                if size != 4 {
                    return None;
                }
                if let Some(hart) = self.harts.get_mut((offset / MSIP_BYTES) as usize) {
                    hart.software_interrupt = value & 1 != 0;
                }
            }
            MTIMECMP..MTIME => {
                let hart = self
                    .harts
                    .get_mut(((offset - MTIMECMP) / MTIMECMP_BYTES) as usize);
                let (mask, shift) = match size {
                    8 => (u64::MAX, 0),
                    4 => (0xffff_ffff, 8 * (offset & 4)),
                    _ => return None,
                };
                if let Some(hart) = hart {
                    hart.compare = hart.compare & !(mask << shift) | (value & mask) << shift;
                }
            }
            MTIME.. => {
                if size != 4 && size != 8 {
                    return None;
                }
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn msip_has_one_writable_bit_for_each_hart() {
        let mut clint = Clint::new(2);
        clint.write(4, 4, 0xffff_ffff).unwrap();
        assert!(!clint.software_interrupt(0));
        assert!(clint.software_interrupt(1));
        assert_eq!(clint.read(4, 4, 0), Some(1));
        clint.write(4, 4, 0xffff_fffe).unwrap();
        assert!(!clint.software_interrupt(1));
        clint.write(8, 4, 1).unwrap(); // a hart that does not exist
        assert_eq!(clint.read(8, 4, 0), Some(0));
    }

    #[test]
    fn mtimecmp_is_written_whole_or_in_halves() {
        let mut clint = Clint::new(2);
        assert_eq!(clint.timer_compare(1), u64::MAX);
        clint.write(0x4008, 8, 0x1122_3344_5566_7788).unwrap();
        assert_eq!(clint.timer_compare(1), 0x1122_3344_5566_7788);
        clint.write(0x4008, 4, 0xaaaa_aaaa).unwrap();
        clint.write(0x400c, 4, 0xbbbb_bbbb).unwrap();
        assert_eq!(clint.timer_compare(1), 0xbbbb_bbbb_aaaa_aaaa);
        assert_eq!(clint.read(0x400c, 4, 0), Some(0xbbbb_bbbb));
        assert_eq!(clint.timer_compare(0), u64::MAX);
    }

    #[test]
    fn mtime_counts_ten_ticks_a_microsecond() {
        let clint = Clint::new(1);
        assert_eq!(clint.read(0xbff8, 8, 1_000_099), Some(10_000));
        let long = 0x1_2345_6789 * NANOSECONDS_PER_TICK;
        assert_eq!(clint.read(0xbff8, 4, long), Some(0x2345_6789));
        assert_eq!(clint.read(0xbffc, 4, long), Some(1));
    }

    #[test]
    fn byte_accesses_fault() {
        let mut clint = Clint::new(1);
        assert_eq!(clint.read(0, 1, 0), None);
        assert_eq!(clint.read(0x4000, 2, 0), None);
        assert_eq!(clint.write(0xbff8, 1, 0), None);
    }
}

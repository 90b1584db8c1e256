//! ACPI's power management timer (ACPI 6.5, section 4.8.2.1): what firmware knows time by before it knows the CPU's
//! own counter. Kernels are not told of it: hardware-reduced ACPI has no such timer.

/// Ticks a second.
const HZ: u64 = 3_579_545;

/// The timer at a guest time: all 32 bits count (TMR_VAL_EXT), and nothing interrupts when they overflow.
pub fn value(time_ns: u64) -> u32 {
    const NS_PER_SECOND: u128 = 1_000_000_000;
    (u128::from(time_ns) * u128::from(HZ) / NS_PER_SECOND) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn section_4_8_2_1_counts_3_579545_mhz_and_begins_again_after_32_bits() {
        assert_eq!(value(0), 0);
        assert_eq!(value(279), 0);
        assert_eq!(value(280), 1);
        assert_eq!(value(1_000_000_000), 3_579_545);
        // 2^32 ticks are 1,199.86 s.
        assert_eq!(value(1_199_864_031_600), 0);
        assert_eq!(value(1_199_864_031_200), u32::MAX);
        // A guest that has run for as long as its time can tell.
        assert_eq!(
            value(u64::MAX),
            ((u128::from(u64::MAX) * 3_579_545 / 1_000_000_000) & 0xffff_ffff) as u32
        );
    }
}

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

    /// `(2^64 - 1) * 3_579_545 / 10^9`, its lowest 32 bits.
    const END: u32 = 3047538368;

    #[test]
    fn section_4_8_2_1_counts_3_579545_mhz_and_begins_again_after_32_bits() {
        assert_eq!(value(0), 0);
        assert_eq!(value(279), 0);
        assert_eq!(value(280), 1);
        assert_eq!(value(1_000_000_000), 3_579_545);
        // 2^32 ticks are 1,199.86 s.
        assert_eq!(value(1_199_864_031_882), 0);
        assert_eq!(value(1_199_864_031_881), u32::MAX);
        // Guest time ends there.
        assert_eq!(value(u64::MAX), END);
    }
}

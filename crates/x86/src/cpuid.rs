//! What CPUID answers: a table of the machine's, the same on every host.
//!
//! The vendor is Intel because Linux asks leaf 0x15 for the frequency of the time-stamp counter of
//! that vendor only. x86-64-v2 with AES, PCLMULQDQ and SHA; no AVX, hence no XSAVE.

use crate::mmu::PHYSICAL_BITS;

/// Ticks of the time-stamp counter, and of the local APIC's timer before its divider, a second.
pub const TIME_STAMP_HZ: u32 = 1_000_000_000;

/// One answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leaf {
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

/// The place of a CPU among those of its machine: each is a core of one package, with one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processor {
    /// Its number, which is that of its local APIC.
    pub number: u8,
    /// How many there are, 1 to 8.
    pub of: u8,
}

impl Processor {
    /// The only one.
    pub const ALONE: Processor = Processor { number: 0, of: 1 };

    /// Numbers of local APICs that a package has room for, as an exponent of two.
    fn package_bits(self) -> u32 {
        u32::from(self.of).next_power_of_two().trailing_zeros()
    }
}

const LAST_BASIC: u32 = 0x16;
const LAST_EXTENDED: u32 = 0x8000_0008;
/// Family 6, model 44, stepping 1: the generation that had x86-64-v2 with AES and no AVX.
const SIGNATURE: u32 = 0x0002_06c1;

const BRAND: &[u8; 48] = b"Understudy virtual x86-64 CPU\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

fn bits(numbers: &[u32]) -> u32 {
    numbers.iter().fold(0, |bits, number| bits | 1 << number)
}

/// SSE3, PCLMULQDQ, SSSE3, CMPXCHG16B, SSE4.1, SSE4.2, POPCNT, TSC deadline, AES, hypervisor.
fn features_ecx() -> u32 {
    bits(&[0, 1, 9, 13, 19, 20, 23, 24, 25, 31])
}

/// EDX of leaf 1: a package has several numbers of local APICs.
const MULTI_THREADING: u32 = 1 << 28;

/// FPU, DE, PSE, TSC, MSR, PAE, CX8, APIC, SEP, PGE, CMOV, PAT, PSE-36, CLFLUSH, MMX, FXSR, SSE, SSE2.
fn features_edx() -> u32 {
    bits(&[
        0, 2, 3, 4, 5, 6, 8, 9, 11, 13, 15, 16, 17, 19, 23, 24, 25, 26,
    ])
}

/// Leaf 4: data, instructions, level 2, level 3 (ways, sets of 64-byte lines). The last is the package's.
fn cache(subleaf: u32, processor: Processor) -> Leaf {
    let in_package = (1 << processor.package_bits()) - 1;
    let (kind, level, ways, sets) = match subleaf {
        0 => (1, 1, 8, 64),
        1 => (2, 1, 8, 64),
        2 => (3, 2, 16, 1024),
        3 => (3, 3, 16, 8192),
        _ => return Leaf::default(),
    };
    let sharing = if level == 3 { in_package } else { 0 };
    Leaf {
        eax: kind | level << 5 | 1 << 8 | sharing << 14 | in_package << 26,
        ebx: 63 | (ways - 1) << 22,
        ecx: sets - 1,
        edx: 0,
    }
}

fn text(bytes: &[u8]) -> Leaf {
    let number = |at: usize| {
        bytes[at..at + 4]
            .iter()
            .rev()
            .fold(0, |number, byte| number << 8 | u32::from(*byte))
    };
    Leaf {
        eax: number(0),
        ebx: number(4),
        ecx: number(8),
        edx: number(12),
    }
}

/// Leaf 0xb (SDM volume 3, 9.9.1): one thread in each core, all cores in one package. Where there is one CPU the
/// leaf is not there.
fn topology(subleaf: u32, processor: Processor) -> Leaf {
    const THREADS: u32 = 1 << 8;
    const CORES: u32 = 2 << 8;
    if processor.of == 1 {
        return Leaf::default();
    }
    let (shift, processors, kind) = match subleaf {
        0 => (0, 1, THREADS),
        1 => (processor.package_bits(), processor.of.into(), CORES),
        _ => (0, 0, 0),
    };
    Leaf {
        eax: shift,
        ebx: processors,
        ecx: subleaf & 0xff | kind,
        edx: processor.number.into(),
    }
}

/// Leaf 1.
fn features(processor: Processor) -> Leaf {
    const CLFLUSH_64: u32 = 8 << 8;
    let numbers = 1 << processor.package_bits();
    let multi_threading = if numbers > 1 { MULTI_THREADING } else { 0 };
    Leaf {
        eax: SIGNATURE,
        ebx: CLFLUSH_64 | numbers << 16 | u32::from(processor.number) << 24,
        ecx: features_ecx(),
        edx: features_edx() | multi_threading,
    }
}

/// Answers one leaf to a CPU; all that is beyond the last ones is zero.
pub fn leaf(leaf: u32, subleaf: u32, processor: Processor) -> Leaf {
    match leaf {
        0 => Leaf {
            eax: LAST_BASIC,
            ..text(b"\0\0\0\0GenuntelineI")
        },
        1 => features(processor),
        // No descriptors: see leaf 4.
        2 => Leaf {
            eax: 0x00ff_ff01,
            ..Leaf::default()
        },
        4 => cache(subleaf, processor),
        // The APIC timer never stops.
        6 => Leaf {
            eax: bits(&[2]),
            ..Leaf::default()
        },
        // FSGSBASE, TSC_ADJUST, SMEP, ERMS, SMAP, SHA; ARCH_CAPABILITIES.
        7 if subleaf == 0 => Leaf {
            ebx: bits(&[0, 1, 7, 9, 20, 29]),
            edx: bits(&[29]),
            ..Leaf::default()
        },
        0xb => topology(subleaf, processor),
        0x15 => Leaf {
            eax: 1,
            ebx: 1,
            ecx: TIME_STAMP_HZ,
            edx: 0,
        },
        0x16 => Leaf {
            eax: TIME_STAMP_HZ / 1_000_000,
            ebx: TIME_STAMP_HZ / 1_000_000,
            ecx: 100,
            edx: 0,
        },
        0x4000_0000 => Leaf {
            eax: 0x4000_0000,
            ..text(b"\0\0\0\0Understudy\0\0")
        },
        0x8000_0000 => Leaf {
            eax: LAST_EXTENDED,
            ..Leaf::default()
        },
        // LAHF; SYSCALL, NX, pages of 1 GiB, RDTSCP, long mode.
        0x8000_0001 => Leaf {
            ecx: bits(&[0]),
            edx: bits(&[11, 20, 26, 27, 29]),
            ..Leaf::default()
        },
        0x8000_0002..=0x8000_0004 => text(&BRAND[(leaf - 0x8000_0002) as usize * 16..]),
        // Level 2: 1 MiB, 16 ways, lines of 64 bytes.
        0x8000_0006 => Leaf {
            ecx: 1024 << 16 | 8 << 12 | 64,
            ..Leaf::default()
        },
        // The time-stamp counter is invariant.
        0x8000_0007 => Leaf {
            edx: bits(&[8]),
            ..Leaf::default()
        },
        0x8000_0008 => Leaf {
            eax: PHYSICAL_BITS | 48 << 8,
            ..Leaf::default()
        },
        _ => Leaf::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a machine of one CPU answered before there were machines of several.
    #[test]
    fn a_cpu_that_is_alone_has_no_topology() {
        assert_eq!(leaf(1, 0, Processor::ALONE).ebx, 0x0001_0800);
        assert_eq!(leaf(1, 0, Processor::ALONE).edx & MULTI_THREADING, 0);
        for subleaf in 0..3 {
            assert_eq!(leaf(0xb, subleaf, Processor::ALONE), Leaf::default());
            assert_eq!(leaf(4, subleaf, Processor::ALONE).eax >> 14, 0);
        }
    }

    /// SDM volume 3, 9.9: what is left of a CPU's number when that of its core in the package is cut off is the
    /// package's, the same for all.
    #[test]
    fn cpus_are_cores_of_one_package() {
        for of in 2..=8u8 {
            for number in 0..of {
                let processor = Processor { number, of };
                let cores = leaf(0xb, 1, processor);
                assert_eq!((cores.ebx, cores.ecx), (u32::from(of), 0x201));
                assert_eq!(cores.edx, u32::from(number));
                assert_eq!(cores.edx >> cores.eax, 0, "{number} of {of}");
                let threads = leaf(0xb, 0, processor);
                assert_eq!((threads.eax, threads.ebx, threads.ecx), (0, 1, 0x100));
                assert_eq!(leaf(0xb, 2, processor).ecx, 2);
                let first = leaf(1, 0, processor);
                assert_eq!(first.ebx >> 24, u32::from(number));
                assert_eq!(first.ebx >> 16 & 0xff, 1 << cores.eax);
                assert_ne!(first.edx & MULTI_THREADING, 0);
                let (second, third) = (leaf(4, 2, processor), leaf(4, 3, processor));
                assert_eq!(second.eax >> 14 & 0xfff, 0, "level 2 is a core's own");
                assert_eq!(third.eax >> 14 & 0xfff, (1 << cores.eax) - 1);
                assert_eq!(third.eax >> 26, (1 << cores.eax) - 1);
            }
        }
    }
}

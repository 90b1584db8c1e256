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

/// FPU, DE, PSE, TSC, MSR, PAE, CX8, APIC, SEP, PGE, CMOV, PAT, PSE-36, CLFLUSH, MMX, FXSR, SSE, SSE2.
fn features_edx() -> u32 {
    bits(&[
        0, 2, 3, 4, 5, 6, 8, 9, 11, 13, 15, 16, 17, 19, 23, 24, 25, 26,
    ])
}

/// Leaf 4: data, instructions, level 2, level 3 (ways, sets of 64-byte lines).
fn cache(subleaf: u32) -> Leaf {
    let (kind, level, ways, sets) = match subleaf {
        0 => (1, 1, 8, 64),
        1 => (2, 1, 8, 64),
        2 => (3, 2, 16, 1024),
        3 => (3, 3, 16, 8192),
        _ => return Leaf::default(),
    };
    Leaf {
        eax: kind | level << 5 | 1 << 8,
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

/// Answers one leaf; all that is beyond the last ones is zero.
pub fn leaf(leaf: u32, subleaf: u32) -> Leaf {
    match leaf {
        0 => Leaf {
            eax: LAST_BASIC,
            ..text(b"\0\0\0\0GenuntelineI")
        },
        1 => Leaf {
            eax: SIGNATURE,
            ebx: 8 << 8 | 1 << 16, // CLFLUSH of 64 bytes, one logical CPU
            ecx: features_ecx(),
            edx: features_edx(),
        },
        // No descriptors: see leaf 4.
        2 => Leaf {
            eax: 0x00ff_ff01,
            ..Leaf::default()
        },
        4 => cache(subleaf),
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

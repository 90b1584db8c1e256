//! Where processors are not equal, and what the tests accept there.

use iced_x86::Code;

use crate::state::Registers;

/// What may differ after one form.
pub struct Tolerance {
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Nothing.
    Exact,
    /// RCPPS and its like: lanes within 1.5 × 2^-11, as each vendor's are within 1.5 × 2^-12.
    Approximation,
    /// LDMXCSR.
    Mxcsr,
    /// FXSAVE.
    Save,
    /// FXRSTOR.
    Restore,
    /// FSAVE, FSTENV and their reverse.
    Image,
    /// A comparison into the condition codes.
    Compare,
    /// A comparison into RFLAGS.
    CompareFlags,
    /// SHA.
    Sha,
    /// MASKMOVQ.
    MaskedMmx,
    /// A transcendental function: one unit in the last place, and C1.
    Transcendental,
}

impl Tolerance {
    pub fn of(code: Code) -> Self {
        let kind = match code {
            Code::Rcpps_xmm_xmmm128
            | Code::Rcpss_xmm_xmmm32
            | Code::Rsqrtps_xmm_xmmm128
            | Code::Rsqrtss_xmm_xmmm32 => Kind::Approximation,
            Code::Fsin
            | Code::Fcos
            | Code::Fsincos
            | Code::Fptan
            | Code::Fpatan
            | Code::F2xm1
            | Code::Fyl2x
            | Code::Fyl2xp1 => Kind::Transcendental,
            Code::Maskmovq_rDI_mm_mm => Kind::MaskedMmx,
            Code::Ldmxcsr_m32 => Kind::Mxcsr,
            Code::Fxsave_m512byte | Code::Fxsave64_m512byte => Kind::Save,
            Code::Fxrstor_m512byte | Code::Fxrstor64_m512byte => Kind::Restore,
            _ => {
                let name = format!("{code:?}");
                let starts = |prefixes: &[&str]| prefixes.iter().any(|p| name.starts_with(p));
                if starts(&["Fldenv", "Fnstenv", "Frstor", "Fnsave"]) {
                    Kind::Image
                } else if starts(&["Sha"]) {
                    Kind::Sha
                } else if starts(&["Fcomi", "Fucomi"]) {
                    Kind::CompareFlags
                } else if starts(&["Fcom", "Fucom", "Ficom", "Ftst"]) {
                    Kind::Compare
                } else {
                    Kind::Exact
                }
            }
        };
        Self { kind }
    }

    /// Whether the host does not follow the manuals with this state.
    pub fn skips(&self, start: &Registers, operand: &[u8]) -> bool {
        let unaligned = start.general[3] & 15 != 0;
        match self.kind {
            // The SHA instructions take operands that are not aligned, where the manuals say #GP.
            Kind::Sha => unaligned,
            // MXCSR has a bit 17: misaligned operands.
            Kind::Mxcsr => operand.get(2).is_some_and(|byte| byte & 2 != 0),
            Kind::Restore => operand.get(26).is_some_and(|byte| byte & 2 != 0),
            _ => false,
        }
    }

    /// Whether the host has ended x87's use of the registers before the fault, which makes no
    /// difference to what is restarted.
    pub fn enters_mmx_before_a_fault(&self) -> bool {
        self.kind == Kind::MaskedMmx
    }

    /// Whether the operand is accessed in parts: the host begins with the last, so that CR2 may be any
    /// address of the page, and may have stored some of them before a fault; here it is all or nothing.
    pub fn accesses_in_parts(&self) -> bool {
        matches!(self.kind, Kind::Save | Kind::Restore | Kind::Image)
    }

    /// Whether the status words are equal enough.
    pub fn status(&self, host: &[u8], here: &[u8]) -> bool {
        let word = |image: &[u8]| u16::from_le_bytes([image[2], image[3]]);
        let control = u16::from_le_bytes([here[0], here[1]]);
        let stopped = word(here) & !control & 3 != 0;
        let ignored = match self.kind {
            Kind::Transcendental => 0x0200,
            // With an exception that is not masked the host sets the codes nonetheless.
            Kind::Compare if stopped => 0x4500,
            // The host leaves C1.
            Kind::CompareFlags => 0x0200,
            _ => 0,
        };
        (word(host) ^ word(here)) & !ignored == 0
    }

    /// Whether the flags are equal enough.
    pub fn flags(&self, host: u64, here: u64, image: &[u8]) -> bool {
        let control = u16::from_le_bytes([image[0], image[1]]);
        let status = u16::from_le_bytes([image[2], image[3]]);
        // With an exception that is not masked the host sets the flags nonetheless.
        let stopped = status & !control & 3 != 0;
        host == here || self.kind == Kind::CompareFlags && stopped
    }

    pub fn x87(&self, host: &[u8], here: &[u8]) -> bool {
        if self.kind != Kind::Transcendental {
            return host == here;
        }
        let ordered = |bytes: &[u8]| {
            let mut bits = [0; 16];
            bits[..10].copy_from_slice(bytes);
            let bits = u128::from_le_bytes(bits);
            // Without the integer bit, so that neighbours are one apart.
            let magnitude = (bits >> 64 & 0x7fff) << 63 | bits & (u128::MAX >> 65);
            (bits >> 79 & 1, magnitude)
        };
        let (host, here) = (ordered(host), ordered(here));
        host.0 == here.0 && host.1.abs_diff(here.1) <= 1
    }

    pub fn xmm(&self, host: &[u8], here: &[u8]) -> bool {
        if self.kind != Kind::Approximation {
            return host == here;
        }
        let lane = |bytes: &[u8], i: usize| {
            f32::from_bits(u32::from_le_bytes(
                bytes[4 * i..4 * i + 4].try_into().unwrap(),
            ))
        };
        (0..4).all(|i| {
            let (host, here) = (lane(host, i), lane(here, i));
            host.to_bits() == here.to_bits()
                || host == 0.0 && here.abs() <= f32::MIN_POSITIVE
                || (host - here).abs() <= host.abs() * 1.5 / 2048.0
                    && host.is_sign_negative() == here.is_sign_negative()
        })
    }

    /// Where memory differs, `operand` being where the operand is.
    pub fn memory(&self, host: &[u8], here: &[u8], operand: usize) -> Option<usize> {
        (0..host.len()).find(|&i| {
            // MXCSR_MASK: the host has a bit 17.
            let ignored = self.kind == Kind::Save && i == operand + 30;
            host[i] != here[i] && !ignored
        })
    }
}

//! Where processors are not equal, and what the tests accept there: of a form, and of a vendor where one is named.
//! `docs/decisions/x86.md` has the reasons.

use iced_x86::Code;

use crate::state::Registers;
use crate::vendor::Vendor;

/// What may differ after one form.
pub struct Tolerance {
    kind: Kind,
    vendor: Vendor,
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
    /// MASKMOVDQU.
    Masked,
    /// MASKMOVQ.
    MaskedMmx,
    /// A store of x87 or MMX.
    Store,
    /// DPPS, DPPD.
    DotProduct,
    /// A transcendental function: units in the last place, and C1.
    Transcendental,
}

impl Tolerance {
    pub fn of(code: Code, vendor: Vendor) -> Self {
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
            Code::Maskmovdqu_rDI_xmm_xmm => Kind::Masked,
            Code::Maskmovq_rDI_mm_mm => Kind::MaskedMmx,
            Code::Dpps_xmm_xmmm128_imm8 | Code::Dppd_xmm_xmmm128_imm8 => Kind::DotProduct,
            Code::Movq_mmm64_mm | Code::Movd_rm32_mm | Code::Movq_rm64_mm | Code::Movntq_m64_mm => {
                Kind::Store
            }
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
                } else if starts(&["Fst_m", "Fstp_m", "Fist", "Fbstp", "Fnstcw", "Fnstsw_m"]) {
                    Kind::Store
                } else {
                    Kind::Exact
                }
            }
        };
        Self { kind, vendor }
    }

    /// Whether what is computed is compared to the bit on every host. (Of SHA's operands in memory some are not tried.)
    pub fn compares_all_results(&self) -> bool {
        matches!(self.kind, Kind::Exact | Kind::Sha)
    }

    /// Whether AMD's processors do not follow the manuals with this state.
    pub fn skips(&self, start: &Registers, operand: &[u8]) -> bool {
        let unaligned = start.general[3] & 15 != 0;
        match self.kind {
            _ if self.vendor != Vendor::Amd => false,
            // The SHA instructions take operands that are not aligned, where the manuals say #GP.
            Kind::Sha => unaligned,
            // MXCSR has a bit 17: misaligned operands.
            Kind::Mxcsr => operand.get(2).is_some_and(|byte| byte & 2 != 0),
            Kind::Restore => operand.get(26).is_some_and(|byte| byte & 2 != 0),
            _ => false,
        }
    }

    /// Whether x87's or MMX's registers may have changed before the fault, which makes no difference to what is
    /// restarted: Zen 4 ends x87's use of them before MASKMOVQ faults, Intel's model 207 before stores, too.
    pub fn changes_x87_before_a_fault(&self) -> bool {
        self.kind == Kind::MaskedMmx || self.kind == Kind::Store && self.vendor == Vendor::Intel
    }

    /// Whether a store was given up for an exception of x87's that is not masked before the page that it goes to was looked at,
    /// as by Intel's model 167. Whichever comes first, the other comes when the first is seen to.
    pub fn is_given_up_before_a_page_fault(&self, host: &[u8], here: &[u8]) -> bool {
        let summary = 0x80;
        let is_told = |image: &[u8]| u16::from_le_bytes([image[2], image[3]]) & summary != 0;
        self.kind == Kind::Store && self.vendor == Vendor::Intel && is_told(host) && !is_told(here)
    }

    /// Whether the operand is accessed in parts: the host may begin with the last, so that CR2 may be any
    /// address of the page, and may have stored some of them before a fault; here it is all or nothing.
    pub fn accesses_in_parts(&self) -> bool {
        match self.kind {
            Kind::Save | Kind::Restore | Kind::Image => true,
            Kind::Store => self.vendor == Vendor::Intel,
            _ => false,
        }
    }

    /// Whether bytes that the mask leaves out need not be writable, and those before a fault may be stored: the
    /// SDM leaves that open, and here they have to be.
    pub fn stores_by_mask(&self) -> bool {
        matches!(self.kind, Kind::Masked | Kind::MaskedMmx) && self.vendor == Vendor::Intel
    }

    /// Whether any of several NaNs may be the result: the SDM leaves open which.
    pub fn chooses_a_nan(&self) -> bool {
        self.kind == Kind::DotProduct && self.vendor == Vendor::Intel
    }

    /// Units in the last place that a result may be away from the correctly rounded one: errors of less than 1 where it
    /// is rounded to the nearest, and on Intel of less than 1.5 elsewhere (SDM volume 1, 8.3.10), where the
    /// correctly rounded one is less than 1 away itself.
    fn units(&self, control: u16) -> u128 {
        let is_nearest = control >> 10 & 3 == 0;
        match self.kind {
            Kind::Transcendental if is_nearest || self.vendor != Vendor::Intel => 1,
            Kind::Transcendental => 2,
            _ => 0,
        }
    }

    /// Whether the status words are equal enough.
    pub fn status(&self, host: &[u8], here: &[u8]) -> bool {
        let word = |image: &[u8]| u16::from_le_bytes([image[2], image[3]]);
        let control = u16::from_le_bytes([here[0], here[1]]);
        let stopped = word(here) & !control & 3 != 0;
        let ignored = match self.kind {
            // Intel's model 167 tells of no underflow where FSINCOS leaves its denormal operand.
            Kind::Transcendental if self.vendor == Vendor::Intel => 0x0210,
            Kind::Transcendental => 0x0200,
            // With an exception that is not masked Zen 4 sets the codes nonetheless.
            Kind::Compare if stopped => 0x4500,
            // Zen 4 leaves C1.
            Kind::CompareFlags => 0x0200,
            _ => 0,
        };
        (word(host) ^ word(here)) & !ignored == 0
    }

    /// Whether the flags are equal enough.
    pub fn flags(&self, host: u64, here: u64, image: &[u8]) -> bool {
        let control = u16::from_le_bytes([image[0], image[1]]);
        let status = u16::from_le_bytes([image[2], image[3]]);
        // With an exception that is not masked Zen 4 sets the flags nonetheless.
        let stopped = status & !control & 3 != 0;
        host == here || self.kind == Kind::CompareFlags && stopped
    }

    /// Whether two registers are equal enough under a control word.
    pub fn x87(&self, host: &[u8], here: &[u8], control: u16) -> bool {
        let units = self.units(control);
        if units == 0 {
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
        host.0 == here.0 && host.1.abs_diff(here.1) <= units
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
            // MXCSR_MASK: AMD's has a bit 17.
            let ignored =
                self.kind == Kind::Save && self.vendor == Vendor::Amd && i == operand + 30;
            host[i] != here[i] && !ignored
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forms;
    use crate::native_forms::NATIVE;

    /// Else two replicas on hosts of two vendors would part.
    #[test]
    fn what_compiled_code_leaves_to_the_host_is_compared_to_the_bit_on_every_host() {
        let native = NATIVE.iter().flat_map(|(_, forms)| *forms);
        for &code in native.filter(|&&code| forms::is_announced(code)) {
            for vendor in [Vendor::Intel, Vendor::Amd, Vendor::Other] {
                let tolerance = Tolerance::of(code, vendor);
                assert!(tolerance.compares_all_results(), "{code:?} on {vendor:?}");
            }
        }
    }
}

//! The status flags, kept as the last result and its carries and computed when asked for.

/// CF.
pub const CF: u64 = 1;
/// PF.
pub const PF: u64 = 1 << 2;
/// AF.
pub const AF: u64 = 1 << 4;
/// ZF.
pub const ZF: u64 = 1 << 6;
/// SF.
pub const SF: u64 = 1 << 7;
/// TF.
pub const TF: u64 = 1 << 8;
/// IF.
pub const IF: u64 = 1 << 9;
/// DF.
pub const DF: u64 = 1 << 10;
/// OF.
pub const OF: u64 = 1 << 11;
/// IOPL.
pub const IOPL: u64 = 3 << 12;
/// NT.
pub const NT: u64 = 1 << 14;
/// RF.
pub const RF: u64 = 1 << 16;
/// VM.
pub const VM: u64 = 1 << 17;
/// AC.
pub const AC: u64 = 1 << 18;
/// ID.
pub const ID: u64 = 1 << 21;
/// The six status flags.
pub const STATUS: u64 = CF | PF | AF | ZF | SF | OF;

const CARRY: u64 = 1 << 63;
const CARRY_BELOW: u64 = 1 << 62;
const AUXILIARY: u64 = 1 << 3;
const SIGN_FLIPPED: u64 = 1;

/// The status flags.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    /// The result, sign-extended: ZF, SF and PF come from it.
    result: u64,
    /// Bit 63 is CF, bit 62 the carry into the sign bit (OF is their difference), bit 3 is AF, bit 0
    /// flips SF, bits 8 to 15 are mixed into the byte that PF comes from.
    carries: u64,
}

impl Status {
    /// From RFLAGS.
    pub fn from_flags(flags: u64) -> Status {
        let mut carries = 0;
        if flags & CF != 0 {
            carries |= CARRY;
        }
        if (flags & OF != 0) != (flags & CF != 0) {
            carries |= CARRY_BELOW;
        }
        if flags & AF != 0 {
            carries |= AUXILIARY;
        }
        if flags & SF != 0 {
            carries |= SIGN_FLIPPED;
        }
        if flags & PF == 0 {
            carries |= 1 << 8;
        }
        Status {
            result: if flags & ZF != 0 { 0 } else { 1 << 8 },
            carries,
        }
    }

    /// Of an addition or subtraction of `bits` bits: the sign-extended result and the carries out of
    /// each position.
    #[inline(always)]
    pub fn arithmetic(result: u64, carries: u64, bits: u32) -> Status {
        Status {
            result,
            carries: (carries << (64 - bits)) & (CARRY | CARRY_BELOW) | carries & AUXILIARY,
        }
    }

    /// CF and OF are clear, so is AF.
    #[inline(always)]
    pub fn logic(result: u64) -> Status {
        Status { result, carries: 0 }
    }

    /// ZF, SF and PF of the sign-extended result; CF and OF as given; AF clear.
    #[inline(always)]
    pub fn with(result: u64, carry: bool, overflow: bool) -> Status {
        Status {
            result,
            carries: u64::from(carry) << 63 | u64::from(carry != overflow) << 62,
        }
    }

    /// Replaces CF, leaves OF and all others.
    #[inline(always)]
    pub fn with_carry(self, carry: bool) -> Status {
        let flips = ((self.carries >> 63) ^ u64::from(carry)) * (CARRY | CARRY_BELOW);
        Status {
            carries: self.carries ^ flips,
            ..self
        }
    }

    /// CF and OF are replaced, the others stay.
    #[inline(always)]
    pub fn with_carry_and_overflow(self, carry: bool, overflow: bool) -> Status {
        Status {
            carries: self.carries & !(CARRY | CARRY_BELOW)
                | u64::from(carry) << 63
                | u64::from(carry != overflow) << 62,
            ..self
        }
    }

    /// CF.
    #[inline(always)]
    pub fn carry(self) -> bool {
        self.carries >> 63 != 0
    }

    /// OF.
    #[inline(always)]
    pub fn overflow(self) -> bool {
        ((self.carries >> 63) ^ (self.carries >> 62)) & 1 != 0
    }

    /// ZF.
    #[inline(always)]
    pub fn zero(self) -> bool {
        self.result == 0
    }

    /// SF.
    #[inline(always)]
    pub fn sign(self) -> bool {
        (self.result >> 63) ^ (self.carries & 1) != 0
    }

    /// PF.
    #[inline(always)]
    pub fn parity(self) -> bool {
        ((self.result ^ (self.carries >> 8)) as u8)
            .count_ones()
            .is_multiple_of(2)
    }

    /// AF.
    #[inline(always)]
    pub fn auxiliary(self) -> bool {
        self.carries & AUXILIARY != 0
    }

    /// As bits of RFLAGS.
    pub fn to_flags(self) -> u64 {
        u64::from(self.carry())
            | u64::from(self.parity()) << 2
            | u64::from(self.auxiliary()) << 4
            | u64::from(self.zero()) << 6
            | u64::from(self.sign()) << 7
            | u64::from(self.overflow()) << 11
    }

    /// Condition `code` of Jcc, SETcc and CMOVcc (SDM volume 2, B.1.4.7).
    #[inline(always)]
    pub fn holds(self, code: u8) -> bool {
        let holds = match code >> 1 {
            0 => self.overflow(),
            1 => self.carry(),
            2 => self.zero(),
            3 => self.carry() || self.zero(),
            4 => self.sign(),
            5 => self.parity(),
            6 => self.sign() != self.overflow(),
            _ => self.zero() || self.sign() != self.overflow(),
        };
        holds != (code & 1 != 0)
    }
}

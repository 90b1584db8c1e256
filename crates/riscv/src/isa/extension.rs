//! What a board's harts have beyond RV64GC: each of these may be left out.

use super::Op;
use serde::{Deserialize, Serialize};

/// An extension, or a few that come together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Extension {
    /// Zba, Zbb and Zbs: bit manipulation.
    BitManipulation,
    /// Carry-less multiplication.
    Zbc,
    /// Integer conditional operations.
    Zicond,
    /// Zeroing of cache blocks.
    Zicboz,
    /// Management of cache blocks.
    Zicbom,
    /// Prefetching of cache blocks: hints, which are other instructions to whoever does not know them.
    Zicbop,
    /// Waiting on a reservation set.
    Zawrs,
    /// Fine-grained invalidation of translations.
    Svinval,
    /// Page-based memory types.
    Svpbmt,
    /// Compressed loads and stores of bytes and halves, and more.
    Zcb,
    /// Half precision: loads, stores, moves and conversions.
    Zfhmin,
    /// More floating point: constants, rounding to integers, minima that NaNs win.
    Zfa,
}

impl Extension {
    /// All of them.
    pub const ALL: [Extension; 12] = [
        Extension::BitManipulation,
        Extension::Zbc,
        Extension::Zicond,
        Extension::Zicboz,
        Extension::Zicbom,
        Extension::Zicbop,
        Extension::Zawrs,
        Extension::Svinval,
        Extension::Svpbmt,
        Extension::Zcb,
        Extension::Zfhmin,
        Extension::Zfa,
    ];

    /// What it is called where a machine is configured.
    pub const fn name(self) -> &'static str {
        match self {
            Extension::BitManipulation => "bit-manipulation",
            Extension::Zbc => "zbc",
            Extension::Zicond => "zicond",
            Extension::Zicboz => "zicboz",
            Extension::Zicbom => "zicbom",
            Extension::Zicbop => "zicbop",
            Extension::Zawrs => "zawrs",
            Extension::Svinval => "svinval",
            Extension::Svpbmt => "svpbmt",
            Extension::Zcb => "zcb",
            Extension::Zfhmin => "zfhmin",
            Extension::Zfa => "zfa",
        }
    }

    /// The one of this name.
    pub fn of_name(name: &str) -> Option<Extension> {
        let all = Extension::ALL.into_iter();
        all.into_iter().find(|extension| extension.name() == name)
    }
}

/// The extensions that a board has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extensions(u32);

impl Extensions {
    /// None: RV64GC.
    pub const NONE: Extensions = Extensions(0);
    /// All.
    pub const ALL: Extensions = Extensions((1 << Extension::ALL.len()) - 1);

    /// With one more.
    pub const fn with(self, extension: Extension) -> Extensions {
        Extensions(self.0 | 1 << extension as u8)
    }

    /// With one less.
    pub const fn without(self, extension: Extension) -> Extensions {
        Extensions(self.0 & !(1 << extension as u8))
    }

    /// Whether it is among them.
    pub const fn contain(self, extension: Extension) -> bool {
        self.0 & 1 << extension as u8 != 0
    }

    pub(super) fn include(self, op: Op) -> bool {
        op.extension()
            .is_none_or(|extension| self.contain(extension))
    }
}

impl Op {
    /// The extension that it belongs to; none if it is always there.
    pub fn extension(self) -> Option<Extension> {
        use Op::*;
        Some(match self {
            AddUw | Sh1add | Sh2add | Sh3add | Sh1addUw | Sh2addUw | Sh3addUw | SlliUw | Andn
            | Orn | Xnor | Clz | Ctz | Cpop | Clzw | Ctzw | Cpopw | Max | Maxu | Min | Minu
            | SextB | SextH | ZextH | Rol | Ror | Rori | Rolw | Rorw | Roriw | OrcB | Rev8
            | Bclr | Bext | Binv | Bset | Bclri | Bexti | Binvi | Bseti => {
                Extension::BitManipulation
            }
            Clmul | Clmulh | Clmulr => Extension::Zbc,
            CzeroEqz | CzeroNez => Extension::Zicond,
            CboZero => Extension::Zicboz,
            CboInval | CboClean | CboFlush => Extension::Zicbom,
            WrsNto | WrsSto => Extension::Zawrs,
            SinvalVma | SfenceWInval | SfenceInvalIr => Extension::Svinval,
            Flh | Fsh | FmvXH | FmvHX | FcvtSH | FcvtHS | FcvtDH | FcvtHD => Extension::Zfhmin,
            FliS | FliD | FminmS | FmaxmS | FminmD | FmaxmD | FroundS | FroundnxS | FroundD
            | FroundnxD | FcvtmodWD | FltqS | FleqS | FltqD | FleqD => Extension::Zfa,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_one_bit_and_has_a_name_of_its_own() {
        let mut all = Extensions::NONE;
        for (number, extension) in Extension::ALL.into_iter().enumerate() {
            assert_eq!(extension as usize, number);
            assert_eq!(Extension::of_name(extension.name()), Some(extension));
            assert!(!all.contain(extension));
            all = all.with(extension);
            assert_eq!(
                Extensions::ALL.without(extension).with(extension),
                Extensions::ALL
            );
            assert!(!Extensions::ALL.without(extension).contain(extension));
        }
        assert_eq!(all, Extensions::ALL);
        assert_eq!(Extension::of_name("zfinx"), None);
    }
}

//! What the guest is told of the harts.

use crate::board::boot::IsaDescription;
use crate::isa::{Extension, Extensions};

/// Names of extensions in the order in which the device tree has them, as on QEMU; those that a board may
/// leave out are there with whoever brings them. Zca is a part of C that Zcb needs.
const NAMES: &[(&str, Option<Extension>)] = &[
    ("zicbom", Some(Extension::Zicbom)),
    ("zicbop", Some(Extension::Zicbop)),
    ("zicboz", Some(Extension::Zicboz)),
    ("zicntr", None),
    ("zicond", Some(Extension::Zicond)),
    ("zicsr", None),
    ("zifencei", None),
    ("zihintpause", None),
    ("zawrs", Some(Extension::Zawrs)),
    ("zfa", Some(Extension::Zfa)),
    ("zfhmin", Some(Extension::Zfhmin)),
    ("zca", Some(Extension::Zcb)),
    ("zcb", Some(Extension::Zcb)),
    ("zba", Some(Extension::BitManipulation)),
    ("zbb", Some(Extension::BitManipulation)),
    ("zbc", Some(Extension::Zbc)),
    ("zbs", Some(Extension::BitManipulation)),
    ("sstc", None),
    ("svadu", None),
    ("svinval", Some(Extension::Svinval)),
    ("svpbmt", Some(Extension::Svpbmt)),
];

/// Properties with the length of a cache block, and who needs them.
const BLOCK_LENGTHS: [(&str, Extension); 3] = [
    ("riscv,cbom-block-size", Extension::Zicbom),
    ("riscv,cbop-block-size", Extension::Zicbop),
    ("riscv,cboz-block-size", Extension::Zicboz),
];

/// What the device tree says of the harts. Sv57 is the widest mode; the guest may choose another.
pub(super) fn of(extensions: Extensions) -> IsaDescription {
    let has = |extension: Option<Extension>| extension.is_none_or(|e| extensions.contain(e));
    let letters = ["i", "m", "a", "f", "d", "c"];
    let names = NAMES.iter().filter(|(_, extension)| has(*extension));
    let names: Vec<&str> = names.map(|(name, _)| *name).collect();
    let lengths = BLOCK_LENGTHS.into_iter();
    let lengths = lengths.filter(|(_, extension)| extensions.contain(*extension));
    IsaDescription {
        isa: format!("rv64{}_{}", letters.concat(), names.join("_")),
        isa_base: "rv64i".into(),
        isa_extensions: letters.into_iter().chain(names).map(String::from).collect(),
        mmu_type: "riscv,sv57".into(),
        block_lengths: lengths.map(|(property, _)| property).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The guest uses what it is told of: both properties have to say the same, with and without.
    #[test]
    fn what_is_there_is_announced_and_nothing_else() {
        let described = |extensions, expected: &str| {
            let IsaDescription {
                isa,
                isa_extensions,
                ..
            } = of(extensions);
            assert_eq!(isa, format!("rv64imafdc_{expected}"));
            assert_eq!(isa_extensions[6..].join("_"), expected);
        };
        described(
            Extensions::ALL,
            "zicbom_zicbop_zicboz_zicntr_zicond_zicsr_zifencei_zihintpause_zawrs_zfa_zfhmin_zca_zcb_\
             zba_zbb_zbc_zbs_sstc_svadu_svinval_svpbmt",
        );
        described(
            Extensions::NONE,
            "zicntr_zicsr_zifencei_zihintpause_sstc_svadu",
        );
        described(
            Extensions::NONE.with(Extension::BitManipulation),
            "zicntr_zicsr_zifencei_zihintpause_zba_zbb_zbs_sstc_svadu",
        );
    }

    #[test]
    fn each_can_be_left_out_and_takes_its_names_along() {
        let all = of(Extensions::ALL);
        for extension in Extension::ALL {
            let without = of(Extensions::ALL.without(extension));
            let left = all.isa_extensions.iter();
            let left: Vec<_> = left
                .filter(|name| !without.isa_extensions.contains(name))
                .collect();
            let names = NAMES.iter().filter(|(_, by)| *by == Some(extension));
            let names: Vec<_> = names.map(|(name, _)| *name).collect();
            assert_eq!(left, names);
            assert!(!names.is_empty());
        }
        assert_eq!(all.block_lengths.len(), 3);
        let without = of(Extensions::ALL.without(Extension::Zicboz));
        assert_eq!(
            without.block_lengths,
            ["riscv,cbom-block-size", "riscv,cbop-block-size"]
        );
    }
}

//! What the guest is told of the harts.

use crate::board::boot::IsaDescription;
use crate::isa::Extensions;

/// What the device tree says of the harts. Sv57 is the widest mode; the guest may choose another.
pub(super) fn of(extensions: Extensions) -> IsaDescription {
    let letters = ["i", "m", "a", "f", "d", "c"];
    let mut names = vec!["zicntr", "zicsr", "zifencei", "zihintpause"];
    if extensions.bit_manipulation {
        names.extend(["zba", "zbb", "zbs"]);
    }
    names.extend(["sstc", "svadu"]);
    IsaDescription {
        isa: format!("rv64{}_{}", letters.concat(), names.join("_")),
        isa_base: "rv64i".into(),
        isa_extensions: letters.into_iter().chain(names).map(String::from).collect(),
        mmu_type: "riscv,sv57".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(bit_manipulation: bool) -> (String, Vec<String>) {
        let description = of(Extensions { bit_manipulation });
        (description.isa, description.isa_extensions)
    }

    /// The guest uses what it is told of: both properties have to say the same, with and without.
    #[test]
    fn bit_manipulation_is_announced_where_it_is() {
        let (isa, list) = names(true);
        assert_eq!(
            isa,
            "rv64imafdc_zicntr_zicsr_zifencei_zihintpause_zba_zbb_zbs_sstc_svadu"
        );
        assert_eq!(list[6..].join("_"), isa["rv64imafdc_".len()..]);
        let (isa, list) = names(false);
        assert_eq!(
            isa,
            "rv64imafdc_zicntr_zicsr_zifencei_zihintpause_sstc_svadu"
        );
        assert_eq!(list[6..].join("_"), isa["rv64imafdc_".len()..]);
    }
}

//! Who made the host's processor: what the manuals leave open, and where a vendor leaves its manual.

/// What a test may have to know of the host. The rules are in `docs/decisions/x86.md`, "Where processors differ".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    /// `GenuineIntel`. The machine says that it is one.
    Intel,
    /// `AuthenticAMD`.
    Amd,
    /// Nobody looked at one yet: whatever is not as here fails.
    Other,
}

impl Vendor {
    /// By the string of CPUID's leaf 0.
    pub fn of_host() -> Vendor {
        let leaf = std::arch::x86_64::__cpuid(0);
        let name: Vec<u8> = [leaf.ebx, leaf.edx, leaf.ecx]
            .into_iter()
            .flat_map(u32::to_le_bytes)
            .collect();
        match &name[..] {
            b"GenuineIntel" => Vendor::Intel,
            b"AuthenticAMD" => Vendor::Amd,
            _ => Vendor::Other,
        }
    }
}

//! Integer registers.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Where decoded blocks write what an instruction gives to `x0`.
pub const SINK: u8 = 32;

/// The integer registers x0 to x31 and a sink, padded so that six bits index without a check.
#[derive(Clone, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Registers([u64; 64]);

impl Default for Registers {
    fn default() -> Registers {
        Registers([0; 64])
    }
}

impl Registers {
    /// Register `index`; x0 reads as zero.
    #[inline(always)]
    pub fn get(&self, index: u8) -> u64 {
        self.0[(index & 63) as usize]
    }

    /// Writes a register. The caller has mapped x0 to [`SINK`].
    #[inline(always)]
    pub fn set_mapped(&mut self, index: u8, value: u64) {
        self.0[(index & 63) as usize] = value;
    }

    /// Writes a register; a write to x0 is dropped.
    pub fn set(&mut self, index: u8, value: u64) {
        if index != 0 {
            self.0[(index & 31) as usize] = value;
        }
    }
}

impl Serialize for Registers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        <[u64; 32]>::try_from(&self.0[..32])
            .expect("32 of 64")
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Registers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Registers, D::Error> {
        let values = <[u64; 32]>::deserialize(deserializer)?;
        let mut registers = Registers::default();
        registers.0[1..32].copy_from_slice(&values[1..]);
        Ok(registers)
    }
}

//! What the vector and x87 instructions see of the rest of the CPU.

use crate::fault::Fault;
use iced_x86::Register;

/// Memory and general registers, to one instruction. x86 instructions have at most one memory operand,
/// so `load` and `store` mean that one, whichever operand it is (the ones by rDI of MASKMOVQ and
/// MASKMOVDQU too); `offset` is for the instructions that touch more than their operand's first bytes
/// (FXSAVE, FSAVE, FLDENV, MASKMOVDQU).
///
/// The CPU has checked CR0.EM, CR0.TS, CR4.OSFXSR and the LOCK prefix before. An instruction must not
/// change state before the last access that may fault, as a fault restarts it.
pub trait Operands {
    /// The linear address of the memory operand, for alignment checks. Use
    /// [`Operands::require_alignment`] where the rule is #GP(0).
    fn address(&self) -> u64;

    /// Loads `size` bytes (1, 2, 4, 8, 10 or 16), zero-extended. No alignment is asked for.
    fn load(&mut self, offset: u64, size: usize) -> Result<u128, Fault>;

    /// Stores the `size` low bytes of `value` (1, 2, 4, 8, 10 or 16), all or nothing.
    fn store(&mut self, offset: u64, size: usize, value: u128) -> Result<(), Fault>;

    /// Faults as a store of `size` bytes would, and stores nothing: before the first of several stores.
    fn check_store(&mut self, offset: u64, size: usize) -> Result<(), Fault>;

    /// Loads bytes from the operand's first on, if all are in one page that is known; else does nothing, and gives false.
    fn load_at_once(&mut self, _bytes: &mut [u8]) -> bool {
        false
    }

    /// Stores them likewise.
    fn store_at_once(&mut self, _bytes: &[u8]) -> bool {
        false
    }

    /// A general register of 8, 16, 32 or 64 bits, zero-extended.
    fn gpr(&self, register: Register) -> u64;

    /// Writes a general register as instructions do: 32 bits clear the upper half, 8 and 16 bits leave
    /// the rest.
    fn set_gpr(&mut self, register: Register, value: u64);

    /// RFLAGS.
    fn flags(&self) -> u64;

    /// Replaces those bits of RFLAGS that are in `mask`.
    fn set_flags(&mut self, mask: u64, value: u64);

    /// Legacy SSE's rule for 16-byte memory operands: #GP(0) unless the address is a multiple of
    /// `alignment`, a power of two.
    fn require_alignment(&self, alignment: u64) -> Result<(), Fault> {
        if self.address() & (alignment - 1) == 0 {
            Ok(())
        } else {
            Err(Fault::GENERAL_PROTECTION)
        }
    }
}

//! Where an operand in memory is in the host's memory: by the TLB, or else the interpreter executes the
//! instruction.

use super::emitter::Emitter;
use super::layout::*;
use crate::interpreter::op::{Op, RIP, ZERO};
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};

/// What is done to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    /// Written, and perhaps read before.
    Write,
}

/// Base, index and scale, displacement.
type Parts = (Option<Host>, Option<(Host, u8)>, i32);

impl Emitter<'_> {
    /// Puts the host's address of the present instruction's operand into `rax`. Flags are in the frame
    /// afterwards. Gives the label where the interpreter comes back to: behind the instruction.
    pub(super) fn operand(&mut self, access: Access) -> Result<DynamicLabel, ()> {
        let step = self.present();
        let size = step.instruction.memory_size().size();
        if !matches!(size, 1 | 2 | 4 | 8 | 16) {
            return Err(());
        }
        self.save_flags();
        self.address(&step.op)?;
        let miss = self.asm.new_dynamic_label();
        self.check(access, size as i32, miss);
        Ok(self.call_back_from(miss))
    }

    /// The parts of an effective address; `rax` and `rcx` hold what has no host register.
    pub(super) fn parts(&mut self, op: &Op) -> Result<Parts, ()> {
        let mut displacement = op.displacement;
        let base = match op.base {
            ZERO => None,
            RIP => {
                dynasm!(self.asm; .arch x64; mov rax, [rsp + PAGE]);
                displacement = displacement.checked_add(op.next.into()).ok_or(())?;
                Some(RAX)
            }
            guest => Some(self.source(guest, RAX)),
        };
        let index = match op.index {
            ZERO => None,
            guest => Some((self.source(guest, RCX), op.scale)),
        };
        Ok((base, index, displacement))
    }

    /// Puts the linear address of an operand into `rax`; uses `rcx`, and loses the host's flags.
    pub(super) fn address(&mut self, op: &Op) -> Result<(), ()> {
        let (base, index, displacement) = self.parts(op)?;
        match base {
            Some(RAX) if index.is_none() && displacement == 0 && !op.is_address_32 => {}
            _ => self.lea(RAX, base, index, displacement, !op.is_address_32),
        }
        if op.segment > 3 {
            dynasm!(self.asm; .arch x64; add rax, [rsp + segment_base(op.segment)]);
        }
        Ok(())
    }

    /// Looks the linear address in `rax` up: the host's is in `rax` then; or jumps to `miss`. Uses `rcx`.
    pub(super) fn check(&mut self, access: Access, size: i32, miss: DynamicLabel) {
        let table = match access {
            Access::Read => READS,
            Access::Write => WRITES,
        };
        dynasm!(self.asm; .arch x64
            ; rorx ecx, eax, 8
            ; and ecx, 0x3ff0
            ; sub rax, [r14 + rcx + table]
            ; cmp rax, 0x1000 - size
            ; ja =>miss
            ; add rax, [r14 + rcx + table + 8]
        );
        self.lose_flags();
    }
}
const _: () = assert!(crate::mmu::SLOTS == 0x400);

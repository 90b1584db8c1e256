//! SSE instructions that the host has in the same way. The guest's XMM registers are in the host's of the same
//! number from the first such instruction on until the interpreter or the way out needs them.

use super::emitter::{Cold, Emitter};
use super::layout::*;
use super::memory::{Access, Place};
use super::same::access;
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};
use iced_x86::{CpuidFeature, Instruction, Mnemonic, OpKind};

/// Whether the host has what the instruction belongs to. All have SSE2.
pub fn host_has(instruction: &Instruction) -> bool {
    instruction
        .cpuid_features()
        .iter()
        .all(|feature| match feature {
            CpuidFeature::SSE | CpuidFeature::SSE2 => true,
            CpuidFeature::SSE3 => is_x86_feature_detected!("sse3"),
            CpuidFeature::SSSE3 => is_x86_feature_detected!("ssse3"),
            CpuidFeature::SSE4_1 => is_x86_feature_detected!("sse4.1"),
            CpuidFeature::SSE4_2 => is_x86_feature_detected!("sse4.2"),
            CpuidFeature::AES => is_x86_feature_detected!("aes"),
            CpuidFeature::PCLMULQDQ => is_x86_feature_detected!("pclmulqdq"),
            CpuidFeature::SHA => is_x86_feature_detected!("sha"),
            _ => false,
        })
}

/// Whether an operand of 16 bytes in memory has to be aligned.
fn is_aligned(instruction: &Instruction) -> bool {
    instruction.memory_size().size() == 16
        && !matches!(
            instruction.mnemonic(),
            Mnemonic::Movups | Mnemonic::Movupd | Mnemonic::Movdqu | Mnemonic::Lddqu
        )
}

impl Emitter<'_> {
    /// Sees to it that the XMM registers are in the host's, and the guest's MXCSR. Loses flags that are in
    /// the host's only.
    fn need_vectors(&mut self) {
        if self.has_vectors {
            return;
        }
        self.save_flags();
        self.lose_flags();
        self.writes(RAX);
        let (from, back) = (self.asm.new_dynamic_label(), self.asm.new_dynamic_label());
        dynasm!(self.asm; .arch x64
            ; cmp BYTE [rsp + HAS_VECTORS], 0
            ; je =>from
            ; =>back
        );
        self.later(Cold::Vectors {
            from,
            back,
            index: self.index,
        });
        self.has_vectors = true;
    }

    /// An SSE instruction.
    pub(super) fn vector(&mut self) -> Result<(), ()> {
        let step = self.present();
        self.need_vectors();
        let has_memory = (0..step.instruction.op_count())
            .any(|at| step.instruction.op_kind(at) == OpKind::Memory);
        let back = if has_memory {
            let (back, place) = if is_aligned(&step.instruction) {
                (Some(self.aligned_operand(access(step))?), Place::HERE)
            } else {
                self.indexed_operand(access(step))?
            };
            self.encode(RAX, place, &[RCX])?;
            back
        } else {
            self.encode(RAX, Place::HERE, &[RCX, RAX])?;
            None
        };
        self.wrote_flags(step.writes);
        if let Some(back) = back {
            self.come_back(back);
        }
        Ok(())
    }

    /// As [`Emitter::operand`]; one that is not aligned is the interpreter's, too.
    fn aligned_operand(&mut self, access: Access) -> Result<DynamicLabel, ()> {
        // The look at the alignment loses the host's flags.
        self.yield_flags();
        let back = self.operand(access)?;
        let odd = self.asm.new_dynamic_label();
        dynasm!(self.asm; .arch x64; test al, 15; jnz =>odd);
        self.lose_flags();
        Ok(match back {
            Some(back) => {
                self.share_call_back(odd, back);
                back
            }
            None => self.call_back_from(odd),
        })
    }
}

//! Single bits: the host leaves most flags undefined, the guest all of them as they were.

use super::emitter::Emitter;
use super::flags::Flags;
use super::layout::*;
use super::memory::{Access, Place};
use super::same::access;
use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};
use iced_x86::{Mnemonic, OpKind, RflagsBits};

impl Emitter<'_> {
    /// BT, BTS, BTR, BTC.
    pub(super) fn bit_test(&mut self) -> Result<(), ()> {
        let step = self.present();
        if step.live != 0 {
            self.save_flags();
        }
        let back = if step.has_memory() {
            let back = self.operand(access(step))?;
            self.encode(RAX, Place::HERE, &[RCX])?;
            back
        } else {
            self.encode(RAX, Place::HERE, &[RCX, RAX])?;
            None
        };
        self.flags = Flags::DEAD;
        if step.live != 0 {
            if step.live & RflagsBits::CF != 0 {
                dynasm!(self.asm; .arch x64
                    ; setc cl
                    ; and BYTE [BYTE rsp + (FLAGS + 1) as i8], 0xfeu8 as i8
                    ; or [BYTE rsp + (FLAGS + 1) as i8], cl
                );
            }
            self.flags = Flags::IN_FRAME;
        }
        if let Some(back) = back {
            self.come_back(back);
        }
        Ok(())
    }

    /// BSF and BSR: of zero they leave the destination.
    pub(super) fn bit_scan(&mut self) -> Result<(), ()> {
        let step = self.present();
        let register = step.instruction.op_register(0);
        let guest = register.full_register().number() as u8;
        let is_wide = register.size() == 8;
        let is_forward = step.instruction.mnemonic() == Mnemonic::Bsf;
        if step.live != 0 {
            self.save_flags();
        }
        let mut back = None;
        let from = if step.instruction.op_kind(1) == OpKind::Register {
            let source = step.instruction.op_register(1).full_register();
            self.source(source.number() as u8, RCX)
        } else {
            back = self.operand(Access::Read)?;
            if is_wide {
                dynasm!(self.asm; .arch x64; mov rcx, [rax]);
            } else {
                dynasm!(self.asm; .arch x64; mov ecx, [rax]);
            }
            RCX
        };
        let to = self.homes[usize::from(guest)].unwrap_or(RCX);
        let is_zero = self.asm.new_dynamic_label();
        match is_wide {
            true => dynasm!(self.asm; .arch x64; test Rq(from), Rq(from)),
            false => dynasm!(self.asm; .arch x64; test Rd(from), Rd(from)),
        }
        dynasm!(self.asm; .arch x64; setz al; jz =>is_zero);
        match (is_forward, is_wide) {
            (true, true) => dynasm!(self.asm; .arch x64; bsf Rq(to), Rq(from)),
            (true, false) => dynasm!(self.asm; .arch x64; bsf Rd(to), Rd(from)),
            (false, true) => dynasm!(self.asm; .arch x64; bsr Rq(to), Rq(from)),
            (false, false) => dynasm!(self.asm; .arch x64; bsr Rd(to), Rd(from)),
        }
        self.put(guest, to);
        dynasm!(self.asm; .arch x64; =>is_zero);
        self.flags = Flags::DEAD;
        if step.live != 0 {
            if step.live & RflagsBits::ZF != 0 {
                dynasm!(self.asm; .arch x64
                    ; shl al, 6
                    ; and BYTE [BYTE rsp + (FLAGS + 1) as i8], 0xbfu8 as i8
                    ; or [BYTE rsp + (FLAGS + 1) as i8], al
                );
            }
            self.flags = Flags::IN_FRAME;
        }
        if let Some(back) = back {
            self.come_back(back);
        }
        Ok(())
    }
}

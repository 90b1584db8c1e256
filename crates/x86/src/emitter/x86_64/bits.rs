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
        self.wrote_carry();
        if let Some(back) = back {
            self.come_back(back);
        }
        Ok(())
    }

    /// The same of a bit in memory that a register says: bits go on beyond the operand, both ways.
    pub(super) fn bit_test_in_memory(&mut self) -> Result<(), ()> {
        let step = self.present();
        if step.op.is_address_32 {
            return Err(());
        }
        if step.live != 0 {
            self.save_flags();
        } else {
            self.yield_flags();
        }
        let register = step.instruction.op_register(1);
        let guest = register.full_register().number() as u8;
        let is_wide = register.size() == 8;
        self.address(&step.op)?;
        let bit = self.source(guest, RCX);
        match is_wide {
            true => {
                dynasm!(self.asm; .arch x64; mov rcx, Rq(bit); sar rcx, 6; lea rax, [rax + rcx * 8])
            }
            false => {
                dynasm!(self.asm; .arch x64; movsxd rcx, Rd(bit); sar rcx, 5; lea rax, [rax + rcx * 4]);
            }
        }
        let miss = self.asm.new_dynamic_label();
        self.check(access(step), register.size() as i32, miss);
        let back = self.call_back_from(miss);
        let bit = self.source(guest, RCX);
        dynasm!(self.asm; .arch x64; mov ecx, Rd(bit); and ecx, 8 * register.size() as i32 - 1);
        match (step.instruction.mnemonic(), is_wide) {
            (Mnemonic::Bt, true) => dynasm!(self.asm; .arch x64; bt QWORD [rax], rcx),
            (Mnemonic::Bt, false) => dynasm!(self.asm; .arch x64; bt DWORD [rax], ecx),
            (Mnemonic::Bts, true) => dynasm!(self.asm; .arch x64; bts QWORD [rax], rcx),
            (Mnemonic::Bts, false) => dynasm!(self.asm; .arch x64; bts DWORD [rax], ecx),
            (Mnemonic::Btr, true) => dynasm!(self.asm; .arch x64; btr QWORD [rax], rcx),
            (Mnemonic::Btr, false) => dynasm!(self.asm; .arch x64; btr DWORD [rax], ecx),
            (_, true) => dynasm!(self.asm; .arch x64; btc QWORD [rax], rcx),
            (_, false) => dynasm!(self.asm; .arch x64; btc DWORD [rax], ecx),
        }
        self.wrote_carry();
        self.come_back(back);
        Ok(())
    }

    /// The host's CF is the guest's, all other flags are in the frame, if anybody asks for them.
    fn wrote_carry(&mut self) {
        let live = self.present().live;
        self.flags = Flags::DEAD;
        if live == 0 {
            return;
        }
        if live & RflagsBits::CF != 0 {
            dynasm!(self.asm; .arch x64
                ; setc cl
                ; and BYTE [BYTE rsp + (FLAGS + 1) as i8], 0xfeu8 as i8
                ; or [BYTE rsp + (FLAGS + 1) as i8], cl
            );
        }
        self.flags = Flags::IN_FRAME;
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

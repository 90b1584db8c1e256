//! Multiplication, division, shifts: where the host leaves flags undefined, or may fault.

use super::emitter::Emitter;
use super::flags::{Flags, Overflow};
use super::layout::*;
use super::memory::{Access, Place};
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};
use iced_x86::{Mnemonic, OpKind};

impl Emitter<'_> {
    /// SHL, SHR, SAR, ROL, ROR by a constant.
    pub(super) fn shift_by_constant(&mut self) -> Result<(), ()> {
        let step = self.present();
        let is_one = step.shift_count() == 1;
        let is_rotation = matches!(step.instruction.mnemonic(), Mnemonic::Rol | Mnemonic::Ror);
        if is_rotation && !is_one && step.live & step.writes != 0 {
            return self.rotate();
        }
        let can_wait = self.piece.flags_can_wait(self.index);
        if can_wait {
            let register = step.instruction.op_register(0).full_register();
            let shifted = self.source(register.number() as u8, RAX);
            dynasm!(self.asm; .arch x64; mov [rsp + SHIFTED], Rq(shifted));
        }
        let back = self.encode_present()?;
        self.wrote_flags(step.writes);
        if !is_rotation {
            self.flags.clears_adjust = true;
            self.flags.overflow = Overflow::of_shift(step);
        }
        if can_wait {
            self.flags.origin = Some(self.index);
        }
        if let Some(back) = back {
            self.come_back(back);
        }
        Ok(())
    }

    /// ROL and ROR of a register by a constant that is not 1, if somebody asks for the flags: all but CF and OF
    /// stay.
    fn rotate(&mut self) -> Result<(), ()> {
        let step = self.present();
        if step.has_memory() {
            return Err(());
        }
        let register = step.instruction.op_register(0);
        let guest = register.full_register().number() as u8;
        let top = 8 * register.size() as i8 - 1;
        self.save_flags();
        self.encode(RAX, Place::HERE, &[RCX, RAX])?;
        dynasm!(self.asm; .arch x64; setc cl);
        // OF is the top bit xor CF, or xor the bit below: after ROR the top bit is CF.
        let bit = match step.instruction.mnemonic() {
            Mnemonic::Rol => top,
            _ => top - 1,
        };
        match self.homes[usize::from(guest)] {
            Some(home) => dynasm!(self.asm; .arch x64; bt Rq(home), bit),
            None => dynasm!(self.asm; .arch x64; bt QWORD [rsp + self.spilled(guest)], bit),
        }
        dynasm!(self.asm; .arch x64
            ; setc al
            ; xor al, cl
            ; mov [BYTE rsp + (FLAGS) as i8], al
            ; and BYTE [BYTE rsp + (FLAGS + 1) as i8], 0xfeu8 as i8
            ; or [BYTE rsp + (FLAGS + 1) as i8], cl
        );
        self.flags = Flags::IN_FRAME;
        Ok(())
    }

    /// The same by CL, of registers of 32 or 64 bits.
    pub(super) fn shift_by_cl(&mut self) -> Result<(), ()> {
        let step = self.present();
        let mnemonic = step.instruction.mnemonic();
        let register = step.instruction.op_register(0);
        let guest = register.full_register().number() as u8;
        let is_wide = register.size() == 8;
        let matters = step.live != 0;
        let is_in_frame = self.homes[usize::from(guest)].is_none();
        if matters && matches!(mnemonic, Mnemonic::Rol | Mnemonic::Ror) {
            return Err(());
        }
        self.save_flags();
        let to = self.source(guest, RAX);
        let done = self.asm.new_dynamic_label();
        dynasm!(self.asm; .arch x64; mov ecx, Rd(GUEST_RCX));
        if !is_wide {
            // A count of zero clears the upper half, too.
            dynasm!(self.asm; .arch x64; mov Rd(to), Rd(to));
        }
        if matters {
            if is_in_frame && !is_wide {
                self.put(guest, to);
            }
            let mask = if is_wide { 63 } else { 31 };
            dynasm!(self.asm; .arch x64; and ecx, mask; jz =>done);
        }
        match (mnemonic, is_wide) {
            (Mnemonic::Shr, true) => dynasm!(self.asm; .arch x64; shr Rq(to), cl),
            (Mnemonic::Shr, false) => dynasm!(self.asm; .arch x64; shr Rd(to), cl),
            (Mnemonic::Sar, true) => dynasm!(self.asm; .arch x64; sar Rq(to), cl),
            (Mnemonic::Sar, false) => dynasm!(self.asm; .arch x64; sar Rd(to), cl),
            (Mnemonic::Rol, true) => dynasm!(self.asm; .arch x64; rol Rq(to), cl),
            (Mnemonic::Rol, false) => dynasm!(self.asm; .arch x64; rol Rd(to), cl),
            (Mnemonic::Ror, true) => dynasm!(self.asm; .arch x64; ror Rq(to), cl),
            (Mnemonic::Ror, false) => dynasm!(self.asm; .arch x64; ror Rd(to), cl),
            (_, true) => dynasm!(self.asm; .arch x64; shl Rq(to), cl),
            (_, false) => dynasm!(self.asm; .arch x64; shl Rd(to), cl),
        }
        self.put(guest, to);
        self.flags = Flags::DEAD;
        if matters {
            match (mnemonic, is_wide) {
                (Mnemonic::Shr, true) if is_in_frame => {
                    dynasm!(self.asm; .arch x64; lahf; bt QWORD [rsp + self.spilled(guest)], 62; setc al);
                }
                (Mnemonic::Shr, false) if is_in_frame => {
                    dynasm!(self.asm; .arch x64; lahf; bt DWORD [rsp + self.spilled(guest)], 30; setc al);
                }
                (Mnemonic::Shr, true) => {
                    dynasm!(self.asm; .arch x64; lahf; bt Rq(to), 62; setc al);
                }
                (Mnemonic::Shr, false) => {
                    dynasm!(self.asm; .arch x64; lahf; bt Rd(to), 30; setc al);
                }
                (Mnemonic::Sar, _) => dynasm!(self.asm; .arch x64; lahf; mov al, 0),
                _ => dynasm!(self.asm; .arch x64; lahf; sets al; setc cl; xor al, cl),
            }
            dynasm!(self.asm; .arch x64; and ah, 0xefu8 as i8; mov [BYTE rsp + (FLAGS) as i8], ax; =>done);
            self.flags = Flags::IN_FRAME;
        }
        Ok(())
    }

    /// SHLD and SHRD of a register of 32 or 64 bits: as for one bit, OF says whether the sign has changed.
    pub(super) fn double_shift(&mut self) -> Result<(), ()> {
        let step = self.present();
        let instruction = &step.instruction;
        let is_left = instruction.mnemonic() == Mnemonic::Shld;
        let is_by_cl = instruction.op_kind(2) == OpKind::Register;
        let is_wide = instruction.op_register(0).size() == 8;
        let number = |operand| instruction.op_register(operand).full_register().number() as u8;
        let (guest, filler) = (number(0), number(1));
        let matters = step.live != 0;
        if is_by_cl && self.homes[usize::from(filler)].is_none() {
            return Err(()); // there is no register for it
        }
        if is_by_cl {
            self.save_flags(); // perhaps they stay
        }
        let to = self.source(guest, RAX);
        let from = self.source(filler, RCX);
        self.writes(RAX);
        let done = self.asm.new_dynamic_label();
        if is_by_cl {
            dynasm!(self.asm; .arch x64; mov ecx, Rd(GUEST_RCX));
            if !is_wide {
                // A count of zero clears the upper half, too.
                dynasm!(self.asm; .arch x64; mov Rd(to), Rd(to));
                self.put(guest, to);
            }
            if matters {
                let mask = if is_wide { 63 } else { 31 };
                dynasm!(self.asm; .arch x64; and ecx, mask; jz =>done);
            }
        }
        if matters {
            dynasm!(self.asm; .arch x64; mov [rsp + KEPT], Rq(to));
        }
        let count = step.shift_count() as i8;
        match (is_left, is_wide, is_by_cl) {
            (true, true, true) => dynasm!(self.asm; .arch x64; shld Rq(to), Rq(from), cl),
            (true, false, true) => dynasm!(self.asm; .arch x64; shld Rd(to), Rd(from), cl),
            (false, true, true) => dynasm!(self.asm; .arch x64; shrd Rq(to), Rq(from), cl),
            (false, false, true) => dynasm!(self.asm; .arch x64; shrd Rd(to), Rd(from), cl),
            (true, true, false) => dynasm!(self.asm; .arch x64; shld Rq(to), Rq(from), count),
            (true, false, false) => dynasm!(self.asm; .arch x64; shld Rd(to), Rd(from), count),
            (false, true, false) => dynasm!(self.asm; .arch x64; shrd Rq(to), Rq(from), count),
            (false, false, false) => dynasm!(self.asm; .arch x64; shrd Rd(to), Rd(from), count),
        }
        self.put(guest, to);
        self.flags = Flags::DEAD;
        if matters {
            let sign = if is_wide { 63 } else { 31 };
            dynasm!(self.asm; .arch x64; lahf; mov rcx, [rsp + KEPT]);
            match self.homes[usize::from(guest)] {
                Some(home) => dynasm!(self.asm; .arch x64; xor rcx, Rq(home)),
                None => {
                    dynasm!(self.asm; .arch x64; xor rcx, [BYTE rsp + self.spilled(guest) as i8])
                }
            }
            dynasm!(self.asm; .arch x64
                ; bt rcx, sign
                ; setc al
                ; and ah, 0xefu8 as i8
                ; mov [BYTE rsp + (FLAGS) as i8], ax
                ; =>done
            );
            self.flags = Flags::IN_FRAME;
        }
        Ok(())
    }

    /// IMUL with a destination.
    pub(super) fn multiply(&mut self) -> Result<(), ()> {
        let step = self.present();
        let back = self.encode_present()?;
        let register = step.instruction.op_register(0);
        self.flags = Flags::DEAD;
        if step.live != 0 {
            let guest = register.full_register().number() as u8;
            // The interpreter comes back behind this: `mov` keeps the flags.
            let result = self.source(guest, RCX);
            self.save_product_flags(result, register.size() == 8);
        }
        if let Some(back) = back {
            self.come_back(back);
        }
        Ok(())
    }

    /// MUL and IMUL of rAX.
    pub(super) fn multiply_wide(&mut self) -> Result<(), ()> {
        let step = self.present();
        let is_signed = step.instruction.mnemonic() == Mnemonic::Imul;
        let (factor, is_wide, back) = self.one_source()?;
        match (is_signed, is_wide) {
            (false, true) => dynasm!(self.asm; .arch x64; mov rax, r10; mul Rq(factor)),
            (false, false) => dynasm!(self.asm; .arch x64; mov eax, r10d; mul Rd(factor)),
            (true, true) => dynasm!(self.asm; .arch x64; mov rax, r10; imul Rq(factor)),
            (true, false) => dynasm!(self.asm; .arch x64; mov eax, r10d; imul Rd(factor)),
        }
        dynasm!(self.asm; .arch x64; mov r10, rax);
        self.flags = Flags::DEAD;
        if step.live != 0 {
            self.save_product_flags(GUEST_RAX, is_wide);
        }
        if let Some(back) = back {
            self.come_back(back);
        }
        Ok(())
    }

    /// CF and OF are the host's, SF, ZF and PF those of the result, AF clear.
    fn save_product_flags(&mut self, result: Host, is_wide: bool) {
        dynasm!(self.asm; .arch x64; seto BYTE [BYTE rsp + (FLAGS) as i8]; setc BYTE [rsp + KEPT]);
        if is_wide {
            dynasm!(self.asm; .arch x64; test Rq(result), Rq(result));
        } else {
            dynasm!(self.asm; .arch x64; test Rd(result), Rd(result));
        }
        dynasm!(self.asm; .arch x64
            ; lahf
            ; and ah, 0xefu8 as i8
            ; or ah, [rsp + KEPT]
            ; mov [BYTE rsp + (FLAGS + 1) as i8], ah
        );
        self.flags = Flags::IN_FRAME;
    }

    /// The one operand of 32 or 64 bits, in its register or in `rcx`.
    fn one_source(&mut self) -> Result<(Host, bool, Option<DynamicLabel>), ()> {
        let step = self.present();
        if step.instruction.op_kind(0) == OpKind::Register {
            let register = step.instruction.op_register(0);
            let guest = register.full_register().number() as u8;
            return Ok((self.source(guest, RCX), register.size() == 8, None));
        }
        let back = self.operand(Access::Read)?;
        let is_wide = step.instruction.memory_size().size() == 8;
        if is_wide {
            dynasm!(self.asm; .arch x64; mov rcx, [rax]);
        } else {
            dynasm!(self.asm; .arch x64; mov ecx, [rax]);
        }
        Ok((RCX, is_wide, back))
    }

    /// DIV and IDIV: the interpreter has those that may not have a result.
    pub(super) fn divide(&mut self) -> Result<(), ()> {
        let step = self.present();
        self.save_flags();
        let (divisor, is_wide, back) = self.one_source()?;
        let odd = self.asm.new_dynamic_label();
        if step.instruction.mnemonic() == Mnemonic::Div {
            if is_wide {
                dynasm!(self.asm; .arch x64
                    ; cmp rdx, Rq(divisor); jae =>odd
                    ; mov rax, r10; div Rq(divisor));
            } else {
                dynasm!(self.asm; .arch x64
                    ; cmp edx, Rd(divisor); jae =>odd
                    ; mov eax, r10d; div Rd(divisor));
            }
        } else if is_wide {
            dynasm!(self.asm; .arch x64
                ; lea rax, [Rq(divisor) + 1]; cmp rax, 1; jbe =>odd
                ; mov rax, r10; sar rax, 63; cmp rax, rdx; jne =>odd
                ; mov rax, r10; idiv Rq(divisor));
        } else {
            dynasm!(self.asm; .arch x64
                ; lea eax, [Rq(divisor) + 1]; cmp eax, 1; jbe =>odd
                ; mov eax, r10d; sar eax, 31; cmp eax, edx; jne =>odd
                ; mov eax, r10d; idiv Rd(divisor));
        }
        dynasm!(self.asm; .arch x64; mov r10, rax);
        self.flags = Flags::IN_FRAME;
        let behind = self.call_back_from(odd);
        self.come_back(behind);
        if let Some(back) = back {
            self.come_back(back);
        }
        Ok(())
    }

    /// CMPXCHG with memory.
    pub(super) fn compare_exchange(&mut self) -> Result<(), ()> {
        let step = self.present();
        let back = self.operand(Access::Write)?;
        dynasm!(self.asm; .arch x64; mov rcx, rax; mov rax, r10);
        self.encode(RCX, Place::HERE, &[])?;
        dynasm!(self.asm; .arch x64; mov r10, rax);
        self.wrote_flags(step.writes);
        if let Some(back) = back {
            self.come_back(back);
        }
        Ok(())
    }

    /// CWDE, CDQE, CDQ, CQO.
    pub(super) fn sign_extend(&mut self) {
        match self.present().instruction.mnemonic() {
            Mnemonic::Cwde => dynasm!(self.asm; .arch x64; movsx r10d, r10w),
            Mnemonic::Cdqe => dynasm!(self.asm; .arch x64; movsxd r10, r10d),
            Mnemonic::Cdq => dynasm!(self.asm; .arch x64; mov eax, r10d; cdq),
            _ => dynasm!(self.asm; .arch x64; mov rax, r10; cqo),
        }
    }
}

//! C (unprivileged specification, 28): compressed instructions do what they stand for, and are two
//! bytes long where that shows. That each encoding stands for the right instruction is tested in
//! the target `encoding`.

use crate::assembler::register::*;
use crate::guest::{Guest, Mode, SCRATCH, guests};
use riscv::isa::Op;

guests! {
    fn arithmetic(guest) {
        for (name, half, before, after) in [
            ("c.addi a0, -1", 0x157du16, 5u64, 4u64),
            ("c.addiw a0, 1", 0x2505, 0x7fff_ffff, 0xffff_ffff_8000_0000),
            ("c.li a0, -32", 0x5501, 9, 0xffff_ffff_ffff_ffe0),
            ("c.lui a0, -1", 0x757d, 9, 0xffff_ffff_ffff_f000),
            ("c.srli a0, 63", 0x917d, u64::MAX, 1),
            ("c.srai a0, 63", 0x957d, 1 << 63, u64::MAX),
            ("c.andi a0, -2", 0x9979, 0xff, 0xfe),
            ("c.slli a0, 63", 0x157e, 3, 1 << 63),
            ("c.mv a0, a1", 0x852e, 9, 0x30),
            ("c.add a0, a1", 0x952e, 9, 0x39),
            ("c.sub a0, a1", 0x8d0d, 0x31, 1),
            ("c.xor a0, a1", 0x8d2d, 0x31, 1),
            ("c.or a0, a1", 0x8d4d, 1, 0x31),
            ("c.and a0, a1", 0x8d6d, 0x11, 0x10),
            ("c.subw a0, a1", 0x9d0d, 0x2f, u64::MAX),
            ("c.addw a0, a1", 0x9d2d, 0x7fff_ffff, 0xffff_ffff_8000_002f),
            ("c.addi4spn a0, sp, 1020", 0x1fe8, 9, 0x1000 + 1020),
        ] {
            guest.asm.li(A0, before);
            guest.asm.li(A1, 0x30);
            guest.asm.li(SP, 0x1000);
            guest.asm.half(half);
            guest.check(A0, after, name);
        }
        guest.asm.li(SP, 0x1000);
        guest.asm.half(0x7101); // c.addi16sp -512
        guest.check(SP, 0x1000 - 512, "c.addi16sp");
        guest.asm.half(0x617d); // c.addi16sp 496
        guest.check(SP, 0x1000 - 16, "c.addi16sp");
    }

    fn hints_change_nothing(guest) {
        // c.nop with an immediate, c.addi x0, c.li x0, c.lui x0, c.slli x0, c.mv x0, c.add x0
        for half in [0x0001u16, 0x0005, 0x107d, 0x4005, 0x6005, 0x0006, 0x802e, 0x902e] {
            guest.asm.li(A1, 7);
            guest.asm.half(half);
            guest.check(ZERO, 0, format!("x0 after {half:#06x}"));
            guest.check(A1, 7, format!("a1 after {half:#06x}"));
        }
    }

    fn loads_and_stores(guest) {
        let value = 0x8877_6655_8433_2211u64;
        guest.asm.li(A1, SCRATCH);
        guest.asm.li(SP, SCRATCH + 256);
        guest.asm.li(A0, value);
        guest.asm.r(Op::FmvDX, 8, A0, ZERO);
        guest.asm.half(0xfde8); // c.sd a0, 248(a1)
        guest.check_memory(SCRATCH + 248, value, "c.sd");
        guest.asm.half(0xdde8); // c.sw a0, 124(a1)
        guest.check_memory(SCRATCH + 120, 0x8433_2211 << 32, "c.sw");
        guest.asm.half(0xbde0); // c.fsd fs0, 248(a1)
        guest.check_memory(SCRATCH + 248, value, "c.fsd");
        guest.asm.half(0x7de8); // c.ld a0, 248(a1)
        guest.check(A0, value, "c.ld");
        guest.asm.half(0x5de8); // c.lw a0, 124(a1)
        guest.check(A0, 0xffff_ffff_8433_2211, "c.lw");
        guest.asm.half(0x3de4); // c.fld fs1, 248(a1)
        guest.check_float(9, value, "c.fld");
        guest.asm.li(A0, value);
        guest.asm.half(0xffaa); // c.sdsp a0, 504(sp)
        guest.check_memory(SCRATCH + 256 + 504, value, "c.sdsp");
        guest.asm.half(0xdfaa); // c.swsp a0, 252(sp)
        guest.check_memory(SCRATCH + 256 + 248, 0x8433_2211 << 32, "c.swsp");
        guest.asm.half(0xbfa2); // c.fsdsp fs0, 504(sp)
        guest.check_memory(SCRATCH + 256 + 504, value, "c.fsdsp");
        guest.asm.half(0x757e); // c.ldsp a0, 504(sp)
        guest.check(A0, value, "c.ldsp");
        guest.asm.half(0x557e); // c.lwsp a0, 252(sp)
        guest.check(A0, 0xffff_ffff_8433_2211, "c.lwsp");
        guest.asm.half(0x34fe); // c.fldsp fs1, 504(sp)
        guest.check_float(9, value, "c.fldsp");
    }

    fn jumps_link_to_the_instruction_two_bytes_on(guest) {
        for (half, register) in [(0x9502u16, RA), (0x8502, ZERO)] {
            let target = guest.asm.label();
            guest.asm.la(A0, target);
            guest.asm.li(A2, 7);
            guest.asm.half(half); // c.jalr a0, c.jr a0
            let link = guest.asm.bound_label();
            guest.asm.li(A2, 8);
            guest.asm.bind(target);
            guest.check(A2, 7, "it jumps");
            match register {
                ZERO => guest.check(ZERO, 0, "c.jr does not link"),
                _ => guest.check(register, link, "link"),
            }
        }
        // c.jalr ra: the target is read before the link is written
        let target = guest.asm.label();
        guest.asm.la(RA, target);
        guest.asm.half(0x9082);
        let link = guest.asm.bound_label();
        guest.asm.half(0);
        guest.asm.bind(target);
        guest.check(RA, link, "c.jalr ra");
        // an odd target: bit 0 is dropped
        let target = guest.asm.label();
        guest.asm.la(A0, target);
        guest.asm.i(Op::Addi, A0, A0, 1);
        guest.asm.half(0x8502);
        guest.asm.half(0);
        guest.asm.bind(target);
        guest.check(ZERO, 0, "c.jr to an odd address");
    }

    fn branches_and_c_j_skip_what_they_should(guest) {
        for (name, half, a0, skips) in [
            ("c.beqz a0, +6, zero", 0xc119u16, 0u64, true),
            ("c.beqz a0, +6, one", 0xc119, 1, false),
            ("c.bnez a0, +6, zero", 0xe119, 0, false),
            ("c.bnez a0, +6, one", 0xe119, 1 << 63, true),
            ("c.j +6", 0xa019, 0, true),
        ] {
            guest.asm.li(A0, a0);
            guest.asm.li(A2, 0);
            guest.asm.half(half);
            guest.asm.i(Op::Addi, A2, A2, 1);
            guest.check(A2, u64::from(!skips), name);
        }
        // c.bnez backwards
        guest.asm.li(A0, 10);
        guest.asm.li(A2, 0);
        guest.asm.half(0x0605); // c.addi a2, 1
        guest.asm.half(0x157d); // c.addi a0, -1
        guest.asm.half(0xfd75); // c.bnez a0, -4
        guest.check(A2, 10, "a loop of three half-words");
    }

    fn mepc_may_be_any_half_word(guest) {
        for nops in [0, 1, 2, 3] {
            guest.traps(Mode::Machine, 11, 0, "ecall behind c.nop", |guest| {
                for _ in 0..nops {
                    guest.asm.half(1);
                }
                let pc = guest.asm.bound_label();
                guest.asm.op(Op::Ecall, 0, 0, 0, 0);
                pc
            });
        }
    }
}

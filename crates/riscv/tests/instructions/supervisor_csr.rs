//! The CSRs of S-mode (privileged specification, 12.1) in code that runs often.

use crate::assembler::{Label, register::*};
use crate::csr_forms::{CSR_FORMS, REGISTERS, changed, is_immediate};
use crate::guest::{Expected, Guest, Mode, SCRATCH, guests};
use riscv::hart::csr::number;
use riscv::isa::{self, Instruction, Op};
use riscv::memory::RAM_BASE;

const SIE: u64 = 1 << 1;
const SPIE: u64 = 1 << 5;
const SPP: u64 = 1 << 8;
const FS: u64 = 3 << 13;
const SUM: u64 = 1 << 18;
const MXR: u64 = 1 << 19;
const TVM: u64 = 1 << 20;
const WRITABLE: u64 = SIE | SPIE | SPP | FS | SUM | MXR;

/// `sstatus` as it is read: with UXL, and SD if FS is Dirty.
fn read(status: u64) -> u64 {
    let dirty = if status & FS == FS { 1 << 63 } else { 0 };
    status | 2 << 32 | dirty
}

/// What `body` emits runs in S-mode.
fn in_supervisor_mode(guest: &mut Guest, body: impl FnOnce(&mut Guest)) {
    guest.traps(Mode::Supervisor, 9, 0, "back from S-mode", |guest| {
        body(guest);
        let pc = guest.asm.bound_label();
        guest.asm.op(Op::Ecall, 0, 0, 0, 0);
        pc
    });
}

/// Every form on a register that keeps the bits under `mask`, from these values by these sources.
fn all_forms(guest: &mut Guest, csr: u16, mask: u64, values: &[u64], read: fn(u64) -> u64) {
    guest.rounds(|guest| {
        in_supervisor_mode(guest, |guest| {
            for op in CSR_FORMS {
                for (turn, &old) in values.iter().enumerate() {
                    for (other, &source) in values.iter().enumerate() {
                        let (rd, rs1) = REGISTERS[(turn + other) % REGISTERS.len()];
                        let source = if is_immediate(op) {
                            (source | 2) & 31
                        } else {
                            source
                        };
                        guest.write_csr(csr, old);
                        guest.asm.li(rs1, source);
                        let field = if is_immediate(op) { source as u8 } else { rs1 };
                        guest.asm.csr(op, rd, csr, field);
                        let what = format!("{op:?} x{rd}, {csr:#x} = {old:#x}, {source:#x}");
                        if rd != ZERO {
                            guest.check(rd, read(old & mask), format!("{what}: rd"));
                        }
                        let new = changed(op, old, source) & mask;
                        guest.check_csr(csr, read(new), what);
                    }
                }
            }
        });
    });
}

/// The bits of an instruction.
fn bits(op: Op, rd: u8, rs1: u8, immediate: u16) -> u32 {
    let instruction = Instruction {
        op,
        rd,
        rs1,
        rs2: 0,
        immediate: immediate.into(),
        length: 4,
    };
    isa::encode(&instruction).expect("an instruction")
}

/// One instruction and an `ecall`, to be jumped to.
fn place(guest: &mut Guest, word: u32) -> Label {
    let past = guest.asm.label();
    guest.asm.jal(ZERO, past);
    let label = guest.asm.bound_label();
    guest.asm.word(word);
    guest.asm.op(Op::Ecall, 0, 0, 0, 0);
    guest.asm.bind(past);
    label
}

/// A root table (Sv39) in which RAM is mapped where it is, for S-mode, and from zero on, for U-mode.
fn map_ram_twice(guest: &mut Guest) {
    const RWXAD: u64 = 0xcf;
    let ram = RAM_BASE >> 12 << 10;
    guest.poke(SCRATCH + 8 * (RAM_BASE >> 30), 8, ram | RWXAD);
    guest.poke(SCRATCH, 8, ram | RWXAD | 1 << 4);
    guest.write_csr(number::SATP, 8 << 60 | SCRATCH >> 12);
}

guests! {
    fn every_form_on_sstatus(guest) {
        let values = [0, SIE, SPIE | SPP, 1 << 13, FS, SUM, MXR | SIE, SUM | MXR | FS, u64::MAX];
        all_forms(guest, number::SSTATUS, WRITABLE, &values, read);
    }

    fn every_form_on_registers_that_are_numbers(guest) {
        let values = [0, 5, 0x8000_0000_0000_0001, 0x0123_4567_89ab_cdef, u64::MAX];
        for csr in [number::SSCRATCH, number::SCAUSE, number::STVAL] {
            all_forms(guest, csr, u64::MAX, &values, |value| value);
        }
        all_forms(guest, number::SEPC, !1, &values, |value| value);
    }

    /// The same code is legal in S-mode and illegal in U-mode, however often it ran before.
    fn code_that_ran_in_s_mode_is_illegal_in_u_mode(guest) {
        for word in [
            bits(Op::Csrrs, A0, ZERO, number::SSTATUS),
            bits(Op::Csrrci, ZERO, 2, number::SSTATUS),
            bits(Op::Csrrw, A0, A0, number::SSCRATCH),
            bits(Op::Csrrs, A0, ZERO, number::SEPC),
            bits(Op::SfenceVma, 0, 0, 0),
        ] {
            let code = place(guest, word);
            guest.rounds(|guest| {
                let what = format!("{word:#x}");
                guest.traps(Mode::Supervisor, 9, 0, &what, |guest| {
                    guest.asm.jal(ZERO, code);
                    Expected::Beyond(code, 4)
                });
                guest.traps(Mode::User, 2, u64::from(word), &what, |guest| {
                    guest.asm.jal(ZERO, code);
                    code
                });
                guest.traps(Mode::Machine, 11, 0, &what, |guest| {
                    guest.asm.jal(ZERO, code);
                    Expected::Beyond(code, 4)
                });
            });
        }
    }

    /// 3.1.6.5: under TVM `sfence.vma` is illegal in S-mode.
    fn sfence_vma_obeys_tvm(guest) {
        let word = bits(Op::SfenceVma, 0, 0, 0);
        let code = place(guest, word);
        guest.rounds(|guest| {
            guest.clear_csr(number::MSTATUS, TVM);
            guest.traps(Mode::Supervisor, 9, 0, "sfence.vma", |guest| {
                guest.asm.jal(ZERO, code);
                Expected::Beyond(code, 4)
            });
            guest.set_csr(number::MSTATUS, TVM);
            guest.traps(Mode::Supervisor, 2, u64::from(word), "sfence.vma under TVM", |guest| {
                guest.asm.jal(ZERO, code);
                code
            });
        });
    }

    /// 12.1.1.2: one load, of pages of both kinds, while SUM goes on and off.
    fn sum_opens_user_pages_for_as_long_as_it_is_set(guest) {
        const CELL: u64 = SCRATCH + (1 << 20);
        const USER: u64 = CELL - RAM_BASE;
        map_ram_twice(guest);
        guest.poke(CELL, 8, 77);
        let past = guest.asm.label();
        guest.asm.jal(ZERO, past);
        let load = guest.asm.bound_label();
        guest.asm.i(Op::Ld, A1, A0, 0);
        guest.asm.i(Op::Addi, A2, A1, 1);
        guest.asm.store(Op::Sd, A2, A0, 0);
        guest.asm.i(Op::Jalr, ZERO, RA, 0);
        guest.asm.bind(past);
        guest.asm.li(T4, SUM);
        guest.asm.li(S4, 0);
        for opened in [Op::Csrrs, Op::Csrrw] {
            guest.rounds(|guest| {
                guest.poke(CELL, 8, 77);
                guest.traps(Mode::Supervisor, 13, USER, "a user page without SUM", |guest| {
                    guest.asm.li(A0, CELL);
                    guest.asm.jal(RA, load);
                    guest.check(A1, 77, "a page of S-mode without SUM");
                    guest.asm.csr(opened, ZERO, number::SSTATUS, T4);
                    guest.asm.jal(RA, load);
                    guest.check(A1, 78, "a page of S-mode with SUM");
                    guest.asm.li(A0, USER);
                    guest.asm.jal(RA, load);
                    guest.check(A1, 79, "a user page with SUM");
                    guest.asm.csr(Op::Csrrc, A3, number::SSTATUS, T4);
                    guest.asm.jal(RA, load);
                    load
                });
            });
        }
        guest.write_csr(number::SATP, 0);
    }

    /// 12.3.1: a leaf of a user page changes while SUM is clear; the page is another one when SUM is
    /// set again, though nothing changed for S-mode without SUM.
    fn a_user_page_that_changed_while_sum_was_clear(guest) {
        const TABLES: u64 = SCRATCH;
        const PAGES: [u64; 2] = [SCRATCH + (1 << 20), SCRATCH + (2 << 20)];
        const USER: u64 = 5 << 12;
        const POINTER: u64 = 1;
        const RWAD_U: u64 = 0xd7;
        map_ram_twice(guest);
        let number = |address: u64| address >> 12 << 10;
        guest.poke(TABLES, 8, number(TABLES + 0x1000) | POINTER);
        guest.poke(TABLES + 0x1000, 8, number(TABLES + 0x2000) | POINTER);
        let leaf = TABLES + 0x2000 + 8 * (USER >> 12);
        let leaves = PAGES.map(|page| number(page) | RWAD_U);
        guest.poke(leaf, 8, leaves[0]);
        guest.poke(PAGES[0], 8, 11);
        guest.poke(PAGES[1], 8, 22);
        in_supervisor_mode(guest, |guest| {
            guest.asm.li(A0, USER);
            guest.asm.li(A4, leaf);
            guest.asm.li(T4, SUM);
            guest.asm.li(T5, leaves[0]);
            guest.asm.li(T6, leaves[1]);
            guest.rounds(|guest| {
                let past = guest.asm.label();
                guest.asm.jal(ZERO, past);
                let load = guest.asm.bound_label();
                guest.asm.csr(Op::Csrrs, ZERO, number::SSTATUS, T4);
                guest.asm.i(Op::Ld, A1, A0, 0);
                guest.asm.csr(Op::Csrrc, ZERO, number::SSTATUS, T4);
                guest.asm.i(Op::Jalr, ZERO, RA, 0);
                guest.asm.bind(past);
                for (changed, expected) in [(T6, 22), (T5, 11)] {
                    guest.asm.store(Op::Sd, changed, A4, 0);
                    guest.asm.jal(RA, load);
                    guest.check(A1, expected, "a user page after its leaf changed");
                }
            });
        });
        guest.write_csr(number::SATP, 0);
    }

    /// 3.1.9 and 12.1.1: an interrupt that `sstatus` lets in is taken before the next instruction.
    fn each_way_to_set_sie_lets_a_pending_interrupt_in(guest) {
        let handler = guest.supervisor_handler();
        guest.write_csr(number::MIDELEG, 2);
        guest.write_csr(number::MIE, 2);
        guest.asm.li(T4, SIE);
        for op in [Op::Csrrsi, Op::Csrrs, Op::Csrrw, Op::Csrrwi] {
            let source = if is_immediate(op) { SIE as u8 } else { T4 };
            guest.rounds(|guest| {
                // Nothing is pending: it is set and cleared, and no interrupt comes.
                guest.write_csr(number::MIP, 0);
                in_supervisor_mode(guest, |guest| {
                    guest.asm.csr(op, ZERO, number::SSTATUS, source);
                    guest.asm.csr(Op::Csrrci, A1, number::SSTATUS, 2);
                    guest.check(A1, Expected::Bits(SIE, SIE), "SIE");
                });
                guest.write_csr(number::MIP, 2);
                let what = format!("{op:?}");
                guest.supervisor_traps(handler, Mode::Supervisor, 1 << 63 | 1, 0, &what, |guest| {
                    guest.asm.csr(op, ZERO, number::SSTATUS, source);
                    let next = guest.asm.bound_label();
                    guest.asm.i(Op::Addi, A1, ZERO, 0);
                    next
                });
            });
        }
    }
}

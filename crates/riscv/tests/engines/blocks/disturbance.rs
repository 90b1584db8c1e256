//! What a block does to its own ground: its code, its translations, its mode and the devices.

use super::assembler::{CSR_FORMS, register::*};
use super::block::{Emitter, FUNCTION_STRIDE};
use super::layout::{CHANGED_FIRST, CODE, CODE_PAGES, DATA, DATA_PAGES, FUNCTION_PAGES, FUNCTIONS};
use super::random::Random;
use super::tables::{LEAVES, UPPER};
use riscv::board::bus::{CLINT_BASE, PLIC_BASE, RTC_BASE, UART_BASE};
use riscv::hart::csr::{number, status};
use riscv::isa::Op;

impl Emitter<'_> {
    /// Changes an instruction, here or elsewhere, or data beside instructions.
    pub(super) fn patch(&mut self) {
        let (value, at) = self.two_scratch();
        match self.random.below(4) {
            0 | 1 => self.patch_addi(value, at),
            2 => {
                let page = self.random.below(CODE_PAGES);
                let low = self.relative(at, CODE + page * 4096 + 0xff0);
                let source = self.source();
                self.asm.i(Op::Addi, at, at, low);
                self.asm.store(Op::Sw, source, at, 0);
            }
            _ => {
                // an instruction of one function over that of another
                let place = |random: &mut Random| {
                    let number = random.below(FUNCTION_PAGES * 4096 / FUNCTION_STRIDE);
                    FUNCTIONS + number * FUNCTION_STRIDE + random.below(12) * 4
                };
                let (from, to) = (place(self.random), place(self.random));
                let low = self.relative(at, from);
                self.asm.i(Op::Lw, value, at, low);
                let low = self.relative(at, to);
                self.asm.store(Op::Sw, value, at, low);
            }
        }
    }

    /// Flips a bit of the immediate or the target of an `addi`, just behind or a little ahead.
    fn patch_addi(&mut self, value: u8, at: u8) {
        let counted = self.target();
        let behind = self.random.once_in(2);
        let slot = if behind { -4 } else { 24 };
        if behind {
            self.asm.i(Op::Addi, counted, counted, 1);
        }
        let here = self.asm.here();
        self.asm.op(Op::Auipc, at, 0, 0, 0);
        if self.random.once_in(3) {
            self.asm.i(Op::Lw, value, at, slot);
            self.asm.i(Op::Xori, value, value, 0x80);
            self.asm.store(Op::Sw, value, at, slot);
        } else {
            self.asm.i(Op::Lhu, value, at, slot + 2);
            self.asm.i(Op::Xori, value, value, 0x10);
            self.asm.store(Op::Sh, value, at, slot + 2);
        }
        if self.random.once_in(4) {
            self.asm.op(Op::FenceI, 0, 0, 0, 0);
        }
        if !behind {
            while self.asm.here() < here + slot as u64 {
                self.asm.i(Op::Addi, ZERO, ZERO, 0);
            }
            self.asm.i(Op::Addi, counted, counted, 1);
        }
    }

    /// Lets a page of functions and its neighbour change places, as U and as S see them, and calls
    /// what is there now.
    pub(super) fn remap_and_call(&mut self) {
        let page = self.random.below(FUNCTION_PAGES);
        let (value, at) = self.two_scratch();
        for table in LEAVES {
            let low = self.relative(at, table + 8 * (CHANGED_FIRST + page));
            self.asm.i(Op::Ld, value, at, low);
            self.asm.i(Op::Xori, value, value, 0x400);
            self.asm.store(Op::Sd, value, at, low);
        }
        self.call_page(page);
    }

    /// Some fragments without translation, in S.
    pub(super) fn change_space(&mut self) {
        let (value, _) = self.two_scratch();
        self.asm.csr(Op::Csrrw, value, number::SATP, ZERO);
        self.asm.csr(Op::Csrrw, ZERO, number::SSCRATCH, value);
        for _ in 0..self.random.below(3) {
            self.access();
            self.call();
        }
        self.asm.csr(Op::Csrrs, value, number::SSCRATCH, ZERO);
        self.asm.csr(Op::Csrrw, ZERO, number::SATP, value);
    }

    /// Flips a flag of a leaf, or where it leads.
    pub(super) fn change_leaf(&mut self) {
        let (value, at) = self.two_scratch();
        let page = match self.random.below(3) {
            0 => self.random.below(FUNCTION_PAGES),
            _ => FUNCTION_PAGES + self.random.below(DATA_PAGES),
        };
        let table = self.random.pick(&LEAVES);
        let low = self.relative(at, table + 8 * (CHANGED_FIRST + page));
        let flip = if page < FUNCTION_PAGES {
            self.random.pick(&[0x400, 0x800, 0xc00, 0x400, 8])
        } else {
            self.random.pick(&[1, 2, 4, 0x10, 0x40, 0x80, 0x400, 0x800])
        };
        self.flip(value, at, low, flip);
    }

    /// The same for a giant or large page.
    pub(super) fn change_upper(&mut self) {
        let (value, at) = self.two_scratch();
        let (address, _) = self.random.pick(&UPPER);
        let low = self.relative(at, address);
        let flip = self.random.pick(&[1, 2, 4, 0x10, 0x40, 0x80]);
        self.flip(value, at, low, flip);
    }

    fn flip(&mut self, value: u8, at: u8, low: i32, bits: i32) {
        self.asm.i(Op::Ld, value, at, low);
        if bits < 0x800 {
            self.asm.i(Op::Xori, value, value, bits);
        } else {
            self.asm.i(Op::Xori, value, value, 0x400);
            self.asm.i(Op::Addi, value, value, 0x400);
        }
        self.asm.store(Op::Sd, value, at, low);
        if self.random.once_in(3) {
            self.asm.op(Op::SfenceVma, 0, 0, 0, 0);
        }
    }

    /// Floating point, then off or clean, then again.
    pub(super) fn switch_float(&mut self) {
        let (value, _) = self.two_scratch();
        let csr = self.random.pick(&[number::MSTATUS, number::SSTATUS]);
        self.float_access();
        self.asm.li(value, status::FS);
        self.asm.csr(Op::Csrrc, ZERO, csr, value);
        let left = self.random.pick(&[0, 1, 1, 2]);
        if left != 0 {
            self.asm.li(value, left << 13);
            self.asm.csr(Op::Csrrs, ZERO, csr, value);
        }
        match self.random.below(3) {
            0 => {}
            1 => self.float(),
            _ => self.float_access(),
        }
        if left == 0 {
            self.asm.li(value, status::FS);
            self.asm.csr(Op::Csrrs, ZERO, csr, value);
        }
    }

    /// SUM, MXR, FS, SIE; in M also MPRV and the mode that it stands for.
    pub(super) fn status(&mut self) {
        let (value, _) = self.two_scratch();
        let machine = self.random.once_in(2);
        let bits = match self.random.below(4) {
            0 => 1 << 18,
            1 => 1 << 19,
            2 => self.random.pick(&[1 << 13, 3 << 13]),
            _ => self.random.pick(&[1 << 17, 1 << 17 | 1 << 11, 1 << 11]),
        };
        let csr = if machine {
            number::MSTATUS
        } else {
            number::SSTATUS
        };
        self.asm.li(value, bits);
        let rd = self.target();
        if self.random.once_in(4) {
            let op = self.random.pick(&[Op::Csrrsi, Op::Csrrci, Op::Csrrci]);
            let bits = self.random.pick(&[2, 2, 31]);
            return self.asm.csr(op, rd, number::SSTATUS, bits);
        }
        let op = self.random.pick(&[Op::Csrrs, Op::Csrrs, Op::Csrrc]);
        self.asm.csr(op, rd, csr, value);
    }

    pub(super) fn device(&mut self) {
        let (register, at) = self.two_scratch();
        let (address, load, store) = match self.random.below(6) {
            0 | 1 => (UART_BASE + self.random.below(8), Op::Lbu, Op::Sb),
            2 => (CLINT_BASE, Op::Lw, Op::Sw),
            3 => (CLINT_BASE + 0xbff8, Op::Ld, Op::Ld),
            4 => (PLIC_BASE + self.random.below(8) * 4, Op::Lw, Op::Sw),
            _ => (RTC_BASE, Op::Lw, Op::Lw),
        };
        let low = (address as i32) << 20 >> 20;
        self.asm
            .op(Op::Lui, at, 0, 0, (address as i32).wrapping_sub(low));
        let through_stray = self.random.once_in(2);
        let at = if through_stray { self.roles.stray } else { at };
        if self.random.once_in(2) || store == load {
            self.asm.i(load, register, at, low);
        } else {
            self.asm.store(store, register, at, low);
        }
    }

    pub(super) fn fence(&mut self) {
        let op = self.random.pick(&[
            Op::Fence,
            Op::FenceI,
            Op::SfenceVma,
            Op::Pause,
            Op::WrsNto,
            Op::WrsSto,
            Op::SinvalVma,
            Op::SfenceWInval,
            Op::SfenceInvalIr,
        ]);
        self.asm.op(op, 0, 0, 0, 0);
    }

    /// Zeroes or manages the cache block of some address near a base; or changes who may.
    pub(super) fn cache_block(&mut self) {
        if self.random.once_in(8) {
            let (value, _) = self.two_scratch();
            let bits = self.random.pick(&[0x80, 0x80, 0x40, 0x10, 0x30, 0xf0]);
            self.asm.li(value, bits);
            let csr = self.random.pick(&[number::MENVCFG, number::SENVCFG]);
            let op = self.random.pick(&[Op::Csrrs, Op::Csrrs, Op::Csrrc]);
            return self.asm.csr(op, ZERO, csr, value);
        }
        let (address, base) = (self.target(), self.base());
        let offset = (self.random.bits() as i32) << 20 >> 20;
        self.asm.i(Op::Addi, address, base, offset);
        let op = match self.random.below(6) {
            0 => self
                .random
                .pick(&[Op::CboInval, Op::CboClean, Op::CboFlush]),
            _ => Op::CboZero,
        };
        self.asm.op(op, 0, address, 0, 0);
    }

    pub(super) fn system(&mut self) {
        const OPS: &[Op] = &[
            Op::Ecall,
            Op::Ecall,
            Op::Ebreak,
            Op::Ebreak,
            Op::Wfi,
            Op::Mret,
            Op::Sret,
        ];
        let op = self.random.pick(OPS);
        self.asm.op(op, 0, 0, 0, 0);
    }

    /// A range of data is protected, even from M-mode now and then; or the range ends.
    pub(super) fn protection(&mut self) {
        let (value, _) = self.two_scratch();
        let entry = self.random.below(3);
        let address = DATA + self.random.below(DATA_PAGES * 4096);
        let size = self.random.pick(&[0, 1, 7, 0x1ff, 0x3ff]);
        let configuration = (0x18 | self.random.below(8)) << (8 * entry);
        self.asm.li(value, address >> 2 & !size | size >> 1);
        self.asm
            .csr(Op::Csrrw, ZERO, number::PMPADDR0 + entry as u16, value);
        self.asm.li(value, configuration | 0x1f << 56);
        self.asm.csr(Op::Csrrw, ZERO, number::PMPCFG0, value);
    }

    pub(super) fn counter_or_flags(&mut self) {
        const READ: &[u16] = &[number::CYCLE, number::TIME, number::INSTRET];
        const WRITTEN: &[u16] = &[
            number::FFLAGS,
            number::FRM,
            number::FCSR,
            number::STVAL,
            number::SSCRATCH,
            number::MTVAL,
            number::MCYCLE,
            number::MINSTRET,
        ];
        let rd = self.target();
        if self.random.once_in(2) {
            let csr = self.random.pick(READ);
            return self.asm.csr(Op::Csrrs, rd, csr, ZERO);
        }
        let csr = self.random.pick(WRITTEN);
        let op = self.random.pick(&CSR_FORMS);
        let source = if self.random.once_in(2) {
            0
        } else {
            self.source()
        };
        self.asm.csr(op, rd, csr, source);
    }
}

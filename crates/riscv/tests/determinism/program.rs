//! Random guests: legal and illegal instructions in M, S and U, with traps, page tables that they
//! change under their feet, self-modifying stores, timers, devices and several harts.

use crate::assembler::{Assembler, CSR_FORMS, Label, register::*};
use crate::random::Random;
use riscv::board::bus::{CLINT_BASE, PLIC_BASE, RTC_BASE, UART_BASE};
use riscv::hart::csr::number;
use riscv::isa::{self, Format, Instruction, Op};
use riscv::memory::RAM_BASE;

/// RAM of the machine, in bytes.
pub const MEMORY_BYTES: u64 = 4 << 20;
/// Random code: 16 pages, the last of them for what the code stores there.
const CODE: u64 = RAM_BASE + 0x1_0000;
const CODE_BYTES: u64 = 0x1_0000;
/// Data that the code reads and writes.
const DATA: u64 = RAM_BASE + 0x10_0000;
/// The page tables: root of Sv39, root of Sv48, second, first level, then leaves of the first
/// 2 MiB of RAM, where they are themselves.
const TABLES: u64 = RAM_BASE + 0x18_0000;
const CLINT_MTIMECMP: u64 = CLINT_BASE + 0x4000;
const PLIC_ENABLE: u64 = PLIC_BASE + 0x2000;
const PLIC_CONTEXT: u64 = PLIC_BASE + 0x20_0000;

/// The program of a seed.
pub fn generate(seed: u64) -> Vec<u8> {
    let mut generator = Generator {
        random: Random::new(seed),
        asm: Assembler::new(RAM_BASE),
    };
    generator.startup();
    generator.code();
    generator.tables();
    generator.asm.finish()
}

struct Generator {
    random: Random,
    asm: Assembler,
}

/// Mixes a register into x30, which decides what a handler does next.
fn mix(asm: &mut Assembler, register: u8) {
    asm.r(Op::Xor, T5, T5, register);
    asm.i(Op::Slli, register, T5, 13);
    asm.r(Op::Xor, T5, T5, register);
    asm.i(Op::Srli, register, T5, 7);
    asm.r(Op::Xor, T5, T5, register);
    asm.i(Op::Slli, register, T5, 17);
    asm.r(Op::Xor, T5, T5, register);
}

impl Generator {
    fn startup(&mut self) {
        let (machine, supervisor, start) = (self.asm.label(), self.asm.label(), self.asm.label());
        self.asm.jal(ZERO, start);
        self.asm.align(4);
        self.machine_handler(machine);
        self.asm.align(4);
        self.supervisor_handler(supervisor);
        self.asm.bind(start);
        self.set_up(machine, supervisor);
        for register in 1..30 {
            let value = if self.random.once_in(3) {
                DATA + self.random.below(0x8000)
            } else {
                self.random.magnitude()
            };
            self.asm.li(register, value);
        }
        self.asm.op(Op::Ecall, 0, 0, 0, 0); // the handler goes on to somewhere random
    }

    /// What a hart needs before it runs random code.
    fn set_up(&mut self, machine: Label, supervisor: Label) {
        let medeleg = self.random.bits() & self.random.bits();
        let random = &mut self.random;
        let asm = &mut self.asm;
        asm.la(T6, machine);
        asm.csr(Op::Csrrw, ZERO, number::MTVEC, T6);
        asm.la(T6, supervisor);
        asm.csr(Op::Csrrw, ZERO, number::STVEC, T6);
        for (csr, value) in [
            (number::PMPADDR0 + 7, u64::MAX),
            (number::PMPCFG0, 0x1f << 56),
            (number::MEDELEG, medeleg),
            (number::MIDELEG, random.bits()),
            (number::MIE, u64::MAX),
            (number::MCOUNTEREN, random.bits()),
            (number::SCOUNTEREN, random.bits()),
            (number::MENVCFG, random.bits() | 1 << 63),
        ] {
            asm.li(T6, value);
            asm.csr(Op::Csrrw, ZERO, csr, T6);
        }
        // the UART's receive interrupt, for both contexts of every hart
        for (address, value) in [
            (PLIC_BASE + 40, 1u64),
            (UART_BASE + 1, 1),
            (PLIC_ENABLE, 1 << 10),
            (
                PLIC_ENABLE + 0x80,
                if random.once_in(2) { 1 << 10 } else { 0 },
            ),
            (PLIC_ENABLE + 0x100, 1 << 10),
        ] {
            asm.li(T6, address);
            asm.li(T5, value);
            asm.store(
                if !(PLIC_BASE..UART_BASE).contains(&address) {
                    Op::Sb
                } else {
                    Op::Sw
                },
                T5,
                T6,
                0,
            );
        }
        asm.csr(Op::Csrrs, T5, number::MHARTID, ZERO);
        asm.i(Op::Addi, T5, T5, 17);
        asm.li(T6, random.bits());
        asm.r(Op::Mul, T5, T5, T6);
    }

    /// Goes on at a place, in a mode and in an address space that x30 chooses.
    fn machine_handler(&mut self, entry: Label) {
        let seed = self.random.bits() & 0x7ff_ffff;
        let spaces = self.asm.label();
        let asm = &mut self.asm;
        let exception = asm.label();
        asm.bind(entry);
        asm.csr(Op::Csrrs, T6, number::MEPC, ZERO);
        mix(asm, T6);
        asm.csr(Op::Csrrs, T6, number::MTVAL, ZERO);
        mix(asm, T6);
        asm.csr(Op::Csrrs, T6, number::MCAUSE, ZERO);
        asm.branch(Op::Bge, T6, ZERO, exception);
        acknowledge_interrupts(asm);
        asm.bind(exception);
        asm.csr(Op::Csrrs, T6, number::MCAUSE, ZERO);
        mix(asm, T6);
        asm.li(T6, seed);
        asm.r(Op::Add, T5, T5, T6);
        // one of four address spaces
        asm.la(T6, spaces);
        asm.i(Op::Andi, T4, T5, 0x18);
        asm.r(Op::Add, T6, T6, T4);
        asm.i(Op::Ld, T6, T6, 0);
        asm.csr(Op::Csrrw, ZERO, number::SATP, T6);
        // mode, MPIE, FS, and SUM, MXR, MPRV now and then; TVM, TW, TSR mostly off
        asm.li(T6, 0x3 << 11 | 0x0e_0000 | 0x70_0000);
        asm.csr(Op::Csrrc, ZERO, number::MSTATUS, T6);
        asm.i(Op::Srli, T4, T5, 20);
        asm.li(T6, 0x1 << 11 | 0x0c_0000);
        asm.r(Op::And, T4, T4, T6);
        asm.csr(Op::Csrrs, ZERO, number::MSTATUS, T4);
        asm.i(Op::Andi, T4, T5, 0x300);
        let lower = asm.label();
        asm.branch(Op::Bne, T4, ZERO, lower);
        asm.li(T6, 0x3 << 11);
        asm.csr(Op::Csrrs, ZERO, number::MSTATUS, T6);
        asm.bind(lower);
        asm.li(T6, 0x6080); // FS, MPIE
        asm.csr(Op::Csrrs, ZERO, number::MSTATUS, T6);
        next_pc(asm, number::MEPC);
        asm.op(Op::Mret, 0, 0, 0, 0);
        asm.align(8);
        asm.bind(spaces);
        for satp in [
            0,
            8 << 60 | TABLES >> 12,
            9 << 60 | (TABLES + 0x1000) >> 12,
            0,
        ] {
            asm.double(satp);
        }
    }

    fn supervisor_handler(&mut self, entry: Label) {
        let asm = &mut self.asm;
        asm.bind(entry);
        for csr in [number::SEPC, number::STVAL, number::SCAUSE] {
            asm.csr(Op::Csrrs, T6, csr, ZERO);
            mix(asm, T6);
        }
        asm.csr(Op::Csrrci, ZERO, number::SIP, 2);
        asm.i(Op::Andi, T4, T5, 0x7ff);
        asm.csr(Op::Csrrs, T6, number::TIME, ZERO); // illegal without mcounteren.TM: then M-mode
        asm.r(Op::Add, T6, T6, T4);
        asm.csr(Op::Csrrw, ZERO, number::STIMECMP, T6);
        asm.li(T6, 0x100);
        asm.csr(Op::Csrrc, ZERO, number::SSTATUS, T6);
        asm.r(Op::And, T6, T6, T5);
        asm.i(Op::Ori, T6, T6, 0x20);
        asm.csr(Op::Csrrs, ZERO, number::SSTATUS, T6);
        next_pc(asm, number::SEPC);
        asm.op(Op::Sret, 0, 0, 0, 0);
    }

    fn code(&mut self) {
        self.asm.skip_to(CODE);
        while self.asm.here() < CODE + CODE_BYTES - 64 {
            self.fragment();
        }
        self.asm.skip_to(CODE + CODE_BYTES);
    }

    fn register(&mut self) -> u8 {
        self.random.below(32) as u8
    }

    /// An instruction or a few that belong together.
    fn fragment(&mut self) {
        match self.random.below(100) {
            0..40 => self.any_of(
                &[
                    Format::R,
                    Format::I,
                    Format::Shift6,
                    Format::Shift5,
                    Format::U,
                ],
                true,
            ),
            40..55 => self.access(),
            55..56 => self.any_of(&[Format::I, Format::S, Format::Atomic], false),
            56..62 => self.atomic(),
            62..75 => self.jump(),
            75..85 => self.float(),
            85..90 => self.csr(),
            90..92 => self.system(),
            92..94 => self.device(),
            94..96 => {
                let half = self.random.bits() as u16;
                self.asm.half(if half & 3 == 3 { half ^ 2 } else { half });
            }
            96..97 => self.copy_code(),
            97..98 => self.change_table(),
            98..99 if self.random.once_in(4) => self.asm.word(self.random.bits() as u32),
            _ => self.any_of(&[Format::R], true),
        }
    }

    /// A random row of these formats, with random fields.
    fn any_of(&mut self, formats: &[Format], computational: bool) {
        let rows: Vec<_> = isa::encodings()
            .filter(|row| formats.contains(&row.format))
            .filter(|row| !computational || row.op as u8 > Op::Sd as u8 || row.format == Format::U)
            .collect();
        let row = rows[self.random.below(rows.len() as u64) as usize];
        self.random_fields(row.op, row.format);
    }

    fn random_fields(&mut self, op: Op, format: Format) {
        let (rd, rs1, rs2) = (self.register(), self.register(), self.register());
        let bits = self.random.bits() as i32;
        let rm = if bits & 0x700 == 0 { bits & 7 } else { 7 };
        let immediate = match format {
            Format::I | Format::S => bits << 20 >> 20,
            Format::Shift6 => bits & 63,
            Format::Shift5 => bits & 31,
            Format::U => bits & !0xfff,
            Format::Atomic => bits & 3,
            Format::FloatRounded | Format::FloatUnaryRounded => rm,
            Format::FloatR4 => bits & 0x1f00 | rm,
            _ => 0,
        };
        let instruction = Instruction {
            op,
            rd,
            rs1,
            rs2,
            immediate,
            length: 4,
        };
        let bits = isa::encode(&instruction).expect("the fields fit");
        self.asm.word(bits);
    }

    /// `register` points `distance` from here on, more or less, at `target`'s page.
    fn point(&mut self, register: u8, target: u64) {
        let pages = ((target >> 12) as i64 - (self.asm.here() >> 12) as i64) as i32;
        self.asm.op(Op::Auipc, register, 0, 0, pages << 12);
    }

    fn base_register(&mut self) -> u8 {
        1 + self.random.below(29) as u8
    }

    fn data_page(&mut self) -> u64 {
        DATA + self.random.below(16) * 4096
    }

    /// A load or store that may be misaligned and may cross a page.
    fn access(&mut self) {
        const ROWS: &[Op] = &[
            Op::Lb,
            Op::Lh,
            Op::Lw,
            Op::Ld,
            Op::Lbu,
            Op::Lhu,
            Op::Lwu,
            Op::Flw,
            Op::Fld,
            Op::Sb,
            Op::Sh,
            Op::Sw,
            Op::Sd,
            Op::Fsw,
            Op::Fsd,
            Op::Sd,
            Op::Sd,
        ];
        let base = self.base_register();
        let page = self.data_page();
        self.point(base, page);
        for _ in 0..1 + self.random.below(3) {
            let op = self.random.pick(ROWS);
            let offset = (self.random.bits() as i32) << 20 >> 20;
            let offset = if self.random.once_in(4) {
                offset
            } else {
                offset & !7
            };
            let register = self.register();
            let is_store = isa::encodings().any(|row| row.op == op && row.format == Format::S);
            match is_store {
                true => self.asm.store(op, register, base, offset),
                false => self.asm.i(op, register, base, offset),
            }
        }
    }

    fn atomic(&mut self) {
        let base = self.base_register();
        let page = self.data_page();
        self.point(base, page);
        self.asm.i(Op::Andi, base, base, -8);
        let rows: Vec<_> = isa::encodings()
            .filter(|row| row.format == Format::Atomic)
            .collect();
        let (lr, sc) = self.random.pick(&[(Op::LrW, Op::ScW), (Op::LrD, Op::ScD)]);
        let (rd, rs2) = (self.register(), self.register());
        if self.random.once_in(2) {
            self.asm.op(lr, rd, base, 0, 0);
            let (rd, rs2) = (self.register(), self.register());
            self.asm.op(sc, rd, base, rs2, 0);
        } else {
            let op = rows[self.random.below(rows.len() as u64) as usize].op;
            let rs2 = if matches!(op, Op::LrW | Op::LrD) {
                0
            } else {
                rs2
            };
            self.asm.op(op, rd, base, rs2, 3);
        }
    }

    fn jump(&mut self) {
        let (rs1, rs2) = (self.register(), self.register());
        let near = |random: &mut Random| (random.below(128) as i32 - 40) * 2;
        match self.random.below(8) {
            0 => {
                let target = (self.random.below(1 << 14) as i32 - (1 << 13)) & !1;
                self.asm.op(Op::Jal, rs1, 0, 0, target);
            }
            1 => {
                let base = self.base_register();
                let page = CODE + self.random.below(16) * 4096;
                self.point(base, page);
                let offset = self.random.below(2000) as i32;
                self.asm.i(Op::Jalr, rs1, base, offset);
            }
            _ => {
                let op =
                    self.random
                        .pick(&[Op::Beq, Op::Bne, Op::Blt, Op::Bge, Op::Bltu, Op::Bgeu]);
                let offset = near(&mut self.random);
                self.asm.op(op, 0, rs1, rs2, offset);
            }
        }
    }

    fn float(&mut self) {
        const FORMATS: &[Format] = &[
            Format::FloatRounded,
            Format::FloatUnaryRounded,
            Format::FloatR,
            Format::FloatR4,
            Format::Unary,
        ];
        self.any_of(FORMATS, false);
    }

    fn csr(&mut self) {
        const NUMBERS: &[u16] = &[
            number::FFLAGS,
            number::FRM,
            number::FCSR,
            number::CYCLE,
            number::TIME,
            number::INSTRET,
            number::SSTATUS,
            number::SIE,
            number::SCOUNTEREN,
            number::SENVCFG,
            number::SSCRATCH,
            number::SEPC,
            number::SCAUSE,
            number::STVAL,
            number::SIP,
            number::STIMECMP,
            number::SATP,
            number::MISA,
            number::MEDELEG,
            number::MIDELEG,
            number::MIE,
            number::MCOUNTEREN,
            number::MENVCFG,
            number::MSCRATCH,
            number::MEPC,
            number::MCAUSE,
            number::MTVAL,
            number::MIP,
            number::MCYCLE,
            number::MINSTRET,
            number::MHARTID,
            number::MSTATUS,
            0xc03,
            0x7a0,
            0x5c0,
        ];
        let (rd, source) = (self.register(), self.register());
        if self.random.once_in(16) {
            return self.protection();
        }
        let csr = self.random.pick(NUMBERS);
        let op = self.random.pick(&CSR_FORMS);
        let source = if self.random.once_in(2) { 0 } else { source };
        self.asm.csr(op, rd, csr, source);
    }

    /// A PMP entry that ends somewhere within the random code or data, never locked.
    fn protection(&mut self) {
        let entry = self.random.below(4);
        let base = self.random.pick(&[CODE, DATA]) + self.random.below(CODE_BYTES);
        let address = base >> 2 | self.random.pick(&[0, 1, 7, 0x1ff]);
        let configuration = (self.random.bits() & 0x1f) << (8 * entry) | 0x1f << 56;
        self.asm.li(T6, address);
        self.asm
            .csr(Op::Csrrw, ZERO, number::PMPADDR0 + entry as u16, T6);
        self.asm.li(T6, configuration);
        self.asm.csr(Op::Csrrw, ZERO, number::PMPCFG0, T6);
    }

    fn system(&mut self) {
        let op = self.random.pick(&[
            Op::Ecall,
            Op::Ebreak,
            Op::Mret,
            Op::Sret,
            Op::Wfi,
            Op::Wfi,
            Op::Wfi,
            Op::SfenceVma,
            Op::FenceI,
            Op::Fence,
            Op::Pause,
            Op::Pause,
        ]);
        self.asm.op(op, 0, 0, 0, 0);
    }

    /// Touches the UART, the CLINT or the PLIC.
    fn device(&mut self) {
        if self.random.once_in(4) {
            return self.alarm();
        }
        let base = self.base_register();
        let register = self.register();
        let (page, offset, load, store) = match self.random.below(6) {
            0 | 1 => (UART_BASE, self.random.below(8), Op::Lbu, Op::Sb),
            2 => (CLINT_BASE, self.random.below(3) * 4, Op::Lw, Op::Sw),
            3 => (CLINT_MTIMECMP, self.random.below(3) * 8, Op::Ld, Op::Sd),
            4 => (PLIC_CONTEXT, self.random.below(2) * 4, Op::Lw, Op::Sw),
            _ => (PLIC_ENABLE, self.random.below(8) * 4, Op::Lw, Op::Sw),
        };
        self.asm.op(Op::Lui, base, 0, 0, page as i32);
        if self.random.once_in(2) {
            self.asm.i(load, register, base, offset as i32);
        } else {
            self.asm.store(store, register, base, offset as i32);
        }
    }

    /// Sets the RTC's alarm a little ahead, or clears it.
    fn alarm(&mut self) {
        let ahead = self.random.below(2000) as i32;
        let asm = &mut self.asm;
        asm.op(Op::Lui, T6, 0, 0, RTC_BASE as i32);
        asm.i(Op::Lw, T4, T6, 0);
        asm.i(Op::Lw, T3, T6, 4);
        asm.i(Op::Addi, T4, T4, ahead);
        asm.store(Op::Sw, T3, T6, 12);
        asm.store(Op::Sw, T4, T6, 8);
        asm.store(Op::Sw, T6, T6, if ahead & 1 == 0 { 16 } else { 28 });
    }

    /// Copies eight bytes of code to another place in the code.
    fn copy_code(&mut self) {
        let (from, to) = (self.base_register(), self.base_register());
        for (register, op) in [(from, Op::Ld), (to, Op::Sd)] {
            let page = CODE + self.random.below(CODE_BYTES / 4096 - 1) * 4096;
            let offset = (self.random.below(1024) * 2) as i32;
            self.point(register, page);
            match op {
                Op::Ld => self.asm.i(op, T6, register, offset),
                _ => self.asm.store(op, T6, register, offset),
            }
        }
    }

    /// Flips a bit in an entry of a page table: a flag, or where it leads.
    fn change_table(&mut self) {
        let base = self.base_register();
        let (code, data) = (16 + self.random.below(16), 256 + self.random.below(16));
        let leaf = self.random.pick(&[code, data]);
        let address = match self.random.below(16) {
            0 => TABLES + 0x3000, // to the leaves
            1 => TABLES + 16,     // to the table of the middle level
            _ => TABLES + 0x4000 + 8 * leaf,
        };
        let distance = address.wrapping_sub(self.asm.here()) as i32;
        let low = distance << 20 >> 20;
        self.asm
            .op(Op::Auipc, base, 0, 0, distance.wrapping_sub(low));
        self.asm.i(Op::Ld, T6, base, low);
        let flip = self.random.pick(&[1, 2, 4, 8, 16, 64, 128, 0xc0, 0x400]);
        self.asm.i(Op::Xori, T6, T6, flip);
        self.asm.store(Op::Sd, T6, base, low);
    }

    /// Identity maps: devices below 1 GiB, the first 2 MiB of RAM by pages, the tables themselves.
    fn tables(&mut self) {
        let all = 0xcf; // V R W X A D
        let entry = |address: u64, flags: u64| (address >> 12) << 10 | flags;
        self.asm.skip_to(TABLES);
        let middle = TABLES + 0x3000;
        for root in 0..2u64 {
            for index in 0..512 {
                // Sv39's root, then Sv48's, whose first entry leads to Sv39's
                let leads_to = match (root, index) {
                    (0, 0) => entry(0, all | 0x10),
                    (0, 2) => entry(middle, 1),
                    (1, 0) => entry(TABLES, 1),
                    _ => 0,
                };
                self.asm.double(leads_to);
            }
        }
        self.asm.skip_to(middle);
        for index in 0..512u64 {
            self.asm.double(match index {
                0 => entry(TABLES + 0x4000, 1),
                1 => entry(RAM_BASE + 0x20_0000, all | 0x10),
                _ => 0,
            });
        }
        for page in 0..512u64 {
            let user = if self.random.once_in(2) { 0x10 } else { 0 };
            let missing = if self.random.once_in(20) {
                1 << self.random.below(8)
            } else {
                0
            };
            let flags = if page < 16 {
                all
            } else {
                (all | user) & !missing
            };
            self.asm.double(entry(RAM_BASE + page * 4096, flags));
        }
    }
}

/// Ends whatever interrupts: clears this hart's `msip`, sets its timer anew, quiets the devices.
fn acknowledge_interrupts(asm: &mut Assembler) {
    asm.csr(Op::Csrrs, T4, number::MHARTID, ZERO);
    asm.i(Op::Slli, T4, T4, 2);
    asm.li(T6, CLINT_BASE);
    asm.r(Op::Add, T6, T6, T4);
    asm.store(Op::Sw, ZERO, T6, 0);
    asm.li(T6, CLINT_MTIMECMP);
    asm.r(Op::Add, T6, T6, T4);
    asm.r(Op::Add, T6, T6, T4);
    asm.csr(Op::Csrrs, T4, number::TIME, ZERO);
    asm.i(Op::Andi, T3, T5, 0x7ff);
    asm.r(Op::Add, T4, T4, T3);
    asm.store(Op::Sd, T4, T6, 0);
    asm.i(Op::Addi, T4, T4, 777);
    asm.csr(Op::Csrrw, ZERO, number::STIMECMP, T4);
    asm.li(T6, UART_BASE);
    asm.i(Op::Lbu, T4, T6, 0);
    asm.store(Op::Sb, T5, T6, 0);
    asm.li(T4, 1);
    asm.store(Op::Sb, T4, T6, 1);
    asm.li(T6, RTC_BASE);
    asm.store(Op::Sw, ZERO, T6, 16);
    asm.store(Op::Sw, ZERO, T6, 28);
    asm.li(T6, 0x222);
    asm.csr(Op::Csrrc, ZERO, number::MIP, T6);
    // claim and complete, in M's context of this hart
    asm.csr(Op::Csrrs, T4, number::MHARTID, ZERO);
    asm.i(Op::Slli, T4, T4, 13);
    asm.li(T6, PLIC_CONTEXT);
    asm.r(Op::Add, T6, T6, T4);
    asm.store(Op::Sw, ZERO, T6, 0);
    asm.i(Op::Lw, T4, T6, 4);
    asm.store(Op::Sw, T4, T6, 4);
}

/// A place in the random code, chosen by x30, in the CSR.
fn next_pc(asm: &mut Assembler, csr: u16) {
    asm.li(T6, (CODE_BYTES - 1) & !1);
    asm.r(Op::And, T6, T5, T6);
    asm.li(T4, CODE);
    asm.r(Op::Add, T6, T6, T4);
    asm.csr(Op::Csrrw, ZERO, csr, T6);
}

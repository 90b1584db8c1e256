//! Random blocks: loops over straight-line fragments with forward branches, and small functions.

use super::assembler::{Assembler, Label, register::*};
use super::compressed;
use super::layout::{DATA, DATA_PAGES, FUNCTION_PAGES, FUNCTIONS};
use super::random::Random;
use riscv::isa::{self, Format, Instruction, Op};

/// The registers that the JIT keeps in the host's.
const PINNED: [u8; 10] = [RA, SP, S0, S1, A0, A1, A2, A3, A4, A5];
/// Bytes from one function to the next.
pub const FUNCTION_STRIDE: u64 = 0x400;
/// Registers with which functions are called, by their number.
const LINKS: [u8; 2] = [RA, T0];

/// Registers that a block does not overwrite, mostly.
#[derive(Clone, Copy)]
pub struct Roles {
    /// Counts the passes that are left.
    pub counter: u8,
    /// Point at data.
    pub bases: [u8; 2],
    /// Points at devices, or nowhere.
    pub stray: u8,
}

impl Roles {
    /// Registers that no function writes, so that they survive calls.
    pub fn random(random: &mut Random, functions_write: &[u8]) -> Roles {
        let mut taken = vec![ZERO, RA, T0];
        taken.extend(functions_write);
        let mut next = || {
            let register = loop {
                let register = pick_register(random);
                if !taken.contains(&register) {
                    break register;
                }
            };
            taken.push(register);
            register
        };
        Roles {
            counter: next(),
            bases: [next(), next()],
            stray: next(),
        }
    }

    fn contains(&self, register: u8) -> bool {
        [self.counter, self.bases[0], self.bases[1], self.stray].contains(&register)
    }
}

/// Any register; pinned ones twice as often.
fn pick_register(random: &mut Random) -> u8 {
    if random.once_in(3) {
        random.pick(&PINNED)
    } else {
        random.below(32) as u8
    }
}

/// Where a block is.
pub struct Block {
    /// Its first instruction.
    pub entry: u64,
    /// The `ecall` behind it.
    pub end: u64,
    /// What its registers are for.
    pub roles: Roles,
}

/// Emits blocks and functions.
pub struct Emitter<'a> {
    /// Where they go.
    pub asm: &'a mut Assembler,
    /// What they are made from.
    pub random: &'a mut Random,
    /// What functions write.
    pub functions_write: Vec<u8>,
    pub(super) roles: Roles,
    /// Within a function: no calls, and only these registers are written.
    in_function: bool,
    /// Forward branches under way: label, fragments until it is bound.
    pending: Vec<(Label, u64)>,
    /// Registers that the present idioms use.
    pub(super) familiar: Vec<u8>,
}

impl<'a> Emitter<'a> {
    /// An emitter; it chooses what functions write.
    pub fn new(asm: &'a mut Assembler, random: &'a mut Random) -> Emitter<'a> {
        let functions_write = (0..14)
            .map(|_| pick_register(random))
            .chain([A2, S2])
            .collect();
        let roles = Roles {
            counter: S0,
            bases: [S1, A0],
            stray: A1,
        };
        Emitter {
            asm,
            random,
            functions_write,
            roles,
            in_function: false,
            pending: Vec::new(),
            familiar: Vec::new(),
        }
    }

    /// The pages of functions.
    pub fn functions(&mut self) {
        self.in_function = true;
        for page in 0..FUNCTION_PAGES {
            for number in 0..4096 / FUNCTION_STRIDE {
                self.asm
                    .skip_to(FUNCTIONS + page * 4096 + number * FUNCTION_STRIDE);
                self.random_roles();
                for _ in 0..self.random.below(12) {
                    self.fragment();
                }
                self.bind_all();
                let link = LINKS[number as usize % 2];
                if self.random.once_in(2) {
                    self.asm.half(0x8002 | u16::from(link) << 7); // c.jr
                } else {
                    self.asm.i(Op::Jalr, ZERO, link, 0);
                }
            }
        }
        self.in_function = false;
    }

    fn random_roles(&mut self) {
        self.roles = Roles::random(self.random, &self.functions_write);
    }

    /// A loop over `fragments` fragments, and the `ecall` behind it.
    pub fn block(&mut self, fragments: u64) -> Block {
        self.random_roles();
        let roles = self.roles;
        let entry = self.asm.here();
        for _ in 0..fragments {
            self.fragment();
        }
        self.bind_all();
        self.end_block(entry, roles)
    }

    /// Goes back to `entry` while the counter is not zero; behind that is the `ecall`.
    pub fn end_block(&mut self, entry: u64, roles: Roles) -> Block {
        self.roles = roles;
        self.close_loop(entry);
        let end = self.asm.here();
        self.asm.op(Op::Ecall, 0, 0, 0, 0);
        Block { entry, end, roles }
    }

    /// The way back, one of several.
    fn close_loop(&mut self, entry: u64) {
        let counter = self.roles.counter;
        if self.random.once_in(2) {
            self.asm.half(0x107d | u16::from(counter) << 7 | 1); // c.addi counter, -1
        } else {
            self.asm.i(Op::Addi, counter, counter, -1);
        }
        let (scratch, _) = self.two_scratch();
        let way = self.random.below(9);
        match way {
            0 => self.asm.i(Op::Slti, scratch, counter, 1),
            1 => self.asm.i(Op::Addi, scratch, ZERO, 1),
            _ => {}
        }
        let distance = entry.wrapping_sub(self.asm.here()) as i32;
        match way {
            0 => self.asm.op(Op::Beq, 0, scratch, ZERO, distance),
            1 => self.asm.op(Op::Bgeu, 0, counter, scratch, distance),
            2 => self.asm.op(Op::Bge, 0, counter, ZERO, distance),
            3 => self.asm.op(Op::Blt, 0, ZERO, counter, distance),
            4 => self.asm.op(Op::Bltu, 0, ZERO, counter, distance),
            5 => {
                self.asm.op(Op::Beq, 0, counter, ZERO, 8);
                self.asm.op(Op::Jal, ZERO, 0, 0, distance - 4);
            }
            6 => {
                let low = self.relative(scratch, entry);
                self.asm.op(Op::Beq, 0, counter, ZERO, 8);
                self.asm.i(Op::Jalr, ZERO, scratch, low);
            }
            _ if (8..16).contains(&counter) && distance >= -256 => {
                let branch = compressed::branch(Op::Bne, counter, distance);
                self.asm.half(branch);
            }
            _ => self.asm.op(Op::Bne, 0, counter, ZERO, distance),
        }
    }

    fn bind_all(&mut self) {
        for (label, _) in std::mem::take(&mut self.pending) {
            self.asm.bind(label);
        }
    }

    /// A register to write: mostly not one with a role.
    pub(super) fn target(&mut self) -> u8 {
        if self.in_function {
            return loop {
                let register = self.random.pick(&self.functions_write);
                if !LINKS.contains(&register) {
                    break register;
                }
            };
        }
        if self.random.once_in(500) {
            return self.random.below(32) as u8;
        }
        loop {
            let register = pick_register(self.random);
            if !self.roles.contains(register) {
                return register;
            }
        }
    }

    /// Whether that is one.
    pub(super) fn may_write(&self, register: u8) -> bool {
        if self.in_function {
            self.functions_write.contains(&register) && !LINKS.contains(&register)
        } else {
            !self.roles.contains(register)
        }
    }

    pub(super) fn source(&mut self) -> u8 {
        pick_register(self.random)
    }

    pub(super) fn base(&mut self) -> u8 {
        match self.random.below(40) {
            0 => self.source(),
            1 => self.roles.stray,
            n => self.roles.bases[n as usize % 2],
        }
    }

    /// An instruction or a few that belong together.
    fn fragment(&mut self) {
        match self.random.below(1000) {
            0..215 => self.computation(),
            215..315 => self.idiom(),
            315..325 if !self.in_function => self.remap_and_call(),
            325..330 if !self.in_function => self.change_space(),
            330..500 => self.access(),
            500..540 => self.compressed(),
            540..640 => self.compressed_computation(),
            640..690 => self.atomic(),
            690..820 => self.float(),
            820..870 => self.forward_branch(),
            870..885 => self.move_base(),
            885..900 => self.cache_block(),
            900..920 if !self.in_function => self.call(),
            920..945 => self.counter_or_flags(),
            945..950 if !self.in_function => self.computed_jump(),
            950..962 => self.patch(),
            962..970 => self.change_leaf(),
            970..972 => self.change_upper(),
            972..977 => self.status(),
            977..980 => self.switch_float(),
            980..988 => self.device(),
            988..991 => self.fence(),
            991..996 => self.system(),
            996..997 => self.asm.word(self.random.bits() as u32),
            997..998 => self.protection(),
            _ => self.computation(),
        }
        for (_, fragments) in &mut self.pending {
            *fragments = fragments.saturating_sub(1);
        }
        let (due, pending) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|(_, fragments)| *fragments == 0);
        self.pending = pending;
        let due: Vec<(Label, u64)> = due;
        due.into_iter().for_each(|(label, _)| self.asm.bind(label));
    }

    /// Any row of the table that neither jumps, nor accesses memory, nor belongs to the system.
    pub(super) fn computation(&mut self) {
        const FORMATS: &[Format] = &[
            Format::R,
            Format::I,
            Format::Shift6,
            Format::Shift5,
            Format::U,
        ];
        self.any_row(|row| {
            (FORMATS.contains(&row.format) || row.format == Format::Unary && !is_float(row.name))
                && row.op != Op::Jalr
                && !is_load(row.op)
        });
    }

    pub(super) fn float(&mut self) {
        const FORMATS: &[Format] = &[
            Format::FloatRounded,
            Format::FloatUnaryRounded,
            Format::FloatR,
            Format::FloatR4,
            Format::Unary,
        ];
        self.any_row(|row| FORMATS.contains(&row.format) && is_float(row.name));
    }

    /// A random row with random fields.
    fn any_row(&mut self, accepts: impl Fn(&isa::Encoding) -> bool) {
        let rows: Vec<_> = isa::encodings().filter(|row| accepts(row)).collect();
        let row = rows[self.random.below(rows.len() as u64) as usize];
        let rd = self.target();
        let (rs1, rs2) = match self.random.below(6) {
            0 => (rd, self.source()),
            1 => (self.source(), rd),
            2 => (rd, rd),
            _ => (self.source(), self.source()),
        };
        let instruction = Instruction {
            op: row.op,
            rd,
            rs1,
            rs2,
            immediate: self.immediate(row.format),
            length: 4,
        };
        let bits = row.format.encode(row.bits, &instruction);
        self.asm.word(bits.expect("the fields fit"));
    }

    fn immediate(&mut self, format: Format) -> i32 {
        const EDGES: &[i32] = &[0, 1, -1, 2047, -2048, 31, 32, 63, 255];
        let bits = self.random.bits() as i32;
        let rounding = match self.random.below(16) {
            0 => bits & 7, // 5 and 6 do not exist
            1..6 => bits & 3,
            _ => 7,
        };
        match format {
            Format::I | Format::S if self.random.once_in(3) => self.random.pick(EDGES),
            Format::I | Format::S => bits << 20 >> 20,
            Format::Shift6 => bits & 63,
            Format::Shift5 => bits & 31,
            Format::U => bits & !0xfff,
            Format::Atomic => bits & 3,
            Format::FloatRounded | Format::FloatUnaryRounded => rounding,
            Format::FloatR4 => bits & 0x1f00 | rounding,
            _ => 0,
        }
    }

    /// A load or store near a base: aligned or not, now and then across a page.
    pub(super) fn access(&mut self) {
        let rows: Vec<_> = isa::encodings()
            .filter(|row| is_load(row.op) || row.format == Format::S)
            .collect();
        let row = rows[self.random.below(rows.len() as u64) as usize];
        let offset = match self.random.below(4) {
            0 => self.immediate(Format::I),
            1 => self.random.below(64) as i32 - 32,
            _ => self.immediate(Format::I) & !7,
        };
        let (register, base) = (self.target(), self.base());
        let stored = self.source();
        match row.format {
            Format::S => self.asm.store(row.op, stored, base, offset),
            _ => self.asm.i(row.op, register, base, offset),
        }
    }

    fn accepts_compressed(&self, instruction: &Instruction, memory: bool) -> bool {
        let Instruction { op, rd, rs1, .. } = *instruction;
        let is_store = matches!(op, Op::Sb | Op::Sh | Op::Sw | Op::Sd | Op::Fsd | Op::Fsw);
        if is_store || is_load(op) {
            return memory && self.roles.bases.contains(&rs1) && !self.roles.contains(rd);
        }
        let jumps = matches!(op, Op::Jal | Op::Jalr | Op::Beq | Op::Bne | Op::Ebreak);
        let writable = if self.in_function {
            self.functions_write.contains(&rd) && !LINKS.contains(&rd)
        } else {
            !self.roles.contains(rd)
        };
        !jumps && !memory && writable
    }

    fn compressed_computation(&mut self) {
        let mut random = Random::new(self.random.bits());
        let accepts = |instruction: &Instruction| self.accepts_compressed(instruction, false);
        let half = compressed::find(&mut random, accepts);
        self.asm.half(half);
    }

    /// A compressed access, or a compressed branch over compressed instructions.
    fn compressed(&mut self) {
        let mut random = Random::new(self.random.bits());
        if self.random.once_in(3) {
            let count = 1 + self.random.below(4) as i32;
            let register = 8 + self.random.below(8) as u8;
            let op = self.random.pick(&[Op::Beq, Op::Bne]);
            let half = compressed::branch(op, register, 2 + 2 * count);
            self.asm.half(half);
            (0..count).for_each(|_| self.compressed_computation());
            return;
        }
        let in_function = self.in_function;
        let accepts = |instruction: &Instruction| {
            self.accepts_compressed(instruction, true)
                && !(in_function && is_load(instruction.op) && instruction.op != Op::Fld)
        };
        let half = compressed::find(&mut random, accepts);
        self.asm.half(half);
    }

    fn atomic(&mut self) {
        let rows: Vec<_> = isa::encodings()
            .filter(|row| row.format == Format::Atomic)
            .collect();
        let address = self.target();
        let base = self.base();
        let offset = self.random.below(64) as i32;
        self.asm.i(Op::Addi, address, base, offset);
        if !self.random.once_in(20) {
            self.asm.i(Op::Andi, address, address, -8);
        }
        let (rd, rs2) = (self.target(), self.source());
        if self.random.once_in(3) {
            let (lr, sc) = self.random.pick(&[(Op::LrW, Op::ScW), (Op::LrD, Op::ScD)]);
            self.asm.op(lr, rd, address, 0, 0);
            if rd != address && self.random.once_in(2) {
                self.asm.i(Op::Addi, rd, rd, 1);
            }
            self.asm.op(sc, rd, address, rs2, 0);
            return;
        }
        let op = rows[self.random.below(rows.len() as u64) as usize].op;
        let rs2 = if matches!(op, Op::LrW | Op::LrD) {
            0
        } else {
            rs2
        };
        let order = self.immediate(Format::Atomic);
        self.asm.op(op, rd, address, rs2, order);
    }

    fn forward_branch(&mut self) {
        let label = self.asm.label();
        if self.random.once_in(8) {
            let link = if self.random.once_in(2) {
                ZERO
            } else {
                self.target()
            };
            self.asm.jal(link, label);
        } else {
            const OPS: &[Op] = &[Op::Beq, Op::Bne, Op::Blt, Op::Bge, Op::Bltu, Op::Bgeu];
            let op = self.random.pick(OPS);
            let (rs1, rs2) = (self.source(), self.source());
            let rs2 = if self.random.once_in(2) { ZERO } else { rs2 };
            self.asm.branch(op, rs1, rs2, label);
        }
        let fragments = 1 + self.random.below(6);
        self.pending.push((label, fragments));
    }

    /// `register` is `target` but for the low twelve bits, which are returned, in every window.
    pub(super) fn relative(&mut self, register: u8, target: u64) -> i32 {
        let distance = target.wrapping_sub(self.asm.here()) as i32;
        let low = distance << 20 >> 20;
        let high = distance.wrapping_sub(low);
        self.asm.op(Op::Auipc, register, 0, 0, high);
        low
    }

    /// Points a base elsewhere, or lets it walk from pass to pass.
    fn move_base(&mut self) {
        if self.in_function {
            return self.computation();
        }
        let base = self.random.pick(&self.roles.bases);
        if self.random.once_in(2) {
            let step = self.random.pick(&[1, 2, 4, 4, 4, 8, 64, 512, -4, -512]);
            self.asm.i(Op::Addi, base, base, step);
        } else {
            let target = data_address(self.random);
            let low = self.relative(base, target);
            self.asm.i(Op::Addi, base, base, low);
        }
    }

    pub(super) fn call(&mut self) {
        let page = self.random.below(FUNCTION_PAGES);
        self.call_page(page);
    }

    /// Calls a function in this page.
    pub(super) fn call_page(&mut self, page: u64) {
        let number = self.random.below(4096 / FUNCTION_STRIDE);
        let target = FUNCTIONS + page * 4096 + number * FUNCTION_STRIDE;
        let link = LINKS[number as usize % 2];
        if self.random.once_in(2) {
            let distance = target.wrapping_sub(self.asm.here()) as i32;
            self.asm.op(Op::Jal, link, 0, 0, distance);
        } else {
            let via = self.target();
            let via = if via == ZERO { link } else { via };
            let low = self.relative(via, target);
            self.asm.i(Op::Jalr, link, via, low);
        }
    }

    /// Goes to one of four places, by the counter.
    fn computed_jump(&mut self) {
        let via = loop {
            let via = self.target();
            if via != ZERO {
                break via;
            }
        };
        let other = if via == T6 { T5 } else { T6 };
        let other = if self.roles.contains(other) {
            via
        } else {
            other
        };
        self.asm.i(Op::Andi, via, self.roles.counter, 3);
        self.asm.i(Op::Slli, via, via, 2);
        if other == via {
            return;
        }
        // auipc, add, jalr, and then four instructions of four bytes
        self.asm.op(Op::Auipc, other, 0, 0, 0);
        self.asm.r(Op::Add, via, via, other);
        let odd = self.random.below(2) as i32; // the lowest bit is dropped
        self.asm.i(Op::Jalr, ZERO, via, 12 + odd);
        (0..4).for_each(|_| self.computation());
    }

    /// Two different registers without a role, not x0.
    pub(super) fn two_scratch(&mut self) -> (u8, u8) {
        let mut draw = |not: u8| loop {
            let register = self.target();
            if register != ZERO && register != not && !self.roles.contains(register) {
                break register;
            }
        };
        let first = draw(ZERO);
        (first, draw(first))
    }

    pub(super) fn float_access(&mut self) {
        let (register, base) = (self.random.below(32) as u8, self.base());
        let offset = self.random.below(16) as i32 * 8;
        match self.random.pick(&[Op::Flw, Op::Fld, Op::Fsw, Op::Fsd]) {
            load @ (Op::Flw | Op::Fld) => self.asm.i(load, register, base, offset),
            store => self.asm.store(store, register, base, offset),
        }
    }
}

/// Somewhere in the data: anywhere, near the end or the start of a page.
pub fn data_address(random: &mut Random) -> u64 {
    let page = DATA + random.below(DATA_PAGES) * 4096;
    let within = match random.below(5) {
        0 => 0x1000 - random.below(16),
        4 => 0x1000 - 8 * random.below(24), // blocks walk over the end from here
        1 => random.below(16),
        2 => random.below(512) * 8,
        _ => random.below(4096),
    };
    page + within
}

fn is_float(name: &str) -> bool {
    name.starts_with('f')
}

fn is_load(op: Op) -> bool {
    use Op::*;
    matches!(op, Lb | Lh | Lw | Ld | Lbu | Lhu | Lwu | Flh | Flw | Fld)
}

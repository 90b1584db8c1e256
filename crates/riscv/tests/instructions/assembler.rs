//! An assembler for guest programs: instructions by their table rows, labels, constants, data.
#![allow(dead_code)] // every test target that includes this file uses its own part of it

use riscv::isa::{self, Instruction, Op};

/// The ABI's names of the integer registers.
#[rustfmt::skip]
pub mod register {
    pub const ZERO: u8 = 0; pub const RA: u8 = 1; pub const SP: u8 = 2; pub const GP: u8 = 3;
    pub const T0: u8 = 5; pub const T1: u8 = 6; pub const T2: u8 = 7;
    pub const S0: u8 = 8; pub const S1: u8 = 9;
    pub const A0: u8 = 10; pub const A1: u8 = 11; pub const A2: u8 = 12; pub const A3: u8 = 13;
    pub const A4: u8 = 14; pub const A5: u8 = 15; pub const A6: u8 = 16; pub const A7: u8 = 17;
    pub const S2: u8 = 18; pub const S3: u8 = 19; pub const S4: u8 = 20; pub const S5: u8 = 21;
    pub const S6: u8 = 22; pub const S7: u8 = 23; pub const S8: u8 = 24; pub const S9: u8 = 25;
    pub const S10: u8 = 26; pub const S11: u8 = 27;
    pub const T3: u8 = 28; pub const T4: u8 = 29; pub const T5: u8 = 30; pub const T6: u8 = 31;
}

/// The forms of Zicsr's instructions (unprivileged specification, 7.1).
pub const CSR_FORMS: [Op; 6] = [
    Op::Csrrw,
    Op::Csrrs,
    Op::Csrrc,
    Op::Csrrwi,
    Op::Csrrsi,
    Op::Csrrci,
];

/// A place in the program, perhaps not known yet.
#[derive(Clone, Copy, Debug)]
pub struct Label(usize);

enum Fixup {
    /// The immediate of a branch or `jal`.
    Relative(Instruction),
    /// `auipc` and `addi` of the same register.
    Pair(u8),
    /// Eight bytes of data.
    Data,
}

/// A program in the making.
pub struct Assembler {
    base: u64,
    bytes: Vec<u8>,
    labels: Vec<Option<u64>>,
    fixups: Vec<(u64, Label, Fixup)>,
}

impl Assembler {
    /// An empty program that will be loaded at `base`.
    pub fn new(base: u64) -> Assembler {
        Assembler {
            base,
            bytes: Vec::new(),
            labels: Vec::new(),
            fixups: Vec::new(),
        }
    }

    /// Address of what comes next.
    pub fn here(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    /// A label to be bound later.
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Binds a label to what comes next.
    pub fn bind(&mut self, label: Label) {
        assert!(self.labels[label.0].is_none(), "a label is bound once");
        self.labels[label.0] = Some(self.here());
    }

    /// A label bound to what comes next.
    pub fn bound_label(&mut self) -> Label {
        let label = self.label();
        self.bind(label);
        label
    }

    /// Where a label is.
    pub fn address(&self, label: Label) -> u64 {
        self.labels[label.0].expect("a label that is used is bound")
    }

    /// A half-word: a compressed instruction or data.
    pub fn half(&mut self, half: u16) {
        self.bytes.extend(half.to_le_bytes());
    }

    /// A word: an instruction or data.
    pub fn word(&mut self, word: u32) {
        self.bytes.extend(word.to_le_bytes());
    }

    /// A double-word of data.
    pub fn double(&mut self, double: u64) {
        self.bytes.extend(double.to_le_bytes());
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// A double-word that holds an address.
    pub fn pointer(&mut self, label: Label) {
        self.fixups.push((self.here(), label, Fixup::Data));
        self.double(0);
    }

    /// `c.nop` up to a multiple of `alignment`.
    pub fn align(&mut self, alignment: u64) {
        self.skip_to(self.here().next_multiple_of(alignment));
    }

    /// `c.nop` up to `address`.
    pub fn skip_to(&mut self, address: u64) {
        assert!(address >= self.here(), "the program is past {address:#x}");
        while self.here() < address {
            self.half(1);
        }
    }

    /// An instruction with all its fields.
    pub fn op(&mut self, op: Op, rd: u8, rs1: u8, rs2: u8, immediate: i32) {
        let instruction = instruction(op, rd, rs1, rs2, immediate);
        let bits = isa::encode(&instruction);
        self.word(bits.unwrap_or_else(|| panic!("{instruction:?} has no encoding")));
    }

    /// Three registers.
    pub fn r(&mut self, op: Op, rd: u8, rs1: u8, rs2: u8) {
        self.op(op, rd, rs1, rs2, 0);
    }

    /// Two registers and an immediate; loads and `jalr` too.
    pub fn i(&mut self, op: Op, rd: u8, rs1: u8, immediate: i32) {
        self.op(op, rd, rs1, 0, immediate);
    }

    /// A store of `source` to `offset` from `base`.
    pub fn store(&mut self, op: Op, source: u8, base: u8, offset: i32) {
        self.op(op, 0, base, source, offset);
    }

    /// `rd`, a CSR, and a register or 5-bit immediate.
    pub fn csr(&mut self, op: Op, rd: u8, csr: u16, source: u8) {
        self.op(op, rd, source, 0, i32::from(csr));
    }

    /// A branch.
    pub fn branch(&mut self, op: Op, rs1: u8, rs2: u8, target: Label) {
        let branch = instruction(op, 0, rs1, rs2, 0);
        self.fixups
            .push((self.here(), target, Fixup::Relative(branch)));
        self.word(0);
    }

    /// `jal`.
    pub fn jal(&mut self, rd: u8, target: Label) {
        let jump = instruction(Op::Jal, rd, 0, 0, 0);
        self.fixups
            .push((self.here(), target, Fixup::Relative(jump)));
        self.word(0);
    }

    /// The address of a label in `rd`: `auipc`, `addi`.
    pub fn la(&mut self, rd: u8, target: Label) {
        self.fixups.push((self.here(), target, Fixup::Pair(rd)));
        self.double(0);
    }

    /// The address of this very instruction in `rd`.
    pub fn la_here(&mut self, rd: u8) {
        self.op(Op::Auipc, rd, 0, 0, 0);
    }

    /// A constant in `rd`, with as many instructions as it takes.
    pub fn li(&mut self, rd: u8, value: u64) {
        let low = (value as i32) << 20 >> 20;
        let rest = value.wrapping_sub(low as u64);
        if value as i32 as u64 == value && rest as i32 as u64 == rest {
            if rest != 0 {
                self.op(Op::Lui, rd, 0, 0, rest as i32);
                self.i(Op::Addiw, rd, rd, low);
            } else {
                self.i(Op::Addi, rd, 0, low);
            }
            return;
        }
        let shift = rest.trailing_zeros();
        self.li(rd, (rest as i64 >> shift) as u64);
        self.i(Op::Slli, rd, rd, shift as i32);
        if low != 0 {
            self.i(Op::Addi, rd, rd, low);
        }
    }

    /// The bytes of the program, every label put in.
    pub fn finish(mut self) -> Vec<u8> {
        for (at, label, fixup) in std::mem::take(&mut self.fixups) {
            let target = self.address(label);
            let distance = target.wrapping_sub(at) as i32;
            let encode = |instruction: &Instruction| {
                isa::encode(instruction)
                    .expect("a target is within reach")
                    .to_le_bytes()
            };
            let bytes: Vec<u8> = match fixup {
                Fixup::Relative(mut instruction) => {
                    instruction.immediate = distance;
                    encode(&instruction).to_vec()
                }
                Fixup::Pair(rd) => {
                    let low = distance << 20 >> 20;
                    let auipc = instruction(Op::Auipc, rd, 0, 0, distance.wrapping_sub(low));
                    let addi = instruction(Op::Addi, rd, rd, 0, low);
                    [encode(&auipc), encode(&addi)].concat()
                }
                Fixup::Data => target.to_le_bytes().to_vec(),
            };
            let offset = (at - self.base) as usize;
            self.bytes[offset..offset + bytes.len()].copy_from_slice(&bytes);
        }
        self.bytes
    }
}

fn instruction(op: Op, rd: u8, rs1: u8, rs2: u8, immediate: i32) -> Instruction {
    Instruction {
        op,
        rd,
        rs1,
        rs2,
        immediate,
        length: 4,
    }
}

/// An ELF executable of one segment, entered at its first byte.
pub fn elf(base: u64, program: &[u8]) -> Vec<u8> {
    const HEADERS: u64 = 64 + 56;
    let length = program.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend([2u16, 243].iter().flat_map(|half| half.to_le_bytes())); // executable, RISC-V
    file.extend(1u32.to_le_bytes());
    file.extend([base, 64, 0].iter().flat_map(|double| double.to_le_bytes()));
    file.extend(0u32.to_le_bytes());
    file.extend(
        [64u16, 56, 1, 0, 0, 0]
            .iter()
            .flat_map(|half| half.to_le_bytes()),
    );
    file.extend([1u32, 7].iter().flat_map(|word| word.to_le_bytes())); // PT_LOAD, RWX
    let header = [HEADERS, base, base, length, length, 4096];
    file.extend(header.iter().flat_map(|double| double.to_le_bytes()));
    file.extend(program);
    file
}

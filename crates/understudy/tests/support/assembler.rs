//! A small assembler on the machine's own instruction table, and ELF files made of what it gives.

use riscv::isa::{Instruction, Op, encode};

/// Where RAM begins, and a program.
pub const RAM: u64 = 0x8000_0000;

pub const ZERO: u8 = 0;
pub const T0: u8 = 5;
pub const T1: u8 = 6;
pub const T2: u8 = 7;
pub const S0: u8 = 8;
pub const S1: u8 = 9;
pub const A0: u8 = 10;
pub const A1: u8 = 11;
pub const A2: u8 = 12;
pub const A3: u8 = 13;
pub const A4: u8 = 14;
pub const A5: u8 = 15;

/// Numbers of control and status registers (privileged specification, 2.2).
pub const MTVEC: i32 = 0x305;
pub const MEPC: i32 = 0x341;
pub const MIE: i32 = 0x304;
pub const MHARTID: i32 = 0xf14;

/// A place in the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(usize);

impl Label {
    /// Its address.
    pub fn address(self) -> u64 {
        RAM + 4 * self.0 as u64
    }
}

/// The program so far: instructions from the beginning of RAM on.
#[derive(Default)]
pub struct Assembler {
    words: Vec<u32>,
    /// Branches to places that come later.
    open: Vec<(usize, Instruction)>,
}

impl Assembler {
    /// The place of the next instruction.
    pub fn here(&self) -> Label {
        Label(self.words.len())
    }

    fn push(&mut self, instruction: Instruction) {
        self.words
            .push(encode(&instruction).expect("an instruction that fits"));
    }

    /// `op rd, rs1, rs2`
    pub fn register(&mut self, op: Op, rd: u8, rs1: u8, rs2: u8) {
        self.push(Instruction {
            op,
            rd,
            rs1,
            rs2,
            immediate: 0,
            length: 4,
        });
    }

    /// `op rd, rs1, immediate`, and CSR instructions with the CSR as the immediate.
    pub fn immediate(&mut self, op: Op, rd: u8, rs1: u8, immediate: i32) {
        self.push(Instruction {
            op,
            rd,
            rs1,
            rs2: 0,
            immediate,
            length: 4,
        });
    }

    /// `op rs2, offset(rs1)`
    pub fn store(&mut self, op: Op, rs2: u8, rs1: u8, offset: i32) {
        self.push(Instruction {
            op,
            rd: 0,
            rs1,
            rs2,
            immediate: offset,
            length: 4,
        });
    }

    /// An instruction without operands.
    pub fn plain(&mut self, op: Op) {
        self.push(Instruction {
            op,
            rd: 0,
            rs1: 0,
            rs2: 0,
            immediate: 0,
            length: 4,
        });
    }

    /// Any 64-bit constant: bytes are shifted in until all are there.
    pub fn load(&mut self, rd: u8, value: u64) {
        let bytes = value.to_be_bytes();
        let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(7);
        self.immediate(Op::Addi, rd, ZERO, bytes[first].into());
        for byte in &bytes[first + 1..] {
            self.immediate(Op::Slli, rd, rd, 8);
            self.immediate(Op::Ori, rd, rd, (*byte).into());
        }
    }

    /// A branch to a place that came before.
    pub fn branch(&mut self, op: Op, rs1: u8, rs2: u8, to: Label) {
        let immediate = 4 * (to.0 as i32 - self.words.len() as i32);
        self.push(Instruction {
            op,
            rd: 0,
            rs1,
            rs2,
            immediate,
            length: 4,
        });
    }

    /// A branch to the next [`Assembler::land`].
    pub fn branch_ahead(&mut self, op: Op, rs1: u8, rs2: u8) {
        let instruction = Instruction {
            op,
            rd: 0,
            rs1,
            rs2,
            immediate: 0,
            length: 4,
        };
        self.open.push((self.words.len(), instruction));
        self.words.push(0);
    }

    /// Where the open branches lead.
    pub fn land(&mut self) {
        let here = self.words.len();
        for (at, mut instruction) in std::mem::take(&mut self.open) {
            instruction.immediate = 4 * (here - at) as i32;
            self.words[at] = encode(&instruction).expect("a branch that reaches");
        }
    }

    /// A jump to a place that came before.
    pub fn jump(&mut self, to: Label) {
        self.branch(Op::Beq, ZERO, ZERO, to);
    }

    /// A jump to a place that came before, however far (1 MiB).
    pub fn far_jump(&mut self, to: Label) {
        self.immediate(
            Op::Jal,
            ZERO,
            0,
            4 * (to.0 as i32 - self.words.len() as i32),
        );
    }

    /// From here on an access that faults is passed over: the trap handler skips one instruction.
    /// Uses no register but T2.
    pub fn skip_faults(&mut self) {
        let handler = self.words.len() + 15;
        self.load(T2, RAM + 4 * handler as u64);
        self.immediate(Op::Csrrw, ZERO, T2, MTVEC);
        // `load` took as many instructions as the address has bytes; pad to the handler.
        while self.words.len() < handler - 1 {
            self.immediate(Op::Addi, ZERO, ZERO, 0);
        }
        self.branch_ahead(Op::Beq, ZERO, ZERO);
        self.immediate(Op::Csrrs, T2, ZERO, MEPC);
        self.immediate(Op::Addi, T2, T2, 4);
        self.immediate(Op::Csrrw, ZERO, T2, MEPC);
        self.plain(Op::Mret);
        self.land();
    }

    /// Ends the machine: `code` 0 is a power-off, another one a failure with that code.
    pub fn finish(&mut self, code: u16) {
        self.tell_finisher(if code == 0 {
            0x5555
        } else {
            u64::from(code) << 16 | 0x3333
        });
    }

    /// Resets the machine.
    pub fn reset(&mut self) {
        self.tell_finisher(0x7777);
    }

    fn tell_finisher(&mut self, value: u64) {
        self.load(T0, 0x10_0000);
        self.load(T1, value);
        self.store(Op::Sw, T1, T0, 0);
        let end = self.here();
        self.jump(end);
    }

    /// Ends the machine with the code in a register, which must not be 0.
    pub fn finish_with(&mut self, code: u8) {
        self.load(T0, 0x10_0000);
        self.load(T1, 0x3333);
        self.immediate(Op::Slli, T2, code, 16);
        self.register(Op::Or, T1, T1, T2);
        self.store(Op::Sw, T1, T0, 0);
        let end = self.here();
        self.jump(end);
    }

    /// The program as an ELF file, with `data` at the address `RAM + data_offset`.
    pub fn elf(&self, data_offset: u64, data: &[u8]) -> Vec<u8> {
        assert!(self.open.is_empty(), "a branch leads nowhere");
        let mut bytes: Vec<u8> = self
            .words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        if !data.is_empty() {
            assert!(
                bytes.len() as u64 <= data_offset,
                "the program runs into its data"
            );
            bytes.resize(data_offset as usize, 0);
            bytes.extend_from_slice(data);
        }
        elf(&bytes)
    }
}

/// A statically linked ELF file of one segment at the beginning of RAM.
fn elf(program: &[u8]) -> Vec<u8> {
    const HEADERS: u64 = 64 + 56;
    let mut file = Vec::new();
    file.extend(*b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    file.extend(2u16.to_le_bytes()); // executable
    file.extend(243u16.to_le_bytes()); // RISC-V
    file.extend(1u32.to_le_bytes());
    file.extend(RAM.to_le_bytes()); // entry
    file.extend(64u64.to_le_bytes()); // program headers
    file.extend(0u64.to_le_bytes()); // no section headers
    file.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1u32.to_le_bytes()); // load
    file.extend(7u32.to_le_bytes()); // readable, writable, executable
    for word in [
        HEADERS,
        RAM,
        RAM,
        program.len() as u64,
        program.len() as u64,
        4,
    ] {
        file.extend(word.to_le_bytes());
    }
    file.extend(program);
    file
}

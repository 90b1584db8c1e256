//! The compressed instructions as the specification draws them (unprivileged specification,
//! tables in 28.8), and a decoder that reads those drawings.

use riscv::isa::{Instruction, Op};

/// A drawing: 16 characters from bit 15 to bit 0. `0` and `1` are fixed; `i` is an immediate's bit;
/// `d` rd, `e` rd and rs1, `j` rs1, `s` rs2 of five bits; `D`, `E`, `B`, `S` the same of three bits
/// (x8 to x15).
struct Row {
    drawing: &'static str,
    /// Which bit of the immediate each `i` is, from the left.
    immediate: &'static [u32],
    /// Whether the highest bit of the immediate is its sign.
    signed: bool,
    op: Op,
    /// Registers that the drawing does not name: rd, rs1, rs2.
    implied: [u8; 3],
    /// What must not be zero; encodings in which it is are reserved, or another row's.
    nonzero: &'static [char],
    /// The immediate of an instruction whose drawing has none.
    constant: i32,
}

const fn row(
    drawing: &'static str,
    immediate: &'static [u32],
    signed: bool,
    op: Op,
    implied: [u8; 3],
    nonzero: &'static [char],
) -> Row {
    Row {
        drawing,
        immediate,
        signed,
        op,
        implied,
        nonzero,
        constant: 0,
    }
}

/// An instruction of one register and nothing else.
const fn unary(drawing: &'static str, op: Op, constant: i32) -> Row {
    Row {
        constant,
        ..row(drawing, &[], false, op, NONE, &[])
    }
}

const SIX: &[u32] = &[5, 4, 3, 2, 1, 0];
const WORD: &[u32] = &[5, 4, 3, 2, 6];
const DOUBLE: &[u32] = &[5, 4, 3, 7, 6];
const WORD_SP: &[u32] = &[5, 4, 3, 2, 7, 6];
const DOUBLE_SP: &[u32] = &[5, 4, 3, 8, 7, 6];
const JUMP: &[u32] = &[11, 4, 9, 8, 10, 6, 7, 3, 2, 1, 5];
const BRANCH: &[u32] = &[8, 4, 3, 7, 6, 2, 1, 5];
const NONE: [u8; 3] = [0, 0, 0];
const SP: [u8; 3] = [0, 2, 0];

/// Earlier rows win: c.addi16sp is c.lui of x2, c.jr is c.mv of x0 and so on.
#[rustfmt::skip]
const ROWS: &[Row] = &[
    row("000iiiiiiiiDDD00", &[5, 4, 9, 8, 7, 6, 2, 3], false, Op::Addi, SP, &['i']), // c.addi4spn
    row("001iiiBBBiiDDD00", DOUBLE, false, Op::Fld, NONE, &[]),
    row("010iiiBBBiiDDD00", WORD, false, Op::Lw, NONE, &[]),
    row("011iiiBBBiiDDD00", DOUBLE, false, Op::Ld, NONE, &[]),
    row("101iiiBBBiiSSS00", DOUBLE, false, Op::Fsd, NONE, &[]),
    row("110iiiBBBiiSSS00", WORD, false, Op::Sw, NONE, &[]),
    row("111iiiBBBiiSSS00", DOUBLE, false, Op::Sd, NONE, &[]),
    row("000ieeeeeiiiii01", SIX, true, Op::Addi, NONE, &[]), // c.addi, c.nop and hints
    row("001ieeeeeiiiii01", SIX, true, Op::Addiw, NONE, &['e']),
    row("010idddddiiiii01", SIX, true, Op::Addi, NONE, &[]), // c.li
    row("011i00010iiiii01", &[9, 4, 6, 8, 7, 5], true, Op::Addi, [2, 2, 0], &['i']), // c.addi16sp
    row("011idddddiiiii01", &[17, 16, 15, 14, 13, 12], true, Op::Lui, NONE, &['i', '2']),
    row("100i00EEEiiiii01", SIX, false, Op::Srli, NONE, &[]),
    row("100i01EEEiiiii01", SIX, false, Op::Srai, NONE, &[]),
    row("100i10EEEiiiii01", SIX, true, Op::Andi, NONE, &[]),
    row("100011EEE00SSS01", &[], false, Op::Sub, NONE, &[]),
    row("100011EEE01SSS01", &[], false, Op::Xor, NONE, &[]),
    row("100011EEE10SSS01", &[], false, Op::Or, NONE, &[]),
    row("100011EEE11SSS01", &[], false, Op::And, NONE, &[]),
    row("100111EEE00SSS01", &[], false, Op::Subw, NONE, &[]),
    row("100111EEE01SSS01", &[], false, Op::Addw, NONE, &[]),
    row("101iiiiiiiiiii01", JUMP, true, Op::Jal, NONE, &[]),
    row("110iiiBBBiiiii01", BRANCH, true, Op::Beq, NONE, &[]),
    row("111iiiBBBiiiii01", BRANCH, true, Op::Bne, NONE, &[]),
    row("000ieeeeeiiiii10", SIX, false, Op::Slli, NONE, &[]),
    row("001idddddiiiii10", DOUBLE_SP, false, Op::Fld, SP, &[]),
    row("010idddddiiiii10", WORD_SP, false, Op::Lw, SP, &['d']),
    row("011idddddiiiii10", DOUBLE_SP, false, Op::Ld, SP, &['d']),
    row("1000jjjjj0000010", &[], false, Op::Jalr, NONE, &['j']), // c.jr
    row("1000dddddsssss10", &[], false, Op::Add, NONE, &['s']), // c.mv
    row("1001000000000010", &[], false, Op::Ebreak, NONE, &[]),
    row("1001jjjjj0000010", &[], false, Op::Jalr, [1, 0, 0], &['j']), // c.jalr
    row("1001eeeeesssss10", &[], false, Op::Add, NONE, &['s']), // c.add
    row("101iiiiiisssss10", DOUBLE_SP, false, Op::Fsd, SP, &[]),
    row("110iiiiiisssss10", WORD_SP, false, Op::Sw, SP, &[]),
    row("111iiiiiisssss10", DOUBLE_SP, false, Op::Sd, SP, &[]),
    // Zcb (unprivileged specification, 29.2)
    row("100000BBBiiDDD00", &[0, 1], false, Op::Lbu, NONE, &[]),
    row("100001BBB0iDDD00", &[1], false, Op::Lhu, NONE, &[]),
    row("100001BBB1iDDD00", &[1], false, Op::Lh, NONE, &[]),
    row("100010BBBiiSSS00", &[0, 1], false, Op::Sb, NONE, &[]),
    row("100011BBB0iSSS00", &[1], false, Op::Sh, NONE, &[]),
    row("100111EEE10SSS01", &[], false, Op::Mul, NONE, &[]),
    unary("100111EEE1100001", Op::Andi, 255), // c.zext.b
    unary("100111EEE1100101", Op::SextB, 0),
    unary("100111EEE1101001", Op::ZextH, 0),
    unary("100111EEE1101101", Op::SextH, 0),
    unary("100111EEE1110001", Op::AddUw, 0), // c.zext.w
    unary("100111EEE1110101", Op::Xori, -1), // c.not
];

impl Row {
    /// The bits of `half` at which the drawing has this letter.
    fn field(&self, letter: char, half: u16) -> u32 {
        let bits = self.drawing.chars().zip((0..16).rev());
        bits.filter(|(at, _)| *at == letter)
            .fold(0, |value, (_, bit)| {
                (value << 1) | u32::from(half >> bit & 1)
            })
    }

    fn has(&self, letter: char) -> bool {
        self.drawing.contains(letter)
    }

    fn matches(&self, half: u16) -> bool {
        let fixed = self
            .drawing
            .chars()
            .zip((0..16).rev())
            .all(|(at, bit)| match at {
                '0' => half >> bit & 1 == 0,
                '1' => half >> bit & 1 == 1,
                _ => true,
            });
        fixed
            && self.nonzero.iter().all(|&letter| match letter {
                '2' => self.field('d', half) != 2,
                letter => self.field(letter, half) != 0,
            })
    }

    fn instruction(&self, half: u16) -> Instruction {
        let register = |long: char, short: char, both: (char, char), implied: u8| {
            for (letter, first) in [(long, 0), (both.0, 0), (short, 8), (both.1, 8)] {
                if self.has(letter) {
                    return first + self.field(letter, half) as u8;
                }
            }
            implied
        };
        let spread = self.field('i', half);
        let count = self.immediate.len() as u32;
        let mut immediate = self.constant;
        for (place, &bit) in self.immediate.iter().enumerate() {
            let set = (spread >> (count - 1 - place as u32) & 1) as i32;
            let highest = self.immediate.iter().max() == Some(&bit);
            immediate += if self.signed && highest {
                -(set << bit)
            } else {
                set << bit
            };
        }
        Instruction {
            op: self.op,
            rd: register('d', 'D', ('e', 'E'), self.implied[0]),
            rs1: register('j', 'B', ('e', 'E'), self.implied[1]),
            rs2: register('s', 'S', ('?', '?'), self.implied[2]),
            immediate,
            length: 2,
        }
    }
}

/// What the drawings say of a half-word; `None` if it is illegal or reserved.
pub fn expand(half: u16) -> Option<Instruction> {
    ROWS.iter()
        .find(|row| row.matches(half))
        .map(|row| row.instruction(half))
}

//! Compressed instructions, found by decoding random half-words, and the compressed branches.

use super::random::Random;
use riscv::isa::{self, Instruction, Op};

/// Half-words tried before giving up.
const TRIES: u32 = 300;

/// A random compressed instruction that `accepts` accepts; `c.nop` if none came.
pub fn find(random: &mut Random, accepts: impl Fn(&Instruction) -> bool) -> u16 {
    for _ in 0..TRIES {
        let half = random.bits() as u16;
        if half & 3 != 3 {
            let instruction = isa::decode(half.into(), isa::Extensions::ALL);
            if instruction.op != Op::Illegal && accepts(&instruction) {
                return half;
            }
        }
    }
    1
}

/// `c.beqz` or `c.bnez` of x8 to x15, `offset` bytes on (0 to 254, or -256 to -2).
pub fn branch(op: Op, register: u8, offset: i32) -> u16 {
    let bit = |from: i32, to: u32| ((offset >> from & 1) as u16) << to;
    let function = if op == Op::Beq { 6 } else { 7 };
    let offset_bits = bit(8, 12)
        | bit(4, 11)
        | bit(3, 10)
        | bit(7, 6)
        | bit(6, 5)
        | bit(2, 4)
        | bit(1, 3)
        | bit(5, 2);
    let half = function << 13 | u16::from(register - 8) << 7 | offset_bits | 1;
    let decoded = isa::decode(half.into(), isa::Extensions::ALL);
    assert_eq!(
        (decoded.op, decoded.rs1, decoded.immediate),
        (op, register, offset)
    );
    half
}

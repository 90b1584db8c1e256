//! The instruction table: what is encoded decodes to itself, and the other way round.

mod compressed_table;

use proptest::prelude::*;
use riscv::isa::{self, Encoding, Extension, Extensions, Format, Instruction, Op};

/// The fence that is an instruction of its own.
const PAUSE: u32 = 0x0100_000f;

/// Fields that fit the row's format, from random bits.
fn fields(row: &Encoding, bits: u64) -> Instruction {
    let register = |at: u32| (bits >> at & 31) as u8;
    let (mut rd, mut rs1, mut rs2) = (register(0), register(5), register(10));
    let value = (bits >> 20) as i32;
    let signed = |width: u32| value << (32 - width) >> (32 - width);
    let unsigned = |width: u32| value & ((1 << width) - 1);
    let immediate = match row.format {
        Format::R
        | Format::FloatR
        | Format::Unary
        | Format::TwoSources
        | Format::OneSource
        | Format::Fixed => 0,
        Format::I | Format::S => signed(12),
        Format::Shift6 => unsigned(6),
        Format::Shift5 => unsigned(5),
        Format::B => signed(13) & !1,
        Format::U => value & !0xfff,
        Format::J => signed(21) & !1,
        Format::Atomic => unsigned(2),
        Format::FloatRounded | Format::FloatUnaryRounded => unsigned(3),
        Format::FloatR4 => unsigned(5) << 8 | unsigned(8) >> 5,
        Format::Csr | Format::CsrImmediate | Format::Fence => unsigned(12),
    };
    if matches!(
        row.format,
        Format::S | Format::B | Format::TwoSources | Format::OneSource | Format::Fixed
    ) {
        rd = 0;
    }
    if matches!(row.format, Format::U | Format::J | Format::Fixed) {
        rs1 = 0;
    }
    let no_rs2 = matches!(
        row.format,
        Format::I
            | Format::Shift6
            | Format::Shift5
            | Format::U
            | Format::J
            | Format::Unary
            | Format::OneSource
            | Format::FloatUnaryRounded
            | Format::Csr
            | Format::CsrImmediate
            | Format::Fence
            | Format::Fixed
    );
    if no_rs2 || matches!(row.op, Op::LrW | Op::LrD) {
        rs2 = 0;
    }
    Instruction {
        op: row.op,
        rd,
        rs1,
        rs2,
        immediate,
        length: 4,
    }
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_itself(bits: u64) {
        for row in isa::encodings() {
            let instruction = fields(row, bits);
            let encoded = isa::encode(&instruction);
            if row.op == Op::Fence && encoded == Some(PAUSE) {
                continue;
            }
            prop_assert!(encoded.is_some(), "{} does not encode {instruction:?}", row.name);
            prop_assert_eq!(isa::decode(encoded.unwrap_or_default(), Extensions::ALL), instruction, "{}", row.name);
        }
    }

    #[test]
    fn what_decodes_encodes_to_itself(words in prop::collection::vec(any::<u32>(), 256)) {
        for word in words {
            check_word(word | 3)?;
            // close to a row, so that most are legal
            for row in isa::encodings() {
                check_word(word & !row.mask | row.bits)?;
                check_word((word & !row.mask | row.bits) ^ 1 << (word % 30 + 2))?;
            }
        }
    }

    #[test]
    fn fields_that_do_not_fit_do_not_encode(bits: u64, far in 1i32..1000) {
        for row in isa::encodings() {
            let instruction = fields(row, bits);
            let limit = match row.format {
                Format::I | Format::S => 2047,
                Format::Shift6 => 63,
                Format::Shift5 => 31,
                Format::B => 4094,
                Format::J => (1 << 20) - 2,
                Format::Atomic => 3,
                Format::FloatRounded | Format::FloatUnaryRounded => 7,
                Format::FloatR4 => 0x1f07,
                Format::Csr | Format::CsrImmediate | Format::Fence => 4095,
                _ => continue,
            };
            let wrong = Instruction { immediate: limit + far, ..instruction };
            prop_assert_eq!(isa::encode(&wrong), None, "{}", row.name);
            if matches!(row.format, Format::B | Format::J) {
                let odd = Instruction { immediate: instruction.immediate | 1, ..instruction };
                prop_assert_eq!(isa::encode(&odd), None, "{} to an odd address", row.name);
            }
            let register = Instruction { rd: 32, ..instruction };
            prop_assert_eq!(isa::encode(&register), None, "{} of x32", row.name);
        }
    }
}

fn check_word(word: u32) -> Result<(), TestCaseError> {
    let instruction = isa::decode(word, Extensions::ALL);
    if instruction.op == Op::Illegal {
        prop_assert_eq!(
            instruction.immediate as u32,
            word,
            "an illegal instruction keeps its bits"
        );
        prop_assert_eq!(isa::encode(&instruction), None);
    } else {
        prop_assert_eq!(isa::encode(&instruction), Some(word), "{:?}", instruction);
    }
    prop_assert_eq!(instruction.length, 4);
    Ok(())
}

/// No word is in two rows, but for `pause`, which is one of the fences: its row comes first.
#[test]
fn rows_exclude_each_other() {
    let rows: Vec<_> = isa::encodings().collect();
    for (index, a) in rows.iter().enumerate() {
        for b in &rows[index + 1..] {
            let shared = a.mask & b.mask;
            let overlap = a.bits & shared == b.bits & shared;
            assert_eq!(
                overlap,
                (a.op, b.op) == (Op::Pause, Op::Fence),
                "{} and {}",
                a.name,
                b.name
            );
            assert_ne!(
                a.op, b.op,
                "{} and {} are the same instruction",
                a.name, b.name
            );
        }
        assert_eq!(a.bits & 3, 3, "{} is no 32-bit instruction", a.name);
    }
}

/// Every half-word that begins no 32-bit instruction, against the specification's drawings.
#[test]
fn every_compressed_encoding_expands_as_drawn() {
    let mut legal = 0;
    for half in (0..=u16::MAX).filter(|half| half & 3 != 3) {
        let decoded = isa::decode(u32::from(half), Extensions::ALL);
        match compressed_table::expand(half) {
            Some(expected) => {
                assert_eq!(decoded, expected, "{half:#06x}");
                legal += 1;
            }
            None => {
                assert_eq!(
                    decoded.op,
                    Op::Illegal,
                    "{half:#06x} is reserved: {decoded:?}"
                );
                assert_eq!(
                    decoded.immediate,
                    i32::from(half),
                    "{half:#06x} keeps its bits"
                );
                assert_eq!(decoded.length, 2);
            }
        }
        let dirty = isa::decode(u32::from(half) | 0xabcd_0000, Extensions::ALL);
        assert_eq!(dirty, decoded, "what follows {half:#06x} does not matter");
    }
    assert!(legal > 40_000, "hardly any half-word is legal: {legal}");
}

/// 1.5: the two lowest bits say how long an instruction is.
#[test]
fn the_low_bits_give_the_length() {
    for half in 0..=u16::MAX {
        assert_eq!(isa::length(half), if half & 3 == 3 { 4 } else { 2 });
    }
}

/// Zcb's instructions that stand for some of Zba and Zbb are there with both only (29.2).
#[test]
fn what_zcb_brings_is_reserved_without_it() {
    let decoded = |half: u16, extensions| isa::decode(u32::from(half), extensions).op;
    let rv64gc = (0..=u16::MAX).filter(|half| decoded(*half, Extensions::NONE) != Op::Illegal);
    let all = (0..=u16::MAX).filter(|half| decoded(*half, Extensions::ALL) != Op::Illegal);
    let bare = Extensions::ALL.without(Extension::Zcb);
    let (mut zcb, mut of_others) = (0, 0);
    for half in all.filter(|half| half & 3 != 3) {
        let op = decoded(half, Extensions::ALL);
        let others = Extensions::NONE.with(Extension::Zcb);
        if decoded(half, bare) == Op::Illegal {
            zcb += 1;
            of_others += usize::from(decoded(half, others) == Op::Illegal);
            assert_eq!(
                decoded(half, others) == Op::Illegal,
                op.extension().is_some()
            );
        }
    }
    // Four offsets or two and two registers each; a register and a register; a register.
    assert_eq!(zcb, 2 * 4 * 64 + 3 * 2 * 64 + 64 + 6 * 8);
    assert_eq!(of_others, 4 * 8);
    assert!(rv64gc.count() > 40_000);
}

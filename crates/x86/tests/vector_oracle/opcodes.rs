//! Which opcodes exist: the host and the decoder agree.

use iced_x86::{Decoder, DecoderOptions};
use x86::fault::INVALID_OPCODE;

use crate::native::{DATA, Native, State};
use crate::{forms, whole};

/// Two full registers on the stack, and RSI at memory.
fn state() -> State {
    let mut state = State::new();
    state.gpr[6] = DATA + 64;
    state.gpr[7] = DATA + 64;
    state.fx.set_u16(2, 0x3000);
    state.fx.set_u16(4, 0xc0);
    for i in 0..2 {
        state.fx.set_st(i, 0x3fff_8000_0000_0000_0000);
    }
    state
}

fn is_undefined(state: &State) -> bool {
    state
        .raised
        .is_some_and(|raised| raised.vector == u64::from(INVALID_OPCODE))
}

/// Tries bytes on both; says where they do not agree.
fn disagreement(native: &mut Native, machine: &mut whole::Machine, bytes: &[u8]) -> Option<String> {
    let instruction = Decoder::new(64, bytes, DecoderOptions::NONE).decode();
    // Only what takes all of the bytes falls through to the end.
    if !instruction.is_invalid() && instruction.len() != bytes.len() {
        return None;
    }
    let (mut host, mut here) = (state(), state());
    native.execute(bytes, &mut host);
    machine.execute(bytes, &mut here);
    let (host, here) = (is_undefined(&host), is_undefined(&here));
    // The host has more features than the machine announces.
    let is_more = here && !instruction.is_invalid() && !forms::is_announced(instruction.code());
    (host != here && !is_more).then(|| {
        format!(
            "{bytes:02x?} {:?}: undefined on the host {host}, here {here}",
            instruction.code()
        )
    })
}

#[test]
fn every_x87_opcode_exists_where_the_host_has_it() {
    let mut native = Native::new();
    let mut machine = whole::Machine::new();
    let mut found = Vec::new();
    for opcode in 0xd8..=0xdf {
        for modrm in 0xc0..=0xff {
            found.extend(disagreement(&mut native, &mut machine, &[opcode, modrm]));
        }
        for digit in 0..8 {
            // [RSI]
            let modrm = digit << 3 | 6;
            found.extend(disagreement(&mut native, &mut machine, &[opcode, modrm]));
            found.extend(disagreement(
                &mut native,
                &mut machine,
                &[0x66, opcode, modrm],
            ));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The vector opcodes of the map 0F: not those of other instructions, which may not fall through.
fn is_vector(opcode: u8) -> bool {
    matches!(
        opcode,
        0x10..=0x17 | 0x28..=0x2f | 0x50..=0x76 | 0x7c..=0x7f | 0xc2 | 0xc4..=0xc6 | 0xd0..=0xfe
    )
}

#[test]
fn every_vector_opcode_exists_where_the_host_has_it() {
    let mut native = Native::new();
    let mut machine = whole::Machine::new();
    let mut found = Vec::new();
    let maps = [&[0x0f][..], &[0x0f, 0x38], &[0x0f, 0x3a]];
    for (map, opcode) in maps
        .into_iter()
        .flat_map(|map| (0..=0xff).map(move |opcode| (map, opcode)))
    {
        if map.len() == 1 && !is_vector(opcode) {
            continue;
        }
        for prefix in [None, Some(0x66), Some(0xf3), Some(0xf2)] {
            for modrm in [0x06, 0xc1] {
                let mut bytes: Vec<u8> = prefix.into_iter().collect();
                bytes.extend_from_slice(map);
                bytes.extend_from_slice(&[opcode, modrm]);
                if map.last() == Some(&0x3a) || map.len() == 1 && has_immediate(opcode) {
                    bytes.push(0);
                }
                found.extend(disagreement(&mut native, &mut machine, &bytes));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

fn has_immediate(opcode: u8) -> bool {
    matches!(opcode, 0x70..=0x73 | 0xc2 | 0xc4..=0xc6)
}

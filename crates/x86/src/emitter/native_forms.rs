//! Which forms compiled code leaves to the host's own instructions: those of a list, and no others. Whatever is not
//! in the list the interpreter executes, by integers, so that no vendor has a say in it.

#[path = "../../testing/native_forms.rs"]
mod list;

use super::piece::{Kind, kind};
use super::x86_64::host_has;
use crate::interpreter::decode::decode;
use crate::interpreter::vector::needs as units;
use iced_x86::{Code, Instruction};
use list::NATIVE;
use std::collections::BTreeSet;

const MAPS: [&[u8]; 4] = [&[], &[0x0f], &[0x0f, 0x38], &[0x0f, 0x3a]];
const PREFIXES: [&[u8]; 8] = [
    &[],
    &[0x66],
    &[0xf2],
    &[0xf3],
    &[0x66, 0xf2],
    &[0x66, 0xf3],
    &[0x67],
    &[0xf0],
];
const REX: [&[u8]; 3] = [&[], &[0x48], &[0x41]];
/// What follows ModRM: counts of one and of several, and displacements within the page.
const IMMEDIATES: [u8; 2] = [0x01, 0x05];

/// The forms of every opcode with every prefix and ModRM that the emitter gets for anything but a call-back.
fn compiled() -> BTreeSet<Code> {
    let mut forms = BTreeSet::new();
    for map in MAPS {
        for opcode in 0..256u16 {
            for (prefix, rex) in PREFIXES.iter().flat_map(|p| REX.map(|rex| (*p, rex))) {
                // Operands in memory without a displacement, and in registers.
                for modrm in (0x00..0x40u16).chain(0xc0..0x100) {
                    let start = [prefix, rex, map, &[opcode as u8, modrm as u8]].concat();
                    forms.extend(IMMEDIATES.into_iter().filter_map(|byte| form(&start, byte)));
                }
            }
        }
    }
    forms
}

fn form(start: &[u8], immediate: u8) -> Option<Code> {
    let mut bytes = [immediate; 15];
    bytes[..start.len()].copy_from_slice(start);
    let instruction = decode(&bytes, 0)?.instruction;
    let is_native = !matches!(kind(&instruction), Kind::CallBack | Kind::LastCallBack);
    is_native.then(|| instruction.code())
}

/// Whether this host lacks a form's feature, so that the interpreter executes it here.
fn is_beyond_this_host(code: Code) -> bool {
    let mut instruction = Instruction::default();
    instruction.set_code(code);
    crate::interpreter::decode::needs(&instruction) == Some(units::SSE) && !host_has(&instruction)
}

#[test]
fn compiled_code_leaves_no_form_to_the_host_but_those_that_are_listed_with_a_reason() {
    let listed: Vec<Code> = NATIVE
        .iter()
        .flat_map(|(_, forms)| *forms)
        .copied()
        .collect();
    let listed_once: BTreeSet<Code> = listed.iter().copied().collect();
    assert_eq!(listed.len(), listed_once.len(), "a form is listed twice");
    let compiled = compiled();
    let unlisted: Vec<Code> = compiled.difference(&listed_once).copied().collect();
    assert!(
        unlisted.is_empty(),
        "compiled natively without a reason in testing/native_forms.rs: {unlisted:?}"
    );
    let stale: Vec<Code> = listed_once
        .difference(&compiled)
        .copied()
        .filter(|&code| !is_beyond_this_host(code))
        .collect();
    assert!(stale.is_empty(), "listed, but not compiled: {stale:?}");
}

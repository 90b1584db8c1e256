//! What a vendor's processors do differently from this machine in integer instructions: each rule makes equal
//! exactly what it is about, and all else is compared. `docs/decisions/x86.md` has the reasons.

use crate::native::State;
use crate::vendor::Vendor;
use iced_x86::{Code, Instruction, Mnemonic, OpKind};

const RAX: usize = 0;
const RCX: usize = 1;
const RSI: usize = 6;
const RDI: usize = 7;
const R8: usize = 8;
const PAGE_FAULT: u64 = 14;

/// Makes the host's outcome `ours` where it follows a rule of its vendor that is not ours.
pub fn accept(
    vendor: Vendor,
    instruction: &Instruction,
    bytes: &[u8],
    before: &State,
    ours: &State,
    host: &mut State,
) {
    if has_short_addresses(instruction) {
        accept_other_operand_first(instruction, before, ours, host);
        if vendor == Vendor::Intel {
            accept_cut_registers(instruction, before, ours, host);
        }
    }
    if vendor == Vendor::Amd && instruction.code() == Code::Pause && has_rex_b(bytes) {
        accept_exchange(bytes, before, ours, host);
    }
}

/// A string instruction with 32-bit addresses. (The data are above 4 GiB, so that each access faults.)
fn has_short_addresses(instruction: &Instruction) -> bool {
    instruction
        .op_kinds()
        .any(|kind| matches!(kind, OpKind::MemorySegESI | OpKind::MemoryESEDI))
}

/// Intel cuts the registers that the instruction uses to 32 bits before it looks at memory, and leaves them so
/// if it then faults, or if there is nothing to repeat. (SDM volume 3, "Exception Classifications": a fault
/// restores the state; so does this machine.)
fn accept_cut_registers(instruction: &Instruction, before: &State, ours: &State, host: &mut State) {
    let repeats = instruction.has_rep_prefix() || instruction.has_repne_prefix();
    let does_nothing = repeats && before.gpr[RCX] as u32 == 0;
    if ours.raised.is_none() && !does_nothing {
        return;
    }
    let uses = |kind| instruction.op_kinds().any(|used| used == kind);
    for (register, is_used) in [
        (RCX, repeats),
        (RSI, uses(OpKind::MemorySegESI)),
        (RDI, uses(OpKind::MemoryESEDI)),
    ] {
        if is_used && host.gpr[register] == before.gpr[register] & 0xffff_ffff {
            host.gpr[register] = ours.gpr[register];
        }
    }
}

/// CMPS of which both operands fault: no manual says which is first.
fn accept_other_operand_first(
    instruction: &Instruction,
    before: &State,
    ours: &State,
    host: &mut State,
) {
    let compares = matches!(
        instruction.mnemonic(),
        Mnemonic::Cmpsb | Mnemonic::Cmpsw | Mnemonic::Cmpsd | Mnemonic::Cmpsq
    );
    let (Some(host), Some(ours)) = (&mut host.raised, &ours.raised) else {
        return;
    };
    let operands = [RSI, RDI].map(|register| before.gpr[register] & 0xffff_ffff);
    if compares
        && (host.vector, ours.vector) == (PAGE_FAULT, PAGE_FAULT)
        && operands.contains(&host.address)
    {
        host.address = ours.address;
    }
}

/// The REX prefix is the byte before the opcode.
fn has_rex_b(bytes: &[u8]) -> bool {
    rex(bytes) & 0xf1 == 0x41
}

fn rex(bytes: &[u8]) -> u8 {
    bytes.len().checked_sub(2).map_or(0, |at| bytes[at])
}

/// F3 REX.B 90: to AMD an exchange of R8 and rAX, to Intel and this machine PAUSE, which knows no REX.
fn accept_exchange(bytes: &[u8], before: &State, ours: &State, host: &mut State) {
    let mask = if rex(bytes) & 8 != 0 {
        u64::MAX
    } else if bytes.contains(&0x66) {
        0xffff
    } else {
        0xffff_ffff
    };
    // 32 bits clear the upper half.
    let kept = if mask == 0xffff_ffff { 0 } else { !mask };
    let mut expected = before.clone();
    for (to, from) in [(RAX, R8), (R8, RAX)] {
        expected.gpr[to] = before.gpr[to] & kept | before.gpr[from] & mask;
    }
    if host.gpr == expected.gpr {
        host.gpr = ours.gpr;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions};

    fn decode(bytes: &[u8]) -> Instruction {
        Decoder::new(64, bytes, DecoderOptions::NONE).decode()
    }

    fn state(gpr: [u64; 16]) -> State {
        let mut state = State::new();
        state.gpr = gpr;
        state
    }

    /// REP MOVSB with 32-bit addresses that faults: `left` is what the host leaves of all registers.
    fn is_accepted(vendor: Vendor, left: impl Fn(&mut [u64; 16])) -> bool {
        let bytes = [0x67, 0xf3, 0xa4];
        let mut before = state([0xffff_ffff_0000_0010; 16]);
        before.raised = None;
        let mut ours = before.clone();
        ours.raised = Some(crate::native::Raised {
            vector: PAGE_FAULT,
            error_code: 4,
            address: 0x10,
        });
        let mut host = ours.clone();
        left(&mut host.gpr);
        accept(vendor, &decode(&bytes), &bytes, &before, &ours, &mut host);
        host == ours
    }

    #[test]
    fn intel_may_cut_the_registers_of_a_string_instruction_and_nobody_else_may() {
        let cut = |registers: &'static [usize]| {
            move |gpr: &mut [u64; 16]| {
                for &register in registers {
                    gpr[register] &= 0xffff_ffff;
                }
            }
        };
        assert!(is_accepted(Vendor::Intel, cut(&[RCX, RSI, RDI])));
        assert!(is_accepted(Vendor::Amd, cut(&[])));
        assert!(!is_accepted(Vendor::Amd, cut(&[RCX, RSI, RDI])));
        assert!(!is_accepted(Vendor::Other, cut(&[RSI])));
        // Another register, or another value.
        assert!(!is_accepted(Vendor::Intel, cut(&[RAX])));
        assert!(!is_accepted(Vendor::Intel, |gpr| gpr[RSI] += 1));
    }

    #[test]
    fn pause_with_rex_is_an_exchange_to_amd_only() {
        for (rex, exchanged) in [
            (0x41, [0x2222_2222, 0x1111_1111]),
            (0x49, [0x2222_2222_2222_2222, 0x1111_1111_1111_1111]),
        ] {
            let bytes = [0xf3, rex, 0x90];
            let mut before = state([0x1111_1111_1111_1111; 16]);
            before.gpr[R8] = 0x2222_2222_2222_2222;
            for vendor in [Vendor::Amd, Vendor::Intel, Vendor::Other] {
                let mut host = before.clone();
                [host.gpr[RAX], host.gpr[R8]] = exchanged;
                accept(vendor, &decode(&bytes), &bytes, &before, &before, &mut host);
                assert_eq!(host == before, vendor == Vendor::Amd);
            }
        }
    }
}

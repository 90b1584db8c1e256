//! CSR instructions and the privileged ones.

use super::block::DecodedOp;
use super::environment::Environment;
use crate::hart::Privilege;
use crate::hart::csr::{IllegalAccess, number, status};
use crate::hart::registers::SINK;
use crate::hart::trap::{Cause, Exception};
use crate::isa::Op;

/// Executes a CSR instruction (unprivileged specification, 7.1).
pub fn csr(environment: &mut Environment, op: &DecodedOp, index: usize) -> Result<(), Exception> {
    let csr = op.immediate as u16;
    let immediate = matches!(op.op, Op::Csrrwi | Op::Csrrsi | Op::Csrrci);
    let source = if immediate {
        u64::from(op.rs1)
    } else {
        environment.hart.x.get(op.rs1)
    };
    let is_write = matches!(op.op, Op::Csrrw | Op::Csrrwi);
    let writes = is_write || op.rs1 != 0;
    let context = environment.csr_context(index);
    let old = match environment.hart.read_csr(csr, writes, &context) {
        Ok(old) => old,
        Err(IllegalAccess) => return Err(Exception::new(Cause::IllegalInstruction, bits(op))),
    };
    if writes {
        // Set and clear work on what software wrote to mip, not on the lines that show in it.
        let base = if csr == number::MIP {
            environment.hart.csr.mip_written
        } else {
            old
        };
        let new = match op.op {
            Op::Csrrw | Op::Csrrwi => source,
            Op::Csrrs | Op::Csrrsi => base | source,
            _ => base & !source,
        };
        environment.hart.write_csr(csr, new, &context);
        after_write(environment, csr);
    }
    environment.hart.x.set_mapped(op.rd, old);
    Ok(())
}

/// The encoding of a CSR instruction, for `tval`.
fn bits(op: &DecodedOp) -> u64 {
    let rd = if op.rd == SINK { 0 } else { op.rd };
    let instruction = crate::isa::Instruction {
        op: op.op,
        rd,
        rs1: op.rs1,
        rs2: 0,
        immediate: op.immediate,
        length: 4,
    };
    crate::isa::encode(&instruction).map_or(0, u64::from)
}

fn after_write(environment: &mut Environment, csr: u16) {
    match csr {
        number::FFLAGS | number::FRM | number::FCSR => environment.hart.csr.float_is_dirty(),
        number::SSTATUS | number::MSTATUS => environment.mode_changed(),
        number::SATP => {
            environment.hart.update_translation_context();
            environment.attention = true; // what follows is fetched anew, not by a block's link
        }
        number::MIE
        | number::SIE
        | number::MIP
        | number::SIP
        | number::MIDELEG
        | number::STIMECMP => environment.attention = true,
        number::MENVCFG => {
            // Svpbmt: entries that were reserved are not, or the other way round.
            environment.hart.tlb.abandon_spaces();
            environment.hart.update_translation_context();
            environment.attention = true;
        }
        number::SENVCFG => environment.hart.update_translation_context(),
        number::PMPCFG0..0x3f0 => {
            environment.hart.tlb.abandon_spaces();
            environment.hart.update_translation_context();
            environment.attention = true;
        }
        _ => {}
    }
}

/// Executes `mret`, `sret`, `wfi`, `sfence.vma` or an instruction of Svinval; `hart.pc` is that of the next instruction.
/// False if it is illegal in this mode.
pub fn privileged(environment: &mut Environment, op: Op) -> bool {
    let privilege = environment.hart.privilege;
    let status = environment.hart.csr.status;
    match op {
        Op::Mret => {
            if privilege != Privilege::Machine {
                return false;
            }
            environment.hart.return_from_machine();
            environment.mode_changed();
        }
        Op::Sret => {
            let trapped = privilege == Privilege::Supervisor && status & status::TSR != 0;
            if privilege == Privilege::User || trapped {
                return false;
            }
            environment.hart.return_from_supervisor();
            environment.mode_changed();
        }
        Op::Wfi => {
            let trapped = privilege == Privilege::Supervisor && status & status::TW != 0;
            if privilege == Privilege::User || trapped {
                return false;
            }
            environment.hart.waiting =
                environment.interrupts_pending & environment.hart.csr.mie == 0;
            environment.attention = true;
        }
        // Every access behaves as if freshly walked: there is nothing left to do.
        Op::SfenceWInval | Op::SfenceInvalIr => return privilege != Privilege::User,
        _ => {
            let trapped = privilege == Privilege::Supervisor && status & status::TVM != 0;
            return privilege != Privilege::User && !trapped;
        }
    }
    true
}

//! Decoding of the system instructions.

use super::{data, is_register, port, size, source_or_memory, store_selector, system};
use crate::interpreter::op::{Handler, Op};
use iced_x86::{Instruction, Mnemonic, Register};

/// System instructions behind which a block ends.
pub(super) fn systems(op: &mut Op, instruction: &Instruction) -> Option<Handler> {
    Some(match instruction.mnemonic() {
        Mnemonic::Mov => return system_move(op, instruction),
        Mnemonic::Popfq => {
            op.detail = 8;
            data::pop_flags
        }
        Mnemonic::Popf => {
            op.detail = 2;
            data::pop_flags
        }
        Mnemonic::Cli => data::change_interrupts,
        Mnemonic::Sti => {
            op.detail = 1;
            data::change_interrupts
        }
        Mnemonic::Hlt => system::halt,
        Mnemonic::Lmsw => {
            op.detail = u8::from(source_or_memory(op, instruction, 0));
            system::load_machine_status
        }
        Mnemonic::Lgdt => system::load_table,
        Mnemonic::Lidt => {
            op.detail = 1;
            system::load_table
        }
        Mnemonic::Lldt | Mnemonic::Ltr => {
            op.detail = u8::from(source_or_memory(op, instruction, 0));
            if instruction.mnemonic() == Mnemonic::Ltr {
                op.detail |= 2;
            }
            system::load_system_segment
        }
        Mnemonic::Rdmsr => system::read_msr,
        Mnemonic::Wrmsr => system::write_msr,
        Mnemonic::In => {
            op.detail = size(instruction, 0) as u8;
            if is_register(instruction, 1) {
                op.source = 1;
            } else {
                op.immediate = instruction.immediate(1);
            }
            port::input
        }
        Mnemonic::Out => {
            op.detail = size(instruction, 1) as u8;
            if is_register(instruction, 0) {
                op.source = 1;
            } else {
                op.immediate = instruction.immediate(0);
            }
            port::output
        }
        _ => return None,
    })
}

fn system_move(op: &mut Op, instruction: &Instruction) -> Option<Handler> {
    let other = |operand: u32| {
        let register = if is_register(instruction, operand) {
            instruction.op_register(operand)
        } else {
            Register::None
        };
        (
            register.number() as u8,
            register.is_segment_register(),
            register.is_cr(),
            register.is_dr(),
        )
    };
    match (other(0), other(1)) {
        ((segment, true, ..), _) => {
            op.target = segment;
            op.detail = u8::from(source_or_memory(op, instruction, 1));
            Some(system::move_to_segment)
        }
        (_, (segment, true, ..)) => store_selector(op, instruction, segment),
        ((control, _, true, _), (source, ..)) => {
            op.target = control;
            op.source = source;
            Some(system::move_to_control)
        }
        ((target, ..), (control, _, true, _)) => {
            op.source = control;
            op.target = target;
            Some(system::move_from_control)
        }
        ((debug, _, _, true), (source, ..)) => {
            op.target = debug;
            op.source = source;
            Some(system::move_to_debug)
        }
        ((target, ..), (debug, _, _, true)) => {
            op.source = debug;
            op.target = target;
            Some(system::move_from_debug)
        }
        _ => None,
    }
}

//! The A extension (unprivileged specification, 14).

use super::block::DecodedOp;
use super::environment::Environment;
use crate::hart::physical_memory_protection::Access;
use crate::hart::reservation::Reservation;
use crate::hart::trap::Exception;
use crate::isa::Op;
use crate::memory::RAM_BASE;

/// Executes `lr`, `sc` or an AMO.
pub fn execute(environment: &mut Environment, op: &DecodedOp) -> Result<(), Exception> {
    let size = if is_double(op.op) { 8 } else { 4 };
    let address = environment.hart.x.get(op.rs1);
    let source = environment.hart.x.get(op.rs2);
    let result = match op.op {
        Op::LrW | Op::LrD => {
            let offset = environment.atomic_offset(address, size, Access::Load)?;
            environment.hart.reservation = Reservation::at(RAM_BASE + offset as u64);
            load(environment, offset, size)
        }
        Op::ScW | Op::ScD => {
            let offset = environment.atomic_offset(address, size, Access::Store)?;
            let address = RAM_BASE + offset as u64;
            let holds = environment.hart.reservation.end(address);
            if holds {
                store(environment, offset, size, source);
            }
            u64::from(!holds)
        }
        amo => {
            let offset = environment.atomic_offset(address, size, Access::Store)?;
            let old = load(environment, offset, size);
            store(environment, offset, size, combine(amo, old, source));
            old
        }
    };
    environment.hart.x.set_mapped(op.rd, result);
    Ok(())
}

fn load(environment: &Environment, offset: usize, size: usize) -> u64 {
    if size == 8 {
        environment.memory.load_u64(offset)
    } else {
        environment.memory.load_u32(offset) as i32 as i64 as u64
    }
}

fn store(environment: &mut Environment, offset: usize, size: usize, value: u64) {
    if !environment.memory.is_plain(offset) {
        environment.attention |= environment.memory.store(offset, size, value);
    } else if size == 8 {
        environment.memory.store_u64(offset, value);
    } else {
        environment.memory.store_u32(offset, value as u32);
    }
}

fn is_double(op: Op) -> bool {
    use Op::*;
    matches!(
        op,
        LrD | ScD
            | AmoswapD
            | AmoaddD
            | AmoxorD
            | AmoandD
            | AmoorD
            | AmominD
            | AmomaxD
            | AmominuD
            | AmomaxuD
    )
}

/// What an AMO stores; words come sign-extended and only their low half is stored.
fn combine(op: Op, old: u64, source: u64) -> u64 {
    use Op::*;
    let word = source as i32 as i64 as u64;
    match op {
        AmoswapW | AmoswapD => source,
        AmoaddW | AmoaddD => old.wrapping_add(source),
        AmoxorW | AmoxorD => old ^ source,
        AmoandW | AmoandD => old & source,
        AmoorW | AmoorD => old | source,
        AmominW => (old as i64).min(word as i64) as u64,
        AmominD => (old as i64).min(source as i64) as u64,
        AmomaxW => (old as i64).max(word as i64) as u64,
        AmomaxD => (old as i64).max(source as i64) as u64,
        AmominuW => u64::from((old as u32).min(source as u32)),
        AmominuD => old.min(source),
        AmomaxuW => u64::from((old as u32).max(source as u32)),
        _ => old.max(source),
    }
}

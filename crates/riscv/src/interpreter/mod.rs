//! The interpreter: the reference semantics of the machine, over a cache of decoded blocks.

mod atomic;
pub mod block;
pub(crate) mod cache_block;
pub mod environment;
pub(crate) mod execute;
mod float;
mod system;

use crate::hart::trap::Exception;
use crate::isa::{self, Extensions};
use block::{BlockCache, DecodedOp, Found, NONE};
use environment::Environment;
use execute::{Exit, execute};
use machine::input::InstructionCount;

/// Runs the hart until the instruction count is `until` or something asks for attention.
///
/// Whatever asks for attention is looked at by the caller, which then calls again.
pub fn run(blocks: &mut BlockCache, environment: &mut Environment, until: InstructionCount) {
    while environment.count < until && !environment.attention {
        let found = find_block(blocks, environment);
        if environment.attention {
            return; // the fetch set A of its page: it begins anew
        }
        match found {
            Ok(Some(found)) => run_chain::<false>(blocks, environment, found.block, until, 0),
            Ok(None) => step(environment, blocks.extensions()),
            Err(exception) => {
                environment.count += 1;
                environment.take_exception(exception);
            }
        }
    }
}

/// Interprets the block at the hart's pc, or as much of it as may run, whether it was compiled or
/// not.
#[cfg(jit)]
pub(crate) fn run_one_block(
    blocks: &mut BlockCache,
    environment: &mut Environment,
    until: InstructionCount,
) {
    let found = find_block(blocks, environment);
    if environment.attention {
        return; // as in `run`
    }
    match found {
        Ok(Some(found)) => {
            let ops = blocks.ops(found.block);
            let remaining = (until - environment.count) as usize;
            let (executed, exit) = execute(environment, &ops[..ops.len().min(remaining)]);
            environment.count += executed as u64;
            if let Exit::Exception(exception) = exit {
                environment.count += 1;
                environment.take_exception(exception);
            }
        }
        Ok(None) => step(environment, blocks.extensions()),
        Err(exception) => {
            environment.count += 1;
            environment.take_exception(exception);
        }
    }
}

/// The block at the hart's pc; `None` if its first instruction crosses a page, is not in RAM,
/// shares its page with the end of a PMP range or may be at a breakpoint.
#[inline(always)]
pub(crate) fn find_block(
    blocks: &mut BlockCache,
    environment: &mut Environment,
) -> Result<Option<Found>, Exception> {
    let Some(start) = environment.fetch_offset(environment.hart.pc)? else {
        return Ok(None);
    };
    if let Some(found) = blocks.lookup(start) {
        return Ok(Some(found));
    }
    let block = decode_block(blocks, environment, start);
    Ok(block.map(|block| Found { block, code: None }))
}

#[cold]
fn decode_block(
    blocks: &mut BlockCache,
    environment: &mut Environment,
    start: usize,
) -> Option<u32> {
    if blocks.is_full() {
        blocks.clear();
        environment.memory.forget_code();
    }
    let block = blocks.decode(environment.memory, start)?;
    let last = blocks.ops(block).last().expect("a block has instructions");
    environment.mark_code(start, usize::from(last.offset) + usize::from(last.length));
    Some(block)
}

/// Runs `block` and the blocks that it leads to within its page. Where `COUNTS`, it counts how often
/// each was run, and returns before one that has reached `hot`.
pub(crate) fn run_chain<const COUNTS: bool>(
    blocks: &mut BlockCache,
    environment: &mut Environment,
    mut block: u32,
    until: InstructionCount,
    hot: u32,
) {
    loop {
        if COUNTS {
            let heat = &mut blocks.block_mut(block).heat;
            if *heat >= hot {
                return;
            }
            *heat = heat.saturating_add(1);
        }
        let ops = blocks.ops(block);
        let remaining = (until - environment.count) as usize;
        let ops = if ops.len() > remaining {
            &ops[..remaining]
        } else {
            ops
        };
        let start = environment.hart.pc;
        let (executed, exit) = execute(environment, ops);
        environment.count += executed as u64;
        if let Exit::Exception(exception) = exit {
            environment.count += 1;
            environment.take_exception(exception);
            return;
        }
        let same_page = (environment.hart.pc ^ start) >> 12 == 0;
        if environment.attention || environment.count >= until || !same_page {
            return;
        }
        let next = match exit {
            Exit::Taken => blocks.block_mut(block).taken,
            Exit::FallThrough => blocks.block_mut(block).fall_through,
            _ => return,
        };
        if next != NONE {
            block = next;
            continue;
        }
        let Some(found) = find_known_block(blocks, environment) else {
            return;
        };
        match exit {
            Exit::Taken => blocks.block_mut(block).taken = found.block,
            _ => blocks.block_mut(block).fall_through = found.block,
        }
        block = found.block;
    }
}

/// As [`find_block`], but only if it is known already: a decode could drop the blocks of the page
/// that is running.
pub(crate) fn find_known_block(
    blocks: &BlockCache,
    environment: &mut Environment,
) -> Option<Found> {
    blocks.lookup(environment.possible_fetch_offset(environment.hart.pc)?)
}

/// Executes one instruction that no block can hold: see [`find_block`]. At a breakpoint it asks for
/// attention instead.
#[cold]
pub(crate) fn step(environment: &mut Environment, extensions: Extensions) {
    if environment.memory.traps.breaks_at(environment.hart.pc) {
        environment.attention = true;
        return;
    }
    let exit = match fetch(environment, extensions) {
        Ok(op) => execute(environment, &[op]).1,
        Err(exception) => Exit::Exception(exception),
    };
    environment.count += 1;
    if let Exit::Exception(exception) = exit {
        environment.take_exception(exception);
    }
}

fn fetch(environment: &mut Environment, extensions: Extensions) -> Result<DecodedOp, Exception> {
    let pc = environment.hart.pc;
    let low = environment.fetch_half(pc)?;
    let bits = if isa::length(low) == 4 {
        u32::from(environment.fetch_half(pc.wrapping_add(2))?) << 16 | u32::from(low)
    } else {
        low.into()
    };
    Ok(DecodedOp::new(isa::decode(bits, extensions), 0))
}

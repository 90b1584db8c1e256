//! The way into compiled code, and what compiled code calls.
#![allow(unsafe_code)] // compiled code is entered, and knows its world by address

use super::tier::Jit;
use crate::emitter::translate::leaves as ends_piece_by_itself;
use crate::hart::Hart;
use crate::interpreter::environment::Environment;
use crate::interpreter::execute::{Exit, execute};
use crate::isa::Op;
use machine::memory::PAGE_SIZE;
use std::marker::PhantomData;

/// What the call-backs need to know, at the top of compiled code's stack.
#[repr(C)]
pub struct Frame<'a, 'b> {
    environment: *mut Environment<'b>,
    jit: *mut Jit,
    /// Changes when code is dropped, which does not happen meanwhile.
    drops: u64,
    /// Instruction count at which nothing is left.
    end: u64,
    /// Instructions left; in a register while compiled code runs.
    pub(super) remaining: i64,
    lifetime: PhantomData<&'a mut ()>,
}

impl<'a, 'b> Frame<'a, 'b> {
    /// A frame for one entry.
    pub fn new(
        environment: &'a mut Environment<'b>,
        jit: &'a mut Jit,
        drops: u64,
        end: u64,
    ) -> Frame<'a, 'b> {
        Frame {
            environment,
            jit,
            drops,
            end,
            remaining: 0,
            lifetime: PhantomData,
        }
    }

    /// Instructions left when compiled code came back.
    pub fn remaining(&self) -> i64 {
        self.remaining
    }
}

/// Enters compiled code at `entry` through the routine at `routine`; gives the number of the exit.
pub fn enter(routine: usize, entry: usize, frame: &mut Frame, budget: i64) -> u64 {
    // SAFETY: `routine` was emitted by `Routines::emit` with this signature, `entry` is a piece in
    // the same cache. Both use the frame's environment and JIT by the pointers in it only, which
    // are valid and not used otherwise until this call returns.
    unsafe {
        let hart: *mut Hart = (*frame.environment).hart;
        let routine: extern "sysv64" fn(*mut Hart, usize, *mut Frame, i64) -> u64 =
            std::mem::transmute(routine);
        routine(hart, entry, frame, budget)
    }
}

/// What compiled code says of where it is: instructions of the piece from this one on (bits 0 to
/// 15), offset of this one in its page (bits 16 to 31).
#[derive(Clone, Copy)]
pub struct Place(pub u32);

impl Place {
    /// A place.
    pub fn new(instructions_to_end: usize, offset: u16) -> Place {
        Place(instructions_to_end as u32 | u32::from(offset) << 16)
    }

    /// Instructions of the piece from this one on.
    pub fn instructions_to_end(self) -> i64 {
        i64::from(self.0 & 0xffff)
    }

    /// Offset of this one in its page.
    pub fn offset(self) -> u64 {
        u64::from(self.0 >> 16)
    }
}

/// What [`load_missed`] and [`store_missed`] answer.
#[repr(u64)]
pub enum Answer {
    /// The interpreter has to execute the instruction.
    Interpret = 0,
    /// The TLB knows the page now.
    Retry = 1,
    /// The store is done.
    Done = 2,
}

/// A load that no TLB entry answered.
pub extern "sysv64" fn load_missed(frame: *mut Frame, address: u64, size: u64) -> Answer {
    // SAFETY: compiled code passes the frame it was entered with.
    let (environment, jit, drops) = unsafe {
        (
            &mut *(*frame).environment,
            &mut *(*frame).jit,
            (*frame).drops,
        )
    };
    let answer = if environment.fill_load(address, size as usize) {
        Answer::Retry
    } else {
        Answer::Interpret
    };
    jit.refresh_keys(environment, drops);
    answer
}

/// A store that no TLB entry answered.
pub extern "sysv64" fn store_missed(
    frame: *mut Frame,
    address: u64,
    size: u64,
    value: u64,
) -> Answer {
    // SAFETY: compiled code passes the frame it was entered with.
    let (environment, jit, drops) = unsafe {
        (
            &mut *(*frame).environment,
            &mut *(*frame).jit,
            (*frame).drops,
        )
    };
    let answer = match environment.try_store(address, size as usize, value) {
        None => Answer::Interpret,
        Some(true) => Answer::Retry,
        Some(false) => Answer::Done,
    };
    jit.refresh_keys(environment, drops);
    answer
}

/// Executes an instruction for compiled code, which has stored all registers. True if compiled code
/// has to be left: then `hart.pc` and the frame's `remaining` say where.
pub extern "sysv64" fn execute_rare(frame: *mut Frame, place: u32, number: u64) -> bool {
    // SAFETY: compiled code passes the frame it was entered with.
    let (frame, environment, jit) =
        unsafe { (&mut *frame, &mut *(*frame).environment, &mut *(*frame).jit) };
    let place = Place(place);
    let remaining = frame.remaining + place.instructions_to_end();
    environment.count = frame.end - remaining as u64;
    environment.hart.pc = environment.hart.compiled.page + place.offset();
    let mut op = jit.rare_op(number as usize);
    op.offset = 0;
    let exit = match op.op {
        // Every system call begins and ends with these.
        Op::Ecall => Exit::Exception(environment.environment_call()),
        _ => execute(environment, &[op]).1,
    };
    let leaves = match exit {
        Exit::Exception(exception) => {
            environment.count += 1;
            environment.take_exception(exception);
            // Behind these, compiled code goes on wherever the pc is.
            environment.attention || jit.stops_at_traps || !ends_piece_by_itself(op.op)
        }
        _ => environment.attention,
    };
    jit.refresh_keys(environment, frame.drops);
    if leaves {
        frame.remaining = remaining - 1;
    }
    debug_assert!(environment.hart.compiled.page.is_multiple_of(PAGE_SIZE));
    leaves
}

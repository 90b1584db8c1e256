//! Compiled code and the interpreter, side by side.
//!
//! Before compiled code is entered the interpreter rehearses the same instructions: on a hart of its
//! own that begins in the same state, with RAM put back afterwards. It remembers the state after
//! each instruction, because where compiled code gives up is for compiled code to choose. Wherever
//! that is, registers and RAM have to be what the interpreter had there.
//!
//! Nothing of what compiled code remembers is switched off: its links, its jump cache, its site
//! caches and the TLB are what is checked. The rehearsal begins with an empty TLB and decodes what
//! is in RAM now, so that a translation or an instruction that is no longer true is found too.
//!
//! What it cannot see: a store of compiled code to a place where the interpreter stores nothing.

mod architecture;
mod report;
#[cfg(test)]
mod tests;

use super::tier::Exit as CompiledExit;
use super::translate::LONGEST;
use crate::hart::Hart;
use crate::hart::physical_memory_protection::Access;
use crate::interpreter::block::DecodedOp;
use crate::interpreter::environment::Environment;
use crate::interpreter::execute::{Exit, execute};
use crate::isa::{self, Extensions, Op};
use crate::memory::Trial;
use architecture::Architecture;
use machine::input::InstructionCount;
use machine::memory::PAGE_SIZE;
use machine::memory::journal::WrittenWord;

/// Instructions that compiled code may execute before it is compared: no piece is longer.
const CHUNK: u64 = 128;
const _: () = assert!(CHUNK as usize >= LONGEST);

/// Why a rehearsal ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// All instructions that compiled code may execute were executed.
    Reached,
    /// The last instruction raised an exception.
    Exception,
    /// The last instruction did what has to be looked at before the next one.
    Attention,
    /// The next instruction reaches a device.
    Device,
    /// The next instruction is one that no block holds.
    Fetch,
}

/// An instruction as the interpreter found it.
#[derive(Clone, Copy)]
struct Fetched {
    /// Offset in RAM.
    offset: usize,
    /// Its encoding.
    bits: u32,
    op: DecodedOp,
}

/// The state after an instruction.
struct Step {
    fetched: Fetched,
    after: Architecture,
    /// Entries of the journal up to here.
    words: usize,
    attention: bool,
}

/// A rehearsal and what came of it.
pub struct Paranoid {
    /// Rehearses; its TLB is never the one that compiled code uses.
    hart: Box<Hart>,
    start: Architecture,
    start_count: InstructionCount,
    steps: Vec<Step>,
    end: End,
    trial: Trial,
    #[cfg(test)]
    sabotage: Option<tests::Sabotage>,
}

impl Paranoid {
    /// Nothing is rehearsed.
    pub fn new() -> Paranoid {
        let hart = Box::new(Hart::new(0, 0));
        Paranoid {
            start: Architecture::of(&hart),
            hart,
            start_count: 0,
            steps: Vec::new(),
            end: End::Reached,
            trial: Trial::default(),
            #[cfg(test)]
            sabotage: None,
        }
    }

    /// Interprets what compiled code is about to execute, up to `until` at most, and undoes it.
    /// Gives the count up to which compiled code may run.
    pub fn rehearse(
        &mut self,
        environment: &mut Environment,
        extensions: Extensions,
        until: InstructionCount,
    ) -> InstructionCount {
        let until = until.min(environment.count + CHUNK);
        self.start = Architecture::of(environment.hart);
        self.start_count = environment.count;
        self.start.write_to(&mut self.hart);
        self.hart.id = environment.hart.id;
        self.hart.tlb.abandon_spaces();
        self.hart.update_translation_context();
        self.steps.clear();
        environment.memory.begin_trial(&mut self.trial);
        let mut trial = Environment {
            hart: &mut self.hart,
            memory: environment.memory,
            bus: environment.bus,
            outputs: environment.outputs,
            clock: environment.clock,
            count: environment.count,
            unix_base_ns: environment.unix_base_ns,
            extensions,
            interrupts_pending: environment.interrupts_pending,
            attention: false,
            turn_is_over: false,
        };
        self.end = interpret(&mut trial, &mut self.steps, extensions, until);
        environment.memory.undo_trial(&mut self.trial);
        until
    }

    /// Compiled code has run and says that it got as far as `environment.count`. Panics if it did not
    /// do what the interpreter did. Gives the exit to act on.
    pub fn compare(&mut self, environment: &mut Environment, exit: CompiledExit) -> CompiledExit {
        #[cfg(test)]
        if let Some(sabotage) = self.sabotage {
            sabotage(environment);
        }
        let executed = environment.count.wrapping_sub(self.start_count) as usize;
        if !self.agrees(environment, executed) {
            panic!("{}", self.report(environment, executed));
        }
        // A piece that did not fit into the chunk fits into the next one.
        if exit == CompiledExit::Budget && executed != 0 {
            return CompiledExit::Next;
        }
        exit
    }

    fn agrees(&self, environment: &Environment, executed: usize) -> bool {
        executed <= self.steps.len()
            && *self.expected(executed) == Architecture::of(environment.hart)
            && self.attention(executed) == environment.attention
            && self.wrong_words(environment, executed).next().is_none()
    }

    /// The interpreter's state after so many instructions.
    fn expected(&self, executed: usize) -> &Architecture {
        match executed {
            0 => &self.start,
            _ => &self.steps[executed - 1].after,
        }
    }

    fn attention(&self, executed: usize) -> bool {
        executed != 0 && self.steps[executed - 1].attention
    }

    /// Double-words of RAM (offset, what the interpreter left there) that hold something else, or
    /// that were written without becoming dirty.
    fn wrong_words(
        &self,
        environment: &Environment,
        executed: usize,
    ) -> impl Iterator<Item = (usize, u64)> {
        let memory = &*environment.memory;
        self.expected_words(executed)
            .filter(move |&(offset, expected, written)| {
                memory.load_u64(offset) != expected || written && memory.is_clean(offset)
            })
            .map(|(offset, expected, _)| (offset, expected))
    }

    /// All double-words of the journal: offset, value after so many instructions, whether it was
    /// written until then.
    fn expected_words(&self, executed: usize) -> impl Iterator<Item = (usize, u64, bool)> {
        let words = &self.trial.journal.words;
        let written = match executed {
            0 => 0,
            _ => self.steps[executed - 1].words,
        };
        words.iter().enumerate().filter_map(move |(index, word)| {
            let same = |other: &WrittenWord| other.offset == word.offset;
            if index < written {
                let is_last = !words[index + 1..written].iter().any(same);
                is_last.then_some((word.offset, word.new, true))
            } else {
                let is_first = !words[..index].iter().any(same);
                is_first.then_some((word.offset, word.old, false))
            }
        })
    }
}

/// Interprets one instruction after another, up to `until` at most.
fn interpret(
    trial: &mut Environment,
    steps: &mut Vec<Step>,
    extensions: Extensions,
    until: InstructionCount,
) -> End {
    while trial.count < until {
        let Some(fetched) = fetch(trial, extensions) else {
            return End::Fetch;
        };
        if reaches_device(trial, &fetched.op) {
            return End::Device;
        }
        let (_, exit) = execute(trial, &[fetched.op]);
        trial.count += 1;
        if let Exit::Exception(exception) = exit {
            trial.take_exception(exception);
        }
        steps.push(Step {
            fetched,
            after: Architecture::of(trial.hart),
            words: trial.memory.words_written(),
            attention: trial.attention,
        });
        if matches!(exit, Exit::Exception(_)) {
            return End::Exception;
        }
        if trial.attention {
            return End::Attention;
        }
    }
    End::Reached
}

/// The instruction at the pc; none if compiled code cannot hold it: its fetch faults or sets A, or it
/// shares a page with the end of a PMP range.
fn fetch(trial: &mut Environment, extensions: Extensions) -> Option<Fetched> {
    let offset = trial.possible_fetch_offset(trial.hart.pc)?;
    let half = trial.memory.load_u16(offset);
    let bits = if isa::length(half) == 2 {
        half.into()
    } else if offset % PAGE_SIZE as usize <= PAGE_SIZE as usize - 4 {
        trial.memory.load_u32(offset)
    } else {
        let next_page = (trial.hart.pc | (PAGE_SIZE - 1)).wrapping_add(1);
        let next = trial.possible_fetch_offset(next_page)?;
        u32::from(trial.memory.load_u16(next)) << 16 | u32::from(half)
    };
    let op = DecodedOp::new(isa::decode(bits, extensions), 0);
    Some(Fetched { offset, bits, op })
}

/// Whether a load or store would have an effect that cannot be undone. All others either reach RAM
/// or fault.
fn reaches_device(trial: &mut Environment, op: &DecodedOp) -> bool {
    use Op::*;
    let (size, access) = match op.op {
        Lb | Lbu => (1, Access::Load),
        Lh | Lhu => (2, Access::Load),
        Lw | Lwu | Flw => (4, Access::Load),
        Ld | Fld => (8, Access::Load),
        Sb => (1, Access::Store),
        Sh => (2, Access::Store),
        Sw | Fsw => (4, Access::Store),
        Sd | Fsd => (8, Access::Store),
        _ => return false,
    };
    let hart = &mut *trial.hart;
    let base = hart.x.get(op.rs1);
    let address = base.wrapping_add(i64::from(op.immediate) as u64);
    let known = hart.tlb.load.lookup(address, hart.tlb.data_context);
    if known.is_some() || address % PAGE_SIZE + size > PAGE_SIZE {
        return false;
    }
    let privilege = hart.data_privilege();
    match hart.translate(trial.memory, address, access, privilege) {
        Ok(physical) => trial.memory.offset(physical, size).is_err(),
        Err(_) => false,
    }
}

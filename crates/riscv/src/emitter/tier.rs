//! When to interpret, when to compile, and what to do when compiled code gives up.

use super::call_back::{Frame, enter};
use super::keys::{JumpKeys, SiteKeys};
use super::paranoid::Paranoid;
use super::translate::Piece;
use super::x86_64::{Emitter, Routines, host_is_capable};
use crate::interpreter::block::{BlockCache, DecodedOp, Found};
use crate::interpreter::environment::Environment;
use crate::interpreter::{self, find_block, find_known_block, run_chain, step};
use jit::chaos::Chaos;
use jit::code_cache::{CodeCache, LARGEST_PIECE};
use machine::input::InstructionCount;
use machine::memory::PAGE_SIZE;
use std::num::NonZeroU32;

/// Executions after which a block is compiled.
const HOT: u32 = 16;
/// Entries of the jump cache.
pub const JUMP_ENTRIES: usize = 32768;

/// Why compiled code came back. `hart.pc` is that of the next instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Nothing is known of the code at the pc.
    Next,
    /// The piece at the pc is longer than what is left.
    Budget,
    /// The instruction at the pc is one for the interpreter.
    Interpret,
    /// The code at the pc, in the same page, could be reached by this link.
    Link(usize),
}

impl Exit {
    /// Bits of the number that compiled code gives for the kind of exit.
    const KIND_BITS: u32 = 2;

    /// As compiled code gives it.
    pub fn number(self) -> i32 {
        match self {
            Exit::Next => 0,
            Exit::Budget => 1,
            Exit::Interpret => 2,
            Exit::Link(link) => (link as i32) << Self::KIND_BITS | 3,
        }
    }

    fn from_number(number: u64) -> Exit {
        match number & 3 {
            0 => Exit::Next,
            1 => Exit::Budget,
            2 => Exit::Interpret,
            _ => Exit::Link((number as u32 >> Self::KIND_BITS) as usize),
        }
    }
}

/// Where a jump to another page leads. Compiled code reads it.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct JumpEntry {
    pc: u64,
    key: u64,
    code: u64,
    unused: u64,
}

const NO_JUMP: JumpEntry = JumpEntry {
    pc: u64::MAX, // odd: never a pc
    key: 0,
    code: 0,
    unused: 0,
};

/// The slot of `pc`; compiled code computes the same.
pub fn jump_slot(pc: u64) -> usize {
    ((pc ^ pc >> 12) as usize & (2 * JUMP_ENTRIES - 2)) / 2
}

/// The compiler and what it has compiled.
pub struct Jit {
    code: CodeCache,
    routines: Routines,
    /// Instructions that compiled code lets the interpreter execute for it.
    rare_ops: Vec<DecodedOp>,
    jump_cache: Box<[JumpEntry]>,
    pub(super) site_keys: SiteKeys,
    jump_keys: JumpKeys,
    /// [`BlockCache::clears`] when it was last looked at.
    clears: u64,
    hot: u32,
    chaos: Option<Chaos>,
    /// Compares everything with the interpreter.
    pub(super) paranoid: Option<Box<Paranoid>>,
    /// Compiled code is left at each trap: a rehearsal ends there too.
    pub(super) stops_at_traps: bool,
}

impl Jit {
    /// A compiler that has compiled nothing; none where the host lacks what it needs.
    pub fn new() -> Option<Jit> {
        if !host_is_capable() {
            return None;
        }
        let mut code = CodeCache::new().ok()?;
        let routines = Routines::emit(&mut code);
        Some(Jit {
            code,
            routines,
            rare_ops: Vec::new(),
            jump_cache: vec![NO_JUMP; JUMP_ENTRIES].into_boxed_slice(),
            site_keys: SiteKeys::default(),
            jump_keys: JumpKeys::default(),
            clears: 0,
            hot: HOT,
            chaos: None,
            paranoid: None,
            stops_at_traps: false,
        })
    }

    /// See [`machine::Machine::set_chaos`].
    pub fn set_chaos(&mut self, seed: Option<u64>) {
        self.chaos = seed.map(Chaos::new);
        self.hot = self.chaos.as_mut().map_or(HOT, Chaos::threshold);
    }

    /// Whether all that compiled code does is compared with the interpreter.
    pub fn set_paranoid(&mut self, paranoid: bool) {
        self.stops_at_traps = paranoid;
        self.paranoid = paranoid.then(|| Box::new(Paranoid::new()));
    }

    /// As [`interpreter::run`].
    pub fn run(
        &mut self,
        blocks: &mut BlockCache,
        environment: &mut Environment,
        until: InstructionCount,
    ) {
        while environment.count < until && !environment.attention {
            let until = match self.chaos.take() {
                None => until,
                Some(mut chaos) => {
                    self.disturb(&mut chaos, blocks, environment);
                    let quantum = chaos.quantum();
                    self.chaos = Some(chaos);
                    until.min(environment.count + quantum)
                }
            };
            let found = find_block(blocks, environment);
            if environment.attention {
                return; // as in `interpreter::run`
            }
            match found {
                Ok(Some(found)) => self.run_block(blocks, environment, found, until),
                Ok(None) => step(environment, blocks.extensions()),
                Err(exception) => {
                    environment.count += 1;
                    environment.take_exception(exception);
                }
            }
        }
    }

    #[cold]
    fn disturb(
        &mut self,
        chaos: &mut Chaos,
        blocks: &mut BlockCache,
        environment: &mut Environment,
    ) {
        if chaos.once_in(200) {
            environment.hart.tlb.clear();
        }
        if chaos.once_in(100) {
            self.code.clear_sites();
        }
        if chaos.once_in(100) {
            self.jump_cache.fill(NO_JUMP);
        }
        if chaos.once_in(1000) {
            blocks.clear();
            environment.memory.forget_code();
        }
        if chaos.once_in(50) {
            self.hot = chaos.threshold();
        }
    }

    fn run_block(
        &mut self,
        blocks: &mut BlockCache,
        environment: &mut Environment,
        found: Found,
        until: InstructionCount,
    ) {
        let Found { block, mut code } = found;
        if code.is_none() && blocks.block_mut(block).heat >= self.hot {
            if self.code.is_full() || self.chaos.as_mut().is_some_and(Chaos::fills_code_cache) {
                // The block goes with all others; it will be hot again soon.
                blocks.clear();
                environment.memory.forget_code();
                self.forget_code(blocks);
                return;
            }
            code = self.compile(blocks, environment);
        }
        let Some(code) = code else {
            run_chain::<true>(blocks, environment, block, until, self.hot);
            return;
        };
        match self.enter(blocks, environment, code, until) {
            Exit::Next => {}
            Exit::Budget => interpreter::run(blocks, environment, until),
            Exit::Interpret => interpreter::run_one_block(blocks, environment, until),
            Exit::Link(link) => {
                if let Some(found) = find_known_block(blocks, environment)
                    && let Some(target) = found.code
                    && self.clears == blocks.clears()
                {
                    self.code.patch(link, target);
                }
            }
        }
    }

    /// Runs compiled code until it gives up.
    fn enter(
        &mut self,
        blocks: &BlockCache,
        environment: &mut Environment,
        code: NonZeroU32,
        until: InstructionCount,
    ) -> Exit {
        let Some(mut paranoid) = self.paranoid.take() else {
            return self.enter_unwatched(blocks, environment, code, until);
        };
        let until = paranoid.rehearse(environment, blocks.extensions(), until);
        let exit = self.enter_unwatched(blocks, environment, code, until);
        let exit = paranoid.compare(environment, exit);
        self.paranoid = Some(paranoid);
        exit
    }

    fn enter_unwatched(
        &mut self,
        blocks: &BlockCache,
        environment: &mut Environment,
        code: NonZeroU32,
        until: InstructionCount,
    ) -> Exit {
        let pc = environment.hart.pc;
        self.refresh_keys(environment, blocks.drops());
        let hart = &mut *environment.hart;
        hart.compiled.interrupts_pending = environment.interrupts_pending;
        hart.compiled.page = pc & !(PAGE_SIZE - 1);
        let entry = self.code.base() + code.get() as usize;
        self.jump_cache[jump_slot(pc)] = JumpEntry {
            pc,
            key: hart.compiled.jump_key,
            code: entry as u64,
            unused: 0,
        };
        hart.compiled.jump_cache = self.jump_cache.as_ptr() as u64;
        hart.compiled.ram = environment.memory.host_address() as u64;
        let budget = (until - environment.count).min(i64::MAX as u64 / 2) as i64;
        let end = environment.count + budget as u64;
        let routine = self.routines.enter;
        let mut frame = Frame::new(environment, self, blocks.drops(), end);
        let number = enter(routine, entry, &mut frame, budget);
        let remaining = frame.remaining();
        environment.count = end - remaining as u64;
        Exit::from_number(number)
    }

    /// Sets the keys of the hart for the mode that it is in now.
    pub(super) fn refresh_keys(&mut self, environment: &mut Environment, drops: u64) {
        if self.site_keys.refresh(environment.hart).is_err() {
            self.code.clear_sites();
        }
        self.jump_keys.refresh(environment.hart, drops);
    }

    /// An instruction by its number.
    pub(super) fn rare_op(&self, number: usize) -> DecodedOp {
        self.rare_ops[number]
    }

    /// Follows `blocks`, which has dropped everything.
    fn forget_code(&mut self, blocks: &BlockCache) {
        self.clears = blocks.clears();
        self.code.clear();
        self.rare_ops.clear();
    }

    #[cold]
    fn compile(
        &mut self,
        blocks: &mut BlockCache,
        environment: &mut Environment,
    ) -> Option<NonZeroU32> {
        if self.clears != blocks.clears() {
            self.forget_code(blocks);
            return None; // the next time
        }
        let start = environment.possible_fetch_offset(environment.hart.pc)?;
        let next_page = (environment.hart.pc | (PAGE_SIZE - 1)).wrapping_add(1);
        let next_page = environment.possible_fetch_offset(next_page);
        let piece = Piece::at(environment.memory, start, next_page, blocks.extensions());
        let end = piece.end().min(PAGE_SIZE as i32) as usize;
        environment.mark_code(start, piece.page_offset + end - start);
        let emitter = Emitter::new(&piece, &mut self.code, &self.routines, &mut self.rare_ops);
        let page_offset = piece.page_offset;
        let code = emitter.emit(|target| blocks.lookup(page_offset + target as usize)?.code);
        assert!(code.len() <= LARGEST_PIECE, "a piece is short");
        let added = self.code.add(&code);
        blocks.set_code(start, added);
        added
    }
}

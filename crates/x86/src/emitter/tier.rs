//! When to interpret, when to compile, and what to do when compiled code gives up.

use super::call_back::{Frame, enter};
use super::jumps::Jumps;
use super::paranoid::Paranoid;
use super::piece::{Piece, crosses, overwrites_flags};
use super::x86_64::{
    BareLink, Code, Compiled, Emitter, HEAD_BYTES, Neighbours, Routines, host_is_capable,
};
use crate::bus::Bus;
use crate::cpu::Cpu;
use crate::interpreter::cache::Cache;
use crate::interpreter::core::Core;
use crate::interpreter::exception::TripleFault;
use crate::interpreter::op::Op;
use crate::interpreter::{self, Crossing, Interpreter, Next};
use crate::ram::{PAGE_SIZE, Ram};
use jit::chaos::Chaos;
use jit::code_cache::{CodeCache, LARGEST_PIECE};
use std::collections::BTreeMap;
use std::num::NonZeroU32;

/// Pages whose instructions that go on in the next are counted apart.
const CROSSINGS: usize = 256;
/// Executions after which a block is compiled.
const HOT: u32 = 16;

/// So many instructions are kept for the interpreter: some 60 MiB.
const MOST_OPS: usize = 1 << 20;

/// Why compiled code came back. RIP is that of the next instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Nothing is known of the code there, or something has to be looked at.
    Next,
    /// The piece there is longer than what is left.
    Budget,
    /// The code there, in the same page, could be reached by this link.
    Link(usize),
    /// The code there that looks at each access could be reached by this link.
    Ungrouped(usize),
}

impl Exit {
    /// As compiled code gives it.
    pub fn number(self) -> i32 {
        match self {
            Exit::Next => 0,
            Exit::Budget => 1,
            Exit::Link(link) => (link as i32) << 2 | 2,
            Exit::Ungrouped(link) => (link as i32) << 2 | 3,
        }
    }

    fn from_number(number: u64) -> Exit {
        match number & 3 {
            0 => Exit::Next,
            1 => Exit::Budget,
            2 => Exit::Link((number as u32 >> 2) as usize),
            _ => Exit::Ungrouped((number as u32 >> 2) as usize),
        }
    }
}

/// The compiler and what it has compiled.
pub struct Jit {
    code: CodeCache,
    routines: Routines,
    /// The instructions of all pieces, for the interpreter.
    ops: Vec<Op>,
    /// Jumps without flags, by the links that lead there with flags.
    bare_links: BTreeMap<usize, BareLink>,
    /// The physical pages that links are in: from which number on, and its address.
    pages_of_links: Vec<(usize, u64)>,
    pub(super) jumps: Jumps,
    hot: u32,
    chaos: Option<Chaos>,
    /// The next block is longer than what is left: it is interpreted.
    interprets_next: bool,
    /// How often all code was dropped.
    clears: u64,
    /// Watches, if the engine is [`Engine::Paranoid`](machine::engine::Engine::Paranoid).
    paranoid: Option<Box<Paranoid>>,
    /// How often instructions that go on in the next page were executed, by their pages.
    crossings: [u32; CROSSINGS],
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
            ops: Vec::new(),
            bare_links: BTreeMap::new(),
            pages_of_links: Vec::new(),
            jumps: Jumps::new(),
            hot: HOT,
            chaos: None,
            interprets_next: false,
            clears: 0,
            paranoid: None,
            crossings: [0; CROSSINGS],
        })
    }

    /// Disturbs what the guest must not notice, as a seed says.
    pub fn set_chaos(&mut self, seed: Option<u64>) {
        self.chaos = seed.map(Chaos::new);
        self.hot = self.chaos.as_mut().map_or(HOT, Chaos::threshold);
    }

    /// Lets the interpreter watch what compiled code does, or not.
    pub fn set_paranoid(&mut self, is_watched: bool) {
        self.paranoid = is_watched.then(|| Box::new(Paranoid::new()));
    }

    #[cfg(test)]
    pub(super) fn paranoid_mut(&mut self) -> Option<&mut Paranoid> {
        self.paranoid.as_deref_mut()
    }

    /// Forgets all code: nobody remembers any of it.
    pub fn forget(&mut self) {
        self.clears += 1;
        self.code.clear();
        self.ops.clear();
        self.bare_links.clear();
        self.pages_of_links.clear();
        self.jumps.clear();
        self.interprets_next = false;
    }

    /// An instruction by its number.
    pub(super) fn op(&self, number: usize) -> &Op {
        &self.ops[number]
    }

    /// As [`Interpreter::run`].
    pub fn run(
        &mut self,
        interpreter: &mut Interpreter,
        cpu: &mut Cpu,
        ram: &mut Ram,
        bus: &mut dyn Bus,
        now: &mut u64,
        until: u64,
    ) -> interpreter::Exit {
        let mut core = Core::enter(cpu, ram, bus, &mut interpreter.tlb, *now, until);
        let exit = self.run_core(&mut interpreter.cache, &mut core);
        *now = core.now;
        core.leave();
        exit
    }

    fn run_core(&mut self, cache: &mut Cache, core: &mut Core<'_>) -> interpreter::Exit {
        let until = core.until;
        loop {
            if let Some(mut chaos) = self.chaos.take() {
                self.disturb(&mut chaos, cache, core);
                core.until = until.min(core.now + chaos.quantum());
                self.chaos = Some(chaos);
            }
            if let Some(exit) = cache.before_next(core) {
                return exit;
            }
            let executed = match self.paranoid.take() {
                None => self.execute_next(cache, core),
                Some(paranoid) => self.execute_watched(cache, core, paranoid),
            };
            if executed.is_err() {
                return interpreter::Exit::TripleFault;
            }
        }
    }

    /// As [`Jit::execute_next`], rehearsed and compared.
    fn execute_watched(
        &mut self,
        cache: &mut Cache,
        core: &mut Core<'_>,
        mut paranoid: Box<Paranoid>,
    ) -> Result<(), TripleFault> {
        let rehearsed = paranoid.rehearse(core);
        let executed = if rehearsed == core.now {
            // The interpreter's alone.
            let until = std::mem::replace(&mut core.until, core.now + 1);
            self.interprets_next = true;
            let executed = self.execute_next(cache, core);
            core.until = until;
            executed
        } else {
            let until = std::mem::replace(&mut core.until, rehearsed);
            let executed = self.execute_next(cache, core);
            core.until = until;
            if executed.is_ok() {
                paranoid.compare(core);
            }
            executed
        };
        self.paranoid = Some(paranoid);
        executed
    }

    fn execute_next(&mut self, cache: &mut Cache, core: &mut Core<'_>) -> Result<(), TripleFault> {
        // 32-bit code is not compiled.
        let is_interpreted = core.goes_one_by_one()
            || core.is_compatibility
            || std::mem::take(&mut self.interprets_next);
        if !is_interpreted {
            self.jumps.refresh(core.tlb.fetches());
            if let Some(code) = self.jumps.find(core.is_user, core.rip()) {
                return self.enter(cache, core, code);
            }
        }
        match cache.find_next(core)? {
            Next::Block(number) if is_interpreted => cache.execute(core, number),
            Next::Block(number) => self.run_block(cache, core, number),
            Next::Crossing(crossing) if is_interpreted => crossing.execute(core),
            Next::Crossing(crossing) => self.run_crossing(cache, core, *crossing),
            Next::Again => Ok(()),
        }
    }

    #[cold]
    fn disturb(&mut self, chaos: &mut Chaos, cache: &mut Cache, core: &mut Core<'_>) {
        if chaos.once_in(200) {
            core.flush_translations();
        }
        if chaos.once_in(100) {
            self.jumps.clear();
        }
        if chaos.once_in(300) {
            core.tlb.drop_writes();
        }
        if chaos.once_in(1000) {
            cache.clear();
            core.ram.forget_code();
            core.tlb.drop_fetches();
        }
        if chaos.once_in(50) {
            self.hot = chaos.threshold();
        }
    }

    fn run_block(
        &mut self,
        cache: &mut Cache,
        core: &mut Core<'_>,
        number: u32,
    ) -> Result<(), TripleFault> {
        let block = cache.block_mut(number);
        let mut code = NonZeroU32::new(block.code);
        if code.is_none() {
            if block.heat < self.hot {
                block.heat += 1;
                return cache.execute(core, number);
            }
            code = self.compile(cache, core, number, true);
        }
        let Some(code) = code else {
            return cache.execute(core, number);
        };
        let code = self.address(code);
        self.jumps.add(core.is_user, core.rip(), code);
        self.enter(cache, core, code)
    }

    /// An instruction that goes on in the next page. Its code is found by its linear address only: as
    /// long as that is remembered both pages are where they were, and hold what they held.
    #[cold]
    fn run_crossing(
        &mut self,
        cache: &mut Cache,
        core: &mut Core<'_>,
        crossing: Crossing,
    ) -> Result<(), TripleFault> {
        let heat = &mut self.crossings[(core.rip() >> 12) as usize % CROSSINGS];
        *heat += 1;
        let may_break = core.ram.traps.may_break_at(crossing.physical as usize);
        if *heat < self.hot || may_break || !core.ram.contains(crossing.second, 16) {
            return crossing.execute(core);
        }
        let (physical, second) = (crossing.physical, crossing.second);
        let piece = Piece::crossing(crossing, self.is_sited(core));
        let in_first = (PAGE_SIZE - physical % PAGE_SIZE) as usize;
        if core.ram.mark_code(physical, in_first) {
            core.tlb.drop_writes_to(physical);
        }
        if core.ram.mark_code(second, piece.end - PAGE_SIZE as usize) {
            core.tlb.drop_writes_to(second);
        }
        self.make_room(cache);
        let page = physical & !(PAGE_SIZE - 1);
        let Some(compiled) = self.emit(cache, core.ram, piece, page) else {
            return Ok(()); // executed the next time
        };
        let code = self.address(compiled.code);
        self.jumps.add(core.is_user, core.rip(), code);
        self.enter(cache, core, code)
    }

    /// Lets a link lead to the code at RIP, if there is some: it is in the link's page.
    fn link(&mut self, cache: &Cache, rip: u64, link: usize) {
        let before = self
            .pages_of_links
            .partition_point(|&(first, _)| first <= link);
        let (_, page) = self.pages_of_links[before - 1];
        let found = cache.find(page + rip % PAGE_SIZE);
        let Some(compiled) = found.and_then(|number| compiled(cache, number)) else {
            return;
        };
        match self.bare_links.get(&link) {
            Some(bare) if compiled.bare != 0 => {
                let length = compiled.bare as i8;
                let count = length - bare.rest;
                self.code.patch_byte(bare.counted, count as u8);
                self.code.patch_byte(bare.given_back, length as u8);
                let body = compiled.code.saturating_add(HEAD_BYTES);
                self.code.patch(bare.link, body);
            }
            _ => self.code.patch(link, compiled.code),
        }
    }

    /// Goes on with code that looks at each access to memory, and lets a link lead to it.
    fn go_on_ungrouped(
        &mut self,
        cache: &mut Cache,
        core: &mut Core<'_>,
        link: usize,
    ) -> Result<(), TripleFault> {
        if core.now >= core.until {
            return Ok(());
        }
        let Next::Block(number) = cache.find_next(core)? else {
            return Ok(()); // a fault was delivered
        };
        let mut code = NonZeroU32::new(cache.block(number).ungrouped);
        if code.is_none() {
            let clears = self.clears;
            code = self.compile(cache, core, number, false);
            if self.clears != clears {
                return Ok(()); // the link is gone
            }
        }
        let Some(code) = code else {
            return Ok(());
        };
        self.code.patch(link, code);
        let code = self.address(code);
        self.enter(cache, core, code)
    }

    fn address(&self, code: NonZeroU32) -> u64 {
        (self.code.base() + code.get() as usize) as u64
    }

    /// Runs compiled code until it gives up.
    fn enter(
        &mut self,
        cache: &mut Cache,
        core: &mut Core<'_>,
        code: u64,
    ) -> Result<(), TripleFault> {
        self.jumps.refresh(core.tlb.fetches());
        let routine = self.routines.enter;
        let mut frame = Frame::new(core, self);
        let number = enter(routine, code as usize, &mut frame)?;
        match Exit::from_number(number) {
            Exit::Next => {}
            Exit::Budget => self.interprets_next = true,
            Exit::Link(link) => self.link(cache, core.rip(), link),
            Exit::Ungrouped(link) => return self.go_on_ungrouped(cache, core, link),
        }
        Ok(())
    }

    /// Drops all code if another piece may not fit.
    fn make_room(&mut self, cache: &mut Cache) {
        let is_full = self.code.is_full() || self.ops.len() > MOST_OPS;
        if is_full || self.chaos.as_mut().is_some_and(Chaos::fills_code_cache) {
            cache.forget_compiled();
            self.forget();
        }
    }

    #[cold]
    fn compile(
        &mut self,
        cache: &mut Cache,
        core: &mut Core<'_>,
        number: u32,
        is_grouped: bool,
    ) -> Option<NonZeroU32> {
        self.make_room(cache);
        let physical = cache.block(number).physical;
        // Where the guest may access 16 aligned bytes, the host may.
        assert!(core.ram.host_base().is_multiple_of(16), "RAM is aligned");
        let is_sited = self.is_sited(core);
        let piece = Piece::at(core.ram, physical, is_grouped, is_sited)?;
        if core.ram.mark_code(physical, piece.end - piece.start) {
            core.tlb.drop_writes_to(physical);
        }
        let added = self.emit(cache, core.ram, piece, physical & !(PAGE_SIZE - 1))?;
        let block = cache.block_mut(number);
        if is_grouped {
            (block.code, block.bare) = (added.code.get(), added.bare);
        } else {
            block.ungrouped = added.code.get();
        }
        Some(added.code)
    }

    /// Whether accesses have sites by the bases of their addresses. A kernel's would be forgotten more often than they
    /// are asked; but what chaos disturbs, in tests, are kernels.
    fn is_sited(&mut self, core: &Core<'_>) -> bool {
        core.is_user || self.chaos.as_mut().is_some_and(|chaos| chaos.once_in(2))
    }

    /// Compiles a piece that begins in this page.
    fn emit(&mut self, cache: &Cache, ram: &Ram, mut piece: Piece, page: u64) -> Option<Compiled> {
        let neighbours = Neighbours {
            compiled: &|target| compiled(cache, cache.find(page + target as u64)?),
            overwrites_flags: &|target| overwrites_flags(ram, page + target as u64),
            crosses: &|target| crosses(ram, page + target as u64),
        };
        self.pages_of_links.push((self.code.next_link(), page));
        let code = loop {
            let first = self.ops.len();
            let (code, routines) = (&mut self.code, &self.routines);
            let emitter = Emitter::new(&piece, code, routines, first, neighbours);
            match emitter.emit() {
                Ok(code) => break code,
                Err(unsupported) => piece.call_back(unsupported.0),
            }
        };
        let Code { bytes, bare_links } = code;
        assert!(bytes.len() <= LARGEST_PIECE, "a piece is short");
        let bare = match piece.overwrites_flags() {
            true => piece.steps.len() as u8,
            false => 0,
        };
        self.bare_links.extend(bare_links);
        self.ops.extend(piece.steps.into_iter().map(|step| step.op));
        let code = self.code.add(&bytes)?;
        Some(Compiled { code, bare })
    }
}

/// The compiled code of a block.
fn compiled(cache: &Cache, number: u32) -> Option<Compiled> {
    let block = cache.block(number);
    let code = NonZeroU32::new(block.code)?;
    Some(Compiled {
        code,
        bare: block.bare,
    })
}

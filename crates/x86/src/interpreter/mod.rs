//! The interpreter: the reference for what instructions do.
//!
//! Instructions are decoded once, into blocks within a page that are kept by physical address. A store
//! to decoded bytes drops the page's blocks before the next instruction.

mod alu;
mod bits;
pub(crate) mod cache;
mod compatibility;
mod control;
pub(crate) mod core;
mod data;
pub(crate) mod decode;
pub(crate) mod exception;
pub mod flags;
mod msr;
mod multiply;
pub(crate) mod op;
mod port;
mod segment;
mod shift;
mod string;
mod system;
pub(crate) mod vector;
mod width;

use self::cache::{Block, Cache};
use self::core::{Core, Raised};
use self::exception::TripleFault;
use self::flags::{IF, RF, STATUS, Status, TF};
use self::op::{Op, RIP};
use crate::bus::Bus;
use crate::cpu::{CS, Cpu, Registers, Shadow};
use crate::fault::{DEBUG, Fault, NONMASKABLE};
use crate::mmu::{Kind, Mode, Tlb};
use crate::ram::{Disturbance, PAGE_SIZE, Ram};

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The count is reached, or somebody wants to look ([`machine::debugging`]).
    Count,
    /// HLT, and no interrupt that could be taken: time has to pass.
    Halted,
    /// A device was touched, and the bus wants attention.
    Attention,
    /// The CPU waits for another one.
    Turn,
    /// The guest's exception handling failed: the machine resets.
    TripleFault,
}

/// At most so many instructions make a block.
const LONGEST_BLOCK: usize = 64;

/// Executes instructions. It keeps nothing that belongs to the machine's state.
pub struct Interpreter {
    pub(crate) tlb: Tlb,
    pub(crate) cache: Cache,
}

impl Default for Interpreter {
    fn default() -> Interpreter {
        Interpreter::new()
    }
}

impl Interpreter {
    /// With nothing decoded.
    pub fn new() -> Interpreter {
        Interpreter {
            tlb: Tlb::new(),
            cache: Cache::new(),
        }
    }

    /// Forgets everything: for when RAM or the CPU's state were replaced from outside.
    pub fn forget(&mut self, ram: &mut Ram) {
        *self = Interpreter::new();
        ram.forget_everything();
    }

    /// The CPU's state was replaced: nothing is known of where addresses lead.
    pub(crate) fn drop_translations(&mut self, ram: &mut Ram) {
        self.tlb.flush(ram);
    }

    /// Another CPU runs from here on: what is known of translations becomes its own.
    pub(crate) fn hand_over(&mut self, old: &Registers, new: &Registers, ram: &mut Ram) {
        self.tlb.hand_over(old, new, ram);
    }

    /// RAM was looked at for what changed, and has to hear of stores to any page again.
    pub(crate) fn forget_writable_pages(&mut self) {
        self.tlb.drop_writes();
    }

    /// Executes from count `now` until count `until` at the latest, and moves `now` along. A pending
    /// interrupt is taken before the next instruction wherever the CPU lets it; taking one counts
    /// nothing. An instruction that faults counts as one, so does each iteration of a repeated string
    /// instruction.
    pub fn run(
        &mut self,
        cpu: &mut Cpu,
        ram: &mut Ram,
        bus: &mut dyn Bus,
        now: &mut u64,
        until: u64,
    ) -> Exit {
        let mut core = Core::enter(cpu, ram, bus, &mut self.tlb, *now, until);
        let exit = self.cache.run(&mut core);
        *now = core.now;
        core.leave();
        exit
    }

    /// Executes one instruction, or one iteration of a repeated one, and delivers nothing: the fault that
    /// it raised is returned, RIP being that of the instruction. For tests and for comparing engines.
    pub fn step(
        &mut self,
        cpu: &mut Cpu,
        ram: &mut Ram,
        bus: &mut dyn Bus,
        now: u64,
    ) -> Result<(), Fault> {
        let mut core = Core::enter(cpu, ram, bus, &mut self.tlb, now, now + 1);
        if core.ram.is_disturbed() {
            self.cache.settle(&mut core);
        }
        let outcome = self.cache.step(&mut core);
        core.leave();
        outcome
    }
}

impl<'a> Core<'a> {
    pub(crate) fn enter(
        cpu: &'a mut Cpu,
        ram: &'a mut Ram,
        bus: &'a mut dyn Bus,
        tlb: &'a mut Tlb,
        now: u64,
        until: u64,
    ) -> Self {
        let registers = &mut cpu.registers;
        let mut r = [0; 32];
        r[..16].copy_from_slice(&registers.gpr);
        r[usize::from(RIP)] = registers.rip;
        let mut core = Core {
            r,
            status: Status::from_flags(registers.rflags),
            flags: registers.rflags & !STATUS,
            is_user: registers.segments[CS].selector & 3 == 3,
            is_compatibility: !registers.segments[CS].is_long_code(),
            registers,
            vector: Some(&mut cpu.vector),
            x87: Some(&mut cpu.x87),
            ram,
            bus,
            tlb,
            bank: 0,
            now,
            until,
            limit: 0,
            raised: Fault::GENERAL_PROTECTION,
            is_non_canonical: false,
            check_interrupts: true,
            touched_device: false,
            turn_is_over: false,
            has_shut_down: false,
            has_delivered: false,
        };
        core.mode_changed();
        core
    }

    pub(crate) fn leave(self) {
        self.registers.gpr.copy_from_slice(&self.r[..16]);
        self.registers.rip = self.r[usize::from(RIP)];
        self.registers.rflags = self.flags | self.status.to_flags();
    }

    /// Something has to be looked at after the next instruction.
    #[inline(always)]
    pub(crate) fn goes_one_by_one(&self) -> bool {
        self.flags & (TF | RF) != 0 || self.registers.shadow != Shadow::None
    }

    /// Whether an interrupt that cannot be masked would be taken now.
    pub(crate) fn takes_nonmaskable_interrupt(&self) -> bool {
        !self.registers.blocks_nonmaskable
            && self.registers.shadow == Shadow::None
            && self.bus.has_nonmaskable_interrupt()
    }

    /// The interrupt that would be taken now.
    fn deliverable_interrupt(&self) -> Option<u8> {
        if self.flags & IF != 0 && self.registers.shadow == Shadow::None {
            self.bus.pending_interrupt()
        } else {
            None
        }
    }

    /// Where the instruction at RIP is, physically.
    fn fetch_address(&mut self, address: u64) -> Result<u64, Raised> {
        let mode = if self.is_user {
            Mode::User
        } else {
            Mode::Supervisor
        };
        self.translate(address, Kind::Fetch, mode)
    }
}

impl Cache {
    fn run(&mut self, core: &mut Core<'_>) -> Exit {
        loop {
            if let Some(exit) = self.before_next(core) {
                return exit;
            }
            match self.find_next(core) {
                Ok(Next::Block(number)) => {
                    if self.execute(core, number).is_err() {
                        return Exit::TripleFault;
                    }
                }
                Ok(Next::Crossing(crossing)) => {
                    if crossing.execute(core).is_err() {
                        return Exit::TripleFault;
                    }
                }
                Ok(Next::Again) => {}
                Err(TripleFault) => return Exit::TripleFault,
            }
        }
    }

    /// Does what has to be done before the next instruction; an exit if the run ends before it.
    #[inline(always)]
    pub(crate) fn before_next(&mut self, core: &mut Core<'_>) -> Option<Exit> {
        if core.ram.is_disturbed() {
            self.settle(core);
        }
        if core.turn_is_over {
            return Some(Exit::Turn);
        }
        if core.touched_device {
            core.touched_device = false;
            core.check_interrupts = true;
            if core.bus.wants_attention() {
                return Some(Exit::Attention);
            }
        }
        if core.check_interrupts {
            match self.take_interrupt(core) {
                Ok(()) => {}
                Err(TripleFault) => return Some(Exit::TripleFault),
            }
            if core.registers.is_halted {
                return Some(Exit::Halted);
            }
        }
        let stops = core.now >= core.until || core.ram.traps.stop_before(core.rip());
        stops.then_some(Exit::Count)
    }

    fn take_interrupt(&mut self, core: &mut Core<'_>) -> Result<(), TripleFault> {
        // In a shadow the next look is after the next instruction.
        core.check_interrupts = core.registers.shadow != Shadow::None;
        if core.takes_nonmaskable_interrupt() {
            core.bus.acknowledge_nonmaskable_interrupt();
            core.registers.blocks_nonmaskable = true;
            core.deliver_interrupt(NONMASKABLE)?;
            // A trap gate leaves IF as it is: what can be masked may come before the handler begins.
        }
        if core.deliverable_interrupt().is_some() {
            let vector = core.bus.acknowledge_interrupt();
            core.registers.is_halted = false;
            core.deliver_interrupt(vector)?;
        }
        Ok(())
    }

    /// Acts on stores that concern what is cached.
    #[cold]
    fn settle(&mut self, core: &mut Core<'_>) {
        for disturbance in core.ram.take_disturbances() {
            match disturbance {
                Disturbance::Code(page) => {
                    self.drop_page(page as usize);
                    core.tlb.drop_fetches();
                }
                Disturbance::Leaf(leaf) => core.tlb.drop_leaf(leaf),
                Disturbance::LowerTranslations => core.tlb.flush_lower(core.ram),
                Disturbance::Translations => core.flush_translations(),
            }
        }
    }

    /// What is at RIP. If that cannot be fetched, its fault is delivered.
    #[inline(always)]
    pub(crate) fn find_next(&mut self, core: &mut Core<'_>) -> Result<Next, TripleFault> {
        let rip = core.rip();
        let key = Self::key(rip, core.is_user) ^ u64::from(core.is_compatibility) << 61;
        if let Some(number) = self.jump(key, core.tlb.fetch_generation(rip)) {
            return Ok(Next::Block(number));
        }
        match self.look_up(core, rip) {
            // An accessed bit that the walk has set can lie in what was decoded.
            Ok(_) if core.ram.is_disturbed() => Ok(Next::Again),
            Ok(Found::Block(number)) => {
                self.remember(key, core.tlb.fetch_generation(rip), number);
                Ok(Next::Block(number))
            }
            Ok(Found::Crossing(crossing)) => Ok(Next::Crossing(crossing)),
            Err(Raised) => {
                core.now += 1;
                let fault = core.raised;
                core.deliver_fault(fault).map(|()| Next::Again)
            }
        }
    }

    /// Executes a block, or as much of it as the run's end allows.
    #[inline(always)]
    pub(crate) fn execute(&self, core: &mut Core<'_>, number: u32) -> Result<(), TripleFault> {
        execute(core, &self.block(number).ops)
    }

    fn step(&mut self, core: &mut Core<'_>) -> Result<(), Fault> {
        let rip = core.rip();
        let found = self.look_up(core, rip).map_err(|Raised| core.raised)?;
        let op = match &found {
            Found::Block(number) => &self.block(*number).ops[0],
            Found::Crossing(crossing) => &crossing.decoded.op,
        };
        core.limit = 1;
        core.r[usize::from(RIP)] = rip.wrapping_add(u64::from(op.length));
        let executed = (op.handler)(core, op);
        if executed.is_ok() {
            return Ok(());
        }
        core.r[usize::from(RIP)] = rip;
        if core.is_non_canonical && Core::is_stack(op) {
            return Err(Fault::STACK);
        }
        Err(core.raised)
    }

    /// Finds or decodes what is at RIP.
    #[inline(never)]
    fn look_up(&mut self, core: &mut Core<'_>, rip: u64) -> Result<Found, Raised> {
        let physical = core.fetch_address(rip)?;
        let is_compatibility = core.is_compatibility;
        let known = if is_compatibility {
            self.find_compatibility(physical)
        } else {
            self.find(physical)
        };
        if let Some(number) = known {
            return Ok(Found::Block(number));
        }
        let decode = decode::of_mode(is_compatibility);
        if self.is_full() {
            self.clear();
            core.ram.forget_code();
            core.tlb.drop_fetches();
        }
        let offset = (physical % PAGE_SIZE) as usize;
        let length = PAGE_SIZE - offset as u64;
        let Some(bytes) = core.ram.slice(physical, length) else {
            // Nothing but RAM can be executed.
            return Err(core.raise(Fault::INVALID_OPCODE));
        };
        let mut ops = Vec::new();
        let mut at = 0;
        while at < bytes.len() && ops.len() < LONGEST_BLOCK {
            if at > 0 && core.ram.traps.may_break_at(offset + at) {
                break;
            }
            let Some(decoded) = decode(&bytes[at..], offset + at) else {
                break;
            };
            at += usize::from(decoded.op.length);
            ops.push(decoded.op);
            if decoded.ends_block {
                break;
            }
        }
        if ops.is_empty() {
            return Self::decode_crossing(core, rip, physical);
        }
        let block = Block {
            ops: ops.into_boxed_slice(),
            #[cfg(jit)]
            physical,
            #[cfg(jit)]
            heat: 0,
            #[cfg(jit)]
            code: 0,
            #[cfg(jit)]
            ungrouped: 0,
            #[cfg(jit)]
            bare: 0,
        };
        if core.ram.mark_code(physical, at) {
            core.tlb.drop_writes_to(physical);
        }
        let number = self.insert(physical, is_compatibility, block);
        Ok(Found::Block(number))
    }

    /// Decodes an instruction that goes on in the next page. Such ones are not kept.
    fn decode_crossing(core: &mut Core<'_>, rip: u64, physical: u64) -> Result<Found, Raised> {
        let offset = (physical % PAGE_SIZE) as usize;
        let first = PAGE_SIZE as usize - offset;
        let second = core.fetch_address(rip.wrapping_add(first as u64))?;
        let mut bytes = [0; 15];
        for (index, byte) in bytes.iter_mut().enumerate() {
            let at = if index < first {
                physical + index as u64
            } else {
                second + (index - first) as u64
            };
            *byte = match core.ram.slice(at, 1) {
                Some(found) => found[0],
                None => 0xff,
            };
        }
        match decode::of_mode(core.is_compatibility)(&bytes, offset) {
            Some(decoded) => Ok(Found::Crossing(Box::new(Crossing {
                decoded,
                #[cfg(jit)]
                physical,
                #[cfg(jit)]
                second,
            }))),
            None => Err(core.general_protection()),
        }
    }
}

/// What is at RIP.
enum Found {
    Block(u32),
    Crossing(Box<Crossing>),
}

/// What comes next.
pub(crate) enum Next {
    /// A block.
    Block(u32),
    /// An instruction that goes on in the next page.
    Crossing(Box<Crossing>),
    /// That has to be looked for again: a fault was delivered, or code was written.
    Again,
}

/// An instruction that goes on in the next page.
pub(crate) struct Crossing {
    pub decoded: decode::Decoded,
    /// Where it begins.
    #[cfg(jit)]
    pub physical: u64,
    /// Where the next page is.
    #[cfg(jit)]
    pub second: u64,
}

impl Crossing {
    /// Executes it.
    pub(crate) fn execute(&self, core: &mut Core<'_>) -> Result<(), TripleFault> {
        execute(core, std::slice::from_ref(&self.decoded.op))
    }
}

/// Executes the instruction at RIP, or one iteration of it, with nothing remembered from before; delivers its
/// fault.
#[cfg(jit)]
pub(crate) fn execute_alone(core: &mut Core<'_>) -> Result<(), TripleFault> {
    match decode_alone(core) {
        Ok(op) => execute(core, std::slice::from_ref(&op)),
        Err(Raised) => {
            core.now += 1;
            let fault = core.raised;
            core.deliver_fault(fault)
        }
    }
}

#[cfg(jit)]
fn decode_alone(core: &mut Core<'_>) -> Result<Op, Raised> {
    let rip = core.rip();
    let physical = core.fetch_address(rip)?;
    let offset = (physical % PAGE_SIZE) as usize;
    let Some(bytes) = core.ram.slice(physical, PAGE_SIZE - offset as u64) else {
        return Err(core.raise(Fault::INVALID_OPCODE));
    };
    if let Some(decoded) = decode::of_mode(core.is_compatibility)(bytes, offset) {
        return Ok(decoded.op);
    }
    match Cache::decode_crossing(core, rip, physical)? {
        Found::Crossing(crossing) => Ok(crossing.decoded.op),
        Found::Block(_) => unreachable!("an instruction across pages is in no block"),
    }
}

/// Executes the instructions of a block, from its start.
#[inline(always)]
fn execute(core: &mut Core<'_>, ops: &[Op]) -> Result<(), TripleFault> {
    if core.goes_one_by_one() {
        return execute_one(core, &ops[0]);
    }
    execute_block(core, ops)
}

#[inline(always)]
fn execute_block(core: &mut Core<'_>, ops: &[Op]) -> Result<(), TripleFault> {
    let page = core.rip() & !(PAGE_SIZE - 1);
    let start = core.now;
    let allowed = core.until - start;
    core.limit = ops
        .len()
        .min(usize::try_from(allowed).unwrap_or(usize::MAX));
    let mut index = 0;
    while index < core.limit {
        let op = &ops[index];
        core.r[usize::from(RIP)] = page.wrapping_add(u64::from(op.next));
        core.now = start + index as u64;
        if (op.handler)(core, op).is_err() {
            return fault(core, op, page);
        }
        index += 1;
    }
    core.now += 1;
    Ok(())
}

/// The instruction raised an exception.
#[cold]
#[inline(never)]
pub(crate) fn fault(core: &mut Core<'_>, op: &Op, page: u64) -> Result<(), TripleFault> {
    core.now += 1;
    let start = u64::from(op.next).wrapping_sub(u64::from(op.length));
    core.r[usize::from(RIP)] = page.wrapping_add(start);
    let mut fault = core.raised;
    if core.is_non_canonical && Core::is_stack(op) {
        fault = Fault::STACK;
    }
    core.is_non_canonical = false;
    core.deliver_fault(fault)
}

/// Executes one instruction where something has to be looked at after it: single step, an interrupt
/// shadow, RF.
#[cold]
#[inline(never)]
fn execute_one(core: &mut Core<'_>, op: &Op) -> Result<(), TripleFault> {
    let page = core.rip() & !(PAGE_SIZE - 1);
    let steps = core.flags & TF != 0;
    core.flags &= !RF;
    core.registers.shadow = Shadow::None;
    core.check_interrupts = true;
    core.has_delivered = false;
    let until = std::mem::replace(&mut core.until, core.now + 1);
    core.limit = 1;
    core.r[usize::from(RIP)] = page.wrapping_add(u64::from(op.next));
    let executed = (op.handler)(core, op);
    core.until = until;
    if executed.is_err() {
        return fault(core, op, page);
    }
    core.now += 1;
    if steps && !core.has_delivered && core.registers.shadow != Shadow::StackSegment {
        core.registers.dr6 |= 1 << 14; // BS
        return core.deliver_fault(Fault::plain(DEBUG));
    }
    Ok(())
}

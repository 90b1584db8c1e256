//! The way into compiled code, and what compiled code calls.
#![allow(unsafe_code)] // compiled code is entered, and knows its world by address

use super::groups::MOST;
use super::piece::SITES;
use super::tier::Jit;
use crate::cpu::Shadow;
use crate::interpreter::core::Core;
use crate::interpreter::exception::TripleFault;
use crate::interpreter::fault;
use crate::interpreter::flags::{AF, CF, IF, OF, PF, RF, SF, Status, TF, ZF};
use crate::interpreter::op::RIP;
use crate::mmu::{Bank, Mode};
use crate::simd::VectorState;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// What compiled code has at hand: a copy lies at the top of its stack while it runs.
#[repr(C, align(16))]
pub struct Frame<'a, 'b> {
    pub(super) core: *mut Core<'b>,
    pub(super) jit: *mut Jit,
    /// Linear address of the page that executes.
    pub(super) page: u64,
    /// The table of jumps of the present privilege.
    pub(super) jumps: u64,
    /// The guest registers that have no host register.
    pub(super) spilled: [u64; 5],
    /// Instructions left; in a register while compiled code runs.
    pub(super) remaining: i64,
    /// The count at which nothing is left.
    pub(super) end: u64,
    /// Bases of FS and GS.
    pub(super) segment_bases: [u64; 2],
    /// The status flags: OF in bit 0, what LAHF gives in bits 8 to 15.
    pub(super) flags: u64,
    /// The TLB's bank of data accesses; in a register while compiled code runs.
    pub(super) bank: *const Bank,
    /// Those of supervisors: without and with AC.
    pub(super) kernel_banks: [*const Bank; 2],
    /// CR4.SMAP.
    pub(super) prevents_access: u64,
    /// An interrupt waits that STI would let in.
    pub(super) interrupt_waits: u64,
    /// Where a call goes, while its stack is looked at.
    pub(super) target: [u64; 2],
    /// Of each group of accesses, what is to be added to a linear address.
    pub(super) addends: [u64; MOST],
    /// What a routine keeps for itself.
    pub(super) kept: u64,
    /// SSE instructions may be executed, and raise nothing.
    pub(super) allows_vectors: u64,
    /// The XMM registers and MXCSR are in the host's.
    pub(super) has_vectors: u64,
    /// The vector unit's state.
    pub(super) vectors: *mut VectorState,
    /// The MXCSR that all other code runs with.
    pub(super) host_mxcsr: u64,
    /// The CPU shuts down.
    pub(super) is_triple_fault: u64,
    /// The TLB's generation that the sites belong to.
    generation: u64,
    /// Of each site, how many addresses from the begin of its page it answers: none, if it knows none.
    pub(super) site_limits: [u64; SITES],
    /// Of each site, the page that it saw last, and what is to be added to a linear address there. The way in does
    /// not copy them.
    pub(super) sites: MaybeUninit<[[u64; 2]; SITES]>,
    /// What was shifted last, if flags can be computed again from it.
    pub(super) shifted: u64,
    lifetime: PhantomData<&'a mut ()>,
}

/// By the numbers of their banks.
const SUPERVISORS: [Mode; 2] = [Mode::Supervisor, Mode::SupervisorReachingUser];
const CR0_EM_TS: u64 = 1 << 2 | 1 << 3;
const CR4_OSFXSR: u64 = 1 << 9;
const CR4_SMAP: u64 = 1 << 21;
/// All exceptions are masked.
const MXCSR_MASKS: u32 = 0x1f80;
const MXCSR_DEFAULT: u64 = 0x1f80;

fn pack(status: Status) -> u64 {
    let flags = status.to_flags();
    (flags & (SF | ZF | AF | PF | CF)) << 8 | (flags & OF) >> 11
}

fn unpack(flags: u64) -> Status {
    Status::from_flags(flags >> 8 & (SF | ZF | AF | PF | CF) | (flags & 1) << 11)
}

impl<'a, 'b> Frame<'a, 'b> {
    /// A frame for one entry.
    #[inline(always)]
    pub fn new(core: &'a mut Core<'b>, jit: &'a mut Jit) -> Frame<'a, 'b> {
        let mut frame = Frame {
            page: core.rip() & !0xfff,
            jumps: jit.jumps.address(core.is_user),
            spilled: [0; 5],
            remaining: core.until.wrapping_sub(core.now).min(i64::MAX as u64 / 2) as i64,
            end: 0,
            segment_bases: [0; 2],
            flags: 0,
            bank: std::ptr::null(),
            kernel_banks: SUPERVISORS.map(|mode| core.tlb.bank(core.tlb.bank_of(mode))),
            prevents_access: 0,
            // Where interrupts are let in, what waited was taken before.
            interrupt_waits: u64::from(
                core.flags & IF == 0 && core.bus.pending_interrupt().is_some(),
            ),
            target: [0; 2],
            addends: [0; MOST],
            kept: 0,
            allows_vectors: 0,
            has_vectors: 0,
            vectors: std::ptr::null_mut(),
            host_mxcsr: MXCSR_DEFAULT,
            is_triple_fault: 0,
            generation: 0,
            site_limits: [0; SITES],
            sites: MaybeUninit::uninit(), // no limit lets anybody ask them
            shifted: 0,
            core,
            jit,
            lifetime: PhantomData,
        };
        // SAFETY: the pointer was made from a reference just now.
        let core = unsafe { &mut *frame.core };
        frame.end = core.now + frame.remaining as u64;
        if let Some(vectors) = core.vector.as_deref_mut() {
            frame.vectors = vectors;
        }
        frame.refresh(core);
        frame
    }

    /// The code at RIP, which is not that of the piece that executes, if it is known.
    fn find_next(&mut self, core: &mut Core<'_>, jit: &mut Jit) -> Option<u64> {
        if self.remaining <= 0 || core.is_compatibility || !self.needs_no_look(core, false) {
            return None; // 32-bit code is not compiled
        }
        jit.jumps.refresh(core.tlb.fetches());
        let code = jit.jumps.find(core.is_user, core.rip())?;
        self.page = core.rip() & !0xfff;
        self.jumps = jit.jumps.address(core.is_user);
        Some(code)
    }

    /// Whether nothing has to be looked at before the next instruction, which the interpreter's loop would look
    /// at. If instructions follow that are executed in any case, a shadow ends with the first.
    fn needs_no_look(&mut self, core: &mut Core<'_>, is_followed: bool) -> bool {
        let registers = &core.registers;
        let has_shadow = registers.shadow != Shadow::None;
        if core.ram.is_disturbed()
            || core.touched_device
            || core.turn_is_over
            || core.ram.traps.is_hit()
            || registers.is_halted
            || core.flags & (TF | RF) != 0
            || has_shadow && !is_followed
        {
            return false;
        }
        if core.check_interrupts || has_shadow {
            // Nothing that the next instruction leaves to compiled code makes an interrupt pending.
            let waits = core.bus.pending_interrupt().is_some();
            if waits && core.flags & IF != 0 {
                return false;
            }
            if !core.registers.blocks_nonmaskable && core.bus.has_nonmaskable_interrupt() {
                return false;
            }
            core.registers.shadow = Shadow::None;
            core.check_interrupts = false;
            self.interrupt_waits = waits.into();
        }
        true
    }

    /// What may have changed by an instruction that the interpreter executed.
    fn refresh(&mut self, core: &Core<'_>) {
        let segments = &core.registers.segments;
        self.segment_bases = [segments[4].base, segments[5].base];
        let (bank, generation) = (core.tlb.bank(core.bank), core.tlb.data_generation());
        if (self.bank, self.generation) != (bank, generation) {
            self.site_limits = [0; SITES];
            (self.bank, self.generation) = (bank, generation);
        }
        self.flags = pack(core.status);
        let registers = &core.registers;
        let mxcsr = core.vector.as_deref().map_or(0, |vectors| vectors.mxcsr);
        let is_allowed = registers.cr0 & CR0_EM_TS == 0
            && registers.cr4 & CR4_OSFXSR != 0
            && mxcsr & MXCSR_MASKS == MXCSR_MASKS;
        self.allows_vectors = is_allowed.into();
        self.prevents_access = u64::from(registers.cr4 & CR4_SMAP != 0);
    }
}

/// Enters compiled code at `entry` through the routine at `routine`; gives the number of the exit.
pub fn enter(routine: usize, entry: usize, frame: &mut Frame) -> Result<u64, TripleFault> {
    // SAFETY: `routine` was emitted by `Routines::emit` with this signature, `entry` is a piece in
    // the same cache. Both use the frame's core and JIT by the pointers in it only, which are valid
    // and not used otherwise until this call returns.
    let number = unsafe {
        let routine: extern "sysv64" fn(*mut Frame, usize) -> u64 = std::mem::transmute(routine);
        routine(frame, entry)
    };
    // SAFETY: compiled code does not run any more.
    let core = unsafe { &mut *frame.core };
    core.status = unpack(frame.flags);
    core.now = frame.end - frame.remaining as u64;
    if frame.is_triple_fault != 0 {
        return Err(TripleFault);
    }
    Ok(number)
}

/// The piece goes on behind the instruction.
pub const GO_ON: u64 = 0;
/// Compiled code has to be left.
pub const LEAVE: u64 = 1;

/// Executes an instruction for compiled code, which has stored all registers; `to_end` instructions
/// of its piece are left, with this one. Gives [`GO_ON`], [`LEAVE`], or the address of the code that is next.
///
/// # Safety
/// `frame` is the frame that compiled code runs with, and nothing else uses what it points to.
pub unsafe extern "sysv64" fn execute(frame: *mut Frame, number: u64, to_end: u32) -> u64 {
    // SAFETY: as the caller promises.
    let (frame, core, jit) = unsafe { (&mut *frame, &mut *(*frame).core, &mut *(*frame).jit) };
    let remaining = frame.remaining + i64::from(to_end);
    let op = jit.op(number as usize);
    core.status = unpack(frame.flags);
    core.now = frame.end - remaining as u64;
    core.limit = 1;
    let next = frame.page.wrapping_add(u64::from(op.next));
    core.r[usize::from(RIP)] = next;
    let fetches = core.tlb.fetches();
    let goes_on = if (op.handler)(core, op).is_ok() {
        core.now += 1;
        core.limit != 0 && core.rip() == next && fetches == core.tlb.fetches()
    } else {
        let page = frame.page;
        if fault(core, op, page).is_err() {
            frame.is_triple_fault = 1;
            return LEAVE;
        }
        false
    };
    frame.remaining = (frame.end - core.now) as i64;
    let rest = i64::from(to_end) - 1;
    if goes_on && frame.remaining >= rest && frame.needs_no_look(core, rest != 0) {
        frame.remaining -= rest;
        frame.refresh(core);
        return GO_ON;
    }
    let next = frame.find_next(core, jit).unwrap_or(LEAVE);
    frame.refresh(core);
    next
}

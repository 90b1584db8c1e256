//! Where things are: guest registers in host registers, and the hart's fields relative to `rbp`.

use crate::hart::csr::Csrs;
use crate::hart::{CompiledWords, Hart};
use crate::mmu::tlb::Tlb;
use std::mem::offset_of;

/// Number of a host register, as in its encoding.
pub type HostRegister = u8;

/// `rax`: an address, or a value on its way.
pub const RAX: HostRegister = 0;
/// `rcx`: scratch.
pub const RCX: HostRegister = 1;
/// `rdx`: scratch.
pub const RDX: HostRegister = 2;

/// The guest registers that have a host register: 78% of the operands in libc, 80% in the kernel.
pub const PINNED: [(u8, HostRegister); 10] = [
    (1, 3),   // ra: rbx
    (2, 6),   // sp: rsi
    (8, 7),   // s0: rdi
    (9, 8),   // s1: r8
    (10, 9),  // a0: r9
    (11, 10), // a1: r10
    (12, 11), // a2: r11
    (13, 12), // a3: r12
    (14, 13), // a4: r13
    (15, 14), // a5: r14
];

/// `rbp` points so far into the hart that one byte reaches all integer registers.
pub const BIAS: usize = offset_of!(Hart, x) + 128;

const fn relative(offset: usize) -> i32 {
    offset as i32 - BIAS as i32
}

/// Integer register `index` (0 to 31).
pub const fn x(index: u8) -> i8 {
    let displacement = relative(offset_of!(Hart, x) + 8 * index as usize);
    assert!(displacement >= i8::MIN as i32 && displacement <= i8::MAX as i32);
    displacement as i8
}

/// Floating-point register `index`.
pub const fn f(index: u8) -> i32 {
    relative(offset_of!(Hart, f) + 8 * index as usize)
}

/// `hart.pc`.
pub const PC: i32 = relative(offset_of!(Hart, pc));
/// `mstatus`.
pub const STATUS: i32 = relative(offset_of!(Hart, csr) + offset_of!(Csrs, status));
/// `fflags`, one byte.
pub const FFLAGS: i32 = relative(offset_of!(Hart, csr) + offset_of!(Csrs, fflags));
/// `frm`, one byte.
pub const FRM: i32 = relative(offset_of!(Hart, csr) + offset_of!(Csrs, frm));
/// `hart.privilege`, one byte.
pub const PRIVILEGE: i32 = relative(offset_of!(Hart, privilege));
/// `hart.reservation`.
pub const RESERVATION: i32 = relative(offset_of!(Hart, reservation));
/// `mie`.
pub const MIE: i32 = relative(offset_of!(Hart, csr) + offset_of!(Csrs, mie));
/// `sscratch`.
pub const SSCRATCH: i32 = relative(offset_of!(Hart, csr) + offset_of!(Csrs, sscratch));
/// `sepc`.
pub const SEPC: i32 = relative(offset_of!(Hart, csr) + offset_of!(Csrs, sepc));
/// `scause`.
pub const SCAUSE: i32 = relative(offset_of!(Hart, csr) + offset_of!(Csrs, scause));
/// `stval`.
pub const STVAL: i32 = relative(offset_of!(Hart, csr) + offset_of!(Csrs, stval));
const WORDS: usize = offset_of!(Hart, compiled);
/// [`CompiledWords::page`].
pub const PAGE: i32 = relative(WORDS + offset_of!(CompiledWords, page));
/// [`CompiledWords::site_key`].
pub const SITE_KEY: i32 = relative(WORDS + offset_of!(CompiledWords, site_key));
/// [`CompiledWords::sum_difference`].
pub const SUM_DIFFERENCE: i32 = relative(WORDS + offset_of!(CompiledWords, sum_difference));
/// [`CompiledWords::interrupts_pending`].
pub const INTERRUPTS_PENDING: i32 = relative(WORDS + offset_of!(CompiledWords, interrupts_pending));
/// [`CompiledWords::jump_key`].
pub const JUMP_KEY: i32 = relative(WORDS + offset_of!(CompiledWords, jump_key));
/// [`CompiledWords::ram`].
pub const RAM: i32 = relative(WORDS + offset_of!(CompiledWords, ram));
/// [`CompiledWords::jump_cache`].
pub const JUMP_CACHE: i32 = relative(WORDS + offset_of!(CompiledWords, jump_cache));
/// [`CompiledWords::may_zero_blocks`].
pub const MAY_ZERO_BLOCKS: i32 = relative(WORDS + offset_of!(CompiledWords, may_zero_blocks));
const TLB: usize = offset_of!(Hart, tlb);
/// Address of the TLB's table for fetches.
pub const FETCH_TABLE: i32 = relative(TLB + offset_of!(Tlb, fetch));
/// [`Tlb::fetch_context`].
pub const FETCH_CONTEXT: i32 = relative(TLB + offset_of!(Tlb, fetch_context));
/// Address of the TLB's table for loads.
pub const LOAD_TABLE: i32 = relative(TLB + offset_of!(Tlb, load));
/// Address of the TLB's table for stores.
pub const STORE_TABLE: i32 = relative(TLB + offset_of!(Tlb, store));
/// [`Tlb::sum_difference`].
pub const CONTEXT_DIFFERENCE: i32 = relative(TLB + offset_of!(Tlb, sum_difference));
/// [`Tlb::data_context`].
pub const DATA_CONTEXT: i32 = relative(TLB + offset_of!(Tlb, data_context));

//! Where things are: guest registers in host registers, and what `rsp` points to.

use crate::cpu::{CS, GS, Registers, Segment};
use crate::emitter::call_back::Frame;
use crate::interpreter::core::Core;
use crate::interpreter::op::RIP;
use crate::mmu::Bank;
use crate::simd::VectorState;
use std::mem::offset_of;

/// Number of a host register, as in its encoding.
pub type Host = u8;

/// `rax`: an address, or a value on its way; flags.
pub const RAX: Host = 0;
/// `rcx`: scratch.
pub const RCX: Host = 1;

/// The host registers of the guest's. Those without one are the temporary and callee-saved registers
/// that compilers use last.
pub const HOMES: [Option<Host>; 16] = [
    Some(10), // rax
    Some(11), // rcx
    Some(2),  // rdx
    Some(3),  // rbx
    Some(12), // rsp
    Some(5),  // rbp
    Some(6),  // rsi
    Some(7),  // rdi
    Some(8),  // r8
    Some(9),  // r9
    None,
    None,
    Some(13), // r12
    None,
    None,
    None,
];
/// The host register of guest rAX.
pub const GUEST_RAX: Host = 10;
/// The host register of guest rCX.
pub const GUEST_RCX: Host = 11;
/// The host register of guest rSP.
pub const GUEST_RSP: Host = 12;
/// The host register of guest rBP.
pub const GUEST_RBP: Host = 5;

/// The guest registers without a host register.
pub const SPILLED: [u8; 5] = [10, 11, 13, 14, 15];

/// Where a guest register without a host register is in the frame.
pub fn spilled(guest: u8) -> i32 {
    let index = SPILLED.iter().position(|&spilled| spilled == guest);
    let index = index.expect("a register without a host register");
    (offset_of!(Frame, spilled) + 8 * index) as i32
}

/// Guest register `guest` in the core.
pub const fn register(guest: u8) -> i32 {
    (offset_of!(Core, r) + 8 * guest as usize) as i32
}

/// RFLAGS without the status flags, in the core; the number of its bank; where its other registers are.
pub const CORE_FLAGS: i32 = offset_of!(Core, flags) as i32;
pub const CORE_BANK: i32 = offset_of!(Core, bank) as i32;
pub const CORE_REGISTERS: i32 = offset_of!(Core, registers) as i32;
/// CS, there: its lowest bits are CPL.
pub const CODE_SELECTOR: i32 = (offset_of!(Registers, segments)
    + CS * size_of::<Segment>()
    + offset_of!(Segment, selector)) as i32;
/// The bases that SWAPGS exchanges, there.
pub const GS_BASE: i32 = (offset_of!(Registers, segments)
    + GS * size_of::<Segment>()
    + offset_of!(Segment, base)) as i32;
pub const KERNEL_GS_BASE: i32 = offset_of!(Registers, kernel_gs_base) as i32;

/// The address of the next instruction, in the core.
pub const CORE_RIP: i32 = register(RIP);
pub const CORE: i32 = offset_of!(Frame, core) as i32;
pub const PAGE: i32 = offset_of!(Frame, page) as i32;
pub const JUMPS: i32 = offset_of!(Frame, jumps) as i32;
pub const REMAINING: i32 = offset_of!(Frame, remaining) as i32;
pub const FLAGS: i32 = offset_of!(Frame, flags) as i32;
pub const BANK: i32 = offset_of!(Frame, bank) as i32;
pub const KERNEL_BANKS: i32 = offset_of!(Frame, kernel_banks) as i32;
pub const PREVENTS_ACCESS: i32 = offset_of!(Frame, prevents_access) as i32;
pub const INTERRUPT_WAITS: i32 = offset_of!(Frame, interrupt_waits) as i32;
pub const TARGET: i32 = offset_of!(Frame, target) as i32;
pub const ALLOWS_VECTORS: i32 = offset_of!(Frame, allows_vectors) as i32;
pub const HAS_VECTORS: i32 = offset_of!(Frame, has_vectors) as i32;
pub const VECTORS: i32 = offset_of!(Frame, vectors) as i32;
pub const HOST_MXCSR: i32 = offset_of!(Frame, host_mxcsr) as i32;
/// Where the registers are in the vector unit's state.
pub const XMM: i32 = offset_of!(VectorState, xmm) as i32;
pub const MXCSR: i32 = offset_of!(VectorState, mxcsr) as i32;
/// Where the addend of a group is.
pub fn addend(number: usize) -> i32 {
    (offset_of!(Frame, addends) + 8 * number) as i32
}
/// The limit of a site, its page, and its addend.
pub fn site(number: usize) -> [i32; 3] {
    let sites = offset_of!(Frame, sites) + 16 * number;
    [
        offset_of!(Frame, site_limits) + 8 * number,
        sites,
        sites + 8,
    ]
    .map(|at| at as i32)
}
/// The limits of all sites, eight bytes each; their pages and addends, 16 bytes each.
pub const SITE_LIMITS: i32 = offset_of!(Frame, site_limits) as i32;
pub const SITES_AT: i32 = offset_of!(Frame, sites) as i32;
pub const SHIFTED: i32 = offset_of!(Frame, shifted) as i32;
pub const KEPT: i32 = offset_of!(Frame, kept) as i32;
pub const IS_TRIPLE_FAULT: i32 = offset_of!(Frame, is_triple_fault) as i32;
/// Bytes of the frame, and those that the way in copies.
pub const FRAME: i32 = size_of::<Frame>() as i32;
pub const COPIED: i32 = offset_of!(Frame, sites) as i32;
const _: () = assert!(COPIED % 16 == 0);

/// The base of FS (4) or GS (5).
pub fn segment_base(segment: u8) -> i32 {
    (offset_of!(Frame, segment_bases) + 8 * (usize::from(segment) - 4)) as i32
}

/// Where the TLB's tables are in its bank.
pub const READS: i32 = offset_of!(Bank, read) as i32;
pub const WRITES: i32 = offset_of!(Bank, write) as i32;

//! Zifencei (unprivileged specification, 6) and more: on this machine every fetch sees every
//! store before it, with `fence.i` or without, so that no cache of decoded code is visible.

use crate::assembler::register::*;
use crate::guest::{Guest, SCRATCH, guests};
use riscv::isa::Op;

/// `addi a0, a0, immediate`.
fn increment(immediate: u32) -> u64 {
    u64::from(0x0005_0513 | immediate << 20)
}

const RETURN: u64 = 0x0000_8067;

fn call(guest: &mut Guest, address: u64) {
    guest.asm.li(A5, address);
    guest.asm.i(Op::Jalr, RA, A5, 0);
}

guests! {
    fn a_store_changes_what_is_fetched_after_fence_i(guest) {
        guest.tests(Op::FenceI);
        guest.poke(SCRATCH, 8, RETURN << 32 | increment(1));
        guest.asm.li(A0, 0);
        call(guest, SCRATCH);
        guest.check(A0, 1, "first");
        for value in [5u64, 9] {
            guest.poke(SCRATCH, 4, increment(value as u32));
            guest.asm.op(Op::FenceI, 0, 0, 0, 0);
            guest.asm.li(A0, 0);
            call(guest, SCRATCH);
            guest.check(A0, value, format!("changed to {value}"));
        }
        guest.asm.op(Op::FenceI, A0, A1, 0, 0x123); // its other fields are ignored
        guest.check(A0, 9, "rd of fence.i");
    }

    fn a_store_changes_what_is_fetched_at_once(guest) {
        guest.tests(Op::FenceI);
        guest.poke(SCRATCH, 8, RETURN << 32 | increment(1));
        for value in 2..20u64 {
            guest.asm.li(A0, 0);
            call(guest, SCRATCH);
            guest.check(A0, value - 1, "before");
            guest.poke(SCRATCH, 4, increment(value as u32));
        }
        // one byte of it, and by an atomic
        guest.poke(SCRATCH + 3, 1, 0x7f);
        guest.asm.li(A0, 0);
        call(guest, SCRATCH);
        guest.check(A0, 0x7f3, "its upper byte");
        guest.asm.li(A1, SCRATCH);
        guest.asm.li(A2, increment(0x33));
        guest.asm.op(Op::AmoswapW, A3, A1, A2, 0);
        guest.asm.li(A0, 0);
        call(guest, SCRATCH);
        guest.check(A0, 0x33, "amoswap");
        guest.asm.op(Op::LrW, A3, A1, ZERO, 0);
        guest.asm.li(A2, increment(0x34));
        guest.asm.op(Op::ScW, A3, A1, A2, 0);
        guest.asm.li(A0, 0);
        call(guest, SCRATCH);
        guest.check(A0, 0x34, "sc");
    }

    /// The store and the instruction that it changes are in the same straight run of code.
    fn a_store_changes_the_next_instruction(guest) {
        guest.asm.li(A1, increment(7));
        guest.asm.li(A0, 0);
        let target = guest.asm.label();
        guest.asm.la(A2, target);
        guest.asm.store(Op::Sw, A1, A2, 0);
        guest.asm.bind(target);
        guest.asm.i(Op::Addi, A0, A0, 1);
        guest.check(A0, 7, "the new instruction ran");
        // a loop that changes its own body each time around
        guest.asm.li(A0, 0);
        guest.asm.li(A3, 10);
        guest.asm.li(A4, 1 << 20);
        let body = guest.asm.label();
        guest.asm.la(A2, body);
        let top = guest.asm.bound_label();
        guest.asm.i(Op::Lw, A1, A2, 0);
        guest.asm.r(Op::Addw, A1, A1, A4);
        guest.asm.store(Op::Sw, A1, A2, 0);
        guest.asm.bind(body);
        guest.asm.i(Op::Addi, A0, A0, 0);
        guest.asm.i(Op::Addi, A3, A3, -1);
        guest.asm.branch(Op::Bne, A3, ZERO, top);
        guest.check(A0, 55, "1 + 2 + ... + 10");
    }

    fn either_half_of_an_instruction_across_a_page_can_change(guest) {
        let at = SCRATCH + 4094;
        let write = |guest: &mut Guest, value: u64| {
            guest.poke(at, 2, value & 0xffff);
            guest.poke(at + 2, 2, value >> 16);
        };
        write(guest, increment(1));
        guest.poke(at + 4, 4, RETURN);
        guest.asm.li(A0, 0);
        call(guest, at);
        guest.check(A0, 1, "at first");
        guest.poke(at + 2, 2, increment(0x22) >> 16);
        guest.asm.li(A0, 0);
        call(guest, at);
        guest.check(A0, 0x22, "the half in the second page changed");
        guest.poke(at, 2, 0x0593); // addi a1, a0
        guest.asm.li(A0, 0);
        guest.asm.li(A1, 0);
        call(guest, at);
        guest.check(A1, 0x22, "the half in the first page changed");
    }

    fn a_device_changes_what_is_fetched(guest) {
        guest.set_up_transfers();
        guest.poke(SCRATCH, 8, RETURN << 32 | increment(1));
        for value in 2..6u64 {
            guest.asm.li(A0, 0);
            call(guest, SCRATCH);
            guest.check(A0, value - 1, "before");
            guest.transfer(SCRATCH, RETURN << 32 | increment(value as u32));
        }
        guest.asm.li(A0, 0);
        call(guest, SCRATCH);
        guest.check(A0, 5, "the last");
    }

    /// A misaligned store over a page boundary changes code in both pages.
    fn a_store_across_two_pages_of_code(guest) {
        let at = SCRATCH + 3 * 4096 - 4;
        guest.poke(at, 4, increment(1));
        guest.poke(at + 4, 4, increment(2));
        guest.poke(at + 8, 4, RETURN);
        guest.asm.li(A0, 0);
        call(guest, at);
        guest.check(A0, 3, "at first");
        guest.poke(at, 8, increment(0x20) << 32 | increment(0x10));
        guest.asm.li(A0, 0);
        call(guest, at);
        guest.check(A0, 0x30, "both changed");
    }
}

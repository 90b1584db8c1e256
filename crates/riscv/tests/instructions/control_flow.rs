//! RV64I: jumps and branches (unprivileged specification, 2.5), and instructions at page ends.

use crate::assembler::register::*;
use crate::guest::{Guest, guests};
use crate::operands::{EDGES, signed};
use riscv::isa::Op;

const BRANCHES: &[Op] = &[Op::Beq, Op::Bne, Op::Blt, Op::Bge, Op::Bltu, Op::Bgeu];

fn is_taken(op: Op, a: u64, b: u64) -> bool {
    match op {
        Op::Beq => a == b,
        Op::Bne => a != b,
        Op::Blt => signed(a) < signed(b),
        Op::Bge => signed(a) >= signed(b),
        Op::Bltu => i128::from(a) < i128::from(b),
        _ => i128::from(a) >= i128::from(b),
    }
}

guests! {
    fn branches_compare_all_pairs_of_edges(guest) {
        for &op in BRANCHES {
            guest.tests(op);
            for &a in EDGES {
                for &b in EDGES {
                    let target = guest.asm.label();
                    guest.asm.li(A0, a);
                    guest.asm.li(A1, b);
                    guest.asm.li(A2, 1);
                    guest.asm.branch(op, A0, if a == b { A0 } else { A1 }, target);
                    guest.asm.li(A2, 0);
                    guest.asm.bind(target);
                    let taken = u64::from(is_taken(op, a, b));
                    guest.check(A2, taken, format!("{op:?} {a:#x}, {b:#x} is taken"));
                }
            }
        }
    }

    fn a_backward_branch_makes_a_loop(guest) {
        guest.tests(Op::Bne);
        guest.asm.li(A0, 0);
        guest.asm.li(A1, 1000);
        let top = guest.asm.bound_label();
        guest.asm.r(Op::Add, A0, A0, A1);
        guest.asm.i(Op::Addi, A1, A1, -1);
        guest.asm.branch(Op::Bne, A1, ZERO, top);
        guest.check(A0, 500_500, "sum of 1 to 1000");
    }

    fn a_branch_reaches_4_kib_both_ways(guest) {
        guest.tests(Op::Beq);
        let (far, near, past) = (guest.asm.label(), guest.asm.label(), guest.asm.label());
        guest.asm.li(A0, 0);
        let here = guest.asm.here();
        guest.asm.branch(Op::Beq, ZERO, ZERO, far); // + 4094
        guest.asm.bind(near);
        guest.asm.i(Op::Addi, A0, A0, 2);
        guest.asm.jal(ZERO, past);
        guest.asm.skip_to(here + 4094);
        guest.asm.bind(far);
        guest.asm.i(Op::Addi, A0, A0, 1);
        guest.asm.skip_to(here + 4 + 4096 - 2);
        guest.asm.half(1); // c.nop
        guest.asm.branch(Op::Beq, ZERO, ZERO, near); // - 4096
        guest.asm.bind(past);
        guest.check(A0, 3, "both targets were reached");
    }

    fn jal_links_and_jumps_both_ways(guest) {
        guest.tests(Op::Jal);
        let (forward, backward, done) = (guest.asm.label(), guest.asm.label(), guest.asm.label());
        guest.asm.jal(A0, forward);
        let first = guest.asm.bound_label();
        guest.asm.bind(backward);
        guest.asm.jal(ZERO, done);
        guest.asm.skip_to(guest.asm.here() + 0x8000);
        guest.asm.bind(forward);
        guest.asm.jal(A1, backward);
        let second = guest.asm.bound_label();
        guest.asm.bind(done);
        guest.check(A0, first, "link of the forward jump");
        guest.check(A1, second, "link of the backward jump");
    }

    fn jalr_drops_bit_0_and_reads_rs1_before_it_writes_rd(guest) {
        guest.tests(Op::Jalr);
        for (offset, register) in [(0, A0), (1, A0), (2047, A0), (-2048, A0), (0, A1)] {
            let target = guest.asm.label();
            guest.asm.la(A0, target);
            guest.asm.li(A2, (offset - (offset & 1)) as u64);
            guest.asm.r(Op::Sub, A0, A0, A2);
            guest.asm.li(A2, 7);
            guest.asm.i(Op::Jalr, register, A0, offset);
            let link = guest.asm.bound_label();
            guest.asm.li(A2, 8);
            guest.asm.bind(target);
            guest.check(register, link, format!("link of jalr {offset}"));
            guest.check(A2, 7, format!("jalr {offset} skips"));
        }
        let target = guest.asm.label();
        guest.asm.la(A0, target);
        guest.asm.i(Op::Jalr, ZERO, A0, 0);
        guest.asm.bind(target);
        guest.check(ZERO, 0, "x0 after jalr x0");
    }

    /// 1.5: with C an instruction may begin at any half-word, the last of a page too.
    fn an_instruction_that_crosses_a_page_executes_whole(guest) {
        guest.tests(Op::Addi);
        guest.asm.align(4096);
        let page = guest.asm.here();
        let target = guest.asm.label();
        guest.asm.li(A0, 0);
        guest.asm.li(A1, 3);
        let top = guest.asm.bound_label();
        guest.asm.jal(ZERO, target);
        let back = guest.asm.label();
        guest.asm.bind(back);
        guest.asm.i(Op::Addi, A1, A1, -1);
        guest.asm.branch(Op::Bne, A1, ZERO, top);
        let past = guest.asm.label();
        guest.asm.jal(ZERO, past);
        guest.asm.skip_to(page + 4094);
        guest.asm.bind(target);
        guest.asm.i(Op::Addi, A0, A0, 0x123);
        guest.asm.branch(Op::Beq, ZERO, ZERO, back);
        guest.asm.bind(past);
        guest.check(A0, 3 * 0x123, "three times");
    }

    fn code_runs_on_into_the_next_page(guest) {
        guest.tests(Op::Addi);
        guest.asm.li(A0, 0);
        for _ in 0..3000 {
            guest.asm.i(Op::Addi, A0, A0, 1);
        }
        guest.check(A0, 3000, "straight through three pages");
    }
}

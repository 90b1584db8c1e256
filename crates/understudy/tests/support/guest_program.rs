//! Guests for M-mode that count aloud.

use super::assembler::*;
use riscv::isa::Op;

/// The UART's transmit register.
const UART: u64 = 0x1000_0000;
/// The register of pvpanic.
const PVPANIC: u64 = 0x10_2000;
/// The CLINT's `mtime`; the harts' `mtimecmp` begin at [`MTIMECMP`].
const MTIME: u64 = 0x200_bff8;
/// The first hart's `mtimecmp`.
pub const MTIMECMP: u64 = 0x200_4000;

// What the registers hold in these guests; A1 to A3 are free between two steps.
pub const COUNTER: u8 = A0;
pub const UART_BASE: u8 = S1;
pub const OWN_MTIMECMP: u8 = A5;
pub const CLOCK: u8 = A4;
const LIMIT: u8 = S0;

/// Prepares the registers, with this hart's `mtimecmp` at that address, and enables the timer
/// interrupt to end a `wfi` (it is not taken).
pub fn begin(program: &mut Assembler) {
    program.load(COUNTER, 0);
    program.load(UART_BASE, UART);
    program.load(CLOCK, MTIME);
    program.load(OWN_MTIMECMP, MTIMECMP);
    program.immediate(Op::Addi, T0, ZERO, 128);
    program.immediate(Op::Csrrw, ZERO, T0, MIE);
}

/// Prints the counter as four hexadecimal digits and a newline.
pub fn print_counter(program: &mut Assembler) {
    program.immediate(Op::Addi, A1, ZERO, 12);
    let digit = program.here();
    program.register(Op::Srl, A2, COUNTER, A1);
    program.immediate(Op::Andi, A2, A2, 15);
    program.immediate(Op::Addi, A2, A2, 48);
    program.immediate(Op::Addi, A3, ZERO, 58);
    program.branch_ahead(Op::Blt, A2, A3);
    program.immediate(Op::Addi, A2, A2, 39);
    program.land();
    program.store(Op::Sb, A2, UART_BASE, 0);
    program.immediate(Op::Addi, A1, A1, -4);
    program.branch(Op::Bge, A1, ZERO, digit);
    program.immediate(Op::Addi, A2, ZERO, 10);
    program.store(Op::Sb, A2, UART_BASE, 0);
}

/// Waits 0.2 ms with `wfi`.
pub fn wait(program: &mut Assembler) {
    program.immediate(Op::Ld, A2, CLOCK, 0);
    program.immediate(Op::Addi, A2, A2, 2000); // of 100 ns
    program.store(Op::Sd, A2, OWN_MTIMECMP, 0);
    let wait = program.here();
    program.plain(Op::Wfi);
    program.immediate(Op::Ld, A3, CLOCK, 0);
    program.branch(Op::Bltu, A3, A2, wait);
}

/// Prints 0000, 0001, … and waits 0.2 ms after each.
pub fn counting_slowly() -> Vec<u8> {
    let mut program = Assembler::default();
    count_slowly(&mut program);
    program.elf(0, &[])
}

fn count_slowly(program: &mut Assembler) {
    begin(program);
    let line = program.here();
    print_counter(program);
    program.immediate(Op::Addi, COUNTER, COUNTER, 1);
    wait(program);
    program.jump(line);
}

/// Counts as [`counting_slowly`] does, and ends the machine with status 9 when between two lines more than
/// `ms` of its time have passed.
pub fn counting_until_time_jumps(ms: u64) -> Vec<u8> {
    const LAST: u8 = LIMIT;
    let mut program = Assembler::default();
    begin(&mut program);
    program.immediate(Op::Ld, LAST, CLOCK, 0);
    let line = program.here();
    print_counter(&mut program);
    program.immediate(Op::Addi, COUNTER, COUNTER, 1);
    wait(&mut program);
    program.immediate(Op::Ld, A1, CLOCK, 0);
    program.register(Op::Sub, A2, A1, LAST);
    program.load(A3, ms * 10_000); // of 100 ns
    program.branch_ahead(Op::Bltu, A2, A3);
    program.finish(9);
    program.land();
    program.immediate(Op::Addi, LAST, A1, 0);
    program.jump(line);
    program.elf(0, &[])
}

/// Counts to `lines`, says by pvpanic that its kernel panicked, and counts on.
pub fn counting_and_panicking(lines: u16) -> Vec<u8> {
    let mut program = Assembler::default();
    begin(&mut program);
    program.load(LIMIT, lines.into());
    let line = program.here();
    print_counter(&mut program);
    program.immediate(Op::Addi, COUNTER, COUNTER, 1);
    wait(&mut program);
    program.branch(Op::Bne, COUNTER, LIMIT, line);
    program.load(A1, PVPANIC);
    program.immediate(Op::Addi, A2, ZERO, 1);
    program.store(Op::Sb, A2, A1, 0);
    program.jump(line);
    program.elf(0, &[])
}

/// Counts to `lines` and resets the machine, again and again.
pub fn counting_and_resetting(lines: u16) -> Vec<u8> {
    let mut program = Assembler::default();
    begin(&mut program);
    program.load(LIMIT, lines.into());
    let line = program.here();
    print_counter(&mut program);
    program.immediate(Op::Addi, COUNTER, COUNTER, 1);
    wait(&mut program);
    program.branch(Op::Bne, COUNTER, LIMIT, line);
    program.reset();
    program.elf(0, &[])
}

/// Prints a number after every 400,000 instructions or so, and never waits.
pub fn counting_busily() -> Vec<u8> {
    let mut program = Assembler::default();
    count_busily(&mut program);
    program.elf(0, &[])
}

fn count_busily(program: &mut Assembler) {
    begin(program);
    let line = program.here();
    print_counter(program);
    program.immediate(Op::Addi, COUNTER, COUNTER, 1);
    program.load(A1, 200_000);
    let work = program.here();
    program.immediate(Op::Addi, A1, A1, -1);
    program.branch(Op::Bne, A1, ZERO, work);
    program.jump(line);
}

/// Prints what is typed, each byte one greater.
pub fn echoing_the_next_letter() -> Vec<u8> {
    const LINE_STATUS: i32 = 5;
    let mut program = Assembler::default();
    begin(&mut program);
    let look = program.here();
    wait(&mut program);
    program.immediate(Op::Lbu, A1, UART_BASE, LINE_STATUS);
    program.immediate(Op::Andi, A1, A1, 1);
    program.branch(Op::Beq, A1, ZERO, look);
    program.immediate(Op::Lbu, A2, UART_BASE, 0);
    program.immediate(Op::Addi, A2, A2, 1);
    program.store(Op::Sb, A2, UART_BASE, 0);
    program.jump(look);
    program.elf(0, &[])
}

/// Counts to `lines`, then ends the machine with `status`.
pub fn counting_to(lines: u16, status: u16) -> Vec<u8> {
    let mut program = Assembler::default();
    begin(&mut program);
    program.load(LIMIT, lines.into());
    let line = program.here();
    print_counter(&mut program);
    program.immediate(Op::Addi, COUNTER, COUNTER, 1);
    wait(&mut program);
    program.branch(Op::Bne, COUNTER, LIMIT, line);
    program.finish(status);
    program.elf(0, &[])
}

/// Fills `bytes` of RAM, from a megabyte after its beginning, with numbers that do not compress, then
/// counts as [`counting_slowly`] does.
pub fn filling_memory_then_counting(bytes: u64) -> Vec<u8> {
    let mut program = Assembler::default();
    fill_memory(&mut program, bytes);
    count_slowly(&mut program);
    program.elf(0, &[])
}

/// The same, and counts as [`counting_busily`] does: its memory stays as it is, but for a page.
pub fn filling_memory_then_counting_busily(bytes: u64) -> Vec<u8> {
    let mut program = Assembler::default();
    fill_memory(&mut program, bytes);
    count_busily(&mut program);
    program.elf(0, &[])
}

fn fill_memory(program: &mut Assembler, bytes: u64) {
    program.load(T0, RAM + (1 << 20));
    program.load(T1, RAM + (1 << 20) + bytes);
    program.load(A3, 0x9e37_79b9_7f4a_7c15);
    let fill = program.here();
    for (op, shift) in [(Op::Slli, 13), (Op::Srli, 7), (Op::Slli, 17)] {
        program.immediate(op, A4, A3, shift);
        program.register(Op::Xor, A3, A3, A4);
    }
    program.store(Op::Sd, A3, T0, 0);
    program.immediate(Op::Addi, T0, T0, 8);
    program.branch(Op::Bltu, T0, T1, fill);
}

//! `Engine::Paranoid` on whole machines: nothing differs, and the guest does not notice that it was
//! looked for.

#[path = "instructions/assembler.rs"]
mod assembler;
#[path = "determinism/program.rs"]
mod program;
#[path = "determinism/random.rs"]
mod random;

use assembler::{Assembler, elf, register::*};
use machine::config::BoardConfig;
use machine::config::BootImages;
use machine::engine::Engine;
use machine::input::{ClockRecord, Console, Input};
use machine::{Machine as _, Stop};
use riscv::board::bus::FINISHER_BASE;
use riscv::isa::Extensions;
use riscv::isa::Op;
use riscv::memory::RAM_BASE;
use riscv::{Config, Machine};

/// Random guests.
const SEEDS: u64 = 6;
/// Instructions of each.
const LENGTH: u64 = 60_000;

fn machine(image: &[u8], harts: u32) -> Machine {
    let board = BoardConfig {
        memory_bytes: program::MEMORY_BYTES,
        harts,
        network: Vec::new(),
        disks: Vec::new(),
        virtio_console: false,
        entropy: false,
        transport: Default::default(),
    };
    let images = BootImages {
        kernel: Some(image.to_vec()),
        ..BootImages::default()
    };
    let config = Config {
        board,
        extensions: Extensions::ALL,
        unix_base_ns: 0,
    };
    Machine::new(config, &images).expect("the program loads")
}

/// Runs to the end; while all harts wait, a byte comes or the timer does.
fn run(mut machine: Machine) -> (Stop, u64, u128) {
    loop {
        let stop = machine.run(LENGTH);
        let input = match stop {
            Stop::Idle {
                wake_at_ns: Some(time_ns),
            } if time_ns < machine.guest_time_ns() + (1 << 40) => Input::Clock(ClockRecord {
                time_ns: time_ns.max(machine.guest_time_ns()),
                rate: 4 << 32,
            }),
            Stop::Idle { .. } if machine.guest_time_ns() < 1 << 41 => {
                let time_ns = machine.guest_time_ns() + (1 << 38);
                let record = ClockRecord {
                    time_ns,
                    rate: 4 << 32,
                };
                machine
                    .inject(&Input::Clock(record))
                    .expect("time moves on");
                Input::ConsoleBytes {
                    console: Console::Uart,
                    bytes: vec![b'a'],
                }
            }
            Stop::Output => {
                machine.outputs();
                continue;
            }
            _ => return (stop, machine.instruction_count(), machine.digest()),
        };
        machine.inject(&input).expect("the board has such a device");
    }
}

/// The interpreter's end and Paranoid's, hot and disturbed, are one.
fn check(image: &[u8], harts: u32, seed: u64) -> (Stop, u64, u128) {
    let expected = run(machine(image, harts));
    for chaos in [None, Some(seed * 2), Some(seed * 2 + 1)] {
        let mut machine = machine(image, harts);
        let engine = machine.set_engine(Engine::Paranoid);
        assert_eq!(engine, riscv::RISCV64.available(Engine::Paranoid));
        machine.set_chaos(chaos);
        let found = run(machine);
        assert_eq!(
            found, expected,
            "seed {seed}, chaos {chaos:?}, {harts} harts"
        );
    }
    expected
}

#[test]
fn random_guests_run_alike_under_paranoid() {
    let ends: Vec<_> = (0..SEEDS)
        .map(|seed| {
            let image = elf(RAM_BASE, &program::generate(seed + 500));
            check(&image, 1 + seed as u32 % 3, seed)
        })
        .collect();
    let long = ends.iter().filter(|(_, count, _)| *count == LENGTH).count();
    assert!(long * 2 >= ends.len(), "most guests ended early: {ends:?}");
}

/// Loops over a device, a system call, atomics, floating point and code that the loop itself changes.
#[test]
fn a_bare_program_runs_alike_under_paranoid() {
    let mut asm = Assembler::new(RAM_BASE);
    let (start, patched) = (asm.label(), asm.label());
    asm.jal(ZERO, start);
    asm.align(4);
    let handler = asm.bound_label();
    asm.i(Op::Addi, A5, A5, 1);
    asm.csr(Op::Csrrs, S11, riscv::hart::csr::number::MEPC, ZERO);
    asm.i(Op::Addi, S11, S11, 4);
    asm.csr(Op::Csrrw, ZERO, riscv::hart::csr::number::MEPC, S11);
    asm.li(S11, 3 << 11);
    asm.csr(Op::Csrrs, ZERO, riscv::hart::csr::number::MSTATUS, S11);
    asm.op(Op::Mret, 0, 0, 0, 0);
    asm.bind(start);
    asm.la(T0, handler);
    asm.csr(Op::Csrrw, ZERO, riscv::hart::csr::number::MTVEC, T0);
    asm.li(T0, 1 << 13);
    asm.csr(Op::Csrrs, ZERO, riscv::hart::csr::number::MSTATUS, T0);
    asm.li(S0, 2000);
    asm.li(S1, RAM_BASE + (1 << 20));
    asm.li(T1, riscv::board::bus::UART_BASE);
    asm.la(T2, patched);
    let top = asm.bound_label();
    asm.r(Op::Mul, A0, S0, S0);
    asm.store(Op::Sw, A0, S1, 2);
    asm.i(Op::Ld, A1, S1, -4);
    asm.op(Op::AmoxorD, A2, S1, A0, 0);
    asm.op(Op::LrD, A3, S1, 0, 0);
    asm.op(Op::ScD, A4, S1, A1, 0);
    asm.op(Op::FcvtDL, 1, A0, 0, 0);
    asm.op(Op::FdivD, 2, 1, 2, 0);
    asm.i(Op::Lbu, T3, T1, 5);
    asm.op(Op::Ecall, 0, 0, 0, 0);
    asm.i(Op::Andi, T4, S0, 63);
    let skip = asm.label();
    asm.branch(Op::Bne, T4, ZERO, skip);
    asm.i(Op::Lw, T5, T2, 0);
    asm.li(T6, 1 << 20);
    asm.r(Op::Xor, T5, T5, T6);
    asm.store(Op::Sw, T5, T2, 0);
    asm.op(Op::FenceI, 0, 0, 0, 0);
    asm.bind(skip);
    asm.bind(patched);
    asm.i(Op::Addi, A6, A6, 4);
    asm.i(Op::Addi, S0, S0, -1);
    asm.branch(Op::Bne, S0, ZERO, top);
    asm.li(T0, FINISHER_BASE);
    asm.li(T1, 0x5555);
    asm.store(Op::Sw, T1, T0, 0);
    let forever = asm.bound_label();
    asm.jal(ZERO, forever);
    let (stop, count, _) = check(&elf(RAM_BASE, &asm.finish()), 1, 3);
    assert!(matches!(stop, Stop::Finished(_)), "{stop:?} at {count}");
    assert!(count > 40_000, "it looped: {count}");
}

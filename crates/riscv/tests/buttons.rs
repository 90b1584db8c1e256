//! The buttons on the front: a guest with a driver powers off when it is asked to, a reset begins it anew,
//! and one that is paused stands still: at the same count however the machine is run.

#[path = "instructions/assembler.rs"]
mod assembler;

use assembler::{Assembler, elf, register::*};
use machine::config::{BoardConfig, BootImages};
use machine::engine::Engine;
use machine::input::{ClockRecord, Input};
use machine::output::{Finish, Output};
use machine::snapshot::Snapshot;
use machine::{Machine as _, Stop};
use riscv::board::bus::{FINISHER_BASE, PLIC_BASE, UART_BASE, VIRTIO_BASE, VIRTIO_INTERRUPT};
use riscv::hart::csr::number;
use riscv::isa::{Extensions, Op};
use riscv::memory::RAM_BASE;
use riscv::{Config, Machine};

/// The button is the only virtio device of this board.
const BUTTON: u64 = VIRTIO_BASE;
/// Descriptors, available ring, used ring, and the events themselves.
const DESCRIPTORS: u64 = RAM_BASE + 0x10_0000;
const AVAILABLE: u64 = DESCRIPTORS + 0x1000;
const USED: u64 = DESCRIPTORS + 0x2000;
const EVENTS: u64 = DESCRIPTORS + 0x3000;
const BUFFERS: u64 = 8;

/// Where the inputs come, and how far the machine goes at most.
const PRESSED: u64 = 50_000;
const END: u64 = 120_000;

fn write(asm: &mut Assembler, address: u64, value: u64) {
    asm.li(T0, address);
    asm.li(T1, value);
    asm.store(Op::Sw, T1, T0, 0);
}

fn print(asm: &mut Assembler, byte: u8) {
    asm.li(T0, UART_BASE);
    asm.li(T1, u64::from(byte));
    asm.store(Op::Sb, T1, T0, 0);
}

/// Prints a `>`, drives the button's queue, and computes (or waits for the interrupt) until an event is
/// there: powers off if that is `KEY_POWER`, and fails if it is anything else.
fn program(waits: bool) -> Assembler {
    let mut asm = Assembler::new(RAM_BASE);
    print(&mut asm, b'>');
    for index in 0..BUFFERS {
        let descriptor = DESCRIPTORS + 16 * index;
        asm.li(T0, descriptor);
        asm.li(T1, EVENTS + 8 * index);
        asm.store(Op::Sd, T1, T0, 0);
        // 8 bytes, to be written by the device
        asm.li(T1, 2 << 32 | 8);
        asm.store(Op::Sd, T1, T0, 8);
        asm.li(T0, AVAILABLE + 4 + 2 * index);
        asm.li(T1, index);
        asm.store(Op::Sh, T1, T0, 0);
    }
    write(&mut asm, AVAILABLE, BUFFERS << 16);
    for (register, value) in [
        (0x70, 0),
        (0x70, 3),
        (0x24, 1),
        (0x20, 1), // version 1
        (0x70, 11),
        (0x30, 0),
        (0x38, BUFFERS),
        (0x80, DESCRIPTORS),
        (0x90, AVAILABLE),
        (0xa0, USED),
        (0x44, 1),
        (0x70, 15),
    ] {
        write(&mut asm, BUTTON + register, value);
    }
    // The PLIC's context of the hart's M-mode: the source has a priority and is enabled.
    write(&mut asm, PLIC_BASE + 4 * u64::from(VIRTIO_INTERRUPT), 1);
    write(&mut asm, PLIC_BASE + 0x2000, 1 << VIRTIO_INTERRUPT);
    asm.li(T0, 1 << 11);
    asm.csr(Op::Csrrw, ZERO, number::MIE, T0);
    asm.li(S0, USED);
    let again = asm.bound_label();
    if waits {
        asm.op(Op::Wfi, 0, 0, 0, 0);
    } else {
        asm.i(Op::Addi, T2, T2, 1);
    }
    asm.i(Op::Lhu, A0, S0, 2);
    asm.branch(Op::Beq, A0, ZERO, again);
    // type, code and value of the first event
    asm.li(T0, EVENTS);
    asm.i(Op::Ld, A0, T0, 0);
    asm.li(A1, 1 << 32 | 116 << 16 | 1);
    let other = asm.label();
    asm.branch(Op::Bne, A0, A1, other);
    write(&mut asm, FINISHER_BASE, 0x5555);
    asm.bind(other);
    write(&mut asm, FINISHER_BASE, 0x3333);
    asm
}

fn machine(program: Assembler) -> Machine {
    let images = BootImages {
        kernel: Some(elf(RAM_BASE, &program.finish())),
        ..BootImages::default()
    };
    let board = BoardConfig {
        memory_bytes: 8 << 20,
        harts: 1,
        network: Vec::new(),
        disks: Vec::new(),
        virtio_console: false,
        entropy: false,
        transport: Default::default(),
    };
    let config = Config {
        board,
        extensions: Extensions::ALL,
        unix_base_ns: 0,
    };
    Machine::new(config, &images).expect("the program loads")
}

/// What came of a machine: where it stopped and how, what it printed, its digest.
type Outcome = (u64, Option<Finish>, Vec<u8>, u128);

/// Runs to [`END`] in steps and injects `inputs` at their counts; restored from a snapshot's bytes after
/// each step if asked. A guest that waits is given guest time so that the count goes on.
fn run(
    mut machine: Machine,
    engine: Engine,
    inputs: &[(u64, Input)],
    step: u64,
    restores: bool,
) -> Outcome {
    machine.set_engine(engine);
    let (mut printed, mut inputs) = (Vec::new(), inputs.iter().peekable());
    loop {
        let now = machine.instruction_count();
        if now >= END {
            return (now, None, printed, machine.digest());
        }
        let next = inputs.peek().map_or(END, |(at, _)| *at);
        let stop = machine.run(next.min(now + step).min(END));
        for output in machine.outputs() {
            if let Output::ConsoleBytes { bytes, .. } = output {
                printed.extend(bytes);
            }
        }
        match stop {
            Stop::Finished(finish) => {
                let count = machine.instruction_count();
                return (count, Some(finish), printed, machine.digest());
            }
            Stop::Output => continue,
            Stop::Reached | Stop::Idle { .. } => {}
        }
        let is_idle = matches!(stop, Stop::Idle { .. });
        let due = |at: u64, count: u64| is_idle || count >= at;
        let count = machine.instruction_count();
        match inputs.next_if(|(at, _)| due(*at, count)) {
            Some((_, input)) => machine.inject(input).expect("every board has buttons"),
            None if is_idle => return (count, None, printed, machine.digest()),
            None => {}
        }
        if restores {
            let mut bytes = Vec::new();
            let snapshot = machine.snapshot();
            snapshot.write_to(&mut bytes).expect("a vector takes all");
            let snapshot = Snapshot::read_from(&mut &bytes[..]).expect("its own snapshot");
            machine = Machine::restore(&snapshot).expect("its own snapshot");
            machine.set_engine(engine);
        }
    }
}

/// The outcome, which is the same under both engines, whatever the steps, and across snapshots.
fn outcome(waits: bool, inputs: &[(u64, Input)]) -> Outcome {
    let new = || machine(program(waits));
    let expected = run(new(), Engine::Interpreter, inputs, END, false);
    for engine in [Engine::Interpreter, Engine::Jit] {
        for (step, restores) in [(END, false), (997, false), (9_973, true)] {
            let found = run(new(), engine, inputs, step, restores);
            assert_eq!(found, expected, "{engine:?}, steps of {step}");
        }
    }
    expected
}

#[test]
fn a_guest_that_computes_powers_off_when_the_button_is_pressed() {
    let (count, finish, printed, _) = outcome(false, &[(PRESSED, Input::PowerButton)]);
    assert_eq!((finish, &printed[..]), (Some(Finish::PowerOff), &b">"[..]));
    assert!((PRESSED..PRESSED + 100).contains(&count), "{count}");
    assert_eq!(outcome(false, &[]).1, None);
}

#[test]
fn a_guest_that_waits_is_woken_by_the_button() {
    let (_, finish, ..) = outcome(true, &[(PRESSED, Input::PowerButton)]);
    assert_eq!(finish, Some(Finish::PowerOff));
    assert_eq!(outcome(true, &[]).1, None);
}

#[test]
fn the_reset_button_begins_the_guest_anew_and_a_press_before_it_is_forgotten() {
    let reset = [(PRESSED, Input::ResetButton)];
    let (count, finish, printed, _) = outcome(false, &reset);
    assert_eq!((count, finish, &printed[..]), (END, None, &b">>"[..]));
    let press = [(10, Input::PowerButton), (10, Input::ResetButton)];
    assert_eq!(outcome(false, &press).1, None);
}

#[test]
fn a_paused_machine_stands_still_until_it_is_resumed() {
    let paused = [(PRESSED, Input::Pause), (PRESSED, Input::PowerButton)];
    let (count, finish, ..) = outcome(false, &paused);
    assert_eq!((count, finish), (PRESSED, None));
    let mut resumed = paused.to_vec();
    resumed.push((PRESSED, Input::Resume));
    let (count, finish, ..) = outcome(false, &resumed);
    assert_eq!(finish, Some(Finish::PowerOff));
    assert!((PRESSED..PRESSED + 100).contains(&count), "{count}");
    let reset = [
        (PRESSED, Input::Pause),
        (PRESSED, Input::ResetButton),
        (PRESSED, Input::Resume),
    ];
    assert_eq!(outcome(false, &reset).2, b">>");
}

#[test]
fn time_does_not_move_a_paused_machine_and_its_timers_wait() {
    let mut machine = machine(program(true));
    machine.inject(&Input::Pause).expect("any machine pauses");
    let record = ClockRecord {
        time_ns: 5_000_000_000,
        rate: 1 << 32,
    };
    machine.inject(&Input::Clock(record)).expect("forwards");
    assert_eq!(machine.run(END), Stop::Idle { wake_at_ns: None });
    assert_eq!(machine.instruction_count(), 0);
    assert!(machine.is_paused());
}

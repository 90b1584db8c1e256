//! A guest that panics or does not reload its watchdog: told once, and at the same count however the machine
//! is run, with what the user wants of it.

#[path = "instructions/assembler.rs"]
mod assembler;

use assembler::{Assembler, elf, register::*};
use machine::config::{BoardConfig, BootImages, PanicPolicy};
use machine::engine::Engine;
use machine::input::{ClockRecord, Input};
use machine::output::{Finish, Output, Trouble};
use machine::{Machine as _, Stop};
use riscv::board::bus::{GPIO_BASE, PVPANIC_BASE, UART_BASE, WATCHDOG_BASE};
use riscv::isa::{Extensions, Op};
use riscv::memory::RAM_BASE;
use riscv::{Config, Machine};

const END: u64 = 200_000;

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
    let mut machine = Machine::new(config, &images).expect("the program loads");
    // So fast that half a second is 20,000 instructions.
    let record = ClockRecord {
        time_ns: 0,
        rate: 25_000 << 32,
    };
    machine
        .inject(&Input::Clock(record))
        .expect("time does not turn back");
    machine
}

/// Begins with a `>` on the console and some computing, and ends with more of it.
fn program(middle: impl FnOnce(&mut Assembler)) -> Assembler {
    let mut asm = Assembler::new(RAM_BASE);
    asm.li(S1, UART_BASE);
    asm.li(T0, u64::from(b'>'));
    asm.store(Op::Sb, T0, S1, 0);
    wait(&mut asm);
    middle(&mut asm);
    let forever = asm.bound_label();
    asm.i(Op::Addi, T2, T2, 1);
    asm.jal(ZERO, forever);
    asm
}

/// 10,000 instructions.
fn wait(asm: &mut Assembler) {
    asm.li(T2, 5000);
    let again = asm.bound_label();
    asm.i(Op::Addi, T2, T2, -1);
    asm.branch(Op::Bne, T2, ZERO, again);
}

fn write(asm: &mut Assembler, address: u64, value: u64) {
    asm.li(T0, address);
    asm.li(T1, value);
    asm.store(Op::Sw, T1, T0, 0);
}

fn by_pvpanic() -> Assembler {
    program(|asm| {
        asm.li(T0, PVPANIC_BASE);
        asm.li(T1, 1);
        asm.store(Op::Sb, T1, T0, 0);
        asm.store(Op::Sb, T1, T0, 0);
    })
}

/// As `leds-gpio` does it: off, the direction, and then it blinks.
fn by_lamp() -> Assembler {
    program(|asm| {
        write(asm, GPIO_BASE + 0x0c, 0);
        write(asm, GPIO_BASE + 0x08, 1);
        for _ in 0..3 {
            write(asm, GPIO_BASE + 0x0c, 1);
            write(asm, GPIO_BASE + 0x0c, 0);
        }
    })
}

/// As `sunxi_wdt` starts it, with half a second; it is reloaded once, 10,000 instructions later.
fn with_watchdog() -> Assembler {
    program(|asm| {
        write(asm, WATCHDOG_BASE + 0x10, 0x0a57 << 1 | 1);
        write(asm, WATCHDOG_BASE + 0x14, 1);
        write(asm, WATCHDOG_BASE + 0x18, 1);
        wait(asm);
        write(asm, WATCHDOG_BASE + 0x10, 0x0a57 << 1 | 1);
    })
}

/// What came of a machine: its outputs with their counts, its end, and its digest.
#[derive(Debug, PartialEq)]
struct Outcome {
    outputs: Vec<(u64, Output)>,
    end: Option<Finish>,
    digest: u128,
}

impl Outcome {
    fn of_kind(&self, wanted: impl Fn(&Output) -> bool) -> Vec<u64> {
        let these = self.outputs.iter().filter(|(_, output)| wanted(output));
        these.map(|(count, _)| *count).collect()
    }
}

/// Runs to [`END`] in steps, restored from a snapshot's bytes after each if asked.
fn run(mut machine: Machine, engine: Engine, step: u64, restores: bool) -> Outcome {
    machine.set_engine(engine);
    let (mut outputs, mut end) = (Vec::new(), None);
    while machine.instruction_count() < END && end.is_none() {
        let until = END.min(machine.instruction_count() + step);
        loop {
            let stop = machine.run(until);
            let count = machine.instruction_count();
            let printed = |output: &Output| matches!(output, Output::ConsoleBytes { .. });
            outputs.extend(machine.outputs().into_iter().map(|output| {
                // Console bytes wait for the end of a step.
                let count = if printed(&output) { 0 } else { count };
                (count, output)
            }));
            match stop {
                Stop::Output => {}
                Stop::Reached => break,
                Stop::Finished(finish) => {
                    end = Some(finish);
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        if restores {
            let mut bytes = Vec::new();
            let snapshot = machine.snapshot();
            snapshot.write_to(&mut bytes).expect("memory takes it");
            machine = Machine::restore_from(&*bytes).expect("it is whole");
            machine.set_engine(engine);
        }
    }
    let digest = machine.digest();
    Outcome {
        outputs,
        end,
        digest,
    }
}

/// The outcome, which has to be the same for every engine and step.
fn outcome(program: impl Fn() -> Assembler, policy: PanicPolicy) -> Outcome {
    let begin = || {
        let mut machine = machine(program());
        assert!(machine.set_panic_policy(policy));
        machine
    };
    let expected = run(begin(), Engine::Interpreter, END, false);
    for engine in Engine::ALL {
        for (step, restores) in [(END, false), (977, false), (13, false), (4093, true)] {
            let found = run(begin(), engine, step, restores);
            assert_eq!(
                found, expected,
                "{engine:?}, steps of {step}, restored: {restores}"
            );
        }
    }
    expected
}

fn panicked(output: &Output) -> bool {
    *output == Output::Trouble(Trouble::Panicked)
}

#[test]
fn a_panic_is_told_once_however_often_the_guest_says_so() {
    for program in [by_pvpanic, by_lamp] {
        let outcome = outcome(program, PanicPolicy::Report);
        assert_eq!(outcome.of_kind(panicked).len(), 1);
        assert_eq!(outcome.end, None);
    }
    let mut machine = machine(by_lamp());
    assert!(!machine.has_panicked());
    machine.run(END);
    assert!(machine.has_panicked());
}

#[test]
fn a_guest_that_panics_is_booted_anew_if_the_user_wants_it() {
    for program in [by_pvpanic, by_lamp] {
        let outcome = outcome(program, PanicPolicy::Reboot);
        let reboots = outcome.of_kind(|output| *output == Output::Reboot);
        assert!(reboots.len() > 15, "{outcome:?}");
        assert_eq!(outcome.of_kind(panicked), reboots);
    }
}

#[test]
fn a_guest_that_panics_is_stopped_if_the_user_wants_it() {
    for program in [by_pvpanic, by_lamp] {
        let outcome = outcome(program, PanicPolicy::Stop);
        assert_eq!(outcome.end, Some(Finish::Panicked));
        let last = &outcome.outputs.last().expect("it said so").1;
        assert_eq!(*last, Output::Finish(Finish::Panicked));
        assert_eq!(outcome.of_kind(panicked).len(), 1);
    }
}

#[test]
fn a_watchdog_that_is_not_reloaded_resets_the_machine_at_one_count() {
    let outcome = outcome(with_watchdog, PanicPolicy::Report);
    let ended = |output: &Output| *output == Output::Trouble(Trouble::WatchdogEnded);
    let ends = outcome.of_kind(ended);
    let reboots = outcome.of_kind(|output| *output == Output::Reboot);
    assert_eq!(ends, reboots);
    // It counts anew from its reload on, and then from each boot on.
    assert_eq!(ends.len(), 4, "{ends:?}");
    assert!((40_000..41_000).contains(&ends[0]), "{ends:?}");
    assert_eq!(ends[1] - ends[0], ends[0]);
}

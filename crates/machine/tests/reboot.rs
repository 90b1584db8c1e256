//! A guest that resets the machine (finisher 0x7777) begins anew within its life: at the same count on
//! every engine, wherever it is stopped, and across a snapshot.

use machine::boot::BootImages;
use machine::bus::BoardConfig;
use machine::engine::Engine;
use machine::machine::{Machine, MachineConfig, Stop};
use machine::output::{Finish, Output};

/// Prints what a double-word of RAM holds, which has to be 0 each time; sets it, spins, resets.
fn machine() -> Machine {
    let words = [
        0x1000_02b7u32, // lui t0, 0x10000 (UART)
        0x0010_0337,    // lui t1, 0x100 (finisher)
        0x0000_13b7,    // lui t2, 1
        0x0000_0e17,    // auipc t3, 0
        0x007e_0e33,    // add t3, t3, t2
        0x000e_3e83,    // ld t4, 0(t3)
        0x030e_8e93,    // addi t4, t4, '0'
        0x01d2_8023,    // sb t4, 0(t0)
        0x01de_3023,    // sd t4, 0(t3)
        0xfff3_8393,    // addi t2, t2, -1
        0xfe03_9ee3,    // bnez t2, -4
        0x0000_7f37,    // lui t5, 7
        0x777f_0f1b,    // addiw t5, t5, 0x777
        0x01e3_2023,    // sw t5, 0(t1)
        0x0000_006f,    // j .
    ];
    let images = BootImages {
        kernel: Some(words.iter().flat_map(|word| word.to_le_bytes()).collect()),
        ..BootImages::default()
    };
    let board = BoardConfig {
        memory_bytes: 8 << 20,
        harts: 1,
        network: Vec::new(),
        disks: Vec::new(),
        virtio_console: false,
        entropy: true,
        bit_manipulation: true,
    };
    let config = MachineConfig {
        board,
        unix_base_ns: 0,
    };
    Machine::new(config, &images).expect("the program loads")
}

const END: u64 = 60_000;

/// Runs to [`END`] in steps, restored from a snapshot after each if asked. Gives what was printed, how
/// often it rebooted, and the digest.
fn run(engine: Engine, step: u64, restores: bool) -> (Vec<u8>, usize, u128) {
    let mut machine = machine();
    machine.set_engine(engine);
    let (mut printed, mut reboots) = (Vec::new(), 0);
    while machine.instruction_count() < END {
        let until = END.min(machine.instruction_count() + step);
        while machine.run(until) == Stop::Output {
            collect(&mut machine, &mut printed, &mut reboots);
        }
        collect(&mut machine, &mut printed, &mut reboots);
        if restores {
            machine = Machine::restore(&machine.snapshot()).expect("it is whole");
            machine.set_engine(engine);
        }
    }
    (printed, reboots, machine.digest())
}

fn collect(machine: &mut Machine, printed: &mut Vec<u8>, reboots: &mut usize) {
    for output in machine.outputs() {
        match output {
            Output::ConsoleBytes { bytes, .. } => printed.extend(bytes),
            Output::Reboot => *reboots += 1,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_reboot_is_the_same_however_the_machine_is_run() {
    let expected = run(Engine::Interpreter, END, false);
    assert!(expected.1 >= 5, "{expected:?}");
    assert_eq!(expected.0, vec![b'0'; expected.0.len()], "RAM was zeroed");
    for engine in Engine::ALL {
        for (step, restores) in [(END, false), (977, false), (13, false), (4093, true)] {
            let found = run(engine, step, restores);
            assert_eq!(
                found, expected,
                "{engine:?}, steps of {step}, restored: {restores}"
            );
        }
    }
}

#[test]
fn a_machine_that_shall_not_reboot_ends() {
    let mut machine = machine();
    machine.end_at_reset();
    assert_eq!(machine.run(END), Stop::Finished(Finish::Reset));
}

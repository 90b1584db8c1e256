//! A guest that resets the machine begins anew within its life: at the same count on every engine, wherever
//! it is stopped, and across a snapshot; and a panic is told, by pvpanic's port.

#[path = "../testing/kernel_image.rs"]
mod kernel_image;

use iced_x86::code_asm::*;
use kernel_image::kernel_image;
use machine::Stop;
use machine::config::{BoardConfig, MachineConfig, PanicPolicy};
use machine::engine::Engine;
use machine::input::Input;
use machine::output::{Finish, Output, Trouble};
use x86::boot::BootImages;
use x86::machine::Machine;

const LOAD: u64 = 0x10_0000;
const ENTRY: u64 = LOAD + 0x200;
/// What a program keeps in RAM.
const DATA: u64 = 0x20_0000;
const SERIAL: u32 = 0x3f8;
const END: u64 = 100_000;

/// What the program asks for a reset with.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// The reset register that the FADT names.
    ResetRegister,
    /// The keyboard controller.
    Keyboard,
    /// An exception without handlers.
    TripleFault,
    /// A panic, where the policy says so.
    Panic,
}

/// Prints `0` plus what must be 0 when it begins: a word of RAM, R15 and a local APIC's task priority; sets
/// all of them, computes for a while, and resets.
fn begins_anew(way: Way) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    a.mov(rbx, DATA)?;
    a.mov(rax, qword_ptr(rbx))?;
    a.or(rax, r15)?;
    a.mov(rcx, 0xfee0_0080u64)?;
    a.mov(edx, dword_ptr(rcx))?;
    a.or(rax, rdx)?;
    a.mov(dword_ptr(rcx), 0x10)?;
    a.mov(r15, rbx)?;
    a.mov(qword_ptr(rbx), rbx)?;
    a.add(al, i32::from(b'0'))?;
    a.mov(edx, SERIAL)?;
    a.out(dx, al)?;
    // long enough to be compiled
    a.mov(ecx, 5000)?;
    let mut spin = a.create_label();
    a.set_label(&mut spin)?;
    a.mov(qword_ptr(rbx + 8), rcx)?;
    a.dec(ecx)?;
    a.jnz(spin)?;
    let (port, value) = match way {
        Way::ResetRegister => (0xcf9, 6),
        Way::Keyboard => (0x64, 0xfe),
        Way::Panic => (0x505, 1),
        Way::TripleFault => {
            a.mov(qword_ptr(rbx + 16), 0)?;
            a.mov(qword_ptr(rbx + 24), 0)?;
            a.lidt(ptr(rbx + 16))?;
            a.ud2()?;
            (0, 0)
        }
    };
    a.mov(edx, port)?;
    a.mov(eax, value)?;
    a.out(dx, al)?;
    // never seen
    a.mov(edx, SERIAL)?;
    a.mov(al, i32::from(b'!'))?;
    a.out(dx, al)?;
    a.hlt()?;
    a.assemble(ENTRY)
}

/// A machine whose kernel is this code.
fn machine(way: Way) -> Machine {
    let code = begins_anew(way).expect("the program assembles");
    let images = BootImages {
        firmware: None,
        kernel: kernel_image(LOAD, &code),
        initrd: Some(vec![7; 5000]),
        command_line: "console=ttyS0".to_owned(),
    };
    let config = MachineConfig {
        board: BoardConfig {
            memory_bytes: 16 << 20,
            harts: 1,
            network: Vec::new(),
            disks: Vec::new(),
            virtio_console: false,
            entropy: true,
            transport: Default::default(),
        },
        features: Default::default(),
        unix_base_ns: 0,
    };
    Machine::new(config, &images).expect("it can be powered on")
}

/// What was printed, at which counts it began anew, and the digest at [`END`].
type Outcome = (Vec<u8>, Vec<u64>, u128);

fn run(mut machine: Machine, engine: Engine, step: u64, restores: bool) -> Outcome {
    machine.set_engine(engine);
    let (mut printed, mut reboots) = (Vec::new(), Vec::new());
    while machine.instruction_count() < END {
        let until = END.min(machine.instruction_count() + step);
        loop {
            let stop = machine.run(until);
            for output in machine.outputs() {
                match output {
                    Output::ConsoleBytes { bytes, .. } => printed.extend(bytes),
                    Output::Reboot => reboots.push(machine.instruction_count()),
                    Output::Trouble(Trouble::Panicked) => {}
                    other => panic!("{other:?}"),
                }
            }
            match stop {
                Stop::Output => {}
                Stop::Reached => break,
                other => panic!("{other:?}"),
            }
        }
        if restores {
            let mut bytes = Vec::new();
            machine
                .snapshot()
                .write_to(&mut bytes)
                .expect("memory takes it");
            machine = Machine::restore_from(&*bytes).expect("it is whole");
            machine.set_engine(engine);
        }
    }
    (printed, reboots, machine.digest())
}

fn rebooting(way: Way) -> Machine {
    let mut machine = machine(way);
    machine.set_panic_policy(PanicPolicy::Reboot);
    machine
}

#[test]
fn a_reboot_is_the_same_however_the_machine_is_run() {
    for way in [
        Way::ResetRegister,
        Way::Keyboard,
        Way::TripleFault,
        Way::Panic,
    ] {
        let expected = run(rebooting(way), Engine::Interpreter, END, false);
        let (printed, reboots, _) = &expected;
        assert!(reboots.len() >= 5, "{way:?}: {reboots:?}");
        assert_eq!(printed.len(), reboots.len() + 1, "{way:?}");
        assert!(printed.iter().all(|byte| *byte == b'0'), "{printed:?}");
        let lengths: Vec<u64> = reboots.windows(2).map(|two| two[1] - two[0]).collect();
        assert!(
            lengths.iter().all(|length| *length == lengths[0]),
            "{lengths:?}"
        );
        for (engine, step, restores) in [
            (Engine::Jit, END, false),
            (Engine::Jit, 1009, false),
            (Engine::Interpreter, 997, true),
            (Engine::Jit, 5003, true),
        ] {
            let outcome = run(rebooting(way), engine, step, restores);
            assert_eq!(outcome, expected, "{way:?}, {engine:?}, steps of {step}");
        }
    }
}

#[test]
fn a_reset_is_the_end_where_it_was_made_one() {
    let mut machine = machine(Way::TripleFault);
    machine.end_at_reset();
    assert_eq!(machine.run(END), Stop::Output);
    assert!(machine.outputs().contains(&Output::Finish(Finish::Reset)));
    assert_eq!(machine.run(END), Stop::Finished(Finish::Reset));
}

#[test]
fn a_panic_is_told_once_and_may_stop_the_machine() {
    let mut machine = machine(Way::Panic);
    assert!(!machine.has_panicked());
    machine.set_panic_policy(PanicPolicy::Stop);
    let mut told = Vec::new();
    let stop = loop {
        let stop = machine.run(END);
        told.extend(machine.outputs());
        if stop != Stop::Output {
            break stop;
        }
    };
    assert_eq!(stop, Stop::Finished(Finish::Panicked));
    assert!(machine.has_panicked());
    let panics = told
        .iter()
        .filter(|output| **output == Output::Trouble(Trouble::Panicked));
    assert_eq!(panics.count(), 1);
}

/// What somebody presses on the front of the machine takes effect at one count on every engine.
#[test]
fn the_reset_button_begins_anew_and_a_paused_machine_stands_still() {
    let pressed = |engine| {
        let mut machine = machine(Way::ResetRegister);
        machine.set_engine(engine);
        assert_eq!(run_to(&mut machine, 3000), Stop::Reached);
        machine.inject(&Input::Pause).expect("any machine pauses");
        assert_eq!(machine.run(END), Stop::Idle { wake_at_ns: None });
        assert_eq!(
            (machine.instruction_count(), machine.is_paused()),
            (3000, true)
        );
        machine
            .inject(&Input::PowerButton)
            .expect("every board has one");
        machine
            .inject(&Input::ResetButton)
            .expect("every board has one");
        assert!(machine.outputs().contains(&Output::Reboot));
        machine.inject(&Input::Resume).expect("any machine goes on");
        let before = machine.visible_outputs();
        assert_eq!(run_to(&mut machine, 6000), Stop::Reached);
        assert_eq!(machine.visible_outputs(), before + 1, "it begins anew");
        machine.digest()
    };
    assert_eq!(pressed(Engine::Interpreter), pressed(Engine::Jit));
}

fn run_to(machine: &mut Machine, until: u64) -> Stop {
    loop {
        match machine.run(until) {
            Stop::Output => drop(machine.outputs()),
            stop => return stop,
        }
    }
}

//! Firmware: entered in flat 32-bit code without paging, goes on to 64-bit code, finds what EDK2 looks for, and begins
//! anew at a reset; the same on every engine, wherever the machine is stopped, and across snapshots.

#[path = "../testing/firmware_image.rs"]
mod firmware_image;

use firmware_image::{FIRMWARE, firmware_image};
use iced_x86::code_asm::*;
use machine::Stop;
use machine::config::{BoardConfig, MachineConfig, Transport};
use machine::engine::Engine;
use machine::output::{Finish, Output};
use x86::boot::BootImages;
use x86::machine::Machine;

const END: u64 = 100_000;
const SERIAL: u32 = 0x3f8;
/// Where the 64-bit code is, and the descriptor table with its pointer.
const LONG_CODE: u64 = FIRMWARE + 0x200;
const DESCRIPTORS: u64 = FIRMWARE + 0x400;
const DESCRIPTORS_POINTER: u64 = FIRMWARE + 0x440;
const STACK: u32 = 0x9000;
const TABLES: u32 = 0xa000;

const CODE_32: u32 = 0x08;
const DATA: u32 = 0x10;
const CODE_64: u32 = 0x18;

/// What it does at its end.
#[derive(Clone, Copy, Debug)]
enum End {
    Reset,
    PowerOff,
}

/// As EDK2's reset vector does it (`OvmfPkg/XenResetVector/Ia32`): prints `P` if EBX leads to the structure of a PVH
/// start.
fn flat_code() -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(32)?;
    let mut good = a.create_label();
    a.mov(eax, i32::from(b'P'))?;
    a.cmp(dword_ptr(ebx), 0x336e_c578)?;
    a.je(good)?;
    a.mov(eax, i32::from(b'!'))?;
    a.set_label(&mut good)?;
    a.mov(edx, SERIAL)?;
    a.out(dx, al)?;
    a.mov(esp, STACK)?;
    a.lgdt(ptr(DESCRIPTORS_POINTER as u32))?;
    a.mov(eax, 0x23)?; // PE, MP, NE
    a.mov(cr0, eax)?;
    let target = FIRMWARE as u32 + 0x100;
    a.push(CODE_32 as i32)?;
    a.push(target as i32)?;
    a.retf()?;
    let mut code = a.assemble(FIRMWARE)?;
    assert!(code.len() <= 0x100);
    code.resize(0x100, 0x90);

    let mut a = CodeAssembler::new(32)?;
    // No PAE yet: MCE, OSFXSR, OSXMMEXCPT.
    a.mov(eax, 0x640)?;
    a.mov(cr4, eax)?;
    a.mov(eax, DATA)?;
    a.mov(ds, eax)?;
    a.mov(ss, eax)?;
    // The first GiB to itself.
    a.mov(dword_ptr(TABLES), (TABLES + 0x1000 + 3) as i32)?;
    a.mov(dword_ptr(TABLES + 0x1000), 0x83)?;
    a.mov(eax, TABLES)?;
    a.mov(cr3, eax)?;
    a.mov(eax, cr4)?;
    a.bts(eax, 5)?;
    a.mov(cr4, eax)?;
    a.mov(ecx, 0xc000_0080u32)?;
    a.rdmsr()?;
    a.bts(eax, 8)?;
    a.wrmsr()?;
    a.mov(eax, cr0)?;
    a.bts(eax, 31)?;
    a.mov(cr0, eax)?;
    a.push(CODE_64 as i32)?;
    a.push(LONG_CODE as i32)?;
    a.retf()?;
    code.extend(a.assemble(target.into())?);
    Ok(code)
}

/// Prints `B` if the bus's bridge is the one that EDK2 knows, `T` if the power management timer moves; computes for a
/// while, and ends.
fn long_code(end: End) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    let (mut bridge, mut timer, mut spin) = (a.create_label(), a.create_label(), a.create_label());
    a.mov(edx, 0xcf8)?;
    a.mov(eax, 0x8000_0000u32)?;
    a.out(dx, eax)?;
    a.mov(edx, 0xcfe)?;
    a.in_(ax, dx)?;
    a.cmp(ax, 0x0d57)?;
    a.mov(eax, i32::from(b'B'))?;
    a.je(bridge)?;
    a.mov(eax, i32::from(b'!'))?;
    a.set_label(&mut bridge)?;
    a.mov(edx, SERIAL)?;
    a.out(dx, al)?;

    a.mov(edx, 0x608)?;
    a.in_(eax, dx)?;
    a.mov(ebx, eax)?;
    // Long enough to be compiled, and for the timer.
    a.mov(ecx, 5000)?;
    a.set_label(&mut spin)?;
    a.mov(dword_ptr(u64::from(TABLES + 0x2000)), ecx)?;
    a.dec(ecx)?;
    a.jnz(spin)?;
    a.in_(eax, dx)?;
    a.sub(eax, ebx)?; // 15,000 instructions of 4 ns: 214 ticks
    a.sub(eax, 200)?;
    a.cmp(eax, 30)?;
    a.mov(eax, i32::from(b'T'))?;
    a.jb(timer)?;
    a.mov(eax, i32::from(b'!'))?;
    a.set_label(&mut timer)?;
    a.mov(edx, SERIAL)?;
    a.out(dx, al)?;
    let (port, value) = match end {
        End::Reset => (0xcf9, 6),
        End::PowerOff => (0x600, 5 << 2 | 1 << 5),
    };
    a.mov(edx, port)?;
    a.mov(eax, value)?;
    a.out(dx, al)?;
    a.hlt()?;
    a.assemble(LONG_CODE)
}

fn firmware(end: End) -> Vec<u8> {
    let mut code = flat_code().expect("the program assembles");
    assert!(code.len() <= 0x200);
    code.resize(0x200, 0x90);
    code.extend(long_code(end).expect("the program assembles"));
    assert!(code.len() <= 0x400);
    code.resize(0x400, 0x90);
    let descriptors = [
        0,
        0x00cf_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0x00af_9b00_0000_ffffu64,
    ];
    code.extend(descriptors.iter().flat_map(|entry| entry.to_le_bytes()));
    code.resize(0x440, 0);
    code.extend(31u16.to_le_bytes());
    code.extend((DESCRIPTORS as u32).to_le_bytes());
    firmware_image(&code)
}

fn machine(end: End) -> Machine {
    let images = BootImages {
        firmware: Some(firmware(end)),
        ..BootImages::default()
    };
    let config = MachineConfig {
        board: BoardConfig {
            memory_bytes: 16 << 20,
            harts: 2,
            network: Vec::new(),
            disks: Vec::new(),
            virtio_console: false,
            entropy: true,
            transport: Transport::Pci,
        },
        features: Default::default(),
        unix_base_ns: 0,
    };
    Machine::new(config, &images).expect("it can be powered on")
}

/// What was printed, at which counts it began anew, and the digest at [`END`].
type Outcome = (Vec<u8>, Vec<u64>, u128);

fn run(engine: Engine, step: u64, restores: bool) -> Outcome {
    let mut machine = machine(End::Reset);
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
            let snapshot = machine.snapshot();
            snapshot.write_to(&mut bytes).expect("memory takes it");
            machine = Machine::restore_from(&*bytes).expect("it is whole");
            machine.set_engine(engine);
        }
    }
    (printed, reboots, machine.digest())
}

#[test]
fn firmware_begins_anew_at_a_reset_the_same_however_the_machine_is_run() {
    let expected = run(Engine::Interpreter, END, false);
    let (printed, reboots, _) = &expected;
    assert!(reboots.len() >= 5, "{reboots:?}");
    let printed = String::from_utf8_lossy(printed);
    assert!(printed.starts_with(&"PBT".repeat(5)), "{printed}");
    assert!(!printed.contains('!'), "{printed}");
    for (engine, step, restores) in [
        (Engine::Jit, END, false),
        (Engine::Jit, 1009, false),
        (Engine::Interpreter, 997, true),
        (Engine::Jit, 5003, true),
    ] {
        let outcome = run(engine, step, restores);
        assert_eq!(outcome, expected, "{engine:?}, steps of {step}");
    }
}

#[test]
fn firmware_powers_off_by_the_sleep_control_register() {
    let mut machine = machine(End::PowerOff);
    let mut told = Vec::new();
    let stop = loop {
        let stop = machine.run(END);
        told.extend(machine.outputs());
        if stop != Stop::Output {
            break stop;
        }
    };
    assert_eq!(stop, Stop::Finished(Finish::PowerOff));
    assert!(told.contains(&Output::Finish(Finish::PowerOff)));
}

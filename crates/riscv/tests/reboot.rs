//! A guest that resets the machine (finisher 0x7777) begins anew within its life: at the same count on
//! every engine, wherever it is stopped, and across a snapshot.

#[path = "instructions/assembler.rs"]
mod assembler;
#[path = "../../machine/testing/running_snapshot.rs"]
mod running_snapshot;

use assembler::{Assembler, elf, register::*};
use machine::config::{BoardConfig, BootImages, DiskConfig};
use machine::engine::Engine;
use machine::input::{Console, DiskStatus, Input};
use machine::output::{DiskOperation, DiskRequest, Finish, Output};
use machine::snapshot::{Snapshot, SnapshotHead, SnapshotWriter};
use machine::{Machine as _, Stop};
use riscv::architecture::{NAME, SEMANTICS_VERSION};
use riscv::board::bus::{CLINT_BASE, FINISHER_BASE, UART_BASE, VIRTIO_BASE, VIRTIO_SLOT_SIZE};
use riscv::hart::csr::number;
use riscv::isa::{Extensions, Op};
use riscv::memory::RAM_BASE;
use riscv::{Config, Machine};
use running_snapshot::RunningSnapshot;

/// What a program keeps in RAM: far behind itself.
const DATA: u64 = RAM_BASE + 0x10_0000;
const RESET: u64 = 0x7777;

fn machine(program: Assembler, harts: u32) -> Machine {
    let images = BootImages {
        kernel: Some(elf(RAM_BASE, &program.finish())),
        ..BootImages::default()
    };
    let board = BoardConfig {
        memory_bytes: 8 << 20,
        harts,
        network: Vec::new(),
        disks: vec![DiskConfig {
            sectors: 64,
            read_only: false,
            serial: String::new(),
        }],
        virtio_console: false,
        entropy: true,
        transport: Default::default(),
    };
    let config = Config {
        board,
        extensions: Extensions::ALL,
        unix_base_ns: 0,
    };
    Machine::new(config, &images).expect("the program loads")
}

fn reset(asm: &mut Assembler) {
    asm.li(T0, FINISHER_BASE);
    asm.li(T1, RESET);
    asm.store(Op::Sw, T1, T0, 0);
}

/// Prints, each time that it begins, what must be 0 then: a double-word of RAM, a CSR, the hart's
/// counter (as far as it may have come); then sets and enables all that a reset has to undo, and resets.
/// A second hart waits for a software interrupt for ever.
fn begins_anew() -> Assembler {
    let mut asm = Assembler::new(RAM_BASE);
    let (wait, boot) = (asm.label(), asm.label());
    asm.csr(Op::Csrrs, T0, number::MHARTID, ZERO);
    asm.branch(Op::Beq, T0, ZERO, boot);
    asm.bind(wait);
    asm.op(Op::Wfi, 0, 0, 0, 0);
    asm.jal(ZERO, wait);
    asm.bind(boot);
    asm.csr(Op::Csrrs, A2, number::MCYCLE, ZERO);
    asm.i(Op::Srli, A2, A2, 12);
    asm.li(S0, DATA);
    asm.i(Op::Ld, A1, S0, 0);
    asm.r(Op::Or, A1, A1, A2);
    asm.csr(Op::Csrrs, A2, number::MSCRATCH, ZERO);
    asm.r(Op::Or, A1, A1, A2);
    asm.csr(Op::Csrrs, A2, number::PMPCFG0, ZERO);
    asm.r(Op::Or, A1, A1, A2);
    asm.li(S1, UART_BASE);
    asm.i(Op::Addi, A1, A1, i32::from(b'0'));
    asm.store(Op::Sb, A1, S1, 0);
    asm.store(Op::Sd, S1, S0, 0);
    asm.csr(Op::Csrrw, ZERO, number::MSCRATCH, S1);
    asm.li(T0, u64::MAX);
    asm.csr(Op::Csrrw, ZERO, number::PMPADDR0, T0);
    asm.li(T0, 0x1f);
    asm.csr(Op::Csrrw, ZERO, number::PMPCFG0, T0);
    // the other hart's software interrupt, if there is one
    asm.li(T0, CLINT_BASE);
    asm.store(Op::Sw, T0, T0, 4);
    // long enough to be compiled
    asm.li(T2, 5000);
    let spin = asm.bound_label();
    asm.i(Op::Addi, T2, T2, -1);
    asm.store(Op::Sd, T2, S0, 8);
    asm.branch(Op::Bne, T2, ZERO, spin);
    reset(&mut asm);
    let never = asm.bound_label();
    asm.store(Op::Sb, ZERO, S1, 0);
    asm.jal(ZERO, never);
    asm
}

const END: u64 = 100_000;

/// What came of a machine: what was printed, at which counts it began anew, and its digest.
type Outcome = (Vec<u8>, Vec<u64>, u128);

/// Runs to [`END`] in steps, restored from a snapshot's bytes after each if asked.
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
            machine = restored(&machine, engine);
        }
    }
    (printed, reboots, machine.digest())
}

fn restored(machine: &Machine, engine: Engine) -> Machine {
    let snapshot = machine.snapshot();
    let mut bytes = Vec::new();
    snapshot.write_to(&mut bytes).expect("memory takes it");
    let mut machine = Machine::restore_from(&*bytes).expect("it is whole");
    machine.set_engine(engine);
    machine
}

#[test]
fn a_reboot_is_the_same_however_the_machine_is_run() {
    for harts in [1, 2] {
        let expected = run(
            machine(begins_anew(), harts),
            Engine::Interpreter,
            END,
            false,
        );
        assert!(expected.1.len() >= 5, "{expected:?}");
        assert_eq!(
            expected.0,
            vec![b'0'; expected.1.len() + 1],
            "everything was at its reset value each time"
        );
        for engine in Engine::ALL {
            for (step, restores) in [(END, false), (977, false), (13, false), (4093, true)] {
                let machine = machine(begins_anew(), harts);
                let found = run(machine, engine, step, restores);
                assert_eq!(
                    found, expected,
                    "{harts} harts, {engine:?}, steps of {step}, restored: {restores}"
                );
            }
        }
    }
}

#[test]
fn a_machine_that_shall_not_reboot_ends_at_the_reset_and_so_does_its_copy() {
    for restores in [false, true] {
        let mut machine = machine(begins_anew(), 1);
        machine.end_at_reset();
        if restores {
            machine = restored(&machine, Engine::Jit);
        }
        let mut outputs = Vec::new();
        let stop = loop {
            match machine.run(END) {
                Stop::Output => outputs.extend(machine.outputs()),
                stop => break stop,
            }
        };
        assert_eq!(stop, Stop::Finished(Finish::Reset));
        assert_eq!(outputs.last(), Some(&Output::Finish(Finish::Reset)));
    }
}

#[test]
fn a_snapshot_whose_images_are_no_images_is_refused() {
    let machine = machine(begins_anew(), 1);
    let mut bytes = Vec::new();
    let snapshot = machine.snapshot();
    let mut images = snapshot.images().to_vec();
    assert_eq!(images.len(), 4, "it holds what a reset loads");
    images.pop();
    let state = snapshot.state(NAME, SEMANTICS_VERSION).expect("it is ours");
    let head = SnapshotHead::new(NAME, SEMANTICS_VERSION, state.to_vec()).with_images(images);
    let writer = SnapshotWriter::begin(&head, &mut bytes).expect("memory takes it");
    writer.end().expect("memory takes it");
    let read = Snapshot::read_from(&mut &*bytes).expect("its form is right");
    let error = Machine::restore(&read).err().expect("it is refused");
    assert!(error.to_string().contains("boot images"), "{error}");
}

/// The machine that a snapshot was taken of may begin anew before all of it is taken.
#[test]
fn a_snapshot_that_is_under_way_at_a_reset_is_of_the_machine_before() {
    let restore = |bytes: &[u8]| -> Box<dyn machine::Machine> {
        Box::new(Machine::restore_from(bytes).expect("it is whole"))
    };
    for engine in Engine::ALL {
        let mut machine = machine(begins_anew(), 1);
        machine.set_engine(engine);
        while machine.run(7000) == Stop::Output {
            machine.outputs();
        }
        let mut under_way = Some(RunningSnapshot::begin(&mut machine, restore));
        let mut reboots = 0;
        while let Some(snapshot) = under_way {
            let until = machine.instruction_count() + 500;
            while machine.run(until) == Stop::Output {
                let outputs = machine.outputs();
                reboots += outputs.iter().filter(|o| **o == Output::Reboot).count();
            }
            under_way = match reboots {
                0 | 1 => snapshot.go_on(&mut machine, 1, restore),
                _ => snapshot.go_on(&mut machine, usize::MAX >> 8, restore),
            }
            .unwrap_or_else(|error| panic!("{engine:?}: {error}"));
        }
        assert!(reboots > 1, "{engine:?}");
    }
}

// Requests that are open when the guest resets

/// Where a queue has its parts, from its own 64 KiB on.
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
const HEADER: u64 = 0x3000;
const STATUS: u64 = 0x3100;
const BUFFER: u64 = 0x4000;
const BUFFER_BYTES: u32 = 512;

fn queue_memory(slot: u64) -> u64 {
    DATA + slot * 0x1_0000
}

/// Sets up queue 0 of a virtio device and makes one chain available, of the parts given as address,
/// length and whether the device writes it.
fn ask(asm: &mut Assembler, slot: u64, chain: &[(u64, u32, bool)]) {
    let memory = queue_memory(slot);
    let device = VIRTIO_BASE + slot * VIRTIO_SLOT_SIZE;
    let write = |asm: &mut Assembler, op, address, value| {
        asm.li(T0, address);
        asm.li(T1, value);
        asm.store(op, T1, T0, 0);
    };
    for (offset, value) in [
        (0x70, 3),
        (0x24, 1),
        (0x20, 1), // VIRTIO_F_VERSION_1
        (0x70, 11),
        (0x30, 0),
        (0x38, 8),
        (0x80, memory),
        (0x90, memory + AVAILABLE),
        (0xa0, memory + USED),
        (0x44, 1),
        (0x70, 15),
    ] {
        write(asm, Op::Sw, device + offset, value);
    }
    for (index, &(address, length, device_writes)) in chain.iter().enumerate() {
        let index = index as u64;
        let next = (index + 1) % chain.len() as u64;
        let flags = u64::from(device_writes) << 1 | u64::from(next != 0);
        let descriptor = memory + 16 * index;
        write(asm, Op::Sd, descriptor, address);
        write(
            asm,
            Op::Sd,
            descriptor + 8,
            u64::from(length) | flags << 32 | next << 48,
        );
    }
    write(asm, Op::Sh, memory + AVAILABLE + 2, 1);
    write(asm, Op::Sw, device + 0x50, 0);
}

/// Asks its disk for a sector and its entropy device for bytes; then does what it reads: `r` resets,
/// anything else prints how far both queues have come and a byte of both buffers.
fn asks() -> Assembler {
    let mut asm = Assembler::new(RAM_BASE);
    let disk = queue_memory(0);
    ask(
        &mut asm,
        0,
        &[
            (disk + HEADER, 16, false), // zero: VIRTIO_BLK_T_IN, sector 0
            (disk + BUFFER, BUFFER_BYTES, true),
            (disk + STATUS, 1, true),
        ],
    );
    ask(&mut asm, 1, &[(queue_memory(1) + BUFFER, 64, true)]);
    asm.li(S1, UART_BASE);
    let poll = asm.bound_label();
    asm.i(Op::Lbu, T0, S1, 5);
    asm.i(Op::Andi, T0, T0, 1);
    asm.branch(Op::Beq, T0, ZERO, poll);
    asm.i(Op::Lbu, T0, S1, 0);
    let print = asm.label();
    asm.li(T1, u64::from(b'r'));
    asm.branch(Op::Bne, T0, T1, print);
    reset(&mut asm);
    asm.bind(print);
    for slot in [0, 1] {
        for offset in [USED + 2, BUFFER] {
            asm.li(T0, queue_memory(slot) + offset);
            asm.i(Op::Lbu, T0, T0, 0);
            asm.store(Op::Sb, T0, S1, 0);
        }
    }
    asm.jal(ZERO, poll);
    asm
}

/// A machine, saved and restored at every step if asked.
struct Driven {
    machine: Machine,
    engine: Engine,
    restores: bool,
}

impl Driven {
    /// Lets it take an input and runs a while: what came out.
    fn after(&mut self, input: Option<Input>) -> Vec<Output> {
        if self.restores {
            self.machine = restored(&self.machine, self.engine);
        }
        if let Some(input) = input {
            self.machine.inject(&input).expect("it expects this input");
        }
        let until = self.machine.instruction_count() + 3000;
        let mut outputs = Vec::new();
        while self.machine.run(until) == Stop::Output {
            outputs.extend(self.machine.outputs());
        }
        outputs.extend(self.machine.outputs());
        outputs
    }

    fn told(&mut self, byte: u8) -> Vec<Output> {
        self.after(Some(Input::ConsoleBytes {
            console: Console::Uart,
            bytes: vec![byte],
        }))
    }

    fn completed(&mut self, request: u64, byte: u8) -> Vec<Output> {
        self.after(Some(Input::DiskCompletion {
            device: 0,
            request,
            status: DiskStatus::Ok,
            data: vec![byte; BUFFER_BYTES as usize],
        }))
    }

    /// How far the disk's queue has come, a byte of its buffer, and the same of the entropy device.
    fn progress(&mut self) -> [u8; 4] {
        match &self.told(b'p')[..] {
            [Output::ConsoleBytes { bytes, .. }] => bytes[..].try_into().expect("four bytes"),
            other => panic!("{other:?}"),
        }
    }
}

fn read(request: u64) -> DiskRequest {
    DiskRequest {
        device: 0,
        request,
        operation: DiskOperation::Read {
            sector: 0,
            length: BUFFER_BYTES,
        },
    }
}

#[test]
fn requests_that_are_open_at_a_reset_end_and_serve_nobody() {
    let mut digests = Vec::new();
    for engine in Engine::ALL {
        for restores in [false, true] {
            let mut machine = machine(asks(), 1);
            machine.set_engine(engine);
            let mut guest = Driven {
                machine,
                engine,
                restores,
            };
            let entropy = Output::EntropyRequest { length: 64 };
            assert_eq!(guest.after(None), [Output::Disk(read(0)), entropy.clone()]);
            assert_eq!(
                guest.told(b'r'),
                [Output::Reboot, Output::Disk(read(1))],
                "numbers go on; entropy is on its way already"
            );
            assert_eq!(guest.machine.open_disk_requests(), [read(0), read(1)]);
            assert_eq!(guest.progress(), [0, 0, 0, 0]);
            assert_eq!(guest.completed(0, 0xaa), []);
            assert_eq!(guest.progress(), [0, 0, 0, 0], "it was the old guest's");
            assert_eq!(guest.completed(1, 0xbb), []);
            assert_eq!(guest.progress(), [1, 0xbb, 0, 0]);
            let bytes = vec![0xcc; 64];
            assert_eq!(guest.after(Some(Input::Entropy { bytes })), []);
            assert_eq!(guest.progress(), [1, 0xbb, 1, 0xcc]);
            // Once more, with nothing under way.
            let again = [Output::Reboot, Output::Disk(read(2)), entropy];
            assert_eq!(guest.told(b'r'), again);
            assert_eq!(guest.progress(), [0, 0, 0, 0]);
            digests.push(guest.machine.digest());
        }
    }
    assert!(
        digests.iter().all(|digest| *digest == digests[0]),
        "{digests:x?}"
    );
}

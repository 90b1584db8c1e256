//! A bare-metal guest program that checks itself: it stores what it finds, in order, and the test
//! compares that with what the specification says.
//!
//! Registers x24 to x27 belong to this harness: x24 scratch, x25 where the next result goes, x26
//! where the trap handler continues, x27 the handler's scratch.

use crate::assembler::{Assembler, Label, elf, register::*};
use crate::execution::Execution;
use machine::config::BoardConfig;
use machine::config::BootImages;
use machine::input::{ClockRecord, Console, Input};
use machine::{Machine as _, Stop};
use riscv::board::bus::{FINISHER_BASE, VIRTIO_BASE};
use riscv::hart::csr::{number, status};
use riscv::isa::Op;
use riscv::isa::{Extension, Extensions};
use riscv::memory::RAM_BASE;
use riscv::{Config, Machine};

/// A program runs most of its instructions once: on the engines that compile what is executed often,
/// only chaos makes it hot. Its seed, for all programs.
const CHAOS_SEED: u64 = 0x5eed;

/// RAM of the machine, in bytes.
pub const MEMORY_BYTES: u64 = 16 << 20;
/// Where results go; the double-word before them says where the next one would have gone.
const RESULTS: u64 = RAM_BASE + (4 << 20);
/// `mstatus` as the trap handler found it.
pub const TRAP_STATUS: u64 = RESULTS - 16;
/// Room that a program may use as it likes, up to [`SCRATCH_END`].
pub const SCRATCH: u64 = RAM_BASE + (8 << 20);
/// End of that room.
pub const SCRATCH_END: u64 = RAM_BASE + (12 << 20);
/// The queue of the virtio console, and the number of transfers that the program has asked for.
const TRANSFER_QUEUE: u64 = SCRATCH_END;
const TRANSFER_QUEUE_SIZE: u64 = 8;
const TRANSFER_REQUEST: u64 = TRANSFER_QUEUE + 0xc00;
/// Instructions after which a program that has not finished hangs.
const LIMIT: u64 = 20_000_000;
/// What the program reports when a trap comes that it did not expect.
const UNEXPECTED_TRAP: u16 = 99;

/// Privilege modes as in `mstatus.MPP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    User = 0,
    Supervisor = 1,
    Machine = 3,
}

/// What a result has to be.
#[derive(Clone, Copy, Debug)]
pub enum Expected {
    /// This value.
    Value(u64),
    /// The address of a label.
    Address(Label),
    /// The address of a label and some bytes.
    Beyond(Label, u64),
    /// This value in the bits under the mask (mask, value).
    Bits(u64, u64),
}

impl From<u64> for Expected {
    fn from(value: u64) -> Expected {
        Expected::Value(value)
    }
}

impl From<Label> for Expected {
    fn from(label: Label) -> Expected {
        Expected::Address(label)
    }
}

/// A trap handler for S-mode that reports what it finds and leaves to M-mode by `ecall`.
#[derive(Clone, Copy)]
pub struct SupervisorHandler {
    /// Its first instruction.
    pub entry: Label,
    call: Label,
}

/// A guest program and what it has to find.
pub struct Guest {
    pub asm: Assembler,
    checks: Vec<(String, Expected)>,
    subjects: Vec<Op>,
    harts: u32,
    /// What the virtio console receives at each [`Guest::transfer`].
    transfers: Vec<u64>,
    restored_every: Option<u64>,
    extensions: Extensions,
}

impl Guest {
    /// A program for one hart: in M-mode, floating point on, all memory open to all modes.
    pub fn new() -> Guest {
        let mut guest = Guest {
            asm: Assembler::new(RAM_BASE),
            checks: Vec::new(),
            subjects: Vec::new(),
            harts: 1,
            transfers: Vec::new(),
            restored_every: None,
            extensions: Extensions::ALL,
        };
        guest.prologue();
        guest
    }

    fn prologue(&mut self) {
        let asm = &mut self.asm;
        let (start, abort) = (asm.label(), asm.label());
        asm.jal(ZERO, start);
        asm.align(4);
        let handler = asm.bound_label();
        for (offset, csr) in [number::MCAUSE, number::MEPC, number::MTVAL]
            .into_iter()
            .enumerate()
        {
            asm.csr(Op::Csrrs, S11, csr, ZERO);
            asm.store(Op::Sd, S11, S9, 8 * offset as i32);
        }
        asm.i(Op::Addi, S9, S9, 24);
        asm.li(S8, TRAP_STATUS);
        asm.csr(Op::Csrrs, S11, number::MSTATUS, ZERO);
        asm.store(Op::Sd, S11, S8, 0);
        asm.csr(Op::Csrrw, ZERO, number::MEPC, S10);
        asm.la(S10, abort);
        asm.li(S11, status::MPP);
        asm.csr(Op::Csrrs, ZERO, number::MSTATUS, S11);
        asm.li(S11, status::MPIE); // an interrupt stays pending, but is not taken again
        asm.csr(Op::Csrrc, ZERO, number::MSTATUS, S11);
        asm.op(Op::Mret, 0, 0, 0, 0);
        asm.bind(abort);
        self.finish_with(0x3333 | u64::from(UNEXPECTED_TRAP) << 16);
        let asm = &mut self.asm;
        asm.bind(start);
        asm.li(S9, RESULTS);
        asm.la(S10, abort);
        asm.la(S8, handler);
        asm.csr(Op::Csrrw, ZERO, number::MTVEC, S8);
        asm.li(S8, u64::MAX);
        asm.csr(Op::Csrrw, ZERO, number::PMPADDR0, S8);
        asm.li(S8, 0x1f); // NAPOT, RWX
        asm.csr(Op::Csrrw, ZERO, number::PMPCFG0, S8);
        asm.li(S8, 1 << 13); // FS = Initial
        asm.csr(Op::Csrrs, ZERO, number::MSTATUS, S8);
    }

    /// There is a second hart, which executes this and then spins.
    pub fn on_a_second_hart(&mut self, body: impl FnOnce(&mut Assembler)) {
        assert_eq!(self.harts, 1, "there are two harts at most");
        self.harts = 2;
        let asm = &mut self.asm;
        let first = asm.label();
        asm.csr(Op::Csrrs, S8, number::MHARTID, ZERO);
        asm.branch(Op::Beq, S8, ZERO, first);
        body(asm);
        let forever = asm.bound_label();
        asm.jal(ZERO, forever);
        asm.bind(first);
    }

    fn finish_with(&mut self, code: u64) {
        let asm = &mut self.asm;
        asm.li(S8, RESULTS);
        asm.store(Op::Sd, S9, S8, -8);
        asm.li(S8, FINISHER_BASE);
        asm.li(S11, code);
        asm.store(Op::Sw, S11, S8, 0);
        let forever = asm.bound_label();
        asm.jal(ZERO, forever);
    }

    /// Says that the program tests this instruction.
    pub fn tests(&mut self, op: Op) {
        self.subjects.push(op);
    }

    /// The instructions that the program tests.
    pub fn subjects(&self) -> &[Op] {
        &self.subjects
    }

    /// The register has to hold this now.
    pub fn check(&mut self, register: u8, expected: impl Into<Expected>, what: impl Into<String>) {
        self.asm.store(Op::Sd, register, S9, 0);
        self.asm.i(Op::Addi, S9, S9, 8);
        self.checks.push((what.into(), expected.into()));
    }

    /// The floating-point register has to hold these bits now.
    pub fn check_float(&mut self, register: u8, expected: u64, what: impl Into<String>) {
        self.asm.store(Op::Fsd, register, S9, 0);
        self.asm.i(Op::Addi, S9, S9, 8);
        self.checks.push((what.into(), expected.into()));
    }

    /// What the program itself stores at S9 next, moving S9 on, has to be this.
    pub fn expects(&mut self, expected: impl Into<Expected>, what: impl Into<String>) {
        self.checks.push((what.into(), expected.into()));
    }

    /// What `body` emits runs so often that an engine which compiles does; its checks are about the
    /// last round. Takes S6 and S7.
    pub fn rounds(&mut self, body: impl FnOnce(&mut Guest)) {
        const ROUNDS: u64 = 40;
        self.asm.i(Op::Addi, S7, S9, 0);
        self.asm.li(S6, ROUNDS);
        let top = self.asm.bound_label();
        let done = self.asm.label();
        self.asm.i(Op::Addi, S9, S7, 0);
        body(self);
        self.asm.i(Op::Addi, S6, S6, -1);
        self.asm.branch(Op::Beq, S6, ZERO, done);
        self.asm.jal(ZERO, top);
        self.asm.bind(done);
    }

    /// The CSR has to read as this now.
    pub fn check_csr(&mut self, csr: u16, expected: impl Into<Expected>, what: impl Into<String>) {
        self.asm.csr(Op::Csrrs, S8, csr, ZERO);
        self.check(S8, expected, what);
    }

    /// The CSR's bits under `mask` have to read as `value`.
    pub fn check_bits(&mut self, csr: u16, mask: u64, value: u64, what: impl Into<String>) {
        self.check_csr(csr, Expected::Bits(mask, value), what);
    }

    /// The double-word at `address` has to be this now.
    pub fn check_memory(
        &mut self,
        address: u64,
        expected: impl Into<Expected>,
        what: impl Into<String>,
    ) {
        self.asm.li(S8, address);
        self.asm.i(Op::Ld, S8, S8, 0);
        self.check(S8, expected, what);
    }

    /// Writes a CSR.
    pub fn write_csr(&mut self, csr: u16, value: u64) {
        self.asm.li(S8, value);
        self.asm.csr(Op::Csrrw, ZERO, csr, S8);
    }

    /// Sets bits of a CSR.
    pub fn set_csr(&mut self, csr: u16, bits: u64) {
        self.asm.li(S8, bits);
        self.asm.csr(Op::Csrrs, ZERO, csr, S8);
    }

    /// Clears bits of a CSR.
    pub fn clear_csr(&mut self, csr: u16, bits: u64) {
        self.asm.li(S8, bits);
        self.asm.csr(Op::Csrrc, ZERO, csr, S8);
    }

    /// Stores `size` bytes at an address.
    pub fn poke(&mut self, address: u64, size: usize, value: u64) {
        let op = match size {
            1 => Op::Sb,
            2 => Op::Sh,
            4 => Op::Sw,
            _ => Op::Sd,
        };
        self.asm.li(S8, address);
        self.asm.li(S11, value);
        self.asm.store(op, S11, S8, 0);
    }

    /// What follows runs in `mode` (`mret`), until a trap leads back to M-mode.
    pub fn enter(&mut self, mode: Mode) {
        self.clear_csr(number::MSTATUS, status::MPP);
        self.set_csr(number::MSTATUS, (mode as u64) << 11);
        let label = self.asm.label();
        self.asm.la(S8, label);
        self.asm.csr(Op::Csrrw, ZERO, number::MEPC, S8);
        self.asm.op(Op::Mret, 0, 0, 0, 0);
        self.asm.bind(label);
    }

    /// What `body` emits, run in `mode`, has to trap to M-mode with this cause at the place that
    /// `body` gives, with this `mtval`. The program goes on behind it in M-mode.
    pub fn traps<E: Into<Expected>>(
        &mut self,
        mode: Mode,
        cause: u64,
        value: impl Into<Expected>,
        what: &str,
        body: impl FnOnce(&mut Guest) -> E,
    ) {
        let resume = self.asm.label();
        self.asm.la(S10, resume);
        if mode != Mode::Machine {
            self.enter(mode);
        }
        let pc = body(self).into();
        self.asm.jal(ZERO, resume); // no trap came: the results that follow are off by three
        self.asm.bind(resume);
        self.trap_results(cause, pc, value, what);
    }

    /// The handler has stored the trap's three results here.
    fn trap_results(&mut self, cause: u64, pc: Expected, value: impl Into<Expected>, what: &str) {
        self.checks.push((format!("{what}: mcause"), cause.into()));
        self.checks.push((format!("{what}: mepc"), pc));
        self.checks.push((format!("{what}: mtval"), value.into()));
    }

    /// Like [`Guest::traps`] for one instruction.
    pub fn instruction_traps(
        &mut self,
        mode: Mode,
        cause: u64,
        value: impl Into<Expected>,
        what: &str,
        emit: impl FnOnce(&mut Assembler),
    ) {
        self.traps(mode, cause, value, what, |guest| {
            let pc = guest.asm.bound_label();
            emit(&mut guest.asm);
            pc
        });
    }

    /// A trap handler for S-mode, to be given to [`Guest::supervisor_traps`]; also sets `stvec`.
    pub fn supervisor_handler(&mut self) -> SupervisorHandler {
        let asm = &mut self.asm;
        let past = asm.label();
        asm.jal(ZERO, past);
        asm.align(4);
        let entry = asm.bound_label();
        for (index, csr) in [number::SCAUSE, number::SEPC, number::STVAL]
            .into_iter()
            .enumerate()
        {
            asm.csr(Op::Csrrs, S8, csr, ZERO);
            asm.store(Op::Sd, S8, S9, 8 * index as i32);
        }
        asm.i(Op::Addi, S9, S9, 24);
        let call = asm.bound_label();
        asm.op(Op::Ecall, 0, 0, 0, 0);
        asm.bind(past);
        asm.la(S8, entry);
        asm.csr(Op::Csrrw, ZERO, number::STVEC, S8);
        SupervisorHandler { entry, call }
    }

    /// As [`Guest::traps`], for a trap that is delegated: the handler finds it in S-mode.
    pub fn supervisor_traps<E: Into<Expected>>(
        &mut self,
        handler: SupervisorHandler,
        mode: Mode,
        cause: u64,
        value: impl Into<Expected>,
        what: &str,
        body: impl FnOnce(&mut Guest) -> E,
    ) {
        self.traps(
            mode,
            9,
            0,
            &format!("{what}: the handler's ecall"),
            |guest| {
                let pc = body(guest).into();
                guest.checks.push((format!("{what}: scause"), cause.into()));
                guest.checks.push((format!("{what}: sepc"), pc));
                guest.checks.push((format!("{what}: stval"), value.into()));
                handler.call
            },
        );
    }

    /// An interrupt has to be taken in M-mode at the place that `body` gives.
    pub fn interrupts<E: Into<Expected>>(
        &mut self,
        mode: Mode,
        cause: u64,
        what: &str,
        body: impl FnOnce(&mut Guest) -> E,
    ) {
        self.traps(mode, 1 << 63 | cause, 0, what, body);
    }

    /// Runs the program on every engine, with and without chaos, and compares.
    pub fn run(mut self) {
        self.finish_with(0x5555);
        let addresses: Vec<_> = self.checks.iter().map(|(_, e)| self.resolve(*e)).collect();
        let program = self.asm.finish();
        assert!(
            program.len() < (RESULTS - RAM_BASE) as usize,
            "the program reaches its results"
        );
        let image = elf(RAM_BASE, &program);
        for execution in Execution::all(CHAOS_SEED) {
            for restored_every in [None, self.restored_every] {
                let run = Run {
                    execution,
                    harts: self.harts,
                    transfers: &self.transfers,
                    restored_every,
                    extensions: self.extensions,
                };
                let machine = run.program(&image);
                compare(&machine, &run, &self.checks, &addresses);
                if self.restored_every.is_none() {
                    break;
                }
            }
        }
    }

    /// The program is run twice: the second time on a machine that is replaced by one restored from
    /// its snapshot, whose caches are cold, every so many instructions.
    pub fn also_restored_every(&mut self, instructions: u64) {
        self.restored_every = Some(instructions);
    }

    /// The board does not have this extension.
    pub fn without(&mut self, extension: Extension) {
        self.extensions = self.extensions.without(extension);
    }

    /// Makes the virtio console ready for [`Guest::transfer`].
    pub fn set_up_transfers(&mut self) {
        for (register, value) in [
            (0x70, 3),                                      // status: acknowledge, driver
            (0x24, 1),                                      // driver features, upper half:
            (0x20, 1),                                      // VIRTIO_F_VERSION_1
            (0x70, 11),                                     // features OK
            (0x30, 0),                                      // the receive queue
            (0x38, TRANSFER_QUEUE_SIZE),                    //
            (0x80, TRANSFER_QUEUE & 0xffff_ffff),           // descriptors
            (0x90, (TRANSFER_QUEUE + 0x400) & 0xffff_ffff), // driver ring
            (0xa0, (TRANSFER_QUEUE + 0x800) & 0xffff_ffff), // device ring
            (0x44, 1),                                      // ready
            (0x70, 15),                                     // driver OK
        ] {
            self.poke(VIRTIO_BASE + register, 4, value);
        }
    }

    /// The device writes `value` to `address`; the program goes on when it has.
    pub fn transfer(&mut self, address: u64, value: u64) {
        self.transfers.push(value);
        let number = self.transfers.len() as u64;
        self.poke(TRANSFER_QUEUE, 8, address);
        self.poke(TRANSFER_QUEUE + 8, 8, 2 << 32 | 8); // 8 bytes, for the device to write
        self.poke(TRANSFER_QUEUE + 0x402, 2, number); // available: descriptor 0, once more
        self.poke(VIRTIO_BASE + 0x50, 4, 0);
        self.poke(TRANSFER_REQUEST, 8, number);
        let asm = &mut self.asm;
        asm.li(S8, TRANSFER_QUEUE + 0x802);
        asm.li(S11, number & 0xffff);
        let (top, done) = (asm.bound_label(), asm.label());
        asm.i(Op::Lhu, T6, S8, 0);
        asm.branch(Op::Beq, T6, S11, done);
        asm.jal(ZERO, top);
        asm.bind(done);
    }

    fn resolve(&self, expected: Expected) -> (u64, u64) {
        match expected {
            Expected::Value(value) => (u64::MAX, value),
            Expected::Address(label) => (u64::MAX, self.asm.address(label)),
            Expected::Beyond(label, bytes) => (u64::MAX, self.asm.address(label) + bytes),
            Expected::Bits(mask, value) => (mask, value),
        }
    }
}

/// How a program is run.
#[derive(Debug)]
struct Run<'a> {
    execution: Execution,
    harts: u32,
    transfers: &'a [u64],
    restored_every: Option<u64>,
    extensions: Extensions,
}

impl Run<'_> {
    /// Runs a program until it finishes.
    fn program(&self, image: &[u8]) -> Machine {
        let board = BoardConfig {
            memory_bytes: MEMORY_BYTES,
            harts: self.harts,
            network: Vec::new(),
            disks: Vec::new(),
            virtio_console: true,
            entropy: false,
            transport: Default::default(),
        };
        let config = Config {
            board,
            extensions: self.extensions,
            unix_base_ns: 0,
        };
        let images = BootImages {
            kernel: Some(image.to_vec()),
            ..BootImages::default()
        };
        let mut machine = Machine::new(config, &images).expect("the program loads");
        self.execution.apply(&mut machine);
        // Stops are needed only to see that a transfer is asked for, or to restore.
        let polls = if self.transfers.is_empty() {
            LIMIT
        } else {
            2000
        };
        let step = self.restored_every.unwrap_or(polls);
        let mut transfers = self.transfers.iter().enumerate();
        let mut next_transfer = transfers.next();
        loop {
            match machine.run(LIMIT.min(machine.instruction_count() + step)) {
                Stop::Finished(_) => return machine,
                Stop::Output => drop(machine.outputs()),
                Stop::Idle {
                    wake_at_ns: Some(time_ns),
                } => skip_to(&mut machine, time_ns),
                Stop::Reached if machine.instruction_count() < LIMIT => {}
                stop => panic!("{self:?}: {stop:?}, not finished\n{}", machine.describe()),
            }
            if let Some((number, value)) = next_transfer
                && requested_transfers(&machine) > number as u64
            {
                let bytes = value.to_le_bytes().to_vec();
                let input = Input::ConsoleBytes {
                    console: Console::Virtio,
                    bytes,
                };
                machine.inject(&input).expect("there is a virtio console");
                next_transfer = transfers.next();
            }
            if self.restored_every.is_some() {
                machine = Machine::restore(&machine.snapshot()).expect("its own snapshot");
                self.execution.apply(&mut machine);
            }
        }
    }
}

fn requested_transfers(machine: &Machine) -> u64 {
    u64::from_le_bytes(machine.read_array(TRANSFER_REQUEST).expect("it is RAM"))
}

/// Moves guest time to the next timer, as a host does while all harts wait.
fn skip_to(machine: &mut Machine, time_ns: u64) {
    let rate = machine.clock().rate;
    let input = Input::Clock(ClockRecord { time_ns, rate });
    machine.inject(&input).expect("time moves on");
}

fn compare(machine: &Machine, run: &Run, checks: &[(String, Expected)], expected: &[(u64, u64)]) {
    let read = |address| u64::from_le_bytes(machine.read_array(address).expect("it is RAM"));
    let mut shown = 0;
    let found = (read(RESULTS - 8).wrapping_sub(RESULTS) / 8).min(1 << 18) as usize;
    let mut wrong = String::new();
    for (index, ((what, _), (mask, value))) in checks.iter().zip(expected).enumerate().take(found) {
        let result = read(RESULTS + 8 * index as u64);
        if result & mask != *value & mask {
            wrong += &format!("{what}: {result:#x}, not {value:#x} (mask {mask:#x})\n");
            shown += 1;
            if shown == 10 {
                break;
            }
        }
    }
    if found != checks.len() {
        let last = |back: u64| read(RESULTS + 8 * (found as u64).saturating_sub(back));
        wrong += &format!(
            "{found} results instead of {}; next would be {:?}; the last three are {:#x} {:#x} {:#x}\n",
            checks.len(),
            checks.get(found).map(|check| &check.0),
            last(3),
            last(2),
            last(1)
        );
    }
    assert!(wrong.is_empty(), "{run:?}:\n{wrong}{}", machine.describe());
}

/// Declares guest programs: each is a test, and all of them are in `GUESTS`.
macro_rules! guests {
    ($($(#[$attribute:meta])* fn $name:ident($guest:ident) $body:block)*) => {
        $(
            $(#[$attribute])*
            #[test]
            fn $name() {
                build::$name().run();
            }
        )*
        mod build {
            use super::*;
            $(
                pub fn $name() -> Guest {
                    let mut $guest = Guest::new();
                    {
                        let $guest = &mut $guest;
                        $body
                    }
                    $guest
                }
            )*
        }
        /// The programs of this file, for the coverage test.
        pub const GUESTS: &[fn() -> Guest] = &[$(build::$name),*];
    };
}
pub(crate) use guests;

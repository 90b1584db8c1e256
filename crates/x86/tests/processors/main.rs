//! Several CPUs: how they start, interrupt each other and take turns, and that what one stores the others see,
//! whatever an engine has remembered of it for them.

mod interrupts;
#[path = "../../testing/kernel_image.rs"]
mod kernel_image;
mod memory;
mod starting;
mod turns;

use iced_x86::code_asm::*;
use kernel_image::kernel_image;
use machine::Stop;
use machine::config::{BoardConfig, MachineConfig};
use machine::debugging::Debuggable;
use machine::engine::Engine;
use machine::input::{ClockRecord, Input};
use machine::output::Output;
use x86::boot::BootImages;
use x86::machine::{Machine, PowerOnError};

const LOAD: u64 = 0x10_0000;
const ENTRY: u64 = LOAD + 0x200;
/// Where programs keep what the tests look at.
const DATA: u64 = 0x20_0000;
/// The word by which CPUs take turns.
const TURN: u64 = DATA + 0x8000;
const DESCRIPTORS: u64 = 0x1_0000;
const APIC: u64 = 0xfee0_0000;
const MAILBOX: u64 = 0xd000_8000;
const VECTOR: u32 = 0x50;
const SLICE: u64 = 200_000;
const FIXED: u32 = VECTOR;
const NONMASKABLE: u32 = 4 << 8;
const LOGICAL: u32 = 1 << 11;

type Assembled = Result<(), IcedError>;

/// A program: its first CPU begins at the first instruction.
struct Program {
    a: CodeAssembler,
    cpus: u32,
}

impl Program {
    /// The first CPU goes by the rules that the others begin with: else they would never share a translation.
    fn new(cpus: u32) -> Program {
        let mut a = CodeAssembler::new(64).expect("there is 64-bit code");
        let mut begin = || {
            a.mov(rsp, 0x8_0000u64)?;
            a.mov(ecx, 0xc000_0080u32)?;
            a.rdmsr()?;
            a.or(eax, 0x800)?; // NXE
            a.wrmsr()
        };
        begin().expect("it assembles");
        Program { a, cpus }
    }

    /// A CPU begins at a label.
    fn wake(&mut self, cpu: u32, label: CodeLabel) -> Assembled {
        let a = &mut self.a;
        a.mov(rdx, MAILBOX)?;
        a.lea(rax, ptr(label))?;
        a.mov(dword_ptr(rdx + 4), cpu as i32)?;
        a.mov(qword_ptr(rdx + 8), rax)?;
        a.mov(word_ptr(rdx), 1)
    }

    /// The others do something, then nothing any more.
    fn on_another(
        &mut self,
        cpu: u32,
        program: impl FnOnce(&mut CodeAssembler) -> Assembled,
    ) -> Assembled {
        let (mut other, mut behind) = (self.a.create_label(), self.a.create_label());
        self.wake(cpu, other)?;
        self.a.jmp(behind)?;
        self.a.set_label(&mut other)?;
        self.a.mov(rsp, 0x8_0000 - u64::from(cpu) * 0x2000)?;
        program(&mut self.a)?;
        stop(&mut self.a)?;
        self.a.set_label(&mut behind)
    }

    /// An interrupt gate, or with `kind` 0x8f a trap gate.
    fn gate(&mut self, vector: u32, handler: CodeLabel, kind: u32) -> Assembled {
        let a = &mut self.a;
        a.mov(rdx, DESCRIPTORS + u64::from(vector) * 16)?;
        a.lea(rax, ptr(handler))?;
        a.mov(word_ptr(rdx), ax)?;
        a.mov(word_ptr(rdx + 2), 0x10)?;
        a.mov(word_ptr(rdx + 4), kind << 8)?;
        a.shr(rax, 16)?;
        a.mov(word_ptr(rdx + 6), ax)?;
        a.mov(qword_ptr(rdx + 8), 0)
    }

    /// The gates of interrupts; each CPU has to load them ([`load_tables`]). The handlers count in the words of the
    /// CPU at [`DATA`], numbered by R15.
    fn handlers(&mut self) -> Assembled {
        let mut label = || self.a.create_label();
        let (mut fixed, mut nonmaskable, mut behind) = (label(), label(), label());
        self.gate(VECTOR, fixed, 0x8e)?;
        self.gate(2, nonmaskable, 0x8e)?;
        let a = &mut self.a;
        a.mov(rax, DESCRIPTORS + 0x1000)?;
        a.mov(word_ptr(rax), 0xfff)?;
        a.mov(rcx, DESCRIPTORS)?;
        a.mov(qword_ptr(rax + 2), rcx)?;
        a.mov(word_ptr(rax + 16), 0x1f)?;
        a.mov(qword_ptr(rax + 18), 0x500)?;
        a.jmp(behind)?;
        a.set_label(&mut fixed)?;
        a.push(rax)?;
        a.mov(rax, DATA)?;
        a.inc(qword_ptr(rax + r15 * 8))?;
        a.mov(rax, APIC + 0xb0)?;
        a.mov(dword_ptr(rax), 0)?;
        a.pop(rax)?;
        a.iretq()?;
        a.set_label(&mut nonmaskable)?;
        a.push(rax)?;
        a.mov(rax, DATA)?;
        a.inc(qword_ptr(rax + r15 * 8 + 0x100))?;
        a.pop(rax)?;
        a.iretq()?;
        a.set_label(&mut behind)
    }

    fn machine(mut self, end: impl FnOnce(&mut CodeAssembler) -> Assembled) -> Machine {
        end(&mut self.a).expect("it assembles");
        let code = self.a.assemble(ENTRY).expect("it assembles");
        powered_on(self.cpus, &code).expect("it can be powered on")
    }
}

fn powered_on(cpus: u32, code: &[u8]) -> Result<Machine, PowerOnError> {
    let images = BootImages {
        kernel: kernel_image(LOAD, code),
        ..BootImages::default()
    };
    let config = MachineConfig {
        board: BoardConfig {
            memory_bytes: 16 << 20,
            harts: cpus,
            network: Vec::new(),
            disks: Vec::new(),
            virtio_console: false,
            entropy: false,
            transport: Default::default(),
        },
        features: Default::default(),
        unix_base_ns: 0,
    };
    Machine::new(config, &images)
}

/// Nothing wakes the CPU any more.
fn stop(a: &mut CodeAssembler) -> Assembled {
    a.cli()?;
    a.hlt()
}

/// Descriptor tables and a local APIC that is on; R15 is the CPU's number.
fn load_tables(a: &mut CodeAssembler, cpu: u64) -> Assembled {
    a.mov(r15, cpu)?;
    a.mov(rax, DESCRIPTORS + 0x1000)?;
    a.lidt(ptr(rax))?;
    a.lgdt(ptr(rax + 16))?;
    a.mov(rax, APIC)?;
    a.mov(dword_ptr(rax + 0xf0), 0x1ff)?;
    a.mov(dword_ptr(rax + 0xd0), (1 << cpu) << 24)
}

/// Writes the interrupt command register.
fn send(a: &mut CodeAssembler, destination: u32, command: u32) -> Assembled {
    a.mov(rax, APIC)?;
    a.mov(dword_ptr(rax + 0x310), (destination << 24) as i32)?;
    a.mov(dword_ptr(rax + 0x300), command as i32)
}

fn poke(a: &mut CodeAssembler, address: u64, value: u64) -> Assembled {
    a.mov(rax, address)?;
    a.mov(rcx, value)?;
    a.mov(qword_ptr(rax), rcx)
}

fn give_turn(a: &mut CodeAssembler, turn: u64) -> Assembled {
    poke(a, TURN, turn)
}

/// Waits as Linux does.
fn await_turn(a: &mut CodeAssembler, turn: u64) -> Assembled {
    let mut again = a.create_label();
    a.mov(rax, TURN)?;
    a.set_label(&mut again)?;
    a.pause()?;
    a.cmp(qword_ptr(rax), turn as i32)?;
    a.jne(again)
}

/// A loop of so many instructions.
fn compute(a: &mut CodeAssembler, instructions: u64) -> Assembled {
    let mut again = a.create_label();
    a.mov(rcx, instructions / 2)?;
    a.set_label(&mut again)?;
    a.dec(rcx)?;
    a.jnz(again)
}

/// How a program is run.
#[derive(Clone, Copy, Debug)]
enum Way {
    Interpreted,
    Compiled,
    Chaos(u64),
    Paranoid,
    /// Stopped often, and restored from a snapshot each time.
    Snapshots(Engine),
}

const WAYS: [Way; 6] = [
    Way::Interpreted,
    Way::Compiled,
    Way::Chaos(1),
    Way::Chaos(2),
    Way::Paranoid,
    Way::Snapshots(Engine::Jit),
];

fn prepare(machine: &mut Machine, way: Way) {
    let engine = match way {
        Way::Interpreted => Engine::Interpreter,
        Way::Compiled | Way::Chaos(_) => Engine::Jit,
        Way::Paranoid => Engine::Paranoid,
        Way::Snapshots(engine) => engine,
    };
    machine.set_engine(engine);
    if let Way::Chaos(seed) = way {
        machine.set_chaos(Some(seed));
    }
}

/// Runs until all CPUs wait for good.
fn run(mut machine: Machine, way: Way) -> Machine {
    prepare(&mut machine, way);
    let step = match way {
        Way::Snapshots(_) => 7001,
        _ => 20_000_000,
    };
    loop {
        match machine.run(machine.instruction_count() + step) {
            Stop::Idle { wake_at_ns: None } => return machine,
            Stop::Reached if machine.instruction_count() < 20_000_000 => {
                machine = Machine::restore(&machine.snapshot()).expect("it is a snapshot");
                prepare(&mut machine, way);
            }
            other => panic!("{way:?}: {other:?}\n{}", machine.describe()),
        }
    }
}

/// Runs a program in all ways, which have to come to the same end; gives the machine there.
fn everywhere(program: impl Fn() -> Machine) -> Machine {
    let mut first = run(program(), Way::Interpreted);
    let (count, digest) = (first.instruction_count(), first.digest());
    for way in WAYS {
        let mut machine = run(program(), way);
        let at = machine.instruction_count();
        assert_eq!((at, machine.digest()), (count, digest), "{way:?}");
    }
    first
}

fn peek(machine: &Machine, address: u64) -> u64 {
    u64::from_le_bytes(machine.read_memory(address).expect("it is RAM"))
}

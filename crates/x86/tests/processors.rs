//! Several CPUs: how they start, interrupt each other and take turns, and that what one stores the others see,
//! whatever an engine has remembered of it for them.

#[path = "../testing/kernel_image.rs"]
mod kernel_image;

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

#[test]
fn a_machine_has_one_to_eight_cpus() {
    for cpus in [1, 2, 8] {
        assert!(powered_on(cpus, &[0xf4]).is_ok());
    }
    for cpus in [0, 9, u32::MAX] {
        assert!(powered_on(cpus, &[0xf4]).is_err(), "{cpus}");
    }
}

/// ACPI 6.5, section 5.2.12.19: 64-bit mode, interrupts off; each knows who it is.
#[test]
fn cpus_that_are_woken_up_know_who_they_are() {
    let program = || {
        let mut program = Program::new(8);
        let mut other = program.a.create_label();
        for cpu in 1..8 {
            program.wake(cpu, other).unwrap();
        }
        program.machine(|a| {
            stop(a)?;
            a.set_label(&mut other)?;
            a.mov(r8, rsp)?; // zero: nothing is handed over
            a.mov(eax, 1)?;
            a.cpuid()?;
            a.shr(ebx, 24)?;
            a.mov(r9, rbx)?;
            a.mov(eax, 0xb)?;
            a.xor(ecx, ecx)?;
            a.cpuid()?;
            a.mov(r10, APIC)?;
            a.mov(r10d, dword_ptr(r10 + 0x20))?;
            a.shr(r10d, 24)?;
            a.mov(rsi, r9)?;
            a.shl(rsi, 6)?;
            a.mov(rdi, DATA)?;
            a.add(rsi, rdi)?;
            a.mov(qword_ptr(rsi), r9)?;
            a.mov(qword_ptr(rsi + 8), rdx)?;
            a.mov(qword_ptr(rsi + 16), r10)?;
            a.mov(rax, cr0)?;
            a.mov(qword_ptr(rsi + 24), rax)?;
            a.mov(ecx, 0xc000_0080u32)?;
            a.rdmsr()?;
            a.mov(qword_ptr(rsi + 32), rax)?;
            a.mov(ecx, 0x1b)?;
            a.rdmsr()?;
            a.mov(qword_ptr(rsi + 40), rax)?;
            a.mov(qword_ptr(rsi + 48), r8)?;
            a.lea(rsp, ptr(rsi + 64))?;
            a.pushfq()?;
            stop(a)
        })
    };
    let machine = everywhere(program);
    for cpu in 1..8 {
        let word = |index: u64| peek(&machine, DATA + cpu * 64 + index * 8);
        assert_eq!([word(0), word(1), word(2)], [cpu; 3], "CPU {cpu}");
        assert_eq!(word(3) & 0x8000_0001, 0x8000_0001);
        assert_eq!(word(4), 0xd00, "Linux' tables have NX");
        assert_eq!(word(5) & 0x100, 0, "it is not the boot processor");
        assert_eq!(word(6), 0);
        assert_eq!(word(7) & 0x200, 0);
    }
}

/// `acpi_mp_play_dead` and `acpi_mp_cpu_die` in Linux, and the CPU comes back.
#[test]
fn a_cpu_gives_itself_back_and_is_woken_up_again() {
    let program = || {
        let mut program = Program::new(2);
        for times in 1..4u64 {
            let leave = |a: &mut CodeAssembler| {
                // Nothing is left of what it was.
                a.mov(rax, DATA)?;
                a.mov(qword_ptr(rax + 0x40 + times as i32 * 8), rbx)?;
                a.mov(rbx, rsp)?;
                poke(a, DATA, times)?;
                a.mov(rax, 0xf_0000u64)?; // the MADT's reset vector
                a.jmp(rax)
            };
            program.on_another(1, leave).unwrap();
            let test = |a: &mut CodeAssembler| {
                let mut again = a.create_label();
                a.mov(rdx, MAILBOX)?;
                a.mov(dword_ptr(rdx + 4), 1)?;
                a.mov(word_ptr(rdx), 2)?;
                a.set_label(&mut again)?;
                a.pause()?;
                a.cmp(word_ptr(rdx), 0)?;
                a.jne(again)?;
                a.mov(rax, DATA)?;
                a.mov(rcx, qword_ptr(rax))?;
                a.mov(qword_ptr(rax + times as i32 * 8), rcx)
            };
            test(&mut program.a).unwrap();
        }
        program.machine(stop)
    };
    let machine = everywhere(program);
    for times in 1..4 {
        assert_eq!(peek(&machine, DATA + times * 8), times);
        assert_eq!(peek(&machine, DATA + 0x40 + times * 8), 0, "RBX");
    }
    // Behind the OUT it executed nothing.
    let views = machine.harts();
    assert_eq!(views[1].program_counter, 0xf_0005);
    assert!(
        views[1].describe.contains("wakeup"),
        "{}",
        views[1].describe
    );
}

/// What was sent to a CPU before it was woken up would come before it has any table.
#[test]
fn what_cannot_be_masked_is_not_kept_for_a_cpu_that_waits_for_its_wakeup() {
    let program = || {
        let mut program = Program::new(2);
        program.handlers().unwrap();
        send(&mut program.a, 1, NONMASKABLE).unwrap();
        let compute_once = |a: &mut CodeAssembler| {
            load_tables(a, 1)?;
            compute(a, 100)?;
            poke(a, DATA + 0x10, 1)
        };
        program.on_another(1, compute_once).unwrap();
        program.machine(stop)
    };
    let machine = everywhere(program);
    assert_eq!(peek(&machine, DATA + 0x10), 1);
    assert_eq!(peek(&machine, DATA + 0x108), 0, "interrupts");
}

/// All wait, and the timer of one that lets interrupts in is the next thing that happens.
#[test]
fn an_idle_machine_waits_for_the_timer_of_any_cpu() {
    const TIMER: u32 = VECTOR;
    let program = || {
        let mut program = Program::new(3);
        program.handlers().unwrap();
        for (cpu, nanoseconds) in [(1, 70_000_000), (2, 50_000_000)] {
            let wait = |a: &mut CodeAssembler| {
                load_tables(a, cpu)?;
                a.mov(rax, APIC)?;
                a.mov(dword_ptr(rax + 0x320), TIMER as i32)?;
                a.mov(dword_ptr(rax + 0x3e0), 0xb)?; // each nanosecond
                a.mov(dword_ptr(rax + 0x380), nanoseconds)?;
                if cpu == 1 {
                    a.sti()?; // it is not the last that runs
                    a.hlt()?;
                }
                Ok(())
            };
            program.on_another(cpu as u32, wait).unwrap();
        }
        program.machine(stop)
    };
    let mut ends = Vec::new();
    for way in WAYS {
        let mut machine = program();
        prepare(&mut machine, way);
        let Stop::Idle {
            wake_at_ns: Some(time_ns),
        } = machine.run(1_000_000)
        else {
            panic!("{way:?}: {}", machine.describe());
        };
        assert!((70_000_000..71_000_000).contains(&time_ns), "{time_ns}");
        let rate = machine.clock().rate;
        let clock = Input::Clock(ClockRecord { time_ns, rate });
        machine.inject(&clock).expect("time goes on");
        assert_eq!(machine.run(2_000_000), Stop::Idle { wake_at_ns: None });
        assert_eq!([8, 16].map(|word| peek(&machine, DATA + word)), [1, 0]);
        ends.push((machine.instruction_count(), machine.digest()));
    }
    assert!(ends.windows(2).all(|pair| pair[0] == pair[1]));
}

/// SDM volume 3, 11.6: shorthands, physical and logical destinations; each CPU handles what is sent to it, woken
/// from HLT.
#[test]
fn interrupts_reach_the_cpus_that_are_meant_and_no_others() {
    const SELF: u32 = 1 << 18;
    const ALL: u32 = 2 << 18;
    const OTHERS: u32 = 3 << 18;
    let cases: [(u32, u32, [u64; 4]); 9] = [
        (2, FIXED, [0, 0, 1, 0]),
        (0, FIXED, [1, 0, 0, 0]),
        (0xff, FIXED, [1, 1, 1, 1]),
        (0b1010, FIXED | LOGICAL, [0, 1, 0, 1]),
        (0b0001, FIXED | LOGICAL, [1, 0, 0, 0]),
        (0, FIXED | SELF, [1, 0, 0, 0]),
        (0, FIXED | ALL, [1, 1, 1, 1]),
        (0, FIXED | OTHERS, [0, 1, 1, 1]),
        (7, FIXED, [0, 0, 0, 0]),
    ];
    for nonmaskable in [false, true] {
        for (destination, command, expected) in cases {
            let command = match nonmaskable {
                false => command,
                true => command & !0xff | NONMASKABLE,
            };
            let program = || {
                let mut program = Program::new(4);
                program.handlers().unwrap();
                for cpu in 1..4 {
                    let wait = |a: &mut CodeAssembler| {
                        load_tables(a, cpu)?;
                        if !nonmaskable {
                            a.sti()?;
                        }
                        give_turn(a, cpu)?;
                        a.hlt()
                    };
                    program.on_another(cpu as u32, wait).unwrap();
                    await_turn(&mut program.a, cpu).unwrap();
                }
                program.machine(|a| {
                    load_tables(a, 0)?;
                    a.sti()?;
                    send(a, destination, command)?;
                    a.nop()?;
                    // The others wait for ever if they are not meant; their interrupts are off then.
                    compute(a, 1000)?;
                    stop(a)
                })
            };
            let machine = everywhere(program);
            let offset = if nonmaskable { 0x100 } else { 0 };
            let counts = [0, 8, 16, 24].map(|word| peek(&machine, DATA + offset + word));
            assert_eq!(counts, expected, "{destination:#x}, {command:#x}");
        }
    }
}

/// SDM volume 3, 6.7.1: another one waits until the handler has returned; interrupts that can be masked do not
/// matter.
#[test]
fn what_cannot_be_masked_waits_for_the_end_of_its_handler() {
    let program = || {
        let mut program = Program::new(1);
        program.handlers().unwrap();
        let mut nested = program.a.create_label();
        // Another handler: sends itself the next, and stores how deep it is.
        program.gate(2, nested, 0x8e).unwrap();
        program.machine(|a| {
            load_tables(a, 0)?;
            a.xor(r12, r12)?;
            a.xor(r13, r13)?;
            a.xor(r14, r14)?;
            send(a, 0, NONMASKABLE | 1 << 18)?;
            a.nop()?;
            a.mov(rax, DATA)?;
            a.mov(qword_ptr(rax), r13)?;
            a.mov(qword_ptr(rax + 8), r14)?;
            stop(a)?;
            a.set_label(&mut nested)?;
            a.inc(r12)?;
            a.cmp(r12, r14)?;
            a.cmova(r14, r12)?;
            a.inc(r13)?;
            a.cmp(r13, 3)?;
            let mut last = a.create_label();
            a.je(last)?;
            send(a, 0, NONMASKABLE | 1 << 18)?;
            a.nop()?;
            a.nop()?;
            a.set_label(&mut last)?;
            a.dec(r12)?;
            a.iretq()
        })
    };
    let machine = everywhere(program);
    assert_eq!(peek(&machine, DATA), 3, "times");
    assert_eq!(peek(&machine, DATA + 8), 1, "deep");
}

/// SDM volume 3, 6.7.1: an IRET that faults lets the next one in as well, before the fault's handler begins.
#[test]
fn what_cannot_be_masked_comes_behind_an_iret_that_faults() {
    let program = || {
        let mut program = Program::new(1);
        program.handlers().unwrap();
        let (mut nonmaskable, mut fault) = (program.a.create_label(), program.a.create_label());
        program.gate(2, nonmaskable, 0x8e).unwrap();
        program.gate(13, fault, 0x8e).unwrap();
        program.machine(|a| {
            let mut second = a.create_label();
            load_tables(a, 0)?;
            a.xor(r13, r13)?;
            send(a, 0, NONMASKABLE | 1 << 18)?;
            a.nop()?;
            a.ud2()?;
            a.set_label(&mut nonmaskable)?;
            a.inc(r13)?;
            a.cmp(r13, 2)?;
            a.je(second)?;
            send(a, 0, NONMASKABLE | 1 << 18)?;
            a.pushfq()?;
            a.or(dword_ptr(rsp), 0x4000)?; // NT
            a.popfq()?;
            a.set_label(&mut second)?;
            a.iretq()?;
            a.set_label(&mut fault)?;
            a.mov(rax, DATA)?;
            a.mov(qword_ptr(rax), r13)?;
            stop(a)
        })
    };
    assert_eq!(peek(&everywhere(program), DATA), 2);
}

/// Through a trap gate interrupts that can be masked stay let in: one that waits comes before the handler begins.
#[test]
fn a_trap_gate_lets_in_what_waits_behind_what_cannot_be_masked() {
    let program = || {
        let mut program = Program::new(1);
        program.handlers().unwrap();
        let mut nonmaskable = program.a.create_label();
        program.gate(2, nonmaskable, 0x8f).unwrap();
        program.machine(|a| {
            load_tables(a, 0)?;
            send(a, 0, FIXED | 1 << 18)?; // waits
            a.mov(rax, APIC)?;
            a.mov(dword_ptr(rax + 0x310), 0)?;
            a.sti()?;
            a.mov(dword_ptr(rax + 0x300), (NONMASKABLE | 1 << 18) as i32)?; // in the shadow
            a.nop()?;
            a.ud2()?;
            a.set_label(&mut nonmaskable)?;
            a.mov(rax, DATA)?;
            a.mov(rcx, qword_ptr(rax))?;
            a.mov(qword_ptr(rax + 0x40), rcx)?;
            stop(a)
        })
    };
    assert_eq!(peek(&everywhere(program), DATA + 0x40), 1);
}

/// More than a turn each, with and without LOCK: the instruction is what is atomic here.
#[test]
fn additions_of_several_cpus_add_up() {
    const TIMES: u64 = 70_000;
    let add = |a: &mut CodeAssembler| {
        let (mut again, mut retry) = (a.create_label(), a.create_label());
        a.mov(rbx, DATA)?;
        a.mov(rcx, TIMES)?;
        a.mov(edx, 1)?;
        a.set_label(&mut again)?;
        a.mov(esi, 1)?;
        a.lock().xadd(qword_ptr(rbx), rsi)?;
        a.lock().inc(dword_ptr(rbx + 8))?;
        a.mov(rax, qword_ptr(rbx + 16))?;
        a.set_label(&mut retry)?;
        a.lea(rsi, ptr(rax + 1))?;
        a.lock().cmpxchg(qword_ptr(rbx + 16), rsi)?;
        a.jne(retry)?;
        a.dec(rcx)?;
        a.jnz(again)
    };
    let program = || {
        let mut program = Program::new(3);
        program.on_another(1, add).unwrap();
        program.on_another(2, add).unwrap();
        program.machine(|a| add(a).and_then(|()| stop(a)))
    };
    let machine = everywhere(program);
    for word in [0, 8, 16] {
        assert_eq!(peek(&machine, DATA + word), 3 * TIMES, "word {word}");
    }
}

/// Who waits for another CPU lets it run: few instructions are spent on it. Each CPU computes for most of a turn in
/// between.
#[test]
fn pause_ends_the_turn_of_a_cpu() {
    let program = || {
        let mut program = Program::new(2);
        let answer = |a: &mut CodeAssembler| {
            for turn in [1, 3, 5] {
                await_turn(a, turn)?;
                compute(a, 100_000)?;
                give_turn(a, turn + 1)?;
            }
            Ok(())
        };
        program.on_another(1, answer).unwrap();
        program.machine(|a| {
            for turn in [1, 3, 5] {
                give_turn(a, turn)?;
                await_turn(a, turn + 1)?;
            }
            stop(a)
        })
    };
    let machine = everywhere(program);
    let count = machine.instruction_count();
    assert!((300_000..301_000).contains(&count), "{count}");
}

/// A CPU that halts gives its turn on at once, and a turn is as long as it is said to be.
#[test]
fn turns_end_where_they_are_said_to() {
    let program = || {
        let mut program = Program::new(3);
        let forever = |a: &mut CodeAssembler| {
            let mut again = a.create_label();
            a.set_label(&mut again)?;
            a.inc(rbx)?;
            a.jmp(again)
        };
        program.on_another(1, forever).unwrap();
        program.on_another(2, forever).unwrap();
        program.machine(stop)
    };
    for way in WAYS {
        let mut machine = program();
        prepare(&mut machine, way);
        while machine.next_hart() != Some(1) {
            assert_eq!(machine.run(machine.instruction_count() + 1), Stop::Reached);
        }
        // The first CPU has just halted.
        let begin = machine.instruction_count();
        assert!(begin < 100, "{begin}");
        for (turn, cpu) in [1, 2, 1, 2, 1].into_iter().enumerate() {
            let end = begin + SLICE * (turn as u64 + 1);
            for (until, expected) in [(end - 1, cpu), (end, 3 - cpu)] {
                assert_eq!(machine.run(until), Stop::Reached);
                assert_eq!(machine.next_hart(), Some(expected), "{way:?} at {until}");
            }
        }
    }
}

/// The other CPU has executed what is changed, until it was compiled.
#[test]
fn a_cpu_changes_what_another_executes() {
    /// `mov eax, value; ret`.
    fn code(value: u64) -> u64 {
        0x0000_c300_0000_00b8 | value << 8
    }
    let program = || {
        let mut program = Program::new(2);
        poke(&mut program.a, DATA + 0x1000, code(1)).unwrap();
        let calls = |a: &mut CodeAssembler| {
            for turn in 1..5u64 {
                let mut again = a.create_label();
                a.mov(rbx, DATA + 0x1000)?;
                a.mov(ebp, 100)?;
                a.set_label(&mut again)?;
                a.call(rbx)?;
                a.dec(ebp)?;
                a.jnz(again)?;
                a.mov(rcx, DATA + turn * 8)?;
                a.mov(qword_ptr(rcx), rax)?;
                give_turn(a, 2 * turn - 1)?;
                await_turn(a, 2 * turn)?;
            }
            Ok(())
        };
        program.on_another(1, calls).unwrap();
        program.machine(|a| {
            for turn in 1..5 {
                await_turn(a, 2 * turn - 1)?;
                poke(a, DATA + 0x1000, code(turn + 1))?;
                give_turn(a, 2 * turn)?;
            }
            stop(a)
        })
    };
    let machine = everywhere(program);
    for turn in 1..5 {
        assert_eq!(peek(&machine, DATA + turn * 8), turn);
    }
}

/// Tables that map the first 4 GiB to themselves by 2 MiB pages are at 0x9000 (the boot protocol's). These are of the
/// test: a root at `at`, whose lower half is the boot protocol's, and in the upper half, at [`UPPER`], a page.
const UPPER: u64 = 0xffff_8000_0000_0000;

fn put_tables(a: &mut CodeAssembler, at: u64, leaf: u64) -> Assembled {
    a.mov(rax, 0x9000u64)?;
    a.mov(rdx, qword_ptr(rax))?;
    a.mov(rax, at)?;
    a.mov(qword_ptr(rax), rdx)?;
    for (table, next) in [(at + 0x800, at + 0x1000), (at + 0x1000, at + 0x2000)] {
        poke(a, table, next | 3)?;
    }
    poke(a, at + 0x2000, (at + 0x3000) | 3)?;
    poke(a, at + 0x3000, leaf)
}

/// With the same root, and with roots of their own: a store to a table is seen by the other CPU's next access, as if
/// the tables were freshly walked, without INVLPG.
#[test]
fn a_cpu_changes_the_page_table_of_another() {
    const TABLES: [u64; 2] = [DATA + 0x10_0000, DATA + 0x11_0000];
    let page = |number: u64| DATA + 0x2_0000 + number * 0x1000;
    for roots in [[0, 0], [0, 1]] {
        let program = || {
            let mut program = Program::new(2);
            for table in TABLES {
                put_tables(&mut program.a, table, page(0) | 3).unwrap();
            }
            for number in 0..5 {
                poke(&mut program.a, page(number), number + 10).unwrap();
            }
            let reads = |a: &mut CodeAssembler| {
                a.mov(rax, TABLES[roots[1]])?;
                a.mov(cr3, rax)?;
                for turn in 0..5u64 {
                    let mut again = a.create_label();
                    a.mov(rbx, UPPER)?;
                    a.mov(ebp, 100)?;
                    a.set_label(&mut again)?;
                    a.mov(rdx, qword_ptr(rbx))?;
                    a.dec(ebp)?;
                    a.jnz(again)?;
                    a.mov(rcx, DATA + turn * 8)?;
                    a.mov(qword_ptr(rcx), rdx)?;
                    give_turn(a, 2 * turn + 1)?;
                    await_turn(a, 2 * turn + 2)?;
                }
                Ok(())
            };
            program.on_another(1, reads).unwrap();
            program.machine(|a| {
                a.mov(rax, TABLES[roots[0]])?;
                a.mov(cr3, rax)?;
                for turn in 0..5u64 {
                    await_turn(a, 2 * turn + 1)?;
                    a.mov(rbx, UPPER)?;
                    a.mov(rdx, qword_ptr(rbx))?; // its own translation, if it has one
                    a.mov(rcx, DATA + 0x100 + turn * 8)?;
                    a.mov(qword_ptr(rcx), rdx)?;
                    let next = page((turn + 1) % 5) | 3;
                    poke(a, TABLES[roots[1]] + 0x3000, next)?;
                    give_turn(a, 2 * turn + 2)?;
                }
                stop(a)
            })
        };
        let machine = everywhere(program);
        for turn in 0..5 {
            let seen = [0, 0x100].map(|offset| peek(&machine, DATA + offset + turn * 8));
            let first = if roots[0] == roots[1] { turn + 10 } else { 10 };
            assert_eq!(seen, [turn + 10, first], "roots {roots:?}, turn {turn}");
        }
    }
}

/// Who wakes a CPU before it has given itself back wakes it as soon as it has, while it is the one that runs: from then on
/// it has other tables.
#[test]
fn a_cpu_that_is_woken_up_at_once_has_its_old_tables_no_longer() {
    const GIB: u64 = 1 << 30;
    let [root, table] = [DATA + 0x10_0000, DATA + 0x10_1000];
    let program = || {
        let mut program = Program::new(2);
        poke(&mut program.a, root, table | 3).unwrap();
        for (index, page) in [(0, 0), (1, 0), (3, 3 * GIB)] {
            poke(&mut program.a, table + index * 8, page | 0x83).unwrap();
        }
        poke(&mut program.a, DATA, 77).unwrap();
        let leaves = |a: &mut CodeAssembler| {
            a.mov(rax, root)?;
            a.mov(cr3, rax)?;
            give_turn(a, 1)?;
            await_turn(a, 2)?;
            a.mov(rbx, GIB + DATA)?;
            a.mov(rcx, qword_ptr(rbx))?;
            a.mov(qword_ptr(rbx + 8), rcx)?;
            a.mov(rax, 0xf_0000u64)?; // the MADT's reset vector
            a.jmp(rax)
        };
        program.on_another(1, leaves).unwrap();
        await_turn(&mut program.a, 1).unwrap();
        let mut again = program.a.create_label();
        program.wake(1, again).unwrap();
        give_turn(&mut program.a, 2).unwrap();
        program.machine(|a| {
            stop(a)?;
            a.set_label(&mut again)?;
            a.mov(rbx, GIB + DATA)?;
            a.mov(rdx, qword_ptr(rbx))?; // there is no RAM
            a.mov(rcx, DATA)?;
            a.mov(qword_ptr(rcx + 16), rdx)?;
            stop(a)
        })
    };
    let machine = everywhere(program);
    assert_eq!(peek(&machine, DATA + 8), 77);
    assert_ne!(peek(&machine, DATA + 16), 77);
}

/// CR0.WP of one CPU is not that of another: what this one may store to, the other may only read.
#[test]
fn cpus_with_other_rules_share_no_translations() {
    const WRITE_PROTECT: u32 = 1 << 16;
    let tables = DATA + 0x10_0000;
    let program = || {
        let mut program = Program::new(2);
        put_tables(&mut program.a, tables, (DATA + 0x2_0000) | 1).unwrap();
        let writes = |a: &mut CodeAssembler| {
            a.mov(rax, tables)?;
            a.mov(cr3, rax)?;
            for turn in [1, 3] {
                await_turn(a, turn)?;
                a.mov(rbx, UPPER)?;
                a.inc(qword_ptr(rbx))?;
                give_turn(a, turn + 1)?;
            }
            Ok(())
        };
        program.on_another(1, writes).unwrap();
        let (mut fault, mut behind) = (program.a.create_label(), program.a.create_label());
        program.handlers().unwrap();
        program.gate(14, fault, 0x8e).unwrap();
        program.machine(|a| {
            load_tables(a, 0)?;
            a.mov(rax, tables)?;
            a.mov(cr3, rax)?;
            a.mov(rax, cr0)?;
            a.or(eax, WRITE_PROTECT as i32)?;
            a.mov(cr0, rax)?;
            a.xor(r12, r12)?;
            for turn in [1, 3] {
                give_turn(a, turn)?;
                await_turn(a, turn + 1)?;
                a.mov(rbx, UPPER)?;
                a.inc(qword_ptr(rbx))?; // faults
            }
            a.set_label(&mut behind)?;
            a.mov(rax, DATA)?;
            a.mov(qword_ptr(rax), r12)?;
            stop(a)?;
            a.set_label(&mut fault)?;
            a.inc(r12)?;
            a.add(rsp, 8)?;
            a.add(qword_ptr(rsp), 3)?; // behind the INC of three bytes
            a.iretq()
        })
    };
    let machine = everywhere(program);
    assert_eq!(peek(&machine, DATA), 2, "faults");
    assert_eq!(peek(&machine, DATA + 0x2_0000), 2, "stores");
}

/// A reset that any CPU asks for leaves one CPU that runs and others that wait.
#[test]
fn a_reset_leaves_the_other_cpus_waiting() {
    let program = || {
        let mut program = Program::new(2);
        // The time-stamp counter goes on.
        let mut again = program.a.create_label();
        program.a.rdtsc().unwrap();
        program.a.cmp(eax, 100_000).unwrap();
        program.a.ja(again).unwrap();
        let resets = |a: &mut CodeAssembler| {
            compute(a, 50_000)?;
            a.mov(edx, 0xcf9)?;
            a.mov(al, 6)?;
            a.out(dx, al)
        };
        program.on_another(1, resets).unwrap();
        stop(&mut program.a).unwrap();
        program.machine(|a| {
            a.set_label(&mut again)?;
            poke(a, DATA, 5)?;
            stop(a)
        })
    };
    let mut results = Vec::new();
    for way in WAYS {
        let mut machine = program();
        prepare(&mut machine, way);
        let mut reboots = 0;
        loop {
            let stop = machine.run(20_000_000);
            let outputs = machine.outputs();
            reboots += outputs.iter().filter(|o| **o == Output::Reboot).count();
            match stop {
                Stop::Output => {}
                Stop::Idle { wake_at_ns: None } => break,
                other => panic!("{way:?}: {other:?}\n{}", machine.describe()),
            }
        }
        assert_eq!((reboots, peek(&machine, DATA)), (1, 5), "{way:?}");
        let views = machine.harts();
        assert!(
            views[1].describe.contains("wakeup"),
            "{}",
            views[1].describe
        );
        results.push((machine.instruction_count(), machine.digest()));
    }
    assert!(results.windows(2).all(|pair| pair[0] == pair[1]));
}

/// As the trampoline of Linux before 6.9 does: out of 64-bit mode by 32-bit code, paging off, and back.
#[test]
fn a_cpu_starts_by_way_of_32_bit_code() {
    const CODE_32: u64 = ENTRY + 0x4000;
    const WITHOUT_PAGING: u64 = CODE_32 + 0x80;
    const CODE_64: u64 = CODE_32 + 0x200;
    const RESULTS: i32 = DATA as i32 + 0x200;
    const EFER: u32 = 0xc000_0080;
    let far_jump = |a: &mut CodeAssembler, selector: u16, target: u64| {
        a.db(&[0xea])?;
        a.dd(&[target as u32])?;
        a.dw(&[selector])
    };
    let with_paging = || {
        let mut a = CodeAssembler::new(32)?;
        a.lock().bts(dword_ptr(RESULTS), 0)?;
        a.mov(eax, cr0)?;
        a.and(eax, 0x7fff_ffff)?;
        a.mov(cr0, eax)?;
        far_jump(&mut a, 8, WITHOUT_PAGING)?;
        a.assemble(CODE_32)
    };
    let without_paging = || {
        let mut a = CodeAssembler::new(32)?;
        a.mov(edx, 0x18)?;
        a.mov(ss, edx)?;
        a.mov(ds, edx)?;
        a.mov(esp, 0x7_0000)?;
        a.push(edx)?;
        a.mov(ecx, EFER)?;
        a.rdmsr()?;
        a.mov(dword_ptr(RESULTS + 8), eax)?;
        a.or(eax, 0x801)?; // NXE, SCE
        a.and(eax, !0x400)?; // LMA is not for software
        a.wrmsr()?;
        a.mov(eax, 0x9000)?;
        a.mov(cr3, eax)?;
        a.mov(eax, cr0)?;
        a.or(eax, 0x8000_0000u32 as i32)?;
        a.mov(cr0, eax)?;
        a.rdmsr()?;
        a.mov(dword_ptr(RESULTS + 16), eax)?;
        far_jump(&mut a, 0x10, CODE_64)?;
        a.assemble(WITHOUT_PAGING)
    };
    let again_long = || {
        let mut a = CodeAssembler::new(64)?;
        a.mov(rax, RESULTS as u64)?;
        a.mov(qword_ptr(rax + 24), rax)?;
        stop(&mut a)?;
        a.assemble(CODE_64)
    };
    let program = || {
        let mut program = Program::new(2);
        program.handlers().unwrap();
        let a = &mut program.a;
        poke(a, 0x508, 0x00cf_9b00_0000_ffff).unwrap();
        poke(a, DATA + 0x300, CODE_32 | 8 << 32).unwrap();
        let goes = |a: &mut CodeAssembler| {
            load_tables(a, 1)?;
            a.mov(rax, DATA + 0x300)?;
            a.db(&[0xff, 0x28]) // jmp far dword [rax]
        };
        program.on_another(1, goes).unwrap();
        stop(&mut program.a).unwrap();
        let mut code = program.a.assemble(ENTRY).unwrap();
        let parts: [(u64, Result<Vec<u8>, IcedError>); 3] = [
            (CODE_32, with_paging()),
            (WITHOUT_PAGING, without_paging()),
            (CODE_64, again_long()),
        ];
        for (address, part) in parts {
            code.resize((address - ENTRY) as usize, 0xcc);
            code.extend(part.unwrap());
        }
        powered_on(2, &code).unwrap()
    };
    let machine = everywhere(program);
    let results = [0, 8, 16, 24].map(|offset| peek(&machine, DATA + 0x200 + offset));
    assert_eq!(results, [1, 0x900, 0xd01, DATA + 0x200]);
}

//! A CPU with page tables, descriptor tables and a handler for each exception, around a piece of code.

use x86::bus::Bus;
use x86::cpu::{CS, Cpu, SS};
use x86::cpuid::Processor;
use x86::fault::Fault;
use x86::interpreter::{Exit, Interpreter};
use x86::ram::Ram;

/// Root table; the tables below it follow, the one of 4 KiB pages last.
pub const ROOT: u64 = 0x1000;
/// The table that maps the first 2 MiB, page by page, to themselves.
pub const PAGES: u64 = 0x4000;
/// The descriptor table; 0x20 is free.
pub const GDT: u64 = 0x8000;
const IDT: u64 = 0x9000;
const TSS: u64 = 0xc000;
/// The handler of exception n is a HLT at 16 n bytes behind here.
pub const HANDLERS: u64 = 0xa000;
/// Where code begins.
pub const CODE: u64 = 0x1_0000;
/// The top of the stack that code begins with.
pub const STACK: u64 = 0x2_0000;
/// The top of the stack that an event in user mode comes to.
pub const STACK_0: u64 = 0x3_0000;
/// The top of the first interrupt stack.
pub const INTERRUPT_STACK: u64 = 0x4_0000;
/// Pages for whatever a test likes.
pub const DATA: u64 = 0x10_0000;

/// Present, writable, user: what the rig's pages have.
pub const ALL: u64 = 7;

/// Selector of kernel code.
pub const KERNEL_CODE: u16 = 0x10;
/// Selector of user data and stack.
pub const USER_DATA: u16 = 0x2b;
/// Selector of user code.
pub const USER_CODE: u16 = 0x33;

/// An interrupt controller with one line.
#[derive(Default)]
pub struct Line {
    /// The vector that waits.
    pub pending: Option<u8>,
    /// Ports written, with the count.
    pub written: Vec<(u16, u32, u64)>,
}

impl Bus for Line {
    fn read_device(&mut self, _: &mut Ram, _: u64, _: usize, _: u64) -> u64 {
        u64::MAX
    }
    fn write_device(&mut self, _: &mut Ram, _: u64, _: usize, _: u64, _: u64) {}
    fn read_port(&mut self, _: &mut Ram, _: u16, _: usize, _: u64) -> u32 {
        u32::MAX
    }
    fn write_port(&mut self, _: &mut Ram, port: u16, _: usize, value: u32, now: u64) {
        self.written.push((port, value, now));
        if port == 0x99 {
            self.pending = Some(value as u8);
        }
    }
    fn processor(&self) -> Processor {
        Processor::ALONE
    }
    fn has_nonmaskable_interrupt(&self) -> bool {
        false
    }
    fn acknowledge_nonmaskable_interrupt(&mut self) {}
    fn pending_interrupt(&self) -> Option<u8> {
        self.pending
    }
    fn acknowledge_interrupt(&mut self) -> u8 {
        self.pending.take().unwrap()
    }
    fn task_priority(&self) -> u8 {
        0
    }
    fn set_task_priority(&mut self, _: u8) {}
    fn time_stamp_counter(&self, now: u64) -> u64 {
        now
    }
    fn set_time_stamp_counter(&mut self, _: u64, _: u64) {}
    fn read_apic_msr(&mut self, _: u32, _: u64) -> Option<u64> {
        None
    }
    fn write_apic_msr(&mut self, _: u32, _: u64, _: u64) -> Option<()> {
        None
    }
    fn wants_attention(&self) -> bool {
        false
    }
}

/// The rig.
pub struct Rig {
    pub cpu: Cpu,
    pub ram: Ram,
    pub line: Line,
    pub interpreter: Interpreter,
    pub now: u64,
}

/// What an event left on its stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

impl Rig {
    /// With code at [`CODE`], in kernel mode.
    pub fn new(code: &[u8]) -> Rig {
        let mut ram = Ram::new(4 << 20);
        let mut put = |address: u64, value: u64| {
            ram.write(address, &value.to_le_bytes()).unwrap();
        };
        for table in 0..3 {
            let at = ROOT + table * 0x1000;
            put(at, (at + 0x1000) | ALL);
        }
        for page in 0..512 {
            put(PAGES + 8 * page, page << 12 | ALL);
        }
        put(GDT + 0x10, 0x00af_9b00_0000_ffff);
        put(GDT + 0x18, 0x00cf_9300_0000_ffff);
        put(GDT + 0x28, 0x00cf_f300_0000_ffff);
        put(GDT + 0x30, 0x00af_fb00_0000_ffff);
        put(GDT + 0x40, 0x0000_8900_0000_0067 | TSS << 16);
        for vector in 0..256 {
            let handler = HANDLERS + 16 * vector;
            let gate = handler & 0xffff | u64::from(KERNEL_CODE) << 16 | 0x8e00 << 32;
            put(IDT + 16 * vector, gate | handler >> 16 << 48);
        }
        put(TSS + 4, STACK_0);
        put(TSS + 0x24, INTERRUPT_STACK);
        for vector in 0..256 {
            ram.write(HANDLERS + 16 * vector, &[0xf4]).unwrap();
        }
        ram.write(CODE, code).unwrap();
        let mut cpu = Cpu::long_mode(ROOT, CODE);
        let registers = &mut cpu.registers;
        registers.gdtr.base = GDT;
        registers.gdtr.limit = 0x4f;
        registers.idtr.base = IDT;
        registers.idtr.limit = 0xfff;
        registers.tr.selector = 0x40;
        registers.tr.base = TSS;
        registers.tr.limit = 0x67;
        registers.gpr[4] = STACK;
        registers.efer |= 0x801;
        registers.cr0 |= 1 << 16; // WP
        Rig {
            cpu,
            ram,
            line: Line::default(),
            interpreter: Interpreter::new(),
            now: 0,
        }
    }

    /// Goes on in user mode.
    pub fn user(mut self) -> Rig {
        let segments = &mut self.cpu.registers.segments;
        segments[CS].selector = USER_CODE;
        segments[CS].attributes |= 3 << 5;
        segments[SS].selector = USER_DATA;
        segments[SS].attributes |= 3 << 5;
        self
    }

    /// Eight bytes of RAM.
    pub fn peek(&self, address: u64) -> u64 {
        u64::from_le_bytes(self.ram.slice(address, 8).unwrap().try_into().unwrap())
    }

    /// Sets eight bytes of RAM.
    pub fn poke(&mut self, address: u64, value: u64) {
        self.ram.write(address, &value.to_le_bytes()).unwrap();
    }

    /// The page-table entry of a page below 2 MiB.
    pub fn entry(&self, address: u64) -> u64 {
        self.peek(PAGES + (address >> 12) * 8)
    }

    /// Sets the page-table entry of a page to itself with these bits.
    pub fn set_entry(&mut self, address: u64, bits: u64) {
        self.poke(PAGES + (address >> 12) * 8, address & !0xfff | bits);
    }

    /// Sets the interrupt stack of a gate.
    pub fn set_interrupt_stack(&mut self, vector: u64, number: u64) {
        let gate = self.peek(IDT + 16 * vector);
        self.poke(IDT + 16 * vector, gate & !(7 << 32) | number << 32);
    }

    /// Sets type and privilege of a gate: bits 40 to 47.
    pub fn set_gate(&mut self, vector: u64, attributes: u64) {
        let gate = self.peek(IDT + 16 * vector);
        self.poke(IDT + 16 * vector, gate & !(0xff << 40) | attributes << 40);
    }

    /// Executes so many instructions, or until the CPU halts.
    pub fn run(&mut self, instructions: u64) -> Exit {
        let until = self.now + instructions;
        self.interpreter.run(
            &mut self.cpu,
            &mut self.ram,
            &mut self.line,
            &mut self.now,
            until,
        )
    }

    /// Executes one instruction without delivering what it raises.
    pub fn step(&mut self) -> Result<(), Fault> {
        self.interpreter
            .step(&mut self.cpu, &mut self.ram, &mut self.line, self.now)
    }

    /// Runs into the handler of an exception, and says which, with its frame and error code.
    pub fn exception(&mut self) -> (u64, Option<u64>, Frame) {
        assert_eq!(self.run(10_000), Exit::Halted, "{:x?}", self.cpu.registers);
        let vector = (self.cpu.registers.rip - HANDLERS) / 16;
        let mut at = self.cpu.registers.gpr[4];
        let has_code = matches!(vector, 8 | 10..=14 | 17);
        let code = has_code.then(|| self.peek(at));
        if has_code {
            at += 8;
        }
        let frame = Frame {
            rip: self.peek(at),
            cs: self.peek(at + 8),
            rflags: self.peek(at + 16),
            rsp: self.peek(at + 24),
            ss: self.peek(at + 32),
        };
        (vector, code, frame)
    }
}

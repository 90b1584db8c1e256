//! This crate's side of a comparison: a CPU at CPL 3 with the oracle's pages mapped where the host has
//! them.

use crate::native::{CODE, DATA, DATA_SIZE, FxArea, Raised, State};
use x86::bus::Bus;
use x86::cpu::{CS, Cpu, SS};
use x86::cpuid::Processor;
use x86::float::DoubleExtended;
use x86::interpreter::Interpreter;
use x86::ram::Ram;

/// A PC without devices.
pub struct Bare;

impl Bus for Bare {
    fn read_device(&mut self, _: &mut Ram, _: u64, _: usize, _: u64) -> u64 {
        u64::MAX
    }
    fn write_device(&mut self, _: &mut Ram, _: u64, _: usize, _: u64, _: u64) {}
    fn read_port(&mut self, _: &mut Ram, _: u16, _: usize, _: u64) -> u32 {
        u32::MAX
    }
    fn write_port(&mut self, _: &mut Ram, _: u16, _: usize, _: u32, _: u64) {}
    fn processor(&self) -> Processor {
        Processor::ALONE
    }
    fn has_nonmaskable_interrupt(&self) -> bool {
        false
    }
    fn acknowledge_nonmaskable_interrupt(&mut self) {}
    fn pending_interrupt(&self) -> Option<u8> {
        None
    }
    fn acknowledge_interrupt(&mut self) -> u8 {
        0
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

/// The CPU and its memory.
pub struct Machine {
    ram: Ram,
    interpreter: Interpreter,
    pub cpu: Cpu,
}

const ROOT: u64 = 0x1000;
const DATA_PHYSICAL: u64 = 0x10_0000;
const CODE_PHYSICAL: u64 = 0x20_0000;

impl Machine {
    /// With the oracle's pages mapped, user and writable.
    pub fn new() -> Machine {
        let mut ram = Ram::new(4 << 20);
        let mut free = ROOT + 0x1000;
        for (linear, physical, pages) in [
            (DATA, DATA_PHYSICAL, DATA_SIZE as u64 / 4096),
            (CODE, CODE_PHYSICAL, 2),
        ] {
            for page in 0..pages {
                map(
                    &mut ram,
                    &mut free,
                    linear + page * 4096,
                    physical + page * 4096,
                );
            }
        }
        let mut cpu = Cpu::long_mode(ROOT, CODE);
        cpu.registers.segments[CS].selector = 0x33;
        cpu.registers.segments[CS].attributes |= 3 << 5;
        cpu.registers.segments[SS].selector = 0x2b;
        cpu.registers.segments[SS].attributes |= 3 << 5;
        cpu.registers.tr.limit = 0x60; // no port is allowed
        cpu.registers.cr4 |= 0x600; // OSFXSR, OSXMMEXCPT
        cpu.registers.efer |= 0x801; // NXE, SCE
        Machine {
            ram,
            interpreter: Interpreter::new(),
            cpu,
        }
    }

    /// Executes one instruction at [`CODE`], all iterations if it repeats.
    pub fn execute(&mut self, instruction: &[u8], state: &mut State) {
        let mut code = [0x90; 32];
        code[..instruction.len()].copy_from_slice(instruction);
        self.ram.write(CODE_PHYSICAL, &code).unwrap();
        self.ram.write(DATA_PHYSICAL, &state.data[..]).unwrap();
        let registers = &mut self.cpu.registers;
        registers.gpr = state.gpr;
        registers.rip = CODE;
        registers.rflags = state.rflags & 0x4_0cd5 | 0x202;
        load_fx(&mut self.cpu, &state.fx);
        state.raised = None;
        let mut now = 0;
        loop {
            let stepped = self
                .interpreter
                .step(&mut self.cpu, &mut self.ram, &mut Bare, now);
            now += 1;
            if let Err(fault) = stepped {
                state.raised = Some(Raised {
                    vector: u64::from(fault.vector),
                    error_code: u64::from(fault.error_code.unwrap_or(0)),
                    address: fault.address,
                });
                break;
            }
            if self.cpu.registers.rip != CODE {
                assert_eq!(self.cpu.registers.rip, CODE + instruction.len() as u64);
                break;
            }
        }
        state.gpr = self.cpu.registers.gpr;
        state.rflags = self.cpu.registers.rflags & !0x1_0200 | 2;
        store_fx(&self.cpu, &mut state.fx);
        let data = self.ram.slice(DATA_PHYSICAL, DATA_SIZE as u64).unwrap();
        state.data.copy_from_slice(data);
    }
}

fn map(ram: &mut Ram, free: &mut u64, linear: u64, physical: u64) {
    let mut table = ROOT;
    for level in (1..4).rev() {
        let at = table + (linear >> (12 + 9 * level) & 511) * 8;
        let entry = u64::from_le_bytes(ram.slice(at, 8).unwrap().try_into().unwrap());
        table = if entry & 1 != 0 {
            entry & !0xfff
        } else {
            let new = *free;
            *free += 0x1000;
            ram.write(at, &(new | 7).to_le_bytes()).unwrap();
            new
        };
    }
    let at = table + (linear >> 12 & 511) * 8;
    ram.write(at, &(physical | 7).to_le_bytes()).unwrap();
}

/// Sets the vector and x87 registers from an FXSAVE area, as FXRSTOR does.
fn load_fx(cpu: &mut Cpu, fx: &FxArea) {
    cpu.vector.mxcsr = fx.mxcsr();
    for (index, xmm) in cpu.vector.xmm.iter_mut().enumerate() {
        *xmm = fx.xmm(index);
    }
    cpu.x87.control = fx.u16(0);
    cpu.x87.status = fx.u16(2);
    cpu.x87.occupied = fx.0[4];
    let top = usize::from(fx.u16(2) >> 11 & 7);
    for index in 0..8 {
        cpu.x87.registers[(top + index) % 8] = DoubleExtended {
            sign_exponent: (fx.st(index) >> 64) as u16,
            significand: fx.st(index) as u64,
        };
    }
}

/// The reverse of [`load_fx`], as FXSAVE64 does; FIP, FDP and FOP are zero.
fn store_fx(cpu: &Cpu, fx: &mut FxArea) {
    fx.set_mxcsr(cpu.vector.mxcsr);
    for (index, xmm) in cpu.vector.xmm.iter().enumerate() {
        fx.set_xmm(index, *xmm);
    }
    fx.set_u16(0, cpu.x87.control);
    fx.set_u16(2, cpu.x87.status);
    fx.0[4] = cpu.x87.occupied;
    let top = usize::from(cpu.x87.status >> 11 & 7);
    for index in 0..8 {
        let register = cpu.x87.registers[(top + index) % 8];
        let value = u128::from(register.sign_exponent) << 64 | u128::from(register.significand);
        fx.set_st(index, value);
    }
}

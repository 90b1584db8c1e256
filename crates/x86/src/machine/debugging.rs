//! An x86-64 machine that is looked into: see [`machine::debugging`].

mod description;

use super::snapshot::decode;
use super::{Machine, NAME, SEMANTICS_VERSION};
use crate::cpu::{CS, Cpu, Registers, SS, Segment, Shadow};
use crate::fault::NONMASKABLE;
use crate::interpreter::flags::{IF, NT, RF, TF, VM};
use crate::mmu::{is_canonical, look_up};
use machine::Stop;
use machine::debugging::{AddressSpace, Armed, Debuggable, HartView, Trap, TrapStop, Traps};
use machine::input::InstructionCount;
use machine::memory::{OutsideRam, PAGE_SIZE};
use machine::snapshot::{SnapshotError, SnapshotHead};

const CR0_PG: u64 = 1 << 31;
/// An interrupt gate: unlike a trap gate it clears IF (SDM volume 3, 6.12.1.3).
const INTERRUPT_GATE: u64 = 14;

impl Machine {
    /// The registers with which a CPU executes its next instruction: an interrupt that comes before it is taken, but
    /// what that pushes is not in memory yet.
    fn next_registers(&self, cpu: usize) -> Registers {
        let registers = &self.state.cpus[cpu].registers;
        self.interrupt_to_take(cpu)
            .and_then(|vector| self.delivered(registers, vector))
            .unwrap_or_else(|| registers.clone())
    }

    /// The interrupt that a CPU takes before its next instruction, if that were to be executed now.
    fn interrupt_to_take(&self, cpu: usize) -> Option<u8> {
        let registers = &self.state.cpus[cpu].registers;
        let apic = self.state.board.local_apic(cpu);
        if registers.shadow != Shadow::None {
            None
        } else if apic.has_nonmaskable() && !registers.blocks_nonmaskable {
            Some(NONMASKABLE)
        } else {
            apic.pending().filter(|_| registers.rflags & IF != 0)
        }
    }

    /// The registers behind the delivery of an interrupt (SDM volume 3, 6.14); none if it cannot be delivered.
    fn delivered(&self, registers: &Registers, vector: u8) -> Option<Registers> {
        let gate = registers.idtr.base.wrapping_add(u64::from(vector) * 16);
        let low = self.read_linear(registers, gate)?;
        let high = self.read_linear(registers, gate.wrapping_add(8))?;
        let selector = (low >> 16) as u16;
        let descriptor = registers.gdtr.base.wrapping_add(u64::from(selector & !7));
        let privilege = (self.read_linear(registers, descriptor)? >> 45 & 3) as u16;
        let current = registers.segments[CS].selector & 3;
        let interrupt_stack = low >> 32 & 7;
        let top = if interrupt_stack != 0 {
            self.read_linear(registers, registers.tr.base + 0x1c + interrupt_stack * 8)?
        } else if privilege < current {
            self.read_linear(registers, registers.tr.base + 4 + u64::from(privilege) * 8)?
        } else {
            registers.gpr[4]
        };
        let mut next = registers.clone();
        next.gpr[4] = (top & !15).wrapping_sub(5 * 8);
        next.rip = low & 0xffff | low >> 32 & 0xffff_0000 | high << 32;
        next.rflags &= !(TF | NT | RF | VM);
        if low >> 40 & 0x1f == INTERRUPT_GATE {
            next.rflags &= !IF;
        }
        next.segments[CS].selector = selector & !3 | privilege;
        if privilege != current {
            next.segments[SS] = Segment {
                selector: privilege,
                ..Segment::default()
            };
        }
        next.is_halted = false;
        Some(next)
    }

    /// Reads 8 bytes at a linear address without leaving a trace.
    fn read_linear(&self, registers: &Registers, address: u64) -> Option<u64> {
        let mut value = 0;
        for index in 0..8 {
            let at = address.wrapping_add(index);
            let physical = self.translate(space(registers), at)?;
            value |= u64::from(self.ram.slice(physical, 1)?[0]) << (8 * index);
        }
        Some(value)
    }

    fn stands_at_breakpoint(&self, cpu: usize) -> bool {
        self.ram.traps.has_breakpoints() && self.ram.traps.breaks_at(self.next_registers(cpu).rip)
    }

    fn run_armed(&mut self, until: InstructionCount) -> TrapStop {
        loop {
            if let Some(stop) = self.stop_before_next(until) {
                return TrapStop::Stop(stop);
            }
            let Some(cpu) = self.state.next_cpu() else {
                return TrapStop::Stop(self.idle());
            };
            if self.stands_at_breakpoint(cpu) {
                return TrapStop::Trap(Trap::Breakpoint { hart: cpu });
            }
            self.run_cpu(cpu, until);
            if let Some(watchpoint) = self.ram.traps.take_hit() {
                // What is left to do at this count is done as if it had been asked for.
                return match self.stop_before_next(self.state.count) {
                    Some(Stop::Reached) | None => TrapStop::Trap(Trap::Watchpoint {
                        hart: cpu,
                        address: watchpoint.address,
                        access: watchpoint.access,
                    }),
                    // The access made the machine stop (a device): that is told first.
                    Some(stop) => TrapStop::Stop(stop),
                };
            }
        }
    }
}

fn space(registers: &Registers) -> AddressSpace {
    AddressSpace {
        root: registers.cr3,
        mode: registers.cr0 & CR0_PG,
    }
}

impl Debuggable for Machine {
    fn target_description(&self) -> String {
        description::target_description()
    }

    fn gdb_steps_over_watchpoints(&self) -> bool {
        false // data breakpoints are traps (SDM volume 3, 18.3.1.2)
    }

    fn harts(&self) -> Vec<HartView> {
        let next_cpu = self.next_hart();
        let view = |(index, cpu): (usize, &Cpu)| {
            // The others take their interrupts when they have their turns.
            let registers = if next_cpu == Some(index) {
                self.next_registers(index)
            } else {
                cpu.registers.clone()
            };
            let waits = if self.state.board.waits_for_wakeup(index) {
                ", waits for its wakeup"
            } else if self.state.waits(index) {
                ", waits"
            } else {
                ""
            };
            HartView {
                registers: description::registers(&registers, cpu),
                program_counter: registers.rip,
                space: space(&registers),
                describe: format!("CPL {}{waits}", registers.segments[CS].selector & 3),
            }
        };
        self.state.cpus.iter().enumerate().map(view).collect()
    }

    fn next_hart(&self) -> Option<usize> {
        self.state.next_cpu()
    }

    fn translate(&self, space: AddressSpace, address: u64) -> Option<u64> {
        if space.mode == 0 {
            return Some(address);
        }
        is_canonical(address)
            .then(|| look_up(&self.ram, space.root, address))
            .flatten()
    }

    fn read_physical(&self, address: u64, buffer: &mut [u8]) -> Result<(), OutsideRam> {
        machine::Machine::read_memory(self, address, buffer)
    }

    fn set_traps(&mut self, traps: Traps) {
        self.ram.traps = traps;
        // Whatever the engine remembers of breakpoints and of watched pages.
        self.forget_caches();
    }

    fn run_to_trap(&mut self, until: InstructionCount, armed: Armed) -> TrapStop {
        self.ram.traps.arm(armed);
        let stop = self.run_armed(until);
        self.ram.traps.arm(Armed::Nothing);
        stop
    }

    fn save(&self) -> SnapshotHead {
        self.snapshot_head()
    }

    fn visit_written(&mut self, f: &mut dyn FnMut(usize, &[u8])) {
        self.ram.visit_written(f);
        self.interpreter.forget_writable_pages();
    }

    fn set_back(
        &mut self,
        head: &SnapshotHead,
        pages: &mut dyn Iterator<Item = (usize, &[u8])>,
    ) -> Result<(), SnapshotError> {
        let state = decode(head.state(NAME, SEMANTICS_VERSION)?)?;
        if state.config.board != self.state.config.board {
            return Err(SnapshotError::Damaged("it is of another machine"));
        }
        self.state = state;
        for (index, bytes) in pages {
            self.ram
                .write(index as u64 * PAGE_SIZE, bytes)
                .expect("it is a page of this machine");
        }
        // Compiled code stays where its page is as it was.
        self.interpreter.drop_translations(&mut self.ram);
        Ok(())
    }
}

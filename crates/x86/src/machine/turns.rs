//! Whose turn it is: CPUs run one after the other, a slice of instructions each, as harts do on the RISC-V machine
//! (`docs/decisions/harts.md` says why a slice is long).
//!
//! A CPU that only waits for another one does not run its slice to the end: HLT ends it, and PAUSE.

use super::{Machine, State};
use crate::boot;
use crate::cpu::Cpu;
use crate::interpreter::flags::IF;

/// Instructions that a CPU runs before the next one has its turn.
pub(super) const SLICE: u64 = 200_000;

/// As after power-on: the first is about to enter the kernel, the others wait to be woken up.
pub(super) fn cpus(first: Cpu, count: usize) -> Vec<Cpu> {
    let mut cpus = vec![boot::woken_up(boot::reset_vector()); count];
    cpus[0] = first;
    cpus
}

impl State {
    /// Whether a CPU executes nothing before something wakes it: an interrupt, or another CPU.
    pub(super) fn waits(&self, cpu: usize) -> bool {
        if self.board.waits_for_wakeup(cpu) {
            return true;
        }
        let registers = &self.cpus[cpu].registers;
        let apic = self.board.local_apic(cpu);
        let is_masked = registers.rflags & IF == 0 || apic.pending().is_none();
        let is_blocked = registers.blocks_nonmaskable || !apic.has_nonmaskable();
        registers.is_halted && is_masked && is_blocked
    }

    /// The CPU that executes the next instruction, unless all wait.
    pub(super) fn next_cpu(&self) -> Option<usize> {
        let cpus = self.cpus.len();
        let first = usize::from(self.turn_is_over());
        (first..first + cpus)
            .map(|i| (self.current + i) % cpus)
            .find(|&cpu| !self.waits(cpu))
    }

    fn turn_is_over(&self) -> bool {
        self.cpus.len() > 1 && self.count >= self.slice_end
    }

    /// Guest time of the next timer that can wake a CPU: none can where interrupts are kept out.
    pub(super) fn wake_at_ns(&self) -> Option<u64> {
        let cpus = 0..self.cpus.len();
        let let_in = cpus.filter(|&cpu| self.cpus[cpu].registers.rflags & IF != 0);
        let_in
            .filter_map(|cpu| self.board.local_apic(cpu).next_timer_ns())
            .min()
    }
}

impl Machine {
    /// Gives a CPU its turn.
    pub(super) fn switch_to(&mut self, next: usize) {
        let state = &mut self.state;
        if state.turn_is_over() || next != state.current {
            state.slice_end = state.count + SLICE;
        }
        if next != state.current {
            let old = &state.cpus[state.current].registers;
            let new = &state.cpus[next].registers;
            self.interpreter.hand_over(old, new, &mut self.ram);
            state.current = next;
        }
    }

    /// Carries out a wakeup if a CPU asked for one.
    pub(super) fn start_if_asked(&mut self) {
        let Some(start) = self.state.board.take_start() else {
            return;
        };
        let cpu = usize::from(start.cpu);
        let new = boot::woken_up(start.address);
        let old = std::mem::replace(&mut self.state.cpus[cpu], new);
        // Somebody asked before it gave itself back.
        if cpu == self.state.current {
            let new = &self.state.cpus[cpu].registers;
            self.interpreter
                .hand_over(&old.registers, new, &mut self.ram);
        }
    }
}

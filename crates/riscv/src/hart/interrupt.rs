//! Which interrupts are pending, and which one is taken (privileged specification, 3.1.9).

use super::csr::{MENVCFG_STCE, interrupt_bit, status};
use super::{Hart, Privilege};

/// Interrupt lines that enter a hart from the board.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lines {
    /// From the CLINT's `msip`.
    pub software: bool,
    /// From the PLIC, M context.
    pub machine_external: bool,
    /// From the PLIC, S context.
    pub supervisor_external: bool,
    /// The CLINT's `mtimecmp`, in ticks.
    pub machine_timer_compare: u64,
}

impl Hart {
    /// `mip` from all its sources, at `time_ticks`.
    pub fn interrupts_pending(&self, lines: &Lines, time_ticks: u64) -> u64 {
        let mut pending = self.csr.mip_written;
        if self.csr.menvcfg & MENVCFG_STCE != 0 {
            pending &= !interrupt_bit::STI;
            if time_ticks >= self.csr.stimecmp {
                pending |= interrupt_bit::STI;
            }
        }
        if lines.software {
            pending |= interrupt_bit::MSI;
        }
        if time_ticks >= lines.machine_timer_compare {
            pending |= interrupt_bit::MTI;
        }
        if lines.machine_external {
            pending |= interrupt_bit::MEI;
        }
        if lines.supervisor_external {
            pending |= interrupt_bit::SEI;
        }
        pending
    }

    /// The earliest time, in ticks, at which a timer that is not pending at `time_ticks` will be.
    pub fn next_timer(&self, lines: &Lines, time_ticks: u64) -> Option<u64> {
        let supervisor = (self.csr.menvcfg & MENVCFG_STCE != 0).then_some(self.csr.stimecmp);
        [Some(lines.machine_timer_compare), supervisor]
            .into_iter()
            .flatten()
            .filter(|&compare| compare > time_ticks)
            .min()
    }

    /// The cause of the interrupt to take now, if any is pending and enabled.
    pub fn interrupt_to_take(&self, pending: u64) -> Option<u64> {
        let enabled = pending & self.csr.mie;
        if enabled == 0 {
            return None;
        }
        let machine_on = self.privilege < Privilege::Machine || self.csr.status & status::MIE != 0;
        let supervisor_on = self.privilege < Privilege::Supervisor
            || self.privilege == Privilege::Supervisor && self.csr.status & status::SIE != 0;
        let machine = if machine_on {
            enabled & !self.csr.mideleg
        } else {
            0
        };
        let supervisor = if supervisor_on {
            enabled & self.csr.mideleg
        } else {
            0
        };
        let candidates = if machine != 0 { machine } else { supervisor };
        // MEI, MSI, MTI, SEI, SSI, STI: the order of the specification
        [11, 3, 7, 9, 1, 5]
            .into_iter()
            .find(|cause| candidates >> cause & 1 != 0)
    }
}

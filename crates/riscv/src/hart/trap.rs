//! Exceptions, traps and returns (privileged specification, 3.1.6, 3.3.2 and 12.1).

use super::csr::status;
use super::reservation::Reservation;
use super::{Hart, Privilege};

/// A synchronous exception: cause and `tval`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// What happened.
    pub cause: Cause,
    /// What `mtval` or `stval` will hold.
    pub value: u64,
}

/// Exception causes (privileged specification, table 14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)] // the names are the specification's
pub enum Cause {
    InstructionMisaligned = 0,
    InstructionAccessFault = 1,
    IllegalInstruction = 2,
    Breakpoint = 3,
    LoadMisaligned = 4,
    LoadAccessFault = 5,
    StoreMisaligned = 6,
    StoreAccessFault = 7,
    EnvironmentCallFromUser = 8,
    EnvironmentCallFromSupervisor = 9,
    EnvironmentCallFromMachine = 11,
    InstructionPageFault = 12,
    LoadPageFault = 13,
    StorePageFault = 15,
}

impl Exception {
    /// An exception.
    pub const fn new(cause: Cause, value: u64) -> Exception {
        Exception { cause, value }
    }
}

const INTERRUPT: u64 = 1 << 63;

impl Hart {
    /// Takes an exception that the instruction at `pc` raised.
    pub fn take_exception(&mut self, exception: Exception) {
        self.counters.trapped();
        let cause = exception.cause as u64;
        let delegated = self.privilege < Privilege::Machine && self.csr.medeleg >> cause & 1 != 0;
        self.trap(cause, exception.value, delegated);
    }

    /// Takes the interrupt `cause` before the instruction at `pc`.
    pub fn take_interrupt(&mut self, cause: u64) {
        let delegated = self.csr.mideleg >> cause & 1 != 0;
        self.trap(INTERRUPT | cause, 0, delegated);
    }

    fn trap(&mut self, cause: u64, value: u64, to_supervisor: bool) {
        self.reservation = Reservation::NONE;
        let c = &mut self.csr;
        let vector = if to_supervisor {
            c.scause = cause;
            c.sepc = self.pc;
            c.stval = value;
            let enabled = c.status & status::SIE != 0;
            c.status &= !(status::SPIE | status::SIE | status::SPP);
            if enabled {
                c.status |= status::SPIE;
            }
            if self.privilege == Privilege::Supervisor {
                c.status |= status::SPP;
            }
            self.privilege = Privilege::Supervisor;
            c.stvec
        } else {
            c.mcause = cause;
            c.mepc = self.pc;
            c.mtval = value;
            let enabled = c.status & status::MIE != 0;
            c.status &= !(status::MPIE | status::MIE | status::MPP);
            if enabled {
                c.status |= status::MPIE;
            }
            c.status |= (self.privilege as u64) << 11;
            self.privilege = Privilege::Machine;
            c.mtvec
        };
        let vectored = vector & 1 != 0 && cause & INTERRUPT != 0;
        let entry = if vectored {
            4 * (cause & !INTERRUPT)
        } else {
            0
        };
        self.pc = (vector & !3).wrapping_add(entry);
    }

    /// `mret`.
    pub fn return_from_machine(&mut self) {
        let c = &mut self.csr;
        let previous = Privilege::from_bits(c.status >> 11);
        if c.status & status::MPIE != 0 {
            c.status |= status::MIE;
        } else {
            c.status &= !status::MIE;
        }
        c.status = c.status & !status::MPP | status::MPIE;
        if previous != Privilege::Machine {
            c.status &= !status::MPRV;
        }
        self.privilege = previous;
        self.pc = c.mepc;
    }

    /// `sret`.
    pub fn return_from_supervisor(&mut self) {
        let c = &mut self.csr;
        if c.status & status::SPIE != 0 {
            c.status |= status::SIE;
        } else {
            c.status &= !status::SIE;
        }
        let previous = if c.status & status::SPP != 0 {
            Privilege::Supervisor
        } else {
            Privilege::User
        };
        c.status = c.status & !(status::SPP | status::MPRV) | status::SPIE;
        self.privilege = previous;
        self.pc = c.sepc;
    }

    /// The mode that loads and stores act in (`mstatus.MPRV`).
    pub fn data_privilege(&self) -> Privilege {
        if self.csr.status & status::MPRV != 0 && self.privilege == Privilege::Machine {
            Privilege::from_bits(self.csr.status >> 11)
        } else {
            self.privilege
        }
    }
}

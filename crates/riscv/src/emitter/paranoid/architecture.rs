//! What a guest can see of a hart.

use crate::hart::counters::Counters;
use crate::hart::csr::Csrs;
use crate::hart::physical_memory_protection::PhysicalMemoryProtection;
use crate::hart::reservation::Reservation;
use crate::hart::{Hart, Privilege};

/// The state of a hart, without what only makes it quick.
#[derive(Clone, PartialEq, Eq)]
pub struct Architecture {
    pub pc: u64,
    pub x: [u64; 32],
    pub f: [u64; 32],
    pub rest: Rest,
}

/// All but the registers that have a number.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(dead_code)] // printed by its name
pub struct Rest {
    privilege: Privilege,
    csr: Csrs,
    pmp: PhysicalMemoryProtection,
    counters: Counters,
    reservation: Reservation,
    waiting: bool,
}

impl Architecture {
    /// A copy of the hart's.
    pub fn of(hart: &Hart) -> Architecture {
        // Named one by one, so that a new field cannot be forgotten here.
        let Hart {
            id: _,
            pc,
            x,
            f,
            privilege,
            csr,
            pmp,
            counters,
            reservation,
            waiting,
            tlb: _,
            compiled: _,
        } = hart;
        Architecture {
            pc: *pc,
            x: std::array::from_fn(|index| x.get(index as u8)),
            f: *f,
            rest: Rest {
                privilege: *privilege,
                csr: csr.clone(),
                pmp: pmp.clone(),
                counters: counters.clone(),
                reservation: *reservation,
                waiting: *waiting,
            },
        }
    }

    /// Makes it the hart's; its translation context is for the caller to update.
    pub fn write_to(&self, hart: &mut Hart) {
        let Architecture { pc, x, f, rest } = self;
        hart.pc = *pc;
        for (index, value) in x.iter().enumerate() {
            hart.x.set_mapped(index as u8, *value);
        }
        hart.f = *f;
        hart.privilege = rest.privilege;
        hart.csr = rest.csr.clone();
        hart.pmp = rest.pmp.clone();
        hart.counters = rest.counters.clone();
        hart.reservation = rest.reservation;
        hart.waiting = rest.waiting;
    }

    /// Integer and floating-point registers by name.
    pub fn registers(&self) -> impl Iterator<Item = (String, u64)> {
        let name = |letter: char| move |(i, value): (usize, &u64)| (format!("{letter}{i}"), *value);
        let x = self.x.iter().enumerate().map(name('x'));
        let f = self.f.iter().enumerate().map(name('f'));
        std::iter::once(("pc".to_string(), self.pc))
            .chain(x)
            .chain(f)
    }

    /// The rest, a line a field.
    pub fn fields(&self) -> String {
        format!("{:#x?}", self.rest)
    }
}

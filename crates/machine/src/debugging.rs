//! Looking into a machine that stands still, stopping it where somebody wants to look, and setting it back.
//!
//! Nothing here is part of a machine's state, and nothing of it can be seen by the guest, by a digest or by a
//! snapshot: a breakpoint is no changed instruction, and a page table is walked without setting a bit.

use crate::Stop;
use crate::input::InstructionCount;
use crate::memory::{OutsideRam, PAGE_SIZE};
use crate::snapshot::{SnapshotError, SnapshotHead};
use std::collections::BTreeSet;

/// An address space, as the architecture names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressSpace {
    /// What names the root page table.
    pub root: u64,
    /// Bits that say how it is walked, or that it is not.
    pub mode: u64,
}

/// A hart as it executes its next instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HartView {
    /// The registers that the target description names, in its order.
    pub registers: Vec<u8>,
    /// Virtual address of the next instruction.
    pub program_counter: u64,
    /// Where its addresses lead.
    pub space: AddressSpace,
    /// In words: its mode, and whether it waits.
    pub describe: String,
}

/// What a watchpoint waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
    /// Either.
    Any,
}

impl Access {
    fn includes(self, made: Access) -> bool {
        self == Access::Any || made == Access::Any || self == made
    }
}

/// Bytes that are watched, at virtual addresses, in whatever address space. What devices read and write is
/// not seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Watchpoint {
    /// The first.
    pub address: u64,
    /// How many, more than none.
    pub length: u64,
    /// Which accesses.
    pub access: Access,
}

impl Watchpoint {
    fn last(&self) -> u64 {
        self.address.saturating_add(self.length.max(1) - 1)
    }
}

/// Where a machine stops for somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// Before an instruction at a breakpoint.
    Breakpoint {
        /// The hart that executes it next.
        hart: usize,
    },
    /// After an instruction that accessed what is watched.
    Watchpoint {
        /// The hart that did.
        hart: usize,
        /// The watchpoint's address.
        address: u64,
        /// What the watchpoint waits for.
        access: Access,
    },
}

/// Why [`Debuggable::run_to_trap`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrapStop {
    /// As [`Machine::run`](crate::Machine::run).
    Stop(Stop),
    /// At a trap, and as if that count had been asked for.
    Trap(Trap),
}

/// Breakpoints and watchpoints, and what an engine asks of them. They are at virtual addresses, in whatever
/// address space.
#[derive(Clone, Debug, Default)]
pub struct Traps {
    breakpoints: BTreeSet<u64>,
    watchpoints: BTreeSet<Watchpoint>,
    armed: Armed,
    hit: Option<Watchpoint>,
}

/// Which traps count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Armed {
    /// None.
    #[default]
    Nothing,
    /// Watchpoints only.
    Watchpoints,
    /// All.
    Everything,
}

impl Traps {
    /// These.
    pub fn new(breakpoints: BTreeSet<u64>, watchpoints: BTreeSet<Watchpoint>) -> Traps {
        Traps {
            breakpoints,
            watchpoints,
            armed: Armed::Nothing,
            hit: None,
        }
    }

    /// Which of them count from here on.
    pub fn arm(&mut self, armed: Armed) {
        self.armed = armed;
        self.hit = None;
    }

    /// Whether an instruction at this offset in whatever page may be at a breakpoint: then no longer run of
    /// instructions may lead over it.
    #[inline]
    pub fn may_break_at(&self, offset: usize) -> bool {
        !self.breakpoints.is_empty() && self.breaks_in_a_page_at(offset)
    }

    #[cold]
    fn breaks_in_a_page_at(&self, offset: usize) -> bool {
        let within = offset as u64 % PAGE_SIZE;
        self.breakpoints
            .iter()
            .any(|address| address % PAGE_SIZE == within)
    }

    /// Whether there are breakpoints.
    pub fn has_breakpoints(&self) -> bool {
        !self.breakpoints.is_empty()
    }

    /// Whether they count, and one is there.
    #[inline]
    pub fn breaks_at(&self, address: u64) -> bool {
        self.armed == Armed::Everything && self.breakpoints.contains(&address)
    }

    /// Whether something is watched in the page of `address`: then every access has to be told, and none
    /// may be remembered so that it is quick.
    #[inline]
    pub fn watches_page(&self, address: u64) -> bool {
        !self.watchpoints.is_empty() && self.watches_something_in(address)
    }

    #[cold]
    fn watches_something_in(&self, address: u64) -> bool {
        let page = address / PAGE_SIZE;
        self.watchpoints.iter().any(|watchpoint| {
            (watchpoint.address / PAGE_SIZE..=watchpoint.last() / PAGE_SIZE).contains(&page)
        })
    }

    /// An instruction accesses `length` bytes at `address`. True if the machine has to stop after it.
    #[inline]
    pub fn accessed(&mut self, address: u64, length: u64, access: Access) -> bool {
        !self.watchpoints.is_empty() && self.look_at_access(address, length, access)
    }

    #[cold]
    fn look_at_access(&mut self, address: u64, length: u64, access: Access) -> bool {
        if self.armed == Armed::Nothing {
            return false;
        }
        let last = address.saturating_add(length - 1);
        let hit = self.watchpoints.iter().find(|watchpoint| {
            watchpoint.access.includes(access)
                && watchpoint.address <= last
                && address <= watchpoint.last()
        });
        self.hit = self.hit.or(hit.copied());
        hit.is_some()
    }

    /// Whether the machine has to stop before its next instruction, which is at this address: something that is watched
    /// was accessed, or it is at a breakpoint.
    #[inline]
    pub fn stop_before(&self, address: u64) -> bool {
        self.hit.is_some() || self.breaks_at(address)
    }

    /// Whether something that is watched was accessed since they were armed.
    #[inline]
    pub fn is_hit(&self) -> bool {
        self.hit.is_some()
    }

    /// The watchpoint whose bytes were accessed since they were armed.
    pub fn take_hit(&mut self) -> Option<Watchpoint> {
        self.hit.take()
    }
}

/// A machine that can be looked into.
pub trait Debuggable {
    /// gdb's target description: an XML document, whose registers are those of [`HartView::registers`].
    fn target_description(&self) -> String;

    /// Whether gdb takes a stop at a watchpoint of this architecture for one before the access, which it then
    /// steps over itself: on the way back, for one behind it.
    fn gdb_steps_over_watchpoints(&self) -> bool;

    /// Its harts, each as it executes its next instruction: an interrupt that comes before it is taken.
    fn harts(&self) -> Vec<HartView>;

    /// The hart that executes the next instruction; none if all wait.
    fn next_hart(&self) -> Option<usize>;

    /// The guest physical address of a virtual one, if it leads anywhere. No permissions are asked for.
    fn translate(&self, space: AddressSpace, address: u64) -> Option<u64>;

    /// Reads bytes at a guest physical address that is RAM or ROM. Devices are not read: it would be seen.
    ///
    /// # Errors
    /// Not all of them are.
    fn read_physical(&self, address: u64, buffer: &mut [u8]) -> Result<(), OutsideRam>;

    /// Sets all breakpoints and watchpoints; those before are gone.
    fn set_traps(&mut self, traps: Traps);

    /// As [`Machine::run`](crate::Machine::run), and stops at a trap that is `armed`: at once if it stands at
    /// such a breakpoint.
    fn run_to_trap(&mut self, until: InstructionCount, armed: Armed) -> TrapStop;

    /// Everything but RAM.
    fn save(&self) -> SnapshotHead;

    /// Calls `f` with the index and the bytes of each page of RAM that was written since the last call, or
    /// since the machine was made.
    fn visit_written(&mut self, f: &mut dyn FnMut(usize, &[u8]));

    /// Sets the machine back: to the state of `head`, and these pages of RAM (index and bytes; all others
    /// are as they were then).
    ///
    /// # Errors
    /// The state is not of this machine's architecture and semantics. The machine is as it was.
    fn set_back(
        &mut self,
        head: &SnapshotHead,
        pages: &mut dyn Iterator<Item = (usize, &[u8])>,
    ) -> Result<(), SnapshotError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchpoint_hears_of_every_access_that_touches_it_and_of_no_other() {
        let watchpoint = Watchpoint {
            address: 0xffe,
            length: 4,
            access: Access::Write,
        };
        let mut traps = Traps::new(BTreeSet::new(), BTreeSet::from([watchpoint]));
        assert!(!traps.accessed(0xffe, 4, Access::Write), "it is not armed");
        traps.arm(Armed::Everything);
        for (address, length, access, expected) in [
            (0xffd, 1, Access::Write, false),
            (0xffd, 2, Access::Write, true),
            (0x1001, 8, Access::Any, true),
            (0x1002, 8, Access::Write, false),
            (0x1000, 1, Access::Read, false),
        ] {
            assert_eq!(
                traps.accessed(address, length, access),
                expected,
                "{address:#x}"
            );
        }
        assert_eq!(traps.take_hit(), Some(watchpoint));
        assert!(
            traps.watches_page(0x0) && traps.watches_page(0x1fff) && !traps.watches_page(0x2000)
        );
    }

    #[test]
    fn a_breakpoint_may_be_at_its_offset_in_any_page() {
        let mut traps = Traps::new(BTreeSet::from([0xffff_ffff_8000_2abc]), BTreeSet::new());
        assert!(traps.may_break_at(0x5abc) && !traps.may_break_at(0x5abe));
        assert!(!traps.breaks_at(0xffff_ffff_8000_2abc), "it is not armed");
        traps.arm(Armed::Everything);
        assert!(traps.breaks_at(0xffff_ffff_8000_2abc) && !traps.breaks_at(0x5abc));
    }
}

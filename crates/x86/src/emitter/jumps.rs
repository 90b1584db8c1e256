//! Where jumps lead that are not patched: to the code of a linear address.

use crate::mmu::Fetches;
use crate::ram::{Half, SPACES};

/// Entries of a table.
pub const ENTRIES: usize = 1 << 16;

/// Where the code of an address is. Compiled code reads it.
#[derive(Clone, Copy)]
#[repr(C)]
struct Entry {
    rip: u64,
    code: u64,
}

/// What the lower half of an address is multiplied by (2^32 divided by the golden ratio): the upper half of that product
/// depends on all of its bits.
pub const SPREAD: u32 = 0x9e37_79b1;

/// The entry of an address, and the one that it has where another address has that: functions begin at multiples of 16,
/// so in a kernel half of them share theirs. Compiled code computes the same.
fn slots(rip: u64) -> [usize; 2] {
    let spread = (rip as u32).wrapping_mul(SPREAD) >> 16;
    [rip as usize % ENTRIES, spread as usize % ENTRIES]
}

/// An address that is looked for in no entry but the first, by either number.
const NOWHERE: u64 = 1 << 63;

/// An entry that answers nobody: its address is one that is looked for in another entry.
fn empty(slot: usize) -> Entry {
    Entry {
        rip: if slot == 0 { 1 } else { NOWHERE },
        code: 0,
    }
}

/// A table of supervisors, or of programs of an address space.
struct Table {
    entries: Box<[Entry]>,
    /// The entries that may not be empty.
    filled: Vec<u16>,
    /// Whether there are addresses of the lower half among them, and of the upper.
    halves: [bool; 2],
    /// The TLB's generations of fetches that they belong to.
    generations: [u32; 2],
}

/// The tables of supervisors and of programs: a program finds its own again when its address space runs again.
pub struct Jumps {
    supervisors: Table,
    /// By address space; none of those that never ran.
    programs: [Option<Table>; SPACES],
    /// What the tables that are used belong to.
    fetches: Fetches,
}

impl Table {
    fn new() -> Table {
        Table {
            entries: (0..ENTRIES).map(empty).collect(),
            filled: Vec::new(),
            halves: [false; 2],
            generations: [0; 2],
        }
    }

    fn clear(&mut self) {
        for slot in self.filled.drain(..) {
            self.entries[usize::from(slot)] = empty(slot.into());
        }
        self.halves = [false; 2];
    }

    /// Forgets what was found by translations that may not be true any more.
    fn refresh(&mut self, generations: [u32; 2]) {
        let is_stale =
            |half: usize| self.halves[half] && self.generations[half] != generations[half];
        if is_stale(0) || is_stale(1) {
            self.clear();
        }
        self.generations = generations;
    }
}

impl Jumps {
    pub fn new() -> Jumps {
        let mut programs: [Option<Table>; SPACES] = Default::default();
        programs[0] = Some(Table::new());
        Jumps {
            supervisors: Table::new(),
            programs,
            fetches: Fetches {
                space: 0,
                generations: [0; 2],
            },
        }
    }

    /// Forgets all, of all address spaces.
    pub fn clear(&mut self) {
        self.supervisors.clear();
        self.programs.iter_mut().flatten().for_each(Table::clear);
    }

    /// Forgets what was found by translations that may not be true any more, and takes the tables of the address
    /// space that runs.
    #[inline]
    pub fn refresh(&mut self, fetches: Fetches) {
        if self.fetches != fetches {
            self.change(fetches);
        }
    }

    fn change(&mut self, fetches: Fetches) {
        self.fetches = fetches;
        self.supervisors.refresh(fetches.generations);
        let programs = &mut self.programs[usize::from(fetches.space)];
        let programs = programs.get_or_insert_with(Table::new);
        programs.refresh(fetches.generations);
    }

    #[inline]
    fn table(&self, is_user: bool) -> &Table {
        match is_user {
            false => &self.supervisors,
            true => self.programs[usize::from(self.fetches.space)]
                .as_ref()
                .expect("the space runs"),
        }
    }

    fn table_mut(&mut self, is_user: bool) -> &mut Table {
        match is_user {
            false => &mut self.supervisors,
            true => self.programs[usize::from(self.fetches.space)]
                .as_mut()
                .expect("the space runs"),
        }
    }

    /// Remembers.
    #[inline]
    pub fn add(&mut self, is_user: bool, rip: u64, code: u64) {
        let table = self.table_mut(is_user);
        let [first, second] = slots(rip);
        let is_free = |entry: &Entry| entry.code == 0 || entry.rip == rip;
        let slot = match is_free(&table.entries[first]) {
            true => first,
            false => second,
        };
        if table.entries[slot].code == 0 {
            table.filled.push(slot as u16);
        }
        table.halves[Half::of(rip) as usize] = true;
        table.entries[slot] = Entry { rip, code };
    }

    /// The code at an address, if it is remembered.
    #[inline]
    pub fn find(&self, is_user: bool, rip: u64) -> Option<u64> {
        let entries = &self.table(is_user).entries;
        let mut entries = slots(rip).into_iter().map(|slot| &entries[slot]);
        entries
            .find(|entry| entry.rip == rip)
            .map(|entry| entry.code)
    }

    /// The address of a table.
    pub fn address(&self, is_user: bool) -> u64 {
        self.table(is_user).entries.as_ptr() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else calls in turn to both would leave compiled code each time.
    #[test]
    fn two_addresses_with_one_entry_are_both_known() {
        let mut jumps = Jumps::new();
        let addresses = [0x1_0040, 0x5_0040, 0x7f_0040];
        for (code, rip) in (1..).zip(addresses) {
            jumps.add(false, rip, code);
        }
        jumps.add(false, addresses[1], 9);
        let found = addresses.map(|rip| jumps.find(false, rip));
        assert_eq!(found, [Some(1), Some(9), Some(3)]);
        jumps.clear();
        assert_eq!(addresses.map(|rip| jumps.find(false, rip)), [None; 3]);
    }

    /// Else compiled code would jump to address zero.
    #[test]
    fn an_empty_entry_is_not_where_its_address_is_looked_for() {
        for number in 0..ENTRIES {
            assert!(!slots(empty(number).rip).contains(&number));
        }
    }
}

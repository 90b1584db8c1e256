//! Where jumps lead that are not patched: to the code of a linear address.

use crate::ram::Half;

/// Entries of a table.
pub const ENTRIES: usize = 1 << 16;

/// Where the code of an address is. Compiled code reads it.
#[derive(Clone, Copy)]
#[repr(C)]
struct Entry {
    rip: u64,
    code: u64,
}

/// The entry of an address; compiled code computes the same.
fn slot(rip: u64) -> usize {
    rip as usize % ENTRIES
}

/// An address that is looked for in no entry but the first.
const NOWHERE: u64 = 1 << 63;

/// An entry that answers nobody: its address is one that is looked for in another entry.
fn empty(slot: usize) -> Entry {
    Entry {
        rip: if slot == 0 { 1 } else { NOWHERE },
        code: 0,
    }
}

/// The table of a privilege.
struct Table {
    entries: Box<[Entry]>,
    /// The entries that may not be empty.
    filled: Vec<u16>,
    /// Whether there are addresses of the lower half among them, and of the upper.
    halves: [bool; 2],
}

/// The tables of both privileges.
pub struct Jumps {
    tables: [Table; 2],
    /// The TLB's fetch generations that they belong to.
    generations: [u32; 2],
}

impl Table {
    fn new() -> Table {
        Table {
            entries: (0..ENTRIES).map(empty).collect(),
            filled: Vec::new(),
            halves: [false; 2],
        }
    }

    fn clear(&mut self) {
        for slot in self.filled.drain(..) {
            self.entries[usize::from(slot)] = empty(slot.into());
        }
        self.halves = [false; 2];
    }
}

impl Jumps {
    pub fn new() -> Jumps {
        Jumps {
            tables: [Table::new(), Table::new()],
            generations: [0; 2],
        }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.tables.iter_mut().for_each(Table::clear);
    }

    /// Forgets what was found by translations that may not be true any more.
    #[inline]
    pub fn refresh(&mut self, generations: [u32; 2]) {
        if self.generations != generations {
            self.forget_stale(generations);
        }
    }

    fn forget_stale(&mut self, generations: [u32; 2]) {
        for (half, &generation) in generations.iter().enumerate() {
            if self.generations[half] != generation {
                let stale = self.tables.iter_mut().filter(|table| table.halves[half]);
                stale.for_each(Table::clear);
            }
        }
        self.generations = generations;
    }

    /// Remembers.
    #[inline]
    pub fn add(&mut self, is_user: bool, rip: u64, code: u64) {
        let slot = slot(rip);
        let table = &mut self.tables[usize::from(is_user)];
        if table.entries[slot].code == 0 {
            table.filled.push(slot as u16);
        }
        table.halves[Half::of(rip) as usize] = true;
        table.entries[slot] = Entry { rip, code };
    }

    /// The code at an address, if it is remembered.
    #[inline]
    pub fn find(&self, is_user: bool, rip: u64) -> Option<u64> {
        let entry = &self.tables[usize::from(is_user)].entries[slot(rip)];
        (entry.rip == rip).then_some(entry.code)
    }

    /// The address of a table.
    pub fn address(&self, is_user: bool) -> u64 {
        self.tables[usize::from(is_user)].entries.as_ptr() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else compiled code would jump to address zero.
    #[test]
    fn an_empty_entry_is_not_where_its_address_is_looked_for() {
        for number in 0..ENTRIES {
            assert_ne!(slot(empty(number).rip), number);
        }
    }
}

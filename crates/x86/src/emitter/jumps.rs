//! Where jumps lead that are not patched: to the code of a linear address.

/// Entries of a table.
pub const ENTRIES: usize = 4096;

/// Where the code of an address is. Compiled code reads it.
#[derive(Clone, Copy)]
#[repr(C)]
struct Entry {
    rip: u64,
    code: u64,
}

/// The entry of an address; compiled code computes the same.
fn slot(rip: u64) -> usize {
    (rip ^ rip >> 12) as usize % ENTRIES
}

/// An entry that answers nobody: its address is one that is looked for in another entry.
fn empty(slot: usize) -> Entry {
    Entry {
        rip: slot as u64 ^ 1,
        code: 0,
    }
}

/// The tables of both privileges.
pub struct Jumps {
    tables: [Box<[Entry]>; 2],
    /// The entries that may not be empty.
    filled: Vec<(bool, u16)>,
    /// The TLB's fetch generation that they belong to.
    generation: u32,
}

impl Jumps {
    pub fn new() -> Jumps {
        let table = || (0..ENTRIES).map(empty).collect();
        Jumps {
            tables: [table(), table()],
            filled: Vec::new(),
            generation: 0,
        }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        for (is_user, slot) in self.filled.drain(..) {
            self.tables[usize::from(is_user)][usize::from(slot)] = empty(slot.into());
        }
    }

    /// Forgets all if it was found by translations that may not be true any more.
    #[inline]
    pub fn refresh(&mut self, generation: u32) {
        if self.generation != generation {
            self.generation = generation;
            self.clear();
        }
    }

    /// Remembers.
    #[inline]
    pub fn add(&mut self, is_user: bool, rip: u64, code: u64) {
        let slot = slot(rip);
        let entry = &mut self.tables[usize::from(is_user)][slot];
        if entry.rip != rip {
            self.filled.push((is_user, slot as u16));
            if self.filled.len() > 4 * ENTRIES {
                self.clear();
                self.filled.push((is_user, slot as u16));
            }
        }
        self.tables[usize::from(is_user)][slot] = Entry { rip, code };
    }

    /// The code at an address, if it is remembered.
    #[inline]
    pub fn find(&self, is_user: bool, rip: u64) -> Option<u64> {
        let entry = &self.tables[usize::from(is_user)][slot(rip)];
        (entry.rip == rip).then_some(entry.code)
    }

    /// The address of a table.
    pub fn address(&self, is_user: bool) -> u64 {
        self.tables[usize::from(is_user)].as_ptr() as u64
    }
}

//! Stores for trial, which are undone: see [`machine::memory::journal`].
#![cfg_attr(not(jit), allow(dead_code))] // only a JIT under watch begins a trial

use super::Memory;
use machine::memory::journal::Journal;

/// All that a trial changed.
#[derive(Default)]
pub struct Trial {
    /// In RAM.
    pub journal: Box<Journal>,
    disturbances: usize,
    lower_tables: usize,
    table_stores: u32,
}

impl Memory {
    /// From here on everything is remembered: see [`Ram::begin_trial`](machine::memory::Ram::begin_trial).
    pub fn begin_trial(&mut self, trial: &mut Trial) {
        trial.disturbances = self.disturbances.len();
        trial.lower_tables = self.lower_tables.len();
        trial.table_stores = self.table_stores;
        self.ram.begin_trial(std::mem::take(&mut trial.journal));
    }

    /// Ends the trial: RAM, flags, disturbances and what is known of page tables are as they were at
    /// its begin.
    pub fn undo_trial(&mut self, trial: &mut Trial) {
        trial.journal = self.ram.undo_trial();
        self.disturbances.truncate(trial.disturbances);
        self.lower_tables.truncate(trial.lower_tables);
        self.table_stores = trial.table_stores;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{PAGE_HOLDS_LEAF_TABLE, PAGE_HOLDS_UPPER_TABLE};
    use machine::memory::PAGE_SIZE;

    const PAGE: usize = PAGE_SIZE as usize;

    /// A trial that leaves a trace would change the machine that it only watches.
    #[test]
    fn a_trial_that_was_undone_left_no_trace() {
        let mut memory = Memory::new(4 * PAGE_SIZE);
        memory.flag_table(PAGE, PAGE_HOLDS_UPPER_TABLE);
        memory.store(PAGE + 8, 8, 1); // a valid entry
        memory.take_disturbances();
        let state = |memory: &Memory| {
            let flags: Vec<u8> = (0..4).map(|page| memory.flags(page * PAGE)).collect();
            (flags, memory.lower_tables.clone(), memory.table_stores)
        };
        let before = state(&memory);
        let mut trial = Trial::default();
        memory.begin_trial(&mut trial);
        assert!(memory.store(PAGE + 8, 8, 3), "a translation changed");
        memory.flag_table(3 * PAGE, PAGE_HOLDS_LEAF_TABLE);
        memory.undo_trial(&mut trial);
        assert_eq!(before, state(&memory));
        assert!(!memory.is_disturbed());
        assert_eq!(memory.load_u64(PAGE + 8), 1);
        assert_eq!(trial.journal.words.len(), 1);
    }
}

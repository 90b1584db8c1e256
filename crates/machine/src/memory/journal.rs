//! What a trial run did to RAM, so that it can be undone and compared.

use super::{Memory, PAGE_SIZE};

/// A double-word of RAM that was stored to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrittenWord {
    /// Its offset in RAM, a multiple of eight.
    pub offset: usize,
    /// What it held before the store.
    pub old: u64,
    /// What it held after it.
    pub new: u64,
}

struct ChangedPage {
    index: usize,
    flags: u8,
    code_lines: u64,
}

/// All that a trial run changed, in order.
#[derive(Default)]
pub struct Journal {
    /// A store that reaches into two double-words is two entries. `new` is known from
    /// [`Memory::undo_trial`] on.
    pub words: Vec<WrittenWord>,
    pages: Vec<ChangedPage>,
    disturbances: usize,
    table_stores: u32,
    code_page_stores: u32,
    lower_tables: usize,
}

impl Memory {
    /// From here on every store of a hart and every flag of a page is remembered, and no page is
    /// plain, so that no TLB learns to store behind the journal's back. What transfers of devices
    /// write is not remembered.
    pub(crate) fn begin_trial(&mut self, mut journal: Box<Journal>) {
        journal.words.clear();
        journal.pages.clear();
        journal.disturbances = self.disturbances.len();
        journal.table_stores = self.table_stores;
        journal.code_page_stores = self.code_page_stores;
        journal.lower_tables = self.lower_tables.len();
        self.journal = Some(journal);
    }

    /// Double-words written since [`Memory::begin_trial`]; zero without a trial.
    pub(crate) fn words_written(&self) -> usize {
        self.journal
            .as_ref()
            .map_or(0, |journal| journal.words.len())
    }

    /// Ends the trial: RAM, flags and disturbances are as they were at its begin.
    pub(crate) fn undo_trial(&mut self) -> Box<Journal> {
        let mut journal = self.journal.take().expect("a trial was begun");
        for word in journal.words.iter_mut().rev() {
            word.new = self.load_u64(word.offset);
            self.store_u64(word.offset, word.old);
        }
        for page in journal.pages.iter().rev() {
            self.flags[page.index] = page.flags;
            self.code_lines[page.index] = page.code_lines;
        }
        self.disturbances.truncate(journal.disturbances);
        self.table_stores = journal.table_stores;
        self.code_page_stores = journal.code_page_stores;
        self.lower_tables.truncate(journal.lower_tables);
        journal
    }

    /// Before a store of `size` bytes.
    #[cold]
    pub(super) fn note_store(&mut self, offset: usize, size: usize) {
        self.note_page(offset);
        let first = offset & !7;
        let last = (offset + size - 1) & !7;
        for offset in (first..=last).step_by(8) {
            let old = self.load_u64(offset);
            let word = WrittenWord {
                offset,
                old,
                new: old,
            };
            if let Some(journal) = &mut self.journal {
                journal.words.push(word);
            }
        }
    }

    /// Before the flags of the page at `offset` change.
    #[cold]
    pub(super) fn note_page(&mut self, offset: usize) {
        let index = offset / PAGE_SIZE as usize;
        let page = ChangedPage {
            index,
            flags: self.flags[index],
            code_lines: self.code_lines[index],
        };
        if let Some(journal) = &mut self.journal {
            journal.pages.push(page);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{PAGE_HOLDS_LEAF_TABLE, PAGE_HOLDS_UPPER_TABLE};

    const PAGE: usize = PAGE_SIZE as usize;

    /// A trial that leaves a trace would change the machine that it only watches.
    #[test]
    fn a_trial_that_was_undone_left_no_trace() {
        let mut memory = Memory::new(4 * PAGE_SIZE);
        memory.set_flag(PAGE, PAGE_HOLDS_UPPER_TABLE);
        memory.store(PAGE + 8, 8, 1); // a valid entry
        memory.mark_code(2 * PAGE, 64);
        memory.take_disturbances();
        let before = (
            memory.bytes.clone(),
            memory.flags.clone(),
            memory.code_lines.clone(),
        );
        let table_stores = memory.table_stores;
        memory.begin_trial(Box::default());
        assert!(memory.store(PAGE + 8, 8, 3), "a translation changed");
        assert!(memory.store(2 * PAGE + 4, 2, 3), "code changed");
        memory.store(5, 8, u64::MAX);
        memory.store(9, 1, 7);
        memory.set_flag(3 * PAGE, PAGE_HOLDS_LEAF_TABLE);
        assert!(!memory.is_plain(0), "no TLB may learn of it");
        let journal = memory.undo_trial();
        let after = (
            memory.bytes.clone(),
            memory.flags.clone(),
            memory.code_lines.clone(),
        );
        assert!(before == after);
        assert!(!memory.is_disturbed());
        assert_eq!(table_stores, memory.table_stores);
        let written: Vec<_> = journal.words[2..]
            .iter()
            .map(|word| (word.offset, word.old, word.new))
            .collect();
        let (low, high) = (0xffff_ff00_0000_0000, 0xff_ffff_ffff);
        assert_eq!(
            written,
            [(0, 0, low), (8, 0, high), (8, high, 0xff_ffff_07ff)]
        );
    }
}

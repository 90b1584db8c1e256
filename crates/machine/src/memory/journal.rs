//! What a trial run did to RAM, so that it can be undone and compared.

use super::{PAGE_SIZE, Ram};

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
    /// [`Ram::undo_trial`] on.
    pub words: Vec<WrittenWord>,
    pages: Vec<ChangedPage>,
    flagged_writes: usize,
    code_page_stores: u32,
}

impl Ram {
    /// From here on every store of a hart and every flag of a page is remembered, and no page is
    /// plain, so that no TLB learns to store behind the journal's back. What transfers of devices
    /// write is not remembered.
    pub fn begin_trial(&mut self, mut journal: Box<Journal>) {
        journal.words.clear();
        journal.pages.clear();
        journal.flagged_writes = self.flagged_writes.len();
        journal.code_page_stores = self.code_page_stores;
        self.journal = Some(journal);
    }

    /// Double-words written since [`Ram::begin_trial`]; zero without a trial.
    pub fn words_written(&self) -> usize {
        self.journal
            .as_ref()
            .map_or(0, |journal| journal.words.len())
    }

    /// Ends the trial: RAM, flags and flagged writes are as they were at its begin.
    pub fn undo_trial(&mut self) -> Box<Journal> {
        let mut journal = self.journal.take().expect("a trial was begun");
        for word in journal.words.iter_mut().rev() {
            word.new = self.load_u64(word.offset);
            self.store_u64(word.offset, word.old);
        }
        for page in journal.pages.iter().rev() {
            self.flags[page.index] = page.flags;
            self.code_lines[page.index] = page.code_lines;
        }
        self.flagged_writes.truncate(journal.flagged_writes);
        self.code_page_stores = journal.code_page_stores;
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
    use crate::memory::Region;

    const PAGE: usize = PAGE_SIZE as usize;
    /// Some flag of an architecture.
    const FLAG: u8 = 4;

    /// A trial that leaves a trace would change the machine that it only watches.
    #[test]
    fn a_trial_that_was_undone_left_no_trace() {
        let mut ram = Ram::new(&[Region {
            base: 0,
            length: 4 * PAGE_SIZE,
        }]);
        ram.mark_code(2 * PAGE, 64);
        let state = |ram: &Ram| {
            let (bytes, flags) = (ram.bytes.clone(), ram.flags.clone());
            (bytes, flags, ram.code_lines.clone(), ram.code_page_stores)
        };
        let before = state(&ram);
        ram.begin_trial(Box::default());
        assert!(ram.store(2 * PAGE + 4, 2, 3), "code changed");
        ram.store(5, 8, u64::MAX);
        ram.store(9, 1, 7);
        ram.set_flags(3 * PAGE, FLAG);
        assert!(!ram.is_plain(0), "no TLB may learn of it");
        let journal = ram.undo_trial();
        assert!(before == state(&ram));
        assert!(!ram.has_flagged_writes());
        let written: Vec<_> = journal.words[1..]
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

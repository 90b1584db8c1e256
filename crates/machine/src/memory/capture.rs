//! A snapshot of RAM that is taken while the machine runs.
//!
//! At its moment every page is marked as to be kept, which takes a sweep over two bytes for each page.
//! From then on whoever writes to such a page first ([`Ram::store`], [`Ram::write`]) copies it before,
//! and whoever drives the machine copies the others ahead ([`Capture::copy`]), between two runs, on the
//! machine's own thread: so no page is ever touched by two threads, and nothing about it depends on
//! time that the guest could see. Each page is copied once.

use super::batch::{BATCH_PAGES, PageBatch};
use super::tracking::{Consumer, TO_BE_KEPT};
use super::{PAGE_SIZE, Ram};
use std::collections::VecDeque;

/// Batches that are kept for the next pages instead of being given back to the host.
const SPARE_BATCHES: usize = 8;

/// A page that need not be looked at is so little of the work of one that has to be copied.
const PAGE_WORK: usize = 64;

/// What of RAM a snapshot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// All of it, as the first round of a copy.
    First,
    /// What was written since the round before began: with all rounds before, it is all of it. Pages of
    /// zeros are in it, since they may have been others.
    Changes,
    /// What was written since the last checkpoint's moment ([`Consumer::Checkpoint`]), pages of zeros too.
    Checkpoint,
    /// All of it, for a journal: its next one may hold no more than what changes from here on.
    Base,
    /// What was written since the last one for a journal began ([`Consumer::Journal`]), pages of zeros too.
    Increment,
}

impl Extent {
    /// Whose next epoch begins with it.
    fn consumer(self) -> Option<Consumer> {
        match self {
            Extent::Whole => None,
            Extent::First | Extent::Changes => Some(Consumer::Copy),
            Extent::Checkpoint => Some(Consumer::Checkpoint),
            Extent::Base | Extent::Increment => Some(Consumer::Journal),
        }
    }

    /// Whose changes it holds; of whoever has all of RAM, none.
    fn changes_of(self) -> Option<Consumer> {
        match self {
            Extent::Whole | Extent::First | Extent::Base => None,
            Extent::Changes | Extent::Checkpoint | Extent::Increment => self.consumer(),
        }
    }
}

/// What of a snapshot was copied and not taken yet.
#[derive(Default)]
pub(super) struct Captured {
    /// Pages of zeros are in it.
    with_zeros: bool,
    /// The next page to be copied ahead; all before it were copied.
    next: usize,
    /// Pages that were copied because somebody was about to write to them.
    kept: u64,
    full: VecDeque<PageBatch>,
    filling: PageBatch,
    spare: Vec<PageBatch>,
}

impl Captured {
    fn add(&mut self, index: usize, bytes: &[u8]) {
        if self.with_zeros {
            self.filling.add_any(index, bytes);
        } else {
            self.filling.add(index, bytes);
        }
        if self.filling.len() == BATCH_PAGES {
            let empty = self.empty_batch();
            self.full
                .push_back(std::mem::replace(&mut self.filling, empty));
        }
    }

    fn empty_batch(&mut self) -> PageBatch {
        self.spare
            .pop()
            .unwrap_or_else(|| PageBatch::with_capacity(BATCH_PAGES))
    }
}

impl Ram {
    /// Begins a snapshot of this moment; one that is under way ends without a result. All write TLB
    /// entries have to go afterwards.
    pub fn begin_capture(&mut self, extent: Extent) {
        let changes_of = extent.changes_of();
        self.captured = Some(Box::new(Captured {
            // They may have been others.
            with_zeros: changes_of.is_some(),
            ..Captured::default()
        }));
        match changes_of {
            None => self.keep_all(),
            Some(consumer) => self.keep_written(consumer),
        }
        if let Some(consumer) = extent.consumer() {
            self.has_seen_all(consumer);
        }
    }

    /// As [`Ram::capture_page`], before the page is written.
    pub(super) fn keep_page(&mut self, index: usize) {
        self.capture_page(index);
        if let Some(captured) = &mut self.captured {
            captured.kept += 1;
        }
    }

    /// The bytes of page `index` are those of the snapshot, and are copied now.
    fn capture_page(&mut self, index: usize) {
        assert!(
            self.tracking[index] & TO_BE_KEPT != 0,
            "page {index} is copied a second time"
        );
        // Most of RAM was never touched, and a look would have the host map all of it.
        let is_zero = self.is_known_to_be_zero(index);
        let captured = self.captured.as_mut().expect("a snapshot is under way");
        if !is_zero || captured.with_zeros {
            let bytes = &self.bytes[index * PAGE_SIZE as usize..][..PAGE_SIZE as usize];
            captured.add(index, bytes);
        }
        self.was_kept(index);
    }

    /// The snapshot that is under way, to be taken along by whoever drives the machine.
    pub fn capture(&mut self) -> Option<Capture<'_>> {
        self.captured.is_some().then_some(Capture { ram: self })
    }
}

/// A snapshot of RAM that is under way.
pub struct Capture<'a> {
    ram: &'a mut Ram,
}

impl Capture<'_> {
    fn captured(&mut self) -> &mut Captured {
        self.ram.captured.as_mut().expect("it is under way")
    }

    /// Copies pages that were not written since its moment, with the work that `pages` pages are.
    pub fn copy(&mut self, pages: usize) {
        let mut work = pages * PAGE_WORK;
        while work >= PAGE_WORK {
            let next = self.captured().next;
            let Some(tracking) = self.ram.tracking.get(next) else {
                break;
            };
            work -= 1;
            if tracking & TO_BE_KEPT != 0 {
                if self.captured().with_zeros || !self.ram.is_known_to_be_zero(next) {
                    work -= PAGE_WORK - 1;
                }
                self.ram.capture_page(next);
            }
            self.captured().next = next + 1;
        }
    }

    /// Whether all pages are copied.
    pub fn is_complete(&self) -> bool {
        let captured = self.ram.captured.as_ref().expect("it is under way");
        captured.next == self.ram.pages()
    }

    /// Pages that were copied and not taken yet: the memory that the snapshot needs.
    pub fn waiting_pages(&self) -> usize {
        let captured = self.ram.captured.as_ref().expect("it is under way");
        captured.full.len() * BATCH_PAGES + captured.filling.len()
    }

    /// Pages that were copied because they were about to be written, since it began: that took the time
    /// of whoever wrote.
    pub fn kept_pages(&self) -> u64 {
        let captured = self.ram.captured.as_ref().expect("it is under way");
        captured.kept
    }

    /// Takes copied pages: a full batch, or the last one when all pages are copied.
    pub fn take_batch(&mut self) -> Option<PageBatch> {
        let is_complete = self.is_complete();
        let captured = self.captured();
        captured.full.pop_front().or_else(|| {
            let has_last = is_complete && !captured.filling.is_empty();
            has_last.then(|| std::mem::take(&mut captured.filling))
        })
    }

    /// Gives the room of a batch back that was taken, for later pages.
    pub fn reuse(&mut self, mut batch: PageBatch) {
        batch.clear();
        let captured = self.captured();
        if captured.spare.len() < SPARE_BATCHES {
            captured.spare.push(batch);
        }
    }

    /// Ends it, complete or not: nothing is kept any more. Gives what was copied and not taken, to be
    /// dropped where nobody waits for that.
    pub fn end(self) -> Vec<PageBatch> {
        if !self.is_complete() {
            self.ram.keep_none();
        }
        let captured = self.ram.captured.take().expect("it is under way");
        let Captured {
            full,
            filling,
            spare,
            ..
        } = *captured;
        full.into_iter().chain(spare).chain([filling]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Consumer, Region};
    use std::collections::BTreeMap;

    const PAGE: usize = PAGE_SIZE as usize;
    const PAGES: usize = 700;

    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: usize) -> usize {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (self.0 >> 33) as usize % limit
        }
    }

    fn ram() -> Ram {
        Ram::new(&[Region {
            base: 0,
            length: (PAGES * PAGE) as u64,
        }])
    }

    fn disturb(ram: &mut Ram, random: &mut Random) {
        let offset = random.below(PAGES * PAGE - 8) & !7;
        match random.below(10) {
            0 => ram.visit_written(Consumer::Checkpoint, |_, _| {}),
            1 => {
                let _looked = ram.digest();
            }
            2 => {
                let length = random.below(3 * PAGE).min(PAGES * PAGE - offset);
                ram.write(offset as u64, &vec![random.below(3) as u8; length])
                    .unwrap();
            }
            3 => {
                ram.begin_trial(Box::default());
                ram.store(offset, 8, 99);
                ram.undo_trial();
            }
            4 if random.below(100) == 0 => ram.clear(),
            _ if ram.is_plain(offset) => ram.store_u64(offset, random.below(3) as u64),
            _ => {
                let _disturbed = ram.store(offset, 8, random.below(3) as u64);
            }
        }
    }

    /// Whatever is written while it is taken, a snapshot is RAM as it was at its moment, and every
    /// page is in it once.
    #[test]
    fn a_snapshot_is_ram_as_it_was_at_its_moment() {
        for seed in 0..60 {
            let random = &mut Random(seed);
            let mut ram = ram();
            (0..random.below(2000)).for_each(|_| disturb(&mut ram, random));
            let expected = ram.bytes.clone();
            ram.begin_capture(Extent::Whole);
            assert!((0..PAGES).all(|page| !ram.is_plain(page * PAGE)));
            let mut pages = BTreeMap::new();
            let slice = 1 + random.below(200);
            loop {
                (0..random.below(200)).for_each(|_| disturb(&mut ram, random));
                let mut capture = ram.capture().unwrap();
                let waiting = capture.waiting_pages();
                capture.copy(slice);
                assert!(capture.waiting_pages() <= waiting + slice);
                while let Some(batch) = capture.take_batch() {
                    for (index, bytes) in batch.iter() {
                        let again = pages.insert(index, bytes.to_vec());
                        assert_eq!(again, None, "page {index} twice, seed {seed}");
                    }
                    capture.reuse(batch);
                }
                if capture.is_complete() {
                    assert_eq!(capture.waiting_pages(), 0);
                    capture.end();
                    break;
                }
            }
            let mut taken = vec![0; PAGES * PAGE];
            for (index, bytes) in pages {
                taken[index as usize * PAGE..][..PAGE].copy_from_slice(&bytes);
            }
            assert!(taken == expected, "seed {seed}");
            let mut copy = self::ram();
            for page in 0..PAGES {
                copy.load_page(page, ram.page(page));
            }
            assert_eq!(ram.digest(), copy.digest(), "seed {seed}");
        }
    }

    /// Takes the snapshot that is under way to its end, while RAM is written; its pages overwrite those of
    /// `copy`.
    fn take_into(ram: &mut Ram, copy: &mut [u8], random: &mut Random) {
        loop {
            (0..random.below(100)).for_each(|_| disturb(ram, random));
            let mut capture = ram.capture().unwrap();
            capture.copy(1 + random.below(200));
            while let Some(batch) = capture.take_batch() {
                for (index, bytes) in batch.iter() {
                    copy[index as usize * PAGE..][..PAGE].copy_from_slice(bytes);
                }
            }
            if capture.is_complete() {
                capture.end();
                return;
            }
        }
    }

    /// Whatever is written meanwhile, and whatever other snapshots come between: the rounds of a copy, and the
    /// snapshots of a journal, are together what RAM was when the last one began.
    #[test]
    fn what_changed_is_with_all_before_it_ram_as_it_was_when_the_last_one_began() {
        let copy = (Extent::First, Extent::Changes, Consumer::Copy);
        let journal = (Extent::Base, Extent::Increment, Consumer::Journal);
        for seed in 0..120 {
            let random = &mut Random(seed);
            let (of, other) = if seed % 2 == 0 {
                (copy, journal)
            } else {
                (journal, copy)
            };
            let (first, changes, consumer) = of;
            let mut ram = ram();
            (0..random.below(2000)).for_each(|_| disturb(&mut ram, random));
            let mut copy = vec![0; PAGES * PAGE];
            ram.begin_capture(first);
            take_into(&mut ram, &mut copy, random);
            for round in 0..4 {
                if random.below(3) == 0 {
                    let others = [Extent::Whole, other.0, other.1, Extent::Checkpoint];
                    ram.begin_capture(others[random.below(4)]);
                    ram.capture().unwrap().copy(random.below(PAGES));
                    if random.below(2) == 0 {
                        ram.capture().unwrap().end();
                    }
                }
                (0..random.below(500)).for_each(|_| disturb(&mut ram, random));
                let expected = ram.bytes.clone();
                let changed = ram.pages_unseen(consumer);
                ram.begin_capture(changes);
                assert_eq!(ram.pages_unseen(consumer), 0);
                take_into(&mut ram, &mut copy, random);
                let wrong = (0..PAGES).find(|page| {
                    let at = page * PAGE..(page + 1) * PAGE;
                    copy[at.clone()] != expected[at]
                });
                assert_eq!(wrong, None, "seed {seed}, round {round} of {changed} pages");
            }
        }
    }

    /// Whatever is written meanwhile, and whatever copies begin and end between them: a machine whose pages are
    /// replaced by those of checkpoint after checkpoint has the RAM of each one's moment, and its digest.
    #[test]
    fn checkpoints_bring_another_ram_along() {
        for seed in 0..60 {
            let random = &mut Random(seed);
            let mut ram = ram();
            (0..random.below(2000)).for_each(|_| write(&mut ram, random));
            let mut copy = self::ram();
            (0..PAGES).for_each(|page| copy.load_page(page, ram.page(page)));
            ram.begin_epoch(Consumer::Checkpoint);
            assert_eq!(ram.pages_unseen(Consumer::Checkpoint), 0);
            for checkpoint in 0..6 {
                (0..random.below(300)).for_each(|_| write(&mut ram, random));
                if random.below(3) == 0 {
                    ram.begin_capture([Extent::First, Extent::Changes][random.below(2)]);
                    ram.capture().unwrap().copy(random.below(PAGES));
                    ram.capture().unwrap().end();
                }
                (0..random.below(300)).for_each(|_| write(&mut ram, random));
                let expected = ram.digest();
                ram.begin_capture(Extent::Checkpoint);
                loop {
                    (0..random.below(50)).for_each(|_| write(&mut ram, random));
                    let mut capture = ram.capture().unwrap();
                    capture.copy(1 + random.below(100));
                    while let Some(batch) = capture.take_batch() {
                        let pages = batch.iter();
                        pages.for_each(|(index, bytes)| copy.load_page(index as usize, bytes));
                    }
                    if capture.is_complete() {
                        capture.end();
                        break;
                    }
                }
                assert_eq!(
                    copy.digest(),
                    expected,
                    "seed {seed}, checkpoint {checkpoint}"
                );
            }
        }
    }

    /// As [`disturb`], but no consumer looks.
    fn write(ram: &mut Ram, random: &mut Random) {
        let offset = random.below(PAGES * PAGE - 8) & !7;
        match random.below(8) {
            0 => {
                let length = random.below(3 * PAGE).min(PAGES * PAGE - offset);
                ram.write(offset as u64, &vec![random.below(3) as u8; length])
                    .unwrap();
            }
            _ if ram.is_plain(offset) => ram.store_u64(offset, random.below(3) as u64),
            _ => {
                let _disturbed = ram.store(offset, 8, random.below(3) as u64);
            }
        }
    }

    #[test]
    fn one_that_is_cancelled_leaves_every_page_as_quick_as_it_was() {
        let mut ram = ram();
        ram.store(5 * PAGE, 8, 1);
        ram.begin_capture(Extent::Whole);
        ram.store(6 * PAGE, 8, 1);
        ram.begin_capture(Extent::Whole);
        ram.capture().unwrap().copy(2);
        ram.capture().unwrap().end();
        assert!(ram.capture().is_none());
        assert!(ram.is_plain(5 * PAGE) && ram.is_plain(6 * PAGE));
        assert!(!ram.is_plain(7 * PAGE), "no digest has seen it written");
        ram.store(7 * PAGE, 8, 1);
    }
}

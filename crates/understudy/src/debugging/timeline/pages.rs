//! Pages of RAM as they were at checkpoints.

use machine::input::InstructionCount;
use machine::memory::PAGE_SIZE;
use std::collections::BTreeMap;

const ZEROS: [u8; PAGE_SIZE as usize] = [0; PAGE_SIZE as usize];

/// What a page held at a checkpoint; nothing if that was zeros.
type Version = (InstructionCount, Option<Box<[u8]>>);

/// Every page that a checkpoint has seen written, as it was at each of these.
#[derive(Default)]
pub struct Pages {
    /// In the order of their counts.
    versions: BTreeMap<u32, Vec<Version>>,
    bytes: usize,
}

impl Pages {
    /// The page holds `bytes` at a checkpoint.
    pub fn add(&mut self, page: u32, count: InstructionCount, bytes: &[u8]) {
        let held = (bytes != ZEROS).then(|| bytes.into());
        self.bytes += if held.is_some() { bytes.len() } else { 0 };
        let versions = self.versions.entry(page).or_default();
        let at = versions.partition_point(|(earlier, _)| *earlier < count);
        versions.insert(at, (count, held));
    }

    /// What the page held at this checkpoint.
    pub fn at(&self, page: u32, count: InstructionCount) -> &[u8] {
        let versions = self.versions.get(&page).map_or(&[][..], Vec::as_slice);
        let after = versions.partition_point(|(earlier, _)| *earlier <= count);
        let held = after
            .checked_sub(1)
            .and_then(|last| versions[last].1.as_deref());
        held.unwrap_or(&ZEROS)
    }

    /// Checkpoint `count` is given up; what it knew of the page is from now on known by the one that
    /// follows.
    pub fn merge(&mut self, page: u32, count: InstructionCount, next: InstructionCount) {
        let Some(versions) = self.versions.get_mut(&page) else {
            return;
        };
        let Ok(at) = versions.binary_search_by_key(&count, |(count, _)| *count) else {
            return;
        };
        if versions
            .get(at + 1)
            .is_some_and(|(count, _)| *count == next)
        {
            let (_, held) = versions.remove(at);
            self.bytes -= held.map_or(0, |bytes| bytes.len());
        } else {
            versions[at].0 = next;
        }
    }

    /// Bytes that are held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(byte: u8) -> Vec<u8> {
        vec![byte; PAGE_SIZE as usize]
    }

    #[test]
    fn a_page_is_as_it_was_at_the_last_checkpoint_that_saw_it_written() {
        let mut pages = Pages::default();
        pages.add(3, 100, &page(1));
        pages.add(3, 300, &page(0));
        pages.add(3, 200, &page(2));
        let first = |pages: &Pages, count| pages.at(3, count)[0];
        assert_eq!(
            [50, 100, 150, 200, 299, 300].map(|count| first(&pages, count)),
            [0, 1, 1, 2, 2, 0]
        );
        assert_eq!(pages.at(4, 300), ZEROS);
        assert_eq!(pages.bytes(), 2 * PAGE_SIZE as usize);
        pages.merge(3, 200, 250);
        assert_eq!([250, 299, 300].map(|count| first(&pages, count)), [2, 2, 0]);
        pages.merge(3, 250, 300);
        assert_eq!([100, 299, 300].map(|count| first(&pages, count)), [1, 1, 0]);
    }
}

//! Where compiled code, its links and its site caches are kept. Bounded: when it is full, everything
//! is dropped and what is hot is compiled again.

use crate::executable_memory::ExecutableMemory;
use machine::memory::ask_for_huge_pages;
use std::io;
use std::num::NonZeroU32;

/// Bytes for code.
const CODE_BYTES: usize = 48 << 20;
/// Bytes for site caches, 16 each.
const SITE_BYTES: usize = 24 << 20;
/// Bytes that the longest piece may take: a load or store, the largest, takes less than 5 KiB where
/// all registers have to be put right on each way out and all groups to be checked again.
pub const LARGEST_PIECE: usize = 1 << 20;
/// Instructions of the longest piece.
pub const LONGEST_PIECE: usize = 96;
/// Sites that a piece may have: one for each instruction, twice in a loop.
const SITES_OF_PIECE: usize = 2 * LONGEST_PIECE;
/// Numbers of a site cache: tag and addend.
const SITE_WORDS: usize = 2;
/// A tag that no access has: its key is zero.
const EMPTY_TAG: u64 = 0;

/// A jump to a place in the same page that was not compiled yet.
#[derive(Clone, Copy)]
pub struct Link {
    /// Offset in the code of the relative address to patch.
    pub patch: u32,
}

/// The cache.
pub struct CodeCache {
    memory: ExecutableMemory,
    /// Where code of pieces begins, behind the routines.
    first: usize,
    used: usize,
    sites: usize,
    links: Vec<Link>,
}

impl CodeCache {
    /// An empty cache. Fails where the host does not grant executable memory.
    pub fn new() -> io::Result<CodeCache> {
        let mut memory = ExecutableMemory::new(CODE_BYTES, SITE_BYTES)?;
        ask_for_huge_pages(memory.data());
        Ok(CodeCache {
            memory,
            first: 0,
            used: 0,
            sites: 0,
            links: Vec::new(),
        })
    }

    /// Address at which the next code will run.
    pub fn next_address(&self) -> usize {
        self.memory.code_address() + self.used
    }

    /// Address of offset zero.
    pub fn base(&self) -> usize {
        self.memory.code_address()
    }

    /// Appends code that stays when pieces are dropped.
    pub fn add_routines(&mut self, code: &[u8]) {
        self.add(code);
        self.first = self.used;
    }

    /// Whether another piece may not fit.
    pub fn is_full(&self) -> bool {
        self.used + LARGEST_PIECE > CODE_BYTES
            || (self.sites + SITES_OF_PIECE) * SITE_WORDS * 8 > SITE_BYTES
    }

    /// Appends code; gives its offset, which is never zero for a piece.
    pub fn add(&mut self, code: &[u8]) -> Option<NonZeroU32> {
        let offset = self.used;
        self.memory.write_code(offset, code);
        self.used = (offset + code.len()).next_multiple_of(16);
        NonZeroU32::new(offset as u32)
    }

    /// Drops all pieces, their links and sites.
    pub fn clear(&mut self) {
        self.used = self.first;
        self.links.clear();
        self.clear_sites();
        self.sites = 0;
    }

    /// Address of an empty site cache.
    pub fn add_site(&mut self) -> usize {
        let site = self.sites;
        self.sites += 1;
        self.memory.data_address() + site * SITE_WORDS * 8
    }

    /// Empties all site caches.
    pub fn clear_sites(&mut self) {
        let used = self.sites * SITE_WORDS;
        self.memory.data()[..used].fill(EMPTY_TAG);
    }

    /// The number that the next link will have.
    pub fn next_link(&self) -> usize {
        self.links.len()
    }

    /// Remembers a link.
    pub fn add_link(&mut self, link: Link) {
        self.links.push(link);
    }

    /// Writes one byte of code that is there.
    pub fn patch_byte(&mut self, offset: u32, byte: u8) {
        self.memory.write_code(offset as usize, &[byte]);
    }

    /// Lets link `number` lead to the code at `target`.
    pub fn patch(&mut self, number: usize, target: NonZeroU32) {
        let patch = self.links[number].patch as usize;
        let relative = i64::from(target.get()) - (patch as i64 + 4);
        self.memory
            .write_code(patch, &(relative as i32).to_le_bytes());
    }
}

//! Decoded blocks, kept by physical address, and the way from RIP to them.

use super::op::Op;
use crate::ram::PAGE_SIZE;
use std::collections::BTreeMap;

/// Instructions that follow each other within a page.
pub(crate) struct Block {
    pub ops: Box<[Op]>,
    /// Physical address of the first.
    #[cfg(jit)]
    pub physical: u64,
    /// How often it was executed, as far as that matters.
    #[cfg(jit)]
    pub heat: u32,
    /// Where its compiled code is; zero is nowhere.
    #[cfg(jit)]
    pub code: u32,
    /// Its instructions, if they overwrite all flags before anybody sees them; else zero.
    #[cfg(jit)]
    pub bare: u8,
    /// The same, each access to memory being looked at alone.
    #[cfg(jit)]
    pub ungrouped: u32,
}

/// How many addresses the way from RIP to a block is remembered for.
const JUMPS: usize = 8192;

#[derive(Clone, Copy)]
struct Jump {
    /// RIP, with a bit flipped for user mode.
    key: u64,
    /// The TLB's fetch generation when this was found.
    generation: u32,
    block: u32,
}

/// The blocks that begin in a page: offset and number, by offset.
type PageBlocks = Vec<(u16, u32)>;

/// So many decoded instructions are kept: some 100 MiB. A guest that executes more code than that in
/// turn, or makes it up, must not fill the host's memory.
const MOST_OPS: usize = 2 << 20;

/// All decoded blocks.
pub(crate) struct Cache {
    /// Instructions in all blocks.
    ops: usize,
    blocks: Vec<Block>,
    free: Vec<u32>,
    /// Of 64-bit code.
    pages: Vec<PageBlocks>,
    /// Of 32-bit code, by page; there is little of it.
    compatibility_pages: BTreeMap<usize, PageBlocks>,
    jumps: Box<[Jump; JUMPS]>,
}

impl Cache {
    pub fn new() -> Cache {
        let empty = Jump {
            key: 0,
            generation: 0,
            block: 0,
        };
        Cache {
            ops: 0,
            blocks: Vec::new(),
            free: Vec::new(),
            pages: Vec::new(),
            compatibility_pages: BTreeMap::new(),
            jumps: Box::new([empty; JUMPS]),
        }
    }

    /// What jumps are remembered by.
    pub fn key(rip: u64, is_user: bool) -> u64 {
        rip ^ u64::from(is_user) << 62
    }

    fn slot(key: u64) -> usize {
        (key ^ key >> 13) as usize % JUMPS
    }

    /// The block that a jump led to before.
    #[inline(always)]
    pub fn jump(&self, key: u64, generation: u32) -> Option<u32> {
        let jump = &self.jumps[Self::slot(key)];
        (jump.key == key && jump.generation == generation).then_some(jump.block)
    }

    /// Remembers where a jump leads to.
    pub fn remember(&mut self, key: u64, generation: u32, block: u32) {
        self.jumps[Self::slot(key)] = Jump {
            key,
            generation,
            block,
        };
    }

    /// The block's instructions.
    #[inline(always)]
    pub fn block(&self, number: u32) -> &Block {
        &self.blocks[number as usize]
    }

    /// The same, to be changed.
    #[cfg(jit)]
    pub fn block_mut(&mut self, number: u32) -> &mut Block {
        &mut self.blocks[number as usize]
    }

    /// No block has compiled code any more.
    #[cfg(jit)]
    pub fn forget_compiled(&mut self) {
        for block in &mut self.blocks {
            block.code = 0;
            block.ungrouped = 0;
        }
    }

    /// The block of 64-bit code at a physical address.
    pub fn find(&self, physical: u64) -> Option<u32> {
        let page = self.pages.get((physical / PAGE_SIZE) as usize)?;
        find_in(page, physical)
    }

    /// The block of 32-bit code at a physical address.
    pub fn find_compatibility(&self, physical: u64) -> Option<u32> {
        let page = (physical / PAGE_SIZE) as usize;
        find_in(self.compatibility_pages.get(&page)?, physical)
    }

    /// Whether all should be dropped before another block is kept.
    pub fn is_full(&self) -> bool {
        self.ops >= MOST_OPS
    }

    /// Drops all blocks. Remembered jumps must be dead by another generation.
    pub fn clear(&mut self) {
        self.ops = 0;
        self.blocks = Vec::new();
        self.free = Vec::new();
        self.pages = Vec::new();
        self.compatibility_pages = BTreeMap::new();
    }

    /// Keeps a block of 64-bit code, or of 32-bit code.
    pub fn insert(&mut self, physical: u64, is_compatibility: bool, block: Block) -> u32 {
        self.ops += block.ops.len();
        let number = match self.free.pop() {
            Some(number) => {
                self.blocks[number as usize] = block;
                number
            }
            None => {
                self.blocks.push(block);
                (self.blocks.len() - 1) as u32
            }
        };
        let page = (physical / PAGE_SIZE) as usize;
        let offset = (physical % PAGE_SIZE) as u16;
        let blocks = if is_compatibility {
            self.compatibility_pages.entry(page).or_default()
        } else {
            if page >= self.pages.len() {
                self.pages.resize_with(page + 1, Vec::new);
            }
            &mut self.pages[page]
        };
        if let Err(at) = blocks.binary_search_by_key(&offset, |entry| entry.0) {
            blocks.insert(at, (offset, number));
        }
        number
    }

    /// Drops the blocks of a page. Remembered jumps must be dead by another generation.
    pub fn drop_page(&mut self, page: usize) {
        let mut blocks = self
            .pages
            .get_mut(page)
            .map(std::mem::take)
            .unwrap_or_default();
        blocks.extend(self.compatibility_pages.remove(&page).unwrap_or_default());
        for (_, number) in blocks {
            self.ops -= self.blocks[number as usize].ops.len();
            let block = &mut self.blocks[number as usize];
            block.ops = Box::default();
            #[cfg(jit)]
            {
                block.code = 0;
                block.ungrouped = 0;
            }
            self.free.push(number);
        }
    }
}

fn find_in(page: &PageBlocks, physical: u64) -> Option<u32> {
    let offset = (physical % PAGE_SIZE) as u16;
    let at = page.binary_search_by_key(&offset, |entry| entry.0).ok()?;
    page.get(at).map(|entry| entry.1)
}

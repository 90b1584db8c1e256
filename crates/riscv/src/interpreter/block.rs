//! The cache of decoded blocks, keyed by where in RAM they begin.

mod slots;

use crate::hart::registers::SINK;
use crate::isa::{self, Extensions, Instruction, Op};
use crate::memory::Memory;
use machine::memory::PAGE_SIZE;
pub use slots::Found;
use slots::Slots;
use std::num::NonZeroU32;

/// An instruction ready to execute.
#[derive(Clone, Copy, Debug)]
pub struct DecodedOp {
    /// What to do.
    pub op: Op,
    /// Destination, with x0 mapped to [`SINK`] where it is an integer register.
    pub rd: u8,
    /// First source.
    pub rs1: u8,
    /// Second source.
    pub rs2: u8,
    /// As in [`Instruction`].
    pub immediate: i32,
    /// Bytes from the start of the block.
    pub offset: u16,
    /// Bytes: 2 or 4.
    pub length: u8,
}

impl DecodedOp {
    /// A decoded instruction `offset` bytes into its block.
    pub fn new(instruction: Instruction, offset: u16) -> DecodedOp {
        let Instruction {
            op,
            rd,
            rs1,
            rs2,
            immediate,
            length,
        } = instruction;
        let rd = if rd == 0 && !writes_float(op) {
            SINK
        } else {
            rd
        };
        DecodedOp {
            op,
            rd,
            rs1,
            rs2,
            immediate,
            offset,
            length,
        }
    }
}

/// Whether `rd` is a floating-point register.
pub fn writes_float(op: Op) -> bool {
    use Op::*;
    matches!(
        op,
        Flw | FmaddS
            | FmsubS
            | FnmsubS
            | FnmaddS
            | FaddS
            | FsubS
            | FmulS
            | FdivS
            | FsqrtS
            | FsgnjS
            | FsgnjnS
            | FsgnjxS
            | FminS
            | FmaxS
            | FcvtSW
            | FcvtSWu
            | FcvtSL
            | FcvtSLu
            | FmvWX
            | Fld
            | FmaddD
            | FmsubD
            | FnmsubD
            | FnmaddD
            | FaddD
            | FsubD
            | FmulD
            | FdivD
            | FsqrtD
            | FsgnjD
            | FsgnjnD
            | FsgnjxD
            | FminD
            | FmaxD
            | FcvtSD
            | FcvtDS
            | FcvtDW
            | FcvtDWu
            | FcvtDL
            | FcvtDLu
            | FmvDX
            | Flh
            | FmvHX
            | FcvtSH
            | FcvtHS
            | FcvtDH
            | FcvtHD
            | FliS
            | FminmS
            | FmaxmS
            | FroundS
            | FroundnxS
            | FliD
            | FminmD
            | FmaxmD
            | FroundD
            | FroundnxD
    )
}

/// Whether nothing after `op` belongs to the same block.
fn ends_block(op: Op) -> bool {
    use Op::*;
    matches!(
        op,
        Jal | Jalr
            | Beq
            | Bne
            | Blt
            | Bge
            | Bltu
            | Bgeu
            | Csrrw
            | Csrrs
            | Csrrc
            | Csrrwi
            | Csrrsi
            | Csrrci
            | FenceI
            | Pause
            | WrsNto
            | WrsSto
            | SinvalVma
            | SfenceWInval
            | SfenceInvalIr
            | Ecall
            | Ebreak
            | Mret
            | Sret
            | Wfi
            | SfenceVma
            | Illegal
    )
}

/// Index of no block.
pub const NONE: u32 = u32::MAX;

/// A run of instructions within a page.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    first: u32,
    length: u32,
    /// The block at the target of the branch or jump that ends this one, if it lies in the same
    /// page and was looked up before. Blocks of a page are only ever dropped together.
    pub taken: u32,
    /// The block that follows this one in memory, likewise.
    pub fall_through: u32,
    /// How often it was interpreted, up to the limit at which it counts as hot.
    pub heat: u32,
}

/// Instructions of the longest block.
const LONGEST: usize = 64;
/// Instructions that are kept before all is dropped: 12 bytes each.
const CAPACITY: usize = 4 << 20;

/// The cache. Never visible to the guest: a store to a page that holds decoded code drops it.
pub struct BlockCache {
    slots: Slots,
    blocks: Vec<Block>,
    ops: Vec<DecodedOp>,
    /// How often everything was dropped.
    clears: u64,
    /// How often anything was dropped.
    drops: u64,
    extensions: Extensions,
}

impl BlockCache {
    /// An empty cache for harts with these extensions.
    pub fn new(extensions: Extensions) -> BlockCache {
        BlockCache {
            slots: Slots::new(),
            blocks: Vec::new(),
            ops: Vec::new(),
            clears: 0,
            drops: 0,
            extensions,
        }
    }

    /// What it decodes.
    pub fn extensions(&self) -> Extensions {
        self.extensions
    }

    /// The block that begins `start` bytes into RAM.
    #[inline(always)]
    pub fn lookup(&self, start: usize) -> Option<Found> {
        self.slots.find(start)
    }

    /// The block that begins at `start` was compiled.
    pub fn set_code(&mut self, start: usize, code: Option<NonZeroU32>) {
        self.slots.set_code(start, code);
    }

    /// A block by its number.
    #[inline(always)]
    pub fn block_mut(&mut self, block: u32) -> &mut Block {
        &mut self.blocks[block as usize]
    }

    /// The instructions of a block.
    #[inline(always)]
    pub fn ops(&self, block: u32) -> &[DecodedOp] {
        let Block { first, length, .. } = self.blocks[block as usize];
        &self.ops[first as usize..(first + length) as usize]
    }

    /// Whether the next [`BlockCache::decode`] may not fit: then everything has to be dropped.
    pub fn is_full(&self) -> bool {
        self.ops.len() + LONGEST > CAPACITY
    }

    /// Decodes the block at `start` and remembers it. `None` if its first instruction reaches into
    /// the next page, or may be at a breakpoint: no block leads over one.
    pub fn decode(&mut self, memory: &Memory, start: usize) -> Option<u32> {
        let page_end = (start | (PAGE_SIZE as usize - 1)) + 1;
        let first = self.ops.len();
        let mut at = start;
        while at < page_end && self.ops.len() - first < LONGEST && !memory.traps.may_break_at(at) {
            let half = memory.load_u16(at);
            let length = isa::length(half) as usize;
            if at + length > page_end {
                break;
            }
            let bits = if length == 4 {
                memory.load_u32(at)
            } else {
                half.into()
            };
            let op = DecodedOp::new(isa::decode(bits, self.extensions), (at - start) as u16);
            self.ops.push(op);
            at += length;
            if ends_block(op.op) {
                break;
            }
        }
        let length = self.ops.len() - first;
        if length == 0 {
            return None;
        }
        let block = self.blocks.len() as u32;
        self.blocks.push(Block {
            first: first as u32,
            length: length as u32,
            taken: NONE,
            fall_through: NONE,
            heat: 0,
        });
        self.slots.insert(start, block);
        Some(block)
    }

    /// Drops the blocks of the page that begins `page_offset` bytes into RAM.
    pub fn drop_page(&mut self, page_offset: usize) {
        self.drops += 1;
        self.slots.drop_page(page_offset);
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        self.slots.clear();
        self.blocks.clear();
        self.ops.clear();
        self.clears += 1;
        self.drops += 1;
    }

    /// Changes when everything was dropped.
    pub fn clears(&self) -> u64 {
        self.clears
    }

    /// Changes when anything was dropped.
    pub fn drops(&self) -> u64 {
        self.drops
    }
}

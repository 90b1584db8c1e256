//! Which instructions become one piece of compiled code.

use crate::interpreter::block::DecodedOp;
use crate::isa::{self, Extensions, Op};
use crate::memory::Memory;
use machine::memory::PAGE_SIZE;

/// Instructions of the longest piece.
pub const LONGEST: usize = jit::code_cache::LONGEST_PIECE;

/// Instructions of one page in the order of their addresses, none of them after an unconditional
/// jump: one way in, and a way out at each branch.
pub struct Piece {
    /// Offset in RAM of the page.
    pub page_offset: usize,
    /// The instructions; their `offset` is the one in the page.
    pub ops: Vec<DecodedOp>,
    /// If the last instruction reaches into the next page.
    pub crossing: Option<Crossing>,
}

/// What is known of the second half of an instruction that crosses a page.
#[derive(Clone, Copy)]
pub struct Crossing {
    /// Offset in RAM of the page that it is in.
    pub page_offset: i32,
    /// The half.
    pub half: u16,
}

impl Piece {
    /// The piece that begins at `start`, an offset in RAM; `next_page` is that of the next virtual
    /// page, if it is known.
    pub fn at(
        memory: &Memory,
        start: usize,
        next_page: Option<usize>,
        extensions: Extensions,
    ) -> Piece {
        let page_offset = start & !(PAGE_SIZE as usize - 1);
        let page_end = page_offset + PAGE_SIZE as usize;
        let mut ops: Vec<DecodedOp> = Vec::new();
        let mut crossing = None;
        let mut at = start;
        while at < page_end && ops.len() < LONGEST && !memory.traps.may_break_at(at) {
            let half = memory.load_u16(at);
            let length = isa::length(half) as usize;
            if at + length > page_end {
                let Some((page_offset, next)) =
                    next_page.and_then(|next| Some((i32::try_from(next).ok()?, next)))
                else {
                    break;
                };
                let half = memory.load_u16(next);
                crossing = Some(Crossing { page_offset, half });
            }
            let bits = if let Some(crossing) = &crossing {
                u32::from(crossing.half) << 16 | u32::from(half)
            } else if length == 4 {
                memory.load_u32(at)
            } else {
                half.into()
            };
            let op = DecodedOp::new(isa::decode(bits, extensions), (at - page_offset) as u16);
            ops.push(op);
            at += length;
            if ends_piece(&op) {
                break;
            }
        }
        Piece {
            page_offset,
            ops,
            crossing,
        }
    }

    /// Offset in the page of what follows the last instruction; the page's size or two bytes more if
    /// it is in the next page.
    pub fn end(&self) -> i32 {
        let last = self.ops.last().expect("a piece has instructions");
        i32::from(last.offset) + i32::from(last.length)
    }
}

/// What follows an unconditional jump is not reached from it, and what follows a loop rarely.
fn ends_piece(op: &DecodedOp) -> bool {
    use Op::*;
    match op.op {
        Beq | Bne | Blt | Bge | Bltu | Bgeu => op.immediate <= 0,
        Jal | Jalr => true,
        other => leaves(other),
    }
}

/// Whether the pc after it is not that of the next instruction, or may be executed in another mode.
pub fn leaves(op: Op) -> bool {
    use Op::*;
    matches!(op, Ecall | Ebreak | Mret | Sret | Wfi | FenceI | Illegal)
}

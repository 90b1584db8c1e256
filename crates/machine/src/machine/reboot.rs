//! The guest's reset: within `run`, at the count of the store that asked for it, in every replica.
//!
//! RAM, harts and devices begin anew from the images that the machine keeps; the instruction count and
//! guest time go on, and so do the numbers of requests to the outside.

use super::{Machine, State, isa_description, turns};
use crate::boot::{self, BootEntry, BootError, BootImages};
use crate::bus::{BoardConfig, Bus};
use crate::hart::Hart;
use crate::input::InstructionCount;
use crate::interpreter::block::BlockCache;
use crate::memory::{Memory, PAGE_SIZE};
use crate::output::{Finish, Output};
use std::sync::Arc;

/// The images as bytes, as a snapshot holds them.
pub(super) fn encode(images: &BootImages) -> Arc<[u8]> {
    postcard::to_stdvec(images)
        .expect("plain data serialises")
        .into()
}

/// What [`encode`] made; `None` if it is something else.
pub(crate) fn decode(bytes: &[u8]) -> Option<BootImages> {
    match postcard::take_from_bytes(bytes) {
        Ok((images, [])) => Some(images),
        _ => None,
    }
}

/// Loads what a board begins with.
pub(super) fn load(
    board: &BoardConfig,
    images: &BootImages,
    memory: &mut Memory,
    bus: &mut Bus,
) -> Result<BootEntry, BootError> {
    let isa = isa_description(board.extensions());
    boot::load(board, images, &isa, memory, bus)
}

/// Harts at reset, at instruction count `count`.
pub(super) fn harts(board: &BoardConfig, entry: BootEntry, count: InstructionCount) -> Vec<Hart> {
    let hart = |id| {
        let mut hart = Hart::new(id, entry.pc);
        hart.counters.begin(count);
        hart.update_translation_context();
        hart
    };
    (0..board.harts).map(hart).collect()
}

impl Machine {
    /// A guest that resets ends its machine from here on, instead of beginning anew.
    pub fn end_at_reset(&mut self) {
        self.state.ends_at_reset = true;
    }

    /// Carries out a reset that the guest asked for, if it did. A machine whose images cannot be loaded
    /// any more (its snapshot was of another make) stays as it is, and has ended.
    pub(super) fn reboot_if_asked(&mut self) {
        let asked = self.state.bus.finish() == Some(Finish::Reset);
        if asked && !self.state.ends_at_reset && self.reboot().is_none() {
            self.state.ends_at_reset = true;
            let end = Output::Finish(Finish::Reset);
            self.state.outputs.other(end);
        }
    }

    fn reboot(&mut self) -> Option<()> {
        let images = decode(&self.images)?;
        self.clear_memory();
        let State {
            config,
            count,
            harts,
            current,
            slice_end,
            bus,
            outputs,
            ..
        } = &mut self.state;
        bus.reset(&config.board).ok()?;
        let entry = load(&config.board, &images, &mut self.memory, bus).ok()?;
        *harts = self::harts(&config.board, entry, *count);
        *current = 0;
        *slice_end = *count + turns::SLICE;
        outputs.other(Output::Reboot);
        self.memory.take_disturbances();
        self.forget_caches();
        Some(())
    }

    /// Zeroes RAM; pages that are known to be zero stay untouched.
    fn clear_memory(&mut self) {
        for index in 0..self.memory.pages() {
            if !self.is_known_to_be_zero(index) {
                self.memory.clear_page(index * PAGE_SIZE as usize);
            }
        }
        self.memory.forget_page_tables();
        self.memory.forget_code();
    }

    /// The harts are new ones: nothing that was remembered beside the old ones may be used.
    fn forget_caches(&mut self) {
        self.blocks = BlockCache::new(self.state.config.board.extensions());
        self.jit = None;
        self.set_engine(self.engine);
    }
}
